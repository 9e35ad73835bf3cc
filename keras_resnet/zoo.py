"""The public builders: a table of the named models, a line for each."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import keras
from typing_extensions import TypedDict, Unpack

from keras_resnet import blocks, names
from keras_resnet.checks import check_choice, is_count
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.pretrained import load
from keras_resnet.pretrained.notices import warn
from keras_resnet.resnet import Architecture, BlockName, StemName, resnet

Weights = str | os.PathLike | None
ImageShape = tuple[int | None, int | None, int]
Pooling = Literal["avg", "max"] | None
Activation = str | Callable | None


class CIFAROptions(TypedDict, total=False):
    """Keywords of `CIFARResNet` besides those of `keras.applications`."""

    shortcut: blocks.Shortcut
    include_preprocessing: bool
    preprocessing: Literal["torch", "caffe", "detectron2", "tf"] | None
    zero_init_residual: bool
    attention: blocks.Attention
    attention_ratio: float
    anti_aliasing: blocks.AntiAliasing
    norm: blocks.Norm
    weight_standardization: bool
    drop_path: float
    output_stride: int | None


class NamedOptions(CIFAROptions, total=False):
    """Keywords of the named models besides those of `keras.applications`."""

    stem: StemName
    stride_in: blocks.StridePlace
    cardinality: int
    base_width: int
    biases: bool
    stride_block: blocks.StrideBlock


class Options(NamedOptions, total=False):
    """Keywords of `ResNet` besides `weights`."""

    include_top: bool
    input_tensor: keras.KerasTensor | None
    input_shape: ImageShape | None
    pooling: Pooling
    classes: int
    classifier_activation: Activation
    name: str


class NamedModel(Protocol):
    """A builder of a named model."""

    __name__: str

    def __call__(
        self,
        include_top: bool = True,
        weights: Weights = ...,
        input_tensor: keras.KerasTensor | None = None,
        input_shape: ImageShape | None = None,
        pooling: Pooling = None,
        classes: int = 1000,
        classifier_activation: Activation = "softmax",
        name: str = ...,
        **options: Unpack[NamedOptions],
    ) -> keras.Model:
        """Build the model."""
        ...


MODELS: dict[str, dict[str, Any]] = {}
"""The named models: what `keras_resnet.ResNet` has to be given for each."""

_BUILDERS: dict[str, NamedModel] = {}

CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
"""The depths of the CIFAR-10 models in the paper's table 6."""

_LAYERS = {"basic": 6, "bottleneck": 9}  # in a block of each of the three stages
_SECOND = {"basic": "basic_preactivation", "bottleneck": "preactivation"}
_OF_BOTTLENECKS = (164, 1001)


def ResNet(
    block_counts: Sequence[int],
    block: BlockName = "bottleneck",
    filters: Sequence[int] = (64, 128, 256, 512),
    *,
    weights: Weights = None,
    **options: Unpack[Options],
) -> keras.Model:
    """Build any model of the family.

    Parameters
    ----------
    block_counts : sequence of int
        Blocks in each stage, conv2 first: (3, 4, 6, 3) for ResNet-50.
    block : {"bottleneck", "basic", "preactivation", "basic_preactivation"}, default "bottleneck"
        Kind of blocks.
    filters : sequence of int, default (64, 128, 256, 512)
        Width of each stage, as many as `block_counts`; the stem has that of the first.
    weights : path or None, default None
        None for fresh weights, or the path of a PyTorch checkpoint, `.safetensors`, `.h5`,
        `.weights.h5` or `.keras` file of this architecture.
    **options
        As for `keras_resnet.resnet.resnet`: `include_top`, `input_shape`, `classes`, `shortcut`,
        `stem`, `cardinality`, `base_width`, ...

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        For an argument out of its range, naming it, what came and what is allowed; for weights
        that do not fit.

    Examples
    --------
    A ResNeXt-26 8x16d for 64 px:

    >>> import keras_resnet
    >>> model = keras_resnet.ResNet(
    ...     (2, 2, 2, 2), cardinality=8, base_width=16, input_shape=(64, 64, 3), classes=10
    ... )
    >>> model.count_params()
    15749578
    """
    shape = {"block_counts": block_counts, "block": block, "filters": filters}
    return _pretrained(None, weights, {**shape, **options}, {"classes": 1000})


_DOC = """Build ResNet-50: `ResNet((3, 4, 6, 3))`.

Takes the arguments of `keras.applications.ResNet50`, in the same order, and more by keyword.

Parameters
----------
include_top : bool, default True
    Whether to end with global average pooling and a classifier.
weights : str, path or None, default "imagenet"
    A tag that `keras_resnet.list_weights` gives for this model, also one of timm's, such as
    "timm/resnet50.a1_in1k"; "imagenet" for "imagenet_v1", or the first of ImageNet that there
    is; the path of a file, as in `ResNet`; or None for fresh weights. If `classes` is not 1000, a
    classifier in the file for another number of them stays out, and this is logged. For images
    that are not RGB, the first kernel is adapted, as `pretrained.load_weights` says.
input_tensor : Keras tensor, optional
    Use this as the input instead of a new `keras.Input`.
input_shape : tuple of (height, width, channels), default (224, 224, 3)
    Shape of one image, at least 32 pixels a side; height and width may be None. Weights of timm
    have a default of their own: what their published accuracy is for.
pooling : {None, "avg", "max"}, default None
    What follows the last stage if `include_top` is False: nothing (a 4D tensor), or global
    average or max pooling.
classes : int, default 1000
    Outputs of the classifier.
classifier_activation : str or callable, optional, default "softmax"
    Activation of the classifier; None for logits.
name : str, default "resnet50"
    Name of the model.
**options
    `shortcut`, `stride_in`, `stem`, `include_preprocessing`, `preprocessing`,
    `zero_init_residual`, `cardinality`, `base_width`: see `keras_resnet.resnet.resnet`. What
    pretrained weights imply, such as `stride_in="1x1"`, is chosen automatically.

Returns
-------
keras.Model

Raises
------
ValueError
    For an argument out of its range, naming it, what came and what is allowed; for weights
    that do not fit.

References
----------
He et al., Deep Residual Learning for Image Recognition, CVPR 2016.

Examples
--------
>>> import keras_resnet
>>> backbone = keras_resnet.ResNet50(
...     include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg"
... )
>>> backbone.name, backbone.output_shape
('resnet50', (None, 2048))
"""


def default_name(builder: str) -> str:
    """Name what a builder makes, if nobody else names it.

    Parameters
    ----------
    builder : str
        Name of the builder, with its depth.

    Returns
    -------
    str

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> zoo.default_name("WideResNet50_2"), zoo.default_name("CIFARResNet20")
    ('wide_resnet50_2', 'cifar_resnet20')
    """
    return re.sub("^(wide|cifar)", r"\1_", builder.lower())


def _model(
    name: str, block_counts: Sequence[int], doc: str | None = None, *, published=True, **options
) -> NamedModel:
    """Make the builder of a named model, a row of the table."""
    MODELS[name] = {"block_counts": tuple(block_counts), **options}

    def build(
        include_top: bool = True,
        weights: Weights = "imagenet" if published else None,
        input_tensor: keras.KerasTensor | None = None,
        input_shape: ImageShape | None = None,
        pooling: Pooling = None,
        classes: int = 1000,
        classifier_activation: Activation = "softmax",
        name: str = default_name(name),
        **options: Unpack[NamedOptions],
    ) -> keras.Model:
        given = dict(
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
        )
        model = build.__name__
        return _pretrained(model, weights, {**MODELS[model], **given, **options}, {"classes": 1000})

    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    build.__name__ = build.__qualname__ = name
    build.__doc__ = doc or (
        f"Build {name}: `ResNet({tuple(block_counts)}{arguments and ', '}{arguments})`.\n\n"
        "    Everything else is as in `ResNet50`, the arguments too.\n    "
    )
    _BUILDERS[name] = build
    return build


# (3, 4, 6, 3) and the like are table 1 of He et al. (2016). Cardinality and base width are table 1
# of Xie et al. (2017) for ResNeXt; Wide ResNet doubles the inner width (Zagoruyko and Komodakis,
# Wide Residual Networks, 2016).
ResNet18 = _model("ResNet18", (2, 2, 2, 2), block="basic")
ResNet34 = _model("ResNet34", (3, 4, 6, 3), block="basic")
ResNet26 = _model("ResNet26", (2, 2, 2, 2))
ResNet50 = _model("ResNet50", (3, 4, 6, 3), _DOC)
ResNet101 = _model("ResNet101", (3, 4, 23, 3))
ResNet152 = _model("ResNet152", (3, 8, 36, 3))
ResNet200 = _model("ResNet200", (3, 24, 36, 3), published=False)
ResNet50_GN = _model("ResNet50_GN", (3, 4, 6, 3), norm="group")

ResNeXt50_32x4d = _model("ResNeXt50_32x4d", (3, 4, 6, 3), cardinality=32, base_width=4)
ResNeXt101_32x4d = _model("ResNeXt101_32x4d", (3, 4, 23, 3), cardinality=32, base_width=4)
ResNeXt101_32x8d = _model("ResNeXt101_32x8d", (3, 4, 23, 3), cardinality=32, base_width=8)
ResNeXt101_32x16d = _model("ResNeXt101_32x16d", (3, 4, 23, 3), cardinality=32, base_width=16)
ResNeXt101_32x32d = _model("ResNeXt101_32x32d", (3, 4, 23, 3), cardinality=32, base_width=32)
ResNeXt101_64x4d = _model("ResNeXt101_64x4d", (3, 4, 23, 3), cardinality=64, base_width=4)
WideResNet50_2 = _model("WideResNet50_2", (3, 4, 6, 3), base_width=128)
WideResNet101_2 = _model("WideResNet101_2", (3, 4, 23, 3), base_width=128)

# He et al., Bag of Tricks for Image Classification (2019), fig. 2: "C" has a deep stem, "D"
# average pooling on the shortcut, too. "S" has a wider stem, "T" timm's tiered one.
_D: dict[str, Any] = dict(stem="deep", shortcut="D")
_T: dict[str, Any] = dict(stem="tiered", shortcut="D")
ResNet10T = _model("ResNet10T", (1, 1, 1, 1), block="basic", **_T)
ResNet14T = _model("ResNet14T", (1, 1, 1, 1), **_T)
ResNet18D = _model("ResNet18D", (2, 2, 2, 2), block="basic", **_D)
ResNet26D = _model("ResNet26D", (2, 2, 2, 2), **_D)
ResNet34D = _model("ResNet34D", (3, 4, 6, 3), block="basic", **_D)
ResNet50D = _model("ResNet50D", (3, 4, 6, 3), **_D)
ResNet101D = _model("ResNet101D", (3, 4, 23, 3), **_D)
ResNet152D = _model("ResNet152D", (3, 8, 36, 3), **_D)
ResNet200D = _model("ResNet200D", (3, 24, 36, 3), **_D)
ResNet26T = _model("ResNet26T", (2, 2, 2, 2), **_T)
ResNet50T = _model("ResNet50T", (3, 4, 6, 3), **_T, published=False)
ResNet50C = _model("ResNet50C", (3, 4, 6, 3), stem="deep")
ResNet101C = _model("ResNet101C", (3, 4, 23, 3), stem="deep")
ResNet152C = _model("ResNet152C", (3, 8, 36, 3), stem="deep")
ResNet50S = _model("ResNet50S", (3, 4, 6, 3), stem="deep_wide")
ResNet101S = _model("ResNet101S", (3, 4, 23, 3), stem="deep_wide")
ResNet152S = _model("ResNet152S", (3, 8, 36, 3), stem="deep_wide")
ResNeXt50D_32x4d = _model("ResNeXt50D_32x4d", (3, 4, 6, 3), cardinality=32, base_width=4, **_D)

# Hu et al., Squeeze-and-Excitation Networks (2018).
_SE: dict[str, Any] = dict(attention="se")
SEResNet18 = _model("SEResNet18", (2, 2, 2, 2), block="basic", **_SE, published=False)
SEResNet34 = _model("SEResNet34", (3, 4, 6, 3), block="basic", **_SE, published=False)
SEResNet50 = _model("SEResNet50", (3, 4, 6, 3), **_SE)
SEResNet101 = _model("SEResNet101", (3, 4, 23, 3), **_SE, published=False)
SEResNet152 = _model("SEResNet152", (3, 8, 36, 3), **_SE, published=False)
SEResNet50T = _model("SEResNet50T", (3, 4, 6, 3), **_SE, **_T, published=False)
SEResNet152D = _model("SEResNet152D", (3, 8, 36, 3), **_SE, **_D)
SEResNet200D = _model("SEResNet200D", (3, 24, 36, 3), **_SE, **_D, published=False)
SEResNet269D = _model("SEResNet269D", (3, 30, 48, 8), **_SE, **_D, published=False)
SEResNeXt26D_32x4d = _model(
    "SEResNeXt26D_32x4d", (2, 2, 2, 2), cardinality=32, base_width=4, **_SE, **_D
)
SEResNeXt26T_32x4d = _model(
    "SEResNeXt26T_32x4d", (2, 2, 2, 2), cardinality=32, base_width=4, **_SE, **_T
)
SEResNeXt50_32x4d = _model("SEResNeXt50_32x4d", (3, 4, 6, 3), cardinality=32, base_width=4, **_SE)
SEResNeXt101_32x4d = _model(
    "SEResNeXt101_32x4d", (3, 4, 23, 3), cardinality=32, base_width=4, **_SE
)
SEResNeXt101_32x8d = _model(
    "SEResNeXt101_32x8d", (3, 4, 23, 3), cardinality=32, base_width=8, **_SE
)
SEResNeXt101D_32x8d = _model(
    "SEResNeXt101D_32x8d", (3, 4, 23, 3), cardinality=32, base_width=8, **_SE, **_D
)
SEResNeXt101_64x4d = _model(
    "SEResNeXt101_64x4d", (3, 4, 23, 3), cardinality=64, base_width=4, **_SE
)

# Wang et al., ECA-Net (2020).
_ECA: dict[str, Any] = dict(attention="eca")
ECAResNetLight = _model("ECAResNetLight", (1, 1, 11, 3), shortcut="D", **_ECA)
ECAResNet26T = _model("ECAResNet26T", (2, 2, 2, 2), **_ECA, **_T)
ECAResNet50D = _model("ECAResNet50D", (3, 4, 6, 3), **_ECA, **_D)
ECAResNet50T = _model("ECAResNet50T", (3, 4, 6, 3), **_ECA, **_T)
ECAResNet101D = _model("ECAResNet101D", (3, 4, 23, 3), **_ECA, **_D)
ECAResNet200D = _model("ECAResNet200D", (3, 24, 36, 3), **_ECA, **_D, published=False)
ECAResNet269D = _model("ECAResNet269D", (3, 30, 48, 8), **_ECA, **_D)
ECAResNeXt26T_32x4d = _model(
    "ECAResNeXt26T_32x4d", (2, 2, 2, 2), cardinality=32, base_width=4, **_ECA, **_T, published=False
)
ECAResNeXt50T_32x4d = _model(
    "ECAResNeXt50T_32x4d", (3, 4, 6, 3), cardinality=32, base_width=4, **_ECA, **_T, published=False
)

# Zhang, Making Convolutional Networks Shift-Invariant Again (2019); "AA" are averages instead.
_AA: dict[str, Any] = dict(anti_aliasing="average")
_BLUR: dict[str, Any] = dict(anti_aliasing="blur")
ResNetAA34D = _model("ResNetAA34D", (3, 4, 6, 3), block="basic", **_AA, **_D, published=False)
ResNetAA50 = _model("ResNetAA50", (3, 4, 6, 3), **_AA)
ResNetAA50D = _model("ResNetAA50D", (3, 4, 6, 3), **_AA, **_D)
ResNetAA101D = _model("ResNetAA101D", (3, 4, 23, 3), **_AA, **_D)
SEResNetAA50D = _model("SEResNetAA50D", (3, 4, 6, 3), **_SE, **_AA, **_D, published=False)
SEResNeXtAA101D_32x8d = _model(
    "SEResNeXtAA101D_32x8d", (3, 4, 23, 3), cardinality=32, base_width=8, **_SE, **_AA, **_D
)
SEResNeXtAA201D_32x8d = _model(
    "SEResNeXtAA201D_32x8d",
    (3, 24, 36, 4),
    cardinality=32,
    base_width=8,
    stem="deep_wide",
    shortcut="D",
    **_SE,
    **_AA,
)
ResNetBlur18 = _model("ResNetBlur18", (2, 2, 2, 2), block="basic", **_BLUR, published=False)
ResNetBlur50 = _model("ResNetBlur50", (3, 4, 6, 3), **_BLUR)
ResNetBlur50D = _model("ResNetBlur50D", (3, 4, 6, 3), **_BLUR, **_D, published=False)
ResNetBlur101D = _model("ResNetBlur101D", (3, 4, 23, 3), **_BLUR, **_D, published=False)

# Bello et al., Revisiting ResNets (2021), table 7.
_RS: dict[str, Any] = dict(stem="deep_strided", shortcut="D", attention="se", attention_ratio=0.25)
ResNetRS50 = _model("ResNetRS50", (3, 4, 6, 3), **_RS)
ResNetRS101 = _model("ResNetRS101", (3, 4, 23, 3), **_RS)
ResNetRS152 = _model("ResNetRS152", (3, 8, 36, 3), **_RS)
ResNetRS200 = _model("ResNetRS200", (3, 24, 36, 3), **_RS)
ResNetRS270 = _model("ResNetRS270", (4, 29, 53, 4), **_RS)
ResNetRS350 = _model("ResNetRS350", (4, 36, 72, 4), **_RS)
ResNetRS420 = _model("ResNetRS420", (4, 44, 87, 4), **_RS)

# He et al., Identity Mappings in Deep Residual Networks (2016): as PyTorch users have them, and as
# keras.applications has them.
_V2: dict[str, Any] = dict(block="preactivation")
_V2_BASIC: dict[str, Any] = dict(block="basic_preactivation")
_KERAS_V2: dict[str, Any] = dict(
    block="preactivation", stem="zero_padded", stride_block="last", biases=True
)
ResNetV2_18 = _model("ResNetV2_18", (2, 2, 2, 2), **_V2_BASIC)
ResNetV2_18D = _model("ResNetV2_18D", (2, 2, 2, 2), **_V2_BASIC, **_D)
ResNetV2_34 = _model("ResNetV2_34", (3, 4, 6, 3), **_V2_BASIC)
ResNetV2_34D = _model("ResNetV2_34D", (3, 4, 6, 3), **_V2_BASIC, **_D)
ResNetV2_50 = _model("ResNetV2_50", (3, 4, 6, 3), **_V2)
ResNetV2_50D = _model("ResNetV2_50D", (3, 4, 6, 3), **_V2, **_D, published=False)
ResNetV2_101 = _model("ResNetV2_101", (3, 4, 23, 3), **_V2)
ResNetV2_101D = _model("ResNetV2_101D", (3, 4, 23, 3), **_V2, **_D, published=False)
ResNetV2_152 = _model("ResNetV2_152", (3, 8, 36, 3), **_V2, published=False)
ResNetV2_152D = _model("ResNetV2_152D", (3, 8, 36, 3), **_V2, **_D, published=False)
ResNetV2_50D_GN = _model("ResNetV2_50D_GN", (3, 4, 6, 3), norm="group", **_V2, **_D)
ResNet50V2 = _model("ResNet50V2", (3, 4, 6, 3), **_KERAS_V2)
ResNet101V2 = _model("ResNet101V2", (3, 4, 23, 3), **_KERAS_V2)
ResNet152V2 = _model("ResNet152V2", (3, 8, 36, 3), **_KERAS_V2)

# Kolesnikov et al., Big Transfer (2020): all stages 1, 2, 3 or 4 times as wide.
_BIT: dict[str, Any] = dict(
    block="preactivation", stem="zero_padded", norm="group", weight_standardization=True
)
ResNetV2_50x1_BiT = _model("ResNetV2_50x1_BiT", (3, 4, 6, 3), **_BIT)
ResNetV2_50x3_BiT = _model("ResNetV2_50x3_BiT", (3, 4, 6, 3), filters=(192, 384, 768, 1536), **_BIT)
ResNetV2_101x1_BiT = _model("ResNetV2_101x1_BiT", (3, 4, 23, 3), **_BIT)
ResNetV2_101x3_BiT = _model(
    "ResNetV2_101x3_BiT", (3, 4, 23, 3), filters=(192, 384, 768, 1536), **_BIT
)
ResNetV2_152x2_BiT = _model(
    "ResNetV2_152x2_BiT", (3, 8, 36, 3), filters=(128, 256, 512, 1024), **_BIT
)
ResNetV2_152x4_BiT = _model(
    "ResNetV2_152x4_BiT", (3, 8, 36, 3), filters=(256, 512, 1024, 2048), **_BIT
)


def CIFARResNet(
    depth: int = 20,
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 10,
    classifier_activation: Activation = "softmax",
    name: str | None = None,
    *,
    stem: StemName = "cifar",
    block: Literal["basic", "bottleneck"] = "basic",
    **options: Unpack[CIFAROptions],
) -> keras.Model:
    """Build a CIFAR model of the paper, in three stages of 16, 32 and 64 filters.

    Parameters
    ----------
    depth : int, default 20
        Layers, 6n + 2 with basic blocks: the paper has 20, 32, 44, 56, 110 and 1202. 9n + 2 with
        bottleneck blocks: 164 and 1001 in the second paper.
    include_top : bool, default True
        Whether to end with global average pooling and a classifier.
    weights : str, path or None, default None
        None for fresh weights, "cifar10" for those of the CIFAR-10 zoo (depths of the paper), or
        the path of a file, as in `ResNet`. If `classes` is not 10, a classifier in the file for
        another number of them stays out.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`.
    input_shape : tuple of (height, width, channels), default (32, 32, 3)
        Shape of one image, at least 4 pixels a side; height and width may be None.
    pooling : {None, "avg", "max"}, default None
        What follows the last stage if `include_top` is False.
    classes : int, default 10
        Outputs of the classifier.
    classifier_activation : str or callable, optional, default "softmax"
        Activation of the classifier; None for logits.
    name : str, default "cifar_resnet{depth}"
        Name of the model.
    stem : str, default "cifar"
        "cifar": 3x3 of stride 1; "imagenet": 7x7 of stride 2 and max-pooling; or another key of
        `keras_resnet.resnet.STEMS`.
    block : {"basic", "bottleneck"}, default "basic"
        Kind of blocks.
    **options
        `shortcut`, `include_preprocessing`, `attention`, `drop_path`, ...: see
        `keras_resnet.resnet.resnet`. With basic blocks, `shortcut` is "A" by default, as in the
        paper, unless the weights are for another; with bottleneck blocks, it is "B".

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        For a depth that is not 6n + 2 or 9n + 2, and as `ResNet` does.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016: bottleneck blocks.

    Examples
    --------
    >>> import keras_resnet
    >>> keras_resnet.CIFARResNet(20).count_params()  # 1,376 of them moving averages
    271098
    """
    return _pretrained(
        f"CIFARResNet{depth}",
        weights,
        dict(
            options,
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or default_name(f"CIFARResNet{depth}"),
            stem=stem,
        ),
        {"classes": 10, **_cifar_shape(depth, block)},
    )


def CIFARResNetV2(
    depth: int = 164,
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 10,
    classifier_activation: Activation = "softmax",
    name: str | None = None,
    *,
    stem: StemName = "cifar",
    block: Literal["basic", "bottleneck"] | None = None,
    **options: Unpack[CIFAROptions],
) -> keras.Model:
    """Build a CIFAR model with pre-activation, in three stages of 16, 32 and 64 filters.

    Everything that is not said here is as in `CIFARResNet`.

    Parameters
    ----------
    depth : int, default 164
        Layers: 110, 164 and 1001 in the paper.
    include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation
        As for `CIFARResNet`.
    name : str, default "cifar_resnetv2_{depth}"
        Name of the model.
    stem
        As for `CIFARResNet`.
    block : {"basic", "bottleneck"}, optional
        Kind of blocks. Default: as in the paper, bottleneck blocks for 164 and 1001 layers, and
        basic ones for all other depths.
    **options
        As for `CIFARResNet`; `shortcut` is "B" by default.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        As `CIFARResNet` does.

    References
    ----------
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016.

    Examples
    --------
    >>> import keras_resnet
    >>> keras_resnet.CIFARResNetV2(20).output_shape
    (None, 10)
    """
    return _pretrained(
        f"CIFARResNetV2_{depth}",
        weights,
        dict(
            options,
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or default_name(f"CIFARResNetV2_{depth}"),
            stem=stem,
        ),
        {"classes": 10, **_cifar_shape(depth, block, second=True)},
    )


def builder(name: str) -> Callable[..., keras.Model]:
    """Find a builder by name, as the command line does.

    Parameters
    ----------
    name : str
        A named model ("ResNet50", timm's "seresnext50_32x4d") or a CIFAR model with its depth
        ("CIFARResNet20", "cifar_resnetv2_164"); case, "-" and "_" do not matter.

    Returns
    -------
    callable
        Takes the keywords of the builders and returns a `keras.Model`.

    Raises
    ------
    ValueError
        For an unknown name, suggesting the nearest.

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> zoo.builder("cifar-resnet-20")().name
    'cifar_resnet20'
    """
    if match := re.fullmatch(r"cifarresnet(v2)?(\d+)", names.plain(name)):
        return functools.partial(CIFARResNetV2 if match[1] else CIFARResNet, int(match[2]))
    known = [*_BUILDERS, "CIFARResNet20", "CIFARResNetV2_164"]
    return _BUILDERS[names.find("model", name, known, " (any depth of 6n + 2)")]


def architecture(name: str) -> Architecture:
    """Find what tells a model apart, without building it.

    Parameters
    ----------
    name : str
        As for `builder`.

    Returns
    -------
    Architecture

    Raises
    ------
    ValueError
        For an unknown name, suggesting the nearest, or a depth that there is not.

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> zoo.architecture("resnet50d").stem
    'deep'
    """
    found = builder(name)
    if isinstance(found, functools.partial):
        shape = _cifar_shape(found.args[0], None, second=found.func is CIFARResNetV2)
        return Architecture(**shape, stem="cifar")
    return Architecture(**MODELS[found.__name__])


def _cifar_shape(depth, block, *, second=False):
    """As many equal blocks in each of three stages as a depth has."""
    if block is None:
        block = "bottleneck" if second and depth in _OF_BOTTLENECKS else "basic"
    check_choice(tuple(_LAYERS), block=block)
    layers = _LAYERS[block]
    if not is_count(depth) or depth < layers + 2 or depth % layers != 2:
        depths = ", ".join(str(layers * count + 2) for count in range(1, 6))
        raise ValueError(
            f"depth={depth!r} must be {layers}n + 2 with n >= 1 for {block} blocks: {depths}, ..."
        )
    shape = dict(block_counts=[(depth - 2) // layers] * 3, filters=(16, 32, 64))
    if second:
        return {**shape, "block": _SECOND[block]}
    return {**shape, "block": block, "shortcut": "A" if block == "basic" else "B"}


def _says_its_size(options):
    return any(options.get(each) is not None for each in ("input_shape", "input_tensor"))


def _pretrained(architecture, weights, options, usual):
    """Build a model and load its weights; what the weights imply need not be said."""
    if weights is None:
        return resnet(**{**usual, **options})
    source = load.find(weights, architecture)
    if options.get("preprocessing") is None:
        options.pop("preprocessing", None)
    if source.channels == 3:
        # Images of any other number of channels are normalized as these were.
        usual = {**usual, "preprocessing": "torch"}
    if source.row and source.row.image_size and not _says_its_size(options):
        options["input_shape"] = (*source.view["image_size"], 3)
    with kernels_to_be_loaded():
        model = resnet(**{**usual, **source.options, **options})
    needed = source.options.get("preprocessing", model.preprocessing)
    if model.preprocessing != needed:
        raise ValueError(
            f"{source.argument}: these weights need preprocessing={needed!r}, not "
            f"{model.preprocessing!r}. Leave it out, and it is chosen automatically."
        )
    # Whoever asks for another number of classes wants a new classifier.
    new_head = options.get("classes", usual["classes"]) != usual["classes"]
    model = load.load_source(model, source, new_head=new_head)
    # Weights for images that are not RGB are this package's, whose default that is.
    if source.silent and "preprocessing" not in options and needed != "tf":
        warn(
            f"{source.argument}: the file does not say how images have to be normalized; "
            f"{needed!r} is assumed. Say it with preprocessing=."
        )
    return model
