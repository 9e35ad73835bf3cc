"""What the labels of images may be. A kind of task is a row of `LABELS`.

================  ==============================  =============================================
classification    int64 of shape (images,)        the index of each image's class
multilabel        float32 of (images, labels)     1 for the labels that an image has, 0 otherwise
regression        float32 of (images,) or         the numbers to predict
                  (images, numbers)
detection         float32 of (images, rows, 6)    the boxes around objects, as in `boxes`
================  ==============================  =============================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_resnet.data import boxes

Task = Literal["classification", "multilabel", "regression", "detection"]

BETWEEN = "|"
"""What separates several labels of an image, in text."""

_EXPECTED = (
    "Expected whole numbers of shape (images,) for classes, 0 and 1 of shape (images, labels) for "
    "several labels an image, floats for numbers to predict, or floats of shape (images, rows, 6) "
    "for boxes"
)
MISSING = ("nan", "NaN", "NAN", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "None", "?", "-")
"""What tables have where a value is missing."""

_NAMED = 3  # groups of names in notes


def as_labels(labels: Any) -> np.ndarray:
    """Convert labels to what a split keeps.

    Parameters
    ----------
    labels : array
        Of any kind of task. Whole numbers of shape (images, 1) are taken as (images,).

    Returns
    -------
    array
        int64 of shape (images,) for whole numbers, float32 otherwise.

    Raises
    ------
    ValueError
        For anything that is not a label: text, negative classes, NaN.

    Examples
    --------
    >>> from keras_resnet.data.labels import as_labels
    >>> as_labels([[3], [5]])
    array([3, 5])
    """
    labels = np.asarray(labels)
    if not labels.size and labels.ndim == 1:
        return labels.astype("int64")
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "biu":
        labels = labels[:, 0]
    are_boxes = labels.ndim == 3 and labels.shape[2] == boxes.COLUMNS
    if labels.dtype.kind not in "biuf" or not (labels.ndim in (1, 2) or are_boxes):
        hint = "; number the names: np.unique(labels, return_inverse=True)[1]"
        raise ValueError(
            f"labels of type {labels.dtype} and shape {labels.shape} are not understood. "
            f"{_EXPECTED}{hint if labels.dtype.kind in 'OSU' else ''}."
        )
    if labels.ndim == 1 and labels.dtype.kind in "biu":
        index = int(labels.argmin())
        if labels[index] < 0:
            raise ValueError(
                f"labels[{index}]={labels[index]} is negative; classes are counted from 0. Numbers "
                "to predict are floats: labels.astype('float32')."
            )
        return labels.astype("int64", copy=False)
    with np.errstate(over="ignore"):
        numbers = labels.astype("float32", copy=False)
    if not np.isfinite(numbers).all():
        where = tuple(map(int, np.argwhere(~np.isfinite(numbers))[0]))
        raise ValueError(f"labels{[*where]}={labels[where]} is not a finite float32. {_EXPECTED}.")
    return numbers


def task_of(labels: np.ndarray) -> Task:
    """Tell a task by its labels.

    Parameters
    ----------
    labels : array
        As `as_labels` returns them.

    Returns
    -------
    str
        A key of `LABELS`.
    """
    if labels.dtype.kind != "f":
        return "classification"
    if labels.ndim == 3:
        return "detection"
    several = labels.ndim == 2 and np.isin(labels, (0, 1)).all()
    return "multilabel" if several else "regression"


def notes_on_names(class_names: Sequence[str]) -> list[str]:
    """Point out names of classes that may be mistakes.

    Parameters
    ----------
    class_names : sequence of str
        The names.

    Returns
    -------
    list of str
        A line for `Source.notes` about each.

    Examples
    --------
    >>> from keras_resnet.data.labels import notes_on_names
    >>> notes_on_names(["Cat", "cat", "dog"])
    ["The classes 'Cat' and 'cat' differ only in case."]
    """
    spellings, notes = {}, []
    for name in class_names:
        spellings.setdefault(name.casefold(), []).append(name)
    same = [names for names in spellings.values() if len(names) > 1]
    for names in same[:_NAMED]:
        notes.append(f"The classes {' and '.join(map(repr, names))} differ only in case.")
    if len(same) > _NAMED:
        notes.append(f"So do {len(same) - _NAMED} more.")
    missing = [name for name in class_names if name in MISSING]
    return [*notes, *(f"The class {name!r} may stand for missing labels." for name in missing)]


@dataclass(frozen=True)
class Labels:
    """What the labels of a kind of task are.

    Parameters
    ----------
    noun : str
        What one of the source's `class_names` is.
    checked : callable
        Takes labels as a split has them and the names; returns the labels of this kind or raises
        ValueError.
    counts : callable
        Takes labels and the number of names; returns the images, or boxes, of each.
    groups : callable
        Takes labels and the number of names; returns the indices of the images of each.
    written : callable
        Takes the label of an image and the names; returns it as text.
    read : callable
        Takes such texts and the names; returns the labels, or raises ValueError.
    in_every_split : bool
        Whether each of the names must have images in every split, or only in train.
    in_train : bool
        Whether each of the names must have images in train. Boxes need not: a detector may know
        more classes than there are in the images that it is tested on.
    joined : callable, optional
        Takes labels of several splits; returns them as one array. Default: as they are.
    shown : callable, optional
        Takes what `written` does; returns a text for people. Default: the same one.
    """

    noun: str
    checked: Callable[[np.ndarray, tuple[str, ...]], np.ndarray]
    counts: Callable[[np.ndarray, int], np.ndarray]
    groups: Callable[[np.ndarray, int], list[np.ndarray]]
    written: Callable[[np.ndarray, tuple[str, ...]], str]
    read: Callable[[list[str], tuple[str, ...]], np.ndarray]
    in_every_split: bool
    in_train: bool = True
    joined: Callable[[Sequence[np.ndarray]], np.ndarray] = np.concatenate
    shown: Callable[[np.ndarray, tuple[str, ...]], str] | None = None


def _classes(labels, class_names):
    """Check indices of classes."""
    if labels.ndim == 2:
        raise ValueError(
            f"labels of shape {labels.shape}; classes are whole numbers of shape (images,). Of "
            "one-hot rows take np.argmax(labels, axis=1); several labels an image are "
            "task='multilabel'."
        )
    if labels.dtype != np.int64:
        raise ValueError(
            f"labels are {labels.dtype}; classes are whole numbers: labels.astype('int64'). "
            "Numbers to predict are task='regression'."
        )
    index = int(labels.argmax()) if len(labels) else None
    if index is not None and labels[index] >= len(class_names):
        raise ValueError(
            f"label {labels[index]} of image {index} (counted from 0) is not one of 0 to "
            f"{len(class_names) - 1}, for which there are names."
        )
    return labels


def _multi_hot(labels, names):
    """Check rows of 0 and 1."""
    if not len(labels):
        return np.zeros((0, len(names)), "float32")
    if len(names) == 1 and labels.ndim == 1:
        labels = labels[:, None].astype("float32")
    if labels.shape[1:] != (len(names),):
        raise ValueError(
            f"labels of shape {labels.shape}; task='multilabel' with {len(names)} names takes 0 "
            f"and 1 of shape (images, {len(names)})."
        )
    strange = (labels != 0) & (labels != 1)
    if strange.any():
        row, column = map(int, np.argwhere(strange)[0])
        raise ValueError(
            f"labels[{row}, {column}]={labels[row, column]:g} must be 1 for a label that the image "
            "has, or 0."
        )
    return labels


def _numbers(labels, names):
    """Check numbers to predict."""
    if len(names) == 1 and labels.shape[1:] == (1,):
        labels = labels[:, 0]
    expected = (len(names),) if len(names) > 1 else ()
    if len(labels) and labels.shape[1:] != expected:
        wanted = f"(images, {len(names)})" if expected else "(images,)"
        raise ValueError(
            f"labels of shape {labels.shape}; task='regression' with {len(names)} names takes "
            f"floats of shape {wanted}."
        )
    return labels.astype("float32", copy=False) if len(labels) else np.zeros((0, *expected), "f4")


def _by_class(labels, classes):
    """The images of every class."""
    counts = np.bincount(labels, minlength=classes)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _indices(texts, names):
    """The numbers of names."""
    index_of = {name: index for index, name in enumerate(names)}
    try:
        return [[index_of[name] for name in each] for each in texts]
    except KeyError as error:
        raise ValueError(f"label {error} is not one of {', '.join(names)}.") from error


def labels_in(text: str) -> list[str]:
    """The labels of an image in a text such as "cat|dog"; an empty one has none."""
    return [name.strip() for name in text.split(BETWEEN)] if text else []


def _read_several(texts, names):
    """Rows of 0 and 1."""
    labels = np.zeros((len(texts), len(names)), "float32")
    found = _indices([*map(labels_in, texts)], names)
    for row, indices in zip(labels, found, strict=True):
        row[indices] = 1
    return labels


def _read_numbers(texts, names):
    """Numbers, several of them in rows."""
    labels = np.array([[float(number) for number in each.split(BETWEEN)] for each in texts], "f4")
    return labels[:, 0] if len(names) == 1 and len(texts) else labels


LABELS: dict[str, Labels] = {
    "classification": Labels(
        noun="class",
        checked=_classes,
        counts=lambda labels, classes: np.bincount(labels, minlength=classes),
        groups=_by_class,
        written=lambda label, names: names[label],
        read=lambda texts, names: np.array(_indices([[t] for t in texts], names), int).reshape(-1),
        in_every_split=True,
    ),
    "multilabel": Labels(
        noun="label",
        checked=_multi_hot,
        counts=lambda labels, _: labels.sum(axis=0).astype(int),
        groups=lambda labels, _: [np.flatnonzero(column) for column in labels.T],
        written=lambda label, names: BETWEEN.join(names[i] for i in np.flatnonzero(label)),
        read=_read_several,
        in_every_split=False,
    ),
    "regression": Labels(
        noun="number",
        checked=_numbers,
        counts=lambda labels, numbers: np.full(numbers, len(labels)),
        groups=lambda labels, numbers: [np.arange(len(labels))] * numbers,
        written=lambda label, _: BETWEEN.join(map(str, np.atleast_1d(label).tolist())),
        read=_read_numbers,
        in_every_split=True,
    ),
    "detection": Labels(
        noun="class",
        checked=boxes.check_boxes,
        counts=boxes.count_boxes,
        groups=boxes.images_with,
        written=boxes.write_boxes,
        read=boxes.read_boxes,
        in_every_split=False,
        in_train=False,
        joined=boxes.joined,
        shown=boxes.summary,
    ),
}
"""What labels are, by the task."""
