"""Batch normalization folded into convolutions, and the precision of a model."""

import collections
import logging
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple, get_args

import keras
import numpy as np

from keras_resnet.checks import check_choice
from keras_resnet.graphs import check_functional, copy_state, is_functional, plain, twin_of
from keras_resnet.layers import BatchNormalization, Conv2D, GroupedConv2D, StandardizedConv2D
from keras_resnet.resnet import deep_graphs

Precision = Literal["float32", "bfloat16"]


PRECISIONS = get_args(Precision)


_logger = logging.getLogger(__name__)


# Layers that a normalization folds into, and which axes of their kernels are its channels. Classes
# that derive from these may compute something else.
_CHANNEL_AXES = {
    keras.layers.Conv2D: (-1,),
    Conv2D: (-1,),
    GroupedConv2D: (-1,),
    StandardizedConv2D: (-1,),
    keras.layers.SeparableConv2D: (-1,),
    keras.layers.DepthwiseConv2D: (-2, -1),
    keras.layers.Conv2DTranspose: (-2,),
    keras.layers.Dense: (-1,),
}


_NORMALIZATIONS = (keras.layers.BatchNormalization, BatchNormalization)


@deep_graphs()
def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold every BatchNormalization into the convolution before it.

    In inference, a normalization is a factor and an offset for each channel: the factor goes into
    the convolution's kernel, the offset into its bias. What cannot be folded is left as it is and
    logged; `unfoldable` lists it. A `StandardizedConv2D` becomes a convolution with the kernel that
    it computes.

    Parameters
    ----------
    model : keras.Model
        A functional (or built sequential) model, of this package or any other. Normalizations of
        its last axis that directly follow a Conv2D, DepthwiseConv2D, SeparableConv2D,
        Conv2DTranspose or Dense layer are folded, also inside nested models.

    Returns
    -------
    keras.Model
        A functional model for inference, with weights of its own and layers of the same names.

    Raises
    ------
    ValueError
        If the model is not functional.

    References
    ----------
    Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, section 3.2.

    Examples
    --------
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(20)
    >>> folded = keras_resnet.export.fold_batch_norm(net)
    >>> len(net.layers), len(folded.layers)
    (73, 54)
    """
    folded = _fold(model)
    for name, reason in unfoldable(model).items():
        _logger.info("%s: %s is not folded: %s.", model.name, name, reason)
    return folded


@deep_graphs()
def unfoldable(model: keras.Model) -> dict[str, str]:
    """The normalizations that `fold_batch_norm` leaves as they are.

    Parameters
    ----------
    model : keras.Model
        A functional model.

    Returns
    -------
    dict of str to str
        The reason for each such BatchNormalization, by its name.

    Raises
    ------
    ValueError
        If the model is not functional.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.export import unfoldable
    >>> x = keras.Input((8, 8, 3))
    >>> y = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    >>> unfoldable(keras.Model(x, keras.layers.BatchNormalization(name="bn")(y)))
    {'bn': "the activation of conv, 'relu', is between"}
    """
    left = dict(_plan(model).left)
    for layer in model.layers:
        if is_functional(layer) and layer.name not in left:
            left |= unfoldable(layer)
    return left


@deep_graphs()
def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """The same model, computing in another precision.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    precision : {"float32", "bfloat16"}
        "bfloat16" is for the feature maps, from the first convolution to the pooling, and for the
        weights in between. Raw images, pooled features and the head stay in float32.

    Returns
    -------
    keras.Model
        A functional model with weights of its own; the model itself if it computes so already.

    Raises
    ------
    ValueError
        If the model is not functional, or for an unknown precision.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.export.folding import in_precision
    >>> net = in_precision(keras_resnet.CIFARResNet(8), "bfloat16")
    >>> net.get_layer("conv1_conv").kernel.dtype, net.get_layer("predictions").kernel.dtype
    ('bfloat16', 'float32')
    """
    check_choice(PRECISIONS, precision=precision)
    check_functional(model)
    maps = set()  # layers that make feature maps
    for layer, sources, outputs, _ in _calls(model):
        if all(len(output.shape) == 4 for output in outputs) and (
            maps & sources or isinstance(layer, tuple(_CHANNEL_AXES))
        ):
            maps.add(layer)

    def wanted(layer):
        if getattr(layer, "quantization_mode", None):
            return layer.dtype_policy  # its weights are 8-bit numbers and their scales
        return precision if layer in maps else "float32"

    def convert(layer):
        if is_functional(layer):
            return in_precision(layer, precision)
        return _like(layer, dtype=wanted(layer))

    if not any(
        is_functional(layer) or keras.dtype_policies.get(wanted(layer)) != layer.dtype_policy
        for layer in model.layers
    ):
        return model
    return _rebuilt(model, convert)


def _fold(model):
    plan = _plan(model)

    def convert(layer):
        if is_functional(layer):
            return _rebuilt(layer, _like) if layer.name in plan.left else _fold(layer)
        changes = {"use_bias": True} if layer in plan.pairs else {}
        return _ordinary(layer, **changes) if _is_standardized(layer) else _like(layer, **changes)

    def fill(layer, its_copy):
        if layer in plan.pairs:
            its_copy.set_weights(_fold_weights(layer, plan.pairs[layer]))
        elif _is_standardized(layer):
            its_copy.set_weights(_weights(layer))
        else:
            copy_state(layer, its_copy)

    return _rebuilt(model, convert, fill, without=set(plan.pairs.values()))


class _Plan(NamedTuple):
    pairs: dict  # what folds, {convolution: normalization}
    left: dict[str, str]  # what does not, {name: reason}


def _plan(model):
    check_functional(model)
    calls = list(_calls(model))
    times = collections.Counter(layer for layer, *_ in calls)
    readers = collections.Counter(source for _, sources, *_ in calls for source in sources)
    readers.update(output._keras_history.operation for output in model.outputs)

    pairs, left = {}, {}
    for layer, sources, _, options in calls:
        if is_functional(layer):
            if options.get("training"):
                left[layer.name] = "it is called with training=True"
        elif type(layer) in _NORMALIZATIONS:
            reason = _reason_against(layer, sources, options, times, readers)
            if reason:
                left[layer.name] = reason
            else:
                pairs[next(iter(sources))] = layer
        elif isinstance(layer, keras.Layer):
            for inner in layer._flatten_layers():
                if isinstance(inner, keras.layers.BatchNormalization):
                    left[inner.name] = f"it is a {type(layer).__name__}, or inside of one"
    return _Plan(pairs, left)


def _reason_against(layer, sources, options, times, readers):
    """Why a normalization cannot be folded; None if it can."""
    if len(sources) > 1:
        return "it has several inputs"
    (source,) = sources
    name, activation = source.name, getattr(source, "activation", None)
    if not isinstance(source, tuple(_CHANNEL_AXES)):
        return f"{name} before it is not a convolution"
    if type(source) not in _CHANNEL_AXES:
        return f"{name} before it is a {type(source).__name__}, which may compute anything"
    if activation not in (None, keras.activations.linear):
        return f"the activation of {name}, {keras.activations.serialize(activation)!r}, is between"
    if readers[source] > 1:
        return f"the output of {name} is used elsewhere, too"
    if times[source] > 1 or times[layer] > 1:
        return f"{name} or the normalization itself is used several times"
    if getattr(source, "quantization_mode", None) or getattr(source, "lora_enabled", False):
        return f"{name} is quantized, or has LoRA weights"
    if layer.axis not in (-1, len(source.output.shape) - 1) or (
        getattr(source, "data_format", "channels_last") != "channels_last"
    ):
        return f"the channels of {name} are not its last axis"
    if options.get("training"):
        return "it is called with training=True"
    return None


def _calls(model) -> Iterator[tuple[keras.Operation, set[keras.Operation], list, dict]]:
    """Each call of a layer, in the order of computation: the layer, the layers of its inputs, its
    outputs and the options of the call.
    """
    nodes_by_depth = _uncompiled(model)._nodes_by_depth
    for depth in sorted(nodes_by_depth, reverse=True):
        for node in nodes_by_depth[depth]:
            sources = {tensor._keras_history.operation for tensor in node.input_tensors}
            options = {} if node.is_input else node.arguments.kwargs
            yield node.operation, sources, node.outputs, options


def _uncompiled(model):
    """A functional model of the same layers, inputs and outputs."""
    if isinstance(model, keras.Sequential):
        return plain(model)
    return keras.Model(model.input, model.output, name=model.name)


def _rebuilt(model, convert, fill=copy_state, without: Collection = ()):
    """A copy of a model: `convert` makes each layer, `fill` gives it its weights."""
    copies, passed_by = {}, set()

    def copy(layer):
        if not isinstance(layer, keras.Layer):
            return layer  # an operation, which has no state
        copies[layer] = convert(layer)
        if layer in without:
            passed_by.add(copies[layer])
        return copies[layer]

    def call(layer, *inputs, **options):
        return inputs[0] if layer in passed_by else layer(*inputs, **options)

    result = keras.models.clone_model(_uncompiled(model), clone_function=copy, call_function=call)
    for layer, its_copy in copies.items():
        if layer not in without and not is_functional(layer):
            fill(layer, its_copy)
    if hasattr(model, "preprocessing"):
        result.preprocessing = model.preprocessing
    return result


def _like(layer, **changes):
    """A new layer with the same configuration, except for some changes.

    A grouped convolution that Keras would compile with XLA becomes one of ours.
    """
    if (
        type(layer) is keras.layers.Conv2D
        and layer.groups > 1
        and layer.data_format == "channels_last"
    ):
        return GroupedConv2D.from_config({**layer.get_config(), **changes})
    return twin_of(layer, **changes)


def _is_standardized(layer):
    """Whether a layer's kernel is standardized before it convolves, and nothing else."""
    return type(layer) is StandardizedConv2D and not layer.lora_enabled


def _ordinary(layer, **changes):
    """A convolution that has the kernel of a standardized one, as it is."""
    config = {**layer.get_config(), **changes}
    del config["epsilon"]
    return Conv2D.from_config(config)


def _weights(layer):
    """The weights that a layer computes with."""
    weights = layer.get_weights()
    if _is_standardized(layer):
        weights[0] = np.asarray(layer.standardized_kernel())
    return weights


def _fold_weights(layer, normalization):
    """The weights of a convolution that includes its normalization."""
    *others, kernel, bias = [*_weights(layer), *([] if layer.use_bias else [0.0])]
    factor = np.asarray(normalization.moving_variance, "float64") + normalization.epsilon
    factor = factor**-0.5 * (np.asarray(normalization.gamma) if normalization.scale else 1.0)
    offset = np.asarray(normalization.beta) if normalization.center else 0.0
    bias = (bias - np.asarray(normalization.moving_mean)) * factor + offset
    axes = _CHANNEL_AXES[type(layer)]
    sizes = [kernel.shape[axis] if axis in axes else 1 for axis in range(-kernel.ndim, 0)]
    return [*others, kernel * factor.reshape(sizes), bias]
