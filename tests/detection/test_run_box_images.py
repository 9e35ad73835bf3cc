"""What a run knows of its images with boxes."""

import csv
import json

import numpy as np
import pytest
from box_files import coco, write_image, write_json

from keras_resnet import data
from keras_resnet.data.boxes import used
from keras_resnet.runs.images import images_of, write_images

NAMES = ("cell", 'a "|", b', "d\u00f6t")


@pytest.fixture
def source(tmp_path):
    """Images with none to 4,000 boxes, one of them of a crowd."""
    boxes = {
        f"{number}.png": [
            (number, 1.25 + number / 3, number + 8.1, 20, NAMES[index % 3])
            for index in range(number)
        ]
        for number in range(12)
    }
    boxes["12.png"] = [
        (i % 50 + 0.123, 2.3456, i % 50 + 3.789, 20.1, NAMES[0]) for i in range(4000)
    ]
    for number, name in enumerate(boxes):
        write_image(tmp_path / name, number)
    return data.load(write_json(tmp_path / "cells.json", coco(boxes, NAMES, crowds=(40,))))


def written(source, folder):
    folder.mkdir()
    write_images(folder, source)
    known = {"data": source.name, "task": source.task, "loaded": source.loaded}
    (folder / "metrics.json").write_text(json.dumps(known))
    return images_of(folder)


def test_are_found_again(source, tmp_path):
    limit = csv.field_size_limit()
    run = written(source, tmp_path / "run")
    assert csv.field_size_limit() == limit
    again, missing = run.find(tuple(source.splits), source.class_names, None)
    assert missing == {"changed": 0, "gone": 0}
    assert again.task == "detection"
    assert again.counts() == source.counts()
    ignored = 0
    for name, split in source.splits.items():
        found = again.splits[name].labels
        assert [*map(str, split.images)] == again.splits[name].images
        # To the bit; the rows that no image needs may be fewer.
        np.testing.assert_array_equal(found, split.labels[:, : found.shape[1]])
        assert not used(split.labels[:, found.shape[1] :]).any()
        ignored += int(found[..., 5].sum())
    assert ignored == 1


def test_that_changed_are_left_out(source, tmp_path):
    run = written(source, tmp_path / "run")
    first, *_ = source.test.images
    write_image(first, 99)
    again, missing = run.find(("test",), source.class_names, None)
    assert missing == {"changed": 1, "gone": 0}
    assert len(again.test) == len(source.test) - 1


def test_the_table_can_be_read_by_people(source, tmp_path):
    written(source, tmp_path / "run")
    limit = csv.field_size_limit(10**7)
    with (tmp_path / "run" / "images.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["image"].rpartition("/")[2]: row["label"] for row in csv.DictReader(file)}
    csv.field_size_limit(limit)
    assert rows["0.png"] == "[]"
    assert rows["1.png"] == '[[1, 1.5833334, 9.1, 20, "cell"]]'
