"""RoIAlign against a slow formulation in NumPy: bin by bin, point by point, pixel by pixel."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import detection
from keras_resnet.detection import roi_align

WAYS = {"crops": roi_align.by_crops, "matrices": roi_align.by_matrices}


def at(image, y, x):
    """An image between its pixels: zeros a pixel outside of it, before that its border."""
    height, width, _ = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(image.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    return (
        (1 - down) * (1 - across) * image[top, left]
        + (1 - down) * across * image[top, right]
        + down * (1 - across) * image[bottom, left]
        + down * across * image[bottom, right]
    )


def slowly(image, box, bins, ratio, aligned):
    x1, y1, x2, y2 = (each - 0.5 * aligned for each in box)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    rows = ratio or max(math.ceil(height / bins), 1)
    columns = ratio or max(math.ceil(width / bins), 1)
    found = np.zeros((bins, bins, image.shape[2]))
    for i, j, a, b in np.ndindex(bins, bins, rows, columns):
        y = y1 + height / bins * (i + (a + 0.5) / rows)
        x = x1 + width / bins * (j + (b + 0.5) / columns)
        found[i, j] += at(image, y, x) / (rows * columns)
    return found


def is_clear(box, bins, ratio, aligned, height, width):
    """Whether no point is so near to where the image ends that rounding decides."""
    for axis, size in ((0, width), (1, height)):
        first = box[axis] - 0.5 * aligned
        side = box[axis + 2] - box[axis]
        side = side if aligned else max(side, 1)
        count = (ratio or max(math.ceil(side / bins), 1)) * bins
        points = first + side * (np.arange(count) + 0.5) / count
        if min(abs(points + 1).min(), abs(points - size).min()) < 1e-4:
            return False
        if not ratio and abs(side / bins - round(side / bins)) < 1e-5:
            return False
    return True


coordinate = st.floats(-4, 16, width=32)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 9),
    st.integers(2, 9),
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3, 7]),
    st.integers(0, 3),
    st.booleans(),
)
def test_both_ways_agree_with_the_slow_one(way, height, width, corners, bins, ratio, aligned):
    """Over sizes, borders and boxes that are outside, empty or narrower than a pixel."""
    if way == "crops":
        ratio = ratio or 2
        if bins * ratio == 1:
            ratio = 2
    boxes = np.array(
        [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners], "float32"
    )
    clear = [is_clear(box, bins, ratio, aligned, height, width) for box in boxes.tolist()]
    boxes = boxes[clear]
    if not len(boxes):
        return
    images = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype("float32")
    owners = np.sort(np.arange(len(boxes)) % 2).astype("int32")
    found = WAYS[way](
        tf.constant(images), tf.constant(boxes), tf.constant(owners), bins, ratio, aligned
    )
    for box, owner, answer in zip(boxes.tolist(), owners, found.numpy(), strict=True):
        expected = slowly(images[owner].astype("float64"), box, bins, ratio, aligned)
        assert np.abs(answer - expected).max() < 2e-4


@pytest.mark.parametrize("way", WAYS)
def test_gradients_agree_with_finite_differences(way):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, 5, 6, 2))
    boxes = np.array([[0.3, 0.2, 4.1, 3.9], [-0.6, 1.2, 3.0, 4.9], [2.1, 2.2, 5.3, 4.4]], "float32")
    weights = generator.normal(size=(3, 3, 3, 2))
    arguments = tf.constant(boxes, "float64"), tf.constant([0, 1, 1]), 3

    def total(values):
        found = WAYS[way](tf.constant(values), *arguments)
        return tf.reduce_sum(tf.cast(found, "float64") * weights)

    with tf.GradientTape() as tape:
        variable = tf.Variable(features)
        found = WAYS[way](variable, *arguments)
        loss = tf.reduce_sum(tf.cast(found, "float64") * weights)
    gradient = tape.gradient(loss, variable).numpy()
    for place in [(0, 0, 0, 0), (0, 2, 3, 1), (1, 4, 2, 0), (1, 2, 5, 1)]:
        step = np.zeros_like(features)
        step[place] = 1e-2
        measured = (total(features + step) - total(features - step)) / 2e-2
        assert abs(measured - gradient[place]) < 1e-4


def test_many_rois_in_parts_are_as_few():
    """More than are computed at once, of images that have different numbers of them."""
    generator = np.random.default_rng(0)
    features = tf.constant(generator.normal(size=(3, 8, 9, 4)).astype("float32"))
    first = generator.uniform(-1, 6, (150, 2))
    boxes = tf.constant(
        np.concatenate([first, first + generator.uniform(0, 5, (150, 2))], 1), "float32"
    )
    owners = tf.constant(np.sort(generator.choice([0, 2], 150)).astype("int32"))
    found = roi_align.by_matrices(features, boxes, owners, 7)
    assert np.abs(found - roi_align.by_crops(features, boxes, owners, 7)).max() < 1e-4


def test_no_rois():
    features = tf.zeros((1, 4, 4, 3))
    for way in WAYS.values():
        assert way(features, tf.zeros((0, 4)), tf.zeros((0,), "int32"), 7).shape == (0, 7, 7, 3)


@pytest.mark.parametrize(
    ("side", "level"),
    [(1, 0), (56, 0), (111.9, 0), (112.1, 1), (224, 2), (447.9, 2), (448.1, 3), (900, 3)],
)
def test_each_region_is_looked_for_on_the_level_of_its_size(side, level):
    """On P4 what is about 224 pixels wide and high, and an octave is a level."""
    boxes = tf.constant([[3.0, 5.0, 3.0 + side, 5.0 + side]])
    assert roi_align.level_of(boxes, tf.constant(1 / 4), 4).numpy().tolist() == [level]


def test_the_layer_takes_each_proposal_from_its_level():
    layer = detection.RoIAlign(7, detection.Options())
    levels = [np.full((1, 64 >> i, 64 >> i, 2), i, "float32") for i in range(4)]
    proposals = np.array([[[0, 0, side, side] for side in (30, 120, 230, 250, 256)]], "float32")
    found = layer(levels, np.zeros((1, 256, 256, 3), "float32"), proposals)
    assert found[:, 3, 3, 0].numpy().tolist() == [0, 1, 2, 2, 2]
