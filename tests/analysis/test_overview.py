import dataclasses
import json
import statistics

import numpy as np
import PIL.Image
import pytest
from pictures import encoded, pixels, write_damaged, write_images, write_records

from keras_resnet import data
from keras_resnet.analysis import overview


@pytest.fixture
def pets(tmp_path):
    """Folders of split/class/image: 6 cats and 2 dogs for training, 2 and 2 otherwise."""
    start = 0
    for split, counts in (("train", (6, 2)), ("validation", (2, 2)), ("test", (2, 2))):
        for name, count in zip(("cat", "dog"), counts, strict=True):
            write_images(tmp_path / split / name, count, start=start)
            start += count
    return tmp_path


def test_counts_are_those_of_the_folders(pets):
    found = overview(data.load(pets))
    assert found.class_names == ("cat", "dog")
    assert found.counts == {"train": [6, 2], "validation": [2, 2], "test": [2, 2]}
    assert found.imbalance == 3
    assert found.damaged == ()
    assert found.duplicates == []


def test_sizes_are_upright_and_by_area(pets):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    PIL.Image.new("RGB", (40, 30)).save(pets / "train" / "cat" / "turned.jpg", exif=exif)
    PIL.Image.new("RGB", (100, 1)).save(pets / "test" / "dog" / "narrow.png")
    found = overview(data.load(pets))
    assert (found.smallest, found.median, found.largest) == ((100, 1), (12, 9), (30, 40))


def test_duplicates_are_those_across_splits(pets):
    twice = pets / "train" / "cat" / "5.png"
    for copy in ("test/dog/copy.png", "validation/cat/copy.jpg", "train/dog/copy.png"):
        (pets / copy).write_bytes(twice.read_bytes())
    within = pets / "train" / "dog" / "within.png"
    within.write_bytes((pets / "train" / "dog" / "0.png").read_bytes())
    (group,) = overview(data.load(pets)).duplicates
    assert group == [
        f"train: {twice}",
        f"train: {pets / 'train/dog/copy.png'}",
        f"validation: {pets / 'validation/cat/copy.jpg'}",
        f"test: {pets / 'test/dog/copy.png'}",
    ]


def test_damaged_files_are_those_that_were_skipped(pets):
    damaged = write_damaged(pets / "test" / "dog")
    source = data.load(pets, on_error="skip")
    found = overview(source)
    assert found.damaged == source.skipped
    assert all(str(file) in reason for file, reason in zip(damaged, found.damaged, strict=True))
    assert found.counts["test"] == [2, 2]


def test_streams_are_looked_over_too(tmp_path):
    for split, numbers in (("train", range(20)), ("val", range(20, 26)), ("test", range(30, 38))):
        images = [encoded(number, height=9 + number) for number in numbers]
        if split != "train":
            images[1] = encoded(4, height=13)
        if split == "test":
            images[3] = b"GIF89a no more"
        labels = [number % 2 for number in numbers]
        write_records(tmp_path / f"pets-{split}.tfrecord", images, labels)
    found = overview(data.load(f"{tmp_path}/pets-*.tfrecord"))
    assert found.counts == {"train": [10, 10], "validation": [3, 3], "test": [4, 4]}
    heights = [*range(9, 29), *range(29, 35), *range(39, 47)]
    heights[21] = heights[27] = 13
    del heights[29]
    assert (found.smallest, found.largest) == ((12, 9), (12, 46))
    assert found.median == (12, statistics.median_high(heights))
    assert found.duplicates == [["train: image 4", "validation: image 1", "test: image 1"]]
    assert found.damaged == ("test: image 3 cannot be read.",)


def test_arrays_are_looked_over_too():
    images = np.stack([pixels(number) for number in range(10)])
    labels = np.arange(10) % 2
    splits = (data.Split(images[where], labels[where]) for where in ([0, 1, 2, 5], [3, 6], [5, 4]))
    found = overview(data.Source("noise", ("a", "b"), 3, 9, "photograph", *splits))
    assert found.largest == (12, 9)
    assert found.duplicates == [["train: image 3", "test: image 0"]]


class TestTasks:
    def of(self, labels, names, task):
        images = np.stack([pixels(number) for number in range(len(labels))])
        splits = [
            data.Split(images[where], np.asarray(labels)[where])
            for where in (slice(0, None, 2), slice(1, None, 2), [])
        ]
        return overview(data.Source("noise", names, 3, 9, "none", *splits, task=task))

    def test_of_several_labels_the_images_of_each_are_counted(self):
        labels = [[1, 1], [0, 1], [0, 0], [0, 0], [1, 0], [0, 0]]
        found = self.of(labels, ("a", "b"), "multilabel")
        assert found.counts == {"train": [2, 1], "validation": [0, 1], "test": [0, 0]}
        assert found.unlabelled == {"train": 1, "validation": 2, "test": 0}
        assert (found.task, found.imbalance, found.values) == ("multilabel", 2, {})

    def test_of_numbers_the_range_is_told(self):
        found = self.of([[-1, 0], [2, 2], [3, 8], [4, 4.5]], ("x", "y"), "regression")
        ranges = {
            name: [dataclasses.astuple(each) for each in values]
            for name, values in found.values.items()
        }
        assert ranges == {
            "train": [(-1, 1, 3), (0, 4, 8)],
            "validation": [(2, 3, 4), (2, 3.25, 4.5)],
        }
        assert (found.task, found.counts["train"], found.imbalance) == ("regression", [2, 2], 1)

    def test_is_written_as_json(self, pets):
        numbers = self.of([0.5, 1, 2, 3], ("value",), "regression")
        for found in map(dataclasses.asdict, (overview(data.load(pets)), numbers)):
            assert json.loads(json.dumps(found))["values"] == found["values"]
