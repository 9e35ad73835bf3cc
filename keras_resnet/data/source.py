"""A labelled data set and its splits."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import decode, read_headers

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""The splits, and the names that their folders may have."""


SPLIT_OF = {alias: split for split, names in SPLITS.items() for alias in names}


_TEST, VALIDATION = 0.2, 0.15  # parts that are held out where nothing else is said


OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Split:
    """Images of one split, in memory, in files or in a stream.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, channels), list of path, or Dataset
        The images themselves, their files, or a `tf.data.Dataset` of the contents of image files.
    labels : int array of shape (images,)
        Index of each image's class.
    """

    images: np.ndarray | Sequence[Path] | tf.data.Dataset
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def counts(self, classes: int) -> list[int]:
        """Images of every class.

        Parameters
        ----------
        classes : int
            Classes there are.

        Returns
        -------
        list of int
        """
        return np.bincount(self.labels, minlength=classes).tolist()

    def errors(self) -> dict[int, str]:
        """Decode every image of a file or a stream to its end.

        Returns
        -------
        dict of int to str
            What is wrong with each that cannot be read, by its index.
        """
        if isinstance(self.images, np.ndarray):
            return {}
        if not isinstance(self.images, tf.data.Dataset):
            headers = enumerate(read_headers(self.images, whole=True))
            return {i: str(header) for i, header in headers if isinstance(header, ValueError)}
        found = {}
        for index, contents in enumerate(self.images):
            try:
                decode(contents)
            except tf.errors.InvalidArgumentError:
                found[index] = f"image {index} (counted from 0) cannot be read."
        return found

    def take(self, indices: np.ndarray) -> "Split":
        """Some of the images.

        Parameters
        ----------
        indices : int array
            Which ones; a stream keeps its own order.

        Returns
        -------
        Split
        """
        images = self.images
        if isinstance(images, tf.data.Dataset):
            kept = np.zeros(len(self), bool)
            kept[indices] = True
            some = images.enumerate().filter(lambda index, _: tf.gather(kept, index))
            return Split(some.map(lambda _, image: image), self.labels[kept])
        if isinstance(images, np.ndarray):
            return Split(images[indices], self.labels[indices])
        return Split([images[index] for index in indices], self.labels[indices])

    def joined(self, other: "Split") -> "Split":
        """These images and others behind them.

        Parameters
        ----------
        other : Split
            The others, of the same kind.

        Returns
        -------
        Split
        """
        labels = np.concatenate([self.labels, other.labels])
        if isinstance(self.images, tf.data.Dataset):
            return Split(self.images.concatenate(other.images), labels)
        if isinstance(self.images, np.ndarray):
            return Split(np.concatenate([self.images, other.images]), labels)
        return Split([*self.images, *other.images], labels)


@dataclass(frozen=True)
class Source:
    """A labelled data set, split three ways.

    Parameters
    ----------
    name : str
        What to call it.
    class_names : tuple of str
        Names of the classes, in the order of the labels.
    channels : int
        Channels of an image.
    image_size : int
        Side in pixels that suits the images best, if nobody asks for another.
    augmentation : str
        The augmentation that suits them, a key of `AUGMENTATIONS`.
    train, validation, test : Split
        The splits, with every class in each.
    skipped : tuple of str
        What was wrong with each file that was left out.
    task : {"classification", "multilabel", "regression"}, default "classification"
        What the labels are: one class of each image, any number of them, or a number.
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
    task: Literal["classification", "multilabel", "regression"] = "classification"

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    def class_weight(self) -> dict[int, float]:
        """Weights that make all classes count alike in training, for `fit(class_weight=...)`.

        Returns
        -------
        dict of int to float
            For every class what `sklearn.utils.compute_class_weight` calls "balanced".

        Examples
        --------
        >>> from keras_resnet import data
        >>> weights = data.load("digits").class_weight()
        >>> 0.9 < min(weights.values()) <= 1 <= max(weights.values()) < 1.1
        True
        """
        from sklearn.utils import compute_class_weight

        classes = np.arange(len(self.class_names))
        weights = compute_class_weight("balanced", classes=classes, y=self.train.labels)
        return dict(enumerate(map(float, weights)))

    def fingerprint(self) -> str:
        """A digest of what tells whether two sources are the same.

        Returns
        -------
        str
            Of the names of the classes, all labels in their order, and the images: their pixels
            where they are in memory, the names of their files, and nothing of a stream.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split in self.splits.values():
            digest.update(np.asarray(split.labels, "int64").tobytes())
            if isinstance(split.images, np.ndarray):
                digest.update(np.ascontiguousarray(split.images))
            elif not isinstance(split.images, tf.data.Dataset):
                names = ("/".join(Path(file).parts[-2:]) for file in split.images)
                digest.update("\n".join(names).encode())
        return digest.hexdigest()[:16]

    def with_all_to_train(self) -> "Source":
        """The same data with the validation images among those to train on, and none to validate.

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
        counts = self.train.counts(len(self.class_names))
        return max(counts) / min(counts)


def check_classes(path, class_names, expected):
    """Raise ValueError for fewer than two classes."""
    if len(class_names) < 2:
        found = (
            f"{class_names[0]!r} is the only class in it"
            if class_names
            else "no folders of images in it"
        )
        raise ValueError(
            f"data {str(path)!r}: {found}. Expected {expected}, with two classes or more."
        )


def check_counts(path, class_names, splits, but=""):
    """Raise ValueError for a class without images in a split."""
    for split, images in splits.items():
        for class_name, count in zip(class_names, images.counts(len(class_names)), strict=True):
            if not count:
                raise ValueError(
                    f"data {str(path)!r}: no images of {class_name!r} for {split}{but}. Expected "
                    "every class in every split."
                )


def complete(found, class_names, seed, validation):
    """Make the splits that are missing out of the training images."""
    splits = dict(found)
    random = np.random.default_rng(seed)
    for name, share in (("test", _TEST), ("validation", validation)):
        if name in splits:
            continue
        train = splits["train"]
        if not share:
            splits[name] = train.take(np.array([], int))
            continue
        held_out = []
        for label, class_name in enumerate(class_names):
            members = random.permutation(np.flatnonzero(train.labels == label))
            count = max(1, round(share * len(members)))
            if len(members) <= count:
                raise ValueError(
                    f"class {class_name!r} has too few images to split: add some, at least 3 are "
                    "needed."
                )
            held_out.append(members[:count])
        held_out = np.sort(np.concatenate(held_out))
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name] = train.take(held_out)
        splits["train"] = train.take(kept)
    return splits
