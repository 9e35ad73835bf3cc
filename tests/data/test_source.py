import os

import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error

from keras_resnet import data
from keras_resnet.data.source import source_of


def split(labels, channels=1):
    return data.Split(np.zeros((len(labels), 2, 2, channels), "uint8"), labels)


def source(*labels, names="ab", **options):
    """A source of splits with these labels, or one for all splits."""
    splits = [each if isinstance(each, data.Split) else split(each) for each in labels]
    splits = splits if len(splits) == 3 else 3 * splits
    return data.Source("letters", tuple(names), 1, 2, "handwriting", *splits, **options)


class TestWeights:
    def of(self, *counts):
        return source(np.repeat(np.arange(len(counts)), counts), names="abcdef"[: len(counts)])

    def test_are_those_by_hand(self):
        letters = self.of(2, 6, 4)
        assert letters.class_weight() == pytest.approx({0: 12 / 6, 1: 12 / 18, 2: 12 / 12})
        assert letters.imbalance == 3

    @pytest.mark.parametrize("counts", [(5, 5), (1, 9), (7, 3, 3, 3)])
    def test_weight_all_classes_equally(self, counts):
        weights = self.of(*counts).class_weight()
        assert sorted(weights) == list(range(len(counts)))
        totals = [weights[label] * count for label, count in enumerate(counts)]
        np.testing.assert_allclose(totals, sum(counts) / len(counts))
        assert all(type(weight) is float for weight in weights.values())

    def test_are_what_scikit_learn_calls_balanced(self):
        from sklearn.utils import compute_class_weight

        labels = np.repeat([0, 1, 2], [7, 31, 2])
        theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
        assert [*source(labels, names="abc").class_weight().values()] == theirs.tolist()


class TestChecks:
    @pytest.mark.parametrize(
        ("labels", "options", "complaints"),
        [
            ([0, 2], {}, ["letters", "train", "label 2 of image 1", "not one of 0 to 1"]),
            ([0, 2**40], {}, ["label 1099511627776 of image 1", "not one of 0 to 1"]),
            ([0, 0], {}, ["train has no image of class 'b'"]),
            ([1, 2], {"names": "abc"}, ["image of class 'a'; labels begin with 1, not with 0"]),
            ([0, 1], {"names": "aa"}, ["letters", "the class 'a' is there twice"]),
            ([0, 1], {"names": ["caf\u00e9", "cafe\u0301"]}, ["'caf\u00e9' is there twice"]),
            ([0, 1], {"names": ["a", " "]}, ["letters", "label ''"]),
            ([0, 1], {"names": ["a", "b\nc"]}, ["'b\\nc' must be one line"]),
            ([0.0, 1.0], {}, ["labels are float32", "astype('int64')", "task='regression'"]),
            (np.eye(2), {}, ["shape (2, 2)", "np.argmax(labels, axis=1)", "task='multilabel'"]),
            ([0, 1], {"task": "captions"}, ["task='captions' must be one of 'classification'"]),
            ([0, 1], {"task": "multilabel"}, ["shape (2,)", "of shape (images, 2)"]),
            (np.eye(3), {"task": "multilabel"}, ["shape (3, 3)", "of shape (images, 2)"]),
            (0.5 + np.eye(2), {"task": "multilabel"}, ["labels[0, 0]=1.5 must be 1", "or 0"]),
            ([[1, 0], [1, 0]], {"task": "multilabel"}, ["train has no image of label 'b'"]),
            ([0.5, 1], {"task": "regression"}, ["2 names takes floats of shape (images, 2)"]),
            (
                np.eye(2),
                {"task": "regression", "names": "a"},
                ["1 names takes floats of shape (im"],
            ),
        ],
    )
    def test_labels_that_do_not_fit(self, labels, options, complaints):
        with one_line_error(*complaints):
            source(labels, **options)

    def test_the_split_is_named(self):
        with one_line_error("letters", "test: label 2 of image 0"):
            source([0, 1], [0, 1], [2])

    def test_splits_of_different_kinds(self, tmp_path):
        files = data.Split([tmp_path / "1.png", tmp_path / "2.png"], [0, 1])
        with one_line_error("train holds arrays, test files; all splits must be of one kind"):
            source([0, 1], [0, 1], files)
        assert len(source([0, 1], [0, 1], data.Split([], [])).test) == 0

    def test_other_channels(self):
        with one_line_error("validation: images of 3 channels, but channels=1", "(images, height"):
            source([0, 1], split([0, 1], channels=3), [0, 1])

    def test_whole_numbers_may_be_predicted(self):
        ages = source([40, 7], names=["age"], task="regression")
        assert ages.train.labels.dtype == np.float32
        assert ages.train.labels.tolist() == [40, 7]
        assert source([[40.0], [7.0]], names=["age"], task="regression").test.labels.ndim == 1

    def test_counts_of_a_split_are_checked(self):
        with one_line_error("label 5 of image 0"):
            split([5]).counts(3)
        with one_line_error("1099511627776"):
            split([2**40]).counts(3)


class TestTasks:
    def test_counts_are_those_of_every_label(self):
        several = source([[1, 1], [0, 1], [0, 0]], task="multilabel")
        assert several.counts() == {name: [1, 2] for name in data.SPLITS}
        assert several.imbalance == 2
        assert several.class_weight() == {0: 1.5, 1: 0.75}

    def test_numbers_have_no_weights(self):
        numbers = source([0.5, 3, 2], names=["value"], task="regression")
        assert numbers.counts()["test"] == [3]
        assert numbers.imbalance == 1
        with one_line_error("letters", "not classes to weight"):
            numbers.class_weight()

    @pytest.mark.parametrize(
        ("labels", "task"), [([0, 1], "classification"), ([[0, 1], [1, 0]], "multilabel")]
    )
    def test_none_is_left_to_validate(self, labels, task):
        everything = source(labels, task=task).with_all_to_train()
        assert (len(everything.train), len(everything.validation)) == (4, 0)
        assert everything.with_all_to_train().fingerprint() == everything.fingerprint()

    def test_fingerprints_tell_them_apart(self):
        several = source([[1, 0], [0, 1]], task="multilabel").fingerprint()
        numbers = source([[1.0, 0], [0, 1]], task="regression").fingerprint()
        changed = source([[1.0, 0], [0, 2]], task="regression").fingerprint()
        assert len({several, numbers, changed}) == 3

    def test_fingerprints_are_of_the_contents(self, tmp_path):
        def fingerprint(*contents, way):
            images = [tmp_path / f"{index}.bin" for index in range(2)]
            for file, content in zip(images, contents, strict=True):
                file.write_bytes(content)
                os.utime(file, (0, 0))
            if way == "stream":
                images = tf.data.Dataset.from_tensor_slices([*contents])
            one = data.Split(images, [0, 1])
            return data.Source("pets", ("cat", "dog"), 3, 8, "none", one, one, one).fingerprint()

        for way in ("files", "stream"):
            first = fingerprint(b"meow", b"woof", way=way)
            assert first == fingerprint(b"meow", b"woof", way=way)
            assert first != fingerprint(b"woof", b"meow", way=way)
            assert first.startswith("contents-")

    def test_a_stream_of_another_length_is_named(self):
        images = tf.data.Dataset.from_generator(lambda: [b"meow"] * 3, tf.string)
        split = data.Split(images.map(lambda each: tf.ensure_shape(each, ())), [0, 1])
        with one_line_error("3 images, 2 labels"):
            split.digests()

    def test_fingerprints_of_classes_are_those_of_before_there_were_tasks(self):
        assert data.load("digits").fingerprint() == "348d5136aef77177"


class TestOfTwoSplits:
    @pytest.mark.parametrize(
        ("labels", "task", "names"),
        [
            ([0, 2, 1], "classification", ("0", "1", "2")),
            ([[1, 0], [1, 1]], "multilabel", ("0", "1")),
            ([0.5, 2], "regression", ("value",)),
            ([[0.5, 1], [1, 2]], "regression", ("0", "1")),
        ],
    )
    def test_the_task_is_that_of_the_labels(self, labels, task, names):
        found = source_of(split(labels, channels=3), split(labels, channels=3))
        assert (found.task, found.class_names) == (task, names)
        assert (found.channels, found.image_size, len(found.test)) == (3, 2, 0)

    def test_a_label_too_high_takes_no_memory(self):
        with one_line_error("label 1099511627776, but only 4 images"):
            source_of(split([0, 2**40]), split([0, 1]))
