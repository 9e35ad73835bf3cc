"""The layers of a model: their order, their names, their state, and a digest of them."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_resnet import files
from keras_resnet.layers import Conv2D, Preprocessing, Thresholds

# Layers that have no effect in inference, or none on the numbers.
PASSING = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.Reshape,
    Thresholds,
)


def input_of(model: keras.Model) -> object:
    """The tensor that a model begins with, or a structure of several.

    Parameters
    ----------
    model : keras.Model
        A functional or built sequential model. (For the latter, `model.input` is what another model
        calls it on, or raises AttributeError.)

    Returns
    -------
    keras.KerasTensor or structure of them
    """
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def check_weights(model: keras.Model) -> None:
    """Make sure that no weight of a model is NaN.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Raises
    ------
    ValueError
        If one is: the answers of such a model mean nothing.
    """
    for variable in model.weights:
        numbers = np.asarray(keras.ops.convert_to_numpy(variable))
        if numbers.dtype.kind not in "biuSUO" and np.isnan(numbers).any():
            raise ValueError(
                f"model {model.name!r}: its weights {variable.path!r} are NaN, as after a training "
                "that diverged. Use other weights."
            )


def flat_operations(model) -> Iterator[keras.Operation]:
    """`flat_layers`, and the functions of `keras.ops` among them."""
    if isinstance(model, keras.Sequential):
        inner = model.layers
    else:
        inner = model.operations if is_functional(model) else model.layers
    for each in inner:
        if isinstance(each, keras.Model):
            yield from flat_operations(each)
        else:
            yield each


def flat_layers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers of a model in order and, in their place, those of models among them.

    Parameters
    ----------
    layer : keras.Layer
        A model; of another layer, the list holds that layer.

    Returns
    -------
    list of keras.Layer
    """
    if not isinstance(layer, keras.Model):
        return [layer]
    return [each for inner in layer.layers for each in flat_layers(inner)]


def named_layers(model: keras.Model, name: str, argument: str = "name") -> list[keras.Layer]:
    """The layer of a name, or the layers of a stage.

    Parameters
    ----------
    model : keras.Model
        The model.
    name : str
        Of a layer, or of a stage such as "conv4": what the names of its layers begin with.
    argument : str, default "name"
        What errors call it.

    Returns
    -------
    list of keras.Layer

    Raises
    ------
    ValueError
        If there is no such layer or stage.
    """
    layers = flat_layers(model)
    found = [layer for layer in layers if layer.name == name]
    found = found or [layer for layer in layers if layer.name.startswith(f"{name}_")]
    if not found:
        stages = dict.fromkeys(layer.name.partition("_")[0] for layer in layers)
        raise ValueError(
            f"{argument}={name!r}: {model.name} has no such layer or stage. Its layers begin with "
            f"{', '.join(stages)}."
        )
    return found


def check_functional(model: keras.Model) -> None:
    """Raise ValueError for a model that is not a graph of layers."""
    if not is_functional(model):
        unbuilt = isinstance(model, keras.Sequential) and not hasattr(model, "outputs")
        raise ValueError(
            f"model {getattr(model, 'name', model)!r} is a {type(model).__name__}"
            f"{' that has not been built: begin it with keras.Input(shape)' * unbuilt}; only a "
            "functional model, keras.Model(inputs, outputs), shows what is between its layers."
        )


def is_functional(model: Any) -> bool:
    """Whether something is a model that is a graph of layers, and nothing else."""
    if isinstance(model, keras.Sequential):
        # Before it is built, it has no outputs.
        return hasattr(model, "outputs") and type(model).call is keras.Sequential.call
    functional = [kind for kind in type(model).__mro__ if kind.__name__ == "Functional"]
    return bool(functional) and type(model).call is functional[0].call


def plain(model: keras.Model) -> keras.Model:
    """A model of the same layers, from one tensor to one tensor, that is not compiled.

    Parameters
    ----------
    model : keras.Model
        A functional or built sequential model of one input and one output.

    Returns
    -------
    keras.Model
    """
    result = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if hasattr(model, "preprocessing"):
        result.preprocessing = model.preprocessing
    return result


def twin_of(layer: Any, **changes) -> Any:
    """Make a new layer of the same configuration, without what the layer has learned.

    Parameters
    ----------
    layer : keras.Layer or keras.Operation
        A layer, or a function of `keras.ops` in a graph.
    **changes
        Entries of its configuration to change.

    Returns
    -------
    keras.Layer
        The layer itself if it is a `Lambda`, which Keras cannot make again, or if it is no layer:
        neither has state.

    Raises
    ------
    ValueError
        If the layer's configuration is not enough to make one.

    See Also
    --------
    copy_state : Copy what the layer has learned.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet import graphs
    >>> graphs.twin_of(keras.layers.Dense(3, name="head"), units=5).units
    5
    """
    if isinstance(layer, keras.layers.Lambda) or not isinstance(layer, keras.Layer):
        return layer
    try:
        return type(layer).from_config({**layer.get_config(), **changes})
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"layer {layer.name!r} is a {type(layer).__name__}, which cannot be copied: its "
            "get_config() must return every argument that its class needs."
        ) from error


def copy_state(layer: keras.Layer, twin: keras.Layer) -> None:
    """Copy everything that a layer has learned into one of the same configuration.

    Parameters
    ----------
    layer, twin : keras.Layer
        The layer, and another one of the same kind, which is changed.

    Raises
    ------
    ValueError
        If a custom layer has a value that is in neither its weights nor its configuration, and
        would be lost.
    """
    # As for a file. `get_weights` is not enough: a `Normalization` computes with constants that it
    # makes from its weights when they are loaded, and a lookup with its vocabulary.
    for inner, its_twin in zip(layer._flatten_layers(), twin._flatten_layers(), strict=True):
        state = {}
        inner.save_own_variables(state)
        its_twin.load_own_variables(state)
        if hasattr(inner, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                inner.save_assets(folder)
                its_twin.load_assets(folder)
        if lost := _lost(inner, its_twin):
            raise ValueError(
                f"layer {inner.name!r} is a {type(inner).__name__}, whose attribute {lost!r} is in "
                "neither its weights nor its get_config(): a copy, or a saved model, would compute "
                "something else."
            )


def _lost(layer, twin):
    """The first attribute whose value a layer's copy does not have; None if there is none."""
    if type(layer).__module__.partition(".")[0] in ("keras", "keras_resnet"):
        return None  # these are known to carry what they need
    values = ((name, value) for name, value in vars(layer).items() if not name.startswith("_"))
    return next(
        (
            name
            for name, value in values
            if _is_plain(value) and not _same(value, getattr(twin, name, None))
        ),
        None,
    )


def _same(value, other):
    """Whether two values are equal; lists need not be rectangular, and NaN is equal to NaN."""
    if isinstance(value, list | tuple):
        are_lists = isinstance(other, list | tuple) and len(value) == len(other)
        return are_lists and all(map(_same, value, other))
    if isinstance(value, float) and value != value:
        return isinstance(other, float) and other != other
    are_floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return np.array_equal(value, other, equal_nan=are_floats)


def _is_plain(value):
    """Whether something is a number, a string or an array, or consists of them."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | np.ndarray | np.generic)


def digest(model: keras.Model) -> str:
    """Digest what a model computes, whatever its weights.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    str
        The same for the same layers in the same order, whatever their names. It tells apart models
        with equally many parameters, such as those with another shortcut or preprocessing.
    """

    def facts():
        for layer in model._flatten_layers(include_self=False):
            config = {}
            if not isinstance(layer, keras.Model):
                with contextlib.suppress(NotImplementedError):  # of a layer that cannot be saved
                    config = keras.saving.serialize_keras_object(layer)["config"]
            computed = {name: config[name] for name in config if name not in _uncomputed(layer)}
            shapes = [list(weight.shape) for weight in layer.weights]
            with contextlib.suppress(AttributeError, ValueError):  # several outputs
                shapes.append(list(layer.output.shape))
            yield json.dumps([type(layer).__name__, computed, shapes])

    return files.digest(facts(), length=12)


def _uncomputed(layer):
    """Entries of a layer's config that are not in its digest.

    Digests are compared with those in checkpoints, of which older ones know no more of a
    `Preprocessing` layer than mode and crop, and nothing of what a convolution says.
    """
    names = {"name", "trainable"}
    if isinstance(layer, Preprocessing):
        names |= {"image_size", "interpolation"}
    elif isinstance(layer, Conv2D):
        names |= {"normalization", "crop", "image_size", "interpolation"}
    return names
