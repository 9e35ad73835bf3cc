"""The first names of ResNet's layers: Caffe's, which Keras' files had until 2019.

============================  ==========================================  ======================
here, and in Keras since      Caffe, and Keras before                     Keras 1's variables
============================  ==========================================  ======================
conv1_conv, conv1_bn          conv1, bn_conv1 and scale_conv1             _W, _b
conv3_block1_0_conv           res3a_branch1                               _gamma, _beta
conv3_block2_1_bn             bn3b_branch2a and scale3b_branch2a, or      _running_mean
                              3b1 in the models of 101 and 152 layers
predictions                   fc1000                                      _running_std (variance)
============================  ==========================================  ======================

The models compute what those of `keras.applications` do: a stride in the first 1x1, biases, pixels
in the order BGR. Of a batch normalization and the scale behind it, one is made. What was another
epsilon goes into the variances.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

# BatchNormalization's epsilon in Keras, which those models used, in conversions of Caffe's models
# that have kept its scales apart, and in keras.applications today.
_EPSILON, _EPSILON_WITH_SCALES, _EPSILON_NOW = 1e-3, 1.1e-5, 1.001e-5

# Keras 1's names of variables, by today's; behind the name of the layer.
_VARIABLES = {
    "W": "kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
}

_NAME = re.compile(
    r"(?P<layer>conv1|bn_conv1|scale_conv1|fc\d+"
    r"|(?P<kind>res|bn|scale)(?P<stage>\d)(?P<block>[a-z]|[ab]\d+)_branch(?P<index>1|2[abc]))"
    r"/(?:(?P=layer)_)?(?P<variable>\w+)"
)
_OF_STEM = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn", "scale_conv1": "conv1_scale"}
_KINDS = {"res": "conv", "bn": "bn", "scale": "scale"}

# Matterport's Mask R-CNN shows its model RGB, less the means; its layers are named like this.
_OF_RGB = re.compile(r"(fpn|mrcnn|rpn)_")

# No layer has more filters.
_MOST = 2**16


def are_in(tensors: Mapping[str, Any]) -> bool:
    """Return whether tensors have these names.

    Parameters
    ----------
    tensors : mapping of str to array
        As `readers.read` names them.

    Returns
    -------
    bool

    Examples
    --------
    >>> from keras_resnet.pretrained import first_names
    >>> first_names.are_in({"res2a_branch2a/res2a_branch2a_W": None})
    True
    >>> first_names.are_in({"conv2_block1_1_conv/kernel": None})
    False
    """
    return any(_today(name) == "conv2_block1_1_conv/kernel" for name in tensors)


def translated(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Give tensors the names that keras.applications gives today, and what these stand for.

    Parameters
    ----------
    tensors : mapping of str to array
        As `readers.read` names them.

    Returns
    -------
    dict of str to array
        Those of the ResNet, as in today's files of keras.applications: without scales, and with
        variances for today's epsilon.
    tuple of str
        The names of all others.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.pretrained import first_names
    >>> early = {"bn_conv1/bn_conv1_running_std": np.ones(1), "mrcnn_mask/bias": np.ones(1)}
    >>> now, others = first_names.translated(early)
    >>> {name: array.round(6) for name, array in now.items()}, others
    ({'conv1_bn/moving_variance': array([1.00099])}, ('mrcnn_mask/bias',))
    """
    today = {name: _today(name) for name in tensors}
    others = tuple(name for name in tensors if today[name] is None)
    found = {now: tensors[name] for name, now in today.items() if now}
    scales = {name: found.pop(name) for name in [*found] if "_scale/" in name}
    for name in found:
        if name.endswith("/moving_variance"):
            epsilon = _EPSILON_WITH_SCALES if scales else _EPSILON
            found[name] = _vector(name, found[name]) + np.float32(epsilon - _EPSILON_NOW)
    for name in [name for name in scales if name.endswith("/gamma")]:
        gamma, beta = (name.replace("_scale/gamma", f"_bn/{each}") for each in ("gamma", "beta"))
        gain = _vector(name, scales[name])
        shift = _vector(name, scales.get(name.replace("gamma", "beta"), np.zeros_like(gain)))
        found[gamma] = gain * _vector(gamma, found.get(gamma, np.ones_like(gain)))
        found[beta] = gain * _vector(beta, found.get(beta, np.zeros_like(gain))) + shift
    first = "conv1_conv/kernel"
    if first in found and len(found[first].shape) == 4 and found[first].shape[-1] <= _MOST:
        kernel = np.asarray(found[first])
        # Those with scales have no biases.
        found.setdefault("conv1_conv/bias", np.zeros(kernel.shape[-1:], "float32"))
        if any(map(_OF_RGB.match, others)):
            found[first] = kernel[..., ::-1, :]
    return found, others


def _today(name):
    """The name that a tensor has today; None for those that are not of a ResNet."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    layer, variable = match["layer"], _VARIABLES.get(match["variable"], match["variable"])
    if layer.startswith("fc"):
        return f"predictions/{variable}"
    if layer in _OF_STEM:
        return f"{_OF_STEM[layer]}/{variable}"
    letter, number = match["block"][0], match["block"][1:]
    block = int(number) + 1 if number else ord(letter) - ord("a") + 1
    index = "abc".index(match["index"][1]) + 1 if len(match["index"]) > 1 else 0
    return f"conv{match['stage']}_block{block}_{index}_{_KINDS[match['kind']]}/{variable}"


def _vector(name, tensor):
    """A tensor of one axis as an array that may be computed with."""
    if len(tensor.shape) != 1 or tensor.shape[0] > _MOST:  # a small file can declare any size
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not one number per filter.")
    return np.asarray(tensor)
