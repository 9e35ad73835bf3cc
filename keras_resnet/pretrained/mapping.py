"""Maps the names and layouts of tensors from other libraries to the variables of a model.

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

import contextlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import keras
import ml_dtypes
import numpy as np
from keras import ops
from safetensors.numpy import save_file

from keras_resnet.checks import check_choice
from keras_resnet.files import written_beside
from keras_resnet.graphs import remember, wants_of
from keras_resnet.layers.view import noted
from keras_resnet.names import some
from keras_resnet.pretrained import finding
from keras_resnet.pretrained.notices import warn
from keras_resnet.pretrained.registry import CAFFE_OPTIONS, KERAS_V2_OPTIONS

logger = logging.getLogger("keras_resnet")

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
_HEADS = {
    **{
        naming: (f"{modules.outside['predictions']}.", f"{modules.outside['predictions']}.bias")
        for naming, modules in _TORCH.items()
    },
    "keras": ("predictions/", "predictions/bias"),
    "weights.h5": ("layers/dense/", "layers/dense/vars/1"),
}

UNREVEALED: dict[str, Any] = {
    "anti_aliasing": None,
    "stem": "imagenet",
    "stride_block": "first",
    "weight_standardization": False,
}
"""Options that weights do not reveal, as models have them whose options do not name them.

Of the stems, "zero_padded" is meant: those of other names have other weights.
"""

# keras.applications' BatchNormalization epsilon.
_KERAS_EPSILON = 1.001e-5


# Names of tensors of residual blocks and, in a .weights.h5 file, of any layer of a classifier.
_OF_BLOCKS = re.compile(r"(^|\.)(layer|res|stages\.)\d+\.|^conv\d+_block|^layers/(?!functional)")

# What names of tensors say about a model.
_REVEALED = {
    "pre-activation blocks": re.compile(r"^stages\.|_preact_[bg]n/"),
    "a deep stem": re.compile(r"^(conv1\.0|stem\.conv1|conv1_1_conv)\b"),
    "a convolution instead of max-pooling": re.compile(r"^(maxpool\.0\.|pool1_conv/)"),
    "squeeze-and-excitation": re.compile(r"\.se\.fc1\.|_se_1_conv/"),
    "efficient channel attention": re.compile(r"\.se\.conv\.|_eca_conv/"),
    'shortcut="D"': re.compile(r"\.downsample\.2\."),
    "moving averages": re.compile(r"(running_mean|moving_mean)$"),
}


# Names of the first kernel, in all namings.
_FIRST_KERNEL = re.compile(
    r"conv1(\.0)?\.weight|stem\.conv1?\.weight|conv1(_1)?_conv/kernel|conv1/kernel"
    r"|layers/(standardized_)?conv2d/vars/0"
)


class Slot(NamedTuple):
    """Where a tensor goes.

    Parameters
    ----------
    variable : keras.Variable
        The variable for the tensor.
    axes : tuple of int
        For each of the tensor's axes, the index of the variable's.
    stored : tuple of int, optional
        Shape of the tensor in the file, if it is not that of the variable, with these axes.
    arranged : callable, optional
        Makes a tensor of these axes from the one in the file.
    """

    variable: keras.Variable
    axes: tuple[int, ...]
    stored: tuple[int, ...] | None = None
    arranged: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The required shape of the tensor."""
        return self.stored or self.in_order

    @property
    def in_order(self) -> tuple[int, ...]:
        """The shape of the variable, its axes in the tensor's order."""
        return tuple(self.variable.shape[axis] for axis in self.axes)


def state_dict_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes in the PyTorch state dict of a model.

    Parameters
    ----------
    model : keras.Model
        A model of this package.

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
    model: keras.Model,
    state_dict: Mapping[str, Any],
    *,
    new_head: bool = False,
    prefix: str | None = None,
) -> None:
    """Load a state dict from another library into a model of the same architecture.

    The state dict must contain every tensor of the model, with the same shape. All tensors are
    checked before the first one changes. If the model has no head, the head in the state dict is
    ignored. The model may be part of a larger one, such as the encoder in a checkpoint of MoCo's or
    the backbone of a detector: other tensors are set aside, which is logged.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    state_dict : mapping of str to array
        Arrays in PyTorch's layout with the names of torchvision, timm or the CIFAR-10 zoo, or in
        Keras' layout with the names of keras.applications. The latter set the model's
        `preprocessing` to "caffe". Prefixes such as "module." are removed, and PyTorch's batch
        counters are ignored. A `torch.Tensor` on the CPU works as an array.
    new_head : bool, default False
        Whether to keep the model's own head if the state dict has none, or one for another number
        of classes. This is logged.
    prefix : str, optional
        Which model to take where several fit: part of what the names of its tensors begin with,
        such as "teacher" for "module.teacher.backbone."; "." for names without a prefix.

    Raises
    ------
    ValueError
        If tensors are missing, unexpected, of the wrong shape or not floating-point, if several
        models fit, or if those of keras.applications are loaded into a model with other strides or
        preprocessing.

    Warns
    -----
    RuntimeWarning
        If tensors contain NaN or infinity.

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
    load_tensors(model, state_dict, "state_dict", new_head=new_head, prefix=prefix)


def load_tensors(
    model: keras.Model,
    tensors: Mapping[str, Any],
    argument: str,
    *,
    new_head: bool = False,
    new_channels: bool = False,
    prefix: str | None = None,
) -> None:
    """Load tensors into a model, all or none: `load_state_dict` for any source.

    Parameters
    ----------
    model : keras.Model
        A model of this package.
    tensors : mapping of str to array
        As in `load_state_dict`, or with the names of a `.weights.h5` file.
    argument : str
        The source of the tensors, for error messages.
    new_head, prefix
        As in `load_state_dict`.
    new_channels : bool, default False
        Whether to adapt a first kernel for RGB images to a model of others: `adapted_kernel`. This
        is logged.

    Raises
    ------
    ValueError
        As `load_state_dict`.
    """
    with errors_about(argument):
        found = finding.the_model(_named(tensors), prefix, lambda each: _fits(model, each))
        tensors = {name: _array(tensor) for name, tensor in found.tensors.items()}
        naming, of_keras = naming_of(tensors), options_of_keras(tensors)
        check_options(model, of_keras)
        slots = _slots(model, naming)
        if of_keras:
            tensors = _folded(model, slots, tensors)
        _leave_out_head(model, naming, slots, tensors, new_head)
        if new_channels:
            _adapt_first_kernel(model, slots, tensors)
        _check_projection(model, naming, slots, tensors, found)
        check_tensors(model, slots, tensors)
    finding.tell(found, argument)
    assign(slots, tensors, argument)
    if of_keras:
        remember(model, normalization=of_keras["preprocessing"])


@contextlib.contextmanager
def errors_about(argument: str) -> Iterator[None]:
    """Make errors about tensors name where these come from, in one line.

    Parameters
    ----------
    argument : str
        The start of the message.

    Yields
    ------
    None

    Raises
    ------
    ValueError
        For any error about tensors.
    """
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{argument}: {' '.join(str(error).split())}") from error


def named_arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Take the tensors of a state dict as arrays, with the names that the model gave them.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_state_dict`.

    Returns
    -------
    dict of str to array
        Without the prefixes of wrappers, and without batch counters.

    Raises
    ------
    TypeError
        If that is no mapping of names to arrays.
    """
    return {name: _array(tensor) for name, tensor in finding.plain_names(_named(tensors)).items()}


def _named(tensors):
    """Check that this is a mapping of names."""
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        raise TypeError("expected a mapping of tensor names to arrays.")
    return tensors


def _array(tensor):
    """A tensor as something that has a shape and a NumPy data type."""
    return tensor if isinstance(getattr(tensor, "dtype", None), np.dtype) else np.asarray(tensor)


def check_tensors(
    model: keras.Model, slots: Mapping[str, Slot], tensors: Mapping[str, Any]
) -> None:
    """Check that there is one tensor for each slot, as it has to be, and no other.

    Parameters
    ----------
    model : keras.Model
        The model, for error messages.
    slots : mapping of str to Slot
        By the names of the tensors.
    tensors : mapping of str to array
        The tensors.

    Raises
    ------
    ValueError
        If tensors are missing, unexpected, of the wrong shape or not floating-point.
    """
    _check_names(model, slots, tensors)
    _check_shapes(model, slots, tensors)


def assign(slots: Mapping[str, Slot], tensors: Mapping[str, Any], argument: str) -> None:
    """Assign tensors, which `check_tensors` has checked, to their variables.

    Parameters
    ----------
    slots : mapping of str to Slot
        By the names of the tensors.
    tensors : mapping of str to array
        The tensors.
    argument : str
        The source of the tensors, for the warning.

    Warns
    -----
    RuntimeWarning
        If tensors contain NaN or infinity.
    """
    with np.errstate(over="ignore"):
        broken = [
            name
            for name, slot in slots.items()
            if not np.isfinite(np.asarray(tensors[name], slot.variable.dtype)).all()
        ]
    if broken:
        warn(f"{argument}: NaN or infinity in {some(broken)}.")
    for name, slot in slots.items():
        variable = slot.variable
        with np.errstate(over="ignore"):  # already warned
            array = np.asarray(tensors[name], variable.dtype)
        array = slot.arranged(array) if slot.arranged else array.reshape(slot.in_order)
        inverse = np.argsort(slot.axes).tolist()
        if inverse == sorted(inverse):
            # Copy: otherwise, JAX would keep the memory-mapped file alive.
            variable.assign(array.copy())
        else:
            variable.assign(ops.transpose(ops.convert_to_tensor(array), inverse))


def to_torch(
    model: keras.Model,
    path: str | os.PathLike | None = None,
    *,
    naming: Literal["torchvision", "cifar"] = "torchvision",
) -> dict[str, np.ndarray]:
    """Convert a model's weights to a PyTorch state dict, and optionally write them to a file.

    Parameters
    ----------
    model : keras.Model
        A model of this package. The PyTorch model must have the same options, and its images need
        the same preprocessing.
    path : path, optional
        Where to write a `.safetensors` file that timm and `safetensors.torch.load_file` can read.
    naming : {"torchvision", "cifar"}, default "torchvision"
        Names of the tensors: those of torchvision and timm, or those of the CIFAR-10 zoo.

    Returns
    -------
    dict of str to numpy.ndarray
        Contiguous, in PyTorch's layout, with PyTorch's batch counters set to 0.

    Raises
    ------
    ValueError
        If the naming is unknown, or the model has layers that the PyTorch model does not have.

    Examples
    --------
    >>> import keras_resnet
    >>> net = keras_resnet.ResNet18(weights=None, input_shape=(32, 32, 3))
    >>> state_dict = keras_resnet.pretrained.to_torch(net)
    >>> state_dict["layer1.0.conv1.weight"].shape
    (64, 64, 3, 3)
    """
    check_choice(("torchvision", "cifar"), naming=naming)
    state_dict = tensors_of(_slots(model, naming))
    if path is not None:
        options = options_of(layer.get_config() for layer in model.layers)
        # Of a model from an older file, only this attribute may say it.
        if hasattr(model, "preprocessing"):
            options["preprocessing"] = model.preprocessing
        save_tensors(state_dict, path, options)
    return state_dict


def tensors_of(slots: Mapping[str, Slot]) -> dict[str, np.ndarray]:
    """Return a state dict of variables.

    Parameters
    ----------
    slots : mapping of str to Slot
        The variables by the names of their tensors, which are not rearranged.

    Returns
    -------
    dict of str to numpy.ndarray
        Contiguous, with PyTorch's batch counters set to 0.
    """
    state_dict = {}
    for name, slot in slots.items():
        array = ops.convert_to_numpy(slot.variable.value).transpose(slot.axes)
        shape = array.shape if slot.arranged else slot.shape
        state_dict[name] = np.ascontiguousarray(array.reshape(shape))
        if name.endswith("running_var"):
            state_dict[name.replace("running_var", finding.COUNTER)] = np.array(0, "int64")
    return state_dict


def save_tensors(
    tensors: Mapping[str, np.ndarray], path: str | os.PathLike, options: Mapping[str, Any]
) -> None:
    """Write a `.safetensors` file that timm and `safetensors.torch.load_file` can read.

    Parameters
    ----------
    tensors : mapping of str to numpy.ndarray
        Contiguous arrays.
    path : path
        Where to write the file.
    options : mapping
        Options of the model, which are recorded in the file.
    """
    with written_beside(path) as partial:
        metadata = {"format": "pt", "keras_resnet": json.dumps(options)}
        save_file(dict(tensors), partial, metadata=metadata)


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
    if any(re.match(r"stages\.\d+\.blocks\.", name) for name in names):
        return "resnetv2"
    return "torchvision"


def classes_of(tensors: Mapping[str, Any]) -> int | None:
    """Return the number of classes of the head in a set of tensors.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    int or None
        The number of classes; None if there is no head.
    """
    tensors = finding.plain_names(tensors)
    _, bias = _HEADS[naming_of(tensors)]
    return int(tensors[bias].shape[0]) if bias in tensors and tensors[bias].shape else None


def channels_of(tensors: Mapping[str, Any]) -> int | None:
    """Return the number of channels of the images that tensors are for.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    int or None
        The number of channels; None if there is no first kernel.
    """
    for name, tensor in finding.plain_names(tensors).items():
        if _FIRST_KERNEL.fullmatch(name) and len(tensor.shape) == 4:
            return int(tensor.shape[2 if "/" in name else 1])
    return None


def adapted_kernel(kernel: np.ndarray, channels: int, axis: int = 2) -> np.ndarray:
    """Adapt a convolution's kernel for RGB images to images of another number of channels.

    A single channel gets the sum of the colors' weights: it excites the filters as three equal
    channels did. More channels get the weights of red, green and blue in turn, times three divided
    by their number, so that the sums that leave the convolution stay about as large.

    Parameters
    ----------
    kernel : array
        With three channels in `axis`.
    channels : int
        Channels of the images.
    axis : int, default 2
        The axis of the kernel's incoming channels.

    Returns
    -------
    numpy.ndarray
        Of the same dtype, with `channels` in `axis`.

    References
    ----------
    timm, `timm.models.adapt_input_conv`, Apache-2.0: the same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.pretrained.mapping import adapted_kernel
    >>> kernel = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> adapted_kernel(kernel, 1).ravel().tolist(), adapted_kernel(kernel, 4).ravel().tolist()
    ([7.0], [0.75, 1.5, 3.0, 0.75])
    """
    wide = np.asarray(kernel, np.result_type(kernel.dtype, "float32"))
    if channels == 1:
        adapted = wide.sum(axis, keepdims=True)
    else:
        adapted = wide.take(np.arange(channels) % 3, axis) * (3 / channels)
    return adapted.astype(kernel.dtype)


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
    >>> from keras_resnet.pretrained.mapping import options_of_keras
    >>> options_of_keras({"conv1_conv/bias": 0.0, "conv1_bn/gamma": 1.0})
    {'stride_in': '1x1', 'preprocessing': 'caffe'}
    """
    if "conv1_conv/bias" not in tensors:
        return {}
    if is_caffe(tensors):
        return CAFFE_OPTIONS
    return KERAS_V2_OPTIONS if "post_bn/gamma" in tensors else {}


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
        options = {**UNREVEALED, **options}  # they are of a whole model, not of its input alone
    for option, value in options.items():
        if ours.get(option, value) != value:
            raise ValueError(
                f"these weights need {option}={value!r}, {model.name} has {ours[option]!r}. "
                f"Leave out {option}: with weights=, the builders set it automatically."
            )


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
    >>> from keras_resnet.pretrained.mapping import options_of
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


def _slots(model: keras.Model, naming: str) -> dict[str, Slot]:
    """Return the variables of the model by the names of their tensors."""
    slots, counts = {}, Counter()
    if naming in ("torchvision", "resnetv2"):
        naming = naming_for(layer.name for layer in model.layers)
    for layer in model.layers:
        if not layer.weights:
            continue
        keras_name, variables = variables_of(layer, model)
        number = f"_{counts[keras_name]}" if counts[keras_name] else ""
        counts[keras_name] += 1
        for index, (variable, torch_name, axes) in enumerate(variables):
            if naming == "weights.h5":
                name = f"layers/{keras_name}{number}/vars/{index}"
            elif naming == "keras":
                name = f"{layer.name}/{variable.name}"
            else:
                name = f"{module_name(layer.name, naming)}.{torch_name}"
            if naming in ("weights.h5", "keras"):
                axes = tuple(range(len(axes)))
            slots[name] = Slot(variable, axes)
            if name == "head.fc.weight":  # timm's is a 1x1 convolution
                slots[name] = Slot(variable, axes, stored=(*slots[name].shape, 1, 1))
    return slots


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
    >>> from keras_resnet.pretrained.mapping import naming_for
    >>> naming_for(["conv1_conv", "conv2_block1_preact_bn"])
    'resnetv2'
    """
    names = [*names]
    if any(re.search(r"_preact_[bg]n$|^post_[bg]n$", name) for name in names):
        return "resnetv2"
    if any(re.search(r"_block\d+_0_pool$", name) for name in names):
        return "averaged"
    return "torchvision"


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
    >>> from keras_resnet.pretrained.mapping import variables_of
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
    >>> from keras_resnet.pretrained.mapping import module_name
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


def _folded(model, slots, tensors):
    """Fold keras.applications' epsilon, and biases we do not have, into the moving statistics."""
    # This is exact: a bias shifts the input of the BatchNormalization, like a smaller moving mean,
    # and epsilon is added to the moving variance.
    tensors = dict(tensors)
    for layer in model.layers:
        bias, mean, variance = (
            layer.name.removesuffix("_bn") + "_conv/bias",
            f"{layer.name}/moving_mean",
            f"{layer.name}/moving_variance",
        )
        if not layer.name.endswith("_bn") or not {mean, variance} <= tensors.keys():
            continue
        folded = [bias] if bias in tensors.keys() - slots.keys() else []
        # Check before computing: a small file can declare a tensor of any size.
        for name in (*folded, mean, variance):
            _check_shape(model, name, tensors[name], tuple(layer.moving_mean.shape))
        for name in folded:
            tensors[mean] = np.asarray(tensors[mean]) - np.asarray(tensors.pop(name))
        tensors[variance] = np.asarray(tensors[variance]) + np.float32(
            _KERAS_EPSILON - layer.epsilon
        )
    return tensors


def _leave_out_head(model, naming, slots, tensors, new_head):
    """Remove a head that does not fit from the tensors and the slots, if that is allowed."""
    prefix, bias = _HEADS[naming]
    theirs, ours = ([name for name in each if name.startswith(prefix)] for each in (tensors, slots))
    if ours and theirs:
        classes, wanted = classes_of(tensors), slots[bias].shape[0]
        if classes in (None, wanted):
            return
        if not new_head:
            raise ValueError(
                f"the head has {classes} classes, but {model.name} has {wanted}. To load it, build "
                f"with classes={classes}. To skip it, use include_top=False, another number of "
                "classes in the builder, or new_head=True."
            )
        logger.info("Skipped the head for %d classes: %s has %d.", classes, model.name, wanted)
    elif ours:
        if not new_head:
            return
        logger.info("The weights have no head: %s keeps its own.", model.name)
    for names, mapping in ((theirs, tensors), (ours, slots)):
        for name in names:
            del mapping[name]


def _adapt_first_kernel(model, slots, tensors):
    """Adapt the first kernel among the tensors, if it is for RGB images and the model is not."""
    first = next(layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    name, slot = next((name, slot) for name, slot in slots.items() if slot.variable is first)
    kernel, axis, channels = tensors.get(name), slot.axes.index(2), first.shape[2]
    if kernel is None or len(kernel.shape) != 4 or kernel.shape[axis] != 3 or channels == 3:
        return
    tensors[name] = adapted_kernel(np.asarray(kernel), channels, axis)
    how = "summed" if channels == 1 else f"repeated and scaled by 3/{channels}"
    logger.info(
        "%s takes images of %d channel%s: the first kernel's weights for RGB are %s.",
        *(model.name, channels, "s" * (channels > 1), how),
    )


def _fits(model, tensors):
    """Whether tensors are those of a model, but for its head and what the images have."""
    naming = naming_of(tensors)
    head, _ = _HEADS[naming]
    ours = {name: slot.shape for name, slot in _slots(model, naming).items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    first = next((name for name, shape in ours.items() if len(shape) == 4), None)
    return all(
        name in ours and name in theirs and (name == first or ours[name] == theirs[name])
        for name in ours.keys() | theirs.keys()
        if not name.startswith(head)
    )


def _check_projection(model, naming, slots, tensors, found):
    """Raise an error if a head is needed, and there is only one of self-supervised training."""
    _, bias = _HEADS[naming]
    if found.projection and bias in slots and bias not in tensors:
        raise ValueError(
            f"there is no classifier in the file, but a projection head: {some(found.projection)}. "
            f"For {model.name}, build without a head (include_top=False), or with a new one "
            "(another number of classes in the builder, or new_head=True)."
        )


def _check_names(model, slots, tensors):
    """Raise an error if tensors are missing or unexpected."""
    missing, unknown = sorted(slots.keys() - tensors.keys()), sorted(tensors.keys() - slots.keys())
    if not missing and not unknown:
        return
    if any(re.fullmatch(r"layers/conv2d(_\d+)?/vars/1", name) for name in unknown):
        raise ValueError(
            "the convolutions have biases, as in keras.applications, but the file does not store "
            "the names of layers: save the model with model.save('NAME.h5')."
        )
    hint = _of_another_kind(model, slots, tensors)
    # A few tensors more or less do not mean another depth: the smallest block has six.
    if not hint and len(missing) + len(unknown) >= 6:
        theirs, ours = _depth(tensors), _depth(slots)
        if theirs != ours and theirs:
            hint = f" The tensors look like a model with {theirs} layers; {model.name} has {ours}."
    if missing:
        raise ValueError(f"missing tensors that {model.name} needs: {some(missing)}.{hint}")
    raise ValueError(f"unexpected tensors for {model.name}: {some(unknown)}.{hint}")


def _of_another_kind(model, slots, tensors):
    """A hint at what only one of the file and the model has."""
    theirs, ours = (
        {kind for kind, pattern in _REVEALED.items() if any(map(pattern.search, names))}
        for names in (tensors, slots)
    )
    return "".join(
        f" {owner} has {' and '.join(sorted(more))}, {other} has not."
        for owner, other, more in (
            ("The file", model.name, theirs - ours),
            (model.name, "the file", ours - theirs),
        )
        if more
    )


def _check_shapes(model, slots, tensors):
    """Raise an error if tensors have the wrong shape or type."""
    for name, slot in slots.items():
        label = f"{name}, for {slot.variable.path}," if name.startswith("layers/") else name
        _check_shape(model, label, tensors[name], slot.shape)
        dtype = tensors[name].dtype
        if dtype.kind != "f" and dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{name} contains {dtype}, not floating-point numbers.")


def _check_shape(model, name, tensor, needed):
    """Raise an error if a tensor has the wrong shape."""
    if tuple(tensor.shape) != needed:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, {model.name} needs {needed}.")


def _depth(tensors):
    """Estimate the depth of a model from the shapes of its kernels; 0 if there are none."""
    # A bottleneck block has one 3x3 and two 1x1 convolutions, a basic block two 3x3 convolutions.
    # The stem and projection shortcuts do not count.
    sizes = Counter()
    for name, tensor in tensors.items():
        if len(tensor.shape) == 4 and _OF_BLOCKS.search(name):
            keras_layout = "/" in name
            size = tensor.shape[:2] if keras_layout else tensor.shape[2:]
            if tensor.shape[2 if keras_layout else 1] > 3:
                sizes[tuple(size)] += 1
    blocks = sizes[3, 3]
    if not blocks:
        return 0
    return 2 + (3 * blocks if sizes[1, 1] >= 2 * blocks else blocks)
