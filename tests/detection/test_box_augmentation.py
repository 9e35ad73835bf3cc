import functools
from dataclasses import replace

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
import tensorflow as tf
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet.data.boxes import CLASS, IGNORED, UNUSED, padded
from keras_resnet.detection.augmentation import AUGMENTATIONS, Augmentation, policy_of, varied


@functools.cache
def compiled(policy):
    """`varied` for images of any size, traced once."""
    return tf.function(
        functools.partial(varied, policy),
        input_signature=(
            tf.TensorSpec((None, None, 3), tf.uint8),
            tf.TensorSpec((None, 6), tf.float32),
            tf.TensorSpec((2,), tf.int64),
        ),
    )


def vary(policy, image, rows, seed):
    image, rows = compiled(policy)(image, rows, np.array((seed, 0), "int64"))
    return image.numpy(), rows.numpy()


def coordinates(height, width):
    """An image of up to 256 pixels a side that shows where each of its pixels is."""
    image = np.zeros((height, width, 3), "uint8")
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


def bounds(mask):
    """The box around the pixels of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@st.composite
def scenes(draw, side=40, largest=1.0):
    """Height, width and rows of boxes in whole pixels, one of which may be ignored."""
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))

    def extent(size):
        length = draw(st.integers(1, max(1, int(largest * size))))
        first = draw(st.integers(0, size - length))
        return first, first + length

    found = []
    for index in range(draw(st.integers(0, 3))):
        (x1, x2), (y1, y2) = extent(width), extent(height)
        found.append((x1, y1, x2, y2, index, index == 2))
    return height, width, padded([found], most=3)[0]


# None of them draws a pixel anew, so that boxes are exact.
EXACT = {
    "flip": Augmentation(flip=True),
    "upside down": Augmentation(upside_down=True),
    "turns": Augmentation(turns=True),
    "any way up": Augmentation(flip=True, upside_down=True, turns=True),
    "crop": Augmentation(crop=(0.2, 1.0)),
    "larger": Augmentation(scale=(1.0, 3.0), visible=0.6),
    "all": Augmentation(flip=True, turns=True, scale=(1.0, 2.0), crop=(0.5, 0.9), visible=0.0),
}


@pytest.mark.parametrize("policy", EXACT.values(), ids=EXACT.keys())
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes(), seed=st.integers(0, 2**31))
def test_boxes_are_where_their_pixels_are(policy, scene, seed):
    height, width, rows = scene
    shown, moved = vary(policy, coordinates(height, width), rows, seed)
    x, y = shown[..., 0].astype(int), shown[..., 1].astype(int)
    for (x1, y1, x2, y2, label, ignored), found in zip(rows, moved, strict=True):
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        centred = (
            x.min() <= (x1 + x2) / 2 <= x.max() + 1 and y.min() <= (y1 + y2) / 2 <= y.max() + 1
        )
        part = inside.sum() / max((x2 - x1) * (y2 - y1), 1)
        enough = part > 0 and (ignored or centred or part >= policy.visible)
        expected = [*bounds(inside), label, ignored] if label >= 0 and enough else [*UNUSED]
        assert found.tolist() == expected
    learned = (rows[:, CLASS] >= 0) & (rows[:, IGNORED] == 0)
    assert ((moved[:, CLASS] >= 0) & (moved[:, IGNORED] == 0)).any() == learned.any()


NOTHING = padded([[]])[0]

# As they are, but with the colours that are painted; and with more averaging.
SHRINKING = {
    name: replace(AUGMENTATIONS[name], brightness=0, contrast=0, saturation=0)
    for name in ("photograph", "cells")
} | {"small": Augmentation(scale=(0.2, 0.9), crop=(0.8, 1.0))}


@pytest.mark.parametrize("policy", SHRINKING.values(), ids=SHRINKING.keys())
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes(side=60, largest=0.5), seed=st.integers(0, 2**31))
def test_boxes_of_images_that_shrink_are_within_a_pixel(policy, scene, seed):
    """Each of up to three boxes is painted in one of red, green and blue."""
    height, width, rows = scene
    painted = np.zeros((height, width, 3), "uint8")
    for index, (x1, y1, x2, y2) in enumerate(rows[:, :4].astype(int)):
        painted[y1:y2, x1:x2, index] = 255
    shown, moved = vary(policy, painted, rows, seed)
    for index, (x1, y1, x2, y2, label, _) in enumerate(moved):
        # What surrounds a smaller image is darker: no colour is on more than half of each side.
        found = shown[..., index] > 190
        if label >= 0 and min(x2 - x1, y2 - y1) >= 2:
            assert np.abs(np.subtract(bounds(found), (x1, y1, x2, y2))).max() <= 1
        height, width = shown.shape[:2]
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height


def many(policy, image, rows=NOTHING, count=200):
    return [vary(policy, image, rows, seed) for seed in range(count)]


def test_images_come_any_way_up_equally_often():
    image = coordinates(2, 3)
    ways = {
        "flip": [image, image[:, ::-1]],
        "upside down": [image, image[::-1]],
        "turns": [np.rot90(image, turns) for turns in range(4)],
    }
    ways["any way up"] = [*ways["turns"], *(each[:, ::-1] for each in ways["turns"])]
    for name, expected in ways.items():
        found = [shown.tolist() for shown, _ in many(EXACT[name], image, count=400)]
        counts = [found.count(each.tolist()) for each in expected]
        assert sum(counts) == 400
        mean = 400 / len(expected)
        assert max(abs(count - mean) for count in counts) < 4 * mean**0.5, name


def test_scales_are_as_often_half_as_twice_and_windows_are_everywhere():
    box = padded([[(10, 20, 30, 50, 0, 0)]])[0]
    found = many(Augmentation(scale=(0.5, 2.0)), coordinates(100, 200), box)
    factors = []
    for shown, ((x1, _, x2, _, *_),) in found:
        factors.append((x2 - x1) / 20 if shown.shape == (100, 200, 3) else 200 / shown.shape[1])
    assert 0.5 <= min(factors) < 0.55
    assert 1.8 < max(factors) <= 2.02
    assert 70 < sum(factor < 1 for factor in factors) < 130
    assert 20 < sum(factor < 2**-0.5 for factor in factors) < 80
    corners = {tuple(shown[0, 0, :2]) for shown, _ in many(EXACT["crop"], coordinates(30, 30))}
    assert len(corners) > 80
    assert np.ptp([*corners], axis=0).min() > 20


def test_a_smaller_image_is_on_its_mean_colour():
    image = np.full((40, 40, 3), (200, 100, 50), "uint8")
    for shown, _ in many(Augmentation(scale=(0.3, 0.3)), image, count=3):
        np.testing.assert_array_equal(shown, image)


class TestColours:
    image = np.random.default_rng(0).integers(30, 160, (20, 30, 3), "uint8")

    @pytest.mark.parametrize(
        ("name", "enhance"),
        [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")],
    )
    def test_change_as_pillow_changes_them(self, name, enhance):
        enhanced = getattr(PIL.ImageEnhance, enhance)(PIL.Image.fromarray(self.image))
        without = np.asarray(enhanced.enhance(0.0), float)
        factors = []
        for shown, _ in many(Augmentation(**{name: 0.5}), self.image, count=50):
            # The factor by least squares: all pixels agree on it.
            distance = self.image - without
            factor = (distance * (shown - without)).sum() / (distance**2).sum()
            expected = np.asarray(enhanced.enhance(factor), float)
            assert np.abs(shown - expected).max() <= 2
            factors.append(factor)
        assert 0.5 <= min(factors) < 0.6
        assert 1.4 < max(factors) <= 1.5

    def test_change_no_box(self):
        rows = padded([[(1, 2, 3, 4, 5, 0), (0, 0, 30, 20, 1, 1)]], most=4)[0]
        policy = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4)
        for shown, found in many(policy, self.image, rows, count=5):
            np.testing.assert_array_equal(found, rows)
            assert (shown != self.image).any()


def test_the_same_seed_is_the_same_variation():
    image, rows = coordinates(30, 40), padded([[(5, 5, 20, 20, 0, 0)]])[0]
    found = {vary(AUGMENTATIONS["cells"], image, rows, seed)[0].tobytes() for seed in range(20)}
    again = {vary(AUGMENTATIONS["cells"], image, rows, seed)[0].tobytes() for seed in range(20)}
    assert found == again
    assert len(found) == 20


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_of_one_pixel_stays_one(name):
    rows = padded([[(0, 0, 1, 1, 3, 0)]])[0]
    for shown, found in many(AUGMENTATIONS[name], np.full((1, 1, 3), 100, "uint8"), rows, 20):
        assert shown.shape == (1, 1, 3)
        np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_300_boxes_are_as_each_alone(name):
    corners = np.random.default_rng(1).uniform(0, 60, (300, 2, 2))
    low, high = corners.min(1), corners.max(1) + 1
    rows = np.concatenate([low, high, np.ones((300, 1)), np.zeros((300, 1))], 1).astype("float32")
    image = coordinates(61, 61)
    # The first one alone is learned from, so that windows follow it in both.
    rows[1:, IGNORED] = 1
    shown, found = vary(AUGMENTATIONS[name], image, rows, 3)
    for index in (1, 150, 299):
        same, (_, alone) = vary(AUGMENTATIONS[name], image, rows[[0, index]], 3)
        np.testing.assert_array_equal(same, shown)
        np.testing.assert_allclose(alone, found[index], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"scale": (0, 1)}, "scale=0 must be above 0."),
        ({"scale": (2, 1)}, "scale=(2, 1) must be (smallest, largest), in this order."),
        ({"scale": 2}, "scale=2 must be None, or (smallest, largest)."),
        ({"crop": (0.5, 1.1)}, "crop=1.1 must be above 0 and at most 1."),
        ({"visible": -0.1}, "visible=-0.1 must be at least 0 and at most 1."),
        ({"contrast": 2}, "contrast=2 must be at least 0 and at most 1."),
    ],
)
def test_options_out_of_range_are_refused(options, complaint):
    with one_line_error(complaint):
        Augmentation(**options)


def test_an_unknown_policy_is_refused():
    with one_line_error("augmentation='strong' must be one of None, 'none', 'mirrored', "):
        policy_of("strong")
