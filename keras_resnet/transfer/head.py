"""A new head on a pretrained model."""

from typing import Literal

import keras

from keras_resnet.checks import check_activation, check_positive
from keras_resnet.graphs import POOLING, features_of
from keras_resnet.resnet import deep_graphs


@deep_graphs()
def classifier(
    backbone: keras.Model,
    classes: int,
    dropout: float = 0.0,
    *,
    pooling: Literal["avg", "max"] = "avg",
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> keras.Model:
    """Put a new head on a pretrained net.

    Parameters
    ----------
    backbone : keras.Model
        A functional model of images, of this package or of `keras.applications`. Where it ends in a
        classifier, that is left out. Its layers and weights are shared, not copied.
    classes : int
        Outputs of the new head.
    dropout : float, default 0.0
        Part of the features that is dropped in training.
    pooling : {"avg", "max"}, default "avg"
        How a feature map becomes features, where the backbone ends in a feature map.
    classifier_activation : str or None, default "softmax"
        Activation of the head; None for logits.
    name : str, optional
        Name of the model. Default: the backbone's.

    Returns
    -------
    keras.Model
        A functional model of the same input. Its new layers are "head_dropout" and "predictions".

    Raises
    ------
    ValueError
        For an argument out of its range, or a backbone that gives neither a feature map nor
        features.

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
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r} must be at least 0 and below 1.")
    if pooling not in ("avg", "max"):
        raise ValueError(f"pooling={pooling!r} must be 'avg' or 'max'.")
    x = features_of(backbone)
    if len(x.shape) == 4:
        pool = POOLING[("avg", "max").index(pooling)]
        x = pool(name=f"{pooling}_pool")(x)
    if len(x.shape) != 2:
        raise ValueError(
            f"backbone {backbone.name} gives {x.shape}: expected a feature map (batch, height, "
            "width, channels) or features (batch, channels)."
        )
    if dropout:
        x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    # Probabilities in float32 whatever the net computes in.
    x = keras.layers.Dense(
        int(classes), activation=classifier_activation, dtype="float32", name="predictions"
    )(x)
    model = keras.Model(backbone.input, x, name=name or backbone.name)
    if hasattr(backbone, "preprocessing"):
        model.preprocessing = backbone.preprocessing
    return model
