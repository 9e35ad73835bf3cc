"""A new head on a pretrained model."""

import logging
from collections.abc import Callable
from typing import Literal

import keras

from keras_resnet.checks import check_activation, check_choice, check_positive, check_range
from keras_resnet.data import Source
from keras_resnet.graphs import POOLING, head_of, input_of
from keras_resnet.resnet import deep_graphs
from keras_resnet.training.tasks import task_of

logger = logging.getLogger("keras_resnet")


def classifier(
    backbone: keras.Model,
    classes: int,
    dropout: float = 0.0,
    *,
    pooling: Literal["avg", "max"] = "avg",
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> keras.Model:
    """Put a new classifier on a pretrained model.

    Parameters
    ----------
    backbone : keras.Model
        A functional model of images, of this package, of `keras.applications` or any other. If it
        ends in a head for a task of its own (a softmax, a sigmoid, known logits or values), that is
        left out. Another projection behind its features, such as `Dense(32)`, stays, and this is
        logged. Layers and weights are shared, not copied.
    classes : int
        Outputs of the new head.
    dropout : float, default 0.0
        Fraction of the features to drop in training.
    pooling : {"avg", "max"}, default "avg"
        How to pool a feature map, if the backbone ends in one.
    classifier_activation : str or None, default "softmax"
        Activation of the new head: "softmax" for one class of several, "sigmoid" for any number of
        labels, None for logits.
    name : str, optional
        Name of the model. Default: the backbone's.

    Returns
    -------
    keras.Model
        A functional model of the same input. Its new layers are "head_dropout" and "predictions".

    Raises
    ------
    ValueError
        For an argument out of its range, or a backbone that is not functional or gives neither a
        feature map nor features.

    See Also
    --------
    model_for : The same for any task.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> backbone = keras_resnet.ResNet18(include_top=False, weights=None, input_shape=(64, 64, 3))
    >>> model = transfer.classifier(backbone, classes=2)
    >>> transfer.freeze(model)
    >>> [variable.path for variable in model.trainable_variables]
    ['predictions/kernel', 'predictions/bias']
    """
    check_positive(classes=classes)
    check_activation(classifier_activation)

    def head(features):
        if dropout:
            features = keras.layers.Dropout(dropout, name="head_dropout")(features)
        # Probabilities in float32 whatever the model computes in.
        return keras.layers.Dense(
            int(classes), activation=classifier_activation, dtype="float32", name="predictions"
        )(features)

    return _with_head(backbone, head, dropout, pooling, name)


def model_for(
    backbone: keras.Model,
    source: Source,
    dropout: float = 0.0,
    *,
    pooling: Literal["avg", "max"] = "avg",
    name: str | None = None,
) -> keras.Model:
    """Put the head for a source's task on a pretrained model.

    Parameters
    ----------
    backbone
        As for `classifier`.
    source : Source
        The data: classes, several labels per image, or values.
    dropout, pooling, name
        As for `classifier`.

    Returns
    -------
    keras.Model
        A functional model of the same input. For classes, what `classifier` returns.

    Raises
    ------
    ValueError
        As `classifier` does.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, transfer
    >>> backbone = keras_resnet.CIFARResNet(8, include_top=False, input_shape=(8, 8, 1))
    >>> transfer.model_for(backbone, data.load("digits")).output_shape
    (None, 10)
    """
    head = task_of(source).head
    return _with_head(
        backbone, lambda features: head(features, source, dropout), dropout, pooling, name
    )


@deep_graphs()
def _with_head(backbone, head: Callable, dropout, pooling, name):
    """A model of a backbone's features and the layers that `head` calls on them."""
    check_range("dropout", dropout=dropout)
    check_choice(("avg", "max"), pooling=pooling)
    x = _kept_of(backbone)
    if len(x.shape) == 4:
        pool = POOLING[("avg", "max").index(pooling)]
        x = pool(name=f"{pooling}_pool")(x)
    if len(x.shape) != 2:
        raise ValueError(
            f"backbone {backbone.name} gives {x.shape}: expected a feature map (batch, height, "
            "width, channels) or features (batch, channels)."
        )
    model = keras.Model(input_of(backbone), head(x), name=name or backbone.name)
    if hasattr(backbone, "preprocessing"):
        model.preprocessing = backbone.preprocessing
    return model


def _kept_of(backbone):
    """What a new head is put on: everything but a head for a task of its own."""
    old = head_of(backbone)
    # What this package calls a head is one, of a number or a logit.
    is_head = any(layer.name == "predictions" for layer in old.layers)
    if old.output == "unknown" and old.layers and not is_head:
        logger.info(
            "%s: what %s projects the features to is not known to be classes, so it stays.",
            backbone.name,
            " and ".join(layer.name for layer in old.layers if hasattr(layer, "kernel")),
        )
        return old.entering(len(old.layers))
    if old.output == "unknown" and not old.layers and len(old.features.shape) == 2:
        logger.warning(
            "%s: its outputs may not be features; the new head is put on them as they are.",
            backbone.name,
        )
    if old.output == "features" or not old.layers:
        return old.features
    # A normalization before the first projection has been learned with the features.
    index = old.first_projection
    if index == len(old.layers):  # nothing but activations, of features that are classes
        return old.features
    while index and isinstance(old.layers[index - 1], keras.layers.Dropout):
        index -= 1
    return old.entering(index)
