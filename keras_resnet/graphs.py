"""What a Keras model is: its head, its features, its preprocessing, its layers in order."""

import contextlib
import hashlib
import json
from typing import Literal

import keras

from keras_resnet.layers import (
    Preprocessing,
)
from keras_resnet.resnet import deep_graphs

_HEAD_LAYERS = (
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.Softmax,
)


# A head of MobileNets: convolutions of features that are still a map of one pixel.
_MAP_HEAD_LAYERS = (
    keras.layers.Conv2D,
    keras.layers.Dropout,
    keras.layers.Activation,
    keras.layers.Reshape,
    keras.layers.Flatten,
)


POOLING = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


def features_of(model: keras.Model) -> keras.KerasTensor:
    """What enters the head of a model: the output of the last layer that is not part of it.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, with a classifier or without.

    Returns
    -------
    keras.KerasTensor
        Pooled features, or a feature map where nothing pools it.

    Raises
    ------
    ValueError
        If the model has several outputs.
    """
    x = model.output
    if not keras.backend.is_keras_tensor(x):
        raise ValueError(
            f"{model.name} has several outputs: choose one of them, as "
            "keras.Model(model.input, model.output[...])."
        )
    # An activation behind a feature map belongs to the feature map.
    while isinstance(layer := layer_of(x), _HEAD_LAYERS) and len(layer.input.shape) == 2:
        x = layer.input
    pooled = x
    while isinstance(layer := layer_of(pooled), _MAP_HEAD_LAYERS):
        if tuple(layer.input.shape[1:-1]) not in ((), (1, 1)):
            break
        pooled = layer.input
    return pooled if isinstance(layer, POOLING) else x


def layer_of(tensor):
    """The layer that made a tensor."""
    return tensor._keras_history.operation


def flat_layers(layer):
    """The layers of a model and, in their place, of models among them; of a layer, itself."""
    if not isinstance(layer, keras.Model):
        return [layer]
    return [each for inner in layer.layers for each in flat_layers(inner)]


def named_layers(model, name, argument):
    """The layer of a name, or those of a stage."""
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


@deep_graphs()
def extractor_of(model: keras.Model) -> keras.Model:
    """Everything but a model's head, with the same weights.

    Parameters
    ----------
    model : keras.Model
        A classifier, as `classifier` makes it.

    Returns
    -------
    keras.Model
    """
    return keras.Model(model.input, features_of(model))


def last_stage(model):
    """What the names of the layers begin with that make the last feature map."""
    x = features_of(model)
    while isinstance(layer := layer_of(x), keras.Model) or len(x.shape) == 2:
        x = layer.output if isinstance(layer, keras.Model) else layer.input
    return layer.name.partition("_")[0]


def crop_of(model: keras.Model) -> float:
    """How much of a photograph a model that takes raw images is to be shown.

    Parameters
    ----------
    model : keras.Model
        A model built with `include_preprocessing=True`, as it was built or loaded.

    Returns
    -------
    float
        The part of the shorter side, in the middle, that `data.batches` is to keep: what the
        model's weights were tested with. 1.0 for a model that takes no raw images.

    Examples
    --------
    >>> import keras_resnet
    >>>     >>> crop_of(keras_resnet.ResNet18(weights=None, include_preprocessing=True))
    0.875
    """
    layer = preprocessing_layer(model)
    return 1.0 if layer is None else layer.crop


def preprocessing_layer(model: keras.Model) -> Preprocessing | None:
    """The layer by which a model normalizes raw images itself.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    Preprocessing or None
        Also one inside of a model that it uses as a layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            layer = preprocessing_layer(layer)
        if isinstance(layer, Preprocessing):
            return layer
    return None


def check_functional(model: keras.Model) -> None:
    """Raise ValueError for a model that is no graph of layers."""
    if not is_functional(model):
        raise ValueError(
            f"model {getattr(model, 'name', model)!r} is a {type(model).__name__}: only a "
            "functional model, keras.Model(inputs, outputs), shows what is between its layers."
        )


def plain(model: keras.Model) -> keras.Model:
    """A model of the same layers that is from one tensor to one tensor, and not compiled.

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


def is_functional(model):
    """Whether a model is a graph of layers, and nothing else."""
    if isinstance(model, keras.Sequential):
        return model.built and type(model).call is keras.Sequential.call
    functional = [kind for kind in type(model).__mro__ if kind.__name__ == "Functional"]
    return bool(functional) and type(model).call is functional[0].call


_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


def preprocessing_of(model):
    """What a model says of itself."""
    return "raw" if preprocessing_layer(model) else getattr(model, "preprocessing", None)


def output_name(model: keras.Model) -> Literal["probabilities", "logits", "features"]:
    """What the output of a model is.

    Parameters
    ----------
    model : keras.Model
        A functional model.

    Returns
    -------
    str
        "features" where the model has no head.
    """
    if features_of(model) is model.outputs[0]:
        return "features"
    last = model.outputs[0]._keras_history.operation
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Softmax) or activation in _PROBABILITIES:
        return "probabilities"
    return "logits"


def architecture_digest(model: keras.Model) -> str:
    """Digest what a model computes, but for its weights.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    str
        The same for the same layers in the same order, whatever they are called. It tells apart
        nets of the same number of parameters, such as those of other shortcuts or preprocessing.
    """
    digest = hashlib.sha256()
    for layer in model._flatten_layers(include_self=False):
        config = {}
        if not isinstance(layer, keras.Model):
            with contextlib.suppress(NotImplementedError):  # of a layer that cannot be saved
                config = keras.saving.serialize_keras_object(layer)["config"]
        computed = {name: config[name] for name in config if name not in ("name", "trainable")}
        shapes = [list(weight.shape) for weight in layer.weights]
        with contextlib.suppress(AttributeError, ValueError):  # several outputs
            shapes.append(list(layer.output.shape))
        digest.update(json.dumps([type(layer).__name__, computed, shapes]).encode())
    return digest.hexdigest()[:12]
