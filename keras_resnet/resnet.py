"""The builder of the whole family: stem -> stages -> head, and the plan of its convolutions."""

import contextlib
import functools
import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import keras

from keras_resnet import blocks, checks
from keras_resnet.layers import NORMALIZATIONS, Conv2D, Preprocessing


class Stem(NamedTuple):
    """What comes before the first block: a convolution and, for large images, max-pooling.

    Parameters
    ----------
    kernel_size, strides : int
        Those of the convolution, in pixels.
    pooling : bool
        Whether 3x3 max-pooling of stride 2 follows.
    image_size : int
        Default height and width of an image.
    crop : float
        Default fraction of an image's shorter side that the model is shown.
    """

    kernel_size: int
    strides: int
    pooling: bool
    image_size: int
    crop: float

    @property
    def reduction(self) -> int:
        """How many times smaller than the image its features are."""
        return self.strides * (2 if self.pooling else 1)

    def plan(self, channels: int, filters: int) -> tuple[blocks.Convolution, ...]:
        """Its convolutions, for images of a number of channels."""
        strides = self.strides
        size = self.kernel_size
        return (blocks.Convolution("conv1", channels, filters, size, strides, reduction=strides),)


STEMS = {
    # Models for ImageNet are commonly tested on 224 of 256 pixels.
    "imagenet": Stem(7, 2, pooling=True, image_size=224, crop=0.875),
    "cifar": Stem(3, 1, pooling=False, image_size=32, crop=1.0),
}
"""The stems, by the name that `keras_resnet.ResNet` takes."""


@dataclass(frozen=True)
class Architecture:
    """What tells the models of the family apart: everything but input, head and precision.

    Parameters
    ----------
    block_counts, block, filters, stem, shortcut, stride_in
        As for `resnet`.
    zero_init_residual, cardinality, base_width
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

    def __post_init__(self):
        _check_stages(self.block_counts, self.filters)
        checks.check_positive(cardinality=self.cardinality, base_width=self.base_width)
        # Keras wants Python's own whole numbers, NumPy users have theirs.
        for name in ("block_counts", "filters"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        for name in ("cardinality", "base_width"):
            object.__setattr__(self, name, int(getattr(self, name)))
        checks.check_choice(blocks.KINDS, block=self.block)
        checks.check_choice(STEMS, stem=self.stem)
        checks.check_choice(blocks.STRIDE_PLACES, stride_in=self.stride_in)
        blocks.check_shortcut(self.shortcut, self.zero_init_residual)
        for option in fields(self):
            if getattr(self, option.name) != option.default:
                _check_option_of_kind(option.name, getattr(self, option.name), self.block)

    @property
    def total_stride(self) -> int:
        """How many times smaller than the image its features are: also the smallest image."""
        return total_stride(len(self.filters), self.stem)

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.filters[-1] * blocks.KINDS[self.block].expansion

    @property
    def block_options(self) -> dict[str, object]:
        """The options that the plans of its blocks take."""
        names = ("shortcut", *blocks.KINDS[self.block].options)
        return {name: getattr(self, name) for name in names}

    def layout(self) -> Iterator[tuple[str, int, int]]:
        """Its blocks in order: name, filters and stride of each."""
        stages = zip(self.block_counts, self.filters, strict=True)
        for stage, (count, filters) in enumerate(stages, start=2):
            for index in range(1, count + 1):
                yield f"conv{stage}_block{index}", filters, 2 if index == 1 and stage > 2 else 1

    def convolutions(self, channels: int = 3) -> Iterator[blocks.Convolution]:
        """The plan: its convolutions in the order in which they are built.

        Parameters
        ----------
        channels : int, default 3
            Channels of the images.

        Yields
        ------
        Convolution
        """
        stem, kind, options = STEMS[self.stem], blocks.KINDS[self.block], self.block_options
        yield from stem.plan(channels, self.filters[0])
        inputs, reduction = self.filters[0], stem.reduction
        for name, filters, strides in self.layout():
            plan = kind.plan(inputs, filters, strides, name=name, **options)
            for each in (*plan.residual, *filter(None, [plan.projection])):
                yield each._replace(reduction=each.reduction * reduction)
            inputs, reduction = filters * kind.expansion, reduction * strides


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
    block: Literal["bottleneck", "basic"] = "bottleneck",
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
    stem: Literal["imagenet", "cifar"] = "imagenet",
    include_preprocessing: bool = False,
    preprocessing: Literal["torch", "caffe", "detectron2", "tf"] | None = None,
    zero_init_residual: bool = False,
    cardinality: int = 1,
    base_width: int = 64,
) -> keras.Model:
    """Build any model of the family, with fresh weights.

    `keras_resnet.ResNet` adds pretrained weights to this.

    Parameters
    ----------
    block_counts : sequence of int
        Blocks in each stage, conv2 first: (3, 4, 6, 3) for ResNet-50.
    block : {"bottleneck", "basic"}, default "bottleneck"
        Kind of blocks: a key of `keras_resnet.blocks.KINDS`.
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
    shortcut : {"A", "B", "C", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where shapes change; "C":
        projection everywhere; None: the plain model, without shortcuts.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution of a bottleneck block that carries the stride: "3x3" as in PyTorch (v1.5),
        "1x1" as in the paper and keras.applications (v1).
    stem : {"imagenet", "cifar"}, default "imagenet"
        "imagenet": 7x7 convolution of stride 2 and max-pooling; "cifar": 3x3 of stride 1.
    include_preprocessing : bool, default False
        Whether the model takes raw images of 0 to 255 and normalizes them itself.
    preprocessing : {"torch", "caffe", "detectron2", "tf"}, optional
        How images are normalized, as in `preprocess_input`, by the model or before it. Default:
        "torch", and "tf" where images are not RGB.
    zero_init_residual : bool, default False
        Start the last BatchNormalization of every block at gamma = 0.
    cardinality : int, default 1
        Groups of the 3x3 convolution of a bottleneck block.
    base_width : int, default 64
        Channels per group in a stage of 64 filters.

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
    Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.

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
    stem = STEMS[architecture.stem]
    layer = functools.partial(Conv2D, **wants) if wants else keras.layers.Conv2D
    for each in stem.plan(x.shape[-1], architecture.filters[0]):
        x = blocks.convolution(
            x, each.outputs, each.kernel_size, each.strides, name=each.name, layer=layer
        )
        layer = keras.layers.Conv2D
        x = blocks.normalization(x, name=f"{each.name}_bn")
        x = blocks.activation(x, name=f"{each.name}_relu")
    if stem.pooling:
        # Zeros are as good as minus infinity around the outputs of a ReLU.
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    return x


def _stages(x, architecture):
    """The residual blocks."""
    build = blocks.KINDS[architecture.block].build
    options = dict(architecture.block_options, zero_init_residual=architecture.zero_init_residual)
    for name, filters, strides in architecture.layout():
        x = build(x, filters, strides, name=name, **options)
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
        Level "C3" is the output of stage conv3; the stride doubles from level to level.

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
    for layer in model.layers:
        if layer.name == "conv1_relu":
            stages["C1"] = layer.output
        elif match := re.fullmatch(r"conv(\d+)_block\d+_out", layer.name):
            stages[f"C{match[1]}"] = layer.output  # the last block of the stage stays
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
