"""Which anchors and RoIs are sampled, against slow formulations in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet.detection.sampling import Matches, Truth, chances, match, sample


def overlap(one, other):
    """IoU of two boxes, and the fraction of the first that is in the second."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = sides.clip(min=0).prod()
    areas = [(each[2:] - each[:2]).prod() for each in (one, other)]
    together = sum(areas) - common
    return common / together if together else 0, common / areas[0] if areas[0] else 0


def slowly(candidates, boxes, found, ignored, foreground, background, low_quality):
    """What candidates of one image are, -1 for neither, and the best of the boxes."""
    table = np.array([[overlap(each, box) for box in boxes] for each in candidates])
    iou = np.where(found, table[..., 0], 0)
    best, kinds = iou.argmax(1), np.full(len(candidates), -1)
    kinds[(iou.max(1) < background) & (np.where(ignored, table[..., 1], 0).max(1) < background)] = 0
    kinds[iou.max(1) >= foreground] = 1
    if low_quality:
        for column in iou.T:
            if column.max() > 0:
                kinds[column == column.max()] = 1
    return kinds, best


def boxes_of(generator, shape, side=12):
    corners = np.sort(generator.integers(0, side, (*shape, 2, 2)), -2)
    return corners.reshape(*shape, 4).astype("float32")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    rows=st.integers(1, 5),
    low_quality=st.booleans(),
    shared=st.booleans(),
    # No IoU of boxes of whole pixels, but for halves, which are exact in any precision.
    thresholds=st.sampled_from([(0.7003, 0.3003), (0.5, 0.5), (0.2003, 0.1003)]),
)
def test_matches_are_those_of_all_pairs(seed, images, rows, low_quality, shared, thresholds):
    generator = np.random.default_rng(seed)
    candidates = boxes_of(generator, (1 if shared else images, 30))
    boxes, kinds = boxes_of(generator, (images, rows)), generator.integers(0, 3, (images, rows))
    truth = Truth(tf.constant(boxes), tf.constant(kinds == 1), tf.constant(kinds == 2))
    foreground, background = thresholds
    options = dict(foreground=foreground, background=background, low_quality=low_quality)
    matches = match(tf.constant(candidates), truth, **options)
    for image in range(images):
        its = candidates[0 if shared else image], boxes[image], kinds[image] == 1, kinds[image] == 2
        expected, best = slowly(*its, foreground, background, low_quality)
        found = np.where(matches.positive[image], 1, np.where(matches.negative[image], 0, -1))
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(matches.box[image].numpy()[found == 1], best[found == 1])


def test_ignored_boxes_are_neither_found_nor_missed():
    """Small boxes within a crowd are not negatives, though their IoU with it is tiny."""
    crowd = tf.constant([[[0.0, 0, 100, 100]]])
    truth = Truth(crowd, tf.constant([[False]]), tf.constant([[True]]))
    boxes = tf.constant(
        [[[10.0, 10, 20, 20], [0, 0, 100, 100], [90, 0, 140, 10], [200, 0, 210, 9]]]
    )
    matches = match(boxes, truth, foreground=0.7, background=0.3, low_quality=True)
    assert not matches.positive.numpy().any()
    assert matches.negative.numpy().tolist() == [[False, False, True, True]]


def test_images_without_boxes_are_all_background():
    nothing = tf.zeros((2, 3), "bool")
    matches = match(
        tf.tile([[[0.0, 0.0, 9.0, 9.0]]], (1, 5, 1)), Truth(tf.zeros((2, 3, 4)), nothing, nothing),
        foreground=0.7, background=0.3, low_quality=True,
    )  # fmt: skip
    assert matches.negative.numpy().all()
    assert not matches.positive.numpy().any()


def test_memory_does_not_grow_with_the_number_of_boxes():
    """300 boxes and 200,000 anchors: 240 MB for one matrix of overlaps."""
    resource = pytest.importorskip("resource")
    generator = np.random.default_rng(0)
    anchors = boxes_of(generator, (1, 200_000), 800)
    boxes = boxes_of(generator, (1, 300), 800)
    truth = Truth(tf.constant(boxes), tf.fill((1, 300), True), tf.fill((1, 300), False))
    find = tf.function(lambda: match(anchors, truth, foreground=0.7, background=0.3))
    few = tf.function(lambda: match(anchors[:, :99], truth, foreground=0.7, background=0.3))
    few()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    find()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000  # in kB


def kinds(generator, images, candidates, positive):
    kind = generator.choice([1, 0, -1], (images, candidates), p=(positive, 0.8 - positive, 0.2))
    return Matches(tf.zeros_like(kind), tf.constant(kind == 1), tf.constant(kind == 0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 3),
    candidates=st.integers(1, 40),
    size=st.integers(1, 50),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    positive=st.sampled_from([0.0, 0.1, 0.7]),
)
def test_samples_are_as_many_as_there_may_be(seed, images, candidates, size, fraction, positive):
    matches = kinds(np.random.default_rng(seed), images, candidates, positive)
    numbers = chances(tf.constant([[seed, index] for index in range(images)]), candidates, 0)
    samples = sample(matches, numbers, size, fraction)
    assert samples.index.shape == (images, min(size, candidates))
    for image in range(images):
        valid, its = samples.valid[image].numpy(), samples.positive[image].numpy()
        index, chance = samples.index[image].numpy(), numbers[image].numpy()
        positives, negatives = index[valid & its], index[valid & ~its]
        are_positive = matches.positive[image].numpy()
        are_negative = matches.negative[image].numpy()
        assert are_positive[positives].all()
        assert are_negative[negatives].all()
        assert len(positives) == min(are_positive.sum(), int(size * fraction))
        assert len(negatives) == min(are_negative.sum(), size - len(positives))
        for chosen, among in ((positives, are_positive), (negatives, are_negative)):
            assert len({*chosen}) == len(chosen)
            others = np.setdiff1d(np.flatnonzero(among), chosen)
            assert chance[others].max(initial=0) <= chance[chosen].min(initial=1)


def test_chances_are_of_the_image_alone_and_spread_evenly():
    seeds = tf.constant([[3, 5], [3, 6], [4, 5]])
    together = chances(seeds, tf.constant(10_000), 0).numpy()
    for index in range(3):
        alone = chances(seeds[index : index + 1], 10_000, 0).numpy()
        np.testing.assert_array_equal(alone[0], together[index])
    other = chances(seeds, 10_000, 1).numpy()
    correlations = np.corrcoef(np.concatenate([together, other]))
    assert np.abs(correlations - np.eye(6)).max() < 0.05
    np.testing.assert_allclose(np.histogram(together, 10, (0, 1))[0], 3000, atol=250)
