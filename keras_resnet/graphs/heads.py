"""The head of a model: what comes out, and the layers between that and the features."""

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import keras

from keras_resnet.graphs.structure import PASSING, check_functional, input_of, is_functional
from keras_resnet.layers import Thresholds
from keras_resnet.resnet import deep_graphs

Output = Literal["probabilities", "multilabel", "logits", "number", "features", "unknown"]
OUTPUTS = get_args(Output)
POOLING = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)

_ACTIVATIONS = (
    keras.layers.Activation,
    keras.layers.ELU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Softmax,
)

_PROJECTIONS = (keras.layers.Dense, keras.layers.Conv2D)

_CHAIN = (
    *_PROJECTIONS,
    *_ACTIVATIONS,
    *_NORMALIZATIONS,
    *(each for each in PASSING if each not in (keras.layers.Flatten, keras.layers.Reshape)),
    keras.layers.Rescaling,
)

# Heads of MobileNets are convolutions of a map that pooling has left one pixel of.
_MAP_CHAIN = (*_CHAIN, keras.layers.Flatten, keras.layers.Reshape)

# Activations as functions of Keras, by what comes out of them.
_ACTIVATION_OUTPUTS: dict[str, Output] = {
    "softmax": "probabilities",
    "sigmoid": "multilabel",
    "log_softmax": "logits",
}

# The classes behind `keras.ops.softmax` and others that heads are made of.
_FUNCTIONS = {
    **{"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax", "Cast": "linear"},
    **{"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Elu": "elu", "Selu": "selu"},
    **{"Gelu": "gelu", "Silu": "silu", "HardSilu": "hard_silu", "Tanh": "tanh"},
}

# Layers behind a feature map that leave features of each image.
_MAKES_FEATURES = (
    *POOLING,
    *PASSING,
    keras.layers.InputLayer,
)

# What the families of keras.applications, and this package, call the last layer of a classifier.
_CLASSIFIER_NAMES = ("predictions", "logits", "fc1000", "conv_preds")
_CLASSIFIER_SUFFIX = "_head_dense"  # ConvNeXt


class _Place(NamedTuple):
    """A tensor inside of a model: of that model, then of the models nested in it, outermost first.

    All but the last are outputs of the nested model that comes next.
    """

    models: tuple[keras.Model, ...]
    tensors: tuple[keras.KerasTensor, ...]

    @property
    def tensor(self):
        return self.tensors[-1]


@dataclass(frozen=True)
class Head:
    """What comes out of a model, and the layers that make it of the features.

    Parameters
    ----------
    output : {"probabilities", "multilabel", "logits", "number", "features", "unknown"}
        "probabilities": of classes, from a softmax. "multilabel": a probability for each label,
        from a sigmoid; of one unit, the probability of the second of two classes. "logits": a
        softmax would make them probabilities. "number": values in a unit of their own.
        "features": the model has no head. "unknown": the model does not say.
    layers : tuple of layers
        From the first after the features to the last of the model.
    units : int or None
        Numbers that come out for each image; None if that is not known.
    linear : bool
        Whether the last projection has no activation, so that "unknown" could be logits.
    places : tuple
        Where each layer's input is, and the output of the last one.
    """

    output: Output
    layers: tuple[keras.Operation, ...]
    units: int | None
    linear: bool
    places: tuple[_Place, ...]

    @functools.cached_property
    def features(self) -> keras.KerasTensor:
        """What enters the head, made of the model's input."""
        return self.entering(0)

    def entering(self, index: int) -> keras.KerasTensor:
        """What enters a layer of the head, made of the model's input.

        Parameters
        ----------
        index : int
            Of the layer in `layers`; their number for the model's output.

        Returns
        -------
        keras.KerasTensor
            Where that is inside of a nested model, the output of a model that ends there.
        """
        models, tensors = self.places[index]
        *_, x = tensors
        for number in range(len(models) - 1, 0, -1):
            inner, made = models[number], tensors[number - 1]
            if x is made or x is inner.outputs[made._keras_history.tensor_index]:
                x = made
                continue
            with deep_graphs():
                x = _called(keras.Model(input_of(inner), x, name=inner.name), _node(made))
        return x

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """What the probability of each label must exceed; None if the model does not say."""
        found = (layer for layer in self.layers if isinstance(layer, Thresholds))
        return next((layer.thresholds for layer in found), None)

    @property
    def squashing(self) -> keras.Operation | None:
        """The layer whose softmax or sigmoid is applied last; None if there is none."""
        if self.linear or self.output not in _ACTIVATION_OUTPUTS.values():
            return None
        found = (each for each in self.layers[::-1] if _activation_of(each) in _ACTIVATION_OUTPUTS)
        return next(found)

    @property
    def pooling(self) -> keras.Layer | None:
        """The global pooling that makes the features; None if something else does."""
        maker = _maker(self.places[0])
        return maker if isinstance(maker, POOLING) else None

    @property
    def pooled(self) -> keras.Operation | None:
        """The layer whose feature map is pooled to the features; None if none is."""
        before = _before(self.places[0]) if self.pooling else None
        return None if before is None else _maker(before)

    @property
    def first_projection(self) -> int:
        """Index of the first Dense layer or convolution in `layers`; their number without one."""
        found = (i for i, layer in enumerate(self.layers) if isinstance(layer, _PROJECTIONS))
        return next(found, len(self.layers))


def head_of(model: keras.Model) -> Head:
    """Find the head of a model, and what comes out of it.

    The layers of a head follow each other without a branch: Dense and normalization layers,
    activations, dropout, and convolutions of pooled maps of one pixel.

    Parameters
    ----------
    model : keras.Model
        A functional or built sequential model, which may contain others.

    Returns
    -------
    Head

    Raises
    ------
    ValueError
        If the model is not functional or has several outputs.

    Examples
    --------
    >>> import keras, keras_resnet
    >>> from keras_resnet import graphs
    >>> backbone = keras_resnet.CIFARResNet(8, include_top=False, pooling="avg")
    >>> layers = [backbone, keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")]
    >>> head = graphs.head_of(keras.Sequential([keras.Input((32, 32, 3)), *layers]))
    >>> head.output, len(head.layers), head.features.shape
    ('probabilities', 2, (None, 64))
    """
    check_functional(model)
    if len(model.outputs) != 1:
        raise ValueError(
            f"{model.name} has several outputs: choose one of them, as "
            "keras.Model(model.input, model.outputs[0])."
        )
    layers, places = _chain(_settled((model,), (model.outputs[0],)))
    output, linear = _output_of(layers, places)
    if output == "features":
        layers, places = [], places[-1:]  # normalization alone makes features of features
    return Head(output, tuple(layers), model.outputs[0].shape[-1], linear, tuple(places))


def _node(tensor):
    """The call that made a tensor."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _called(layer, node, tensor=None):
    """Call a layer as in a node; on another tensor, if one is given."""
    known = {id(each): each if tensor is None else tensor for each in node.input_tensors}
    args, kwargs = node.arguments.fill_in(known)
    return layer(*args, **kwargs)


def _settled(models, tensors):
    """The same place, seen from the layer that made the tensor, in whatever model that is."""
    models, tensors = list(models), list(tensors)
    while True:
        tensor = tensors[-1]
        if len(models) > 1 and any(tensor is each for each in models[-1].inputs):
            entering = _node(tensors[-2]).input_tensors
            if len(entering) > 1:
                return _Place(tuple(models), tuple(tensors))
            models.pop()
            tensors.pop()
            tensors[-1] = entering[0]
        elif is_functional(inner := tensor._keras_history.operation):
            models.append(inner)
            tensors.append(inner.outputs[tensor._keras_history.tensor_index])
        else:
            return _Place(tuple(models), tuple(tensors))


def _before(place):
    """Where the one input of the layer is that made the tensor at a place; None if not one."""
    node = _node(place.tensor)
    if len(node.input_tensors) != 1:
        return None
    return _settled(place.models, (*place.tensors[:-1], node.input_tensors[0]))


def _maker(place) -> Any:
    return place.tensor._keras_history.operation


def _chain(place):
    """The layers of a head, in order, and the places of their inputs and of the last output."""
    layers, places = [], [place]

    def walk(place, kinds, may_enter):
        layers, places = [], []
        while isinstance(layer := _maker(place), kinds) or _is_function(layer):
            before = _before(place)
            if before is None or not may_enter(tuple(before.tensor.shape)):
                break
            layers.insert(0, layer)
            places.insert(0, before)
            place = before
        return layers, places

    # An activation behind a feature map belongs to the feature map.
    layers, before = walk(place, _CHAIN, lambda shape: len(shape) == 2)
    places = [*before, place]
    on_maps, before = walk(places[0], _MAP_CHAIN, lambda shape: shape[1:-1] in ((), (1, 1)))
    if before and isinstance(_maker(before[0]), POOLING):
        layers, places = [*on_maps, *layers], [*before, *places]
    return layers, places


def _is_function(operation):
    return not isinstance(operation, keras.Layer) and type(operation).__name__ in _FUNCTIONS


def _activation_of(operation):
    """The name of an operation's activation, "linear" where it has none; None for an unknown one.

    An activation may be a layer or a function, such as `keras.ops.softmax`.
    """
    if not isinstance(operation, keras.Layer):
        activation, name = operation, _FUNCTIONS.get(type(operation).__name__)
    else:
        activation = getattr(operation, "activation", keras.activations.linear)
        if isinstance(operation, keras.layers.Softmax):
            activation = operation
        name = getattr(activation, "__name__", None)
        if isinstance(activation, keras.layers.Softmax):
            name = "softmax"
        elif not getattr(activation, "__module__", "").startswith("keras."):
            return None  # a function of somebody's own may do anything, whatever it is called
    # Over another axis, numbers of different images or places would add up to 1.
    axis, last = getattr(activation, "axis", -1), len(operation.output.shape) - 1
    return name if axis in (-1, last) else None


def _output_of(layers, places) -> tuple[Output, bool]:
    """What comes out of a head, and whether it is what a projection without activation gives."""
    projects = any(isinstance(layer, _PROJECTIONS) for layer in layers)
    if len(places[-1].tensor.shape) not in (2, 4) or (layers and len(places[-1].tensor.shape) != 2):
        return "unknown", False  # not numbers of an image, or a map of features
    names = []
    for layer, place in zip(reversed(layers), reversed(places), strict=False):
        units, activation = place.tensor.shape[-1], _activation_of(layer)
        names.append(layer.name)
        if activation in _ACTIVATION_OUTPUTS:
            # A softmax of one unit is always 1.
            known = activation == "sigmoid" or units != 1
            return (_ACTIVATION_OUTPUTS[activation] if known else "unknown"), False
        if isinstance(layer, keras.layers.Rescaling) and layer.name == "predictions":
            return "number", False
        if isinstance(layer, _PROJECTIONS):
            linear = activation == "linear"
            if linear and units != 1 and any(map(_names_classes, names)):
                return "logits", True
            return "unknown", linear
        if not isinstance(layer, PASSING) and not _is_linear(layer):
            break
    if projects:
        return "unknown", False
    maker, shape = _maker(places[0]), places[0].tensor.shape
    if len(shape) == 2:
        known = isinstance(maker, _MAKES_FEATURES)
    else:
        known = _activation_of(maker) not in _ACTIVATION_OUTPUTS  # a class for every pixel
    return ("features" if known else "unknown"), False


def _is_linear(layer):
    may_be = isinstance(layer, keras.layers.Activation) or not isinstance(layer, keras.Layer)
    return may_be and _activation_of(layer) == "linear"


def _names_classes(name):
    return name in _CLASSIFIER_NAMES or name.endswith(_CLASSIFIER_SUFFIX)


def whole_head_of(model: keras.Model) -> tuple[keras.Operation, ...]:
    """Find all layers of a model's head, or refuse.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.

    Returns
    -------
    tuple of layers
        Empty for a model that gives features.

    Raises
    ------
    ValueError
        As `head_of` does, and if more of the head may lie before branches or arithmetic, where
        `head_of` stops.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> [layer.name for layer in graphs.whole_head_of(keras_resnet.CIFARResNet(8))]
    ['predictions']
    """
    head = head_of(model)
    if head.output == "features":
        return ()
    learns = [layer for layer in head.layers if getattr(layer, "weights", ())]
    before = _projections_before(head.places[0])
    if not learns or before:
        of = f", which is made from {', '.join(before[:3])}" if before else ""
        raise ValueError(
            f"{model.name} does not show where its head begins: it ends in "
            f"{_maker(head.places[0]).name}{of}. Name the last layer before the head: "
            "up_to='NAME'."
        )
    return head.layers


def _projections_before(place):
    """Names of projections between pooled features and a place that branches lead to."""
    found, places, seen = {}, [place], set()
    while places:
        place = places.pop()
        key, maker = tuple(map(id, place.tensors)), _maker(place)
        if key in seen or len(place.tensor.shape) != 2 or isinstance(maker, POOLING):
            continue
        seen.add(key)  # or residual blocks would double the ways
        if isinstance(maker, _PROJECTIONS):
            found[maker.name] = None
        if isinstance(maker, keras.layers.InputLayer):
            continue
        places += [
            _settled(place.models, (*place.tensors[:-1], each))
            for each in _node(place.tensor).input_tensors
        ]
    return list(reversed(found))


def features_of(model: keras.Model) -> keras.KerasTensor:
    """What enters the head of a model, made of its input.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, with a head or without.

    Returns
    -------
    keras.KerasTensor
        Pooled features, or a feature map where nothing pools it; the output of a model without a
        head.

    Raises
    ------
    ValueError
        If the model is not functional or has several outputs.
    """
    return head_of(model).features


@deep_graphs()
def extractor_of(model: keras.Model) -> keras.Model:
    """Everything but a model's head, with the same weights.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.

    Returns
    -------
    keras.Model
        From images to features.

    Raises
    ------
    ValueError
        As `features_of` does.
    """
    return keras.Model(input_of(model), features_of(model))


@deep_graphs()
def head_model_of(model: keras.Model) -> keras.Model:
    """The head of a model alone, with the same weights.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.

    Returns
    -------
    keras.Model
        From features, as `extractor_of` gives them, to the model's output.

    Raises
    ------
    ValueError
        As `features_of` does, and for a model without a head.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> head = graphs.head_model_of(keras_resnet.CIFARResNet(8))
    >>> head.input_shape, head.output_shape
    ((None, 64), (None, 10))
    """
    head = head_of(model)
    if not head.layers:
        raise ValueError(f"{model.name} has no head: its output is its features.")
    entering = head.places[0].tensor
    x = features = keras.Input(batch_shape=entering.shape, dtype=entering.dtype)
    for layer, place in zip(head.layers, head.places[1:], strict=True):
        x = _called(layer, _node(place.tensor), x)
    return keras.Model(features, x, name=f"{model.name}_head")
