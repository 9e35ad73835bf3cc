import itertools
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.data.augmentation import AUGMENTATIONS, Augmentation, CutMix, random_window


@tf.function(
    input_signature=[tf.TensorSpec((2,), tf.int32), *2 * [tf.TensorSpec((2,))], tf.TensorSpec(())]
)
def window(size, area, seed, aspect=1.0):
    return random_window(size, tf.unstack(area), tf.cast(seed, "int64"), aspect)


sides = st.integers(1, 3000)
areas = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted)
seeds = st.tuples(st.integers(0, 1000), st.integers(0, 1000))
aspects = st.sampled_from([0.5, 1.0, 3.0])


class TestRandomWindow:
    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(height=sides, width=sides, area=areas, seed=seeds, aspect=aspects)
    @example(height=1, width=1, area=[0.35, 1.0], seed=(0, 0), aspect=3.0)
    @example(height=1, width=3000, area=[0.08, 0.08], seed=(1, 0), aspect=1.0)
    @example(height=3000, width=1, area=[1.0, 1.0], seed=(2, 0), aspect=1.0)
    @example(height=2, width=3, area=[0.01, 0.01], seed=(3, 0), aspect=0.5)
    def test_is_inside_the_image_and_never_empty(self, height, width, area, seed, aspect):
        top, left, tall, wide = window((height, width), area, seed, aspect).numpy().tolist()
        assert 0 <= top < top + tall <= height
        assert 0 <= left < left + wide <= width

    @settings(deadline=None, max_examples=300, derandomize=True)
    @given(height=sides, width=sides, area=areas, seed=seeds, aspect=aspects)
    def test_has_the_area_and_the_shape_asked_for(self, height, width, area, seed, aspect):
        # In a longer image, no window of the shapes allowed has the least area.
        longer = max(width / height / aspect, height / width * aspect)
        assume(longer <= 4 / 3 / area[0])
        _, _, tall, wide = window((height, width), area, seed, aspect).numpy().astype(float)
        least, largest = (part * height * width for part in area)
        assert (tall + 0.51) * (wide + 0.51) >= 0.999 * least
        assert min(tall, wide) == 1 or (tall - 0.51) * (wide - 0.51) <= 1.001 * largest
        if longer <= 4 / 3 and min(tall, wide) > 1:
            assert (wide + 0.51) / (tall - 0.51) >= 0.749 * aspect
            assert (wide - 0.51) / (tall + 0.51) <= 1.334 * aspect

    def test_is_anywhere_of_any_area(self):
        seeds = tf.data.Dataset.range(4000)
        windows = seeds.map(lambda seed: random_window((20, 20), (0.2, 0.6), (7, seed)))
        top, left, tall, wide = np.array(list(windows.as_numpy_iterator())).T
        shares, _ = np.histogram(tall * wide / 400, bins=[0.18, 0.3, 0.4, 0.5, 0.62])
        np.testing.assert_allclose(shares / 4000, 0.25, atol=0.06)
        for corner, side in ((top, tall), (left, wide)):
            room = 20 - side
            for edge in (corner == 0, corner == room):
                assert np.mean(edge) == pytest.approx(np.mean(1 / (room + 1)), abs=0.02)
            assert np.mean(corner / room) == pytest.approx(0.5, abs=0.02)

    def test_depends_on_the_seed_alone(self):
        first, again, other = (
            window((200, 300), (0.1, 0.9), seed).numpy().tolist()
            for seed in ((1, 2), (1, 2), (2, 1))
        )
        assert first == again != other


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("height", "width", "image_size"),
    [(384, 512, (32, 32)), (150, 100, (112, 112)), (384, 512, (24, 48))],
)
def test_photographs_are_windows_of_the_image(tmp_path, suffix, height, width, image_size):
    """On a ramp, the colours of a view tell where in the image it was."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack((255 * x / (width - 1), 255 * y / (height - 1), 128 + 0 * x), -1)
    file = tmp_path / f"ramp{suffix}"
    PIL.Image.fromarray(ramp.round().astype("uint8")).save(file, quality=95, subsampling=0)
    split = data.Split([file] * 96, np.zeros(96, int))
    ((views, _),) = data.batches(
        split, image_size=image_size, batch_size=96, augmentation="photograph", epochs=range(1)
    ).as_numpy_iterator()
    middle, slope = {}, {}
    for channel, axis in ((0, 1), (1, 2)):  # red changes to the right, green downwards
        side = image_size[1 - channel]
        place = np.stack((np.ones(side), np.arange(side) - (side - 1) / 2))
        lines = views[..., channel].mean(axis=axis)
        (middle[channel], slope[channel]) = np.linalg.lstsq(place.T, lines.T)[0]
        fitted = middle[channel] + np.outer(place[1], slope[channel])
        assert np.abs(fitted.T - lines)[:, 2:-2].max() < 4
        assert np.abs(views[..., channel] - np.expand_dims(lines, axis)).max() < 8
    wide, tall = (np.abs(slope[channel]) * image_size[1 - channel] / 255 for channel in (0, 1))
    assert (wide * tall).min() > 0.33
    assert (wide * tall).max() < 1.03
    aspect = image_size[1] / image_size[0]
    shape = wide * width / (tall * height)
    assert shape.min() > min(3 / 4 * aspect, width / height) - 0.03
    assert shape.max() < max(4 / 3 * aspect, width / height) + 0.06
    mirrored = slope[0] < 0
    assert 0.3 < mirrored.mean() < 0.7
    assert (slope[1] > 0).all()
    for channel, part in ((0, wide), (1, tall)):
        assert (middle[channel] / 255 - part / 2).min() > -0.02
        assert (middle[channel] / 255 + part / 2).max() < 1.02


@pytest.fixture
def policy(monkeypatch):
    """Makes a policy known; returns batches of images varied by it."""

    def vary(policy, images, labels, **options):
        monkeypatch.setitem(AUGMENTATIONS, "of this test", policy)
        dataset = data.batches(
            data.Split(images, labels),
            channels=images.shape[-1],
            augmentation="of this test",
            **{"image_size": images.shape[1], "epochs": range(1), **options},
        )
        return list(dataset.as_numpy_iterator())

    return vary


class TestBatches:
    def test_small_photographs_move_into_a_black_margin(self):
        images = np.zeros((200, 32, 32, 3), "uint8")
        images[:, 12, 10] = 255
        dataset = data.batches(
            data.Split(images, np.zeros(200, int)),
            image_size=32,
            augmentation="small photograph",
            epochs=range(1),
        )
        shown = np.concatenate([batch for batch, _ in dataset.as_numpy_iterator()])
        assert set(np.unique(shown)) == {0, 255}
        _, top, left = np.argwhere(shown[..., 0] == 255).T
        assert len(top) == 200
        assert set(top - 12) == set(range(-4, 5))
        mirrored = left > 15
        assert set(np.where(mirrored, 31 - left, left) - 10) == set(range(-4, 5))
        assert 0.35 < mirrored.mean() < 0.65

    def test_every_other_erased_photograph_has_a_grey_rectangle(self):
        images = np.full((400, 32, 32, 3), 255, "uint8")
        dataset = data.batches(
            data.Split(images, np.zeros(400, int)),
            image_size=32,
            augmentation="erased small photograph",
            epochs=range(1),
        )
        shown = np.concatenate([batch for batch, _ in dataset.as_numpy_iterator()])
        assert set(np.unique(shown)) == {127.5, 255}  # no black margin
        grey = (shown == 127.5).all(axis=-1)
        erased = grey.any(axis=(1, 2))
        assert 0.4 < erased.mean() < 0.6
        for each in grey[erased]:
            assert each.sum() == each.any(axis=0).sum() * each.any(axis=1).sum()
        assert grey[erased].mean(axis=(1, 2)).max() < 0.37  # a third, and whole pixels

    def test_neighbouring_batches_are_varied_each_in_its_own_way(self, policy):
        images = np.zeros((600, 17, 17, 1), "uint8")
        images[:, 8, 8] = 255
        layers = [keras.layers.RandomTranslation(0.4, 0.4, "constant", "nearest")]
        batches = policy(
            Augmentation(layers=lambda: layers), images, np.zeros(600, int), batch_size=10
        )
        places = np.array([np.argwhere(images[..., 0] == 255)[:, 1:] for images, _ in batches])
        assert places.std(axis=(0, 1)).min() > 3
        for lag in (1, 2):
            before, after = places[:-lag].reshape(-1, 2), places[lag:].reshape(-1, 2)
            related = np.corrcoef(before.T, after.T)
            assert np.abs(related - np.eye(4)).max() < 0.2

    def test_every_epoch_varies_its_batches_anew(self, policy):
        images = np.full((20, 8, 8, 1), 100, "uint8")
        batches = policy(
            Augmentation(layers=lambda: [keras.layers.RandomBrightness(0.3)]),
            images,
            np.zeros(20, int),
            batch_size=10,
            epochs=range(6),
        )
        shades = [images[:, 0, 0, 0].round(3).tolist() for images, _ in batches]
        assert len(set(itertools.chain(*shades))) == 120

    @pytest.mark.parametrize("mix", [keras.layers.MixUp, lambda: CutMix(1.0)])
    def test_mixed_labels_are_the_shares_of_the_images(self, policy, mix):
        """A class is a colour: what there is of each in an image is what its label says."""
        labels = np.arange(60) % 3
        images = (255 * np.eye(3, dtype="uint8")[labels])[:, None, None].repeat(64, 1).repeat(64, 2)
        batches = policy(
            Augmentation(mixes=lambda: [mix()]), images, labels, classes=3, batch_size=20
        )
        shown, mixed = map(np.concatenate, zip(*batches, strict=True))
        np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(shown.mean(axis=(1, 2)) / 255, mixed, atol=1e-4)
        assert ((mixed > 0.05).sum(axis=1) > 1).any()

    @pytest.mark.parametrize("mix", [keras.layers.MixUp, lambda: CutMix(0.5)])
    def test_several_labels_are_mixed_as_the_images_are(self, policy, mix):
        """A label is a colour: an image has the colours of its labels."""
        labels = np.random.default_rng(0).integers(0, 2, (60, 3))
        images = (255 * labels.astype("uint8"))[:, None, None].repeat(64, 1).repeat(64, 2)
        batches = policy(Augmentation(mixes=lambda: [mix()]), images, labels, batch_size=20)
        shown, mixed = map(np.concatenate, zip(*batches, strict=True))
        np.testing.assert_allclose(shown.mean(axis=(1, 2)) / 255, mixed, atol=1e-4)
        assert ((mixed > 0.05) & (mixed < 0.95)).any()

    @pytest.mark.parametrize("numbers", [1, 2])
    def test_numbers_are_mixed_as_the_images_are(self, policy, numbers):
        labels = np.random.default_rng(0).uniform(0, 250, (60, numbers)).round()
        images = labels[:, None, None, :].astype("uint8").repeat(4, 1).repeat(4, 2)
        labels = labels[:, 0] if numbers == 1 else labels
        mixing = Augmentation().with_mixup(1.0)
        batches = policy(mixing, images, labels, batch_size=20)
        shown, mixed = map(np.concatenate, zip(*batches, strict=True))
        assert mixed.shape == labels.shape
        assert (mixed != mixed.round()).any()
        found = shown[:, 0, 0, 0] if numbers == 1 else shown[:, 0, 0]
        np.testing.assert_allclose(found, mixed, atol=1e-3)

    @pytest.mark.parametrize("labels", [np.arange(20) / 2, np.arange(40).reshape(20, 2) / 2])
    def test_cutmix_cannot_mix_numbers(self, labels):
        split = data.Split(np.zeros((20, 8, 8, 1), "uint8"), labels)
        with one_line_error("augmentation='strong' uses CutMix, which cannot mix numbers"):
            data.batches(split, image_size=8, channels=1, augmentation="strong")

    def test_one_mix_or_another_for_every_batch(self, policy):
        class Mark(keras.layers.Layer):
            def __init__(self, value):
                super().__init__()
                self.value = value

            def call(self, batch, training=False):
                return {**batch, "images": 0 * batch["images"] + self.value}

        batches = policy(
            Augmentation(mixes=lambda: [Mark(1.0), Mark(2.0)]),
            np.zeros((100, 2, 2, 1), "uint8"),
            np.zeros(100, int),
            classes=2,
            batch_size=1,
        )
        marks = np.array([images.item(0) for images, _ in batches])
        assert set(marks) == {1, 2}
        assert 30 < (marks == 1).sum() < 70

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (dict(mixup=0.2), None),
            (dict(mixup=0.2, cutmix=1.0), None),
            (dict(mixup=0.2, cutmix=1.0, switch=0.25), (0.75, 0.25)),
            (dict(mixup=0.2, cutmix=1.0, probability=0.5), (0.25, 0.25)),
            (dict(cutmix=1.0, probability=0.25, switch=0.1), (0.25,)),
            (dict(probability=0.5), ()),
            ({}, None),
        ],
    )
    def test_chances_of_mixes(self, options, expected):
        assert Augmentation().with_mixing(**options).chances == expected

    def test_chances_of_mixes_beside_those_of_a_policy(self):
        strong = AUGMENTATIONS["strong"]
        kinds = [keras.layers.MixUp, CutMix]
        both = strong.with_mixing(mixup=0.3, cutmix=0.7)
        assert [type(each) for each in both.mixes()] == 2 * kinds
        assert both.mixes()[2].alpha == 0.3
        assert both.mixes()[3].alpha == 0.7
        assert both.chances is None
        assert strong.with_mixing(probability=0.5).chances == (0.25, 0.25)
        some = strong.with_mixing(probability=0.5)
        assert some.with_mixing().chances == (0.25, 0.25)
        assert some.with_mixing(cutmix=1.0).chances == pytest.approx([1 / 6] * 3)
        assert some.with_mixing(mixup=1.0, cutmix=1.0, probability=0.5, switch=1.0).chances == (
            *(0.0625, 0.0625),
            *(0.0, 0.125),
        )

    def test_some_batches_are_mixed_by_each_mix_and_some_by_none(self, policy):
        class Mark(keras.layers.Layer):
            def __init__(self, value):
                super().__init__()
                self.value = value

            def call(self, batch, training=False):
                return {**batch, "images": 0 * batch["images"] + self.value}

        batches = policy(
            Augmentation(mixes=lambda: [Mark(1.0), Mark(2.0)], chances=(0.1, 0.6)),
            np.zeros((300, 2, 2, 1), "uint8"),
            np.arange(300) % 2,
            classes=2,
            batch_size=1,
        )
        marks = np.array([images.item(0) for images, _ in batches])
        shares = np.bincount(marks.astype(int)) / len(marks)
        np.testing.assert_allclose(shares, (0.3, 0.1, 0.6), atol=0.09)  # three deviations
        assert {tuple(label) for _, (label,) in batches} == {(0, 1), (1, 0)}

    def test_cutmix_pastes_rectangles_as_the_paper_does(self):
        height, width, count = 20, 30, 3000
        labels = np.arange(count, dtype="float32") % 2
        images = np.broadcast_to(labels[:, None, None, None], (count, height, width, 1))
        mixed = CutMix(1.0)({"images": tf.constant(images), "labels": labels[:, None]})
        shown = (mixed["images"].numpy() != images)[..., 0]
        np.testing.assert_allclose(
            shown.mean((1, 2)), np.abs(mixed["labels"].numpy()[:, 0] - labels), atol=1e-6
        )
        shown = shown[shown.any((1, 2))]
        for each in shown[:200]:
            assert each.sum() == each.any(0).sum() * each.any(1).sum()
        # The paper's, in its own words.
        random = np.random.default_rng(0)
        expected = []
        for stays in random.uniform(size=20_000):
            sides = [int(side * np.sqrt(1 - stays)) for side in (height, width)]
            middles = [random.integers(side) for side in (height, width)]
            ends = [
                np.clip([middle - side // 2, middle - side // 2 + side], 0, full)
                for middle, side, full in zip(middles, sides, (height, width), strict=True)
            ]
            expected.append(np.prod([end - start for start, end in ends]))
        areas, expected = shown.sum((1, 2)), np.array(expected)
        quantiles = np.linspace(0.1, 0.9, 9)
        np.testing.assert_allclose(
            np.quantile(areas, quantiles),
            np.quantile(expected[expected > 0], quantiles),
            atol=0.04 * height * width,
        )
        # Anywhere: as often at each edge, and evenly in between.
        for axis in (1, 2):
            place = shown.any(axis).mean(0)
            np.testing.assert_allclose(place, place[::-1], atol=0.06)

    def test_every_fourth_image_has_a_rectangle_of_noise(self, policy):
        images = np.full((2000, 24, 36, 1), 77, "uint8")
        batches = policy(
            Augmentation(erasing=0.25), images, np.zeros(2000, int), image_size=(24, 36)
        )
        shown = np.concatenate([batch for batch, _ in batches])[..., 0]
        noisy = shown != 77
        erased = noisy.any((1, 2))
        assert erased.mean() == pytest.approx(0.25, abs=0.03)
        noise, noisy = shown[noisy], noisy[erased]
        assert 0 <= noise.min() < 1
        assert 254 < noise.max() <= 255
        np.testing.assert_allclose(np.histogram(noise, 5)[0] / noise.size, 0.2, atol=0.01)
        tall, wide = noisy.any(2).sum(1), noisy.any(1).sum(1)
        assert (noisy.sum((1, 2)) == tall * wide).all()
        areas = tall * wide / (24 * 36)
        assert areas.min() < 0.05
        assert 0.3 < areas.max() < 0.36
        assert areas.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.015)
        ratios = np.log(wide / tall)
        assert ratios.mean() == pytest.approx(0, abs=0.1)
        assert np.log(0.25) < ratios.min() < np.log(0.5)
        assert np.log(2) < ratios.max() < np.log(4)

    def test_noise_is_another_in_every_image_and_channel(self, policy):
        images = np.full((50, 16, 16, 3), 77, "uint8")
        ((shown, _),) = policy(Augmentation(erasing=1.0), images, np.zeros(50, int), batch_size=50)
        first = [image[image != 77][:9] for image in shown]
        assert len(np.unique(np.concatenate(first))) == 9 * 50

    @pytest.mark.parametrize(
        "options",
        [
            *({"erasing": 1.5}, {"repeats": 0}, {"repeats": 1.5}),
            *({"chances": each} for each in ((0.5,), (0.7, 0.7), (-0.1, 0.5), (0.2, 0.2, 0.2))),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, options):
        (name,) = options
        with one_line_error(f"{name}="):
            Augmentation(mixes=lambda: [CutMix(1.0), keras.layers.MixUp()], **options)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_strong_gives_probabilities_and_images(self, channels):
        digits = data.load("digits").validation
        split = data.Split(digits.images.repeat(channels, -1), digits.labels)
        for images, labels in data.batches(
            split,
            image_size=16,
            channels=channels,
            augmentation="strong",
            classes=12,
            epochs=range(1),
        ).as_numpy_iterator():
            assert images.dtype == labels.dtype == "float32"
            assert images.shape[1:] == (16, 16, channels)
            assert images.min() > -0.01
            assert images.max() < 255.01
            assert images.std() > 10
            np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
            assert labels.shape[1] == 12
            assert not labels[:, 10:].any()


def test_commands_name_all_policies():
    text = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in AUGMENTATIONS if f"{name}`" not in text.replace('"', "")] == []
