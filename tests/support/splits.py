"""Folders of images to split, and what must hold for their splits."""

import pathlib

import numpy as np
import PIL.Image
import tensorflow as tf


def make_images(folder, counts, seed=0):
    """Write `counts` random PNG files into a folder a class."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (9, 12, 3), "uint8")
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def contents(split):
    """The bytes of every image."""
    if isinstance(split.images, tf.data.Dataset):
        return list(split.images.as_numpy_iterator())
    return [pathlib.Path(file).read_bytes() for file in split.images]


def assert_is_split_whole(source, images, labels):
    """Every image is in one split, with its label, and every class in all of them.

    A split has about its fraction of the images, as each of them goes its own way.
    """
    expected = dict(zip(images, labels, strict=True))
    found = [
        (image, tuple(label) if isinstance(label, list) else label)
        for split in source.splits.values()
        for image, label in zip(contents(split), split.labels.tolist(), strict=True)
    ]
    assert len(found) == len(expected)
    assert dict(found) == expected
    if source.task == "classification":
        for split, fraction in ((source.test, 0.2), (source.validation, 0.8 * 0.15)):
            assert min(split.counts(len(source.class_names))) >= 1
            spread = (fraction * (1 - fraction) * len(labels)) ** 0.5
            assert abs(len(split) - fraction * len(labels)) <= 4 * spread
