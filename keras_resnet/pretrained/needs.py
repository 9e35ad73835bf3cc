"""The builder options that weights need, as far as they, or the layers of a model, tell them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet.graphs import wants_of
from keras_resnet.layers.view import noted
from keras_resnet.pretrained.naming import naming_of
from keras_resnet.pretrained.registry import CAFFE_OPTIONS, KERAS_V2_OPTIONS

UNREVEALED: dict[str, Any] = {
    "anti_aliasing": None,
    "stem": "imagenet",
    "stride_block": "first",
    "weight_standardization": False,
}
"""Options that weights do not reveal, with their defaults.

Of the stems, only "zero_padded" is hidden: the others have different weights.
"""


def options_of(configs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Infer the options of a model that its weights do not reveal from its layers.

    Parameters
    ----------
    configs : iterable of mapping
        `layer.get_config()` of every layer.

    Returns
    -------
    dict
        The builder options `stride_in`, `shortcut` and `preprocessing`, and the `crop`,
        `image_size` and `interpolation` that the model wants, as far as the layers determine them.
        Those of `UNREVEALED` where they are others, and an `output_stride` that stages keep to.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.pretrained.needs import options_of
    >>> net = keras_resnet.CIFARResNet(8, shortcut=None, include_preprocessing=True)
    >>> options_of(layer.get_config() for layer in net.layers)
    {'preprocessing': 'torch', 'crop': 1.0, 'shortcut': None}
    """
    by_name = {config["name"]: config for config in configs}
    options = {}
    for name, argument in (
        ("conv1_conv", "normalization"),
        ("conv1_1_conv", "normalization"),
        ("preprocessing", "mode"),
        ("transform", "mode"),  # of a detector
    ):
        config = by_name.get(name, {})
        if config.get(argument) and "crop" in config:
            options.update(preprocessing=config[argument], **noted(config))
    first = by_name.get("conv3_block1_1_conv", {})
    if tuple(first.get("kernel_size", ())) == (1, 1):
        options["stride_in"] = "1x1" if tuple(first["strides"]) == (2, 2) else "3x3"
    if "conv3_block1_out" in by_name:
        if not {"conv3_block1_add", "conv3_block1_preact_relu"} & by_name.keys():
            options["shortcut"] = None
        elif "conv3_block1_0_pool" in by_name:
            options["shortcut"] = "D"
        elif "conv3_block1_0_conv" not in by_name:
            options["shortcut"] = "A"
        elif "conv3_block2_out" in by_name:
            options["shortcut"] = "C" if "conv3_block2_0_conv" in by_name else "B"
        elif "stride_in" not in options:  # the first basic block keeps the shape, too
            options["shortcut"] = "C" if "conv2_block1_0_conv" in by_name else "B"
    return options | _unrevealed(by_name)


def _unrevealed(by_name):
    """The options of `UNREVEALED` and the `output_stride`, unless they are the usual ones."""
    options, stages, strided = {}, set(), set()
    for name, config in by_name.items():
        pool = tuple(config.get("pool_size") or ())
        if name.endswith("_blur") or (name, pool) == ("pool1_pool", (2, 2)):
            options["anti_aliasing"] = "average" if pool else "blur"
        if name.endswith("_conv") and "epsilon" in config:
            options["weight_standardization"] = True
        if match := re.match(r"conv(\d+)_block\d+_", name):
            stages.add(int(match[1]))
            if 2 in np.ravel(config.get("strides") or 1):
                strided.add(int(match[1]))
    if {"conv1_conv", "pool1_pad"} <= by_name.keys() and "conv1_relu" not in by_name:
        options["stem"] = "zero_padded"
    if 2 in strided:
        options["stride_block"] = "last"
    if len(strided) < len(stages) - 1:
        stem = 4 if any(name.startswith("pool1_") for name in by_name) else 1
        options["output_stride"] = stem * 2 ** len(strided)
    return options


def options_of_keras(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the builder options that weights of keras.applications need.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    mapping
        Empty if the tensors are not from there.

    Examples
    --------
    >>> from keras_resnet.pretrained.needs import options_of_keras
    >>> options_of_keras({"conv1_conv/bias": 0.0, "conv1_bn/gamma": 1.0})
    {'stride_in': '1x1', 'preprocessing': 'caffe'}
    """
    if "conv1_conv/bias" not in tensors:
        return {}
    if is_caffe(tensors):
        return CAFFE_OPTIONS
    return KERAS_V2_OPTIONS if "post_bn/gamma" in tensors else {}


def is_caffe(tensors: Mapping[str, Any]) -> bool:
    """Return whether tensors are from a ResNet of keras.applications.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    bool
        Whether the first convolution has a bias, as those of keras.applications have, and a
        BatchNormalization: that of a ResNetV2 has none.
    """
    return {"conv1_conv/bias", "conv1_bn/gamma"} <= tensors.keys()


def is_of_keras(tensors: Mapping[str, Any]) -> bool:
    """Return whether tensors have names that Keras gives.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    bool
    """
    return naming_of(tensors) in ("keras", "weights.h5")


def check_options(model: keras.Model, options: Mapping[str, Any]) -> None:
    """Check that a model has the options that its weights were trained with.

    With other options, the weights would load, but the predictions would be wrong.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    options : mapping
        Required options, as from `options_of`.

    Raises
    ------
    ValueError
        If the model has other options.
    """
    if not options:
        return
    found = options_of(layer.get_config() for layer in model.layers)
    ours = {**UNREVEALED, "output_stride": None, **found}
    if wants_of(model).normalization != "raw":
        ours.pop("preprocessing", None)  # it follows from the weights
    if not {"stride_in", "shortcut", "stride_block"}.isdisjoint(options):
        options = {**UNREVEALED, **options}  # they describe a whole model, not only its input
    for option, value in options.items():
        if ours.get(option, value) != value:
            raise ValueError(
                f"these weights need {option}={value!r}, {model.name} has {ours[option]!r}. "
                f"Leave out {option}: with weights=, the builders set it automatically."
            )
