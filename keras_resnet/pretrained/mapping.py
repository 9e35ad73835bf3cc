"""Names and layouts of tensors elsewhere, and the variables of a net that they belong to.

The names follow from those of a model's layers, so any net of the family has a mapping:

=============  ============================================  ====================================
naming         stem, a shortcut, head                        who writes it
=============  ============================================  ====================================
"torchvision"  conv1, layer2.0.downsample.0, fc              torchvision, timm
"cifar"        conv1, layer2.0.shortcut.0, linear            the CIFAR-10 zoo
"keras"        conv1_conv, conv3_block1_0_conv, predictions  keras.applications, Keras 2
"weights.h5"   layers/conv2d, layers/conv2d_12, ...          Keras 3: classes of layers, numbered
=============  ============================================  ====================================
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import keras
import ml_dtypes
import numpy as np
from keras import ops
from safetensors.numpy import save_file

from keras_resnet.files import written_beside
from keras_resnet.pretrained.notices import warn
from keras_resnet.pretrained.registry import CAFFE_OPTIONS

logger = logging.getLogger("keras_resnet")

# Of a Keras variable: its name in PyTorch, and the order of PyTorch's axes among Keras' axes.
_CONVOLUTION = {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))}
_DENSE = {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))}
_NORMALIZATION = {
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}
# With the class's name in a .weights.h5 file.
_LAYERS = {
    "Conv2D": ("conv2d", _CONVOLUTION),
    "GroupedConv2D": ("grouped_conv2d", _CONVOLUTION),
    "BatchNormalization": ("batch_normalization", _NORMALIZATION),
    "Dense": ("dense", _DENSE),
}

# Of a naming: what the names of the head begin with, and its bias.
_HEADS = {
    "torchvision": ("fc.", "fc.bias"),
    "cifar": ("linear.", "linear.bias"),
    "keras": ("predictions/", "predictions/bias"),
    "weights.h5": ("layers/dense/", "layers/dense/vars/1"),
}

# What wrappers of modules put before every name: data parallel training, torch.compile, trainers.
_PREFIXES = ("module.", "_orig_mod.", "model.")

# PyTorch counts the batches that a BatchNormalization has seen; Keras has no use for it.
_COUNTER = "num_batches_tracked"

# keras.applications divides by the root of the variance plus this.
_KERAS_EPSILON = 1.001e-5


class _Slot(NamedTuple):
    """A variable that takes a tensor, and PyTorch's axes among its own."""

    variable: keras.Variable
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the tensor must have."""
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
    return {name: slot.shape for name, slot in _slots(model, "torchvision").items()}


def load_state_dict(
    model: keras.Model, state_dict: Mapping[str, Any], *, new_head: bool = False
) -> None:
    """Load the tensors of a ResNet or ResNeXt from elsewhere into the same net of ours.

    Strict: every tensor of the model must come, no other, each in its shape. Nothing is changed
    before all of them have been checked. Only a head that the model lacks is left out.

    Parameters
    ----------
    model : keras.Model
        A net of this package, of the same architecture.
    state_dict : mapping of str to array
        Arrays by the names of torchvision, timm or the CIFAR-10 zoo, in PyTorch's layout, or by
        those of keras.applications, in Keras' layout; which, the names tell, and the latter also
        that the model's `preprocessing` is "caffe". "module." before all
        of them is passed over, and so are PyTorch's batch counters. A `torch.Tensor` on the CPU
        will do as an array.
    new_head : bool, default False
        Whether the model may keep its own head where the one that comes is for another number of
        classes. This is logged.

    Raises
    ------
    ValueError
        For missing, unexpected or misshapen tensors, or such of no floating-point numbers, naming
        them; for those of keras.applications in a net of other strides or preprocessing.

    Warns
    -----
    RuntimeWarning
        For tensors that hold NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet.pretrained import load_state_dict, state_dict_shapes
    >>> net = keras_resnet.ResNet18(weights=None, input_shape=(32, 32, 3))
    >>> zeros = {name: np.zeros(shape) for name, shape in state_dict_shapes(net).items()}
    >>> load_state_dict(net, zeros)
    >>> load_state_dict(net, {**zeros, "bn1.bias": np.zeros(10)})
    Traceback (most recent call last):
        ...
    ValueError: state_dict: bn1.bias has shape (10,), resnet18 needs (64,).
    """
    load_tensors(model, state_dict, "state_dict", new_head=new_head)


def load_tensors(
    model: keras.Model, tensors: Mapping[str, Any], argument: str, *, new_head: bool = False
) -> None:
    """Load tensors into a model, all of them or none: `load_state_dict` for any source.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    tensors : mapping of str to array
        As in `load_state_dict`, or by the names of a `.weights.h5` file.
    argument : str
        Where the tensors come from, for what errors say.
    new_head : bool, default False
        As in `load_state_dict`.

    Raises
    ------
    ValueError
        As `load_state_dict` does.
    """
    try:
        if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
            raise TypeError("it must map names of tensors to arrays.")
        tensors = {
            name: tensor if isinstance(getattr(tensor, "dtype", None), np.dtype)
            else np.asarray(tensor)
            for name, tensor in _plain_names(tensors).items()
        }  # fmt: skip
        naming, caffe = naming_of(tensors), is_caffe(tensors)
        if caffe:
            check_options(model, CAFFE_OPTIONS)
        slots = _slots(model, naming)
        if naming == "keras":
            tensors = _fold_biases(model, tensors)
        _leave_out_head(model, naming, slots, tensors, new_head)
        _check_names(model, slots, tensors)
        _check_shapes(model, slots, tensors)
        with np.errstate(over="ignore"):
            broken = [
                name
                for name, slot in slots.items()
                if not np.isfinite(np.asarray(tensors[name], slot.variable.dtype)).all()
            ]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: {' '.join(str(error).split())}") from error
    if broken:
        warn(f"{argument}: NaN or infinity in {_some(broken)}.")
    for name, (variable, axes) in slots.items():
        with np.errstate(over="ignore"):  # warned of above
            array = np.asarray(tensors[name], variable.dtype)
        inverse = np.argsort(axes).tolist()
        if inverse == sorted(inverse):
            # A copy of its own: JAX would look at the memory of the file for as long as it lives.
            variable.assign(array.copy())
        else:
            variable.assign(ops.transpose(ops.convert_to_tensor(array), inverse))
    if caffe:
        model.preprocessing = CAFFE_OPTIONS["preprocessing"]


def to_torch(
    model: keras.Model,
    path: str | os.PathLike | None = None,
    *,
    naming: Literal["torchvision", "cifar"] = "torchvision",
) -> dict[str, np.ndarray]:
    """The weights of a model as a PyTorch state dict; with a path, as a safetensors file too.

    Parameters
    ----------
    model : keras.Model
        A net of this package. The PyTorch net must have its stride where `stride_in` has it here,
        and its images the preprocessing that they have here.
    path : path, optional
        Where to write a `.safetensors` file, as timm and `safetensors.torch.load_file` read it.
    naming : {"torchvision", "cifar"}, default "torchvision"
        Whose names the tensors get: torchvision's, which are timm's too, or the CIFAR-10 zoo's.

    Returns
    -------
    dict of str to numpy.ndarray
        In PyTorch's layout, contiguous, with PyTorch's batch counters at 0.

    Raises
    ------
    ValueError
        For an unknown naming, or a model with other layers than PyTorch's.

    Examples
    --------
    >>> import keras_resnet
    >>> net = keras_resnet.ResNet18(weights=None, input_shape=(32, 32, 3))
    >>> state_dict = keras_resnet.pretrained.to_torch(net)
    >>> state_dict["layer1.0.conv1.weight"].shape
    (64, 64, 3, 3)
    """
    if naming not in ("torchvision", "cifar"):
        raise ValueError(f"naming={naming!r} must be one of 'torchvision', 'cifar'.")
    state_dict = {}
    for name, (variable, axes) in _slots(model, naming).items():
        array = ops.convert_to_numpy(variable.value)
        state_dict[name] = np.ascontiguousarray(array.transpose(axes))
        if name.endswith("running_var"):
            state_dict[name.replace("running_var", _COUNTER)] = np.array(0, "int64")
    if path is not None:
        with written_beside(path) as partial:
            options = options_of(layer.get_config() for layer in model.layers)
            # Only a built net knows it, one loaded from a file only by its layers.
            if hasattr(model, "preprocessing"):
                options["preprocessing"] = model.preprocessing
            metadata = {"format": "pt", "keras_resnet": json.dumps(options)}
            save_file(state_dict, partial, metadata=metadata)
    return state_dict


def naming_of(names: Mapping[str, Any]) -> str:
    """Whose names these are: a key of the table at the head of this file.

    Parameters
    ----------
    names : mapping of str, or iterable of str
        Names of tensors.

    Returns
    -------
    str

    Examples
    --------
    >>> from keras_resnet.pretrained.mapping import naming_of
    >>> naming_of(["conv1.weight", "linear.weight"])
    'cifar'
    """
    if any(name.startswith("layers/") for name in names):
        return "weights.h5"
    if any("/" in name for name in names):
        return "keras"
    if any(name.startswith("linear.") or ".shortcut." in name for name in names):
        return "cifar"
    return "torchvision"


def classes_of(tensors: Mapping[str, Any]) -> int | None:
    """How many classes the head among some tensors is for; None if there is no head.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    int or None
    """
    tensors = _plain_names(tensors)
    _, bias = _HEADS[naming_of(tensors)]
    return int(tensors[bias].shape[0]) if bias in tensors and tensors[bias].shape else None


def is_caffe(tensors: Mapping[str, Any]) -> bool:
    """Whether tensors are those of keras.applications' ResNets: only these have biases.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    bool
    """
    return "conv1_conv/bias" in tensors


def check_options(model: keras.Model, options: Mapping[str, Any]) -> None:
    """Weights that were trained with other options would load, and predict nonsense.

    Parameters
    ----------
    model : keras.Model
        A net of this package.
    options : mapping
        What the weights need, of what `options_of` returns.

    Raises
    ------
    ValueError
        If the net has something else.
    """
    if not options:
        return
    ours = options_of(layer.get_config() for layer in model.layers)
    for option, value in options.items():
        if ours.get(option, value) != value:
            raise ValueError(
                f"these weights need {option}={value!r}, {model.name} has {ours[option]!r}. The "
                "builders choose it by themselves where weights= names them."
            )


def options_of(configs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What leaves no trace in the weights of a net, from its layers.

    Parameters
    ----------
    configs : iterable of mapping
        `layer.get_config()` of every layer.

    Returns
    -------
    dict
        The builder's options `stride_in`, `shortcut` and `preprocessing`, and the `crop` of the
        preprocessing layer, as far as the layers tell.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.pretrained.mapping import options_of
    >>> net = keras_resnet.CIFARResNet(8, shortcut=None, include_preprocessing=True)
    >>> options_of(layer.get_config() for layer in net.layers)
    {'preprocessing': 'torch', 'crop': 1.0, 'shortcut': None}
    """
    by_name = {config["name"]: config for config in configs}
    options = {}
    preprocessing = by_name.get("preprocessing", {})
    if {"mode", "crop"} <= preprocessing.keys():
        options.update(preprocessing=preprocessing["mode"], crop=preprocessing["crop"])
    first = by_name.get("conv3_block1_1_conv", {})
    if tuple(first.get("kernel_size", ())) == (1, 1):
        options["stride_in"] = "1x1" if tuple(first["strides"]) == (2, 2) else "3x3"
    if "conv3_block1_out" in by_name:
        if "conv3_block1_add" not in by_name:
            options["shortcut"] = None
        elif "conv3_block1_0_conv" not in by_name:
            options["shortcut"] = "A"
        elif "conv3_block2_out" in by_name:
            options["shortcut"] = "C" if "conv3_block2_0_conv" in by_name else "B"
        elif "stride_in" not in options:  # the first of basic blocks keeps the shape, too
            options["shortcut"] = "C" if "conv2_block1_0_conv" in by_name else "B"
    return options


def _slots(model: keras.Model, naming: str) -> dict[str, _Slot]:
    """Every variable of the model by the name of its tensor."""
    slots, counts = {}, Counter()
    for layer in model.layers:
        if not layer.weights:
            continue
        kind = type(layer).__name__
        if kind not in _LAYERS:
            raise ValueError(f"Layer {layer.name} of {model.name} has no counterpart elsewhere.")
        keras_name, parts = _LAYERS[kind]
        number = f"_{counts[keras_name]}" if counts[keras_name] else ""
        counts[keras_name] += 1
        if unknown := [variable.name for variable in layer.weights if variable.name not in parts]:
            raise ValueError(
                f"Layer {layer.name} of {model.name} is quantized or has been adapted: it has "
                f"{_some(unknown)}, which has no counterpart elsewhere."
            )
        for index, variable in enumerate(layer.weights):
            torch_name, axes = parts[variable.name]
            if naming == "weights.h5":
                name = f"layers/{keras_name}{number}/vars/{index}"
            elif naming == "keras":
                name = f"{layer.name}/{variable.name}"
            else:
                name = f"{_module_name(layer.name, naming)}.{torch_name}"
            if naming in ("weights.h5", "keras"):
                axes = tuple(range(len(axes)))
            slots[name] = _Slot(variable, axes)
    return slots


def _module_name(layer_name, naming):
    """The name of the PyTorch module that a layer of ours corresponds to."""
    if layer_name == "predictions":
        return "linear" if naming == "cifar" else "fc"
    if match := re.fullmatch(r"conv1_(conv|bn)", layer_name):
        return f"{match[1]}1"
    if match := re.fullmatch(r"conv(\d+)_block(\d+)_(\d)_(conv|bn)", layer_name):
        stage, block, index, kind = match.groups()
        block_name = f"layer{int(stage) - 1}.{int(block) - 1}"
        if index == "0":
            shortcut = "shortcut" if naming == "cifar" else "downsample"
            return f"{block_name}.{shortcut}.{0 if kind == 'conv' else 1}"
        return f"{block_name}.{kind}{index}"
    raise ValueError(f"Layer {layer_name} is not one of a net of this package.")


def _plain_names(tensors):
    """Without what wrappers put before all names, and without batch counters."""
    while prefix := next(
        (each for each in _PREFIXES if tensors and all(n.startswith(each) for n in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: each for name, each in tensors.items() if not name.endswith(_COUNTER)}


def _fold_biases(model, tensors):
    """Take keras.applications' biases and epsilon into the moving averages, exactly.

    A bias before a BatchNormalization shifts what this subtracts, so it may as well be taken off
    the moving mean; a larger epsilon may as well be added to the moving variance.
    """
    tensors = dict(tensors)
    for layer in model.layers:
        bias, mean, variance = (
            layer.name.removesuffix("_bn") + "_conv/bias",
            f"{layer.name}/moving_mean",
            f"{layer.name}/moving_variance",
        )
        if layer.name.endswith("_bn") and {bias, mean, variance} <= tensors.keys():
            # Before anything is computed: a tensor can claim any size for nothing.
            for name in (bias, mean, variance):
                _check_shape(model, name, tensors[name], tuple(layer.moving_mean.shape))
            tensors[mean] = np.asarray(tensors[mean]) - np.asarray(tensors.pop(bias))
            tensors[variance] = np.asarray(tensors[variance]) + np.float32(
                _KERAS_EPSILON - layer.epsilon
            )
    return tensors


def _leave_out_head(model, naming, slots, tensors, new_head):
    """Take a head that has no place in the model out of both, where that is right."""
    prefix, bias = _HEADS[naming]
    theirs, ours = ([name for name in each if name.startswith(prefix)] for each in (tensors, slots))
    if ours and theirs:
        classes, wanted = classes_of(tensors), slots[bias].shape[0]
        if classes in (None, wanted):
            return
        if not new_head:
            raise ValueError(
                f"its head is for {classes} classes, that of {model.name} for {wanted}. Ask for "
                f"classes={classes} to load it, or leave it out: include_top=False, another number "
                "of classes in the builder, or new_head=True."
            )
        logger.info("The head for %d classes is left out: %s has %d.", classes, model.name, wanted)
    elif ours:
        if not new_head:
            return
        logger.info("There is no head to load: %s keeps its own.", model.name)
    for names, mapping in ((theirs, tensors), (ours, slots)):
        for name in names:
            del mapping[name]


def _check_names(model, slots, tensors):
    missing, unknown = sorted(slots.keys() - tensors.keys()), sorted(tensors.keys() - slots.keys())
    if not missing and not unknown:
        return
    if any(re.fullmatch(r"layers/conv2d(_\d+)?/vars/1", name) for name in unknown):
        raise ValueError(
            "its convolutions have biases, as those of keras.applications have, and its tensors no "
            "names of layers: save that model as model.save('NAME.h5')."
        )
    hint = ""
    # One tensor more or less does not make another depth; the smallest block has six.
    if len(missing) + len(unknown) >= 6:
        theirs, ours = _depth(tensors), _depth(slots)
        if theirs != ours and theirs:
            hint = f" It looks like a net of {theirs} layers; {model.name} has {ours}."
    if missing:
        raise ValueError(f"it lacks tensors that {model.name} needs: {_some(missing)}.{hint}")
    raise ValueError(f"it has tensors that {model.name} does not know: {_some(unknown)}.{hint}")


def _check_shapes(model, slots, tensors):
    for name, slot in slots.items():
        said = f"{name}, for {slot.variable.path}," if name.startswith("layers/") else name
        _check_shape(model, said, tensors[name], slot.shape)
        dtype = tensors[name].dtype
        if dtype.kind != "f" and dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{name} holds {dtype}, not floating-point numbers.")


def _check_shape(model, name, tensor, needed):
    if tuple(tensor.shape) != needed:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {model.name} needs {needed}.")


def _depth(tensors):
    """How deep a net is, by the shapes of its kernels; 0 if there are none.

    A bottleneck block has one 3x3 convolution and two of 1x1, a basic block two of 3x3; those of
    the stem and of projection shortcuts do not count.
    """
    sizes = Counter()
    for name, tensor in tensors.items():
        if len(tensor.shape) == 4:
            keras_layout = "/" in name
            size = tensor.shape[:2] if keras_layout else tensor.shape[2:]
            if tensor.shape[2 if keras_layout else 1] > 3:
                sizes[tuple(size)] += 1
    blocks = sizes[3, 3]
    if not blocks:
        return 0
    return 2 + (3 * blocks if sizes[1, 1] >= 2 * blocks else blocks)


def _some(names, most=3):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:80] for name in names[:most]) + more
