"""What other libraries call the tensors of a model.

All names derive from the names of the layers, so there is a mapping for every model of the family:

=============  ================================================  ==================================
naming         stem, a shortcut, head                            written by
=============  ================================================  ==================================
"torchvision"  conv1, layer2.0.downsample.0, fc                  torchvision, timm
"averaged"     conv1.0, layer2.0.downsample.1, fc                timm, for pooled shortcuts ("D")
"resnetv2"     stem.conv, stages.1.blocks.0.downsample, head.fc  timm, for pre-activation blocks
"cifar"        conv1, layer2.0.shortcut.0, linear                the CIFAR-10 zoo
"keras"        conv1_conv, conv3_block1_0_conv, predictions      keras.applications, Keras 2
"weights.h5"   layers/conv2d, layers/conv2d_12, ...              Keras 3: numbered layer classes
=============  ================================================  ==================================
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import keras

from keras_resnet.names import some

# By Keras variable: its name in PyTorch, and for each PyTorch axis the index of the Keras axis.
_CONVOLUTION = {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))}

_DENSE = {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))}

_NORMALIZATION = {
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}

# By layer class: its name in a .weights.h5 file, and its variables.
_LAYERS = {
    "Conv1D": ("conv1d", {"kernel": ("weight", (2, 1, 0))}),
    "Conv2D": ("conv2d", _CONVOLUTION),
    "GroupedConv2D": ("grouped_conv2d", _CONVOLUTION),
    "StandardizedConv2D": ("standardized_conv2d", _CONVOLUTION),
    "BatchNormalization": ("batch_normalization", _NORMALIZATION),
    "GroupNormalization": ("group_normalization", _NORMALIZATION),
    "Dense": ("dense", _DENSE),
}


class _Modules(NamedTuple):
    """What a PyTorch library calls the modules of its models."""

    block: str  # by the numbers of its stage and within this, from `first` and 0
    first: int
    inside: Mapping[str, str]  # of blocks: by the rest of a layer's name, "bn" also for "gn"
    outside: Mapping[str, str]  # by the name of a layer


_STEM = {"conv1_conv": "conv1", "conv1_bn": "bn1"}

_DEEP_STEM = {
    "conv1_1_conv": "conv1.0",
    "conv1_1_bn": "conv1.1",
    "conv1_2_conv": "conv1.3",
    "conv1_2_bn": "conv1.4",
    "conv1_3_conv": "conv1.6",
    "conv1_3_bn": "bn1",
    "pool1_conv": "maxpool.0",
    "pool1_bn": "maxpool.1",
}

_BLOCK = {f"{index}_{kind}": f"{kind}{index}" for index in (1, 2, 3) for kind in ("conv", "bn")}

_ATTENTION = {"se_1_conv": "se.fc1", "se_2_conv": "se.fc2", "eca_conv": "se.conv"}

_TORCH = {
    "torchvision": _Modules(
        "layer{}.{}",
        1,
        {**_BLOCK, **_ATTENTION, "0_conv": "downsample.0", "0_bn": "downsample.1"},
        {**_STEM, **_DEEP_STEM, "predictions": "fc"},
    ),
    "averaged": _Modules(
        "layer{}.{}",
        1,
        {**_BLOCK, **_ATTENTION, "0_conv": "downsample.1", "0_bn": "downsample.2"},
        {**_STEM, **_DEEP_STEM, "predictions": "fc"},
    ),
    "cifar": _Modules(
        "layer{}.{}",
        1,
        {**_BLOCK, "0_conv": "shortcut.0", "0_bn": "shortcut.1"},
        {**_STEM, "predictions": "linear"},
    ),
    "resnetv2": _Modules(
        "stages.{}.blocks.{}",
        0,
        {
            **_ATTENTION,
            "0_conv": "downsample.conv",
            "preact_bn": "norm1",
            **{f"{index}_conv": f"conv{index}" for index in (1, 2, 3)},
            **{f"{index}_bn": f"norm{index + 1}" for index in (1, 2)},
        },
        {
            "conv1_conv": "stem.conv",
            **{f"conv1_{index}_conv": f"stem.conv{index}" for index in (1, 2, 3)},
            **{f"conv1_{index}_bn": f"stem.norm{index}" for index in (1, 2)},
            "post_bn": "norm",
            "predictions": "head.fc",
        },
    ),
}

# By naming: the prefix of the head's tensors, and the name of its bias.
HEADS = {
    **{
        naming: (f"{modules.outside['predictions']}.", f"{modules.outside['predictions']}.bias")
        for naming, modules in _TORCH.items()
    },
    "keras": ("predictions/", "predictions/bias"),
    "weights.h5": ("layers/dense/", "layers/dense/vars/1"),
}


def naming_of(names: Mapping[str, Any]) -> str:
    """Detect the naming of tensors.

    Parameters
    ----------
    names : mapping of str, or iterable of str
        Names of tensors.

    Returns
    -------
    str
        A row of the table at the top of this file; "torchvision" for "averaged", too.

    Examples
    --------
    >>> from keras_resnet.pretrained.naming import naming_of
    >>> naming_of(["conv1.weight", "linear.weight"])
    'cifar'
    """
    if any(name.startswith("layers/") for name in names):
        return "weights.h5"
    if any("/" in name for name in names):
        return "keras"
    if any(name.startswith("linear.") or ".shortcut." in name for name in names):
        return "cifar"
    if any(re.match(r"stages\.\d+\.blocks\.", name) for name in names):
        return "resnetv2"
    return "torchvision"


def naming_for(names: Iterable[str]) -> str:
    """Return the naming that torchvision or timm has for a kind of model.

    Parameters
    ----------
    names : iterable of str
        Names of the model's layers.

    Returns
    -------
    {"torchvision", "averaged", "resnetv2"}

    Examples
    --------
    >>> from keras_resnet.pretrained.naming import naming_for
    >>> naming_for(["conv1_conv", "conv2_block1_preact_bn"])
    'resnetv2'
    """
    names = [*names]
    if any(re.search(r"_preact_[bg]n$|^post_[bg]n$", name) for name in names):
        return "resnetv2"
    if any(re.search(r"_block\d+_0_pool$", name) for name in names):
        return "averaged"
    return "torchvision"


def module_name(layer_name: str, naming: str = "torchvision") -> str:
    """Return the name of the PyTorch module for a layer of a ResNet.

    Parameters
    ----------
    layer_name : str
        Name of the layer.
    naming : {"torchvision", "averaged", "resnetv2", "cifar"}, default "torchvision"
        Naming of the modules.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For a layer that no such model has.

    Examples
    --------
    >>> from keras_resnet.pretrained.naming import module_name
    >>> module_name("conv3_block1_0_bn"), module_name("conv3_block1_preact_bn", "resnetv2")
    ('layer2.0.downsample.1', 'stages.1.blocks.0.norm1')
    """
    modules, name = _TORCH[naming], re.sub("_gn$", "_bn", layer_name)
    if name in modules.outside:
        return modules.outside[name]
    match = re.fullmatch(r"conv(\d+)_block(\d+)_(\w+)", name)
    if match and match[3] in modules.inside:
        block = modules.block.format(int(match[1]) - 2 + modules.first, int(match[2]) - 1)
        return f"{block}.{modules.inside[match[3]]}"
    owner = "the CIFAR-10 zoo" if naming == "cifar" else "this package"
    raise ValueError(f"layer {layer_name} does not belong to a model of {owner}.")


def variables_of(
    layer: keras.Layer, model: keras.Model
) -> tuple[str, list[tuple[keras.Variable, str, tuple[int, ...]]]]:
    """Describe the variables of a layer, as files name them.

    Parameters
    ----------
    layer : keras.Layer
        A layer with weights.
    model : keras.Model
        Its model, for error messages.

    Returns
    -------
    str
        The layer's class in a `.weights.h5` file.
    list of (keras.Variable, str, tuple of int)
        Each variable, its name in PyTorch, and for each PyTorch axis the index of the Keras axis.

    Raises
    ------
    ValueError
        For a layer that no PyTorch model of this family has.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.pretrained.naming import variables_of
    >>> model = keras_resnet.ResNet18(weights=None)
    >>> kind, variables = variables_of(model.get_layer("conv1_conv"), model)
    >>> kind, [rest for _, *rest in variables]
    ('conv2d', [['weight', (3, 2, 0, 1)]])
    """
    kind = type(layer).__name__
    if kind not in _LAYERS:
        raise ValueError(f"layer {layer.name} of {model.name} is not in the original ResNets.")
    keras_name, parts = _LAYERS[kind]
    if unknown := [variable.name for variable in layer.weights if variable.name not in parts]:
        raise ValueError(
            f"layer {layer.name} of {model.name} is quantized or has an adapter: it has "
            f"{some(unknown)}, which the original ResNets do not have."
        )
    return keras_name, [(variable, *parts[variable.name]) for variable in layer.weights]
