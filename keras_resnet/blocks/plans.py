"""Plans: the convolutions of a block, before any layer is made.

The functions that build blocks follow them, and so does whoever counts parameters or multiply-adds.
"""

import math
from typing import NamedTuple

from typing_extensions import Unpack

from keras_resnet.blocks.style import PlanDetails, Shortcut, StridePlace, Style
from keras_resnet.checks import check_positive

EXPANSION = 4
"""Output channels of a bottleneck block for each of its `filters`."""

# Xie et al. 2017, table 2: bottleneck blocks of about equal complexity.
CARDINALITIES = {
    "1x64d": (1, 64),
    "2x40d": (2, 40),
    "4x24d": (4, 24),
    "8x14d": (8, 14),
    "32x4d": (32, 4),
}
"""Pairs of cardinality and base width, by name."""


class Convolution(NamedTuple):
    """A convolution in a plan, and the normalizations that belong to it.

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
        How many times smaller its outputs are than the images that the plan is for, rounded up;
        0 if they are a single pixel.
    dilation : int, default 1
        Distance of the pixels that the kernel takes.
    bias : bool, default False
        Whether it has a bias.
    normalized : int, optional
        Channels of the normalizations that belong to it. Default: as many as `outputs`.
    subsampling : int, optional
        Stride of the anti-aliasing that follows; None for none.
    """

    name: str
    inputs: int
    outputs: int
    kernel_size: int
    strides: int = 1
    groups: int = 1
    reduction: int = 1
    dilation: int = 1
    bias: bool = False
    normalized: int | None = None
    subsampling: int | None = None

    @property
    def weights(self) -> int:
        """Numbers in the kernel."""
        return self.kernel_size**2 * (self.inputs // self.groups) * self.outputs

    @property
    def parameters(self) -> int:
        """Trainable parameters, those of the normalizations included."""
        normalized = self.outputs if self.normalized is None else self.normalized
        return self.weights + self.bias * self.outputs + 2 * normalized

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image of a height and width."""
        if not self.reduction:
            return self.weights
        return self.weights * -(-height // self.reduction) * -(-width // self.reduction)


class ChannelConvolution(NamedTuple):
    """A convolution along the channels of a single pixel, without bias.

    Parameters
    ----------
    name : str
        What the names of its layers begin with.
    channels, kernel_size : int
        Channels; how many of them are taken at once.
    reduction : int, default 0
        As for `Convolution`: it has no pixels.
    """

    name: str
    channels: int
    kernel_size: int
    reduction: int = 0

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return self.kernel_size

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image."""
        return self.kernel_size * self.channels


class Plan(NamedTuple):
    """The convolutions of a residual block.

    Parameters
    ----------
    residual : tuple of Convolution
        Those on the main path, in order.
    projection : Convolution, optional
        The one on the shortcut.
    attention : tuple of Convolution or ChannelConvolution, default ()
        Those that weight channels before the sum.
    pooling : int, optional
        Stride of the average pooling before the projection; None for none.
    """

    residual: tuple[Convolution, ...]
    projection: Convolution | None = None
    attention: tuple[Convolution | ChannelConvolution, ...] = ()
    pooling: int | None = None

    @property
    def convolutions(self) -> tuple[Convolution | ChannelConvolution, ...]:
        """All of them: residual, attention, projection."""
        return (*self.residual, *self.attention, *filter(None, [self.projection]))


def basic_plan(
    inputs: int,
    filters: int,
    strides: int = 1,
    *,
    shortcut: Shortcut = "B",
    name: str,
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[PlanDetails],
) -> Plan:
    """Plan the convolutions of a `basic_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import basic_plan
    >>> plan = basic_plan(16, 32, strides=2, name="conv3_block1")
    >>> [each.name for each in plan.residual], plan.projection.strides
    (['conv3_block1_1', 'conv3_block1_2'], 2)
    """
    style = Style(shortcut=shortcut, **details)
    first = first_dilation or dilation
    residual = (
        *_strided(
            Convolution(
                f"{name}_1", inputs, filters, 3, strides, reduction=strides, dilation=first
            ),
            style,
            dilated=first != dilation,
        ),
        Convolution(f"{name}_2", filters, filters, 3, reduction=strides, dilation=dilation),
    )
    return _finished(residual, inputs, strides, dilation, style, name)


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
    dilation: int = 1,
    first_dilation: int | None = None,
    **details: Unpack[PlanDetails],
) -> Plan:
    """Plan the convolutions of a `bottleneck_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import bottleneck_plan
    >>> plan = bottleneck_plan(64, 64, cardinality=32, base_width=4, name="conv2_block1")
    >>> [(each.outputs, each.kernel_size, each.groups) for each in plan.residual]
    [(128, 1, 1), (128, 3, 32), (256, 1, 1)]
    """
    style = Style(
        shortcut=shortcut,
        stride_in=stride_in,
        cardinality=cardinality,
        base_width=base_width,
        **details,
    )
    width = bottleneck_width(filters, cardinality, base_width)
    first, second = (strides, 1) if stride_in == "1x1" else (1, strides)
    dilated = first_dilation or dilation
    residual = (
        *_strided(Convolution(f"{name}_1", inputs, width, 1, first, reduction=first), style),
        *_strided(
            Convolution(
                f"{name}_2",
                *(width, width, 3, second),
                groups=style.cardinality,
                reduction=strides,
                dilation=dilated,
            ),
            style,
            dilated=dilated != dilation,
        ),
        Convolution(f"{name}_3", width, EXPANSION * filters, 1, reduction=strides),
    )
    return _finished(residual, inputs, strides, dilation, style, name)


def preactivation_plan(
    inputs: int, filters: int, strides: int = 1, *, name: str, **options
) -> Plan:
    """Plan the convolutions of a `preactivation_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import preactivation_plan
    >>> plan = preactivation_plan(64, 64, name="conv2_block1")
    >>> [each.normalized for each in plan.residual]  # 64 before the first, 64 behind it
    [128, None, 0]
    """
    return _before(bottleneck_plan(inputs, filters, strides, name=name, **options), options)


def basic_preactivation_plan(
    inputs: int, filters: int, strides: int = 1, *, name: str, **options
) -> Plan:
    """Plan the convolutions of a `basic_preactivation_block` that `inputs` channels enter.

    Examples
    --------
    >>> from keras_resnet.blocks import basic_preactivation_plan
    >>> plan = basic_preactivation_plan(16, 32, strides=2, name="conv3_block1")
    >>> [each.normalized for each in plan.residual]  # 16 before the first
    [48, 0]
    """
    return _before(basic_plan(inputs, filters, strides, name=name, **options), options)


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


def _strided(planned, style, *, dilated=False):
    """A convolution, whose stride anti-aliasing may take over."""
    if style.anti_aliasing and (planned.strides > 1 or dilated):
        reduction = planned.reduction // planned.strides
        planned = planned._replace(strides=1, reduction=reduction, subsampling=planned.strides)
    return (planned,)


def _finished(residual, inputs, strides, dilation, style, name):
    """The plan of a block whose main path is known."""
    outputs = residual[-1].outputs
    # In the last block of a stage, a stride alone takes every other pixel of the shortcut.
    changes = inputs != outputs or (strides > 1 and style.stride_block == "first")
    projection, pooling = None, None
    if style.shortcut == "C" or (style.shortcut in ("B", "D") and changes):
        projection = Convolution(f"{name}_0", inputs, outputs, 1, strides, reduction=strides)
        if style.shortcut == "D" and (strides > 1 or dilation > 1):
            projection, pooling = projection._replace(strides=1), strides
    return Plan(residual, projection, _attention(outputs, style, name), pooling)


def _attention(channels, style, name):
    """The convolutions of channel attention."""
    if style.attention == "se":
        # The nearest multiple of 8, at least 8.
        between = max(8, int(channels * style.attention_ratio + 4) // 8 * 8)
        shapes = ((channels, between), (between, channels))
        return tuple(
            Convolution(f"{name}_se_{index}", *shape, 1, reduction=0, bias=True, normalized=0)
            for index, shape in enumerate(shapes, start=1)
        )
    if style.attention == "eca":
        size = int((math.log2(channels) + 1) / 2)
        return (ChannelConvolution(f"{name}_eca", channels, max(size + 1 - size % 2, 3)),)
    return ()


def _before(plan, options):
    """The same convolutions, each normalized before instead of after it."""
    first, *others = plan.residual
    biases = options.get("biases", False)
    # The first one has the normalization of what enters the block, the last one's is the next's.
    residual = [first._replace(normalized=first.inputs + first.outputs), *others]
    residual[-1] = residual[-1]._replace(normalized=0, bias=biases)
    projection = plan.projection and plan.projection._replace(normalized=0, bias=biases)
    return plan._replace(residual=tuple(residual), projection=projection)
