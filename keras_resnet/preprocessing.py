"""Images as the nets expect them, outside of a model."""

from typing import Any, Literal

from keras_resnet.layers import Preprocessing


def preprocess_input(x: Any, mode: Literal["torch", "caffe", "tf"] = "torch") -> Any:
    """Normalize raw images for a net built without `include_preprocessing`.

    Parameters
    ----------
    x : array or tensor of shape (..., height, width, channels)
        RGB images with values of 0 to 255, of any dtype.
    mode : {"torch", "caffe", "tf"}, default "torch"
        What the net's weights were trained with: "torch" subtracts the ImageNet mean and divides
        by its standard deviation; "caffe" turns RGB to BGR and subtracts the mean; "tf" scales to
        -1 ... 1.

    Returns
    -------
    tensor of the shape of `x`, float32

    Raises
    ------
    ValueError
        For an unknown mode, or images that are not RGB where the mode needs them to be.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import preprocess_input
    >>> white = preprocess_input(np.full((1, 1, 1, 3), 255))
    >>> [f"{channel:.3f}" for channel in np.ravel(white)]
    ['2.249', '2.429', '2.640']
    """
    return Preprocessing(mode)(x)
