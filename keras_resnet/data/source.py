"""A labelled data set and its splits."""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_choice, check_range
from keras_resnet.data.boxes import CLASS, check_inside
from keras_resnet.data.image_sets import ImageSet, image_set
from keras_resnet.data.labels import LABELS, Task, as_labels, task_of
from keras_resnet.data.labels_file import check_labels
from keras_resnet.files import digest
from keras_resnet.names import label

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
"""The splits, and the names that they may have, in any case."""

SPLIT_OF = {alias: split for split, names in SPLITS.items() for alias in names}
"""The split that goes by a name."""

SMALL = 64
"""Pixels a side up to which images are small: they are not enlarged."""


@dataclass(frozen=True)
class Split:
    """Images of one split, in memory, in files or in a stream, and their labels.

    Parameters
    ----------
    images : array, list of path, or tf.data.Dataset
        A uint8 array of shape (images, height, width, channels); paths of image files; or a dataset
        of the contents of image files. Arrays of other types are converted to uint8 if they are
        clearly on the scale from 0 to 255.
    labels : array
        Whole numbers of shape (images,) or (images, 1): the index of each image's class. For other
        tasks, 0 and 1 of shape (images, labels), floats of shape (images,) or (images, numbers), or
        boxes of shape (images, rows, 6) as in `keras_resnet.data.boxes`.
    groups : array of str, optional
        What each image belongs to, such as a patient: all images of a group are to be in one split.

    Attributes
    ----------
    image_set : ImageSet
        The images behind one interface, wherever they are.

    Raises
    ------
    ValueError
        For images or labels of another type, shape or range, or of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import data
    >>> len(data.Split(np.zeros((2, 8, 8, 3), "uint8"), [[0], [1]]))
    2
    >>> data.Split(np.random.uniform(size=(2, 8, 8, 3)), [0, 1])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: images are float64 from ... to ..., which may not be the scale from 0 to 255. ...
    """

    images: np.ndarray | list | tf.data.Dataset
    labels: np.ndarray
    groups: np.ndarray | None = field(default=None, repr=False, compare=False, kw_only=True)
    image_set: ImageSet = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        images, labels = image_set(self.images), as_labels(self.labels)
        if images.count not in (None, len(labels)):
            raise ValueError(
                f"images and labels must be of one length: {images.count} images, {len(labels)} "
                "labels."
            )
        if self.groups is not None and np.shape(self.groups) != (len(labels),):
            raise ValueError(
                f"groups and labels must be of one length: shape {np.shape(self.groups)}, "
                f"{len(labels)} labels."
            )
        object.__setattr__(self, "image_set", images)
        object.__setattr__(self, "images", images.images)
        object.__setattr__(self, "labels", labels)

    def __len__(self):
        return len(self.labels)

    def counts(self, classes: int) -> list[int]:
        """Count the images of every class.

        Parameters
        ----------
        classes : int
            Number of classes.

        Returns
        -------
        list of int
            For several labels an image, the images that have each; of boxes, the boxes. See
            `Source.counts` for any task.

        Raises
        ------
        ValueError
            For a label that is not one of so many classes.
        """
        task = ("classification", "multilabel", "detection")[self.labels.ndim - 1]
        labels = LABELS[task].checked(self.labels, tuple(map(str, range(classes))))
        return LABELS[task].counts(labels, classes).tolist()

    def errors(self) -> dict[int, str]:
        """Decode every image of a file or a stream to its end.

        Returns
        -------
        dict of int to str
            What is wrong with each that cannot be read, by its index.
        """
        return self.image_set.errors()

    def digests(self) -> np.ndarray:
        """Digest the contents of each image, whatever it is called and wherever it is.

        Returns
        -------
        array of bytes
            16 hexadecimal digits an image: of the contents of its file or record, or of its shape
            and pixels in memory. Computed once; files and streams are read for it.

        Raises
        ------
        ValueError
            For a file that cannot be read, or a stream of more or fewer images than labels.

        Examples
        --------
        >>> import numpy as np
        >>> from keras_resnet import data
        >>> data.Split(np.zeros((1, 8, 8, 3), "uint8"), [0]).digests()
        array([b'6362591a7249b146'], dtype='|S16')
        """
        found = self.image_set.digests()
        if len(found) != len(self):
            raise ValueError(
                f"images and labels must be of one length: {len(found)} images, {len(self)} labels."
            )
        return found

    def take(self, indices: np.ndarray) -> "Split":
        """Choose some of the images.

        Parameters
        ----------
        indices : int array
            Which ones; a stream keeps its own order.

        Returns
        -------
        Split
        """
        images, indices = self.image_set.take(np.arange(len(self))[indices])
        groups = None if self.groups is None else np.asarray(self.groups)[indices]
        return Split(images, self.labels[indices], groups=groups)

    def joined(self, other: "Split") -> "Split":
        """Append other images.

        Parameters
        ----------
        other : Split
            The others, of the same kind.

        Returns
        -------
        Split

        Raises
        ------
        ValueError
            If one split has arrays and the other files or a stream.
        """
        if self.image_set.kind != other.image_set.kind:
            raise ValueError(
                f"a split of {self.image_set.kind} cannot be joined with one of "
                f"{other.image_set.kind}."
            )
        boxes = self.labels.ndim == other.labels.ndim == 3
        join = LABELS["detection"].joined if boxes else np.concatenate
        labels = join([self.labels, other.labels])
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = np.concatenate([self.groups, other.groups])
        return Split(self.image_set.joined(other.image_set), labels, groups=groups)


@dataclass(frozen=True)
class Source:
    """A labelled data set, split three ways.

    Parameters
    ----------
    name : str
        What to call it.
    class_names : tuple of str
        Names of the classes, labels or numbers, in the order of the labels.
    channels : int
        Channels of an image.
    image_size : int
        Side in pixels that suits the images best, if nobody asks for another.
    augmentation : str
        The augmentation that suits them, a key of `AUGMENTATIONS`.
    train, validation, test : Split
        The splits, all in arrays, all in files or all in streams. Every class is in the first; of
        boxes, as far as there are some.
    skipped : tuple of str
        Everything that was seen and is not used, a line each, "'path': reason". See
        `keras_resnet.data.skipped.summary`.
    task : {"classification", "multilabel", "regression", "detection"}, default "classification"
        What the labels are: the class of an image, the labels that it has, numbers, or boxes.
    notes : tuple of str
        What one should know about the data before training on it, a line each.
    loaded : dict, optional
        The arguments of `load` that it comes from.

    Raises
    ------
    ValueError
        For splits that do not fit the names, the channels, the task or each other.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    augmentation: str
    train: Split
    validation: Split
    test: Split
    skipped: tuple[str, ...] = field(default=(), repr=False)
    task: Task = field(default="classification", kw_only=True)
    notes: tuple[str, ...] = field(default=(), repr=False, kw_only=True)
    loaded: dict[str, Any] | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self):
        check_choice(LABELS, task=self.task)
        check_range("count", channels=self.channels)
        object.__setattr__(self, "class_names", self._checked_names())
        first = None
        for name, split in self.splits.items():
            object.__setattr__(self, name, self._checked(name, split))
            if len(split):
                first = first or (name, split.image_set.kind)
                if split.image_set.kind != first[1]:
                    raise ValueError(
                        f"source {self.name!r}: {first[0]} holds {first[1]}, {name} "
                        f"{split.image_set.kind}; all splits must be of one kind."
                    )
        for class_name, count in zip(self.class_names, self.counts()["train"], strict=True):
            if not count and LABELS[self.task].in_train:
                noun, labels = LABELS[self.task].noun, self.train.labels
                one = self.task == "classification" and labels.size and labels.min() > 0
                hint = f"; labels begin with {labels.min()}, not with 0" if one else ""
                raise ValueError(
                    f"source {self.name!r}: train has no image of {noun} {class_name!r}{hint}."
                )

    def _checked_names(self):
        """The names in the spelling in which they are compared."""
        names = tuple(map(label, self.class_names))
        try:
            check_labels(names)
        except ValueError as error:
            raise ValueError(f"source {self.name!r}: {error}") from error
        if len(names) > len(set(names)):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            noun = LABELS[self.task].noun
            raise ValueError(f"source {self.name!r}: the {noun} {twice!r} is there twice.")
        return names

    def _checked(self, name, split):
        """A split with the labels of the task."""
        shape = split.image_set.shape
        if len(split) and shape and shape[2] != self.channels:
            raise ValueError(
                f"source {self.name!r}, {name}: images of {shape[2]} channels, but channels="
                f"{self.channels}; arrays have the shape (images, height, width, channels)."
            )
        try:
            labels = LABELS[self.task].checked(split.labels, self.class_names)
            if self.task == "detection" and shape:
                check_inside(labels, *shape[:2])
        except ValueError as error:
            raise ValueError(f"source {self.name!r}, {name}: {error}") from error
        if labels is split.labels:
            return split
        return Split(split.image_set, labels, groups=split.groups)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    def counts(self) -> dict[str, list[int]]:
        """Count the images of every class or label.

        Returns
        -------
        dict of str to list of int
            For every split, in the order of `class_names`; for numbers, all images of the split;
            for boxes, the boxes of every class that are not ignored.
        """
        counts, names = LABELS[self.task].counts, len(self.class_names)
        return {name: counts(split.labels, names).tolist() for name, split in self.splits.items()}

    def class_weight(self) -> dict[int, float]:
        """Weight classes, or labels, equally in training, for `fit(class_weight=...)`.

        Returns
        -------
        dict of int to float
            For every class what `sklearn.utils.compute_class_weight` calls "balanced".

        Raises
        ------
        ValueError
            For a regression, which has no classes.

        Examples
        --------
        >>> from keras_resnet import data
        >>> weights = data.load("digits").class_weight()
        >>> 0.9 < min(weights.values()) <= 1 <= max(weights.values()) < 1.1
        True
        """
        if self.task == "regression":
            raise ValueError(f"source {self.name!r} has numbers for labels, not classes to weight.")
        counts = np.array(self.counts()["train"], float)
        return dict(enumerate(map(float, counts.sum() / (len(counts) * counts))))

    def fingerprint(self) -> str:
        """Digest the data: two sources of one fingerprint are the same.

        Returns
        -------
        str
            Of the names of the classes, all labels in their order, and the contents of the images,
            wherever they are.
        """

        def parts():
            # Runs from before there were tasks go on.
            yield "" if self.task == "classification" else self.task
            yield json.dumps(self.class_names)
            for split in self.splits.values():
                yield np.ascontiguousarray(split.labels)
                yield from split.image_set.identity()

        return f"{self.train.image_set.scheme}{digest(parts())}"

    def with_all_to_train(self) -> "Source":
        """Train on the validation images too, with none left to validate.

        Returns
        -------
        Source

        Examples
        --------
        >>> from keras_resnet import data
        >>> digits = data.load("digits").with_all_to_train()
        >>> len(digits.train), len(digits.validation)
        (1438, 0)
        """
        nothing = self.validation.take(np.array([], int))
        return replace(self, train=self.train.joined(self.validation), validation=nothing)

    @property
    def imbalance(self) -> float:
        """How many times more training images the largest class has than the smallest."""
        counts = [count for count in self.counts()["train"] if count]
        return max(counts, default=1) / min(counts, default=1)


def joined(splits: Iterable[Split]) -> Split:
    """Put splits together, one after the other.

    Parameters
    ----------
    splits : iterable of Split
        At least one, all of one kind except for empty ones.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        As `Split.joined` does.
    """
    splits = [*splits]
    return functools.reduce(Split.joined, [each for each in splits if len(each)] or splits[:1])


def why_others(former: object, now: object) -> str:
    """Say why a source has another fingerprint than that of an earlier run.

    Parameters
    ----------
    former, now : object
        The fingerprints, as `Source.fingerprint` returned them.

    Returns
    -------
    str
        Words to follow "fingerprint was ..., is ...".

    Examples
    --------
    >>> from keras_resnet.data.source import why_others
    >>> why_others("contents-348d5136aef77177", "contents-0123456789abcdef")
    'the images, labels or classes have changed'
    """
    if f"{now}".rpartition("-")[0] == f"{former}".rpartition("-")[0]:
        return "the images, labels or classes have changed"
    return (
        "an earlier version wrote it, which knew images by name and split them differently, so it "
        "cannot be told whether they are the same"
    )


def suggestion(sizes: Sequence[tuple[int, int]], task: Task = "classification") -> dict[str, Any]:
    """Suggest how to show images, given their sizes.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Height and width of the images, or of many of them.
    task : str, default "classification"
        What their labels are for.

    Returns
    -------
    dict
        `image_size` and `augmentation`, as in `Source`: the median of the shorter sides if that of
        the longer ones is at most `SMALL`, and 224 otherwise.

    Examples
    --------
    >>> from keras_resnet.data.source import suggestion
    >>> suggestion([(32, 32)] * 10)
    {'image_size': 32, 'augmentation': 'small photograph'}
    """
    shorter, longer = np.median(np.sort(np.reshape(sizes, (-1, 2)), axis=1), axis=0)
    small = longer <= SMALL
    augmentation = "small photograph" if small else "photograph"
    if task != "classification":  # a window of an image may miss some of what it is labelled with
        augmentation = "mirrored"
    return {"image_size": int(shorter) if small else 224, "augmentation": augmentation}


def numbered(where: str, splits: Sequence[Split]) -> tuple[str, ...]:
    """Name classes by their numbers.

    Parameters
    ----------
    where : str
        Where the labels are, for errors.
    splits : sequence of Split
        Splits with labels of classes.

    Returns
    -------
    tuple of str
        "0" to the highest label.

    Raises
    ------
    ValueError
        If there are fewer images than that, so that some class has none.
    """
    images, highest = sum(map(len, splits)), max(int(each.labels.max(initial=0)) for each in splits)
    if images and highest >= images:
        raise ValueError(
            f"{where}: label {highest}, but only {images} images. Labels are the numbers of "
            "classes, counted from 0, each of which has images."
        )
    return tuple(map(str, range(highest + 1)))


def source_of(train: Split, validation: Split) -> Source:
    """Make a source of two splits, whose labels tell the task.

    Parameters
    ----------
    train, validation : Split
        The images to train on, and to validate on.

    Returns
    -------
    Source
        Without test images. Classes are named by their numbers.

    Raises
    ------
    ValueError
        As `Source` does.

    Examples
    --------
    >>> from keras_resnet import data
    >>> from keras_resnet.data.source import source_of
    >>> digits = data.load("digits")
    >>> source_of(digits.train, digits.validation).class_names == digits.class_names
    True
    """
    task, shape = task_of(train.labels), train.image_set.shape
    if task == "classification":
        class_names = numbered("splits", [train, validation])
    elif task == "detection":
        highest = max(split.labels[..., CLASS].max(initial=0) for split in (train, validation))
        class_names = tuple(map(str, range(int(highest) + 1)))
    elif train.labels.ndim == 1:
        class_names = ("value",)
    else:
        class_names = tuple(map(str, range(train.labels.shape[1])))
    height, width, channels = shape or (224, 224, 3)
    size = max(height, width)  # that of arrays may be that of the model
    suggested = suggestion([(height, width)], task)["augmentation"]
    return Source(
        name="split",
        class_names=class_names,
        channels=channels,
        image_size=size,
        # As searches of earlier versions did, which went by the size alone.
        augmentation="small photograph" if size <= SMALL else suggested,
        train=train,
        validation=validation,
        test=validation.take(np.array([], int)),
        task=task,
    )
