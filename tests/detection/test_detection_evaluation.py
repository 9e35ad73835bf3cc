"""Average precision where it is known by hand, and by slow readings of both protocols."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
from boxes_found import found, truths
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.detection import DetectionEvaluation, coco_metrics
from keras_resnet.files import json_text

CELL = (10, 10, 50, 50)


def metrics(labels, detections, classes=1):
    return coco_metrics(labels, detections, [f"class {index}" for index in range(classes)])


# By hand


@pytest.mark.parametrize(
    ("bottom", "ap", "ap50", "ap75"),
    [
        (50, 1.0, 1, 1),  # the box itself
        (40, 0.6, 1, 1),  # three quarters of it: found from .5 to .75
        (30, 0.1, 1, 0),  # half of it: found at .5 alone
        (29.99, 0.0, 0, 0),
    ],
)
def test_a_box_is_found_from_its_overlap_on(bottom, ap, ap50, ap75):
    scores = metrics(truths([(*CELL, 0, 0)]), [found((10, 10, 50, bottom, 0, 0.9))])
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx((ap, ap50, ap75))
    assert scores["VOC_AP50"] == scores["VOC07_AP50"] == pytest.approx(ap50)


def test_half_of_the_objects_are_half_of_the_precision():
    """Of 101 recalls, 0 to .5 are reached: 51 of them by COCO's rule, 6 of 11 by VOC's of 2007."""
    labels = truths([(*CELL, 0, 0), (60, 60, 90, 90, 0, 0)])
    scores = metrics(labels, [found((*CELL, 0, 0.9))])
    assert scores["AP50"] == pytest.approx(51 / 101)
    assert scores["VOC_AP50"] == pytest.approx(1 / 2)
    assert scores["VOC07_AP50"] == pytest.approx(6 / 11)
    assert scores["AR_100"] == pytest.approx(1 / 2)


def test_what_is_found_twice_is_false_the_second_time():
    """Precision is 1/1 up to a recall of 1/2, then 2/3."""
    labels = truths([(*CELL, 0, 0), (60, 60, 90, 90, 0, 0)])
    twice = found((*CELL, 0, 0.9), (*CELL, 0, 0.8), (60, 60, 90, 90, 0, 0.7))
    scores = metrics(labels, [twice])
    assert scores["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores["VOC_AP50"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["VOC07_AP50"] == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_a_crowd_takes_any_number_of_detections_inside_and_need_not_be_found():
    labels = truths([(0, 0, 200, 200, 0, 1), (300, 0, 340, 40, 0, 0)])
    inside = [(10 * index, 0, 10 * index + 8, 8, 0, 0.9) for index in range(5)]
    outside = (190, 190, 290, 290, 0, 0.95)  # less than half of it is in the crowd
    object_ = (300, 0, 340, 40, 0, 0.5)
    assert metrics(labels, [found(*inside, object_)])["AP"] == pytest.approx(1)
    assert metrics(labels, [found(object_)])["AP"] == pytest.approx(1)
    assert metrics(labels, [found(*inside, outside, object_)])["AP"] == pytest.approx(1 / 2)


def test_a_difficult_object_takes_a_detection_of_it_and_nothing_that_is_only_inside():
    labels = truths([(0, 0, 200, 200, 0, 2), (300, 0, 340, 40, 0, 0)])
    of_it, inside = (0, 0, 190, 200, 0, 0.9), (10, 10, 30, 30, 0, 0.9)
    object_ = (300, 0, 340, 40, 0, 0.5)
    for detections, coco, voc in (
        ([of_it], 1, 1),
        ([of_it, of_it], 1 / 2, 1),  # VOC's takes any number
        ([inside], 1 / 2, 1 / 2),
    ):
        scores = metrics(labels, [found(*detections, object_)])
        assert (scores["AP50"], scores["VOC_AP50"]) == pytest.approx((coco, voc))


def test_a_class_without_objects_is_no_part_of_the_mean():
    labels = truths([(*CELL, 0, 0), (60, 60, 90, 90, 1, 1)])
    found_ = [found((*CELL, 0, 0.9), (0, 0, 5, 5, 2, 0.99))]
    quality = DetectionEvaluation(labels, found_, ("cell", "crowd", "never"))
    assert quality.headline == ("AP", pytest.approx(1))
    per_class = quality.per_class()
    assert all(math.isnan(per_class[name]["AP"]) for name in ("crowd", "never"))
    assert per_class["never"]["detections"] == per_class["never"]["false"] == 1
    assert per_class["crowd"]["ignored"] == 1
    assert [*quality.curves()] == ["cell"]


def test_no_detections_are_0_and_no_objects_are_nan():
    nothing = metrics(truths([(*CELL, 0, 0)], []), [found(), found()])
    assert (nothing["AP"], nothing["VOC_AP50"], nothing["AR_100"]) == (0, 0, 0)
    assert math.isnan(nothing["AP_large"])
    quality = DetectionEvaluation(truths([], []), [found((*CELL, 0, 1)), found()], ("cell",))
    assert all(math.isnan(value) for value in quality.metrics().values())
    assert quality.details()["errors"]["counts"]["false"] == 1
    assert json.loads(json_text(quality.metrics()))["AP"] is None


def test_300_objects_of_which_100_count():
    """All are found. Recall reaches a third by COCO's rule: 34 of 101 points."""
    corners = [(20 * (index % 20), 20 * (index // 20)) for index in range(300)]
    boxes = [(x, y, x + 15, y + 15) for x, y in corners]
    quality = DetectionEvaluation(
        truths([(*box, 0, 0) for box in boxes], []),
        [found(*((*box, 0, 0.9) for box in boxes)), found()],
        ("cell",),
        ("crowded", "empty"),
    )
    scores = quality.metrics()
    assert scores["AP"] == pytest.approx(34 / 101)
    assert scores["AR_100"] == pytest.approx(1 / 3)
    assert (scores["VOC_AP50"], scores["VOC07_AP50"]) == pytest.approx((1, 1))
    objects, detections = quality.details()["notes"]
    assert "more objects in 1 of the images (crowded), up to 300" in objects
    assert "more detections in 1 of the images (crowded), up to 300" in detections


def test_the_score_of_the_best_f1():
    """From .7 on two of three are right, and from .6 on three of six; from .9 on, one of one."""
    labels = truths([(100 * index, 0, 100 * index + 40, 40, 0, 0) for index in range(3)])
    right = [(100 * index, 0, 100 * index + 40, 40, 0) for index in range(3)]
    wrong = (0, 200, 40, 240, 0)
    rows = [(*right[0], 0.9), (*wrong, 0.7), (*right[1], 0.7)]
    rows += [(*right[2], 0.6), (*wrong, 0.6), (*wrong, 0.6)]
    best = DetectionEvaluation(labels, [found(*rows)], ("cell",)).per_class()["cell"]
    at_09, at_07, at_06 = 2 * 1 / (1 + 3), 2 * 2 / (3 + 3), 2 * 3 / (6 + 3)
    assert at_07 == at_06 > at_09
    assert best["f1"] == pytest.approx(at_07)
    assert best["score"] == pytest.approx(0.7)
    assert (best["precision"], best["recall"]) == pytest.approx((2 / 3, 2 / 3))


# Slow readings of the protocols


def overlap(one, other, crowd=False):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0, width) * max(0, height)
    area, other_area = (((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in (one[:4], other[:4]))
    whole = area if crowd else area + other_area - common
    return common / whole if whole else 0


def coco_of_an_image(objects, detections, threshold, low, high, most):
    """(score, whether right) of the detections of an image that count; number of objects."""

    def inside(box):
        return low <= (box[2] - box[0]) * (box[3] - box[1]) <= high

    free = {index: each[5] > 0 or not inside(each) for index, each in enumerate(objects)}
    counted, taken = [], set()
    for box in sorted(detections, key=lambda each: -each[5])[:most]:
        for ignored in (False, True):  # an object that counts, if there is any
            candidates = [
                (overlap(box, objects[index], objects[index][5] == 1), index)
                for index, each in free.items()
                if each == ignored and (index not in taken or objects[index][5] == 1)
            ]
            candidates = [each for each in candidates if each[0] >= min(threshold, 1 - 1e-10)]
            if candidates:
                taken.add(max(candidates)[1])
                if not ignored:
                    counted.append((box[5], True))
                break
        else:
            if inside(box):
                counted.append((box[5], False))
    return counted, sum(not each for each in free.values())


def coco_slowly(images, detections, label, threshold, low=0, high=1e10, most=100):
    """Average precision and recall of a class."""
    counted, objects = [], 0
    for truth, each in zip(images, detections, strict=True):
        some, number = coco_of_an_image(
            [box for box in truth if box[4] == label],
            [box for box in each if box[4] == label],
            *(threshold, low, high, most),
        )
        counted, objects = counted + some, objects + number
    if not objects:
        return math.nan, math.nan
    counted.sort(key=lambda each: -each[0])
    points, hits = [], 0
    for number, (_, right) in enumerate(counted, 1):
        hits += right
        points.append((hits / objects, hits / number))
    precisions = [
        max((precision for recall, precision in points if recall >= wanted), default=0)
        for wanted in np.linspace(0, 1, 101)
    ]
    return sum(precisions) / 101, hits / objects


def voc_slowly(images, detections, label):
    """Average precision of a class as the development kit has it, and that of 2007."""
    rows = [(index, box) for index, each in enumerate(detections) for box in each]
    rows = sorted((row for row in rows if row[1][4] == label), key=lambda row: -row[1][5])
    objects = [[box for box in truth if box[4] == label] for truth in images]
    number = sum(box[5] == 0 for each in objects for box in each)
    if not number:
        return math.nan, math.nan
    seen, points, hits, false = set(), [], 0, 0
    for image, box in rows:
        overlaps = [overlap(box, each) for each in objects[image]]
        best = int(np.argmax(overlaps)) if overlaps else None
        if best is None or overlaps[best] < 0.5:
            false += 1
        elif objects[image][best][5] == 0:
            hits, false = (hits, false + 1) if (image, best) in seen else (hits + 1, false)
            seen.add((image, best))
        if hits + false:
            points.append((hits, hits / (hits + false)))

    def best_from(reached):
        return max((precision for hits, precision in points if reached(hits)), default=0)

    area = sum(best_from(lambda hits, n=n: hits >= n) for n in range(1, number + 1)) / number
    eleven = [best_from(lambda hits, n=n: 10 * hits >= n * number) for n in range(11)]
    return area, sum(eleven) / 11


def mean_of_pairs(pairs):
    """Means of first and second numbers, of the pairs that are numbers."""
    there = [pair for pair in pairs if not math.isnan(pair[0])]
    return np.mean(there, axis=0) if there else (math.nan, math.nan)


@st.composite
def scenes(draw, ignored=(0, 0, 0, 1, 2)):
    """Objects in three images, and detections near some of them, in whole pixels."""
    corner, side = st.integers(0, 60), st.sampled_from((8, 16, 31, 32, 33, 64, 96, 97, 120))
    label, near = st.integers(0, 1), st.integers(-12, 12)
    images, detections = [], []
    for _ in range(3):
        corners = draw(st.lists(st.tuples(corner, corner, side, side), max_size=5))
        objects = [
            (x, y, x + wide, y + high, draw(label), draw(st.sampled_from(ignored)))
            for x, y, wide, high in corners
        ]
        guesses = [
            (x, y, max(x, x2 + draw(near)), max(y, y2 + draw(near)))
            for x, y, x2, y2, *_ in objects
            for _ in range(draw(st.integers(0, 3)))
        ]
        guesses += [(0, 0, draw(side), draw(side)) for _ in range(draw(st.integers(0, 2)))]
        images.append(objects)
        detections.append([(*box, draw(label), draw(st.integers(1, 9)) / 10) for box in guesses])
    return images, detections


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_numbers_are_those_of_slow_readings_of_the_protocols(scene):
    images, detections = scene
    scores = metrics(truths(*images), [found(*each) for each in detections], 2)

    def mean(thresholds, **options):
        return mean_of_pairs(
            coco_slowly(images, detections, label, threshold, **options)
            for label in range(2)
            for threshold in thresholds
        )

    overlaps = np.linspace(0.5, 0.95, 10)
    ap, recall = mean(overlaps)
    small, medium, large = (
        mean(overlaps, low=low**2, high=high**2) for low, high in ((0, 32), (32, 96), (96, 1e5))
    )
    area, eleven = mean_of_pairs(voc_slowly(images, detections, label) for label in range(2))
    expected = {
        **{"AP": ap, "AP50": mean([0.5])[0], "AP75": mean([0.75])[0]},
        **{"AP_small": small[0], "AP_medium": medium[0], "AP_large": large[0]},
        **{"AR_1": mean(overlaps, most=1)[1], "AR_10": mean(overlaps, most=10)[1]},
        **{"AR_100": recall, "AR_small": small[1], "AR_medium": medium[1], "AR_large": large[1]},
        **{"VOC_AP50": area, "VOC07_AP50": eleven},
    }
    assert scores == pytest.approx(expected, nan_ok=True)


def test_another_implementation_of_the_protocol_agrees():
    faster = pytest.importorskip("faster_coco_eval")
    random = np.random.default_rng(0)
    images, detections = [], []
    for _ in range(40):
        low = random.uniform(0, 400, (12, 2))
        boxes = np.concatenate([low, low + random.uniform(20, 150, (12, 2))], 1)
        objects = np.column_stack([boxes, random.integers(0, 4, 12), random.random(12) < 0.1])
        moved = np.concatenate([boxes, boxes]) + random.normal(0, 3, (24, 4))
        labels = np.where(random.random(24) < 0.8, np.tile(objects[:, 4], 2), 0)
        images.append(objects)
        detections.append(np.column_stack([moved, labels, random.random(24)]))
    quality = DetectionEvaluation(truths(*images), [found(*each) for each in detections], "abcd")
    scores = quality.metrics()
    with contextlib.redirect_stdout(io.StringIO()):
        other = faster.COCOeval_faster(
            *(
                faster.COCO({**quality._matched.cocoGt.dataset, "annotations": annotations})
                for annotations in (
                    quality._matched.cocoGt.dataset["annotations"],
                    quality._matched.cocoDt.dataset["annotations"],
                )
            ),
            "bbox",
        )
        other.evaluate()
        other.accumulate()
        other.summarize()
    assert 0.1 < scores["AP"] < 0.9
    assert [*scores.values()][:12] == pytest.approx([*other.stats[:12]], abs=1e-9)


# Photographs


def test_true_boxes_cut_lower_are_found_up_to_what_is_left_of_them(assets):
    """Of 72 photographs of cells: 72 % of each box are found at .5, .55, ... .7, half of ten."""
    source = data.load(assets / "detection" / "bccd")
    labels, names = source.test.labels, source.class_names
    boxes = [rows[rows[:, 4] >= 0] for rows in labels]
    cut = [rows[:, :4] - (rows[:, 3] - rows[:, 1])[:, None] * [0, 0, 0, 0.28] for rows in boxes]
    detections = [
        {"boxes": each, "scores": np.full(len(each), 0.9), "labels": rows[:, 4]}
        for each, rows in zip(cut, boxes, strict=True)
    ]
    scores = coco_metrics(labels, detections, names)
    assert (scores["AP50"], scores["AP75"]) == (pytest.approx(1), 0)
    assert scores["AP"] == pytest.approx(0.5)
    assert scores["VOC_AP50"] == pytest.approx(1)

    white = names.index("WBC")
    for each in detections:
        each["labels"] = np.where(each["labels"] == white, names.index("RBC"), each["labels"])
    quality = DetectionEvaluation(labels, detections, names)
    per_class = quality.per_class()
    assert [per_class[name]["AP50"] > 0 for name in names] == [name != "WBC" for name in names]
    counts = quality.errors().counts()
    # A few overlap red cells, which the detections are taken to be meant for.
    assert counts["misclassified"] + counts["mislocated"] == per_class["WBC"]["objects"] == 71
    assert counts["missed"] == counts["mislocated"] < 7
    assert counts["false"] == counts["doubled"] == counts["both"] == 0


# What comes out


def test_saves_files_that_pycocotools_reads(tmp_path, capsys):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(1)
    low = random.uniform(0, 100, (9, 2))
    boxes = np.concatenate([low, low + random.uniform(20, 150, (9, 2))], 1)
    objects = np.column_stack([boxes, np.arange(9) % 3, np.arange(9) == 4])
    moved = np.column_stack([boxes + random.normal(0, 6, boxes.shape), objects[:, 4]])
    quality = DetectionEvaluation(
        truths(objects, objects[:2]),
        [found(*np.column_stack([moved, random.random(9)])), found((1, 2, 3, 4, 1, 0.5))],
        ("a", "b, c", "$d$", "never"),
        ("left", "right"),
    )
    assert quality.save(tmp_path).name == "per_class.csv"
    assert capsys.readouterr().out == ""
    names = {"detections.json", "truths.json", "per_class.csv", "precision_recall.png"}
    assert {file.name for file in tmp_path.iterdir()} == names
    results = json.loads((tmp_path / "detections.json").read_text())
    assert {each["image_id"] for each in results} == {"left", "right"}
    assert results[-1]["bbox"] == [1, 2, 2, 2]

    table = (tmp_path / "per_class.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["class", "a", '"b', "$d$", "never"]
    assert table[-1].startswith("never,,,")  # no objects, no score

    truth = COCO(str(tmp_path / "truths.json"))
    again = COCOeval(truth, truth.loadRes(str(tmp_path / "detections.json")), "bbox")
    again.evaluate()
    again.accumulate()
    again.summarize()
    scores = [*quality.metrics().values()][:12]
    assert 0.1 < scores[0] < 0.9
    assert [*again.stats] == pytest.approx([-1 if math.isnan(x) else x for x in scores], abs=1e-3)


def test_images_with_most_errors_come_first():
    labels = truths([(*CELL, 0, 0)], [(*CELL, 0, 0)], [(*CELL, 0, 0)])
    detections = [found((*CELL, 0, 0.9)), found((70, 70, 90, 90, 0, 0.9)), found()]
    quality = DetectionEvaluation(labels, detections, ("cell",))
    assert quality.order().tolist() == [1, 2, 0]
    assert quality.right.tolist() == [True, False, False]
    captions = [quality.caption(index) for index in range(3)]
    assert captions == ["all right", "1 false, 1 missed", "1 missed"]


# What is wrong with what comes in


@pytest.mark.parametrize(
    ("labels", "detections", "message"),
    [
        (truths([(*CELL, 0, 0)]), [found((0.1, 0.1, 0.5, 0.5, 0, 1))], "not fractions of it"),
        (truths([(0.1, 0.1, 0.5, 0.5, 0, 0)]), [found()], "labels: no box reaches beyond 0.5"),
        (truths([(*CELL, 0, 0)]), [found((50, 10, 10, 50, 0, 1))], "must be x1, y1, x2, y2"),
        (truths([(*CELL, 0, 0)]), [found((*CELL, 1, 1))], "class 1 is not one of 0 to 0"),
        (truths([(*CELL, 7, 0)]), [found()], "labels[0]: class 7 is not one of 0 to 0"),
        (truths([(*CELL, 0, 0)]), [found((*CELL, 0, math.nan))], "score is not finite"),
        (truths([(*CELL, 0, 0)]), [found((10, 10, math.nan, 50, 0, 1))], "is not finite"),
        (truths([(*CELL, 0, 0)]), [], "detections of 0 images; labels have 1"),
        (truths([(*CELL, 0, 0)]), [{"boxes": []}], "has no scores and no labels, but boxes"),
        (
            truths([(*CELL, 0, 0)]),
            [{"boxes": [CELL], "scores": [1, 1], "labels": [0]}],
            "boxes of shape (1, 4), scores of (2,)",
        ),
        (np.zeros((1, 6)), [found()], "labels of shape (1, 6)"),
        (np.zeros((0, 1, 6)), [], "there are no images"),
    ],
)
def test_names_what_is_wrong(labels, detections, message):
    with one_line_error(message):
        DetectionEvaluation(labels, detections, ("cell",))


def test_rows_without_detections_and_images_of_one_pixel_are_right():
    padded = {"boxes": [CELL, (0, 0, 0, 0)], "scores": [1, 0], "labels": [0, -1]}
    assert metrics(truths([(*CELL, 0, 0)]), [padded])["AP"] == pytest.approx(1)
    one = metrics(truths([(0, 0, 1, 1, 0, 0)]), [found((0.1, 0, 1, 1, 0, 1))])
    assert one["AP"] == pytest.approx(0.9)
