"""An overview of a data set, before anything is trained on it."""

import math
from dataclasses import dataclass, field

import numpy as np

from keras_resnet.data import Source
from keras_resnet.data.boxes import count_boxes, counted, used
from keras_resnet.data.skipped import is_damaged
from keras_resnet.progress import tracked


@dataclass(frozen=True)
class Values:
    """The range of some numbers.

    Parameters
    ----------
    smallest, mean, largest : float
        Over the images of a split.
    """

    smallest: float
    mean: float
    largest: float


SMALL, LARGE = 32**2, 96**2
"""Areas in pixels between which boxes are of medium size, as COCO has them."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of a split.

    Parameters
    ----------
    small, medium, large : list of int
        The boxes of every class that are smaller than 32 x 32 pixels, larger than 96 x 96, and
        between these.
    most : int
        Boxes in the image that has the most.
    ignored : int
        Boxes of crowds or difficult objects, which are nowhere else counted.
    """

    small: list[int]
    medium: list[int]
    large: list[int]
    most: int
    ignored: int


@dataclass(frozen=True)
class Overview:
    """What a data set contains.

    Parameters
    ----------
    name : str
        The data set.
    class_names : tuple of str
        Its classes, labels or numbers.
    counts : dict of str to list of int
        For every split, the number of images of every class or label; of numbers, all images; of
        boxes, those of every class.
    imbalance : float
        How many times more training images, or boxes, the largest class has than the smallest.
    smallest, median, largest : tuple of (int, int)
        Width and height in pixels of the smallest, the median and the largest image by area.
    damaged : tuple of str
        What is wrong with every image that cannot be read.
    duplicates : list of list of str
        Images that are, byte for byte, in more than one split.
    task : {"classification", "multilabel", "regression", "detection"}
        What the labels are.
    values : dict of str to list of Values
        For numbers: for every split with images, the range of each. Otherwise empty.
    unlabelled : dict of str to int
        For several labels or boxes an image: for every split, the number of images without one.
        Otherwise empty.
    boxes : dict of str to Boxes
        For boxes: what those of every split are like. Otherwise empty.
    skipped : tuple of str
        Everything that was seen and is not used, with the reason.
    notes : tuple of str
        What else one should know about the data, as in `Source`.
    """

    name: str
    class_names: tuple[str, ...]
    counts: dict[str, list[int]]
    imbalance: float
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    damaged: tuple[str, ...]
    duplicates: list[list[str]]
    task: str = "classification"
    values: dict[str, list[Values]] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    boxes: dict[str, Boxes] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def overview(source: Source) -> Overview:
    """Count and measure the images of a data set.

    Parameters
    ----------
    source : Source
        The data, loaded with `on_error="skip"` to list all damaged files.

    Returns
    -------
    Overview

    Examples
    --------
    >>> from keras_resnet import data
    >>> from keras_resnet.analysis import overview
    >>> digits = overview(data.load("digits"))
    >>> digits.largest, sum(digits.counts["train"]), len(digits.duplicates)
    ((8, 8), 1222, 0)
    """
    sizes, found, damaged = [], {}, [line for line in source.skipped if is_damaged(line)]
    for split_name, split in source.splits.items():
        looked_at = zip(split.image_set.inspect(), split.digests(), strict=True)
        seen = tracked(looked_at, f"Looking at {split_name}", len(split))
        for index, ((name, size), contents) in enumerate(seen):
            if size is None:
                damaged.append(f"{split_name}: image {index} cannot be read.")
                continue
            label = name or f"image {index}"
            found.setdefault(contents, []).append((split_name, f"{split_name}: {label}"))
            sizes.append(size)
    sizes.sort(key=math.prod)
    return Overview(
        name=source.name,
        class_names=source.class_names,
        counts=source.counts(),
        imbalance=source.imbalance,
        smallest=sizes[0],
        median=sizes[len(sizes) // 2],
        largest=sizes[-1],
        damaged=tuple(damaged),
        duplicates=[
            [label for _, label in group]
            for group in found.values()
            if len({split_name for split_name, _ in group}) > 1
        ],
        task=source.task,
        skipped=source.skipped,
        notes=source.notes,
        **_FACTS[source.task](source),
    )


def _unlabelled(source):
    """The images without a label."""
    return {
        "unlabelled": {
            name: int((~split.labels.any(axis=1)).sum()) for name, split in source.splits.items()
        }
    }


def _values(source):
    """The range of every number."""
    return {
        "values": {
            name: [
                Values(*map(float, (column.min(), column.mean(dtype="float64"), column.max())))
                for column in split.labels.reshape(len(split), -1).T
            ]
            for name, split in source.splits.items()
            if len(split)
        }
    }


def _boxes(source):
    """How large boxes are, and how many an image has."""
    classes = len(source.class_names)
    return {
        "boxes": {name: _boxes_of(each.labels, classes) for name, each in source.splits.items()},
        "unlabelled": {
            name: int((~used(each.labels).any(1)).sum()) for name, each in source.splits.items()
        },
    }


def _boxes_of(labels, classes):
    width, height = labels[..., 2] - labels[..., 0], labels[..., 3] - labels[..., 1]
    size, is_counted = np.digitize(width * height, (SMALL, LARGE)), counted(labels)
    of_sizes = (labels[is_counted & (size == each)] for each in range(3))
    by_size = [count_boxes(each, classes).tolist() for each in of_sizes]
    most = int(is_counted.sum(1).max(initial=0))
    return Boxes(*by_size, most=most, ignored=int((used(labels) & ~is_counted).sum()))


_FACTS = {
    "classification": lambda source: {},
    "multilabel": _unlabelled,
    "regression": _values,
    "detection": _boxes,
}
