"""From a feature map and the gradient of a score to a map of where the score comes from."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_resnet import graphs

SCALE = 1024.0
"""What gradients in float16 are scaled by: its smallest number is 6e-8."""


def _grad_cam(features, gradients):
    """Selvaraju et al. 2017, equations 1 and 2."""
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def _grad_cam_plus_plus(features, gradients):
    """Chattopadhay et al. 2018, equations 5, 10 and 19, without the factor exp(score)."""
    squares = tf.square(gradients)
    total = tf.reduce_sum(features, axis=(1, 2), keepdims=True)
    alphas = tf.math.divide_no_nan(squares, 2 * squares + total * squares * gradients)
    weights = tf.reduce_sum(alphas * tf.nn.relu(gradients), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))


def _cam(features, gradients):
    """Zhou et al. 2016, equation 2, divided by the number of locations that are averaged.

    The gradient through an average and a projection is the projection's weight, divided likewise.
    """
    return tf.reduce_sum(gradients * features, axis=-1)


def _hirescam(features, gradients):
    """Draelos and Carin 2020, equation 6: what each location adds to a linear score."""
    return tf.nn.relu(_cam(features, gradients))


METHODS: dict[str, Callable[[Any, Any], Any]] = {
    "grad_cam": _grad_cam,
    "grad_cam++": _grad_cam_plus_plus,
    "cam": _cam,
    "hirescam": _hirescam,
}
"""What turns features and gradients (images, height, width, channels) into maps, by name."""

OF_BOXES = ("hirescam", "grad_cam", "grad_cam++")
"""The methods that suit any head, such as a detector's box head."""


def check_cam(model: keras.Model, layer: Any) -> None:
    """Raise ValueError unless a model's score is a weighted sum of an averaged feature map."""
    head = graphs.head_of(model)
    linear = (*graphs.PASSING, keras.layers.Dense)
    dense = [each for each in head.layers if isinstance(each, keras.layers.Dense)]
    others = [each for each in head.layers if not isinstance(each, linear)]
    if (
        not isinstance(head.pooling, keras.layers.GlobalAveragePooling2D)
        or len(dense) != 1
        or any(each is not head.squashing for each in others)
        or not (head.linear or head.squashing)
    ):
        raise ValueError(
            f"method='cam' needs a head of global average pooling and one Dense layer, which "
            f"{model.name} does not have: use 'grad_cam'."
        )
    if layer is not None:
        raise ValueError(
            f"method='cam' is for the feature map that is pooled: leave out layer={layer!r}."
        )
