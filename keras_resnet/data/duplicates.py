"""Images that occur more than once: in two splits, or under different labels."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from keras_resnet.data.labels import LABELS


def duplicates(
    splits: Mapping[str, Any], class_names: tuple[str, ...], task: str = "classification"
) -> tuple[str, ...]:
    """Say what a user should know about equal images.

    Parameters
    ----------
    splits : mapping of str to Split
        The splits by name.
    class_names : tuple of str
        Names of the classes, labels or numbers.
    task : str, default "classification"
        A key of `LABELS`.

    Returns
    -------
    tuple of str
        A line for every two splits that have images in common, and one if there are images with
        different labels. An image that occurs twice in one split under one label is not mentioned.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.data import Split
    >>> from keras_resnet.data.duplicates import duplicates
    >>> images = np.arange(12, dtype="uint8").reshape(3, 2, 2, 1)
    >>> splits = {"train": Split(images, [0, 1, 0]), "test": Split(images[1:2], [1])}
    >>> duplicates(splits, ("cat", "dog"))
    ("1 of 1 test images also in train: '0' is '1'.",)
    """
    notes = []
    for (first, images), (second, others) in combinations(splits.items(), 2):
        common = np.flatnonzero(np.isin(others.digests(), images.digests()))
        if len(common):
            same = np.flatnonzero(images.digests() == others.digests()[common[0]])
            notes.append(
                f"{len(common)} of {len(others)} {second} images also in {first}: "
                f"{_name(others, common[0])} is {_name(images, same[0])}."
            )
    return (*notes, *_contradictions(splits, class_names, task))


def _contradictions(splits, class_names, task):
    """A line about images that have different labels, if there are any."""
    kind = LABELS[task]
    digests = np.concatenate([split.digests() for split in splits.values()])
    labels = kind.joined([split.labels for split in splits.values()])
    _, which, count = np.unique(digests, return_inverse=True, return_counts=True)
    several = count[which] > 1
    _, label = np.unique(labels[several], axis=0, return_inverse=True)
    kinds = np.unique(np.stack([which[several], label.reshape(-1)], axis=1), axis=0)
    torn = np.flatnonzero(np.bincount(kinds[:, 0]) > 1)
    if len(torn):
        places = [(split, index) for split in splits.values() for index in range(len(split))]
        of_first = np.flatnonzero(which == torn[0])
        differs = next(index for index in of_first if (labels[index] != labels[of_first[0]]).any())
        shown = kind.shown or kind.written
        written = [
            f"{_name(*places[i])} ({shown(labels[i], class_names)})" for i in (of_first[0], differs)
        ]
        yield (
            f"{len(torn)} {'image has' if len(torn) == 1 else 'images have'} different labels: "
            f"{' is '.join(written)}."
        )


def _name(split, index):
    """What to call an image of a split."""
    return repr(split.image_set.names()[index])
