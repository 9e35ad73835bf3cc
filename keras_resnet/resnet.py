"""The builder of the whole family: stem -> stages -> head, and the plan of its convolutions."""

import contextlib
import functools
import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from keras_resnet import blocks, checks
from keras_resnet.layers import NORMALIZATIONS, Conv2D, Preprocessing, StandardizedConv2D

BlockName = Literal["bottleneck", "basic", "preactivation", "basic_preactivation"]
StemName = Literal[
    "imagenet", "cifar", "deep", "deep_wide", "tiered", "deep_strided", "zero_padded"
]


class Stem(NamedTuple):
    """What comes before the first block: convolutions and, for large images, a smaller map.

    Parameters
    ----------
    kernel_size : int
        Of the convolutions, in pixels.
    strides : int
        Of the first convolution.
    image_size : int
        Default height and width of an image.
    crop : float
        Default fraction of an image's shorter side that the model is shown.
    widths : tuple of float, default (1.0,)
        Channels of each convolution, for each of the first stage's filters.
    pooling : {"max", "convolution", None}, default None
        What halves the map at the end: 3x3 max-pooling or a 3x3 convolution of stride 2.
    zeros : bool, default False
        Whether max-pooling sees zeros around its input, which matters where no ReLU precedes it.
    """

    kernel_size: int
    strides: int
    image_size: int
    crop: float
    widths: tuple[float, ...] = (1.0,)
    pooling: Literal["max", "convolution", None] = None
    zeros: bool = False

    @property
    def reduction(self) -> int:
        """How many times smaller than the image its features are."""
        return self.strides * (2 if self.pooling else 1)

    def plan(
        self, channels: int, filters: int, style: blocks.Style, *, preactivation: bool = False
    ) -> tuple[blocks.Convolution, ...]:
        """Its convolutions, for images of a number of channels."""
        planned, strides = [], self.strides
        for index, width in enumerate(self.widths, start=1):
            name = "conv1" if len(self.widths) == 1 else f"conv1_{index}"
            outputs = int(width * filters)
            size = self.kernel_size
            planned.append(
                blocks.Convolution(name, channels, outputs, size, strides, reduction=self.strides)
            )
            channels, strides = outputs, 1
        if preactivation:
            # The first block normalizes what leaves the stem.
            planned[-1] = planned[-1]._replace(normalized=0, bias=style.biases)
        if self.pooling == "convolution":
            strides, subsampling = (1, 2) if style.anti_aliasing else (2, None)
            planned.append(
                blocks.Convolution(
                    *("pool1", channels, channels, 3, strides),
                    reduction=self.strides * strides,
                    subsampling=subsampling,
                )
            )
        return tuple(planned)


# Models for ImageNet are commonly tested on 224 of 256 pixels.
_IMAGENET = Stem(7, 2, image_size=224, crop=0.875, pooling="max")
_DEEP = _IMAGENET._replace(kernel_size=3, widths=(0.5, 0.5, 1.0))

STEMS = {
    "imagenet": _IMAGENET,
    "cifar": Stem(3, 1, image_size=32, crop=1.0),
    "deep": _DEEP,
    "deep_wide": _DEEP._replace(widths=(1.0, 1.0, 2.0)),
    "tiered": _DEEP._replace(widths=(0.375, 0.5, 1.0)),
    "deep_strided": _DEEP._replace(pooling="convolution"),
    "zero_padded": _IMAGENET._replace(zeros=True),
}
"""The stems, by the name that `keras_resnet.ResNet` takes."""


class Place(NamedTuple):
    """Where a block stands in a model.

    Parameters
    ----------
    name : str
        The prefix of its layers' names.
    filters, strides, dilation, first_dilation : int
        As for `blocks.basic_block`.
    drop_path : float
        As for `blocks.basic_block`.
    """

    name: str
    filters: int
    strides: int
    dilation: int
    first_dilation: int
    drop_path: float


@dataclass(frozen=True)
class Architecture:
    """What tells the models of the family apart: everything but input, head and precision.

    Parameters
    ----------
    block_counts, block, filters, stem, shortcut, stride_in
        As for `resnet`.
    zero_init_residual, cardinality, base_width
        As for `resnet`.
    attention, attention_ratio, anti_aliasing, norm, weight_standardization, biases, stride_block
        As for `keras_resnet.blocks.Style`.
    drop_path, output_stride
        As for `resnet`.

    Raises
    ------
    ValueError
        For an argument out of its range, naming it, what came and what is allowed.

    Examples
    --------
    >>> from keras_resnet.resnet import Architecture
    >>> architecture = Architecture((3, 4, 6, 3))
    >>> plan = list(architecture.convolutions())
    >>> len(plan), plan[0].name, plan[-1].outputs, architecture.total_stride
    (53, 'conv1', 2048, 32)
    """

    block_counts: Sequence[int]
    block: str = "bottleneck"
    filters: Sequence[int] = (64, 128, 256, 512)
    stem: str = "imagenet"
    shortcut: blocks.Shortcut = "B"
    stride_in: blocks.StridePlace = "3x3"
    zero_init_residual: bool = False
    cardinality: int = 1
    base_width: int = 64
    attention: blocks.Attention = None
    attention_ratio: float = 1 / 16
    anti_aliasing: blocks.AntiAliasing = None
    norm: blocks.Norm = "batch"
    weight_standardization: bool = False
    biases: bool = False
    stride_block: blocks.StrideBlock = "first"
    drop_path: float = 0.0
    output_stride: int | None = None

    def __post_init__(self):
        _check_stages(self.block_counts, self.filters)
        # Keras wants Python's own whole numbers, NumPy users have theirs.
        for name in ("block_counts", "filters"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        checks.check_choice(blocks.KINDS, block=self.block)
        checks.check_choice(STEMS, stem=self.stem)
        style = self.style
        for name in ("cardinality", "base_width"):
            object.__setattr__(self, name, getattr(style, name))
        for option in fields(self):
            if getattr(self, option.name) != option.default:
                _check_option_of_kind(option.name, getattr(self, option.name), self.block)
        if self.attention_ratio != 1 / 16 and self.attention != "se":
            raise ValueError(
                f"attention_ratio={self.attention_ratio!r} needs attention='se', not "
                f"{self.attention!r}."
            )
        if self.shortcut is None and self.drop_path:
            raise ValueError(
                f"drop_path={self.drop_path!r} needs a shortcut: without one, nothing would be "
                "left of an image."
            )
        checks.check_range("decay", drop_path=self.drop_path)
        self._check_output_stride()

    def _check_output_stride(self):
        stem = STEMS[self.stem].reduction
        allowed = [stem * 2**stage for stage in range(len(self.filters))]
        checks.check_choice((None, *allowed), output_stride=self.output_stride)
        if self.output_stride not in (None, allowed[-1]) and self.stride_block == "last":
            raise ValueError(
                f"output_stride={self.output_stride} needs stride_block='first', not 'last'."
            )

    @functools.cached_property
    def style(self) -> blocks.Style:
        """What its blocks are made like."""
        return blocks.Style(**{name: getattr(self, name) for name in blocks.STYLE})

    @property
    def kind(self) -> blocks.Kind:
        """The kind of its blocks."""
        return blocks.KINDS[self.block]

    @property
    def total_stride(self) -> int:
        """How many times smaller than the image its features are: also the smallest image."""
        return self.output_stride or total_stride(len(self.filters), self.stem)

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.filters[-1] * self.kind.expansion

    @property
    def block_options(self) -> dict[str, Any]:
        """The options that all of its blocks are built with."""
        of_others = {*blocks.OF_KINDS} - {*self.kind.options}
        return {name: getattr(self, name) for name in blocks.STYLE if name not in of_others}

    def layout(self) -> Iterator[Place]:
        """Its blocks in order."""
        reduction, dilation = STEMS[self.stem].reduction, 1
        total, index_in_all = sum(self.block_counts), 0
        stages = list(zip(self.block_counts, self.filters, strict=True))
        for stage, (count, filters) in enumerate(stages, start=2):
            # With strides in last blocks, the last stage has none: nothing smaller follows it.
            halves = stage > 2 if self.stride_block == "first" else stage <= len(stages)
            first_dilation = dilation
            if halves and self.output_stride == reduction:
                halves, dilation = False, 2 * dilation
            reduction *= 2 if halves else 1
            striding = 1 if self.stride_block == "first" else count
            for index in range(1, count + 1):
                strides = 2 if halves and index == striding else 1
                drop = self.drop_path * index_in_all / max(total - 1, 1)
                name = f"conv{stage}_block{index}"
                yield Place(name, filters, strides, dilation, first_dilation, drop)
                first_dilation, index_in_all = dilation, index_in_all + 1

    def convolutions(
        self, channels: int = 3
    ) -> Iterator[blocks.Convolution | blocks.ChannelConvolution]:
        """The plan: its convolutions in the order in which they are built.

        Parameters
        ----------
        channels : int, default 3
            Channels of the images.

        Yields
        ------
        Convolution or ChannelConvolution
        """
        kind, options = self.kind, self.block_options
        stem = self.stem_plan(channels)
        yield from stem
        inputs, reduction = stem[-1].outputs, STEMS[self.stem].reduction
        *others, last = self.layout()
        for place in (*others, last):
            plan = kind.plan(
                *(inputs, place.filters, place.strides),
                name=place.name,
                dilation=place.dilation,
                first_dilation=place.first_dilation,
                **options,
            )
            if place is last and kind.preactivation:
                *first, end = plan.residual
                end = end._replace(normalized=end.outputs)  # the model's last normalization
                plan = plan._replace(residual=(*first, end))
            for each in plan.convolutions:
                yield each._replace(reduction=each.reduction * reduction)
            inputs, reduction = place.filters * kind.expansion, reduction * place.strides

    def stem_plan(self, channels: int = 3) -> tuple[blocks.Convolution, ...]:
        """The convolutions of its stem, for images of a number of channels."""
        return STEMS[self.stem].plan(
            channels, self.filters[0], self.style, preactivation=self.kind.preactivation
        )


def _check_stages(block_counts, filters):
    """Raise ValueError unless there are as many widths as stages, and all are counts."""
    try:
        stages = len(block_counts) if len(block_counts) == len(filters) else 0
    except TypeError:
        stages = 0
    if not stages:
        raise ValueError(
            f"block_counts={block_counts!r} and filters={filters!r} must have one number for each "
            "stage, and at least one stage."
        )
    for count, width in zip(block_counts, filters, strict=True):
        checks.check_positive(block_counts=count, filters=width)


def _check_option_of_kind(option, value, block):
    """Raise ValueError for an option that only other kinds of blocks have."""
    kinds = [name for name, kind in blocks.KINDS.items() if option in kind.options]
    if kinds and block not in kinds:
        raise ValueError(
            f"{option}={value!r} needs block={' or '.join(map(repr, kinds))}: a block of the kind "
            f"{block!r} has no convolution that it applies to."
        )


@contextlib.contextmanager
def _layers_in_bulk() -> Iterator[None]:
    """Build a whole model in half the time that its layers take one by one.

    Keras puts off the variables until the stateless scope closes. By then they are outside of their
    layers' name scopes, and TensorFlow, which looks for a new kernel for every new name of a
    variable, finds one for all that are called "gamma". Names and paths in Keras stay the same. The
    garbage collector would walk through the growing model again and again, and find nothing.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with keras.StatelessScope():
            yield
    finally:
        if collects:
            gc.enable()


@_layers_in_bulk()
def resnet(
    block_counts: Sequence[int],
    block: BlockName = "bottleneck",
    filters: Sequence[int] = (64, 128, 256, 512),
    *,
    include_top: bool = True,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: Literal["avg", "max"] | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable | None = "softmax",
    name: str = "resnet",
    shortcut: blocks.Shortcut = "B",
    stride_in: blocks.StridePlace = "3x3",
    stem: StemName = "imagenet",
    include_preprocessing: bool = False,
    preprocessing: Literal["torch", "caffe", "detectron2", "tf"] | None = None,
    zero_init_residual: bool = False,
    cardinality: int = 1,
    base_width: int = 64,
    attention: blocks.Attention = None,
    attention_ratio: float = 1 / 16,
    anti_aliasing: blocks.AntiAliasing = None,
    norm: blocks.Norm = "batch",
    weight_standardization: bool = False,
    biases: bool = False,
    stride_block: blocks.StrideBlock = "first",
    drop_path: float = 0.0,
    output_stride: int | None = None,
) -> keras.Model:
    """Build any model of the family, with fresh weights.

    `keras_resnet.ResNet` adds pretrained weights to this.

    Parameters
    ----------
    block_counts : sequence of int
        Blocks in each stage, conv2 first: (3, 4, 6, 3) for ResNet-50.
    block : {"bottleneck", "basic", "preactivation", "basic_preactivation"}, default "bottleneck"
        Kind of blocks: a key of `keras_resnet.blocks.KINDS`. Those with pre-activation are "v2".
    filters : sequence of int, default (64, 128, 256, 512)
        Width of each stage, as many as `block_counts`; the stem has that of the first.
    include_top : bool, default True
        Whether to end with global average pooling and a classifier.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`; `input_shape` then follows from it.
    input_shape : tuple of (height, width, channels), optional
        Shape of one image; height and width may be None: the model takes images of any size, and
        remembers the size of the default. Default (224, 224, 3), for the "cifar" stem (32, 32, 3).
    pooling : {None, "avg", "max"}, default None
        What follows the last stage if `include_top` is False: nothing (a 4D tensor), or global
        average or max pooling.
    classes : int, default 1000
        Outputs of the classifier.
    classifier_activation : str or callable, optional, default "softmax"
        Activation of the classifier; None for logits.
    name : str, default "resnet"
        Name of the model.
    shortcut : {"A", "B", "C", "D", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where shapes change; "C":
        projection everywhere; "D": as "B", with average pooling instead of a stride; None: the
        plain model, without shortcuts.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution of a bottleneck block that carries the stride: "3x3" as in PyTorch (v1.5),
        "1x1" as in the paper and keras.applications (v1).
    stem : str, default "imagenet"
        A key of `STEMS`. "imagenet": 7x7 convolution of stride 2 and max-pooling; "cifar": 3x3 of
        stride 1; "deep", "deep_wide", "tiered": three 3x3 convolutions of different widths, and
        max-pooling; "deep_strided": as "deep", with a convolution of stride 2 instead of pooling;
        "zero_padded": as "imagenet", with zeros around what is pooled.
    include_preprocessing : bool, default False
        Whether the model takes raw images of 0 to 255 and normalizes them itself.
    preprocessing : {"torch", "caffe", "detectron2", "tf"}, optional
        How images are normalized, as in `preprocess_input`, by the model or before it. Default:
        "torch", and "tf" where images are not RGB; with weights, what these need.
    zero_init_residual : bool, default False
        Start the last BatchNormalization of every block at gamma = 0.
    cardinality : int, default 1
        Groups of the 3x3 convolution of a bottleneck block.
    base_width : int, default 64
        Channels per group in a stage of 64 filters.
    attention, attention_ratio, anti_aliasing, norm, weight_standardization, biases, stride_block
        As for `keras_resnet.blocks.Style`.
    drop_path : float, default 0.0
        Stochastic depth: the fraction of images for which, in training, the last block is its
        shortcut; less for those before it, linearly from 0 for the first.
    output_stride : int, optional
        How many times smaller than the image the features may get: later stages have dilated
        convolutions instead of strides, as for segmentation. Default: all stages have strides.

    Returns
    -------
    keras.Model
        Functional, with layers named as in keras.applications. Its attribute `preprocessing` says
        how images are normalized, and so do its layers (`graphs.wants_of`).

    Raises
    ------
    ValueError
        For an argument out of its range, naming it, what came and what is allowed.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    He et al., Identity Mappings in Deep Residual Networks, ECCV 2016: pre-activation.
    Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.
    Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
    Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation, 2017: dilation.

    Examples
    --------
    >>> from keras_resnet.resnet import resnet
    >>> resnet((1, 1), "basic", (16, 32), input_shape=(32, 32, 3), classes=10).output_shape
    (None, 10)
    """
    architecture = Architecture(
        block_counts,
        block,
        filters,
        stem=stem,
        shortcut=shortcut,
        stride_in=stride_in,
        zero_init_residual=zero_init_residual,
        cardinality=cardinality,
        base_width=base_width,
        attention=attention,
        attention_ratio=attention_ratio,
        anti_aliasing=anti_aliasing,
        norm=norm,
        weight_standardization=weight_standardization,
        biases=biases,
        stride_block=stride_block,
        drop_path=drop_path,
        output_stride=output_stride,
    )
    checks.check_positive(classes=classes)
    checks.check_choice((None, "avg", "max"), pooling=pooling)
    checks.check_choice((None, *NORMALIZATIONS), preprocessing=preprocessing)
    checks.check_data_format()
    checks.check_activation(classifier_activation)
    inputs = _input(input_tensor, input_shape, architecture)
    if not (include_preprocessing or keras.backend.is_float_dtype(inputs.dtype)):
        raise ValueError(
            f"input_tensor holds {inputs.dtype} numbers: cast them to float32, or let the model "
            "normalize raw images with include_preprocessing=True."
        )

    x = inputs
    preprocessing = preprocessing or ("torch" if x.shape[-1] == 3 else "tf")
    size = STEMS[stem].image_size
    view = {
        "crop": STEMS[stem].crop,
        "image_size": (size, size) if x.shape[1:3] == (None, None) else None,
    }
    if include_preprocessing:
        x = Preprocessing(preprocessing, **view, name="preprocessing")(x)
        x = _stem(x, architecture, None)
    else:
        x = _stem(x, architecture, {"normalization": preprocessing, **view})
    x = _stages(x, architecture)
    if include_top:
        x = _classifier(x, int(classes), classifier_activation)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)

    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    with deep_graphs(sum(architecture.block_counts)):
        model = keras.Model(inputs, x, name=name)
    model.preprocessing = preprocessing
    return model


def _stem(x, architecture, wants):
    """The layers before the first block; the first convolution says what the model `wants`."""
    style, before = architecture.style, architecture.kind.preactivation
    layer = StandardizedConv2D if style.weight_standardization else Conv2D
    layer = functools.partial(layer, **wants) if wants else None
    *first, last = architecture.stem_plan(x.shape[-1])
    for each in (*first, last):
        x = blocks.convolved(x, each, style=style, layer=layer)
        layer = None
        if each.subsampling:
            name = f"{each.name}_blur"
            x = blocks.subsampled(x, each.subsampling, style.anti_aliasing, name=name)
        if each.normalized != 0:
            x = blocks.normalized(x, each.name, style=style)
            x = blocks.activation(x, name=f"{each.name}_relu")
    stem = STEMS[architecture.stem]
    if stem.pooling == "max":
        x = _max_pooled(x, style.anti_aliasing, zeros=stem.zeros or not before)
    return x


def _max_pooled(x, anti_aliasing, zeros):
    """The 3x3 max-pooling of stride 2 at the end of a stem."""
    if anti_aliasing == "average":
        return blocks.subsampled(x, 2, anti_aliasing, name="pool1_pool")
    if anti_aliasing is None and zeros:
        # Zeros are as good as minus infinity around the outputs of a ReLU.
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
        return keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    # With a stride, "same" would pad one side only.
    x = keras.layers.MaxPooling2D(3, strides=1, padding="same", name="pool1_max")(x)
    if anti_aliasing:
        return blocks.subsampled(x, 2, anti_aliasing, name="pool1_blur")
    return keras.layers.MaxPooling2D(1, strides=2, name="pool1_pool")(x)


def _stages(x, architecture):
    """The residual blocks, and what closes the last one of those with pre-activation."""
    build, options = architecture.kind.build, architecture.block_options
    for place in architecture.layout():
        x = build(x, **place._asdict(), **options)
    if architecture.kind.preactivation:
        x = blocks.normalized(x, "post", style=architecture.style)
        x = blocks.activation(x, name="post_relu")
    return x


def _classifier(x, classes, activation):
    """Average pooling and a dense layer."""
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    # Probabilities in float32 where the model computes in half precision.
    half = keras.config.dtype_policy().compute_dtype in ("bfloat16", "float16")
    dtype = "float32" if half else None
    return keras.layers.Dense(classes, activation=activation, dtype=dtype, name="predictions")(x)


@contextlib.contextmanager
def deep_graphs(block_count: int = 1000) -> Iterator[None]:
    """Let Keras walk the graph of a very deep model: it recurses once for every layer.

    Needed around `keras.saving.load_model` and `keras.models.clone_model` for models with several
    hundred blocks; the builders use it themselves.

    Parameters
    ----------
    block_count : int, default 1000
        Blocks of the model.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.resnet import deep_graphs
    >>> with deep_graphs():
    ...     x = inputs = keras.Input((1,))
    ...     for _ in range(1100):
    ...         x = keras.layers.Identity()(x)
    ...     model = keras.Model(inputs, x)
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 10 * block_count)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def feature_pyramid(
    model: keras.Model, levels: Sequence[str] | None = None
) -> dict[str, keras.KerasTensor]:
    """The outputs of a model's stages, for detectors and segmentation heads.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    levels : sequence of str, optional
        The wanted levels, from "C1" (the stem) to "C5". Default: all stages from "C2" on.

    Returns
    -------
    dict of str to Keras tensor
        Level "C3" is the output of stage conv3; the stride doubles from level to level, up to the
        `output_stride` of a model. The last level of a model with pre-activation is what its last
        normalization and activation return.

    Raises
    ------
    ValueError
        If the model has no such stage.

    References
    ----------
    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.

    Examples
    --------
    >>> import keras, keras_resnet
    >>> model = keras_resnet.ResNet18(weights=None, include_top=False, input_shape=(64, 64, 3))
    >>> pyramid = keras_resnet.feature_pyramid(model)
    >>> {level: features.shape[1:] for level, features in pyramid.items()}
    {'C2': (16, 16, 64), 'C3': (8, 8, 128), 'C4': (4, 4, 256), 'C5': (2, 2, 512)}
    >>> detector_backbone = keras.Model(model.input, pyramid)
    """
    stages = {}
    strided = {
        "_".join(layer.name.split("_")[:2])
        for layer in model.layers
        if "_block" in layer.name and max(np.atleast_1d(getattr(layer, "strides", 1))) > 1
    }
    for layer in model.layers:
        if re.fullmatch(r"conv1(_\d+)?_(conv|relu)", layer.name):
            stages["C1"] = layer.output  # the last one stays
        elif match := re.fullmatch(r"(conv(\d+)_block(\d+))_out", layer.name):
            # In keras.applications' V2, the last block of a stage has the stride of the next one.
            if match[3] == "1" or match[1] not in strided:
                stages[f"C{match[2]}"] = layer.output
        elif layer.name == "post_relu":
            stages[next(reversed(stages))] = layer.output
    if levels is None:
        levels = [level for level in stages if level != "C1"]
    missing = [level for level in levels if level not in stages]
    if missing or not stages:
        raise ValueError(
            f"levels={levels!r}: {model.name} has the levels {list(stages)}. If it wraps a model "
            "of this package as one layer, pass that layer."
        )
    return {level: stages[level] for level in levels}


def total_stride(stages: int, stem: str) -> int:
    """How many times a model shrinks height and width: also the smallest image that fits.

    Parameters
    ----------
    stages : int
        Number of stages.
    stem : str
        A key of `STEMS`.

    Returns
    -------
    int
    """
    return STEMS[stem].reduction * 2 ** (stages - 1)


def _input(input_tensor, input_shape, architecture):
    """The tensor that images enter by, checked."""
    smallest = architecture.total_stride
    if input_tensor is not None and not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            f"input_tensor of type {type(input_tensor).__name__} must be a Keras tensor: a "
            "keras.Input, or the output of a layer."
        )
    if input_shape is not None:
        shape = tuple(input_shape) if isinstance(input_shape, Iterable) else (input_shape,)
    elif input_tensor is not None:
        shape = tuple(input_tensor.shape[1:])
    else:
        size = STEMS[architecture.stem].image_size
        shape = (size, size, 3)
    if (
        len(shape) != 3
        or not all(size is None or checks.is_count(size) for size in shape)
        or shape[2] is None
    ):
        raise ValueError(
            f"input_shape={shape if input_shape is None else input_shape} must be (height, width, "
            "channels), for example (224, 224, 3) or (None, None, 3)."
        )
    if any(size is not None and size < smallest for size in shape[:2]):
        raise ValueError(
            f"input_shape={shape} is too small: height and width must be at least {smallest} "
            "pixels, the stride of this model."
        )
    if input_tensor is None:
        return keras.Input(shape)
    theirs = tuple(input_tensor.shape[1:])
    if len(theirs) != 3 or any(
        None not in sizes and sizes[0] != sizes[1] for sizes in zip(theirs, shape, strict=True)
    ):
        raise ValueError(
            f"input_shape={input_shape} contradicts input_tensor, whose images are {theirs}: leave "
            "one of them out."
        )
    return input_tensor
