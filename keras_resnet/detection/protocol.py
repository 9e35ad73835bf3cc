"""COCO's protocol: detections matched to true boxes, and precision over recall, by pycocotools.

pycocotools defines COCO's numbers. faster-coco-eval gives the same ones (a test compares them)
several times faster, but keeps its matches in C++, out of reach; VOC's average precision and the
kinds of errors follow from the matches. The time hardly matters: 5,000 images of COCO take a
minute, and no detector gives them faster on the CPUs that this runs on.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_resnet.names import some

CROWD, DIFFICULT = 1, 2
"""In the last column of labels: boxes that are ignored, as COCO's crowds and as VOC's difficult
objects are. A crowd takes any number of detections that lie in it by at least half; a difficult
object takes one, by the usual overlap."""

SIZES = ("all", "small", "medium", "large")
"""pycocotools' areas: all, below 32 x 32 pixels, below 96 x 96, and above."""

MOST = (1, 10, 100)
"""How many detections of each image and class count, the best first. COCO's AP is of 100."""


def matched(
    labels: np.ndarray,
    detections: Sequence[dict],
    classes: int,
    *,
    thresholds: Sequence[float] | None = None,
    most: Sequence[int] = MOST,
    sizes: Sequence[str] = SIZES,
) -> Any:
    """Match detections to true boxes by COCO's protocol.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        A split's labels: x1, y1, x2, y2 in pixels, class, and whether to ignore the box. Rows of
        class -1 are none.
    detections : sequence of dict
        "boxes", "scores" and "labels" of every image, as `check_detections` returns them.
    classes : int
        Number of classes.
    thresholds : sequence of float, optional
        Overlaps (intersection over union) from which on a box is found. Default: .5 to .95.
    most : sequence of int, default (1, 10, 100)
        How many detections of each image and class count.
    sizes : sequence of str
        Of `SIZES`.

    Returns
    -------
    pycocotools.cocoeval.COCOeval
        After `evaluate` and `accumulate`. Images and classes are numbered from 0, boxes from 1 in
        the order of the labels and of the detections.
    """
    evaluator = _evaluator_class()(
        _dataset(_truths(labels), len(labels), classes),
        _dataset(_found(detections), len(labels), classes),
        "bbox",
    )
    params = evaluator.params
    params.maxDets = [*most]
    if thresholds is not None:
        params.iouThrs = np.asarray(thresholds, "float64")
    kept = [params.areaRngLbl.index(size) for size in sizes]
    params.areaRng = [params.areaRng[index] for index in kept]
    params.areaRngLbl = [*sizes]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _evaluator_class():
    """The evaluation of pycocotools, which forgets an "ignore" without "iscrowd"."""
    from pycocotools.cocoeval import COCOeval

    class Evaluator(COCOeval):
        def _prepare(self):
            super()._prepare()
            for each in self.cocoGt.dataset["annotations"]:
                each["ignore"] = each["ignored"]

    return Evaluator


def _dataset(annotations, images, classes):
    """An indexed COCO data set."""
    from pycocotools.coco import COCO

    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": index} for index in range(images)],
        "categories": [{"id": index} for index in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def _annotation(number, image, label, box):
    """A box as COCO has it. Number 0 would mean "unmatched" to pycocotools."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "id": number + 1,
        "image_id": image,
        "category_id": int(label),
        "bbox": [left, top, width, height],
        "area": width * height,
    }


def _truths(labels):
    """Annotations of true boxes."""
    images, rows = np.nonzero(labels[..., 4] >= 0)
    found = np.asarray(labels, "float64")[images, rows].tolist()
    return [
        {
            **_annotation(number, image, label, box),
            "iscrowd": int(ignored == CROWD),
            "ignored": int(ignored > 0),
        }
        for number, (image, (*box, label, ignored)) in enumerate(
            zip(images.tolist(), found, strict=True)
        )
    ]


def _found(detections):
    """Annotations of detections."""
    rows = (
        (image, label, box, score)
        for image, each in enumerate(detections)
        for label, box, score in zip(
            each["labels"].tolist(), each["boxes"].tolist(), each["scores"].tolist(), strict=True
        )
    )
    return [
        {**_annotation(number, image, label, box), "score": score}
        for number, (image, label, box, score) in enumerate(rows)
    ]


def check_truths(labels: Any, classes: int) -> np.ndarray:
    """Check the labels of images with boxes.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        As a split has them.
    classes : int
        Number of classes.

    Returns
    -------
    array
        float64 of that shape.

    Raises
    ------
    ValueError
        For another shape, a class that is not known, or a box without an area.
    """
    labels = np.asarray(labels, "float64")
    if labels.ndim != 3 or labels.shape[2] != 6:
        raise ValueError(
            f"labels of shape {labels.shape} must be (images, boxes, 6): x1, y1, x2, y2, class, "
            "ignored."
        )
    real = labels[..., 4] >= 0
    _check_boxes(labels[..., :4], labels[..., 4], real, classes, "labels")
    return labels


def check_detections(detections: Sequence[dict], images: int, classes: int) -> list[dict]:
    """Check what a detector found.

    Parameters
    ----------
    detections : sequence of dict
        Of every image, "boxes" of shape (n, 4): x1, y1, x2, y2 in pixels of the image; "scores"
        and "labels" of shape (n,). Rows of label -1 are none.
    images : int
        Number of images.
    classes : int
        Number of classes.

    Returns
    -------
    list of dict
        The same as float64 and int64, without rows of label -1.

    Raises
    ------
    ValueError
        For other shapes or keys, NaN, a class that is not known, or corners in another order.
    """
    if len(detections) != images:
        raise ValueError(f"detections of {len(detections)} images, but labels of {images}.")
    return [
        _check_detection(index, detection, classes) for index, detection in enumerate(detections)
    ]


def _check_detection(index, detection, classes):
    """The detections of an image."""
    name = f"detections[{index}]"
    if missing := [key for key in ("boxes", "scores", "labels") if key not in detection]:
        raise ValueError(f"{name} has no {some(missing)}; it has {some([*detection], 8)}.")
    boxes = np.asarray(detection["boxes"], "float64")
    scores = np.asarray(detection["scores"], "float64")
    labels = np.asarray(detection["labels"]).astype("int64")
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not (len(boxes),) == scores.shape == labels.shape:
        raise ValueError(
            f"{name}: boxes of shape {boxes.shape}, scores of {scores.shape} and labels of "
            f"{labels.shape} must be (n, 4), (n,) and (n,)."
        )
    real = labels >= 0
    _check_boxes(boxes, labels, real, classes, name)
    if np.isnan(scores[real]).any():
        raise ValueError(f"{name}: a score is NaN.")
    return {"boxes": boxes[real], "scores": scores[real], "labels": labels[real]}


def _check_boxes(boxes, labels, real, classes, name):
    """Check corners and classes of the boxes that are real."""
    for wrong, what in (
        (~np.isfinite(boxes).all(-1), "is not finite"),
        (
            (boxes[..., 2:] < boxes[..., :2]).any(-1),
            "must be x1, y1, x2, y2 in this order",
        ),
    ):
        if (wrong & real).any():
            where = tuple(map(int, np.argwhere(wrong & real)[0]))
            raise ValueError(f"{name}: box {[*boxes[where].tolist()]} {what}.")
    if (wrong := real & (labels >= classes)).any():
        raise ValueError(
            f"{name}: class {labels[wrong][0]:g} is not one of 0 to {classes - 1}, for which there "
            "are names."
        )
