"""Convolutions with standardized weights."""

from keras import ops

from keras_resnet.checks import check_range
from keras_resnet.layers.convolution import Conv2D
from keras_resnet.layers.devices import gains_from_xla, serializable


@serializable
class StandardizedConv2D(Conv2D):
    """Convolution whose kernel has mean 0 and variance 1 in each of its filters.

    The variable `kernel` is what training changes; `standardized_kernel()` is what convolves. It is
    computed in float32 whatever the precision of the model.

    Parameters
    ----------
    *args
        Those of `keras.layers.Conv2D`.
    epsilon : float, default 1e-8
        Added to the variance; the default is that of Big Transfer.
    **kwargs
        Those of `Conv2D`. `groups` must be 1.

    Raises
    ------
    ValueError
        For groups, a negative epsilon, or as `Conv2D` does.

    References
    ----------
    Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    2019. Kolesnikov et al., Big Transfer (BiT), ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import StandardizedConv2D
    >>> layer = StandardizedConv2D(8, 3)
    >>> layer.build((None, 32, 32, 16))
    >>> kernel = np.asarray(layer.standardized_kernel())
    >>> kernel.shape, np.allclose(kernel.std((0, 1, 2)), 1, atol=1e-3)
    ((3, 3, 16, 8), True)
    """

    def __init__(self, *args, epsilon=1e-8, **kwargs):
        super().__init__(*args, **kwargs)
        if self.groups > 1:
            raise ValueError(f"groups={self.groups}: {type(self).__name__} has no groups, use 1.")
        check_range("nonnegative", epsilon=epsilon)
        self.epsilon = epsilon
        self.supports_jit = gains_from_xla()

    def add_weight(self, *args, name=None, **kwargs):
        if name == "kernel":
            # In half precision, its mean and variance would lose most of their digits.
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def standardized_kernel(self):
        """The kernel that convolves: of mean 0 and variance 1 in each of its filters.

        Returns
        -------
        tensor of the shape of `kernel`, float32
        """
        mean, variance = ops.moments(self.kernel, (0, 1, 2), keepdims=True)
        return (self.kernel - mean) * ops.rsqrt(variance + self.epsilon)

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, ops.cast(self.standardized_kernel(), inputs.dtype))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
