"""The functional builder under the whole family: stem -> stages -> head."""

import contextlib
import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import keras

from keras_resnet import blocks, checks
from keras_resnet.layers import NORMALIZATIONS, Preprocessing

BLOCKS = ("bottleneck", "basic")
STEMS = ("imagenet", "cifar")
POOLINGS = (None, "avg", "max")


@contextlib.contextmanager
def _layers_in_bulk() -> Iterator[None]:
    """Build a whole net in half the time that its layers take one by one.

    Keras leaves the variables until the stateless scope closes. By then they are outside their
    layers' name scopes, and TensorFlow, which looks for a new kernel for every new name of a
    variable, finds one for all that are called "gamma". Names and paths in Keras stay what they
    were. The garbage collector would walk through the growing net again and again, in vain.
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
    preprocessing: Literal["torch", "caffe", "tf"] | None = None,
    zero_init_residual: bool = False,
    cardinality: int = 1,
    base_width: int = 64,
) -> keras.Model:
    """Build any net of the family, with fresh weights.

    `keras_resnet.ResNet` adds pretrained weights to this.

    Parameters
    ----------
    block_counts : sequence of int
        Blocks in each stage, conv2 first: (3, 4, 6, 3) for ResNet-50.
    block : {"bottleneck", "basic"}, default "bottleneck"
        Kind of the blocks.
    filters : sequence of int, default (64, 128, 256, 512)
        Width of each stage, as many as `block_counts`; the stem has the first one's.
    include_top : bool, default True
        Whether to end in global average pooling and a classifier.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`; `input_shape` then follows from it.
    input_shape : tuple of (height, width, channels), optional
        Shape of one image; height and width may be None. Default (224, 224, 3), for the "cifar"
        stem (32, 32, 3).
    pooling : {None, "avg", "max"}, default None
        What follows the last stage where `include_top` is False: nothing (a 4D tensor), or global
        average or max pooling.
    classes : int, default 1000
        Outputs of the classifier.
    classifier_activation : str or callable, optional, default "softmax"
        Activation of the classifier; None for logits.
    name : str, default "resnet"
        Name of the model.
    shortcut : {"A", "B", "C", None}, default "B"
        "A": zero-padded identity, without parameters; "B": projection where shapes change; "C":
        projection everywhere; None: the plain net, without shortcuts.
    stride_in : {"3x3", "1x1"}, default "3x3"
        The convolution of a bottleneck block that carries the stride: "3x3" as in PyTorch (v1.5),
        "1x1" as in the paper and keras.applications (v1).
    stem : {"imagenet", "cifar"}, default "imagenet"
        "imagenet": 7x7 convolution of stride 2 and max-pooling; "cifar": 3x3 of stride 1.
    include_preprocessing : bool, default False
        Whether the model takes raw images of 0 to 255 and normalizes them itself.
    preprocessing : {"torch", "caffe", "tf"}, optional
        How images are normalized, as in `preprocess_input`, by the model or before it. Default:
        "torch", and "tf" where images are not RGB.
    zero_init_residual : bool, default False
        Start the last BatchNormalization of every block at gamma = 0.
    cardinality : int, default 1
        Groups of the 3x3 convolution of a bottleneck block.
    base_width : int, default 64
        Channels a group in a stage of 64 filters.

    Returns
    -------
    keras.Model
        Functional, with layers named as in keras.applications. Its attribute `preprocessing` says
        how the images are normalized, and so do its layers (`graphs.wants_of`).

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
    _check(
        block_counts,
        filters,
        {"classes": classes, "cardinality": cardinality, "base_width": base_width},
        {
            "block": (block, BLOCKS),
            "stem": (stem, STEMS),
            "stride_in": (stride_in, blocks.STRIDE_PLACES),
            "pooling": (pooling, POOLINGS),
            "preprocessing": (preprocessing, (None, *NORMALIZATIONS)),
        },
    )
    if block == "basic" and (cardinality, base_width) != (1, 64):
        raise ValueError(
            f"cardinality={cardinality}, base_width={base_width} need block='bottleneck': a block "
            "of two convolutions has no narrow one to split into groups."
        )
    if block == "basic" and stride_in != "3x3":
        raise ValueError(
            f"stride_in={stride_in!r} needs block='bottleneck': a basic block has no 1x1 "
            "convolution to carry the stride."
        )
    checks.check_activation(classifier_activation)
    # Keras wants Python's own whole numbers, NumPy users have theirs.
    block_counts, filters = [int(count) for count in block_counts], [int(f) for f in filters]
    classes, cardinality, base_width = int(classes), int(cardinality), int(base_width)
    inputs = _input(input_tensor, input_shape, stem, total_stride(len(block_counts), stem))
    if not (include_preprocessing or keras.backend.is_float_dtype(inputs.dtype)):
        raise ValueError(
            f"input_tensor holds {inputs.dtype} numbers: cast them to float32, or let the model "
            "normalize raw images by include_preprocessing=True."
        )

    x = inputs
    preprocessing = preprocessing or ("torch" if x.shape[-1] == 3 else "tf")
    # Models of ImageNet are commonly tested on 224 of 256 pixels.
    crop = 0.875 if stem == "imagenet" else 1.0
    wants = None
    if include_preprocessing:
        x = Preprocessing(preprocessing, crop, name="preprocessing")(x)
    else:
        wants = dict(normalization=preprocessing, crop=crop)

    if stem == "imagenet":
        x = blocks.convolution(x, filters[0], 7, strides=2, wants=wants, name="conv1")
    else:
        x = blocks.convolution(x, filters[0], 3, wants=wants, name="conv1")
    x = blocks.activation(blocks.normalization(x, name="conv1_bn"), name="conv1_relu")
    if stem == "imagenet":
        # Zeros are as good as minus infinity around the outputs of a ReLU.
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
        x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)

    options = dict(shortcut=shortcut, zero_init_residual=zero_init_residual)
    if block == "bottleneck":
        options.update(stride_in=stride_in, cardinality=cardinality, base_width=base_width)
    residual_block = blocks.basic_block if block == "basic" else blocks.bottleneck_block
    for stage, (count, width) in enumerate(zip(block_counts, filters, strict=True), start=2):
        for index in range(1, count + 1):
            strides = 2 if index == 1 and stage > 2 else 1
            x = residual_block(x, width, strides, name=f"conv{stage}_block{index}", **options)

    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        # Probabilities in float32 where the net computes in half precision.
        half = keras.config.dtype_policy().compute_dtype in ("bfloat16", "float16")
        x = keras.layers.Dense(
            classes,
            activation=classifier_activation,
            dtype="float32" if half else None,
            name="predictions",
        )(x)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)

    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    with deep_graphs(sum(block_counts)):
        model = keras.Model(inputs, x, name=name)
    model.preprocessing = preprocessing
    return model


@contextlib.contextmanager
def deep_graphs(block_count: int = 1000) -> Iterator[None]:
    """Let Keras walk the graph of a very deep net: it recurses once for every layer.

    Needed around `keras.saving.load_model` and `keras.models.clone_model` of nets with several
    hundred blocks; the builders use it themselves.

    Parameters
    ----------
    block_count : int, default 1000
        Blocks of the net.

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
    """The outputs of a net's stages, for detectors and segmentation heads.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    levels : sequence of str, optional
        The levels wanted, "C1" (the stem) to "C5". Default: all stages from "C2" on.

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
    >>> net = keras_resnet.ResNet18(weights=None, include_top=False, input_shape=(64, 64, 3))
    >>> pyramid = keras_resnet.feature_pyramid(net)
    >>> {level: features.shape[1:] for level, features in pyramid.items()}
    {'C2': (16, 16, 64), 'C3': (8, 8, 128), 'C4': (4, 4, 256), 'C5': (2, 2, 512)}
    >>> detector_backbone = keras.Model(net.input, pyramid)
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
            f"levels={levels!r}: {model.name} has the levels {list(stages)}. A model that wraps a "
            "net as one layer must be asked for that layer."
        )
    return {level: stages[level] for level in levels}


def total_stride(stages: int, stem: str) -> int:
    """By how much a net shrinks height and width: also the smallest image it can see whole."""
    return (4 if stem == "imagenet" else 1) * 2 ** (stages - 1)


def _check(block_counts, filters, counts, choices):
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
    checks.check_positive(**counts)
    for argument, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(
                f"{argument}={value!r} must be one of {', '.join(map(repr, allowed))}."
            )
    checks.check_data_format()


def _input(input_tensor, input_shape, stem, smallest):
    """The tensor that images enter by, checked."""
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
        size = 224 if stem == "imagenet" else 32
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
            "pixels, the stride of this net."
        )
    if input_tensor is None:
        return keras.Input(shape)
    theirs = tuple(input_tensor.shape[1:])
    if len(theirs) != 3 or any(
        None not in sizes and sizes[0] != sizes[1] for sizes in zip(theirs, shape, strict=True)
    ):
        raise ValueError(
            f"input_shape={input_shape} contradicts input_tensor, whose images are {theirs}: "
            "leave one of them out."
        )
    return input_tensor
