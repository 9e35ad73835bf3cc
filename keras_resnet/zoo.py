"""The public builders: a table of the named models, and a short function for each."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import Literal

import keras
from typing_extensions import TypedDict, Unpack

from keras_resnet import names
from keras_resnet.blocks import Shortcut, StridePlace
from keras_resnet.checks import is_count
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.pretrained import load
from keras_resnet.pretrained.notices import warn
from keras_resnet.resnet import resnet

Weights = str | os.PathLike | None
ImageShape = tuple[int | None, int | None, int]
Pooling = Literal["avg", "max"] | None
Activation = str | Callable | None
StemName = Literal["imagenet", "cifar"]


class CIFAROptions(TypedDict, total=False):
    """Keywords of `CIFARResNet` besides those of `keras.applications`."""

    shortcut: Shortcut
    include_preprocessing: bool
    preprocessing: Literal["torch", "caffe", "detectron2", "tf"] | None
    zero_init_residual: bool


class NamedOptions(CIFAROptions, total=False):
    """Keywords of the named models besides those of `keras.applications`."""

    stem: StemName
    stride_in: StridePlace
    cardinality: int
    base_width: int


class Options(NamedOptions, total=False):
    """Keywords of `ResNet` besides `weights`."""

    include_top: bool
    input_tensor: keras.KerasTensor | None
    input_shape: ImageShape | None
    pooling: Pooling
    classes: int
    classifier_activation: Activation
    name: str


# (3, 4, 6, 3) and the like are table 1 of He et al. (2016). Cardinality and base width are table 1
# of Xie et al. (2017) for ResNeXt; Wide ResNet doubles the inner width (Zagoruyko and Komodakis,
# Wide Residual Networks, 2016).
MODELS = {
    "ResNet18": dict(block="basic", block_counts=(2, 2, 2, 2)),
    "ResNet34": dict(block="basic", block_counts=(3, 4, 6, 3)),
    "ResNet50": dict(block_counts=(3, 4, 6, 3)),
    "ResNet101": dict(block_counts=(3, 4, 23, 3)),
    "ResNet152": dict(block_counts=(3, 8, 36, 3)),
    "ResNeXt50_32x4d": dict(block_counts=(3, 4, 6, 3), cardinality=32, base_width=4),
    "ResNeXt101_32x8d": dict(block_counts=(3, 4, 23, 3), cardinality=32, base_width=8),
    "ResNeXt101_64x4d": dict(block_counts=(3, 4, 23, 3), cardinality=64, base_width=4),
    "WideResNet50_2": dict(block_counts=(3, 4, 6, 3), base_width=128),
    "WideResNet101_2": dict(block_counts=(3, 4, 23, 3), base_width=128),
}
"""The named models: what `keras_resnet.ResNet` has to be given for each."""

CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
"""The depths of the CIFAR-10 models in the paper's table 6."""


def ResNet(
    block_counts: Sequence[int],
    block: Literal["bottleneck", "basic"] = "bottleneck",
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
    block : {"bottleneck", "basic"}, default "bottleneck"
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


def ResNet18(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnet18",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNet-18: `ResNet((2, 2, 2, 2), "basic")`.

    Everything else is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNet18",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNet34(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnet34",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNet-34: `ResNet((3, 4, 6, 3), "basic")`.

    Everything else is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNet34",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNet50(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnet50",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNet-50: `ResNet((3, 4, 6, 3))`.

    Takes the arguments of `keras.applications.ResNet50`, in the same order, and more by keyword.

    Parameters
    ----------
    include_top : bool, default True
        Whether to end with global average pooling and a classifier.
    weights : str, path or None, default "imagenet"
        A tag that `keras_resnet.list_weights` gives for this model, "imagenet" for "imagenet_v1";
        the path of a file, as in `ResNet`; or None for fresh weights. If `classes` is not 1000, a
        classifier in the file for another number of them stays out, and this is logged.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`.
    input_shape : tuple of (height, width, channels), default (224, 224, 3)
        Shape of one image, at least 32 pixels a side; height and width may be None.
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
    return _named(
        "ResNet50",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNet101(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnet101",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNet-101: `ResNet((3, 4, 23, 3))`.

    Everything else is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNet101",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNet152(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnet152",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNet-152: `ResNet((3, 8, 36, 3))`.

    Everything else is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNet152",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNeXt50_32x4d(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnext50_32x4d",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNeXt-50 32x4d: `ResNet((3, 4, 6, 3), cardinality=32, base_width=4)`.

    The 3x3 convolutions have 32 groups (Xie et al., 2017). Everything else
    is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNeXt50_32x4d",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNeXt101_32x8d(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnext101_32x8d",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNeXt-101 32x8d: `ResNet((3, 4, 23, 3), cardinality=32, base_width=8)`.

    The 3x3 convolutions have 32 groups (Xie et al., 2017). Everything else
    is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNeXt101_32x8d",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def ResNeXt101_64x4d(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "resnext101_64x4d",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build ResNeXt-101 64x4d: `ResNet((3, 4, 23, 3), cardinality=64, base_width=4)`.

    The 3x3 convolutions have 64 groups (Xie et al., 2017). Everything else
    is as in `ResNet50`, the arguments too.
    """
    return _named(
        "ResNeXt101_64x4d",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def WideResNet50_2(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "wide_resnet50_2",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build Wide ResNet-50-2: `ResNet((3, 4, 6, 3), base_width=128)`.

    The 3x3 convolutions are twice as wide (Zagoruyko and Komodakis, 2016). Everything else
    is as in `ResNet50`, the arguments too.
    """
    return _named(
        "WideResNet50_2",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
    )


def WideResNet101_2(
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: ImageShape | None = None,
    pooling: Pooling = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str = "wide_resnet101_2",
    **options: Unpack[NamedOptions],
) -> keras.Model:
    """Build Wide ResNet-101-2: `ResNet((3, 4, 23, 3), base_width=128)`.

    The 3x3 convolutions are twice as wide (Zagoruyko and Komodakis, 2016). Everything else
    is as in `ResNet50`, the arguments too.
    """
    return _named(
        "WideResNet101_2",
        weights,
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name,
        **options,
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
    **options: Unpack[CIFAROptions],
) -> keras.Model:
    """Build a CIFAR model of the paper: 6n + 2 layers in three stages of 16, 32 and 64 filters.

    Parameters
    ----------
    depth : int, default 20
        8, 14, 20, 26, ...: the paper has 20, 32, 44, 56, 110 and 1202.
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
    stem : {"cifar", "imagenet"}, default "cifar"
        "cifar": 3x3 of stride 1; "imagenet": 7x7 of stride 2 and max-pooling.
    **options
        `shortcut`, `include_preprocessing`, `preprocessing`, `zero_init_residual`: see
        `keras_resnet.resnet.resnet`. `shortcut` is "A" by default, as in the paper, unless the
        weights are for another.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        For a depth that is not 6n + 2, and as `ResNet` does.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

    Examples
    --------
    >>> import keras_resnet
    >>> keras_resnet.CIFARResNet(20).count_params()  # 1,376 of them moving averages
    271098
    """
    if not is_count(depth) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth={depth!r} must be 6n + 2 with n >= 1: 8, 14, 20, 26, 32, ...")
    return _pretrained(
        f"CIFARResNet{depth}",
        weights,
        dict(
            options,
            block_counts=[(depth - 2) // 6] * 3,
            block="basic",
            filters=(16, 32, 64),
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name or f"cifar_resnet{depth}",
            stem=stem,
        ),
        {"classes": 10, "shortcut": "A"},
    )


_BUILDERS = {
    build.__name__: build
    for build in (
        ResNet18,
        ResNet34,
        ResNet50,
        ResNet101,
        ResNet152,
        ResNeXt50_32x4d,
        ResNeXt101_32x8d,
        ResNeXt101_64x4d,
        WideResNet50_2,
        WideResNet101_2,
    )
}


def builder(name: str) -> Callable[..., keras.Model]:
    """Find a builder by name, as the command line does.

    Parameters
    ----------
    name : str
        A named model ("ResNet50", "resnext50_32x4d") or a CIFAR model with its depth
        ("CIFARResNet20", "cifar_resnet56"); case, "-" and "_" do not matter.

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
    if match := re.fullmatch(r"cifarresnet(\d+)", names.plain(name)):
        return functools.partial(CIFARResNet, int(match[1]))
    found = names.find("model", name, [*_BUILDERS, "CIFARResNet20"], " (any depth of 6n + 2)")
    return _BUILDERS[found]


def _named(model, weights, **options):
    """Build a model of the table."""
    return _pretrained(model, weights, {**MODELS[model], **options}, {"classes": 1000})


def _pretrained(architecture, weights, options, usual):
    """Build a model and load its weights; what the weights imply need not be said."""
    if weights is None:
        return resnet(**{**usual, **options})
    source = load.find(weights, architecture)
    if options.get("preprocessing") is None:
        options.pop("preprocessing", None)
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
    # Of images that are not RGB, there is but one way.
    if source.silent and "preprocessing" not in options and needed != "tf":
        warn(
            f"{source.argument}: the file does not say how images have to be normalized; "
            f"{needed!r} is assumed. Say it with preprocessing=."
        )
    return model
