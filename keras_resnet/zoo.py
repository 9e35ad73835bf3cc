"""The public builders: the named models as a table, and thin functions."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Literal

import keras

from keras_resnet import names, pretrained
from keras_resnet.checks import is_count
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.resnet import resnet

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

CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
"""The depths of the CIFAR-10 nets in the paper's table 6."""


def ResNet(
    block_counts: Sequence[int],
    block: Literal["bottleneck", "basic"] = "bottleneck",
    filters: Sequence[int] = (64, 128, 256, 512),
    *,
    weights: str | os.PathLike | None = None,
    **options,
) -> keras.Model:
    """Build any net of the family.

    Parameters
    ----------
    block_counts : sequence of int
        Blocks in each stage, conv2 first: (3, 4, 6, 3) for ResNet-50.
    block : {"bottleneck", "basic"}, default "bottleneck"
        Kind of the blocks.
    filters : sequence of int, default (64, 128, 256, 512)
        Width of each stage, as many as `block_counts`; the stem has the first one's.
    weights : path or None, default None
        None for fresh weights, or the path of a PyTorch checkpoint, `.safetensors`, `.h5`,
        `.weights.h5` or `.keras` file of this architecture.
    **options
        Those of `keras_resnet.resnet.resnet`: `include_top`, `input_shape`, `classes`, `shortcut`,
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
    >>> net = keras_resnet.ResNet(
    ...     (2, 2, 2, 2), cardinality=8, base_width=16, input_shape=(64, 64, 3), classes=10
    ... )
    >>> net.count_params()
    15749578
    """
    return _pretrained(None, weights, options, {"classes": 1000}, block_counts, block, filters)


def CIFARResNet(
    depth: int = 20,
    include_top: bool = True,
    weights: str | os.PathLike | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: Literal["avg", "max"] | None = None,
    classes: int = 10,
    classifier_activation: str | Callable | None = "softmax",
    name: str | None = None,
    *,
    stem: Literal["imagenet", "cifar"] = "cifar",
    **options,
) -> keras.Model:
    """Build a CIFAR net of the paper: 6n + 2 layers in three stages of 16, 32 and 64 filters.

    Parameters
    ----------
    depth : int, default 20
        8, 14, 20, 26, ...: the paper has 20, 32, 44, 56, 110 and 1202.
    include_top : bool, default True
        Whether to end in global average pooling and a classifier.
    weights : str, path or None, default None
        None for fresh weights, "cifar10" for those of the CIFAR-10 zoo (depths of the paper), or
        the path of a file, as in `ResNet`. A
        classifier in it for another number of `classes` than asked for stays out.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`.
    input_shape : tuple of (height, width, channels), default (32, 32, 3)
        Shape of one image, 4 px or more a side; height and width may be None.
    pooling : {None, "avg", "max"}, default None
        What follows the last stage where `include_top` is False.
    classes : int, default 10
        Outputs of the classifier.
    classifier_activation : str or callable, optional, default "softmax"
        Activation of the classifier; None for logits.
    name : str, default "cifar_resnet{depth}"
        Name of the model.
    stem : {"cifar", "imagenet"}, default "cifar"
        "cifar": 3x3 of stride 1; "imagenet": 7x7 of stride 2 and max-pooling.
    **options
        The remaining ones of `keras_resnet.resnet.resnet`: `shortcut`, "A" here as in the paper
        unless `weights` are those of another; `include_preprocessing`, `preprocessing`,
        `zero_init_residual`.

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
    options.update(
        include_top=include_top,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        name=name or f"cifar_resnet{depth}",
        stem=stem,
    )
    block_counts = [(depth - 2) // 6] * 3
    usual = {"classes": 10, "shortcut": "A"}
    return _pretrained(
        f"CIFARResNet{depth}", weights, options, usual, block_counts, "basic", (16, 32, 64)
    )


def _pretrained(architecture, weights, options, usual, *shape):
    """Build a net and load what `weights=` names; what the weights imply need not be said."""
    if weights is None:
        return resnet(*shape, **{**usual, **options})
    source = pretrained.load.find(weights, architecture)
    if options.get("preprocessing") is None:
        options.pop("preprocessing", None)
    with kernels_to_be_loaded():
        model = resnet(*shape, **{**usual, **source.options, **options})
    needed = source.options.get("preprocessing", model.preprocessing)
    if model.preprocessing != needed:
        raise ValueError(
            f"{source.argument}: these weights need preprocessing={needed!r}, not "
            f"{model.preprocessing!r}; left out, it is chosen by itself."
        )
    # Who asks for other classes than usual wants a classifier of their own.
    new_head = options.get("classes", usual["classes"]) != usual["classes"]
    return pretrained.load.load_source(model, source, new_head=new_head)


def _named(function_name):
    """The builder of one row of the table."""
    default_name = re.sub(r"(?<=Wide)(?=ResNet)", "_", function_name).lower()

    def build(
        include_top: bool = True,
        weights: str | os.PathLike | None = "imagenet",
        input_tensor: keras.KerasTensor | None = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: Literal["avg", "max"] | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable | None = "softmax",
        name: str = default_name,
        **options,
    ) -> keras.Model:
        options = {**MODELS[function_name], **options}
        options.update(
            include_top=include_top,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
        )
        return _pretrained(function_name, weights, options, {"classes": 1000})

    build.__name__ = build.__qualname__ = function_name
    shape = ", ".join(f"{key}={value!r}" for key, value in MODELS[function_name].items())
    build.__doc__ = f"""Build {function_name}: `ResNet({shape})`.

    Takes what `keras.applications.ResNet50` takes, in the same order, and the keywords of `ResNet`.

    Parameters
    ----------
    include_top : bool, default True
        Whether to end in global average pooling and a classifier.
    weights : str, path or None, default "imagenet"
        A tag of `keras_resnet.list_weights("{function_name}")`, "imagenet" for "imagenet_v1"; the
        path of a file, as in `ResNet`; or None for fresh weights. Where `classes` are other than
        1000, a classifier for another number of them stays out, and this is logged.
    input_tensor : Keras tensor, optional
        Use this as the input instead of a new `keras.Input`.
    input_shape : tuple of (height, width, channels), default (224, 224, 3)
        Shape of one image, 32 px or more a side; height and width may be None.
    pooling : {{None, "avg", "max"}}, default None
        What follows the last stage where `include_top` is False: nothing (a 4D tensor), or global
        average or max pooling.
    classes : int, default 1000
        Outputs of the classifier.
    classifier_activation : str or callable, optional, default "softmax"
        Activation of the classifier; None for logits.
    name : str, default "{default_name}"
        Name of the model.
    **options
        `shortcut`, `stride_in`, `stem`, `include_preprocessing`, `preprocessing`,
        `zero_init_residual`, `cardinality`, `base_width`: see `keras_resnet.resnet.resnet`. What
        pretrained weights imply, such as `stride_in="1x1"`, is chosen by itself.

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
    >>> import keras_resnet
    >>> backbone = keras_resnet.{function_name}(
    ...     include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg"
    ... )
    >>> backbone.name, len(backbone.output_shape)
    ('{default_name}', 2)
    """
    return build


ResNet18 = _named("ResNet18")
ResNet34 = _named("ResNet34")
ResNet50 = _named("ResNet50")
ResNet101 = _named("ResNet101")
ResNet152 = _named("ResNet152")
ResNeXt50_32x4d = _named("ResNeXt50_32x4d")
ResNeXt101_32x8d = _named("ResNeXt101_32x8d")
ResNeXt101_64x4d = _named("ResNeXt101_64x4d")
WideResNet50_2 = _named("WideResNet50_2")
WideResNet101_2 = _named("WideResNet101_2")


def builder(name: str) -> Callable[..., keras.Model]:
    """Find a builder by name, as the command line does.

    Parameters
    ----------
    name : str
        A named model ("ResNet50", "resnext50_32x4d") or a CIFAR net with its depth
        ("CIFARResNet20", "cifar_resnet56"); case, "-" and "_" do not matter.

    Returns
    -------
    callable
        A function that takes the keywords of the builders and returns a `keras.Model`.

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
        depth = int(match[1])
        return lambda **options: CIFARResNet(depth, **options)
    found = names.find("model", name, [*MODELS, "CIFARResNet20"], " (any depth of 6n + 2)")
    return globals()[found]
