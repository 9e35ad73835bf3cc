"""PyTorch's names and layouts for the tensors of a net, and back.

The names are torchvision's: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, `fc`. They
are derived from the names of a model's layers, so any net of the family has a mapping.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

# Of a Keras variable: its name in PyTorch, and the order of PyTorch's axes among Keras' axes.
_CONVOLUTION = {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))}
_DENSE = {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))}
_NORMALIZATION = {
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}

# PyTorch counts the batches that a BatchNormalization has seen; Keras has no use for it.
_COUNTER = "num_batches_tracked"


class _Tensor(NamedTuple):
    variable: keras.Variable
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in PyTorch's layout."""
        return tuple(self.variable.shape[axis] for axis in self.axes)


def state_dict_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the PyTorch state dict that fits a model.

    Parameters
    ----------
    model : keras.Model
        A net of this package.

    Returns
    -------
    dict of str to tuple of int
        In the order of the model's layers, without PyTorch's batch counters.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.pretrained import state_dict_shapes
    >>> net = keras_resnet.ResNet18(weights=None, input_shape=(32, 32, 3))
    >>> state_dict_shapes(net)["layer2.0.downsample.0.weight"]
    (128, 64, 1, 1)
    """
    return {name: tensor.shape for name, tensor in _tensors(model).items()}


def load_state_dict(model: keras.Model, state_dict: Mapping[str, np.ndarray]) -> None:
    """Load the tensors of a PyTorch ResNet or ResNeXt into the same net of ours.

    Strict: every tensor of the model must come, no other, each in its shape. Nothing is changed
    before all of them have been checked.

    Parameters
    ----------
    model : keras.Model
        A net of this package, of the same architecture.
    state_dict : mapping of str to array
        Arrays by torchvision's names, in PyTorch's layout; `num_batches_tracked` is passed over.
        A `torch.Tensor` will do as an array.

    Raises
    ------
    ValueError
        For missing, unexpected or misshapen tensors, or such of no real numbers, naming them.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet.pretrained import load_state_dict, state_dict_shapes
    >>> net = keras_resnet.ResNet18(weights=None, input_shape=(32, 32, 3))
    >>> zeros = {name: np.zeros(shape) for name, shape in state_dict_shapes(net).items()}
    >>> load_state_dict(net, zeros)
    >>> load_state_dict(net, {**zeros, "fc.bias": np.zeros(10)})
    Traceback (most recent call last):
        ...
    ValueError: state_dict: fc.bias has shape (10,), resnet18 needs (1000,).
    """
    tensors = _tensors(model)
    given = {name for name in state_dict if not name.endswith(_COUNTER)}
    for names, complaint in (
        (tensors.keys() - given, f"lacks tensors that {model.name} needs"),
        (given - tensors.keys(), f"has tensors that {model.name} does not know"),
    ):
        if names:
            raise ValueError(f"state_dict {complaint}: {_some(sorted(names))}.")
    arrays = {name: np.asarray(state_dict[name]) for name in tensors}
    for name, tensor in tensors.items():
        if arrays[name].shape != tensor.shape:
            raise ValueError(
                f"state_dict: {name} has shape {arrays[name].shape}, {model.name} needs "
                f"{tensor.shape}."
            )
        if not np.can_cast(arrays[name].dtype, "float64", "same_kind"):
            raise ValueError(f"state_dict: {name} holds {arrays[name].dtype}, not real numbers.")
    for name, (variable, axes) in tensors.items():
        variable.assign(arrays[name].transpose(np.argsort(axes)))


def _tensors(model):
    """Every variable of the model by its name in a PyTorch state dict."""
    tensors = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        if isinstance(layer, keras.layers.Conv2D):
            table = _CONVOLUTION
        elif isinstance(layer, keras.layers.Dense):
            table = _DENSE
        elif isinstance(layer, keras.layers.BatchNormalization):
            table = _NORMALIZATION
        else:
            raise ValueError(f"Layer {layer.name} of {model.name} has no counterpart in PyTorch.")
        module = _module_name(layer.name)
        for variable in layer.weights:
            name, axes = table[variable.name]
            tensors[f"{module}.{name}"] = _Tensor(variable, axes)
    return tensors


def _module_name(layer_name):
    """The name of the PyTorch module that a layer of ours corresponds to."""
    if layer_name == "predictions":
        return "fc"
    if match := re.fullmatch(r"conv1_(conv|bn)", layer_name):
        return f"{match[1]}1"
    if match := re.fullmatch(r"conv(\d+)_block(\d+)_(\d)_(conv|bn)", layer_name):
        stage, block, index, kind = match.groups()
        block_name = f"layer{int(stage) - 1}.{int(block) - 1}"
        if index == "0":
            return f"{block_name}.downsample.{0 if kind == 'conv' else 1}"
        return f"{block_name}.{kind}{index}"
    raise ValueError(f"Layer {layer_name} is not one of a net of this package.")


def _some(names, most=3):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
