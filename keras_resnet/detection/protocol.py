"""COCO's protocol: detections matched to true boxes, precision over recall, by pycocotools.

pycocotools defines COCO's numbers. faster-coco-eval gives the same ones (a test compares them) in
a fraction of the time, but keeps its matches in C++, out of reach; the score of the best F1 and the
kinds of errors follow from the matches. Its time is small beside that of the detector.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_resnet.data.boxes import CLASS, COLUMNS, CROWD, IGNORED, used
from keras_resnet.names import some

SIZES = ("all", "small", "medium", "large")
"""Areas of boxes: all, up to 32 x 32 pixels, up to 96 x 96, and larger."""

MOST = (1, 10, 100)
"""How many detections of each image and class count, the best first. AP is of the last."""


def matched(
    labels: np.ndarray,
    detections: Sequence[dict],
    classes: int,
    *,
    overlaps: Sequence[float] | None = None,
    most: Sequence[int] = MOST,
    sizes: int = len(SIZES),
) -> Any:
    """Match detections to true boxes by COCO's protocol.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        As `check_truths` returns them.
    detections : sequence of dict
        As `check_detections` returns them.
    classes : int
        Number of classes.
    overlaps : sequence of float, optional
        Intersections over unions from which on a box is found. Default: .5, .55, ... .95.
    most : sequence of int, default (1, 10, 100)
        How many detections of each image and class count.
    sizes : int, default 4
        How many of `SIZES` to tell apart.

    Returns
    -------
    pycocotools.cocoeval.COCOeval
        After `evaluate` and `accumulate`. Images and classes are numbered from 0; boxes from 1, in
        the order of `table_of_truths` and `table_of_detections`.
    """
    images = len(labels)
    evaluator = _evaluator_class()(
        _dataset(_truths(table_of_truths(labels)), images, classes),
        _dataset(_annotations(table_of_detections(detections), "scores"), images, classes),
        "bbox",
    )
    params = evaluator.params
    params.maxDets = [*most]
    params.areaRng, params.areaRngLbl = params.areaRng[:sizes], params.areaRngLbl[:sizes]
    if overlaps is not None:
        params.iouThrs = np.asarray(overlaps, "float64")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def table_of_truths(labels: np.ndarray) -> dict[str, np.ndarray]:
    """All true boxes, one after the other.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        As a split has them.

    Returns
    -------
    dict of str to array
        "images", "labels", "boxes" and "ignored".
    """
    images, rows = np.nonzero(used(labels))
    found = labels[images, rows]
    return {
        "images": images,
        "labels": found[:, CLASS].astype("int64"),
        "boxes": found[:, :CLASS],
        "ignored": found[:, IGNORED].astype("int64"),
    }


def table_of_detections(detections: Sequence[dict]) -> dict[str, np.ndarray]:
    """All detections, one after the other.

    Parameters
    ----------
    detections : sequence of dict
        As `check_detections` returns them.

    Returns
    -------
    dict of str to array
        "images", "labels", "boxes" and "scores".
    """
    counts = [len(each["labels"]) for each in detections]
    return {
        "images": np.repeat(np.arange(len(counts)), counts),
        "labels": np.concatenate([np.zeros(0, "int64"), *(each["labels"] for each in detections)]),
        "boxes": np.concatenate([np.zeros((0, 4)), *(each["boxes"] for each in detections)]),
        "scores": np.concatenate([np.zeros(0), *(each["scores"] for each in detections)]),
    }


def listed(table: dict[str, np.ndarray], images: int) -> list[dict]:
    """Detections of every image.

    Parameters
    ----------
    table : dict of str to array
        As `table_of_detections` returns it.
    images : int
        Number of images.

    Returns
    -------
    list of dict
    """
    ends = np.cumsum(np.bincount(table["images"], minlength=images))[:-1]
    names = ("boxes", "scores", "labels")
    columns = zip(*(np.split(table[name], ends) for name in names), strict=True)
    return [dict(zip(names, each, strict=True)) for each in columns]


@dataclass(frozen=True)
class Matches:
    """Which detections are right and which true boxes are found, at one overlap.

    Parameters
    ----------
    counted : bool array of shape (detections,)
        False for a detection of an ignored box, and beyond the most of an image and class.
    truths : int array of shape (detections,)
        The true box that each detection is of; -1 for none.
    found : bool array of shape (truths,)
        Whether each true box is found.
    """

    counted: np.ndarray
    truths: np.ndarray
    found: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """The detections that count and are of a true box."""
        return self.counted & (self.truths >= 0)

    @property
    def wrong(self) -> np.ndarray:
        """The detections that count and are of none."""
        return self.counted & (self.truths < 0)


def matches(evaluator: Any, overlap: int = 0) -> Matches:
    """Which detections are right, of boxes of all sizes.

    Parameters
    ----------
    evaluator : pycocotools.cocoeval.COCOeval
        As `matched` returns it.
    overlap : int, default 0
        Which of its overlaps, counted from 0.

    Returns
    -------
    Matches
    """
    params = evaluator.params
    detections, truths = len(evaluator.cocoDt.anns), len(evaluator.cocoGt.anns)
    counted, found = np.zeros(detections, bool), np.zeros(truths, bool)
    truth_of = np.full(detections, -1)
    images, sizes = len(params.imgIds), len(params.areaRng)
    for start in range(0, len(evaluator.evalImgs), images * sizes):  # of a class, of all sizes
        for each in filter(None, evaluator.evalImgs[start : start + images]):
            rows = np.array(each["dtIds"], int) - 1
            counted[rows] = ~each["dtIgnore"][overlap]
            truth_of[rows] = each["dtMatches"][overlap].astype(int) - 1
            found[np.array(each["gtIds"], int) - 1] = each["gtMatches"][overlap] > 0
    return Matches(counted, truth_of, found)


def overlaps_of(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs of boxes.

    Parameters
    ----------
    boxes : array of shape (m, 4)
        x1, y1, x2, y2.
    others : array of shape (n, 4)
        The same.

    Returns
    -------
    array of shape (m, n)
    """
    from pycocotools import mask

    if not (len(boxes) and len(others)):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(mask.iou(_xywh(boxes), _xywh(others), [0] * len(others)))


def _evaluator_class():
    """The evaluation of pycocotools, which forgets "ignore" without "iscrowd"."""
    from pycocotools.cocoeval import COCOeval

    base: Any = COCOeval

    class Evaluator(base):
        def _prepare(self):
            super()._prepare()
            for each in self.cocoGt.dataset["annotations"]:
                each["ignore"] = each["ignored"]

    return Evaluator


def _dataset(annotations, images, classes):
    """An indexed COCO data set."""
    from pycocotools.coco import COCO

    dataset: Any = COCO()
    dataset.dataset = {
        "images": [{"id": index} for index in range(images)],
        "categories": [{"id": index} for index in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def _annotations(table, *names):
    """Boxes as COCO has them, and more columns. Number 0 would mean "no match" to pycocotools."""
    boxes = _xywh(table["boxes"])
    columns = (table["images"], table["labels"], boxes, boxes[:, 2] * boxes[:, 3])
    keys = ("image_id", "category_id", "bbox", "area", *(name.removesuffix("s") for name in names))
    columns = (*columns, *(table[name] for name in names))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {"id": number, **dict(zip(keys, row, strict=True))} for number, row in enumerate(rows, 1)
    ]


def _truths(table):
    """True boxes as COCO has them."""
    found = _annotations(table, "ignored")
    return [{**each, "iscrowd": int(each["ignored"] == CROWD)} for each in found]


def _xywh(boxes):
    """Boxes as left, top, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def check_truths(labels: Any, classes: int) -> np.ndarray:
    """Check the labels of images with boxes.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        As in `keras_resnet.data.boxes`.
    classes : int
        Number of classes.

    Returns
    -------
    array
        The same as float64.

    Raises
    ------
    ValueError
        For no images, another shape, classes that are not known, boxes that are not finite, whose
        corners are in another order, or that are fractions of the image.
    """
    labels = np.asarray(labels, "float64")
    if labels.ndim != 3 or labels.shape[2] != COLUMNS:
        raise ValueError(
            f"labels of shape {labels.shape} must be (images, boxes, 6): x1, y1, x2, y2, class, "
            "ignored."
        )
    if not len(labels):
        raise ValueError("labels: there are no images to evaluate on.")
    table = table_of_truths(labels)
    _check_boxes("labels", table["images"], table["boxes"], table["labels"], classes)
    boxes = table["boxes"]
    if boxes.size and boxes.max() <= 1 and (boxes % 1).any():
        raise ValueError(f"labels: no box reaches beyond {boxes.max():.4g}. {_FRACTIONS}")
    return labels


def check_detections(detections: Sequence[dict], labels: np.ndarray, classes: int) -> list[dict]:
    """Check what a detector found.

    Parameters
    ----------
    detections : sequence of dict
        Of every image, "boxes" of shape (n, 4): x1, y1, x2, y2 in pixels; "scores" and "labels" of
        shape (n,). Rows of label -1 are none.
    labels : array
        As `check_truths` returns them.
    classes : int
        Number of classes.

    Returns
    -------
    list of dict
        The same as float64 and int64, without rows of label -1.

    Raises
    ------
    ValueError
        For another number of images, other keys or shapes, NaN, classes that are not known, boxes
        whose corners are in another order, or that are fractions of the image.
    """
    if len(detections) != len(labels):
        raise ValueError(f"detections of {len(detections)} images; labels have {len(labels)}.")
    found = [_checked(index, each) for index, each in enumerate(detections)]
    table = table_of_detections(found)
    _check_boxes("detections", table["images"], table["boxes"], table["labels"], classes)
    if (lost := ~np.isfinite(table["scores"])).any():
        raise ValueError(f"detections[{table['images'][lost.argmax()]}]: a score is not finite.")
    boxes, truths = table["boxes"], table_of_truths(labels)["boxes"]
    if boxes.size and truths.size and boxes.max() <= 1 < truths.max():
        raise ValueError(
            f"detections: no box reaches beyond {boxes.max():.4g}, true boxes reach to "
            f"{truths.max():.4g}. {_FRACTIONS}"
        )
    return found


_FRACTIONS = (
    "Boxes must be in pixels of the image, not fractions of it: multiply x by its width, y by its "
    "height."
)


def _checked(index, detection):
    """The detections of an image."""
    name = f"detections[{index}]"
    if missing := [key for key in ("boxes", "scores", "labels") if key not in detection]:
        raise ValueError(
            f"{name} has no {' and no '.join(missing)}, but {some([*map(str, detection)], 8)}."
        )
    boxes = np.asarray(detection["boxes"], "float64")
    scores = np.asarray(detection["scores"], "float64")
    labels = np.asarray(detection["labels"]).astype("int64")
    boxes = boxes if boxes.size else boxes.reshape(-1, 4)
    if scores.ndim != 1 or boxes.shape != (len(scores), 4) or labels.shape != scores.shape:
        raise ValueError(
            f"{name}: boxes of shape {boxes.shape}, scores of {scores.shape} and labels of "
            f"{labels.shape} must be (n, 4), (n,) and (n,)."
        )
    there = labels != -1
    return {"boxes": boxes[there], "scores": scores[there], "labels": labels[there]}


def _check_boxes(name, images, boxes, labels, classes):
    """Check corners and classes."""
    for wrong, what in (
        (~np.isfinite(boxes).all(-1), "is not finite"),
        ((boxes[:, 2:] < boxes[:, :2]).any(-1), "must be x1, y1, x2, y2, not widths or y first"),
    ):
        if wrong.any():
            where = wrong.argmax()
            raise ValueError(f"{name}[{images[where]}]: box {boxes[where].tolist()} {what}.")
    if (wrong := (labels < 0) | (labels >= classes)).any():
        where = wrong.argmax()
        raise ValueError(
            f"{name}[{images[where]}]: class {labels[where]} is not one of 0 to {classes - 1}, for "
            "which there are names."
        )
