import ast
import hashlib
import itertools
import subprocess
import sys
import tempfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import encoded, pixels, write_damaged, write_images

from keras_resnet import data
from keras_resnet.data.augmentation import Augmentation


def collect(dataset):
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.fixture
def split():
    return data.load("digits").validation


def test_evaluation_keeps_order_and_pixels(split):
    images, labels = collect(data.batches(split, image_size=8, channels=1, batch_size=50))
    np.testing.assert_array_equal(images, split.images.astype("float32"))
    np.testing.assert_array_equal(labels, split.labels)


def test_training_shuffles_anew_every_epoch_and_repeats_with_the_seed(split):
    def epochs(seed):
        dataset = data.batches(
            split, image_size=8, channels=1, augmentation="handwriting", seed=seed
        )
        return [collect(dataset) for _ in range(2)]

    (first, labels), (second, _) = epochs(seed=3)
    (again, _), _ = epochs(seed=3)
    (other, _), _ = epochs(seed=4)
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()
    assert (first != other).any()
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(split.labels))


def test_augmented_digits_stay_what_they_are(split):
    dataset = data.batches(split, image_size=16, channels=1, augmentation="handwriting")
    images, _ = collect(dataset)
    plain, _ = collect(data.batches(split, image_size=16, channels=1))
    assert images.min() >= 0
    assert images.max() <= 255
    assert abs(images.mean() - plain.mean()) < 0.1 * plain.mean()


def test_a_crop_shows_the_middle(split):
    whole, _ = collect(data.batches(split, image_size=8, channels=1))
    middle, _ = collect(data.batches(split, image_size=6, channels=1, crop=6 / 8))
    np.testing.assert_array_equal(middle, whole[:, 1:-1, 1:-1])


@pytest.mark.parametrize("crop", [0, -1, 1.01, float("nan")])
def test_a_crop_out_of_range_is_refused(split, crop):
    with pytest.raises(ValueError, match="crop="):
        data.batches(split, image_size=8, crop=crop)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif"])
def test_files_are_cropped_around_their_centre(tmp_path, suffix):
    pixels = np.zeros((6, 10, 3), "uint8")
    pixels[:, 2:8] = (255, 0, 0)
    PIL.Image.fromarray(pixels).save(tmp_path / f"image{suffix}")
    split = data.Split([tmp_path / f"image{suffix}"], np.array([1]))
    images, labels = collect(data.batches(split, image_size=6))
    np.testing.assert_array_equal(images, np.broadcast_to([255.0, 0, 0], (1, 6, 6, 3)))
    assert labels.tolist() == [1]


@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_every_mode_are_read_as_pil_reads_them(tmp_path, channels):
    ramp = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype("uint8")
    modes = {
        ".png": ("1", "L", "LA", "P", "RGB", "RGBA"),
        ".jpg": ("L", "RGB", "CMYK"),
        ".gif": ("P",),
        ".bmp": ("RGB",),
    }
    files = [tmp_path / f"{mode}{suffix}" for suffix in modes for mode in modes[suffix]]
    for file in files:
        PIL.Image.fromarray(ramp).convert(file.stem).save(file)
    data.check_images(files, whole=True)
    split = data.Split(files, np.zeros(len(files), int))
    images, _ = collect(data.batches(split, image_size=16, channels=channels))
    for file, ours in zip(files, images, strict=True):
        with PIL.Image.open(file) as image:
            theirs = np.asarray(image.convert("RGB").convert("L" if channels == 1 else "RGB"))
        assert np.abs(ours - theirs.reshape(ours.shape)).mean() < 2, file.name


def test_photographs_are_varied(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), "uint8")
    PIL.Image.fromarray(pixels).save(tmp_path / "image.png")
    split = data.Split([tmp_path / "image.png"] * 8, np.zeros(8, int))
    images, _ = collect(data.batches(split, image_size=16, augmentation="photograph"))
    assert images.shape == (8, 16, 16, 3)
    assert len({image.tobytes() for image in images}) == 8


def test_an_unknown_augmentation_is_refused(split):
    with pytest.raises(ValueError, match="augmentation='weak' must be one of None, "):
        data.batches(split, image_size=8, augmentation="weak")


def test_real_photographs_are_read_as_pil_reads_them(assets):
    source = data.load(assets / "cats_dogs")
    assert source.class_names == ("cats", "dogs")
    assert (len(source.train) + len(source.validation), len(source.test)) == (2000, 1000)
    files = source.test.images[::100]
    images, _ = collect(data.batches(data.Split(files, np.zeros(10, int)), image_size=64))
    for image, file in zip(images, files, strict=True):
        photograph = PIL.Image.open(file)
        side = min(photograph.size)
        left, top = ((size - side) / 2 for size in photograph.size)
        box = (left, top, left + side, top + side)
        expected = photograph.resize(
            (64, 64), PIL.Image.Resampling.BILINEAR, box, reducing_gap=None
        )
        assert np.abs(image - np.asarray(expected)).mean() < 4


FROM_ARRAYS = (
    *("handwriting", "mirrored", "small photograph", "erased small photograph", "strong"),
    *("randaugment", "trivialaugment"),
)


def three_ways(folder, count):
    """The same images in memory, in files and in a stream."""
    write_images(folder, count)
    files = [folder / f"{index}.png" for index in range(count)]
    labels = np.arange(count)
    contents = [file.read_bytes() for file in files]
    return {
        "arrays": data.Split(np.stack([pixels(index) for index in range(count)]), labels),
        "files": data.Split(files, labels),
        "stream": data.Split(tf.data.Dataset.from_tensor_slices(contents), labels),
    }


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    return three_ways(tmp_path_factory.mktemp("images"), 23)


@pytest.mark.parametrize("augmentation", [None, Augmentation(area=(1.0, 1.0))])
def test_photographs_in_a_stream_are_turned_as_exif_tells(tmp_path, augmentation):
    """As those in files are, and those that a served model gets."""
    image = PIL.Image.fromarray(np.arange(192, dtype="uint8").reshape(8, 8, 3))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    files = [tmp_path / f"image.{suffix}" for suffix in ("jpg", "png")]
    for file in files:
        image.save(file, exif=exif)
    contents = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])

    def shown(images):
        split = data.Split(images, np.arange(2))
        options = {"augmentation": augmentation, "epochs": range(1)}
        images, order = collect(data.batches(split, image_size=8, **options))
        return images[np.argsort(order)]

    np.testing.assert_array_equal(shown(files), shown(contents))
    assert np.abs(shown(contents) - np.rot90(np.asarray(image), -1)).max() < 30


def digest(dataset):
    """Changes with every pixel, every label, and their order."""
    hashed = hashlib.md5()
    for images, labels in dataset.as_numpy_iterator():
        hashed.update(images.tobytes() + labels.tobytes())
    return hashed.hexdigest()


def digests(ways):
    """What every policy makes of images, and one of them of every kind of split."""
    chosen = [("photograph", way) for way in ways] + [(each, "arrays") for each in FROM_ARRAYS]
    return {
        (policy, way): digest(
            data.batches(
                ways[way],
                image_size=8,
                batch_size=10,
                augmentation=policy,
                seed=5,
                epochs=range(1, 3),
                classes=23,
            )
        )
        for policy, way in chosen
    }


ALL = Augmentation(area=(0.5, 1.0), flip=True, erasing=0.5, repeats=3).with_mixing(
    mixup=0.2, cutmix=1.0, probability=0.8, switch=0.3
)
LABELS = (np.eye(23), np.arange(23) / 2, np.arange(46).reshape(23, 2) / 2)


@pytest.mark.parametrize("way", ["arrays", "files", "stream"])
@pytest.mark.parametrize("labels", LABELS, ids=["several labels", "a number", "numbers"])
def test_labels_of_any_task_stay_with_their_images(ways, way, labels):
    split = data.Split(ways[way].images, labels)
    options = {"image_size": 8, "batch_size": 10}
    _, plain = collect(data.batches(split, **options))
    np.testing.assert_array_equal(plain, labels.astype("float32"))
    options |= {"augmentation": "none", "epochs": range(1), "seed": 3}
    _, order = collect(data.batches(ways[way], **options))
    _, shuffled = collect(data.batches(split, **options))
    np.testing.assert_array_equal(shuffled, labels[order].astype("float32"))
    assert shuffled.dtype == np.float32


class TestRepeats:
    def test_in_another_process_with_another_number_of_threads(self, ways, tmp_path):
        script = (
            "import pathlib, sys, tensorflow as tf; "
            "tf.config.threading.set_intra_op_parallelism_threads(1); "
            "tf.config.threading.set_inter_op_parallelism_threads(1); "
            "sys.path[:0] = sys.argv[2:]; from test_pipeline import digests, three_ways; "
            "print(digests(three_ways(pathlib.Path(sys.argv[1]), 23)))"
        )
        process = subprocess.run(
            [sys.executable, "-c", script, tmp_path, *sys.path], capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        ours = digests(ways)
        assert ours == ast.literal_eval(process.stdout.splitlines()[-1])
        known = {policy.rstrip(" 67") for policy in data.AUGMENTATIONS}
        assert {policy for policy, _ in ours} == known - {"none"}
        assert ours["photograph", "arrays"] == ours["photograph", "files"]
        assert len(set(ours.values())) == len(ours) - 1

    @pytest.mark.parametrize("way", ["files", "stream"])
    def test_whatever_the_seed_of_tensorflow_is(self, ways, way):
        def with_seed(seed):
            tf.random.set_seed(seed)
            dataset = data.batches(
                ways[way], image_size=8, augmentation="photograph", epochs=range(2)
            )
            return digest(dataset)

        assert with_seed(0) == with_seed(7) == with_seed(None)

    def test_another_seed_is_another_variation(self, ways):
        first, second = (
            digest(
                data.batches(
                    ways["files"],
                    image_size=8,
                    augmentation="photograph",
                    seed=seed,
                    epochs=range(1),
                )
            )
            for seed in (0, 1)
        )
        assert first != second


class TestEpochs:
    def epochs(self, split, epochs, policy="photograph"):
        return list(
            data.batches(
                split, image_size=8, batch_size=10, augmentation=policy, epochs=epochs, classes=23
            ).as_numpy_iterator()
        )

    @pytest.mark.parametrize(
        ("way", "policy", "some"),
        [
            ("files", "photograph", range(0, 4, 2)),
            ("stream", "photograph", range(2, 4)),
            ("arrays", "strong", range(2, 4)),
            ("files", ALL, range(2, 4)),
            ("stream", ALL, range(0, 4, 2)),
        ],
    )
    def test_some_are_what_they_are_in_a_longer_run(self, ways, way, policy, some):
        whole = self.epochs(ways[way], range(4), policy)
        ours = self.epochs(ways[way], some, policy)
        expected = [batch for epoch in some for batch in whole[3 * epoch : 3 * epoch + 3]]
        assert len(ours) == len(expected) == 6
        for (images, labels), (other_images, other_labels) in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(images, other_images)
            np.testing.assert_array_equal(labels, other_labels)

    @pytest.mark.parametrize("way", ["arrays", "stream"])
    def test_each_shows_every_image_in_an_order_of_its_own(self, ways, way):
        batches = self.epochs(ways[way], range(5))
        orders = [
            np.concatenate([labels for _, labels in batches[first : first + 3]]).tolist()
            for first in range(0, 15, 3)
        ]
        assert len({tuple(order) for order in orders}) == 5
        for order in orders:
            assert sorted(order) == list(range(23)) != order

    def test_hundreds_have_hundreds_of_orders(self):
        split = data.Split(np.zeros((20, 1, 1, 1), "uint8"), np.arange(20))
        elements = split.image_set.reader(split.labels, channels=1).elements
        epochs = tf.data.Dataset.range(400).flat_map(lambda seed: elements(seed).batch(20))
        orders = np.array([labels for _, labels in epochs.as_numpy_iterator()])
        assert len(np.unique(orders, axis=0)) > 390
        counts = np.stack([np.bincount(column, minlength=20) for column in orders.T])
        # Each image 20 times at each place, give or take 4: chi-square of 361 degrees of freedom.
        assert ((counts - 20) ** 2 / 20).sum() < 500

    def test_none_are_an_empty_dataset(self, ways):
        assert self.epochs(ways["arrays"], range(3, 3)) == []


class TestByImage:
    @pytest.mark.parametrize("policy", ["randaugment", "trivialaugment", Augmentation(erasing=0.5)])
    def test_variations_depend_on_the_place_in_the_epoch_alone(self, policy):
        """Not on the batch, and every image has its own."""
        images = np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), "uint8").repeat(24, 0)
        split = data.Split(images, np.arange(24))

        def shown(**options):
            options = {"image_size": 12, "augmentation": policy, "seed": 2, **options}
            return collect(data.batches(split, **options))

        first, _ = shown(epochs=range(2), batch_size=24)
        again, _ = shown(epochs=range(2), batch_size=5)
        np.testing.assert_array_equal(first, again)
        rest, _ = shown(epochs=range(1, 2), batch_size=5, first_step=2)
        np.testing.assert_array_equal(first[34:], rest)
        assert len({image.tobytes() for image in first}) > 16  # of 48, half may not be erased
        assert first.min() >= 0
        assert first.max() <= 255


class TestRepeatedAugmentation:
    @staticmethod
    def epoch(split, number=0, **options):
        dataset = data.batches(
            split,
            image_size=8,
            augmentation=Augmentation(area=(0.3, 1.0), repeats=3),
            epochs=range(number, number + 1),
            **{"batch_size": 10, **options},
        )
        return collect(dataset)

    @pytest.mark.parametrize("way", ["arrays", "files", "stream"])
    def test_shows_a_third_of_the_images_three_times(self, ways, way):
        images, labels = self.epoch(ways[way])
        assert len(images) == 23
        np.testing.assert_array_equal(labels, labels[::3].repeat(3)[:23])
        assert len(set(labels)) == 8
        assert len({image.tobytes() for image in images}) == 23

    @pytest.mark.parametrize("way", ["arrays", "stream"])
    def test_shows_all_images_in_the_end(self, ways, way):
        # Pixels are of no interest here.
        dataset = data.batches(
            ways[way], image_size=1, augmentation=Augmentation(repeats=3), epochs=range(60)
        )
        counts = np.bincount(collect(dataset)[1], minlength=23)
        # 60 times each, give or take twelve: a third of the epochs, three times.
        assert counts.min() > 20
        assert counts.max() < 100

    def test_gives_every_shard_a_variation_of_its_own(self, ways):
        images, labels = self.epoch(ways["files"])
        parts = [self.epoch(ways["files"], shard=(3, part)) for part in range(3)]
        for part, (some, some_labels) in enumerate(parts):
            np.testing.assert_array_equal(some, images[part::3])
            np.testing.assert_array_equal(some_labels, labels[part::3])
        assert len(set(parts[0][1])) == 8

    @pytest.mark.parametrize("way", ["arrays", "stream"])
    def test_goes_on_where_it_was(self, ways, way):
        images, labels = self.epoch(ways[way])
        rest, rest_labels = self.epoch(ways[way], first_step=2)
        np.testing.assert_array_equal(rest, images[20:])
        np.testing.assert_array_equal(rest_labels, labels[20:])

    def test_is_the_same_on_several_devices(self, ways):
        images, labels = self.epoch(ways["arrays"])
        both, both_labels = self.epoch(ways["arrays"], replicas=2)
        np.testing.assert_array_equal(both, images)
        np.testing.assert_array_equal(both_labels, labels)

    def test_of_more_variations_than_images(self, ways):
        _, labels = self.epoch(ways["files"].take(np.arange(2)))
        assert len(labels) == 2
        assert len(set(labels)) == 1


class TestLength:
    @pytest.mark.parametrize(
        ("way", "options", "length"),
        [
            ("arrays", {"batch_size": 10}, 3),
            ("files", {"batch_size": 23}, 1),
            ("files", {"batch_size": 10, "shard": (3, 1)}, 1),
            ("stream", {"batch_size": 7, "shard": (3, 1)}, 2),
            ("stream", {"batch_size": 10, "augmentation": "photograph"}, 3),
            ("files", {"batch_size": 22, "augmentation": "photograph", "epochs": range(2, 4)}, 4),
        ],
    )
    def test_is_known_beforehand(self, ways, way, options, length):
        dataset = data.batches(ways[way], image_size=8, **options)
        assert len(dataset) == len(list(dataset)) == length

    def test_of_fewer_images_than_a_batch(self, ways):
        split = ways["files"].take(np.array([3, 4]))
        ((images, labels),) = data.batches(
            split, image_size=8, batch_size=32, augmentation="strong", classes=23, epochs=range(1)
        )
        assert images.shape == (2, 8, 8, 3)
        assert labels.shape == (2, 23)


class TestShards:
    @pytest.mark.parametrize("way", ["arrays", "stream"])
    @pytest.mark.parametrize("policy", [None, "photograph"])
    def test_are_the_epoch_together(self, ways, way, policy):
        options = {"image_size": 8, "batch_size": 4, "augmentation": policy}
        if policy:
            options["epochs"] = range(1, 2)
        images, labels = collect(data.batches(ways[way], **options))
        for part in range(3):
            some, some_labels = collect(data.batches(ways[way], **options, shard=(3, part)))
            np.testing.assert_array_equal(some, images[part::3])
            np.testing.assert_array_equal(some_labels, labels[part::3])

    def test_of_every_epoch_begin_anew(self, ways):
        def shown(part):
            dataset = data.batches(
                ways["stream"],
                image_size=8,
                batch_size=100,
                augmentation="photograph",
                epochs=range(4),
                shard=(3, part),
            )
            return [labels.tolist() for _, labels in dataset.as_numpy_iterator()]

        for epoch in zip(*map(shown, range(3)), strict=True):
            assert sorted(itertools.chain(*epoch)) == list(range(23))

    def test_may_be_empty(self, ways):
        split = ways["files"].take(np.array([0, 1]))
        assert list(data.batches(split, image_size=8, shard=(3, 2))) == []

    @pytest.mark.parametrize("shard", [(3, 3), (3, -1), (0, 0)])
    def test_out_of_range_are_refused(self, ways, shard):
        with one_line_error(f"shard={shard}"):
            data.batches(ways["arrays"], image_size=8, shard=shard)


class TestReplicas:
    @staticmethod
    def numbered(count):
        """Images that show their number."""
        images = np.arange(count, dtype="uint8").repeat(4).reshape(count, 2, 2, 1)
        return data.Split(images, np.arange(count))

    @settings(max_examples=7, deadline=None, derandomize=True)
    @given(
        count=st.integers(6, 60),
        each=st.integers(1, 4),
        parts=st.integers(1, 3),
        replicas=st.integers(1, 3),
        at_least=st.integers(1, 2),
        first_step=st.integers(0, 3),
    )
    def test_share_the_batches_of_one(self, count, each, parts, replicas, at_least, first_step):
        devices, fewest = parts * replicas, parts * replicas * at_least
        batch_size = each * at_least * replicas  # of a shard
        whole = batch_size * parts
        assume(count >= fewest)
        options = dict(
            image_size=2,
            channels=1,
            augmentation="none",
            seed=7,
            epochs=range(3, 5),
        )
        split = self.numbered(count)
        steps = (
            len(data.pipeline.batch_sizes(count, batch_size, (parts, 0), replicas, at_least))
            // replicas
        )
        first_step = min(first_step, steps - 1)
        shards = [
            data.batches(
                split,
                batch_size=batch_size,
                shard=(parts, part),
                replicas=replicas,
                at_least=at_least,
                first_step=first_step,
                **options,
            )
            for part in range(parts)
        ]
        assert [len(shard) for shard in shards] == [(2 * steps - first_step) * replicas] * parts
        found = [[labels.tolist() for _, labels in shard.as_numpy_iterator()] for shard in shards]
        assert all(len(labels) >= at_least for shard in found for labels in shard)
        together = [
            sorted(
                label
                for shard in found
                for labels in shard[step * replicas : (step + 1) * replicas]
                for label in labels
            )
            for step in range(2 * steps - first_step)
        ]
        alone = data.batches(split, batch_size=whole, **options)
        epochs = [label for _, labels in alone.as_numpy_iterator() for label in labels]
        expected = []
        for epoch in (epochs[:count], epochs[count:]):
            assert sorted(epoch) == list(range(count))
            bounds = [*range(0, steps * whole, whole)][:steps]
            ends = [*bounds[1:], count]
            expected += [sorted(epoch[a:b]) for a, b in zip(bounds, ends, strict=True)]
        assert together == expected[first_step:]
        sizes = [[len(labels) for labels in shard] for shard in found]
        for step in range(2 * steps - first_step):
            shares = [size for shard in sizes for size in shard[step * replicas :][:replicas]]
            assert max(shares) - min(shares) <= 1 + (devices > replicas > 1)

    def test_too_many_for_the_images_are_refused(self):
        with one_line_error("5 images are too few for 6 devices, each of which needs 1 in every"):
            data.batches(self.numbered(5), image_size=2, channels=1, shard=(2, 0), replicas=3)

    def test_first_step_must_be_one_of_an_epoch(self):
        with one_line_error("first_step=2: an epoch has 2 steps, from 0."):
            data.batches(self.numbered(8), image_size=2, channels=1, batch_size=4, first_step=2)

    @pytest.mark.parametrize("way", ["files", "stream"])
    def test_go_on_within_an_epoch(self, ways, way):
        options = dict(image_size=8, batch_size=4, augmentation="photograph", epochs=range(1, 3))
        whole = list(data.batches(ways[way], **options).as_numpy_iterator())
        rest = list(data.batches(ways[way], first_step=2, **options).as_numpy_iterator())
        assert len(rest) == len(whole) - 2
        for (images, labels), (expected, expected_labels) in zip(rest, whole[2:], strict=True):
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, expected_labels)


class TestEvaluation:
    @pytest.mark.parametrize(
        ("way", "interpolation", "height", "width", "crop", "image_size"),
        [
            ("arrays", "bilinear", 64, 96, 0.875, (32, 32)),
            ("arrays", "bilinear", 96, 64, 0.875, (56, 56)),
            ("arrays", "bilinear", 40, 40, 1.0, (33, 33)),
            ("files", "bilinear", 60, 80, 1.0, (45, 15)),
            ("stream", "bilinear", 64, 96, 0.75, (20, 40)),
            ("arrays", "bicubic", 64, 96, 0.75, (20, 40)),
            ("files", "bicubic", 16, 24, 0.5, (50, 50)),
        ],
    )
    def test_is_what_pillow_makes_of_the_middle(
        self, way, interpolation, height, width, crop, image_size
    ):
        image = pixels(1, height=height, width=width)
        contents = tf.data.Dataset.from_tensors(encoded(1, height=height, width=width))
        rows = crop * min(height, width * image_size[0] / image_size[1])
        rows, columns = int(rows), int(rows * image_size[1] / image_size[0])
        left, top = (width - columns) // 2, (height - rows) // 2
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            PIL.Image.fromarray(image).save(file)
            file.flush()
            split = {"arrays": image[None], "files": [file.name], "stream": contents}[way]
            (ours,), _ = collect(
                data.batches(
                    data.Split(split, np.array([0])),
                    image_size=image_size,
                    crop=crop,
                    interpolation=interpolation,
                )
            )
        for channel in range(3):
            plane = PIL.Image.fromarray(image[..., channel].astype("float32"))
            expected = plane.crop((left, top, left + columns, top + rows)).resize(
                image_size[::-1], PIL.Image.Resampling[interpolation.upper()]
            )
            expected = np.clip(np.asarray(expected), 0, 255)
            np.testing.assert_allclose(ours[..., channel], expected, atol=1e-2)

    def test_is_the_same_every_time(self, ways):
        dataset = data.batches(ways["stream"], image_size=8)
        assert digest(dataset) == digest(dataset)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": -3}, "batch_size=-3"),
        ({"augmentation": "strong"}, "augmentation='strong' mixes labels"),
        ({"augmentation": "Strong"}, "augmentation='Strong' must be one of None, "),
    ],
)
def test_mistakes_are_one_line(ways, options, complaint):
    with one_line_error(complaint):
        data.batches(ways["arrays"], **{"image_size": 8, **options})


@pytest.mark.parametrize("images", [[], np.zeros((0, 8, 8, 3), "uint8")])
def test_a_split_without_images_is_refused(images):
    with one_line_error("split has no images"):
        data.batches(data.Split(images, np.zeros(0, int)), image_size=8)


def test_a_file_that_is_no_image_is_named(tmp_path):
    write_images(tmp_path, 3)
    first, *_ = write_damaged(tmp_path)
    files = sorted(tmp_path.iterdir())
    with one_line_error(repr(str(first)), "is not an image that can be read"):
        data.batches(data.Split(files, np.zeros(len(files), int)), image_size=8)
