"""A detection set looked over: in numbers, and on the command line."""

import json

import numpy as np
import PIL.Image
import pytest
from box_files import HEIGHT, WIDTH, write_csv, write_image, write_images
from commands import refused, run

from keras_resnet import analysis, data
from keras_resnet.data.boxes import padded

HEADER = "path,xmin,ymin,xmax,ymax,label,split"


@pytest.fixture
def cells(tmp_path):
    """A table with a box of every fault, a damaged image, and one in two splits."""
    for number, name in enumerate("abcdefg"):
        write_image(tmp_path / f"{name}.png", number)
    (tmp_path / "g.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "z.png").write_bytes(b"")
    rows = [
        ("a.png", 0, 0, 20, 20, "cell", "train"),
        ("a.png", 0, 0, 50, 40, "cell", "train"),
        ("a.png", 5, 5, 5, 5, "cell", "train"),
        ("b.png", 1, 1, 60, 47, "dot", "train"),
        ("b.png", -9, 1, 60, 47, "cell", "train"),
        ("c.png", "", "", "", "", "", "train"),
        ("d.png", 1, 1, 9, 9, "dot", "val"),
        ("e.png", 2, 2, 9, 9, "cell", "test"),
        ("f.png", "", "", "", "", "", "test"),
        ("g.png", 0, 0, 20, 20, "cell", "test"),
        ("z.png", 0, 0, 20, 20, "cell", "test"),
        *[("a.png", i, 0, i + 3, 3, "cell", "train") for i in range(20)],
    ]
    return write_csv(tmp_path / "cells.csv", rows, HEADER)


def test_counts_are_of_boxes(cells):
    found = analysis.overview(data.load(cells, on_error="skip"))
    assert found.class_names == ("cell", "dot")
    assert found.counts == {"train": [23, 1], "validation": [0, 1], "test": [2, 0]}
    assert found.imbalance == 23
    assert found.unlabelled == {"train": 1, "validation": 0, "test": 1}
    train = found.boxes["train"]
    assert (train.small, train.medium, train.large) == ([21, 0], [2, 1], [0, 0])
    assert (train.most, train.ignored) == (22, 0)
    assert found.boxes["test"].small == [2, 0]
    (line,) = found.damaged
    assert "z.png" in line
    (group,) = found.duplicates
    assert [line[-5:] for line in group] == ["a.png", "g.png"]
    assert len(found.skipped) == 3


def test_limits_of_sizes_and_ignored_boxes():
    sides = [31.9, 32, 95.9, 96, 300]
    labels = padded([[(0, 0, side, side, 0, 0) for side in sides] + [(0, 0, 9, 9, 0, 1)], []])
    split = data.Split(np.zeros((2, 300, 300, 3), "uint8"), labels)
    nothing = split.take(np.array([], int))
    source = data.Source("a", ("a",), 3, 8, "none", split, nothing, nothing, task="detection")
    found = analysis.overview(source)
    assert found.boxes["train"] == analysis.Boxes([1], [2], [2], 5, 1)
    assert found.boxes["test"] == analysis.Boxes([0], [0], [0], 0, 0)
    assert found.unlabelled == {"train": 1, "validation": 0, "test": 0}


class TestCommand:
    def test_is_a_table_and_a_sheet(self, cells, tmp_path):
        sheet = tmp_path / "sheet.png"
        result = run("data", cells, "--sheet", sheet)
        assert result.exit_code == 0, result.output
        rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
        assert "cells, 2 classes of boxes" in rows
        assert "class train validation test small medium large" in rows
        assert "cell 23 0 2 23 2 0" in rows
        assert "dot 1 1 0 1 1 0" in rows
        assert "images 3 1 3" in rows
        assert "without a box 1 0 1" in rows
        assert "Images that cannot be read: 1." in rows
        assert "Files, folders and boxes that are left out or cut: 2." in rows
        assert f"'{cells}': a box without an area, left out: line 4 (cell), 5, 5, 5, 5." in rows
        assert "Images that are in more than one split: 1." in rows
        assert rows[-1].endswith("sheet.png: some images of every class")
        with PIL.Image.open(sheet) as image:
            assert image.size == (4 * 340, 2 * 373)

    def test_answers_in_json(self, cells):
        result = run("data", cells, "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert answer["task"] == "detection"
        assert answer["boxes"]["train"]["small"] == [21, 0]
        assert len(answer["skipped"]) == 3
        assert any("1 box without an area" in note for note in answer["notes"])

    def test_mistakes_are_one_line(self, tmp_path):
        write_images(tmp_path, 9)
        half = [(f"{i}.png", 0.1, 0.1, 0.5, 0.5, "cell", "") for i in range(9)]
        assert "all boxes are between 0 and 1" in refused(
            run("data", write_csv(tmp_path / "cells.csv", half, HEADER))
        )
        swapped = [(f"{i}.png", WIDTH - 9, HEIGHT - 9, 5, 5, "cell", "") for i in range(9)]
        assert "As x, y, width, height, all do" in refused(
            run("data", write_csv(tmp_path / "cells.csv", swapped, HEADER))
        )


@pytest.mark.slow
def test_blood_cells(assets, tmp_path):
    result = run("data", assets / "detection" / "bccd", "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "images 205 87 72" in rows
    assert "all boxes 2,804 1,137 945 32 1,386 3,468" in rows
