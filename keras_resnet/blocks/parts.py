"""The parts of a block, from tensor to tensor: convolution, normalization, attention, subsampling.

All are padded as PyTorch pads, so that weights and outputs carry over.
"""

import functools
from collections.abc import Callable

import keras

from keras_resnet.blocks.plans import ChannelConvolution, Convolution
from keras_resnet.blocks.style import AntiAliasing, Norm
from keras_resnet.initialization import Initialization, he_normal
from keras_resnet.layers import (
    BatchNormalization,
    BlurPool2D,
    Conv2D,
    GroupedConv2D,
    StandardizedConv2D,
)

_ONEDNN_BLOCK = 16  # channels that its kernels take at once with AVX-512
_GROUPS = 32  # of GroupNormalization, as in its paper


def convolution(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
    zero_init: bool = False,
    name: str,
    layer: Callable[..., keras.layers.Layer] = Conv2D,
) -> keras.KerasTensor:
    """Convolution, He-initialized, with `kernel_size // 2` zeros around the image.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features to convolve.
    filters, kernel_size : int
        Channels of the result; height and width of the kernel, an odd number of pixels.
    strides, groups : int, default 1
        Stride in pixels; number of groups.
    dilation : int, default 1
        Distance of the pixels that the kernel takes; without a stride.
    bias : bool, default False
        Whether to add a bias.
    zero_init : bool, default False
        Whether the kernel starts at 0.
    name : str
        The layers become `{name}_conv` and, where a stride needs one, `{name}_pad` or
        `{name}_subsample`.
    layer : callable, default keras_resnet.layers.Conv2D
        Makes the layer of a convolution without groups, from the arguments of `Conv2D`.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, filters)

    References
    ----------
    He et al., Delving Deep into Rectifiers, ICCV 2015: normal with variance 2 / fan-out.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import convolution
    >>> convolution(keras.Input((224, 224, 3)), 64, 7, strides=2, name="conv1").shape
    (None, 112, 112, 64)
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:
        # "same" would pad one side more than the other. A layer of its own rather than explicit
        # padding inside the convolution, whose gradient oneDNN lacks.
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    elif strides > 1 and x.shape[-1] < _ONEDNN_BLOCK:
        # The same pixels. oneDNN's filter gradient of a strided 1x1 convolution with fewer channels
        # writes beyond its memory (https://github.com/uxlfoundation/oneDNN/issues/6035).
        x = keras.layers.AveragePooling2D(1, strides, name=f"{name}_subsample")(x)
        strides = 1
    if groups > 1:
        layer = functools.partial(GroupedConv2D, groups=groups)
    initialization = (
        Initialization("zeros", keras.initializers.Zeros()) if zero_init else he_normal()
    )
    made = layer(
        filters,
        kernel_size,
        strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=bias,
        kernel_initializer=initialization.draw,
        name=f"{name}_conv",
    )
    x = made(x)
    made.kernel_initializer = initialization.saved
    return x


def normalization(
    x: keras.KerasTensor, *, zero_init: bool = False, norm: Norm = "batch", name: str
) -> keras.KerasTensor:
    """Normalization with PyTorch's constants: epsilon 1e-5, momentum 0.9 (its 0.1).

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features to normalize.
    zero_init : bool, default False
        Whether gamma starts at 0 instead of 1.
    norm : {"batch", "group"}, default "batch"
        BatchNormalization, or GroupNormalization with 32 groups.
    name : str
        Name of the layer.

    Returns
    -------
    tensor of the shape of `x`

    Raises
    ------
    ValueError
        If the channels do not fill the groups.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import normalization
    >>> normalization(keras.Input((8, 8, 16)), name="conv1_bn").shape
    (None, 8, 8, 16)
    """
    gamma = "zeros" if zero_init else "ones"
    if norm == "batch":
        layer = BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name)
        return layer(x)
    if x.shape[-1] % _GROUPS:
        raise ValueError(
            f"norm={norm!r} takes channels in {_GROUPS} groups: {x.shape[-1]} channels of {name} "
            f"must be a multiple of {_GROUPS}."
        )
    layer = keras.layers.GroupNormalization(
        _GROUPS, epsilon=1e-5, gamma_initializer=gamma, name=name
    )
    return layer(x)


def activation(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """ReLU.

    Parameters
    ----------
    x : tensor
        Features.
    name : str
        Name of the layer.

    Returns
    -------
    tensor of the shape of `x`

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import activation
    >>> activation(keras.Input((8, 8, 16)), name="conv1_relu").shape
    (None, 8, 8, 16)
    """
    return keras.layers.Activation("relu", name=name)(x)


def normalized(x, name, *, style, zero_init=False):
    """Normalize the output of the layers called `name`, in a block's style."""
    ending = {"batch": "bn", "group": "gn"}[style.norm]
    return normalization(x, zero_init=zero_init, norm=style.norm, name=f"{name}_{ending}")


def convolved(
    x: keras.KerasTensor,
    planned: Convolution,
    *,
    style,
    zero_init: bool = False,
    layer: Callable[..., keras.layers.Layer] | None = None,
) -> keras.KerasTensor:
    """Build a planned convolution, in a block's style."""
    standard = StandardizedConv2D if style.weight_standardization else Conv2D
    return convolution(
        x,
        planned.outputs,
        planned.kernel_size,
        planned.strides,
        groups=planned.groups,
        dilation=planned.dilation,
        bias=planned.bias,
        zero_init=zero_init,
        name=planned.name,
        layer=layer or standard,
    )


def subsampled(
    x: keras.KerasTensor, strides: int, anti_aliasing: AntiAliasing, *, name: str
) -> keras.KerasTensor:
    """Subsample without aliases: averages of 2x2 pixels, or a blur.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features.
    strides : int
        Stride in pixels. With 1, averages are of single pixels.
    anti_aliasing : {"average", "blur"}
        How.
    name : str
        Name of the layer.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, channels)
    """
    if anti_aliasing == "blur":
        return BlurPool2D(strides, name=name)(x)
    if strides == 1:
        return x
    return keras.layers.AveragePooling2D(strides, padding="same", name=name)(x)


def attention(
    x: keras.KerasTensor, planned: tuple[Convolution | ChannelConvolution, ...], *, name: str
) -> keras.KerasTensor:
    """Weight the channels of features by what their means say.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features.
    planned : tuple of Convolution or ChannelConvolution
        Two convolutions for squeeze-and-excitation, one for efficient channel attention; none for
        no attention.
    name : str
        Name of the block.

    Returns
    -------
    tensor of the shape of `x`

    References
    ----------
    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    Wang et al., ECA-Net, CVPR 2020.
    """
    if not planned:
        return x
    if isinstance(planned[0], ChannelConvolution):
        kind, weights = "eca", _channel_convolution(x, planned[0])
    else:
        kind, weights = "se", _excitation(x, planned)
    activated = keras.layers.Activation("sigmoid", name=f"{planned[-1].name}_sigmoid")(weights)
    return keras.layers.Multiply(name=f"{name}_{kind}_scale")([x, activated])


def _excitation(x, planned):
    """Two layers on the means of channels."""
    squeeze, excite = planned
    block = squeeze.name.removesuffix("_1")
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{block}_pool")(x)
    x = convolution(x, squeeze.outputs, 1, bias=True, name=squeeze.name)
    x = activation(x, name=f"{squeeze.name}_relu")
    return convolution(x, excite.outputs, 1, bias=True, name=excite.name)


def _channel_convolution(x, planned):
    """A convolution along the means of channels."""
    x = keras.layers.GlobalAveragePooling2D(name=f"{planned.name}_pool")(x)
    x = keras.layers.Reshape((planned.channels, 1), name=f"{planned.name}_columns")(x)
    x = keras.layers.Conv1D(
        1, planned.kernel_size, padding="same", use_bias=False, name=f"{planned.name}_conv"
    )(x)
    return keras.layers.Reshape((1, 1, planned.channels), name=f"{planned.name}_channels")(x)
