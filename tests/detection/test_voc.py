"""Folders like Pascal VOC's."""

import pytest

from keras_resnet import data


@pytest.fixture(scope="module")
def bccd(assets):
    return data.load(assets / "detection" / "bccd")


class TestBloodCells:
    def test_all_boxes_but_two(self, bccd):
        assert {name: len(split) for name, split in bccd.splits.items()} == {
            "train": 205,
            "validation": 87,
            "test": 72,
        }
        counts = map(sum, zip(*bccd.counts().values(), strict=True))
        assert dict(zip(bccd.class_names, counts, strict=True)) == {
            "RBC": 4155 - 2,
            "WBC": 372,
            "Platelets": 361,
        }

    def test_the_two_are_named(self, bccd):
        lines = [line for line in bccd.skipped if "box" in line]
        assert len(lines) == 2
        for name, place in (
            ("BloodImage_00338.xml", "object 13 (RBC), 504, 337, 504, 337."),
            ("BloodImage_00343.xml", "object 4 (RBC), 181, 329, 181, 329."),
        ):
            (line,) = (line for line in lines if name in line)
            assert line.endswith(f"a box without an area is left out: {place}")
        assert bccd.notes[0].startswith("2 boxes without an area: left out; the first is")
