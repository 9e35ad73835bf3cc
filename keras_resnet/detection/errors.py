"""Errors of detections by kind, as TIDE defines them.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_resnet.data.boxes import UNUSED, used
from keras_resnet.detection.protocol import (
    listed,
    matched,
    matches,
    overlaps_of,
    table_of_detections,
    table_of_truths,
)

FALSE_KINDS = {
    "mislocated": "of the right class, but overlaps the object too little",
    "misclassified": "where there is an object, but of another class",
    "doubled": "of an object that a detection with a higher score has already found",
    "false": "where there is no object",
    "both": "of another class, and overlaps the object too little",
}
"""What may be wrong with a detection. The first that holds counts."""

KINDS = {
    **FALSE_KINDS,
    "missed": "an object that no detection found, mislocated or misclassified",
}
"""All kinds of errors."""

FOUND, NEAR = 0.5, 0.1
"""Overlaps from which on an object is found, and from which on a detection is meant for it."""

_MOST = (100,)
_MOVED = ("mislocated", "misclassified")  # mended by another box or class


@dataclass(frozen=True)
class Errors:
    """Errors of detections, a column each.

    Parameters
    ----------
    kinds : array of str of shape (errors,)
        Keys of `KINDS`.
    images : int array of shape (errors,)
        The images.
    labels : int array of shape (errors,)
        The class of each detection; of one that is missed, that of the object.
    boxes : array of shape (errors, 4)
        The box of each detection; NaN for what is missed.
    scores : array of shape (errors,)
        The score of each detection; NaN for what is missed.
    truths : int array of shape (errors,)
        The object that a detection is meant for, or that is missed, as a row of
        `protocol.table_of_truths`; -1 for none.
    detections : int array of shape (errors,)
        The row of `protocol.table_of_detections`; -1 for what is missed.
    """

    kinds: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    truths: np.ndarray
    detections: np.ndarray

    def __len__(self):
        return len(self.kinds)

    def counts(self) -> dict[str, int]:
        """How many errors there are of every kind."""
        return {kind: int(np.sum(self.kinds == kind)) for kind in KINDS}

    def per_class(self, classes: int) -> dict[str, np.ndarray]:
        """How many errors of every kind each class has."""
        return {
            kind: np.bincount(self.labels[self.kinds == kind], minlength=classes) for kind in KINDS
        }


def find_errors(
    labels: np.ndarray, detections: Sequence[dict], classes: int, score: float = 0.5
) -> Errors:
    """Find what is wrong with detections.

    Parameters
    ----------
    labels : array of shape (images, most, 6)
        As `protocol.check_truths` returns them. Ignored boxes are neither missed nor found.
    detections : sequence of dict
        As `protocol.check_detections` returns them.
    classes : int
        Number of classes.
    score : float, default 0.5
        Detections of lower scores are left out.

    Returns
    -------
    Errors
        First those of the detections, in their order, then what is missed.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.detection.errors import find_errors
    >>> from keras_resnet.detection.protocol import check_detections
    >>> labels = np.array([[[10, 10, 50, 50, 0, 0]]], "float64")
    >>> boxes = [[10, 10, 50, 50], [70, 10, 90, 50]]
    >>> found = [{"boxes": boxes, "scores": [1, 1], "labels": [1, 0]}]
    >>> find_errors(labels, check_detections(found, labels, 2), 2).kinds.tolist()
    ['misclassified', 'false']
    """
    kept = above(detections, score)
    return _sorted(_matched(labels, kept, classes), labels, kept)[0]


def gained(labels: np.ndarray, detections: Sequence[dict], classes: int) -> dict[str, float]:
    """Compute how much AP50 would rise if all errors of a kind were corrected.

    A mislocated detection is put in place and a misclassified one gets the right class, if no other
    has found the object and no mislocated or misclassified one of a higher score is meant for it;
    else it is left out, as are those of other kinds. An object that is missed need not be found.

    Parameters
    ----------
    labels, detections, classes
        As `find_errors` takes them.

    Returns
    -------
    dict of str to float
        By keys of `KINDS`. They do not add up: mending one kind may hide another.
    """
    evaluator = _matched(labels, detections, classes)
    errors, found = _sorted(evaluator, labels, detections)
    before = _ap50(evaluator)
    there = ~np.isnan(before)

    def gain(kind):
        after = _ap50(_matched(*_mended(labels, detections, errors, found, kind), classes))
        # Nothing is left to find of a class of which all was missed.
        difference = np.where(np.isnan(after), 1.0, after) - before
        return max(0.0, float(difference[there].mean())) if there.any() else 0.0

    return {kind: gain(kind) for kind in KINDS}


def above(detections: Sequence[dict], score: float) -> list[dict]:
    """The detections of at least some score.

    Parameters
    ----------
    detections : sequence of dict
        As `protocol.check_detections` returns them.
    score : float
        The lowest score.

    Returns
    -------
    list of dict
    """
    return [
        {name: column[each["scores"] >= score] for name, column in each.items()}
        for each in detections
    ]


def _matched(labels, detections, classes):
    """Matches at one overlap, of boxes of all sizes."""
    return matched(labels, detections, classes, overlaps=[FOUND], most=_MOST, sizes=1)


def _ap50(evaluator):
    """AP50 of every class, NaN where there is nothing to find."""
    precision = evaluator.eval["precision"][0, :, :, 0, 0]
    return np.where(precision < 0, np.nan, precision).mean(0)


def _sorted(evaluator, labels, detections):
    """The errors, and which true boxes are found."""
    outcome = matches(evaluator)
    truths, found = table_of_truths(labels), table_of_detections(detections)
    wrong, real = np.flatnonzero(outcome.wrong), np.flatnonzero(truths["ignored"] == 0)
    kinds, meant = np.full(len(wrong), "false", "U16"), np.full(len(wrong), -1)
    images = np.arange(len(labels) + 1)
    of_wrong, of_real = (
        np.searchsorted(table["images"][rows], images)
        for table, rows in ((found, wrong), (truths, real))
    )
    for image in images[:-1]:
        rows = slice(*of_wrong[image : image + 2])
        objects = real[slice(*of_real[image : image + 2])]
        if len(objects) and rows.start < rows.stop:
            kinds[rows], meant[rows] = _kinds(found, truths, wrong[rows], objects, outcome.found)
    missed = np.setdiff1d(real[~outcome.found[real]], meant[np.isin(kinds, _MOVED)])
    nothing = np.full((len(missed), 4), np.nan)
    errors = Errors(
        np.concatenate([kinds, np.full(len(missed), "missed")]),
        np.concatenate([found["images"][wrong], truths["images"][missed]]),
        np.concatenate([found["labels"][wrong], truths["labels"][missed]]),
        np.concatenate([found["boxes"][wrong], nothing]),
        np.concatenate([found["scores"][wrong], nothing[:, 0]]),
        np.concatenate([meant, missed]),
        np.concatenate([wrong, np.full(len(missed), -1)]),
    )
    return errors, outcome.found


def _kinds(found, truths, rows, objects, taken):
    """Kinds of the wrong detections of an image, and the objects that they are meant for."""
    overlaps = overlaps_of(found["boxes"][rows], truths["boxes"][objects])
    same = found["labels"][rows, None] == truths["labels"][objects]
    best = {
        "same": overlaps * same,
        "other": overlaps * ~same,
        "taken": overlaps * same * taken[objects],
        "any": overlaps,
    }
    most = {name: each.max(1) for name, each in best.items()}
    nearest = {name: objects[each.argmax(1)] for name, each in best.items()}
    cases = {  # in the order that TIDE tries
        "mislocated": ((most["same"] >= NEAR) & (most["same"] < FOUND), nearest["same"]),
        "misclassified": (most["other"] >= FOUND, nearest["other"]),
        "doubled": (most["taken"] >= FOUND, nearest["taken"]),
        "false": (most["any"] < NEAR, np.full(len(rows), -1)),
        "both": (np.ones(len(rows), bool), nearest["any"]),
    }
    holds, meant = map(np.array, zip(*cases.values(), strict=True))
    first = holds.argmax(0)
    return np.array([*cases])[first], meant[first, np.arange(len(rows))]


def _mended(labels, detections, errors, found, kind):
    """Labels and detections without the errors of a kind."""
    table, truths = table_of_detections(detections), table_of_truths(labels)
    chosen = errors.kinds == kind
    rows, objects = errors.detections[chosen], errors.truths[chosen]
    if kind == "missed":
        labels = labels.copy()
        images, places = np.nonzero(used(labels))
        labels[images[objects], places[objects]] = UNUSED
        return labels, detections
    kept = np.ones(len(table["images"]), bool)
    kept[rows] = False
    mended = np.flatnonzero(np.isin(errors.kinds, _MOVED))
    mended = mended[np.argsort(-errors.scores[mended], kind="stable")]
    mended = mended[np.unique(errors.truths[mended], return_index=True)[1]]  # one an object
    mended = mended[(errors.kinds[mended] == kind) & ~found[errors.truths[mended]]]
    rows, objects = errors.detections[mended], errors.truths[mended]
    kept[rows] = True
    table["boxes"][rows], table["labels"][rows] = (
        truths["boxes"][objects],
        truths["labels"][objects],
    )
    return labels, listed({name: column[kept] for name, column in table.items()}, len(labels))
