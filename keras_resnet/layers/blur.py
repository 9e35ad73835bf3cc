"""Subsampling without aliasing."""

import keras
from keras import ops

from keras_resnet.checks import check_positive
from keras_resnet.layers.devices import serializable


@serializable
class BlurPool2D(keras.layers.Layer):
    """Blur with a 3x3 binomial filter, and keep every `strides`-th pixel.

    The image is reflected at its border, which is not repeated. The layer has no weights.

    Parameters
    ----------
    strides : int, default 2
        Distance of the pixels that are kept, in both directions.
    **kwargs
        `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Raises
    ------
    ValueError
        For a stride below 1, or an image of fewer than two rows or columns, in which nothing can be
        reflected.

    Notes
    -----
    The filter (1, 2, 1) / 4 in both directions is the mean of 2x2 pixels, taken twice. Pooling has
    a fast gradient in every precision; that of a depthwise convolution takes four times as long in
    bfloat16 on a CPU.

    References
    ----------
    Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import BlurPool2D
    >>> image = np.zeros((1, 3, 3, 1), "float32")
    >>> image[0, 1, 1] = 16
    >>> np.asarray(BlurPool2D(strides=1)(image))[0, :, :, 0].tolist()
    [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """

    def __init__(self, strides=2, **kwargs):
        super().__init__(**kwargs)
        check_positive(strides=strides)
        self.strides = int(strides)

    def build(self, input_shape):
        small = [size for size in input_shape[1:3] if size is not None and size < 2]
        if small:
            raise ValueError(
                f"{self.name} cannot blur images of {input_shape[1]}x{input_shape[2]} pixels: "
                "reflection needs 2 rows and columns. Use larger images."
            )

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        kept = (None if size is None else -(-size // self.strides) for size in sizes)
        return (batch, *kept, channels)

    def call(self, inputs):
        x = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        for strides in (1, self.strides):
            x = ops.average_pool(x, 2, strides, data_format="channels_last")
        return x

    def get_config(self):
        return {**super().get_config(), "strides": self.strides}
