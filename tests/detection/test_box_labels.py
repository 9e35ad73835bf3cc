"""Boxes as labels: what is allowed, counted, written and read."""

import dataclasses

import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.data import boxes
from keras_resnet.data.labels import LABELS, as_labels, task_of
from keras_resnet.data.source import joined, source_of

KIND = LABELS["detection"]
NAMES = ("cat", 'a "|" b, c', "d\u00f6g")


def of(*images):
    """Labels of images, each a list of (class, ignored); where their boxes are does not matter."""
    return boxes.padded([[(1, 2, 3.5, 4, *each) for each in image] for image in images])


def split(labels):
    return data.Split(np.zeros((len(labels), 8, 8, 3), "uint8"), labels)


def source(train, validation=None, test=None, names=("cat", "dog")):
    splits = [split(of() if each is None else each) for each in (train, validation, test)]
    return data.Source("pets", names, 3, 8, "none", *splits, task="detection")


span = (
    st.lists(st.floats(0, 5000, width=32), min_size=2, max_size=2, unique=True)
    .map(sorted)
    .filter(lambda ends: ends[0] < ends[1] > 1)
)
box = st.builds(
    lambda x, y, kind, ignored: (x[0], y[0], x[1], y[1], kind, ignored),
    *(span, span, st.integers(0, 2), st.sampled_from((0, boxes.CROWD, boxes.DIFFICULT))),
)


@st.composite
def labels_of_images(draw, fewest=0):
    return boxes.padded(draw(st.lists(st.lists(box, max_size=5), min_size=fewest, max_size=5)))


class TestLabels:
    def test_are_of_the_task(self):
        assert task_of(as_labels(of([(0, 0)]))) == "detection"
        assert split(of([(0, 0)], [])).labels.dtype == np.float32

    @settings(deadline=None, max_examples=50)
    @given(labels_of_images())
    def test_are_read_as_they_were_written(self, labels):
        texts = [KIND.written(label, NAMES) for label in labels]
        again = KIND.read(texts, NAMES)
        most = max(1, *boxes.used(labels).sum(1), 0) if len(labels) else 1
        np.testing.assert_array_equal(again, labels[:, :most])
        np.testing.assert_array_equal(KIND.checked(again, NAMES), again)

    def test_counts_are_of_boxes_that_are_not_ignored(self):
        labels = of([(0, 0), (0, 0), (1, 1)], [], [(1, 0), (0, 1)])
        assert KIND.counts(labels, 3).tolist() == [2, 1, 0]
        assert [each.tolist() for each in KIND.groups(labels, 3)] == [[0], [2], []]
        assert split(labels).counts(3) == [2, 1, 0]

    @pytest.mark.parametrize(
        ("row", "complaint"),
        [
            ((1, 2, 3, 4, 2, 0), "the class is not one of 0 to 1"),
            ((1, 2, 3, 4, 0.5, 0), "the class must be a whole number"),
            ((1, 2, 3, 4, -2, 0), "the class must be a whole number"),
            ((1, 2, 3, 4, 0, 3), "the last number must be 0, or 1 or 2 for a box to ignore"),
            ((1, 2, 3, 4, -1, 0), "a row without a box is 0, 0, 0, 0, -1, 0"),
            ((3, 2, 3, 4, 0, 0), "x2 must be more than x1"),
            ((1, 4, 3, 2, 0, 0), "y2 more than y1"),
            ((-1, 2, 3, 4, 0, 0), "inside the image"),
        ],
    )
    def test_others_are_named(self, row, complaint):
        with one_line_error("source 'pets', train: labels[1, 0]=(", complaint):
            source(boxes.padded([[(1, 2, 3, 4, 0, 0), (1, 2, 3, 4, 1, 0)], [row]]))

    def test_of_another_shape_or_scale(self):
        with one_line_error("labels of shape (2, 3)", "(images, rows, 6)"):
            source(np.zeros((2, 3)))
        some = boxes.padded([[(1, 2, 3, 4, 0, 0), (0.1, 0.2, 0.5, 0.9, 0, 0), (0, 0, 1, 1, 1, 0)]])
        with one_line_error("labels[0, 1]=(0.1, ", "a box of fractions", "multiply x by the width"):
            source(some)
        with one_line_error("labels[0, 0, 0]=nan"):
            split(boxes.padded([[(np.nan, 2, 3, 4, 0, 0)]]))

    @pytest.mark.parametrize("corners", [(1, 2, 8.5, 4), (1, 2, 3, 9), (8, 8, 9, 9)])
    def test_are_inside_images_in_memory(self, corners):
        with one_line_error("labels[0, 0]=(", "reaches out of its image of 8 x 8 pixels"):
            source(boxes.padded([[(*corners, 0, 0)]]))
        assert source(boxes.padded([[(0, 0, 8, 8, 0, 0)]])).counts()["train"] == [1, 0]

    def test_of_an_image_of_one_pixel(self):
        labels = boxes.padded([[(0, 0, 1, 1, 0, 0), (0, 0, 1, 1, 1, 0)]])
        assert source(labels).counts()["train"] == [1, 1]


class TestSource:
    def test_splits_of_different_lengths_are_joined(self):
        parts = of([(0, 0), (1, 0)]), of([(1, 0)], []), of([(0, 0)] * 300)
        whole = joined(map(split, parts))
        assert whole.labels.shape == (4, 300, 6)
        assert boxes.used(whole.labels).sum(1).tolist() == [2, 1, 0, 300]
        assert whole.take(np.array([3])).counts(2) == [300, 0]
        some = source(*parts)
        assert some.with_all_to_train().counts()["train"] == [1, 2]

    def test_fingerprints_tell_boxes_apart(self):
        one, other = of([(0, 0), (1, 0)]), of([(0, 0), (1, 0)])
        assert source(one).fingerprint() == source(other).fingerprint()
        other[0, 0, 0] += 0.25
        assert source(one).fingerprint() != source(other).fingerprint()

    def test_of_two_splits(self):
        found = source_of(split(of([(0, 0), (1, 0)])), split(of([(1, 0)])))
        assert (found.task, found.class_names, len(found.test)) == ("detection", ("0", "1"), 0)

    def test_can_be_replaced(self):
        some = source(of([(0, 0), (1, 0)], [(1, 0)]), of([(1, 0)]))
        again = dataclasses.replace(some, train=some.train.take(np.array([0])))
        assert again.counts()["train"] == [1, 1]
