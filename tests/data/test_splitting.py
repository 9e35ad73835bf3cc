"""Where an image goes depends on its contents and the seed alone."""

import shutil

import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pictures import encoded, write_images

from keras_resnet import data
from keras_resnet.data.image_sets import Files
from keras_resnet.data.splitting import SplitPolicy, complete
from keras_resnet.files import digest

PETS = ("cat", "dog", "cow")


def places(contents, labels, names=PETS, task="classification", **policy):
    """The split of each of some files, by their contents; their names are their numbers."""
    known = np.array([digest([each]) for each in contents], "S16")
    files = data.Split(Files([f"{index}" for index in range(len(contents))], known), labels)
    splits = complete({"train": files}, names, SplitPolicy(**policy), task)
    found = {int(i): name for name, split in splits.items() for i in split.images}
    assert sorted(found) == [*range(len(contents))]
    for split in splits.values():
        np.testing.assert_array_equal(split.labels, files.labels[[*map(int, split.images)]])
    return np.array([found[index] for index in range(len(contents))])


def some_files(count, start=0):
    return [f"{number}".encode() for number in range(start, start + count)]


@st.composite
def labelled(draw):
    """Different files of three classes, and which of them are there at first."""
    contents = sorted(draw(st.sets(st.binary(min_size=1, max_size=3), min_size=40, max_size=90)))
    labels = np.arange(len(contents)) % len(PETS)
    there = np.array(draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    there[:12] = True  # so that there is something to split
    return np.array(contents, object), labels, there


class TestClasses:
    @settings(deadline=None)
    @given(labelled(), st.permutations(range(90)), st.integers(0, 3))
    def test_adding_removing_and_renaming_moves_no_other_file(self, files, order, seed):
        contents, labels, there = files
        order = np.array([index for index in order if index < len(labels)])
        after = np.empty(len(labels), object)
        after[order] = places(contents[order], labels[order], seed=seed)
        before = np.full(len(labels), "", object)
        before[there] = places(contents[there], labels[there], seed=seed)
        for index in np.flatnonzero(there & (before != after)):
            # It stood in for its class in a split where it had no other image.
            alone = [
                found[index] != "train"
                and ((labels == labels[index]) & (found == found[index])).sum() == 1
                for found in (before, after)
            ]
            assert any(alone)

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=60, max_size=60))
    def test_equal_images_are_together_whatever_their_labels(self, files):
        contents, labels = zip(*files, strict=True)
        contents = [*some_files(30, 100), *(f"{each}".encode() for each in contents)]
        labels = np.array([*range(30), *labels]) % 3
        for seed in range(3):
            found = places(contents, labels, seed=seed)
            pairs = set(zip(contents, found, strict=True))
            assert len(pairs) == len({content for content, _ in pairs})

    @pytest.mark.parametrize("seed", range(3))
    def test_the_fractions_are_about_those_asked_for(self, seed):
        labels = np.arange(6000) % 3
        found = places(some_files(6000), labels, seed=seed)
        for label in range(3):
            its = found[labels == label]
            assert np.mean(its == "test") == pytest.approx(0.2, abs=0.04)
            assert np.mean(its[its != "test"] == "validation") == pytest.approx(0.15, abs=0.04)
        found = places(some_files(6000), labels, seed=seed, test=0.5, validation=0.3)
        assert np.mean(found == "test") == pytest.approx(0.5, abs=0.03)
        assert np.mean(found == "validation") == pytest.approx(0.15, abs=0.02)

    def test_seeds_differ(self):
        tests = [places(some_files(600), np.arange(600) % 3, seed=s) == "test" for s in range(3)]
        for first, second in ((0, 1), (0, 2), (1, 2)):
            assert np.mean(tests[second][tests[first]]) == pytest.approx(0.2, abs=0.1)

    def test_a_larger_fraction_takes_those_of_a_smaller_one_and_more(self):
        labels = np.arange(300) % 3
        small, large = (places(some_files(300), labels, validation=each) for each in (0.1, 0.3))
        assert (large[small == "validation"] == "validation").all()
        assert ((large == "test") == (small == "test")).all()

    @pytest.mark.parametrize("count", [3, 4, 5, 8])
    def test_small_classes_are_in_every_split(self, count):
        labels = np.repeat(np.arange(3), count)
        for seed in range(20):
            found = places(some_files(3 * count), labels, seed=seed)
            for label in range(3):
                assert set(found[labels == label]) == {"train", "validation", "test"}

    def test_two_are_enough_for_two_splits(self):
        labels = np.repeat(np.arange(3), 2)
        for policy in ({"test": 0}, {"validation": 0}):
            found = places(some_files(6), labels, **policy)
            assert np.sum(found == "train") == 3
        assert (places(some_files(6), labels, test=0, validation=0) == "train").all()

    def test_too_few_different_ones_are_refused(self):
        contents = [*some_files(20), b"same", b"same", b"same", b"other"]
        labels = np.repeat([0, 1], [20, 4])
        with one_line_error("class 'dog' has too few images", "at least 3 different ones"):
            places(contents, labels, PETS[:2])
        places(contents, labels, PETS[:2], validation=0)


class TestSeveralLabels:
    @settings(deadline=None)
    @given(
        st.lists(st.sets(st.integers(0, 4)), min_size=10, max_size=80),
        st.sampled_from([0.1, 0.2, 0.5]),
        st.integers(0, 5),
    )
    def test_no_label_is_held_out_whole(self, sets, fraction, seed):
        labels = np.array([[index in each for index in range(5)] for each in sets], "float32")
        policy = dict(seed=seed, test=fraction, validation=0)
        try:
            found = places(some_files(len(sets)), labels, tuple("abcde"), "multilabel", **policy)
        except ValueError as error:
            assert "too few to split" in str(error)  # noqa: PT017
            return
        train = found == "train"
        assert labels[train].any(axis=0).tolist() == labels.any(axis=0).tolist()
        assert not train.all()

    def test_common_labels_give_their_fraction(self):
        random = np.random.default_rng(0)
        labels = (random.uniform(size=(4000, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype("f4")
        test = places(some_files(4000), labels, tuple("abcdef"), "multilabel") == "test"
        np.testing.assert_allclose(labels[test].sum(axis=0) / labels.sum(axis=0), 0.2, atol=0.07)
        assert abs(test.mean() - 0.2) < 0.03


class TestNumbers:
    @settings(deadline=None)
    @given(
        arrays.arrays("float32", st.integers(3, 80), elements=st.floats(-9, 9, width=16)),
        st.integers(0, 5),
    )
    def test_any_can_be_split(self, labels, seed):
        found = places(some_files(len(labels)), labels, ("value",), "regression", seed=seed)
        assert set(found) == {"train", "validation", "test"}

    def test_several_an_image_can_be_split(self):
        labels = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
        found = places(some_files(50), labels, ("x", "y"), "regression")
        assert 4 <= np.sum(found == "test") <= 17


class TestFolders:
    """The same with what a user has: files, and records."""

    def of(self, folder):
        """The split of every image of a folder, by its contents."""
        splits = data.load(folder).splits
        return {f.read_bytes(): name for name, split in splits.items() for f in split.images}

    def test_one_image_more_or_less_moves_no_other(self, tmp_path):
        for start, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "pets" / name, 60, start=1000 * start)
        before = self.of(tmp_path / "pets")
        changed = shutil.copytree(tmp_path / "pets", tmp_path / "other")
        (changed / "cat" / "0.png").unlink()
        (changed / "dog" / "7.png").rename(changed / "dog" / "a dog.png")
        write_images(changed / "dog", 3, start=5000)  # 0.png to 2.png are others now
        after = self.of(changed)
        common = before.keys() & after.keys()
        assert len(common) == 120 - 4
        assert {each: before[each] for each in common} == {each: after[each] for each in common}

    def test_the_same_picture_twice_is_on_one_side_and_contradictions_are_named(self, tmp_path):
        for start, name in enumerate(("cat", "dog")):
            write_images(tmp_path / name, 30, start=1000 * start)
        for copy in range(20):
            (tmp_path / "cat" / f"copy {copy}.png").write_bytes(encoded(5))
            (tmp_path / "dog" / f"no cat {copy}.png").write_bytes(encoded(7))
        source = data.load(tmp_path)
        for content in (encoded(5), encoded(7)):
            holding = [
                name
                for name, split in source.splits.items()
                if content in [file.read_bytes() for file in split.images]
            ]
            assert len(holding) == 1
        (note,) = source.notes
        cat, dog = (str(tmp_path / each) for each in ("cat/7.png", "dog/no cat 0.png"))
        assert note == f"1 image has different labels: {cat!r} (cat) is {dog!r} (dog)."

    def test_images_of_two_splits_on_disk_are_named(self, tmp_path):
        for start, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "train" / name, 10, start=1000 * start)
            write_images(tmp_path / "val" / name, 4, start=1000 * start + 100)
            write_images(tmp_path / "test" / name, 4, start=1000 * start + 8)
        (note,) = data.load(tmp_path).notes
        assert note.startswith("4 of 8 test images also in train: ")
        assert str(tmp_path / "test" / "cat" / "0.png") in note
        assert str(tmp_path / "train" / "cat" / "8.png") in note
