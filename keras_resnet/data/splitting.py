"""How images are held out for validation and test.

Where an image goes depends on its own contents and a seed, and on nothing else: other images may be
added or removed, files renamed or moved, and it stays where it is. Equal images stay together.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from keras_resnet.checks import check_choice, check_range
from keras_resnet.data.image_sets import Arrays
from keras_resnet.data.labels import LABELS
from keras_resnet.data.source import Split

OnError = Literal["raise", "skip"]

VALIDATION = 0.15
"""Fraction of the training images that is held out for validation by default."""

TEST = 0.2
"""Fraction of the images that is held out for the test by default."""


@dataclass(frozen=True)
class SplitPolicy:
    """How a data set is split, and what happens to files that cannot be read.

    Parameters
    ----------
    seed, on_error, validation, test
        As in `load`.

    Raises
    ------
    ValueError
        For a value that is not allowed.

    Examples
    --------
    >>> from keras_resnet.data.splitting import SplitPolicy
    >>> SplitPolicy(validation=0.1)
    SplitPolicy(seed=0, on_error='raise', validation=0.1, test=0.2)
    """

    seed: int = 0
    on_error: OnError = "raise"
    validation: float = VALIDATION
    test: float = TEST

    def __post_init__(self):
        check_range("index", seed=self.seed)
        check_choice(("raise", "skip"), on_error=self.on_error)
        check_range("validation", validation=self.validation, test=self.test)


class Splits(TypedDict):
    """The three splits of a source."""

    train: Split
    validation: Split
    test: Split


def check_classes(
    where: str | os.PathLike, class_names: Sequence[str], expected: str, hint: str = ""
) -> None:
    """Raise ValueError for fewer than two classes, saying what layout was `expected`."""
    if len(class_names) < 2:
        found = (
            f"{class_names[0]!r} is the only class in it"
            if class_names
            else "no folders of images in it"
        )
        raise ValueError(
            f"data {str(where)!r}: {found}. Expected {expected}, with two classes or more.{hint}"
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
        The seed and the fractions.
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
    splits, random = dict(found), np.random.default_rng(policy.seed)
    fractions = {"test": policy.test, "validation": policy.validation}
    missing = [name for name in fractions if name not in found]
    parts = 1 + sum(fractions[name] > 0 for name in missing)  # that the images are split into
    for name in missing:
        train, fraction = splits["train"], fractions[name]
        if not fraction:
            held_out = np.zeros(len(train), bool)
        elif train.image_set.kind == Arrays.kind:
            held_out = _drawn(train, class_names, fraction, random)
        else:
            parts -= 1
            held_out = _by_contents(
                train, class_names, task, fraction, f"{policy.seed} {name} ", parts
            )
        splits[name] = train.take(np.flatnonzero(held_out))
        splits["train"] = train.take(np.flatnonzero(~held_out))
    return Splits(train=splits["train"], validation=splits["validation"], test=splits["test"])


def _by_contents(split, names, task, fraction, salt, others):
    """Hold out the images whose hashed contents, or groups, are below a threshold.

    Whatever the threshold, each class or label gives its lowest image, and keeps as many of its
    highest as there are `others`, splits that still need one.
    """
    kind = LABELS[task]
    what, keys = "images", split.digests()
    if split.groups is not None:
        what, keys = "groups of images", np.char.encode(split.groups, "utf-8", "surrogateescape")
    digests, which = np.unique(keys, return_inverse=True)
    hashes = [hashlib.sha256(salt.encode() + each).digest()[:8] for each in digests.tolist()]
    places = np.array([int.from_bytes(each, "big") for each in hashes]) / 2**64
    groups = [np.unique(which[group]) for group in kind.groups(split.labels, len(names))]
    groups = [group[np.argsort(places[group])] for group in groups]
    chosen = places < fraction
    for group in groups:
        chosen[group[:1]] = True
    for group in groups:
        chosen[group[len(group) - min(others, len(group)) :]] = False
    if not chosen.any():
        raise _too_few(f"{len(digests)} {what} are too few", others + 1)
    for name, group in zip(names, groups, strict=True):
        if kind.in_every_split and not chosen[group].any():
            raise _too_few(f"{kind.noun} {name!r} has too few {what}", others + 1)
    return chosen[which]


def _drawn(split, class_names, fraction, random):
    """Draw the same number of every class."""
    held_out = np.zeros(len(split), bool)
    for label, class_name in enumerate(class_names):
        members = random.permutation(np.flatnonzero(split.labels == label))
        count = max(1, round(fraction * len(members)))
        if len(members) <= count:
            raise _too_few(f"class {class_name!r} has too few images", 3)
        held_out[members[:count]] = True
    return held_out


def _too_few(what, needed):
    """An error about images that cannot be split."""
    return ValueError(f"{what} to split: add some, at least {needed} different ones are needed.")
