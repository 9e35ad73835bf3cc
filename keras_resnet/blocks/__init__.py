"""Residual blocks: their style, the plans of their convolutions, their parts and their kinds.

Start in `kinds`, whose table lists the blocks; `style` has the options that they share.
"""

from keras_resnet.blocks.kinds import (
    KINDS,
    OF_KINDS,
    Kind,
    basic_block,
    basic_preactivation_block,
    bottleneck_block,
    preactivation_block,
)
from keras_resnet.blocks.parts import (
    activation,
    attention,
    convolution,
    convolved,
    normalization,
    normalized,
    subsampled,
)
from keras_resnet.blocks.plans import (
    EXPANSION,
    ChannelConvolution,
    Convolution,
    Plan,
    basic_plan,
    basic_preactivation_plan,
    bottleneck_plan,
    bottleneck_width,
    preactivation_plan,
)
from keras_resnet.blocks.style import (
    SHORTCUTS,
    STRIDE_PLACES,
    STYLE,
    AntiAliasing,
    Attention,
    Details,
    Norm,
    Shortcut,
    StrideBlock,
    StridePlace,
    Style,
    check_shortcut,
)
from keras_resnet.initialization import kernels_to_be_loaded

__all__ = [
    "EXPANSION",
    "KINDS",
    "OF_KINDS",
    "SHORTCUTS",
    "STRIDE_PLACES",
    "STYLE",
    "AntiAliasing",
    "Attention",
    "ChannelConvolution",
    "Convolution",
    "Details",
    "Kind",
    "Norm",
    "Plan",
    "Shortcut",
    "StrideBlock",
    "StridePlace",
    "Style",
    "activation",
    "attention",
    "basic_block",
    "basic_plan",
    "basic_preactivation_block",
    "basic_preactivation_plan",
    "bottleneck_block",
    "bottleneck_plan",
    "bottleneck_width",
    "check_shortcut",
    "convolution",
    "convolved",
    "kernels_to_be_loaded",
    "normalization",
    "normalized",
    "preactivation_block",
    "preactivation_plan",
    "subsampled",
]
