"""How strongly the layers of a model respond: He et al. 2016, figure 7."""

import collections
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_resnet import checks, graphs
from keras_resnet.resnet import deep_graphs

# Their outputs have to do with 3x3 pixels of their inputs; ours derive from them.
_CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)

_AT_ONCE = 2**18  # numbers that are summed at a time: what a cache holds


@dataclass(frozen=True)
class LayerResponses:
    """What `layer_responses` found.

    Parameters
    ----------
    names : tuple of str
        The 3x3 convolutions that a BatchNormalization follows, in the order of computation. One
        that is called several times is there several times.
    deviations : tuple of float
        The standard deviation of each one's normalized output.
    left_out : tuple of str
        The 3x3 convolutions that no BatchNormalization follows, such as the last of each
        pre-activation block.
    """

    names: tuple[str, ...]
    deviations: tuple[float, ...]
    left_out: tuple[str, ...] = ()


@deep_graphs()
def layer_responses(model: keras.Model, images: Any, *, batch_size: int = 32) -> LayerResponses:
    """Measure how strongly the 3x3 layers of a model respond.

    The response of a layer is the standard deviation of its output after BatchNormalization, and
    before what comes next, such as ReLU or an addition: over images, positions and channels. The
    weaker the layers of a residual model respond, the closer its blocks are to the identity.

    Parameters
    ----------
    model : keras.Model
        A functional model of one input, of this package or any other. Models among its layers are
        looked into, other layers that consist of layers are not.
    images : array of shape (images, height, width, channels), list of images or iterable of batches
        Images as the model wants to be shown: raw ones if it has its preprocessing, normalized ones
        if not. Batches, as of a `tf.data.Dataset`, may come with labels, which are ignored.
    batch_size : int, default 32
        Images that are computed at a time; iterables have batches of their own.

    Returns
    -------
    LayerResponses

    Raises
    ------
    ValueError
        For a model that is not functional, has several inputs, no 3x3 convolution, or none that a
        BatchNormalization follows; for no images, images of another shape, or responses that are
        NaN or infinite.

    Notes
    -----
    Layers compute as in inference, in the model's precision; means and squares are summed in
    float64 around the mean of each batch, so that neither the batch size nor the number of images
    changes more than the last digits.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, figure 7.

    Examples
    --------
    >>> import numpy as np, keras_resnet
    >>> from keras_resnet.analysis import layer_responses
    >>> images = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
    >>> found = layer_responses(keras_resnet.CIFARResNet(8), images)
    >>> found.names[:2], len(found.deviations)
    (('conv1_conv', 'conv2_block1_1_conv'), 7)
    """
    _check_model(model)
    names, totals, followers = [], [], {}
    for batch in _batches(model, images, batch_size):
        names, found, followers = _measured(model, batch)
        totals = list(map(_joined, totals, found)) if totals else found
    if not followers:
        raise ValueError("images: there are none to measure the responses to.")
    left_out = tuple(name for name, after in followers.items() if name not in names)
    if not names:
        after = sorted({each for name in left_out for each in followers[name]})
        raise ValueError(
            f"model {model.name!r}: no BatchNormalization follows any of its 3x3 convolutions, but "
            f"{', '.join(after) or 'nothing'}."
        )
    deviations = tuple(math.sqrt(total.squares / total.count) for total in totals)
    for name, deviation in zip(names, deviations, strict=True):
        if not math.isfinite(deviation):
            raise ValueError(
                f"model {model.name!r}: what comes out of its layer {name!r} is NaN or infinite. "
                "Check its weights and the images."
            )
    return LayerResponses(tuple(names), deviations, left_out)


def _check_model(model):
    """Make sure that there is something to measure, as far as layers alone tell."""
    graphs.check_functional(model)
    if len(model.inputs) != 1:
        raise ValueError(
            f"model {model.name!r} has {len(model.inputs)} inputs; layer_responses needs one."
        )
    layers = graphs.flat_layers(model)
    if not any(map(_is_3x3, layers)):
        kernels = {
            "x".join(map(str, layer.kernel_size)): None
            for layer in layers
            if hasattr(layer, "kernel_size")
        }
        raise ValueError(
            f"model {model.name!r} has no 3x3 convolution to measure: "
            + (f"its kernels are {', '.join(kernels)}." if kernels else "it has no convolution.")
        )


def _is_3x3(layer):
    return isinstance(layer, _CONVOLUTIONS) and tuple(layer.kernel_size) == (3, 3)


def _batches(model, images, batch_size) -> Iterator[np.ndarray]:
    """Batches that fit the model."""
    checks.check_positive(batch_size=batch_size)
    for batch in _pieces(images, batch_size):
        shape, wanted = tuple(batch.shape), tuple(model.inputs[0].shape)
        if len(shape) != len(wanted) or any(
            there != size for there, size in zip(shape[1:], wanted[1:], strict=True) if size
        ):
            raise ValueError(
                f"images: batches must be of shape {wanted}, as {model.name} takes them; one is of "
                f"{shape}."
            )
        if shape[0]:
            yield batch


def _pieces(images, batch_size) -> Iterable[Any]:
    """Batches, of whatever was given."""
    if isinstance(images, list | tuple) or hasattr(images, "shape"):
        for start in range(0, len(images), batch_size):
            yield np.asarray(images[start : start + batch_size])
    else:
        for batch in images:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]


class _Moments(NamedTuple):
    """Of some numbers: how many, their mean, and the sum of squares around it."""

    count: int
    mean: float
    squares: float


def _moments(values):
    """Moments of all numbers of an array."""
    values = np.ravel(ops.convert_to_numpy(values))
    total = _Moments(0, 0.0, 0.0)
    for start in range(0, len(values), _AT_ONCE):
        some = values[start : start + _AT_ONCE].astype("float64")
        # Not as a product of vectors: threads of BLAS would wait for those of other libraries.
        total = _joined(total, _Moments(len(some), some.mean(), some.var() * len(some)))
    return total


def _joined(one, other):
    """Moments of the numbers of both (Chan, Golub and LeVeque, 1983)."""
    count = one.count + other.count
    apart = other.mean - one.mean
    return _Moments(
        count,
        one.mean + apart * other.count / count,
        one.squares + other.squares + apart**2 * one.count * other.count / count,
    )


class _Made(NamedTuple):
    """A tensor, and the layer that made it, in whatever model that is."""

    tensor: Any
    layer: Any


def _measured(model, batch):
    """Names and moments of the responses to a batch; what follows each 3x3 convolution."""
    names, found, followers = [], [], collections.defaultdict(dict)
    for layer, entering, outputs in _calls(model, [_Made(batch, None)]):
        if _is_3x3(layer):
            followers[layer.name]  # perhaps nothing
        for source in (each.layer for each in entering if _is_3x3(each.layer)):
            if not _passes(layer):
                followers[source.name][type(layer).__name__] = None
            if isinstance(layer, keras.layers.BatchNormalization):
                names.append(source.name)
                found.append(_moments(outputs[0]))
    return names, found, followers


def _calls(model, inputs):
    """Call a model layer by layer: yields each, what enters it, and what comes out of it.

    Returns what comes out of the model. Nothing is kept for longer than a later layer needs it.
    """
    graph = graphs.plain(model) if isinstance(model, keras.Sequential) else model
    nodes = [
        node
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in graph._nodes_by_depth[depth]
        if not node.is_input
    ]
    readers = collections.Counter(id(each) for node in nodes for each in node.input_tensors)
    readers.update(map(id, graph.outputs))
    made = {
        id(symbol): _Made(ops.convert_to_tensor(each.tensor, dtype=symbol.dtype), each.layer)
        for symbol, each in zip(graph.inputs, inputs, strict=True)
    }
    for node in nodes:
        entering = [made[id(each)] for each in node.input_tensors]
        if graphs.is_functional(node.operation):
            outputs = yield from _calls(node.operation, entering)
        else:
            tensors = {id(each): made[id(each)].tensor for each in node.input_tensors}
            results = keras.tree.flatten(_called(node, tensors))
            yield node.operation, entering, results
            # What has no effect in inference leaves its input what it is.
            maker = entering[0].layer if _passes(node.operation) else node.operation
            outputs = [_Made(each, maker) for each in results]
        made.update(zip(map(id, node.outputs), outputs, strict=True))
        for each in node.input_tensors:
            readers[id(each)] -= 1
            if not readers[id(each)]:
                made.pop(id(each))
    return [made[id(each)] for each in graph.outputs]


def _passes(layer):
    return isinstance(layer, graphs.PASSING)


def _called(node, tensors):
    """Call the layer of a node, as in inference."""
    args, kwargs = node.arguments.fill_in(tensors)
    if getattr(node.operation, "_call_has_training_arg", False):
        kwargs = {**kwargs, "training": False}
    return node.operation(*args, **kwargs)
