"""Folds: of equal size, equal in classes, and disjoint; what belongs together stays together."""

import numpy as np
import pytest
import small
from errors import one_line_error

from keras_resnet import data

NAMES = ("ant", "bee", "cat")


def split(labels, groups=None, copies=1):
    """Images of noise, each `copies` times, with labels."""
    random, count = np.random.default_rng(0), len(labels)
    images = random.integers(0, 256, (-(-count // copies), 4, 4, 1), "uint8")
    return data.Split(images.repeat(copies, 0)[:count], labels, groups=groups)


def check_parts(parts, count):
    """Every image is in one part."""
    assert sorted(np.concatenate(parts).tolist()) == [*range(count)]
    for part in parts:
        assert part.tolist() == sorted(part.tolist())


class TestFolds:
    def test_have_equally_much_of_every_class(self):
        labels = np.repeat([0, 1, 2], [50, 30, 11])
        parts = data.folds_of(split(labels), NAMES, "classification", 5)
        check_parts(parts, 91)
        counts = np.array([np.bincount(labels[part], minlength=3) for part in parts])
        assert (counts.max(0) - counts.min(0) <= 1).all()
        assert counts.min() == 2

    def test_depend_on_contents_alone(self):
        images = split(np.repeat([0, 1, 2], 20))
        order = np.random.default_rng(1).permutation(60)
        once = data.folds_of(images, NAMES, "classification", 4)
        again = data.folds_of(images.take(order), NAMES, "classification", 4)
        for part, other in zip(once, again, strict=True):
            assert part.tolist() == sorted(order[other].tolist())
        others = data.folds_of(images, NAMES, "classification", 4, seed=1)
        assert [part.tolist() for part in others] != [part.tolist() for part in once]

    def test_equal_images_stay_together(self):
        images = split(np.repeat([0, 1, 2], 20), copies=2)
        parts = data.folds_of(images, NAMES, "classification", 5)
        check_parts(parts, 60)
        for part in parts:
            assert (np.bincount(part // 2)[np.unique(part // 2)] == 2).all()

    def test_groups_stay_together(self):
        groups = np.array([f"patient {index % 12}" for index in range(96)])
        labels = np.arange(96) % 12 % 3
        parts = data.folds_of(split(labels, groups), NAMES, "classification", 4)
        check_parts(parts, 96)
        for part in parts:
            assert {*groups[part]}.isdisjoint(groups[np.setdiff1d(np.arange(96), part)])
            assert np.bincount(labels[part]).tolist() == [8, 8, 8]

    def test_rare_labels_are_in_all_of_them(self):
        labels = np.zeros((60, 3), "float32")
        labels[:, 0] = 1
        labels[:6, 1] = labels[3:9, 2] = 1
        parts = data.folds_of(split(labels), NAMES, "multilabel", 3)
        check_parts(parts, 60)
        counts = np.array([labels[part].sum(0) for part in parts])
        assert counts[:, 0].tolist() == [20, 20, 20]
        assert counts.min(0)[1:].min() >= 1

    def test_numbers_are_spread_alike(self):
        values = np.random.default_rng(2).exponential(size=200).astype("float32")
        parts = data.folds_of(split(values), ("price",), "regression", 5)
        check_parts(parts, 200)
        quartiles = np.array([np.quantile(values[part], [0.25, 0.5, 0.75]) for part in parts])
        spread = quartiles.std(0) / values.std()
        drawn = np.array([np.quantile(values[i::5], [0.25, 0.5, 0.75]) for i in range(5)])
        assert (spread < drawn.std(0) / values.std()).all()

    @pytest.mark.parametrize(
        ("folds", "reason"),
        [
            (4, "folds=4: class 'cat' is in 3 different images only. Use at most 3 folds."),
            (1, "folds=1 must be a whole number of at least 2"),
            (True, "folds=True must be a whole number"),
            (2.0, "folds=2.0 must be a whole number"),
        ],
    )
    def test_there_cannot_be_more_than_images_of_a_class(self, folds, reason):
        images = split(np.repeat([0, 1, 2], [10, 10, 3]))
        with one_line_error(reason):
            data.folds_of(images, NAMES, "classification", folds)

    def test_copies_and_groups_count_once(self):
        labels = np.repeat([0, 1, 2], 6)
        with one_line_error("class 'ant' is in 2 different images only"):
            data.folds_of(split(labels, copies=3), NAMES, "classification", 3)
        groups = np.array([f"{label} {index % 2}" for index, label in enumerate(labels)])
        with one_line_error("class 'ant' is in 2 groups only"):
            data.folds_of(split(labels, groups), NAMES, "classification", 3)


class TestWithFold:
    def test_divides_the_rest(self):
        source = data.load("digits", validation=0.0, test=0.0)
        parts = data.folds_of(source.train, source.class_names, source.task, 5)
        for part in parts[:2]:
            fold = data.with_fold(source, part, validation=0.2)
            digests = [each.digests() for each in fold.splits.values()]
            assert len(np.unique(np.concatenate(digests))) == sum(map(len, digests)) == 1797
            assert len(fold.validation) == pytest.approx(0.2 * (1797 - len(part)), abs=5)
            assert min(fold.validation.counts(10)) > 20
            np.testing.assert_array_equal(fold.test.labels, source.train.labels[part])

    def test_without_validation_all_others_are_trained_on(self):
        source = small.digits(100, 0)
        fold = data.with_fold(source, np.arange(10), validation=0.0)
        assert (len(fold.train), len(fold.validation), len(fold.test)) == (90, 0, 10)

    def test_groups_stay_together_in_validation(self):
        groups = np.array([f"{index % 30}" for index in range(120)])
        labels = np.arange(120) % 30 % 3
        images = split(labels, groups)
        nothing = images.take(np.array([], int))
        source = data.Source("groups", NAMES, 1, 4, "none", images, nothing, nothing)
        (part, *_) = data.folds_of(images, NAMES, "classification", 3)
        fold = data.with_fold(source, part, validation=0.2)
        found = [{*each.groups} for each in fold.splits.values()]
        assert sum(map(len, found)) == len(set().union(*found)) == 30
        assert len(fold.validation) == pytest.approx(16, abs=8)

    def test_a_class_of_few_images_is_trained_on(self):
        images = split(np.repeat([0, 1, 2], [40, 40, 2]))
        nothing = images.take(np.array([], int))
        source = data.Source("few", NAMES, 1, 4, "none", images, nothing, nothing)
        for part in data.folds_of(images, NAMES, "classification", 2):
            fold = data.with_fold(source, part, validation=0.15)
            assert fold.train.counts(3)[2] == fold.test.counts(3)[2] == 1

    @pytest.mark.parametrize("groups", [None, np.array([*"abcdef"])])
    def test_a_class_of_one_image_cannot_be_validated(self, groups):
        images = split(np.repeat([0, 1, 2], 2), groups)
        nothing = images.take(np.array([], int))
        source = data.Source("few", NAMES, 1, 4, "none", images, nothing, nothing)
        (part, *_) = data.folds_of(images, NAMES, "classification", 2)
        with one_line_error("validation=0.15: a class of 'few' has too few images"):
            data.with_fold(source, part, validation=0.15)
        fold = data.with_fold(source, part, validation=0.0)
        assert fold.train.counts(3) == fold.test.counts(3) == [1, 1, 1]


class TestGroupsOfATable:
    def write(self, folder, column="group"):
        from pictures import write_images

        write_images(folder, 40)
        lines = [f"{i}.png,{'cat' if i % 2 else 'dog'},{i // 4}" for i in range(40)]
        (folder / "images.csv").write_text("\n".join([f"path,label,{column}", *lines]))
        return folder / "images.csv"

    def test_stay_in_one_split(self, tmp_path):
        source = data.load(self.write(tmp_path))
        found = [{*each.groups.tolist()} for each in source.splits.values()]
        assert sum(map(len, found)) == len(set().union(*found)) == 10
        assert all(len(each) for each in source.splits.values())
        assert "Images of one 'group' stay in one split." in source.notes
        whole = source.with_all_to_train()
        assert {*whole.train.groups} == found[0] | found[1]

    def test_without_such_a_column_images_go_their_own_way(self, tmp_path):
        source = data.load(self.write(tmp_path, "patient"))
        assert source.train.groups is None
        there = {int(path.stem) // 4 for path in source.train.images}
        others = {int(path.stem) // 4 for path in source.test.images}
        assert there & others

    def test_are_as_many_as_labels(self):
        with one_line_error("groups and labels must be of one length"):
            split([0, 1], groups=np.array(["a"]))
