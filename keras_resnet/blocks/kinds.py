"""Residual blocks: functions from tensor to tensor, and the table of their kinds.

A block named `conv2_block1` names its layers `conv2_block1_1_conv`, `conv2_block1_1_bn`, ...,
`conv2_block1_out`, as `keras.applications` does.

A kind of block is a row of `KINDS`: the function that builds it, and the plan of its convolutions.
The function builds what its plan says, and whoever counts parameters or multiply-adds reads the
same plan. A new kind is a new row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
from typing_extensions import Unpack

from keras_resnet.blocks.parts import activation, attention, convolved, normalized, subsampled
from keras_resnet.blocks.plans import (
    EXPANSION,
    Plan,
    basic_plan,
    basic_preactivation_plan,
    bottleneck_plan,
    preactivation_plan,
)
from keras_resnet.blocks.style import AllDetails, Details, Shortcut, StridePlace, Style
from keras_resnet.checks import check_data_format, check_positive, check_range
from keras_resnet.layers import ZeroPaddedShortcut


def basic_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    zero_init_residual: bool = False,
    name: str,
    drop_path: float = 0.0,
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[Details],
) -> keras.KerasTensor:
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18, ResNet-34 and the CIFAR models.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features that enter the block.
    filters : int
        Channels of both convolutions, and of the result.
    strides : int, default 1
        Stride of the first convolution and of the shortcut.
    shortcut : {"A", "B", "C", "D", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where the shape changes;
        "C": projection always; "D": as "B", with average pooling instead of a stride; None: no
        shortcut, a plain block.
    zero_init_residual : bool, default False
        Start the last BatchNormalization at gamma = 0, so that the block starts as its shortcut.
    name : str
        Prefix of the layers' names.
    drop_path : float, default 0.0
        Fraction of the images, in training, for which the block is its shortcut.
    dilation, first_dilation : int, default 1
        Distance of the pixels that 3x3 kernels take; that of the first of them, if it differs.
    **details
        `attention`, `anti_aliasing`, `norm`, ...: fields of `Style`.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, filters)

    Raises
    ------
    ValueError
        For an option out of its range, or `zero_init_residual` without a shortcut.

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
    given = dict(details, shortcut=shortcut, zero_init_residual=zero_init_residual)
    dilations = dict(dilation=dilation, first_dilation=first_dilation)
    return _block(basic_plan, x, filters, strides, name, drop_path, dilations, given)


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
    drop_path: float = 0.0,
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[Details],
) -> keras.KerasTensor:
    """1x1, 3x3 and 1x1 convolution and a shortcut: the block of deeper models and of ResNeXt.

    Parameters
    ----------
    x : tensor of shape (batch, height, width, channels)
        Features that enter the block.
    filters : int
        Width of the stage; the 3x3 convolution has `filters * base_width / 64 * cardinality`
        channels, the result `4 * filters`.
    strides : int, default 1
        Stride of the block.
    shortcut : {"A", "B", "C", "D", None}, default "B"
        As for `basic_block`.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution that carries the stride: the 3x3 (PyTorch, "v1.5") or the first 1x1 (the
        paper and keras.applications, "v1").
    cardinality : int, default 1
        Groups of the 3x3 convolution.
    base_width : int, default 64
        Channels per group in a stage of 64 filters: 64 for ResNet, 4 for ResNeXt 32x4d, 128 for
        Wide ResNet-2.
    zero_init_residual, name, drop_path, dilation, first_dilation, **details
        As for `basic_block`.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, 4 * filters)

    Raises
    ------
    ValueError
        For an option out of its range, `zero_init_residual` without a shortcut, or a `cardinality`
        that does not divide the width of the 3x3 convolution.

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
    given = dict(
        details,
        shortcut=shortcut,
        zero_init_residual=zero_init_residual,
        stride_in=stride_in,
        cardinality=cardinality,
        base_width=base_width,
    )
    dilations = dict(dilation=dilation, first_dilation=first_dilation)
    return _block(bottleneck_plan, x, filters, strides, name, drop_path, dilations, given)


def preactivation_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    drop_path: float = 0.0,
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[AllDetails],
) -> keras.KerasTensor:
    """Build a bottleneck block that normalizes and rectifies before each convolution ("v2").

    Nothing follows the sum: a model of such blocks normalizes and rectifies once more at its end.

    Parameters
    ----------
    x, filters, strides, name, drop_path, dilation, first_dilation
        As for `bottleneck_block`.
    **details
        Fields of `Style`.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, 4 * filters)

    Raises
    ------
    ValueError
        As `bottleneck_block` does.

    References
    ----------
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import preactivation_block
    >>> preactivation_block(keras.Input((56, 56, 64)), 64, name="conv2_block1").shape
    (None, 56, 56, 256)
    """
    dilations = dict(dilation=dilation, first_dilation=first_dilation)
    plan = preactivation_plan
    return _block(plan, x, filters, strides, name, drop_path, dilations, details, before=True)


def basic_preactivation_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    name: str,
    drop_path: float = 0.0,
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[AllDetails],
) -> keras.KerasTensor:
    """Build a basic block that normalizes and rectifies before each convolution ("v2").

    Parameters
    ----------
    x, filters, strides, name, drop_path, dilation, first_dilation
        As for `basic_block`.
    **details
        Fields of `Style`.

    Returns
    -------
    tensor of shape (batch, height / strides, width / strides, filters)

    Raises
    ------
    ValueError
        As `basic_block` does.

    References
    ----------
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.blocks import basic_preactivation_block
    >>> basic_preactivation_block(keras.Input((32, 32, 16)), 16, name="conv2_block1").shape
    (None, 32, 32, 16)
    """
    dilations = dict(dilation=dilation, first_dilation=first_dilation)
    plan = basic_preactivation_plan
    return _block(plan, x, filters, strides, name, drop_path, dilations, details, before=True)


@dataclass(frozen=True)
class Kind:
    """A kind of residual block.

    Parameters
    ----------
    build : callable
        `build(x, filters, strides, name=..., drop_path=..., dilation=..., first_dilation=...,
        **details)` returns the features that leave the block.
    plan : callable
        `plan(inputs, filters, strides, name=..., dilation=..., first_dilation=..., **details)`
        returns the `Plan` of the convolutions that `build` makes.
    expansion : int, default 1
        Output channels for each of the `filters`.
    options : tuple of str, default ()
        Fields of `Style` that not every kind has.
    preactivation : bool, default False
        Whether normalization and activation come before each convolution.
    """

    build: Callable[..., keras.KerasTensor]
    plan: Callable[..., Plan]
    expansion: int = 1
    options: tuple[str, ...] = ()
    preactivation: bool = False


_BOTTLENECK = ("stride_in", "cardinality", "base_width")
_PREACTIVATION = ("biases", "stride_block")

KINDS = {
    "bottleneck": Kind(bottleneck_block, bottleneck_plan, EXPANSION, _BOTTLENECK),
    "basic": Kind(basic_block, basic_plan),
    "preactivation": Kind(
        preactivation_block,
        preactivation_plan,
        EXPANSION,
        (*_BOTTLENECK, *_PREACTIVATION),
        preactivation=True,
    ),
    "basic_preactivation": Kind(
        basic_preactivation_block,
        basic_preactivation_plan,
        options=_PREACTIVATION,
        preactivation=True,
    ),
}
"""The kinds of residual blocks, by the name that `keras_resnet.ResNet` takes as `block`."""

OF_KINDS = tuple(dict.fromkeys(option for kind in KINDS.values() for option in kind.options))
"""The fields of `Style` that only some kinds have."""


def _block(plan, x, filters, strides, name, drop_path, dilations, details, *, before=False):
    """Check the options of a block, plan it and build it."""
    check_data_format()
    check_positive(filters=filters, strides=strides, dilation=dilations["dilation"])
    check_range("decay", drop_path=drop_path)
    style = Style(**details)
    # Keras wants Python's own whole numbers, NumPy users have theirs.
    planned = plan(x.shape[-1], int(filters), int(strides), name=name, **dilations, **details)
    build = _before if before else _after
    residual, shortcut = build(planned, x, style, name)
    residual = attention(residual, planned.attention, name=name)
    if drop_path:
        drop = keras.layers.Dropout(drop_path, (None, 1, 1, 1), name=f"{name}_drop")
        residual = drop(residual)
        if planned.projection:
            # Keras orders layers by their distance from the output, and files of weights by that:
            # with both paths longer by one layer, they fit models with and without drop path.
            shortcut = keras.layers.Identity(name=f"{name}_0_kept")(shortcut)
    if before:
        if style.shortcut is None:
            return keras.layers.Identity(name=f"{name}_out")(residual)
        return keras.layers.Add(name=f"{name}_out")([shortcut, residual])
    if style.shortcut is not None:
        residual = keras.layers.Add(name=f"{name}_add")([shortcut, residual])
    return activation(residual, name=f"{name}_out")


def _after(plan, x, style, name):
    """Both paths of a block with normalization and activation after each convolution."""
    *first, last = plan.residual
    residual = x
    for each in first:
        residual = _activated(convolved(residual, each, style=style), each, style)
    residual = convolved(residual, last, style=style)
    residual = normalized(residual, last.name, style=style, zero_init=style.zero_init_residual)
    shortcut = _shortcut(plan, x, x, style, name)
    if plan.projection:
        shortcut = normalized(shortcut, plan.projection.name, style=style)
    return residual, shortcut


def _before(plan, x, style, name):
    """Both paths of a block with normalization and activation before each convolution."""
    *first, last = plan.residual
    activated = normalized(x, f"{name}_preact", style=style)
    activated = residual = activation(activated, name=f"{name}_preact_relu")
    for each in first:
        residual = _activated(convolved(residual, each, style=style), each, style)
    residual = convolved(residual, last, style=style, zero_init=style.zero_init_residual)
    return residual, _shortcut(plan, x, activated, style, name)


def _activated(x, planned, style):
    """What follows a convolution that is not the last one."""
    x = normalized(x, planned.name, style=style)
    x = activation(x, name=f"{planned.name}_relu")
    if planned.subsampling:
        x = subsampled(x, planned.subsampling, style.anti_aliasing, name=f"{planned.name}_blur")
    return x


def _shortcut(plan, x, projected, style, name):
    """The shortcut from what enters a block, or what a projection takes of it."""
    last = plan.residual[-1]
    if plan.pooling:
        padding = "same"
        if plan.pooling == 1:
            # Without a stride, timm counts the zeros beyond the border.
            projected = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_0_pad")(
                projected
            )
            padding = "valid"
        projected = keras.layers.AveragePooling2D(
            2, plan.pooling, padding=padding, name=f"{name}_0_pool"
        )(projected)
    if plan.projection:
        return convolved(projected, plan.projection, style=style)
    if style.shortcut and (last.reduction > 1 or x.shape[-1] != last.outputs):
        return ZeroPaddedShortcut(last.outputs, last.reduction, name=f"{name}_0_shortcut")(x)
    return x
