"""Which layers are trainable."""

import keras

from keras_resnet.graphs import flat_layers, head_of, last_stage, named_layers, whole_head_of


def freeze(model: keras.Model, up_to: str | None = None) -> None:
    """Freeze a model's first layers, up to and including a stage.

    A frozen BatchNormalization also normalizes with its moving statistics in training, and does
    not update them. If it used the statistics of the batch instead, the frozen convolutions would
    give other features in training than in prediction, and every small batch would move its
    statistics further away from those of the pretraining.

    Compile the model afterwards.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    up_to : str, optional
        Name of a layer or of a stage, such as "conv4"; a stage ends with the last layer whose name
        begins with it. Default: everything but the whole head.

    Raises
    ------
    ValueError
        If the model has no such layer or stage, or is not functional. Without `up_to`, if the model
        does not show where its head begins, as where it adds projections up.

    See Also
    --------
    unfreeze : The inverse.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> net = keras_resnet.CIFARResNet(8)
    >>> transfer.freeze(net, up_to="conv3")
    >>> sorted({variable.path.partition("_")[0] for variable in net.trainable_variables})
    ['conv4', 'predictions/bias', 'predictions/kernel']
    """
    layers = flat_layers(model)
    if up_to is None:
        head = whole_head_of(model)
        frozen = [layer for layer in layers if layer not in head]
    else:
        last = max(layers.index(layer) for layer in named_layers(model, up_to, "up_to"))
        frozen = layers[: last + 1]
    for layer in frozen:
        layer.trainable = False


def unfreeze(model: keras.Model, back_to: str | None = None, normalization: bool = True) -> None:
    """Make a model's last layers trainable, from a stage on.

    Compile the model afterwards.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    back_to : str, optional
        Name of a layer or of a stage, such as "conv5", whose first layer is the first that learns,
        or "last" for the last stage, the layers behind the last stride of any model. Default: all
        layers.
    normalization : bool, default True
        Whether BatchNormalization layers before the head learn, too, and update their moving
        statistics. If they do not, small batches cannot disturb them, and a step is faster.

    Raises
    ------
    ValueError
        If there is no such layer or stage.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import transfer
    >>> net = keras_resnet.CIFARResNet(8)
    >>> transfer.freeze(net)
    >>> transfer.unfreeze(net, back_to="conv4")
    >>> net.get_layer("conv4_block1_out").trainable, net.get_layer("conv3_block1_out").trainable
    (True, False)
    """
    layers = flat_layers(model)
    former = [layer.trainable for layer in layers]
    first, frozen = 0, []
    if back_to is not None:
        stage = last_stage(model) if back_to == "last" else named_layers(model, back_to, "back_to")
        first = min(map(layers.index, stage))
    if not normalization:
        head = head_of(model).layers
        kind = keras.layers.BatchNormalization
        frozen = [each for each in layers if isinstance(each, kind) and each not in head]
    model.trainable = True  # and so are nested models
    for index, layer in enumerate(layers):
        layer.trainable = former[index] if index < first else layer not in frozen
