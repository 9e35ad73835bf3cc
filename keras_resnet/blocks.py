"""Residual blocks: functions from tensor to tensor, and the table of their kinds.

Convolution without bias -> BatchNormalization -> ReLU, with an Add for the shortcut, all padded as
PyTorch pads, so that weights and outputs carry over. A block named `conv2_block1` names its layers
`conv2_block1_1_conv`, `conv2_block1_1_bn`, ..., `conv2_block1_out`, as `keras.applications` does.

A kind of block is a row of `KINDS`: the function that builds it, and the plan of its convolutions.
The function builds what its plan says, and whoever counts parameters or multiply-adds reads the
same plan. A new kind is a new row.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import keras

from keras_resnet.checks import check_choice, check_data_format, check_positive
from keras_resnet.initialization import he_normal, kernels_to_be_loaded
from keras_resnet.layers import BatchNormalization, GroupedConv2D, ZeroPaddedShortcut

__all__ = [
    "EXPANSION",
    "KINDS",
    "SHORTCUTS",
    "STRIDE_PLACES",
    "Convolution",
    "Kind",
    "Plan",
    "Shortcut",
    "StridePlace",
    "activation",
    "basic_block",
    "basic_plan",
    "bottleneck_block",
    "bottleneck_plan",
    "bottleneck_width",
    "check_shortcut",
    "convolution",
    "kernels_to_be_loaded",
    "normalization",
]

Shortcut = Literal["A", "B", "C", None]
StridePlace = Literal["3x3", "1x1"]

SHORTCUTS = get_args(Shortcut)
STRIDE_PLACES = get_args(StridePlace)

EXPANSION = 4
"""Output channels of a bottleneck block for each of its `filters`."""

_ONEDNN_BLOCK = 16  # channels that its kernels take at once with AVX-512


class Convolution(NamedTuple):
    """A convolution in a plan, followed by a BatchNormalization.

    Parameters
    ----------
    name : str
        What the names of its layers begin with, such as "conv2_block1_1".
    inputs, outputs : int
        Channels.
    kernel_size : int
        Pixels, in height and width.
    strides, groups : int, default 1
        Stride in pixels; number of groups.
    reduction : int, default 1
        How many times smaller its outputs are than the images that the plan is for, rounded up.
    """

    name: str
    inputs: int
    outputs: int
    kernel_size: int
    strides: int = 1
    groups: int = 1
    reduction: int = 1

    @property
    def weights(self) -> int:
        """Numbers in the kernel."""
        return self.kernel_size**2 * (self.inputs // self.groups) * self.outputs

    @property
    def parameters(self) -> int:
        """Trainable parameters, those of the BatchNormalization included."""
        return self.weights + 2 * self.outputs

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image of a height and width."""
        return self.weights * -(-height // self.reduction) * -(-width // self.reduction)


class Plan(NamedTuple):
    """The convolutions of a residual block.

    Parameters
    ----------
    residual : tuple of Convolution
        Those on the main path, in order.
    projection : Convolution, optional
        The one on the shortcut.
    """

    residual: tuple[Convolution, ...]
    projection: Convolution | None = None


def basic_block(
    x: keras.KerasTensor,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    zero_init_residual: bool = False,
    name: str,
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
    plan = basic_plan(x.shape[-1], filters, strides, shortcut=shortcut, name=name)
    return _built(plan, x, shortcut, zero_init_residual, name)


def basic_plan(
    inputs: int, filters: int, strides: int = 1, *, shortcut: Shortcut = "B", name: str
) -> Plan:
    """The convolutions of a `basic_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import basic_plan
    >>> plan = basic_plan(16, 32, strides=2, name="conv3_block1")
    >>> [each.name for each in plan.residual], plan.projection.strides
    (['conv3_block1_1', 'conv3_block1_2'], 2)
    """
    residual = (
        Convolution(f"{name}_1", inputs, filters, 3, strides, reduction=strides),
        Convolution(f"{name}_2", filters, filters, 3, reduction=strides),
    )
    return Plan(residual, _projection(inputs, filters, strides, shortcut, name))


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
    shortcut : {"A", "B", "C", None}, default "B"
        As for `basic_block`.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution that carries the stride: the 3x3 (PyTorch, "v1.5") or the first 1x1 (the
        paper and keras.applications, "v1").
    cardinality : int, default 1
        Groups of the 3x3 convolution.
    base_width : int, default 64
        Channels per group in a stage of 64 filters: 64 for ResNet, 4 for ResNeXt 32x4d, 128 for
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
    plan = bottleneck_plan(
        x.shape[-1],
        filters,
        strides,
        shortcut=shortcut,
        stride_in=stride_in,
        cardinality=cardinality,
        base_width=base_width,
        name=name,
    )
    return _built(plan, x, shortcut, zero_init_residual, name)


def bottleneck_plan(
    inputs: int,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    stride_in: StridePlace = "3x3",
    cardinality: int = 1,
    base_width: int = 64,
    name: str,
) -> Plan:
    """The convolutions of a `bottleneck_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import bottleneck_plan
    >>> plan = bottleneck_plan(64, 64, cardinality=32, base_width=4, name="conv2_block1")
    >>> [(each.outputs, each.kernel_size, each.groups) for each in plan.residual]
    [(128, 1, 1), (128, 3, 32), (256, 1, 1)]
    """
    check_choice(STRIDE_PLACES, stride_in=stride_in)
    width, outputs = bottleneck_width(filters, cardinality, base_width), EXPANSION * filters
    first, second = (strides, 1) if stride_in == "1x1" else (1, strides)
    residual = (
        Convolution(f"{name}_1", inputs, width, 1, first, reduction=first),
        Convolution(f"{name}_2", width, width, 3, second, int(cardinality), reduction=strides),
        Convolution(f"{name}_3", width, outputs, 1, reduction=strides),
    )
    return Plan(residual, _projection(inputs, outputs, strides, shortcut, name))


@dataclass(frozen=True)
class Kind:
    """A kind of residual block.

    Parameters
    ----------
    build : callable
        `build(x, filters, strides, shortcut=..., zero_init_residual=..., name=..., **options)`
        returns the features that leave the block.
    plan : callable
        `plan(inputs, filters, strides, shortcut=..., name=..., **options)` returns the `Plan` of
        the convolutions that `build` makes.
    expansion : int, default 1
        Output channels for each of the `filters`.
    options : tuple of str, default ()
        Options of `build` and `plan` that not every kind has.
    """

    build: Callable[..., keras.KerasTensor]
    plan: Callable[..., Plan]
    expansion: int = 1
    options: tuple[str, ...] = ()


KINDS = {
    "bottleneck": Kind(
        bottleneck_block,
        bottleneck_plan,
        expansion=EXPANSION,
        options=("stride_in", "cardinality", "base_width"),
    ),
    "basic": Kind(basic_block, basic_plan),
}
"""The kinds of residual blocks, by the name that `keras_resnet.ResNet` takes as `block`."""


def bottleneck_width(filters: int, cardinality: int, base_width: int) -> int:
    """Channels of a bottleneck block's 3x3 convolution: cardinality x channels per group.

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
        If a number is below 1, or a group would not have a whole number of channels.

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
    name: str,
    layer: Callable[..., keras.layers.Layer] = keras.layers.Conv2D,
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
    name : str
        The layers become `{name}_conv` and, where a stride needs one, `{name}_pad` or
        `{name}_subsample`.
    layer : callable, default keras.layers.Conv2D
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
    initialization = he_normal()
    made = layer(
        filters,
        kernel_size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=initialization.draw,
        name=f"{name}_conv",
    )
    x = made(x)
    made.kernel_initializer = initialization.saved
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


def check_shortcut(shortcut: Shortcut, zero_init_residual: bool) -> None:
    """Raise ValueError for an unknown shortcut, or a residual of zeros without one."""
    check_choice(SHORTCUTS, shortcut=shortcut)
    if shortcut is None and zero_init_residual:
        raise ValueError(
            "zero_init_residual=True needs a shortcut: without one, gamma = 0 lets no signal "
            "through. Use shortcut='A', 'B' or 'C'."
        )


def _checked(filters, strides, shortcut, zero_init_residual):
    """The two numbers as Python's own, which Keras wants."""
    check_data_format()
    check_positive(filters=filters, strides=strides)
    check_shortcut(shortcut, zero_init_residual)
    return int(filters), int(strides)


def _projection(inputs, outputs, strides, shortcut, name):
    """The convolution on the shortcut, where there is one."""
    changes = strides > 1 or inputs != outputs
    if shortcut == "C" or (shortcut == "B" and changes):
        return Convolution(f"{name}_0", inputs, outputs, 1, strides, reduction=strides)
    return None


def _built(plan, x, shortcut, zero_init_residual, name):
    """Build a block: normalize after each convolution, rectify between them and after the sum."""
    *first, last = plan.residual
    residual = x
    for each in first:
        residual = normalization(_convolved(residual, each), name=f"{each.name}_bn")
        residual = activation(residual, name=f"{each.name}_relu")
    residual = _convolved(residual, last)
    residual = normalization(residual, zero_init=zero_init_residual, name=f"{last.name}_bn")
    if shortcut is not None:
        if plan.projection:
            x = normalization(_convolved(x, plan.projection), name=f"{plan.projection.name}_bn")
        elif last.reduction > 1 or x.shape[-1] != last.outputs:
            x = ZeroPaddedShortcut(last.outputs, last.reduction, name=f"{name}_0_shortcut")(x)
        residual = keras.layers.Add(name=f"{name}_add")([x, residual])
    return activation(residual, name=f"{name}_out")


def _convolved(x, planned):
    """Build a planned convolution."""
    return convolution(
        x,
        planned.outputs,
        planned.kernel_size,
        planned.strides,
        groups=planned.groups,
        name=planned.name,
    )
