"""Values that are to be predicted: their mean and spread, and their shape."""

import numpy as np
import tensorflow as tf

from keras_resnet.data import Source

# What squares and sums may have, and the step of float32 in standard deviations.
_LARGEST, _COARSEST = 1e30, 0.01


def moments(source: Source) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the training values.

    Parameters
    ----------
    source : Source
        Data of a regression.

    Returns
    -------
    mean, spread : list of float
        One of each per output.

    Raises
    ------
    ValueError
        For values that are all the same, or that float32 cannot tell apart.
    """
    values = np.asarray(source.train.labels, "float64").reshape(len(source.train), -1)
    spread = values.std(0)
    if not (spread > 0).all():
        raise ValueError(
            f"data {source.name!r}: all training images have the same value, so there is nothing "
            "to learn. (Values are float32.)"
        )
    largest = np.abs(values).max(0)
    if largest.max() > _LARGEST or spread.min() < 1 / _LARGEST:
        raise ValueError(
            f"data {source.name!r}: training values up to {largest.max():g} that differ by about "
            f"{spread.min():g} are too large or too small to compute with in float32: give them in "
            "another unit."
        )
    if (np.spacing(largest.astype("float32")) > _COARSEST * spread).any():
        raise ValueError(
            f"data {source.name!r}: training values up to {largest.max():.10g} differ by about "
            f"{spread.min():g} only, too little for float32: subtract a constant from them."
        )
    return values.mean(0).tolist(), spread.tolist()


def in_rows(values: tf.Tensor) -> tf.Tensor:
    """Values as float32 of shape (images, outputs).

    Parameters
    ----------
    values : tensor of shape (images,) or (images, outputs)
        The values.

    Returns
    -------
    tensor of shape (images, outputs)
    """
    values = tf.cast(values, "float32")
    return values[:, None] if values.shape.rank == 1 else values
