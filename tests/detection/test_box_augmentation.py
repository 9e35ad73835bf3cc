import functools
import itertools

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
        centered = (
            x.min() <= (x1 + x2) / 2 <= x.max() + 1 and y.min() <= (y1 + y2) / 2 <= y.max() + 1
        )
        part = inside.sum() / max((x2 - x1) * (y2 - y1), 1)
        enough = part > 0 and (ignored or centered or part >= policy.visible)
        expected = [*bounds(inside), label, ignored] if label >= 0 and enough else [*UNUSED]
        assert found.tolist() == expected
    learned = (rows[:, CLASS] >= 0) & (rows[:, IGNORED] == 0)
    assert ((moved[:, CLASS] >= 0) & (moved[:, IGNORED] == 0)).any() == learned.any()


@pytest.mark.parametrize("name", ["photograph", "cells", "small"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes(side=60, largest=0.5), seed=st.integers(0, 2**31))
def test_boxes_of_images_that_shrink_are_within_a_pixel(name, scene, seed):
    """Each of up to three boxes is painted in one of red, green and blue."""
    policy = {**SHRINKING, "small": Augmentation(scale=(0.2, 0.9), crop=(0.8, 1.0))}[name]
    height, width, rows = scene
    painted = np.zeros((height, width, 3), "uint8")
    for index, (x1, y1, x2, y2) in enumerate(rows[:, :4].astype(int)):
        painted[y1:y2, x1:x2, index] = 255
    shown, moved = vary(policy, painted, rows, seed)
    for index, (x1, y1, x2, y2, label, _) in enumerate(moved):
        # What surrounds a smaller image is darker: no color is on more than half of each side.
        found = shown[..., index] > 190
        if label >= 0 and min(x2 - x1, y2 - y1) >= 2:
            assert np.abs(np.subtract(bounds(found), (x1, y1, x2, y2))).max() <= 1
        height, width = shown.shape[:2]
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height


SHRINKING = {
    name: Augmentation(**vars(AUGMENTATIONS[name]) | dict(brightness=0, contrast=0, saturation=0))
    for name in ("photograph", "cells")
}
