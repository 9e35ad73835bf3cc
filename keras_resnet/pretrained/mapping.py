"""Loads tensors from other libraries into the variables of a model, and writes them for these."""

import contextlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import keras
import ml_dtypes
import numpy as np
from keras import ops
from safetensors.numpy import save_file

from keras_resnet.checks import check_choice
from keras_resnet.files import written_beside
from keras_resnet.graphs import remember
from keras_resnet.names import some
from keras_resnet.pretrained import finding
from keras_resnet.pretrained.first_kernel import adapted_kernel
from keras_resnet.pretrained.naming import HEADS, module_name, naming_for, naming_of, variables_of
from keras_resnet.pretrained.needs import check_options, options_of, options_of_keras
from keras_resnet.pretrained.notices import warn

logger = logging.getLogger("keras_resnet")

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
    _, bias = HEADS[naming_of(tensors)]
    return int(tensors[bias].shape[0]) if bias in tensors and tensors[bias].shape else None


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
    prefix, bias = HEADS[naming]
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
    """Whether tensors fit a model, apart from its head and the channels of its images."""
    naming = naming_of(tensors)
    head, _ = HEADS[naming]
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
    _, bias = HEADS[naming]
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
