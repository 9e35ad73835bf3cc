"""Watch the layers of a model at work, in whatever model they are nested."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_resnet import graphs
from keras_resnet.graphs.structure import flat_operations


class Call(NamedTuple):
    """What a layer gave when it was called."""

    layer: Any
    output: Any


@contextlib.contextmanager
def replaced(owner: Any, **changes: Any) -> Iterator[None]:
    """Give an object other attributes for a while, past what Keras does when one is set."""
    there = vars(owner)
    former = {name: there[name] for name in changes if name in there}
    there.update(changes)
    try:
        yield
    finally:
        for name in changes:
            del there[name]
        there.update(former)


@contextlib.contextmanager
def watched(layers: list, tape: tf.GradientTape) -> Iterator[list[Call]]:
    """Record the feature maps that layers give, in the order in which they are made.

    Parameters
    ----------
    layers : list of layers
        Layers or functions of a model, at any depth.
    tape : tf.GradientTape
        Watches the maps.

    Yields
    ------
    list of Call
        Filled while the model is called: with every output of shape (images, height, width,
        channels) of more than one pixel.
    """
    calls: list[Call] = []

    def recording(layer) -> Callable:
        call = layer.call

        def recorded(*args, **kwargs):
            output = call(*args, **kwargs)
            if tf.is_tensor(output) and _is_map(output):
                tape.watch(output)
                calls.append(Call(layer, output))
            return output

        return recorded

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced(layer, call=recording(layer)))
        yield calls


def _is_map(tensor):
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) != (1, 1)


def all_layers(model: keras.Model) -> list:
    """All layers and functions of a model, and those inside of them, at any depth."""
    inner = (*flat_operations(model), *model._flatten_layers(include_self=False))
    return list({id(each): each for each in inner}.values())


def find_layers(model: keras.Model, layer: Any) -> list:
    """Find the layers one of which gives the feature map.

    Parameters
    ----------
    model : keras.Model
        Any model.
    layer : str or layer, optional
        Name of a layer, or of a stage such as "conv5"; or a layer. Default: what a global pooling
        is applied to; without one, all layers.

    Returns
    -------
    list of layers

    Raises
    ------
    ValueError
        If the model has no such layer, or several of that name.
    """
    known = all_layers(model)
    if layer is None:
        pooled = graphs.head_of(model).pooled if graphs.is_functional(model) else None
        leaves = [each for each in known if not isinstance(each, keras.Model)]
        return [pooled] if any(each is pooled for each in known) else leaves
    if not isinstance(layer, str):
        if not any(each is layer for each in known):
            raise ValueError(f"layer={layer!r} is neither a name nor a layer of {model.name}.")
        return [layer]
    found = [each for each in known if each.name == layer]
    found = found or graphs.named_layers(model, layer, "layer")
    if len({each.name for each in found}) < len(found):
        raise ValueError(
            f"layer={layer!r}: {model.name} has several of that name, in models nested in it: give "
            "the layer itself."
        )
    return found
