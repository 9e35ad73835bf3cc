"""How good a detector is on images with boxes: average precision as COCO and Pascal VOC have it."""

import csv
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np

from keras_resnet import graphs, progress
from keras_resnet.analysis.evaluation import submission_ids
from keras_resnet.data import Split
from keras_resnet.data.boxes import CLASS, CROWD, IGNORED
from keras_resnet.detection.batches import batches
from keras_resnet.detection.detect import answers_of, function_of
from keras_resnet.detection.errors import KINDS, Errors, find_errors, gained
from keras_resnet.detection.faster_rcnn import parts_of
from keras_resnet.detection.plots import precision_recall
from keras_resnet.detection.protocol import (
    MOST,
    SIZES,
    check_detections,
    check_truths,
    matched,
    matches,
    overlaps_of,
    table_of_detections,
    table_of_truths,
)
from keras_resnet.files import json_text, write_text, written_beside
from keras_resnet.names import some

_NAN = float("nan")
_POINTS = 10  # VOC 2007 looks at recalls of 0, 1 / 10, ... 1
_BEST = MOST.index(100)


@dataclass(frozen=True, eq=False)
class DetectionEvaluation:
    """What a detector found in images with boxes, and how good that is.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        A split's labels, as in `keras_resnet.data.boxes`.
    detections : sequence of dict
        "boxes", "scores" and "labels" of every image, as `detection.detect` returns them.
    class_names : tuple of str
        Names of the classes.
    image_ids : tuple of int or str, optional
        What files call the images. Default: their numbers, from 0.

    Raises
    ------
    ValueError
        For boxes that are not x1, y1, x2, y2 in pixels, classes without names, NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.detection import DetectionEvaluation
    >>> labels = np.array([[[10, 10, 50, 50, 0, 0]]], "float32")
    >>> found = [{"boxes": [[10, 10, 50, 40]], "scores": [0.9], "labels": [0]}]
    >>> quality = DetectionEvaluation(labels, found, ("cell",))
    >>> round(quality.metrics()["AP"], 2), round(quality.metrics()["AP50"], 2)
    (0.6, 1.0)
    """

    FILE: ClassVar[str] = "per_class.csv"
    labels: np.ndarray
    detections: Sequence[dict]
    class_names: tuple[str, ...]
    image_ids: tuple[int | str, ...] = ()

    def __post_init__(self):
        if not len(self.class_names):
            raise ValueError("class_names is empty: a detector has at least one class.")
        labels = check_truths(self.labels, len(self.class_names))
        found = check_detections(self.detections, labels, len(self.class_names))
        ids = tuple(self.image_ids) or tuple(range(len(labels)))
        if len({*ids}) != len(labels):
            raise ValueError(
                f"image_ids are {len({*ids})} different ones, but there are {len(labels)} images."
            )
        values = (labels, tuple(found), tuple(self.class_names), ids)
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    @functools.cached_property
    def _matched(self):
        return matched(self.labels, self.detections, len(self.class_names))

    @functools.cached_property
    def _precision(self):
        """Of overlaps, recalls, classes and sizes; NaN where there is nothing to find."""
        precision = self._matched.eval["precision"][..., _BEST]
        return np.where(precision < 0, np.nan, precision)

    @functools.cached_property
    def _recall(self):
        """Of overlaps, classes, sizes and how many count; NaN where there is nothing to find."""
        recall = self._matched.eval["recall"]
        return np.where(recall < 0, np.nan, recall)

    @functools.cached_property
    def _voc(self):
        """VOC's average precision of every class, and that of 2007."""
        found = [
            _voc_average_precision(self.labels, self.detections, label)
            for label in range(len(self.class_names))
        ]
        return np.array(found).T

    @functools.cached_property
    def _errors(self) -> Errors:
        return self.errors()

    def metrics(self) -> dict[str, float]:
        """All metrics by name, the one to compare models by first.

        Returns
        -------
        dict of str to float
            By COCO's protocol: "AP", the mean over classes and overlaps of .5 to .95; "AP50" and
            "AP75", at one overlap; "AP_small", "AP_medium" and "AP_large", of boxes of up to
            32 x 32 pixels, up to 96 x 96, and larger; "AR_1", "AR_10" and "AR_100", the recall with
            that many detections per image and class; "AR_small", "AR_medium" and "AR_large".
            By VOC's: "VOC_AP50", the area under the curve, with any number of detections, and
            "VOC07_AP50", the mean at 11 points. NaN where there are no such boxes; classes without
            boxes are left out of the means.

        Notes
        -----
        COCO's own annotations give the areas of masks, which are smaller than those of boxes: on
        its images, the scores by size differ from those of its server.
        """
        at = {f"AP{round(100 * t)}": i for i, t in enumerate(self._matched.params.iouThrs)}
        precision, recall = self._precision, self._recall
        sizes = {name: index for index, name in enumerate(SIZES) if index}
        return {
            "AP": _mean(precision[..., 0]),
            **{name: _mean(precision[at[name], :, :, 0]) for name in ("AP50", "AP75")},
            **{f"AP_{name}": _mean(precision[..., index]) for name, index in sizes.items()},
            **{f"AR_{most}": _mean(recall[:, :, 0, index]) for index, most in enumerate(MOST)},
            **{f"AR_{name}": _mean(recall[..., index, _BEST]) for name, index in sizes.items()},
            "VOC_AP50": _mean(self._voc[0]),
            "VOC07_AP50": _mean(self._voc[1]),
        }

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric to compare models by."""
        return next(iter(self.metrics().items()))

    def details(self) -> dict:
        """Everything else that a report has, by name: "per_class", "errors" and "notes"."""
        return {
            "per_class": self.per_class(),
            "errors": {"counts": self._errors.counts(), "AP50_gained": self.gained()},
            "notes": self.notes(),
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """Scores of every class.

        Returns
        -------
        dict of str to dict of str to float
            "AP", "AP50", "AP75", "AR_100" and "VOC_AP50" as in `metrics`; "score", the
            threshold with the best F1 score at an overlap of .5, and "precision", "recall" and "f1"
            there; the numbers of "objects", "ignored" and "detections"; and the number of errors of
            each kind, among detections with a score of at least .5. Scores of a class without
            objects are NaN.
        """
        classes = len(self.class_names)
        truths, found = table_of_truths(self.labels), table_of_detections(self.detections)
        real = truths["ignored"] == 0

        def counts(labels):
            return np.bincount(labels, minlength=classes)

        columns = {
            "AP": self._precision[..., 0].mean((0, 1)),
            "AP50": self._precision[0, ..., 0].mean(0),
            "AP75": self._precision[5, ..., 0].mean(0),
            "AR_100": self._recall[:, :, 0, _BEST].mean(0),
            "VOC_AP50": self._voc[0],
            **self._best(),
            "objects": counts(truths["labels"][real]),
            "ignored": counts(truths["labels"][~real]),
            "detections": counts(found["labels"]),
            **self._errors.per_class(classes),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return {
            name: dict(zip(columns, row, strict=True))
            for name, row in zip(self.class_names, rows, strict=True)
        }

    def _best(self):
        """Score, precision, recall and F1 of every class where F1 is best."""
        found, truths = table_of_detections(self.detections), table_of_truths(self.labels)
        outcome = matches(self._matched)
        best = []
        for label in range(len(self.class_names)):
            rows = np.flatnonzero(outcome.counted & (found["labels"] == label))
            rows = rows[np.argsort(-found["scores"][rows], kind="stable")]
            objects = np.sum((truths["labels"] == label) & (truths["ignored"] == 0))
            best.append(_best_f1(found["scores"][rows], outcome.right[rows], objects))
        return dict(zip(("score", "precision", "recall", "f1"), np.array(best).T, strict=True))

    def curves(self, overlap: float = 0.5) -> dict[str, dict[str, np.ndarray]]:
        """Precision over recall of every class that has objects.

        Parameters
        ----------
        overlap : float, default 0.5
            .5, .55, ... .95.

        Returns
        -------
        dict of str to dict of str to array
            "recall", 0, .01, ... 1; "precision", the best with at least that recall, or 0 if it is
            not reached; and "score", at which it is reached first.
        """
        params = self._matched.params
        index = int(np.abs(params.iouThrs - overlap).argmin())
        if abs(params.iouThrs[index] - overlap) > 1e-6:
            raise ValueError(f"overlap={overlap!r} must be one of .5, .55, ... .95.")
        scores = self._matched.eval["scores"][index, :, :, 0, _BEST]
        return {
            name: {"recall": params.recThrs, "precision": precision, "score": score}
            for name, precision, score in zip(
                self.class_names, self._precision[index, ..., 0].T, scores.T, strict=True
            )
            if not np.isnan(precision).any()
        }

    def errors(self, score: float = 0.5) -> Errors:
        """Find errors among the detections with at least some score.

        Parameters
        ----------
        score : float, default 0.5
            The lowest score.

        Returns
        -------
        Errors
        """
        return find_errors(self.labels, self.detections, len(self.class_names), score)

    def gained(self) -> dict[str, float]:
        """How much AP50 would rise if all errors of a kind were corrected."""
        return gained(self.labels, self.detections, len(self.class_names))

    def notes(self) -> list[str]:
        """Caveats: where COCO's limit of 100 detections has changed the scores."""
        return [
            note
            for noun, table, what in (
                ("objects", table_of_truths(self.labels), "the others cannot be found"),
                ("detections", table_of_detections(self.detections), "the others are not counted"),
            )
            for note in self._beyond_limit(noun, table, what)
        ]

    def _beyond_limit(self, noun, table, what):
        """A note, if there are more boxes of a class in an image than COCO counts."""
        most, classes = MOST[_BEST], len(self.class_names)
        real = table["ignored"] == 0 if "ignored" in table else slice(None)
        counts = np.bincount((table["images"] * classes + table["labels"])[real])
        images = np.unique(np.flatnonzero(counts > most) // classes)
        if len(images):
            where = some([str(self.image_ids[image]) for image in images])
            yield (
                f"COCO's protocol counts {most} detections of each image and class. There are more "
                f"{noun} in {len(images):,} of the images ({where}), up to {counts.max()}: {what}. "
                "VOC's has no such limit."
            )

    @property
    def right(self) -> np.ndarray:
        """Whether each image is free of errors, at a score of at least .5."""
        return np.bincount(self._errors.images, minlength=len(self.labels)) == 0

    def order(self) -> np.ndarray:
        """The images in order of interest: most errors first."""
        counts = np.bincount(self._errors.images, minlength=len(self.labels))
        return np.argsort(-counts, kind="stable")

    def caption(self, index: int) -> str:
        """The errors in an image, at a score of at least .5."""
        kinds = self._errors.kinds[self._errors.images == index]
        counts = {kind: int(np.sum(kinds == kind)) for kind in KINDS}
        found = [f"{count} {kind}" for kind, count in counts.items() if count]
        return ", ".join(found) or "all right"

    def save(self, folder: str | os.PathLike) -> Path:
        """Write detections.json, truths.json, per_class.csv and precision_recall.png to a folder.

        Parameters
        ----------
        folder : path
            The folder.

        Returns
        -------
        pathlib.Path
            per_class.csv. The two JSON files are COCO's results and annotations, for any tool that
            reads those: classes are numbered from 1, boxes are x, y, width and height.
        """
        folder = Path(folder)
        ids = self.image_ids
        write_text(folder / "detections.json", json_text(coco_results(self.detections, ids), None))
        truths = coco_truths(self.labels, self.class_names, ids)
        write_text(folder / "truths.json", json_text(truths, None))
        precision_recall(folder / "precision_recall.png", self)
        scores = self.per_class()
        rows = [[name, *values.values()] for name, values in scores.items()]
        rows = [["" if value != value else value for value in row] for row in rows]  # NaN
        path = folder / self.FILE
        with (
            written_beside(path) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([["class", *next(iter(scores.values()))], *rows])
        return path


def evaluate(
    model: keras.Model,
    split: Split,
    class_names: Sequence[str],
    *,
    batch_size: int = 1,
    classes: Sequence[int] | None = None,
) -> DetectionEvaluation:
    """Run a detector on images with boxes. One batch of images is in memory at a time.

    Parameters
    ----------
    model : keras.Model
        A detector.
    split : Split
        Images and the boxes in them.
    class_names : sequence of str
        Names of the classes, in the order of the detector's.
    batch_size : int, default 1
        Images at once; see `detect`.
    classes : sequence of int, optional
        For each name, the detector's class: for data with only some of its classes, or in another
        order. Detections of other classes are left out. Default: the classes in order.

    Returns
    -------
    DetectionEvaluation

    Raises
    ------
    ValueError
        For a model that is not a detector, of another number of classes, or whose weights are NaN;
        and for labels that are not boxes.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import data, detection
    >>> backbone = keras_resnet.ResNet((1, 1, 1, 1), filters=(8, 8, 8, 8), include_top=False)
    >>> detector = detection.FasterRCNN(backbone, 1, "c4", min_size=64)
    >>> labels = data.boxes.padded([[(10, 10, 50, 50, 0, 0)]])
    >>> split = data.Split(np.zeros((1, 60, 60, 3), "uint8"), labels)
    >>> quality = detection.evaluate(detector, split, ["cell"])
    >>> quality.headline[0]
    'AP'
    """
    known = parts_of(model).classes
    chosen = [*range(known)] if classes is None else [*classes]
    if len(chosen) != len(class_names):
        raise ValueError(
            f"model {model.name!r} has {known} classes; class_names has {len(class_names)}."
        )
    numbers = np.full(known, -1)
    numbers[chosen] = range(len(chosen))
    graphs.check_weights(model)
    answer, found = function_of(model), []
    channels = model.inputs[0].shape[-1]
    dataset = batches(split, batch_size=batch_size, channels=channels)
    for inputs, _ in progress.batches(dataset, "Evaluating"):
        for each in answers_of(answer(inputs["images"], inputs["sizes"])):
            each["labels"] = numbers[each["labels"]]
            of_these = each["labels"] >= 0
            found.append({name: values[of_these] for name, values in each.items()})
    ids = image_ids(split.images) if isinstance(split.images, list) else ()
    return DetectionEvaluation(split.labels, found, tuple(class_names), ids)


def image_ids(files: Sequence[str | os.PathLike]) -> tuple[int | str, ...]:
    """Name images as COCO's results do: by number, if all their names are numbers.

    Parameters
    ----------
    files : sequence of path
        The images.

    Returns
    -------
    tuple of int or str
        A different one for each; see `keras_resnet.analysis.evaluation.submission_ids`.

    Raises
    ------
    ValueError
        For a file that is named twice.

    Examples
    --------
    >>> from keras_resnet.detection.evaluation import image_ids
    >>> image_ids(["000000397133.jpg", "000000037777.jpg"]), image_ids(["1.jpg", "cat.jpg"])
    ((397133, 37777), ('1', 'cat'))
    """
    names = submission_ids(files)
    if all(name.isdecimal() for name in names) and len({*map(int, names)}) == len(names):
        return tuple(map(int, names))
    return tuple(names)


def coco_metrics(
    truths: np.ndarray, detections: Sequence[dict], class_names: Sequence[str]
) -> dict[str, float]:
    """Average precision and recall by COCO's protocol, and VOC's.

    Parameters
    ----------
    truths : array of shape (images, most, 6)
        A split's labels, as in `keras_resnet.data.boxes`.
    detections : sequence of dict
        "boxes", "scores" and "labels" of every image.
    class_names : sequence of str
        Names of the classes.

    Returns
    -------
    dict of str to float
        `DetectionEvaluation.metrics`.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.detection import coco_metrics
    >>> truths = np.array([[[10, 10, 50, 50, 0, 0]]], "float32")
    >>> found = [{"boxes": [[10, 10, 50, 40]], "scores": [0.9], "labels": [0]}]
    >>> scores = coco_metrics(truths, found, ("cell",))
    >>> round(scores["AP50"], 2), round(scores["AP"], 2), scores["AP_large"]
    (1.0, 0.6, nan)
    """
    return DetectionEvaluation(truths, detections, tuple(class_names)).metrics()


def coco_results(
    detections: Sequence[dict],
    image_ids: Sequence[int | str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> list[dict]:
    """Detections in the format of COCO's results.

    Parameters
    ----------
    detections : sequence of dict
        "boxes", "scores" and "labels" of every image.
    image_ids : sequence of int or str, optional
        What to call the images. Default: their numbers, from 0.
    category_ids : sequence of int, optional
        What to call the classes. Default: their numbers, from 1.

    Returns
    -------
    list of dict
        "image_id", "category_id", "bbox" (x, y, width, height, to a hundredth of a pixel) and
        "score" (to six places) of every detection.

    Examples
    --------
    >>> from keras_resnet.detection import coco_results
    >>> found = [{"boxes": [[10, 10, 50, 40]], "scores": [0.9], "labels": [0]}]
    >>> coco_results(found, image_ids=[397133])
    [{'image_id': 397133, 'category_id': 1, 'bbox': [10.0, 10.0, 40.0, 30.0], 'score': 0.9}]
    """
    ids = range(len(detections)) if image_ids is None else image_ids
    return [
        {
            "image_id": image,
            "category_id": int(label) + 1 if category_ids is None else category_ids[label],
            "bbox": _bbox(box),
            "score": round(float(score), 6),
        }
        for image, each in zip(ids, detections, strict=True)
        for box, score, label in zip(each["boxes"], each["scores"], each["labels"], strict=True)
        if label >= 0
    ]


def read_coco_results(
    results: Sequence[dict], image_ids: Sequence[int | str]
) -> list[dict[str, np.ndarray]]:
    """Turn the output of `coco_results` back into detections, in the order of `image_ids`."""
    of_image = {image: [] for image in image_ids}
    for each in results:
        of_image[each["image_id"]].append(each)
    found = []
    for each in of_image.values():
        boxes = np.array([result["bbox"] for result in each], "float64").reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([result["score"] for result in each], "float64")
        labels = np.array([result["category_id"] - 1 for result in each], int)
        found.append({"boxes": boxes, "scores": scores, "labels": labels})
    return found


def coco_truths(
    labels: np.ndarray, class_names: Sequence[str], image_ids: Sequence[int | str] | None = None
) -> dict:
    """Labels in the format of COCO's annotations.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        A split's labels.
    class_names : sequence of str
        Names of the classes.
    image_ids : sequence of int or str, optional
        What to call the images. Default: their numbers, from 0.

    Returns
    -------
    dict
        "images", "categories" (from 1) and "annotations" (from 1).
    """
    table = table_of_truths(np.asarray(labels, "float64"))
    ids = [*(range(len(labels)) if image_ids is None else image_ids)]
    columns = (table[name] for name in ("images", "labels", "boxes", "ignored"))
    return {
        "images": [{"id": image} for image in ids],
        "categories": [{"id": index, "name": name} for index, name in enumerate(class_names, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": ids[image],
                "category_id": int(label) + 1,
                "bbox": _bbox(box),
                "area": round(float(np.prod(box[2:] - box[:2])), 2),
                "iscrowd": int(ignored == CROWD),
                "ignore": int(ignored > 0),
            }
            for number, (image, label, box, ignored) in enumerate(zip(*columns, strict=True), 1)
        ],
    }


def _bbox(box):
    """A box as x, y, width, height, to a hundredth of a pixel."""
    left, top, right, bottom = map(float, box)
    return [round(number, 2) for number in (left, top, right - left, bottom - top)]


def _mean(values):
    """The mean without NaN; NaN if nothing is left."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else _NAN


def _best_f1(scores, right, objects):
    """Score, precision, recall and F1 where F1 is best, of detections in order of their scores."""
    if not objects:
        return [_NAN] * 4
    # Detections of one score are taken or left together.
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    hits = np.cumsum(right)[last]
    if not hits.any():
        return [_NAN, _NAN, 0.0, 0.0]
    f1 = 2 * hits / (last + 1 + objects)
    best = f1.argmax()
    precision, recall = hits[best] / (last[best] + 1), hits[best] / objects
    return [scores[last[best]], precision, recall, f1[best]]


def _voc_average_precision(labels, detections, label):
    """Average precision of a class as VOC has it since 2010, and as in 2007."""
    scores, outcomes, objects = [], [], 0
    for rows, each in zip(labels, detections, strict=True):
        truths = rows[rows[:, CLASS] == label]
        objects += np.sum(truths[:, IGNORED] == 0)
        found = np.flatnonzero(each["labels"] == label)
        found = found[np.argsort(-each["scores"][found], kind="stable")]
        scores.append(each["scores"][found])
        outcomes.append(
            _voc_outcomes(overlaps_of(each["boxes"][found], truths[:, :CLASS]), truths[:, IGNORED])
        )
    if not objects:
        return _NAN, _NAN
    scores, outcomes = np.concatenate(scores), np.concatenate(outcomes)
    outcomes = outcomes[np.argsort(-scores, kind="stable")]
    right = outcomes[outcomes >= 0]  # without the difficult
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # with at least that recall
    area = float(np.sum(best[right == 1]) / objects)
    reached = np.searchsorted(hits * _POINTS, np.arange(_POINTS + 1) * objects)
    points = float(np.sum(best[reached[reached < len(hits)]]) / (_POINTS + 1))
    return area, points


def _voc_outcomes(overlaps, ignored):
    """1 for right, 0 for wrong, -1 for neither, of detections of an image by their scores.

    Unlike COCO's, VOC's protocol looks only at the object that a detection overlaps most,
    whether or not it has been found already. A difficult one takes any number.
    """
    outcomes = np.zeros(len(overlaps), int)
    if not overlaps.size:
        return outcomes
    nearest = overlaps.argmax(1)
    near = overlaps.max(1) >= 0.5
    outcomes[near & (ignored[nearest] > 0)] = -1
    mine = np.flatnonzero(near & (ignored[nearest] == 0))
    _, first = np.unique(nearest[mine], return_index=True)
    outcomes[mine[first]] = 1
    return outcomes
