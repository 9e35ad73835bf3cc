"""A data set looked over, before anything is trained on it."""

import hashlib
from dataclasses import dataclass

import numpy as np

from keras_resnet.data import Source


@dataclass(frozen=True)
class Overview:
    """What there is in a data set.

    Parameters
    ----------
    name : str
        The data set.
    class_names : tuple of str
        Its classes.
    counts : dict of str to list of int
        For every split, the images of every class.
    imbalance : float
        How many times more training images the largest class has than the smallest.
    smallest, median, largest : tuple of (int, int)
        Width and height in pixels, the smallest and the largest by area.
    damaged : tuple of str
        What is wrong with every image that cannot be read.
    duplicates : list of list of str
        Images that are, byte for byte, in more than one split.
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


def overview(source: Source) -> Overview:
    """Look a data set over.

    Parameters
    ----------
    source : Source
        The data, loaded with `on_error="skip"` to learn of all damaged files.

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
    sizes, found, damaged = [], {}, [*source.skipped]
    for split_name, split in source.splits.items():
        for index, (name, contents, size) in enumerate(split.image_set.inspect()):
            if size is None:
                damaged.append(f"{split_name}: image {index} cannot be read.")
                continue
            digest = hashlib.blake2b(contents, digest_size=16).digest()
            label = name or f"image {index}"
            found.setdefault(digest, []).append((split_name, f"{split_name}: {label}"))
            sizes.append(size)
    sizes = np.array(sizes)
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    small, middle, large = (
        tuple(map(int, sizes[order[rank]])) for rank in (0, len(order) // 2, -1)
    )
    return Overview(
        name=source.name,
        class_names=source.class_names,
        counts={
            name: split.counts(len(source.class_names)) for name, split in source.splits.items()
        },
        imbalance=source.imbalance,
        smallest=small,
        median=middle,
        largest=large,
        damaged=tuple(damaged),
        duplicates=[
            [label for _, label in group]
            for group in found.values()
            if len({split_name for split_name, _ in group}) > 1
        ],
    )
