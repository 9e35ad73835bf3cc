"""Residual blocks: functions from tensor to tensor.

Convolution without bias -> BatchNormalization -> ReLU, with an Add for the shortcut, all padded as
PyTorch pads, so that weights and outputs carry over. A block named `conv2_block1` names its layers
`conv2_block1_1_conv`, `conv2_block1_1_bn`, ..., `conv2_block1_out`, as `keras.applications` does.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal, get_args

import keras

from keras_resnet.checks import check_data_format, check_positive
from keras_resnet.initialization import _kernels_to_be_loaded, draw_he_normal
from keras_resnet.layers import BatchNormalization, Conv2D, GroupedConv2D, ZeroPaddedShortcut

EXPANSION = 4
"""Channels that leave a bottleneck block for every one of its `filters`."""


_ONEDNN_BLOCK = 16  # channels that its kernels take at once with AVX-512


Shortcut = Literal["A", "B", "C", None]


StridePlace = Literal["3x3", "1x1"]


SHORTCUTS = get_args(Shortcut)


STRIDE_PLACES = get_args(StridePlace)


def basic_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    zero_init_residual: bool = False,
    name: str,
) -> keras.KerasTensor:
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18, ResNet-34 and the CIFAR nets.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features that enter the block.
    filters : int
        Channels of both convolutions, and of the result.
    strides : int, default 1
        Stride of the first convolution and of the shortcut.
    shortcut : {"A", "B", "C", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where the shape changes;
        "C": projection always; None: no shortcut, a plain block.
    zero_init_residual : bool, default False
        Start the last BatchNormalization at gamma = 0, so that the block starts as its shortcut.
    name : str
        Prefix of the layers' names.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, filters)

    Raises
    ------
    ValueError
        For an unknown `shortcut`, numbers below 1, or `zero_init_residual` without a shortcut.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, figure 5 left.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import basic_block
    >>> x = keras.Input((32, 32, 16))
    >>> basic_block(x, 32, strides=2, name="conv3_block1").shape
    (None, 16, 16, 32)
    """
    filters, strides = _checked(filters, strides, shortcut, zero_init_residual)
    residual = convolution(x, filters, 3, strides, name=f"{name}_1")
    residual = activation(normalization(residual, name=f"{name}_1_bn"), name=f"{name}_1_relu")
    residual = convolution(residual, filters, 3, name=f"{name}_2")
    residual = normalization(residual, zero_init=zero_init_residual, name=f"{name}_2_bn")
    return _join(residual, x, strides, shortcut, name)


def bottleneck_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    stride_in: StridePlace = "3x3",
    cardinality: int = 1,
    base_width: int = 64,
    zero_init_residual: bool = False,
    name: str,
) -> keras.KerasTensor:
    """1x1, 3x3 and 1x1 convolution and a shortcut: the block of the deeper nets and of ResNeXt.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features that enter the block.
    filters : int
        Width of the stage; the 3x3 convolution has `filters * base_width / 64 * cardinality`
        channels, the result `4 * filters`.
    strides : int, default 1
        Stride of the block.
    shortcut : {"A", "B", "C", None}, default "B"
        As for `basic_block`.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution that carries the stride: the 3x3 (PyTorch, "v1.5") or the first 1x1 (the
        paper and keras.applications, "v1").
    cardinality : int, default 1
        Groups of the 3x3 convolution.
    base_width : int, default 64
        Channels a group in a stage of 64 filters: 64 for ResNet, 4 for ResNeXt 32x4d, 128 for
        Wide ResNet-2.
    zero_init_residual : bool, default False
        As for `basic_block`.
    name : str
        Prefix of the layers' names.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, 4 * filters)

    Raises
    ------
    ValueError
        For an unknown `shortcut` or `stride_in`, numbers below 1, `zero_init_residual` without a
        shortcut, or a `cardinality` that does not divide the width of the 3x3 convolution.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, figure 5 right.
    Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017, figure 3c.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import bottleneck_block
    >>> x = keras.Input((56, 56, 64))
    >>> bottleneck_block(x, 64, cardinality=32, base_width=4, name="conv2_block1").shape
    (None, 56, 56, 256)
    """
    filters, strides = _checked(filters, strides, shortcut, zero_init_residual)
    if stride_in not in STRIDE_PLACES:
        raise ValueError(f"stride_in={stride_in!r} must be '3x3' or '1x1'.")
    width = bottleneck_width(filters, cardinality, base_width)
    first, second = (strides, 1) if stride_in == "1x1" else (1, strides)
    residual = convolution(x, width, 1, first, name=f"{name}_1")
    residual = activation(normalization(residual, name=f"{name}_1_bn"), name=f"{name}_1_relu")
    residual = convolution(residual, width, 3, second, groups=cardinality, name=f"{name}_2")
    residual = activation(normalization(residual, name=f"{name}_2_bn"), name=f"{name}_2_relu")
    residual = convolution(residual, EXPANSION * filters, 1, name=f"{name}_3")
    residual = normalization(residual, zero_init=zero_init_residual, name=f"{name}_3_bn")
    return _join(residual, x, strides, shortcut, name)


def bottleneck_width(filters: int, cardinality: int, base_width: int) -> int:
    """Channels of a bottleneck block's 3x3 convolution: cardinality x channels a group.

    Parameters
    ----------
    filters, cardinality, base_width : int
        As for `bottleneck_block`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a number is below 1, or the groups would not be of whole channels.

    Examples
    --------
    >>> from keras_resnet.blocks import bottleneck_width
    >>> bottleneck_width(128, cardinality=32, base_width=4)
    256
    """
    check_positive(filters=filters, cardinality=cardinality, base_width=base_width)
    width = filters * base_width * cardinality / 64
    if width % cardinality:
        raise ValueError(
            f"cardinality={cardinality} does not divide the {width:g} channels of the 3x3 "
            f"convolution (filters={filters} x base_width={base_width} / 64 x cardinality): choose "
            "a base_width for which filters x base_width / 64 is a whole number."
        )
    return int(width)


def convolution(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    groups: int = 1,
    wants: Mapping[str, Any] | None = None,
    name: str,
) -> keras.KerasTensor:
    """Convolution without bias, He-initialized, with `kernel_size // 2` zeros around the image.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features to convolve.
    filters, kernel_size : int
        Channels of the result; height and width of the kernel, an odd number of pixels.
    strides, groups : int, default 1
        Stride in pixels; number of groups.
    wants : mapping, optional
        For the first convolution of a model: the arguments of `layers.Conv2D` that say which images
        the model wants to be shown.
    name : str
        The layers become `{name}_conv` and, where a stride needs one, `{name}_pad` or
        `{name}_subsample`.

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
        # The same pixels. oneDNN's filter gradient of a 1x1 convolution with a stride and fewer
        # channels writes behind its memory (https://github.com/uxlfoundation/oneDNN/issues/6035).
        x = keras.layers.AveragePooling2D(1, strides, name=f"{name}_subsample")(x)
        strides = 1
    # A fresh initializer for every layer: one instance draws the same numbers each time.
    he_normal = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    draw = functools.partial(draw_he_normal, seed=he_normal.seed)
    initializer = "zeros" if _kernels_to_be_loaded.get() else draw
    options = dict(padding=padding, use_bias=False, kernel_initializer=initializer)
    if groups > 1:
        layer = GroupedConv2D(
            filters, kernel_size, strides, groups=groups, name=f"{name}_conv", **options
        )
    else:
        kind = keras.layers.Conv2D if wants is None else Conv2D
        options.update(wants or {})
        layer = kind(filters, kernel_size, strides, name=f"{name}_conv", **options)
    x = layer(x)
    layer.kernel_initializer = he_normal
    return x


def normalization(x: keras.KerasTensor, *, zero_init: bool = False, name: str) -> keras.KerasTensor:
    """BatchNormalization with PyTorch's constants: epsilon 1e-5, momentum 0.9 (its 0.1).

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features to normalize.
    zero_init : bool, default False
        Whether gamma starts at 0 instead of 1.
    name : str
        Name of the layer.

    Returns
    -------
    tensor of the shape of `x`

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import normalization
    >>> normalization(keras.Input((8, 8, 16)), name="conv1_bn").shape
    (None, 8, 8, 16)
    """
    gamma = "zeros" if zero_init else "ones"
    return BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name)(x)


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


def _checked(filters, strides, shortcut, zero_init_residual):
    """The two numbers as Python's own, which Keras wants."""
    check_data_format()
    check_positive(filters=filters, strides=strides)
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut={shortcut!r} must be 'A', 'B', 'C' or None.")
    if shortcut is None and zero_init_residual:
        raise ValueError(
            "zero_init_residual=True needs a shortcut: without one, gamma = 0 lets no signal "
            "through. Use shortcut='A', 'B' or 'C'."
        )
    return int(filters), int(strides)


def _join(residual, x, strides, shortcut, name):
    """Add the shortcut of `x` to the residual, and rectify."""
    if shortcut is not None:
        filters = residual.shape[-1]
        changed = strides > 1 or x.shape[-1] != filters
        if shortcut == "C" or (shortcut == "B" and changed):
            x = normalization(
                convolution(x, filters, 1, strides, name=f"{name}_0"), name=f"{name}_0_bn"
            )
        elif changed:
            x = ZeroPaddedShortcut(filters, strides, name=f"{name}_0_shortcut")(x)
        residual = keras.layers.Add(name=f"{name}_add")([x, residual])
    return activation(residual, name=f"{name}_out")
