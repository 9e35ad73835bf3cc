"""How images are held out for validation and test."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from keras_resnet.checks import check_choice, check_range
from keras_resnet.data.labels import LABELS
from keras_resnet.data.source import Split

OnError = Literal["raise", "skip"]

VALIDATION = 0.15
"""Fraction of the training images that is held out for validation by default."""

_TEST = 0.2  # fraction of the images that is held out for the test


@dataclass(frozen=True)
class SplitPolicy:
    """How a data set is split, and what happens to files that cannot be read.

    Parameters
    ----------
    seed, on_error, validation
        As in `load`.

    Raises
    ------
    ValueError
        For a value that is not allowed.

    Examples
    --------
    >>> from keras_resnet.data.splitting import SplitPolicy
    >>> SplitPolicy(validation=0.1)
    SplitPolicy(seed=0, on_error='raise', validation=0.1)
    """

    seed: int = 0
    on_error: OnError = "raise"
    validation: float = VALIDATION

    def __post_init__(self):
        check_range("index", seed=self.seed)
        check_choice(("raise", "skip"), on_error=self.on_error)
        check_range("validation", validation=self.validation)


class Splits(TypedDict):
    """The three splits of a source."""

    train: Split
    validation: Split
    test: Split


def check_classes(where: str | os.PathLike, class_names: Sequence[str], expected: str) -> None:
    """Raise ValueError for fewer than two classes, saying what layout was `expected`."""
    if len(class_names) < 2:
        found = (
            f"{class_names[0]!r} is the only class in it"
            if class_names
            else "no folders of images in it"
        )
        raise ValueError(
            f"data {str(where)!r}: {found}. Expected {expected}, with two classes or more."
        )


def check_counts(
    where: str | os.PathLike,
    class_names: Sequence[str],
    splits: dict[str, Split],
    task: str = "classification",
    but: str = "",
) -> None:
    """Raise ValueError for an empty split, and for a class without images in one."""
    kind = LABELS[task]
    for split, images in splits.items():
        if not len(images):
            raise ValueError(f"data {str(where)!r}: no images for {split}{but}.")
        if split != "train" and not kind.in_every_split:
            continue
        counts = kind.counts(images.labels, len(class_names))
        for class_name, count in zip(class_names, counts, strict=True):
            if not count:
                raise ValueError(
                    f"data {str(where)!r}: no images of {class_name!r} for {split}{but}. Expected "
                    f"every {kind.noun} in {'every split' if kind.in_every_split else 'train'}."
                )


def complete(
    found: dict[str, Split],
    class_names: tuple[str, ...],
    policy: SplitPolicy,
    task: str = "classification",
) -> Splits:
    """Make the splits that are missing out of the training images.

    Parameters
    ----------
    found : dict of str to Split
        The splits that there are, "train" among them.
    class_names : tuple of str
        The names of the classes, labels or numbers.
    policy : SplitPolicy
        Seed and fraction.
    task : str, default "classification"
        A key of `LABELS`.

    Returns
    -------
    Splits
        All three.

    Raises
    ------
    ValueError
        If there are too few images to split.
    """
    splits = dict(found)
    random = np.random.default_rng(policy.seed)
    for name, fraction in (("test", _TEST), ("validation", policy.validation)):
        if name in splits:
            continue
        train = splits["train"]
        if not fraction:
            splits[name] = train.take(np.array([], int))
            continue
        held_out = LABELS[task].held_out(train.labels, class_names, fraction, random)
        splits[name] = train.take(np.sort(held_out))
        splits["train"] = train.take(np.setdiff1d(np.arange(len(train)), held_out))
    return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"])
