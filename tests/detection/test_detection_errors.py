"""Kinds of errors, and what mending them gains, where both are known by hand."""

import numpy as np
import PIL.Image
import pytest
from boxes_found import found, truths

from keras_resnet import data
from keras_resnet.detection import DetectionEvaluation, error_sheet
from keras_resnet.detection.errors import KINDS

NAMES = ("cat", "dog")
CAT, DOG = (10, 10, 50, 50, 0), (110, 10, 150, 50, 1)
MISSED = (210, 10, 250, 50, 0)


def quality(*rows, objects=(CAT, DOG)):
    labels = truths([(*each, 0) if len(each) == 5 else each for each in objects])
    return DetectionEvaluation(labels, [found(*rows)], NAMES)


@pytest.mark.parametrize(
    ("box", "kind", "truth"),
    [
        ((10, 10, 50, 50, 1), "misclassified", 0),
        ((10, 10, 50, 25, 0), "mislocated", 0),
        ((10, 10, 50, 14, 0), "mislocated", 0),  # a tenth
        ((10, 10, 50, 13.9, 0), "false", -1),
        ((10, 10, 50, 25, 1), "both", 0),
        ((11, 10, 50, 50, 0), "doubled", 0),
        ((60, 60, 90, 90, 0), "false", -1),
    ],
)
def test_kinds_of_a_detection(box, kind, truth):
    errors = quality((*CAT, 0.9), (*DOG, 0.9), (*box, 0.8)).errors()
    assert errors.kinds.tolist() == [kind]
    assert (errors.images[0], errors.labels[0], errors.truths[0]) == (0, box[4], truth)
    assert errors.scores[0] == 0.8
    assert errors.boxes[0].tolist() == list(box[:4])
    assert errors.counts() == {each: int(each == kind) for each in KINDS}


def test_an_object_is_missed_if_no_detection_is_meant_for_it():
    nothing, meant = quality((*DOG, 0.9)), quality((*DOG, 0.9), (10, 10, 50, 25, 0, 0.8))
    assert nothing.errors().kinds.tolist() == ["missed"]
    assert nothing.errors().labels.tolist() == [0]
    assert meant.errors().kinds.tolist() == ["mislocated"]
    assert meant.errors(score=0.85).kinds.tolist() == ["missed"]


def test_ignored_objects_are_neither_missed_nor_found():
    crowd, inside = (*CAT, 1), (20, 20, 30, 30, 0, 0.9)
    assert len(quality((*DOG, 0.9), inside, objects=(crowd, DOG)).errors()) == 0
    assert quality((*DOG, 0.9), objects=(crowd, DOG)).per_class()["cat"]["missed"] == 0


@pytest.mark.parametrize(
    ("rows", "kind", "gain"),
    [
        # One of two classes has an AP50 of 0, and then of 1.
        ([(*DOG, 0.9)], "missed", 1 / 2),
        ([(*DOG, 0.9), (10, 10, 50, 25, 0, 0.8)], "mislocated", 1 / 2),
        # Cats have an AP50 of 0, and dogs of 1 / 2.
        ([(*DOG[:4], 1, 0.8), (*CAT[:4], 1, 0.9)], "misclassified", (1 + 1 / 2) / 2),
        # Of the first of its class, it leaves a precision of 1 / 2.
        ([(*CAT, 0.9), (*DOG, 0.8), (60, 60, 90, 90, 1, 0.9)], "false", (1 - 1 / 2) / 2),
        ([(*CAT, 0.9), (*DOG, 0.8), (10, 10, 50, 25, 1, 0.9)], "both", (1 - 1 / 2) / 2),
    ],
)
def test_what_mending_gains(rows, kind, gain):
    gained = quality(*rows).gained()
    assert gained.pop(kind) == pytest.approx(gain)
    assert [*gained.values()] == pytest.approx([0] * 5)


def test_a_double_costs_what_comes_after_it():
    both = (CAT, MISSED)
    gained = quality((*CAT, 0.9), (*CAT, 0.8), (*MISSED, 0.7), objects=both).gained()
    assert gained["doubled"] == pytest.approx(50 / 101 * (1 - 2 / 3))


def test_one_detection_is_mended_for_an_object():
    """The other one of lower score stays out: were it left in, it would be false."""
    rows = [(10, 10, 50, 25, 0, 0.8), (10, 10, 50, 26, 0, 0.7), (*DOG, 0.9)]
    assert quality(*rows).gained()["mislocated"] == pytest.approx(1 / 2)


def test_what_is_mislocated_but_found_anyway_is_left_out():
    """It came first: a precision of 2 / 3. Put in place, it would be right, and the next false."""
    rows = [(10, 10, 50, 25, 0, 0.9), (*CAT, 0.8), (*MISSED, 0.7)]
    gained = quality(*rows, objects=(CAT, MISSED)).gained()
    assert gained["mislocated"] == pytest.approx(1 - 2 / 3)


def test_images_have_their_own_objects():
    """What is right in one image is false in the other."""
    labels = truths([(*CAT, 0)], [(*MISSED, 0)])
    errors = DetectionEvaluation(labels, [found((*MISSED, 1)), found((*CAT, 1))], NAMES).errors()
    assert list(zip(errors.kinds.tolist(), errors.images.tolist(), strict=True)) == [
        *(("false", 0), ("false", 1)),
        *(("missed", 0), ("missed", 1)),
    ]


def test_the_sheet_shows_each_error_in_its_image(tmp_path):
    """Each image is of one grey, and of its own size: the crop of an error tells which it is of."""
    images = []
    for index, side in enumerate((300, 200)):
        images.append(tmp_path / f"{index}.png")
        PIL.Image.new("RGB", (side, side), (100 + 50 * index,) * 3).save(images[-1])
    labels = truths([(*CAT, 0)], [(*DOG, 0)])
    evaluation = DetectionEvaluation(
        labels, [found(), found((*DOG, 0.9), (10, 100, 60, 190, 0, 0.95))], NAMES
    )
    split = data.Split(images, labels)
    error_sheet(tmp_path / "sheet.png", split, evaluation)
    pixels = np.asarray(PIL.Image.open(tmp_path / "sheet.png").convert("RGB"))
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    common = {tuple(colour) for colour in colours[counts > 10_000].tolist()}
    assert common == {(100,) * 3, (150,) * 3, (255,) * 3}  # two images, on white
    there = {tuple(colour) for colour in colours.tolist()}
    assert {(0, 192, 0), (255, 32, 32)} <= there  # an object that is missed, a false detection

    error_sheet(tmp_path / "none.png", split, evaluation, score=0.99)
    perfect = DetectionEvaluation(labels, [found((*CAT, 1)), found((*DOG, 1))], NAMES)
    error_sheet(tmp_path / "none.png", split, perfect)
