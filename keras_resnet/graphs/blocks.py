"""The blocks of a model: the layers between the points that every way through it passes."""

from collections import Counter
from collections.abc import Iterator

import keras

from keras_resnet.graphs.heads import head_of
from keras_resnet.graphs.structure import flat_layers, is_functional, plain


def blocks_of(model: keras.Model) -> tuple[tuple[keras.Layer, ...], ...]:
    """Find the blocks of a model: its stem, its residual blocks, its head.

    A block is what lies between two points that every way through the model passes. What comes
    before it without branches belongs to it, such as the normalization of a pre-activation block;
    before the first one, it is the stem. In a model without branches, every layer with a kernel
    begins a block.

    Parameters
    ----------
    model : keras.Model
        A functional model of one output, of this package or any other.

    Returns
    -------
    tuple of tuple of layers
        The layers of each block that have weights, in order. The head is the last one.

    Raises
    ------
    ValueError
        If the model is not functional or has several outputs.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> blocks = graphs.blocks_of(keras_resnet.CIFARResNet(8))
    >>> [len(block) for block in blocks]  # of the stem, three residual blocks, the head
    [2, 4, 4, 4, 1]
    """
    head = head_of(model).layers
    segments = [
        (len(segment) > 1, [each for each in segment if each.weights and each not in head])
        for segment in _segments(model)
    ]
    branches = any(is_block for is_block, layers in segments if layers)
    found, before = [], []
    for is_block, layers in segments:
        if is_block and layers:
            if not found and _have_kernels(before):
                found, before = [before], []
            found, before = [*found, [*before, *layers]], []
        elif branches or not (found or _have_kernels(layers)):
            before += layers
        elif _have_kernels(layers):
            found, before = [*found, [*before, *layers]], []
        else:
            found[-1] += layers
    if _have_kernels(before) or not found:
        found.append(before)
    else:
        found[-1] += before
    of_head = [layer for layer in head if getattr(layer, "weights", ())]
    return tuple(tuple(block) for block in (*found, of_head) if block)


def _segments(model) -> Iterator[list[keras.Layer]]:
    """The layers between the points where a single tensor is left of all that has been made."""
    model = plain(model) if isinstance(model, keras.Sequential) else model
    nodes = [
        node
        for depth in sorted(model._nodes_by_depth, reverse=True)
        for node in model._nodes_by_depth[depth]
        if not node.is_input
    ]
    uses = Counter(id(each) for node in nodes for each in node.input_tensors)
    left, segment = {id(each) for each in model.inputs}, []
    for node in nodes:
        uses.subtract(map(id, node.input_tensors))
        left |= {*map(id, node.outputs)}
        left = {each for each in left if uses[each] > 0}
        layer = node.operation
        if is_functional(layer) and not segment and len(left) <= 1:
            yield from _segments(layer)
            continue
        segment += [each for each in flat_layers(layer) if isinstance(each, keras.Layer)]
        if len(left) <= 1:
            yield segment
            segment = []


def _have_kernels(layers):
    """Whether any of some layers has more than scales and shifts."""
    return any(len(weight.shape) > 1 for layer in layers for weight in layer.weights)


def drop_path_of(model: keras.Model) -> float:
    """Find how often the last residual block of a model is left out in training.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    float
        The highest rate of its `Dropout` layers that drop whole feature maps of an image; 0 if
        there are none.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> graphs.drop_path_of(keras_resnet.CIFARResNet(8))
    0.0
    """
    return max(
        (
            float(layer.rate)
            for layer in flat_layers(model)
            if isinstance(layer, keras.layers.Dropout)
            and layer.noise_shape
            and all(size == 1 for size in layer.noise_shape[1:])
        ),
        default=0.0,
    )
