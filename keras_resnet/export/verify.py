"""Exported models compared with the ones they come from."""

import os
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Verification:
    """How an exported model's outputs compare with the original's.

    Parameters
    ----------
    images : int
        Images compared.
    largest_difference : float
        Largest absolute difference of any output.
    agreement : float
        Fraction of the images for which both choose the same class.
    """

    images: int
    largest_difference: float
    agreement: float


def verify(
    path: str | os.PathLike,
    model: keras.Model,
    images: np.ndarray,
    tolerance: float = 1e-4,
) -> Verification:
    """Load a SavedModel back and compare it with the model in memory.

    Parameters
    ----------
    path : path
        The SavedModel's folder.
    model : keras.Model
        The model that it was made of.
    images : array of shape (images, height, width, channels)
        Images to compare on.
    tolerance : float, default 1e-4
        Largest absolute difference of an output that is accepted.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the difference is larger.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_resnet.export.saved_model(net, os.path.join(folder, "1"))
    ...     keras_resnet.export.verify(path, net, np.zeros((2, 32, 32, 3), "float32")).agreement
    1.0
    """
    serve = tf.saved_model.load(os.fspath(path)).signatures["serving_default"]
    ((argument, spec),) = serve.structured_input_signature[1].items()
    (exported,) = serve(**{argument: tf.cast(images, spec.dtype)}).values()
    original = model.predict(images, verbose=0)
    difference = np.abs(exported.numpy() - original)
    result = Verification(
        images=len(images),
        largest_difference=float(difference.max()),
        agreement=float(np.mean(exported.numpy().argmax(-1) == original.argmax(-1))),
    )
    if not result.largest_difference <= tolerance:
        raise ValueError(
            f"{os.fspath(path)!r} differs from {model.name} by {result.largest_difference:.2g}, "
            f"tolerance={tolerance:.2g}."
        )
    return result
