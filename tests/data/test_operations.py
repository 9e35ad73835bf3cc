import itertools

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import PIL.ImageOps
import pytest
import tensorflow as tf

from keras_resnet.data import operations
from keras_resnet.data.operations import (
    RAND_AUGMENT,
    TRIVIAL_AUGMENT,
    Operation,
    RandomOperations,
)

GREY = 128


@pytest.fixture(scope="module")
def photograph():
    """Of all brightnesses but the lowest and the highest, with edges and gradients."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), "uint8")
    image = PIL.Image.fromarray(noise).resize((60, 40), PIL.Image.Resampling.BICUBIC)
    return image.point(lambda value: int(0.7 * value + 20))


def affine(image, *rows, fill=GREY):
    return image.transform(
        image.size,
        PIL.Image.Transform.AFFINE,
        rows,
        resample=PIL.Image.Resampling.BILINEAR,
        fillcolor=(fill,) * 3,
    )


def turned(image, degrees, fill=GREY):
    return image.rotate(degrees, PIL.Image.Resampling.BILINEAR, fillcolor=(fill,) * 3)


def of_values(function):
    return lambda image, argument: image.point([function(i, argument) for i in range(256)] * 3)


PILLOW = {
    "auto_contrast": lambda image, _: PIL.ImageOps.autocontrast(image),
    "equalize": lambda image, _: PIL.ImageOps.equalize(image),
    "invert": lambda image, _: PIL.ImageOps.invert(image),
    "posterize": PIL.ImageOps.posterize,
    "solarize": PIL.ImageOps.solarize,
    "solarize_add": of_values(lambda i, more: min(i + more, 255) if i < 128 else i),
    "color": lambda image, factor: PIL.ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: PIL.ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: PIL.ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: PIL.ImageEnhance.Sharpness(image).enhance(factor),
}
PILLOW_MOVES = {
    "rotate": turned,
    "shear_x": lambda image, by, **fill: affine(image, 1, by, 0, 0, 1, 0, **fill),
    "shear_y": lambda image, by, **fill: affine(image, 1, 0, 0, by, 1, 0, **fill),
    "translate_x": lambda image, by, **fill: affine(image, 1, 0, by, 0, 1, 0, **fill),
    "translate_y": lambda image, by, **fill: affine(image, 1, 0, 0, 0, 1, by, **fill),
    "translate_x_by": lambda image, by, **fill: affine(image, 1, 0, 60 * by, 0, 1, 0, **fill),
    "translate_y_by": lambda image, by, **fill: affine(image, 1, 0, 0, 0, 1, 40 * by, **fill),
}
ARGUMENTS = {
    **dict.fromkeys(("auto_contrast", "equalize", "invert"), (0,)),
    "posterize": (1, 4, 7),
    "solarize": (0, 100, 256),
    "solarize_add": (0, 60, 110),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), (0.01, 0.6, 1.0, 1.9)),
    "rotate": (25, -135, 179),
    "shear_x": (0.3, -0.99),
    "shear_y": (0.3, -0.99),
    "translate_x": (7, -7.5),
    "translate_y": (7, -7.5),
    "translate_x_by": (0.4, -0.2),
    "translate_y_by": (0.4, -0.2),
}


def ours(name, image, argument):
    image = tf.constant(np.asarray(image), "float32")
    return getattr(operations, name)(image, tf.constant(argument, "float32")).numpy()


class TestOperations:
    @pytest.mark.parametrize("name", PILLOW)
    def test_of_colours_are_pillows_up_to_its_rounding(self, photograph, name):
        for argument in ARGUMENTS[name]:
            theirs = np.asarray(PILLOW[name](photograph, argument)).astype(float)
            assert np.abs(ours(name, photograph, argument) - theirs).max() < 1.5
            others = [ours(name, photograph, other) for other in ARGUMENTS[name]]
            assert len({other.tobytes() for other in others}) == len(ARGUMENTS[name])

    @pytest.mark.parametrize("name", PILLOW_MOVES)
    def test_that_move_are_pillows(self, photograph, name):
        white = PIL.Image.new("RGB", photograph.size, (255, 255, 255))
        for argument in ARGUMENTS[name]:
            theirs = np.asarray(PILLOW_MOVES[name](photograph, argument)).astype(float)
            difference = np.abs(ours(name, photograph, argument) - theirs)
            # At the edge, Pillow repeats the last pixels; here they fade into grey.
            inside = PILLOW_MOVES[name](white, argument, fill=0)
            surely, outside = (
                np.asarray(inside.filter(filter(3))) == value
                for filter, value in (
                    (PIL.ImageFilter.MinFilter, 255),
                    (PIL.ImageFilter.MaxFilter, 0),
                )
            )
            surely[[0, -1]] = surely[:, [0, -1]] = False
            assert difference[surely].max() < 1.5
            assert (ours(name, photograph, argument)[outside] == GREY).all()
            assert (surely | outside).mean() > 0.8

    @pytest.mark.parametrize("image", [np.full((5, 7, 3), 9), np.zeros((4, 4, 1))])
    @pytest.mark.parametrize("name", ["auto_contrast", "equalize"])
    def test_leave_an_image_of_one_colour_alone(self, name, image):
        np.testing.assert_array_equal(ours(name, image, 0), image)

    def test_know_grey_images_and_those_of_many_channels(self):
        images = np.random.default_rng(0).integers(0, 256, (9, 8, 5))
        grey = images[..., :1]
        np.testing.assert_allclose(ours("color", grey, 0.3), grey, atol=1e-4)
        mean = images.mean(2, keepdims=True)
        np.testing.assert_allclose(ours("color", images, 0.25), 0.75 * mean + 0.25 * images, 1e-5)
        for name in ("equalize", "auto_contrast", "sharpness", "invert"):
            of_all = ours(name, images, 1.5)
            for channel in range(5):
                of_one = ours(name, images[..., channel : channel + 1], 1.5)
                np.testing.assert_allclose(of_all[..., channel], of_one[..., 0], atol=1e-3)


TABLES = {"randaugment": RAND_AUGMENT, "trivialaugment": TRIVIAL_AUGMENT}


class TestTables:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("table", TABLES)
    def test_keep_the_range_and_the_shape(self, table, channels):
        values = np.random.default_rng(0).uniform(0, 255, (9, 12, channels))
        image = tf.constant(values, "float32")
        strengths = tf.constant([0.0, 0.5, 1.0])
        for name, operation in TABLES[table].items():
            for strength, sign in itertools.product(strengths, tf.constant([-1.0, 1.0])):
                found = operation.apply(image, operation.argument(strength, sign)).numpy()
                assert found.shape == image.shape
                assert found.dtype == "float32"
                assert found.min() >= 0, name
                assert found.max() <= 255, name

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("rotate", [3 * level for level in range(11)]),
            ("posterize", [4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0]),
            ("solarize", [256, 231, 205, 180, 154, 128, 103, 77, 52, 26, 0]),
            ("solarize_add", [0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 110]),
            ("color", [1, 1.09, 1.18, 1.27, 1.36, 1.45, 1.54, 1.63, 1.72, 1.81, 1.9]),
            ("shear_x", [0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27, 0.3]),
            ("translate_y", [0.045 * level for level in range(11)]),
        ],
    )
    def test_of_rand_augment_is_timms(self, name, expected):
        """What `LEVEL_TO_ARG` of timm 1.0.31 gives for levels from 0 to 10."""
        levels = tf.constant(np.arange(11) / 10, "float32")
        found = [RAND_AUGMENT[name].argument(level, tf.constant(1.0)) for level in levels]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        other = [RAND_AUGMENT[name].argument(level, tf.constant(-1.0)) for level in levels]
        middle = {"color": 2.0}.get(name, 0.0)
        signed = name in ("rotate", "color", "shear_x", "translate_y")
        mirrored = middle - np.array(expected) if signed else expected
        np.testing.assert_allclose(other, mirrored, atol=1e-5)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("shear_y", np.linspace(0, 0.99, 31)),
            ("translate_x", np.linspace(0, 32, 31).astype(int)),
            ("rotate", np.linspace(0, 135, 31)),
            ("sharpness", 1 + np.linspace(0, 0.99, 31)),
            ("posterize", 8 - np.round(np.arange(31) / 5)),
            ("solarize", np.linspace(255, 0, 31)),
        ],
    )
    def test_of_trivial_augment_is_torchvisions(self, name, expected):
        """The magnitudes of `TrivialAugmentWide`, and what it makes of them."""
        strengths = tf.constant(np.arange(31) / 30, "float32")
        found = [TRIVIAL_AUGMENT[name].argument(each, tf.constant(1.0)) for each in strengths]
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_have_all_operations_of_their_origin(self):
        assert len(RAND_AUGMENT) == 15
        assert len(TRIVIAL_AUGMENT) == 14


class TestDraws:
    """Of operations that only write down what they are given: kind, strength and sign."""

    @staticmethod
    def drawn(images=3000, **options):
        table = {
            f"{kind}": Operation(
                lambda image, argument, kind=kind: tf.concat(
                    (image[1:], tf.reshape(tf.stack([float(kind), *argument]), (1, 1, 3))), 0
                ),
                lambda strength, sign: (strength, sign),
            )
            for kind in range(4)
        }
        draw = RandomOperations(table, **options)
        blank = -tf.ones((draw.count, 1, 3))
        dataset = tf.data.Dataset.range(images).map(lambda seed: draw(blank, tf.stack((3, seed))))
        return np.array([*dataset.as_numpy_iterator()])[:, :, 0]

    def test_are_of_all_kinds_and_signs_and_of_31_strengths(self):
        ((kinds, strengths, signs),) = self.drawn().transpose(1, 2, 0)
        np.testing.assert_allclose(np.bincount(kinds.astype(int)) / 3000, 0.25, atol=0.03)
        np.testing.assert_allclose(np.unique(strengths), np.arange(31) / 30, atol=1e-6)
        counts = np.bincount(np.round(30 * strengths).astype(int))
        assert ((counts - 3000 / 31) ** 2 / (3000 / 31)).sum() < 60  # of 30 degrees of freedom
        assert {*signs} == {-1, 1}
        assert signs.mean() == pytest.approx(0, abs=0.06)
        related = np.corrcoef([kinds, strengths, signs]) - np.eye(3)
        assert np.abs(related).max() < 0.06

    def test_are_as_many_as_asked_for_each_carried_out_or_not(self):
        first, second = self.drawn(count=2, probability=0.5)[..., 0].T.astype(int)
        # The last that was carried out is written last.
        np.testing.assert_allclose(
            [((first >= 0) & (second >= 0)).mean(), ((first < 0) & (second >= 0)).mean()],
            [0.25, 0.5],
            atol=0.03,
        )
        both = first[first >= 0], second[first >= 0]
        np.testing.assert_allclose(
            np.histogram2d(*both, bins=range(5))[0] / len(both[0]), 1 / 16, atol=0.035
        )

    def test_of_one_strength_spread_around_it_within_bounds(self):
        ((_, strengths, _),) = self.drawn(strength=0.9, spread=0.1).transpose(1, 2, 0)
        expected = np.clip(0.9 + 0.1 * np.random.default_rng(0).normal(size=100_000), 0, 1)
        quantiles = np.linspace(0.05, 0.95, 19)
        np.testing.assert_allclose(
            np.quantile(strengths, quantiles), np.quantile(expected, quantiles), atol=0.015
        )

    def test_depend_on_the_seed_alone(self):
        np.testing.assert_array_equal(self.drawn(50), self.drawn(50))
