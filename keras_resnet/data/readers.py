"""Access to the images of a split, for the input pipeline."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Reader:
    """Access to the images of a split through elements, which only its functions understand.

    Parameters
    ----------
    elements : callable
        Makes a dataset of all (element, label): in order, or, given a seed, shuffled by it.
    whole : callable
        Returns the image of an element: uint8 of shape (height, width, channels).
    window : callable
        Returns a window of an element's image. Its second argument is a function that takes
        (height, width) and returns (top, left, height, width); its third the number of pixels a
        side that are enough.
    """

    elements: Callable
    whole: Callable
    window: Callable


def by_index(labels: np.ndarray, whole: Callable, window: Callable | None = None) -> Reader:
    """Access to images by number.

    Parameters
    ----------
    labels : array of shape (images,) or (images, labels)
        Their labels.
    whole : callable
        Returns the image of a number.
    window : callable, optional
        As in `Reader`. Default: cut the window out of the whole image.

    Returns
    -------
    Reader
    """
    return Reader(
        _indices(labels),
        whole,
        window or (lambda index, choose, _: cut(whole(index), choose)),
    )


def _indices(labels):
    """Datasets of (index, label)."""
    labels, count = tf.constant(labels), len(labels)

    def elements(seed=None):
        order = tf.data.Dataset.range(count)
        if seed is not None:
            # A permutation that needs no memory and depends on the seed alone. Only the lowest
            # bits of a key count, so the seed itself as a key would give only 256 orders.
            seed = tf.stack((tf.cast(seed, "int64"), 0))
            key = tf.random.stateless_uniform((2,), seed, None, None, "int32")
            shuffled = tf.random.experimental.index_shuffle
            order = order.map(lambda index: shuffled(index, key, count - 1))
        return order.map(lambda index: (index, tf.gather(labels, index)))

    return elements


def cut(image: tf.Tensor, choose: Callable) -> tf.Tensor:
    """Cut a window out of an image.

    Parameters
    ----------
    image : tensor of shape (height, width, channels)
        The image.
    choose : callable
        Returns the window, (top, left, height, width), for a size (height, width).

    Returns
    -------
    tensor
    """
    top, left, height, width = tf.unstack(choose(tf.shape(image)[:2]))
    return image[top : top + height, left : left + width]
