"""How the pipeline gets at the images of a split, wherever they are."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_resnet.data.headers import orientation
from keras_resnet.data.images import decode, decode_window, read_headers
from keras_resnet.data.sources import Split

_SHUFFLE_BUFFER = 10_000  # of a stream; everything else is shuffled whole
_GRAPH_SEED = 87654321  # what TensorFlow takes where nobody sets one


@dataclass(frozen=True)
class Reader:
    """Access to the images of a split. What an element is, its functions know.

    Parameters
    ----------
    elements : callable
        Makes a dataset of all (element, label): in order, or, given a seed, in the order of that.
    whole : callable
        The image of an element: uint8 of shape (height, width, channels).
    window : callable
        The part of an element's image that a function chooses: given (height, width), it returns
        (top, left, height, width). A third argument says how many pixels a side are enough.
    """

    elements: Callable
    whole: Callable
    window: Callable


def reader(split: Split, channels: int) -> Reader:
    """Access to a split.

    Parameters
    ----------
    split : Split
        The split.
    channels : {1, 3}
        Channels that files are decoded to.

    Returns
    -------
    Reader

    Raises
    ------
    ValueError
        For the first file that is no image.
    """
    if isinstance(split.images, tf.data.Dataset):
        return _stream(split, channels)
    if isinstance(split.images, np.ndarray):
        with tf.device("CPU:0"):  # where the pipeline reads; an accelerator has no room for them
            images = tf.constant(split.images)
        return by_index(split.labels, lambda index: tf.gather(images, index))
    return _files(split, channels)


def by_index(labels: np.ndarray, whole: Callable) -> Reader:
    """Access to images that have numbers.

    Parameters
    ----------
    labels : int array of shape (images,)
        Their labels.
    whole : callable
        Gets the image of a number.

    Returns
    -------
    Reader
    """
    return Reader(_indices(labels), whole, lambda index, choose, _: _cut(whole(index), choose))


def _indices(labels):
    labels, count = tf.constant(labels, "int64"), len(labels)

    def elements(seed=None):
        order = tf.data.Dataset.range(count)
        if seed is not None:
            # A permutation that needs no memory, and no history: the seed alone makes it. Of a key,
            # the lowest bits alone count: a seed that is none itself would give 256 orders.
            seed = tf.stack((tf.cast(seed, "int64"), 0))
            key = tf.random.stateless_uniform((2,), seed, None, None, "int32")
            shuffled = tf.random.experimental.index_shuffle
            order = order.map(lambda index: shuffled(index, key, count - 1))
        return order.map(lambda index: (index, tf.gather(labels, index)))

    return elements


def _files(split, channels):
    headers = read_headers(split.images)
    for header in headers:
        if isinstance(header, ValueError):
            raise header
    paths = tf.constant([os.fspath(file) for file in split.images])
    orientations = tf.constant([header.orientation for header in headers])
    quick = tf.constant([header.quick for header in headers])

    def arguments(index):
        return (
            tf.io.read_file(tf.gather(paths, index)),
            tf.gather(orientations, index),
            tf.gather(quick, index),
        )

    return Reader(
        _indices(split.labels),
        lambda index: decode(*arguments(index), channels=channels),
        lambda index, choose, at_least: decode_window(
            *arguments(index), choose, channels, at_least
        ),
    )


def _stream(split, channels):
    labels = tf.constant(split.labels, "int64")

    def elements(seed=None):
        pairs = (split.images, tf.data.Dataset.from_tensor_slices(labels))
        pairs = tf.data.Dataset.zip(pairs)
        if seed is None:
            return pairs
        # The order would also depend on tf.random.set_seed, which takes a 0 as a reason to compare
        # the tensor that the seed is. This is the graph of an epoch; nothing else is drawn in it.
        tf.compat.v1.get_default_graph().seed = _GRAPH_SEED
        return pairs.shuffle(_SHUFFLE_BUFFER, seed=seed)

    return Reader(
        elements,
        lambda each: decode(each, orientation(each), channels=channels),
        lambda each, choose, at_least: decode_window(
            each, orientation(each), True, choose, channels, at_least
        ),
    )


def _cut(image, choose):
    top, left, height, width = tf.unstack(choose(tf.shape(image)[:2]))
    return image[top : top + height, left : left + width]
