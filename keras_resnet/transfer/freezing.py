"""Which layers learn."""

import keras

from keras_resnet.graphs import flat_layers, head_of, named_layers


def freeze(model: keras.Model, up_to: str | None = None) -> None:
    """Hold the weights of a model's first layers, up to a stage and with it.

    A frozen BatchNormalization also normalizes with its moving statistics in training, and does
    not move them. Were it left to use the statistics of the batch, frozen convolutions would feed
    features of another distribution to the layers behind them than in prediction, and their
    learned statistics would drift away from ImageNet's with every small batch, though nothing in
    them is meant to learn. So the layer's `trainable` is what tells it, as in Keras.

    Compile the model afterwards, or again.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    up_to : str, optional
        Name of a layer or of a stage, such as "conv4"; a stage ends with the last layer whose name
        begins with it. Default: all but the head.

    Raises
    ------
    ValueError
        If there is no such layer or stage.

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
        head = head_of(model).layers
        frozen = [layer for layer in layers if layer not in head]
    else:
        last = max(layers.index(layer) for layer in named_layers(model, up_to, "up_to"))
        frozen = layers[: last + 1]
    for layer in frozen:
        layer.trainable = False


def unfreeze(model: keras.Model, back_to: str | None = None, normalization: bool = True) -> None:
    """Let a model's last layers learn, from a stage on.

    Compile the model afterwards, or again.

    Parameters
    ----------
    model : keras.Model
        A functional model.
    back_to : str, optional
        Name of a layer or of a stage, such as "conv5": the first layer that is to learn, or whose
        name begins with it. Default: all layers.
    normalization : bool, default True
        Whether BatchNormalization may learn, too, and goes on to move its statistics. Without,
        small batches cannot disturb it, and a step is quicker.

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
    learning = [layer.trainable for layer in layers]
    first = 0
    if back_to is not None:
        first = min(layers.index(layer) for layer in named_layers(model, back_to, "back_to"))
    model.trainable = True  # and so is all that it consists of
    for layer, former in zip(layers[:first], learning, strict=False):
        layer.trainable = former
    for layer in layers[first:]:
        layer.trainable = normalization or not isinstance(layer, keras.layers.BatchNormalization)
