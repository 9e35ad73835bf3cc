"""Batches of images of their own sizes and the boxes in them, ready for a detector."""

import os

import numpy as np
import tensorflow as tf

from keras_resnet.data import boxes
from keras_resnet.data.cache import cached
from keras_resnet.data.pipeline import checked_sizes, one_after_another
from keras_resnet.data.source import Split
from keras_resnet.detection.augmentation import Augmentation, policy_of, varied


def batches(
    split: Split,
    *,
    batch_size: int = 2,
    augmentation: str | Augmentation | None = None,
    seed: int = 0,
    epochs: range | None = None,
    first_step: int = 0,
    cache: str | os.PathLike | None = None,
    shard: tuple[int, int] = (1, 0),
    replicas: int = 1,
    at_least: int = 0,
    channels: int = 3,
) -> tf.data.Dataset:
    """Turn a split into batches for a detector.

    Images keep their sizes. Those of a batch are padded with zeros, to the right and below, to the
    largest height and the largest width among them.

    Parameters
    ----------
    split : Split
        Images and the boxes in them: labels of shape (images, rows, 6), as in
        `keras_resnet.data.boxes`.
    batch_size : int, default 2
        Images per batch; the last one may be smaller.
    augmentation : str or Augmentation, optional
        A key of `AUGMENTATIONS`, or a policy: shuffle and augment the images anew every epoch.
        Default: the images unchanged and in order.
    seed : int, default 0
        Seed of shuffling and augmentation. The order and variation of an epoch depend only on the
        seed and the number of the epoch, not on the number of threads.
    epochs, first_step : range, int, optional
        As in `keras_resnet.data.batches`.
    cache : "memory" or path, optional
        Keep decoded images, in their sizes and in whole numbers, in memory or in a file of this
        folder that later runs find again. Default: decode every time.
    shard, replicas, at_least : tuple of (int, int), int, int, optional
        As in `keras_resnet.data.batches`. Each part of a batch is padded by itself.
    channels : int, default 3
        1 reads files as grey images. Arrays must have so many.

    Returns
    -------
    tf.data.Dataset
        Of (inputs, labels), two dicts. The inputs of a detector are

        - `images`: float32 of shape (batch, height, width, channels), from 0 to 255;
        - `sizes`: int32 of shape (batch, 2), the height and width of each image.

        The labels, whose rows are those of the split, are

        - `boxes`: float32 of shape (batch, rows, 4), x1, y1, x2, y2 in pixels of `images`;
        - `classes`: int32 of shape (batch, rows), -1 where there is no box;
        - `ignored`: bool of shape (batch, rows), True for boxes that are not trained on;
        - `seeds`: int32 of shape (batch, 2), the seed of the epoch and the position of the image
          in it, from which all other random choices of training follow.

    Raises
    ------
    ValueError
        For labels that are not boxes; an empty split, or one of fewer images than devices; an
        unknown augmentation; an argument out of its range; a file that is no image; or a cache
        that cannot be written, of which nothing is left behind.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import data, detection
    >>> images = np.zeros((3, 60, 80, 3), "uint8")
    >>> rows = data.boxes.padded([[(10, 10, 30, 20, 0, 0)], [(0, 0, 80, 60, 1, 0)], []])
    >>> split = data.Split(images, rows)
    >>> inputs, labels = next(iter(detection.batches(split)))
    >>> inputs["images"].shape, labels["classes"].numpy().tolist()
    (TensorShape([2, 60, 80, 3]), [[0], [1]])
    """
    policy = policy_of(augmentation)
    split = _with_rows(split)
    sizes = checked_sizes(split, batch_size, shard, replicas, at_least, first_step)
    parts, part = shard
    images = split.image_set.reader(split.labels, channels)
    if cache is not None:
        images = cached(images, split, images.whole, ("whole", channels), cache)

    def epoch(epoch_seed, first_step):
        """One pass over the images."""
        dataset = images.elements(epoch_seed) if policy else images.elements()
        dataset = dataset.enumerate().shard(parts, part).skip(first_step * batch_size)

        def load(position, pair):
            element, rows = pair
            seeds = tf.stack((tf.cast(epoch_seed, "int64"), position))
            image = images.whole(element)
            if policy:
                image, rows = varied(policy, image, rows, seeds)
            return _inputs(image), _labels(rows, seeds)

        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return _padded(dataset, sizes[first_step * replicas :])

    if policy is None:
        dataset = one_after_another(epoch, len(sizes), seed, range(1))
    else:
        dataset = one_after_another(epoch, len(sizes), seed, epochs, first_step, replicas)
    # Last, so that batches that wait take up a quarter of the memory.
    return dataset.map(lambda inputs, labels: (_in_float(inputs), labels))


def _with_rows(split):
    """A split of labels that are boxes, with at least one row for each image."""
    shape = split.labels.shape
    if len(shape) != 3 or shape[2] != boxes.COLUMNS:
        raise ValueError(
            f"split has labels of shape {shape}; those of boxes have the shape (images, rows, "
            f"{boxes.COLUMNS}): x1, y1, x2, y2, class (-1: no box), ignored."
        )
    return split if shape[1] else Split(split.image_set, boxes.padded(split.labels))


def _inputs(image):
    """An image as a detector takes it, still in whole numbers."""
    return {"images": image, "sizes": tf.shape(image)[:2]}


def _labels(rows, seeds):
    """What there is in an image, from its rows of six numbers."""
    return {
        "boxes": rows[:, :4],
        "classes": tf.cast(rows[:, boxes.CLASS], "int32"),
        "ignored": rows[:, boxes.IGNORED] > 0,
        "seeds": tf.cast(seeds, "int32"),
    }


def _padded(dataset, sizes):
    """Batches of the given sizes, padded to the largest image of each."""
    sizes = np.array(sizes, "int64")
    ends, largest = np.cumsum(sizes), sizes.max(initial=1)
    shapes = tf.nest.map_structure(lambda spec: spec.shape, dataset.element_spec)
    # Of any size, even if all have the same: what is traced for one split is for all.
    shapes[0]["images"] = (None, None, shapes[0]["images"][-1])
    # `padded_batch` alone cannot make some larger than others.
    return dataset.enumerate().group_by_window(
        key_func=lambda index, _: tf.searchsorted(ends, index[None], "right", "int64")[0],
        reduce_func=lambda _, images: images.map(lambda _, each: each).padded_batch(
            largest, shapes
        ),
        window_size_func=lambda batch: tf.gather(sizes, batch),
    )


def _in_float(inputs):
    """Images as float32, from 0 to 255."""
    return inputs | {"images": tf.cast(inputs["images"], "float32")}
