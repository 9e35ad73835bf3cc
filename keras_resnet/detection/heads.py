"""What is built on a backbone: the pyramid, the region proposal network and the box heads.

Functions from tensor to tensor; each makes the layers that it calls. A kind of head is a row of
`HEADS` in `faster_rcnn`.
"""

from collections.abc import Mapping

import keras
from keras import layers

from keras_resnet.blocks import activation, normalization
from keras_resnet.layers import Conv2D


# One per layer: an initializer that is called twice draws the same numbers.
def _uniform():
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


def _normal(deviation):
    return keras.initializers.RandomNormal(0.0, deviation)


def pyramid(
    stages: Mapping[str, keras.KerasTensor], channels: int = 256, *, normalized: bool = False
) -> list[keras.KerasTensor]:
    """A feature pyramid: semantics of the late stages at the resolution of the early ones.

    Parameters
    ----------
    stages : mapping of str to tensor of shape (images, height, width, channels)
        The stages, "C2" first; each half as high and wide as the one before.
    channels : int, default 256
        Channels of every level.
    normalized : bool, default False
        Whether BatchNormalization follows the convolutions, in place of a bias.

    Returns
    -------
    list of tensor of shape (images, height, width, channels)
        A level for each stage, and one with every second pixel of the last.

    References
    ----------
    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.
    """

    def convolved(x, size, name):
        x = Conv2D(
            channels, size, padding="same", use_bias=not normalized,
            kernel_initializer=_uniform(), name=name,
        )(x)  # fmt: skip
        return normalization(x, name=f"{name}_bn") if normalized else x

    levels, above = [], None
    for name, stage in reversed([*stages.items()]):
        number = name.removeprefix("C")
        x = convolved(stage, 1, f"fpn_inner{number}")
        if above is not None:
            larger = layers.UpSampling2D(2, name=f"fpn_upsampling{number}")(above)
            x = layers.Add(name=f"fpn_add{number}")([x, larger])
        above = x
        levels.insert(0, convolved(x, 3, f"fpn_layer{number}"))
    coarsest = layers.MaxPooling2D(1, strides=2, name="fpn_pool")(levels[-1])
    return [*levels, coarsest]


def proposal_network(
    levels: int, channels: int, anchors: int, convolutions: int = 1
) -> keras.Model:
    """The region proposal network: what every anchor of every level holds, and where.

    Parameters
    ----------
    levels : int
        Number of levels, which share its weights.
    channels : int
        Channels of each.
    anchors : int
        Anchors per position.
    convolutions : int, default 1
        3x3 convolutions before the answers.

    Returns
    -------
    keras.Model
        From a list of levels to the logits of an object, of shape (images, anchors), and deltas,
        of shape (images, anchors, 4).
    """
    hidden = [
        Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer=_normal(0.01),
            name=f"rpn_conv{number}",
        )
        for number in range(1, convolutions + 1)
    ]  # fmt: skip
    ends = [
        Conv2D(anchors, 1, kernel_initializer=_normal(0.01), name="rpn_logits"),
        Conv2D(anchors * 4, 1, kernel_initializer=_normal(0.01), name="rpn_deltas"),
    ]
    inputs = [keras.Input((None, None, channels), name=f"level{n}") for n in range(levels)]
    # The convolutions compute in half precision, if the model does; boxes follow in single.
    flat = [layers.Reshape(shape, dtype=_exact()) for shape in ((-1,), (-1, 4))]
    found = []
    for x in inputs:
        for layer in hidden:
            x = layer(x)
        found.append([shape(end(x)) for end, shape in zip(ends, flat, strict=True)])
    outputs = [
        layers.Concatenate(1, dtype=_exact())(of_levels) if levels > 1 else of_levels[0]
        for of_levels in zip(*found, strict=True)
    ]
    return keras.Model(inputs, outputs, name="rpn")


def box_head(features: keras.Model, classes: int) -> keras.Model:
    """The box head: what a region holds, and where in it.

    Parameters
    ----------
    features : keras.Model
        From bins of regions, of shape (regions, bins, bins, channels), to vectors.
    classes : int
        Number of classes, without the background.

    Returns
    -------
    keras.Model
        From bins to logits of the background and the classes, of shape (regions, classes + 1), and
        deltas for each, of shape (regions, 4 * (classes + 1)).
    """
    ends = [
        layers.Dense(
            classes + 1, kernel_initializer=_normal(0.01), dtype=_exact(), name="box_logits"
        ),
        layers.Dense(
            (classes + 1) * 4, kernel_initializer=_normal(0.001), dtype=_exact(), name="box_deltas"
        ),
    ]
    vector = features.outputs[0]
    return keras.Model(features.inputs[0], [end(vector) for end in ends], name="box_head")


def two_layers(bins: int, channels: int, width: int = 1024) -> keras.Model:
    """What a region holds, by two dense layers.

    Parameters
    ----------
    bins, channels : int
        Those of the regions.
    width : int, default 1024
        Units of the layers.

    Returns
    -------
    keras.Model
    """
    x = inputs = keras.Input((bins, bins, channels), name="regions")
    x = layers.Flatten(name="box_flatten")(x)
    for name in ("fc6", "fc7"):
        x = layers.Dense(width, activation="relu", kernel_initializer=_uniform(), name=name)(x)
    return keras.Model(inputs, x)


def four_convolutions(bins: int, channels: int, width: int = 1024) -> keras.Model:
    """What a region holds, by four convolutions and a dense layer.

    Parameters
    ----------
    bins, channels, width
        As in `two_layers`.

    Returns
    -------
    keras.Model

    References
    ----------
    Li et al., Benchmarking Detection Transfer Learning with Vision Transformers, 2021.
    """
    x = inputs = keras.Input((bins, bins, channels), name="regions")
    for number in range(1, 5):
        name = f"box_conv{number}"
        x = Conv2D(
            channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
        )(x)
        x = activation(normalization(x, name=f"{name}_bn"), name=f"{name}_relu")
    x = layers.Flatten(name="box_flatten")(x)
    x = layers.Dense(width, activation="relu", kernel_initializer=_uniform(), name="fc6")(x)
    return keras.Model(inputs, x)


def _exact():
    """Logits and deltas in float32 where the model computes in half precision."""
    half = keras.config.dtype_policy().compute_dtype in ("bfloat16", "float16")
    return "float32" if half else None
