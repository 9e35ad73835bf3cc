"""The losses and their derivatives, as torchvision computes them.

All anchors and RoIs are sampled, so that no random choice matters. The derivatives are differences
of the sum of torchvision's losses, in float64, in a random direction of a whole tensor, while the
proposals stay where they are. RoIAlign saw zeros outside, as torchvision's compiled operator does.
"""

import zlib
from pathlib import Path

import drawn_detectors as drawn
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import detection
from keras_resnet.detection.loss import sums_in_parts
from keras_resnet.detection.weights import to_torch
from keras_resnet.graphs import flat_layers

FIXTURES = Path(__file__).parents[1] / "golden" / "detection_losses.npz"
BOXES = [[[10, 12, 60, 70], [50, 20, 130, 95]], [[5, 30, 80, 110], [0, 0, 0, 0]]]


def batch():
    """Two images of random pixels, with two boxes and one."""
    images = np.zeros((2, 120, 140, 3))
    for image, place in zip(drawn.images(), images, strict=True):
        place[: len(image), : image.shape[1]] = image
    inputs = {"images": images.astype(keras.config.floatx()), "sizes": drawn.SIZES}
    labels = {
        "boxes": np.array(BOXES, "float32"),
        "classes": np.array([[0, 2], [1, -1]], "int32"),
        "ignored": np.zeros((2, 2), bool),
        "seeds": np.zeros((2, 2), "int32"),
    }
    return tuple({name: tf.constant(each) for name, each in of.items()} for of in (inputs, labels))


@pytest.fixture
def expected():
    with np.load(FIXTURES) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["fpn", "fpn_v2", "c4_50", "c4_101"])
def test_the_four_losses(net, expected):
    detector = drawn.detector(net)
    for layer in flat_layers(detector):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # as the fixtures were made
    parts = detection.parts_of(detector)
    for name, loss in detection.losses(parts, *batch(), training=True).items():
        assert abs(loss - expected[f"{net}/loss/{name}"]) < 1e-5, name


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.slow
@pytest.mark.parametrize("net", ["fpn", "c4_50"])
def test_derivatives(net, expected, float64):
    """Of what training computes: RoIs some at a time, their gradient along with them.

    TensorFlow resizes images, and crops features, in float32 only.
    """
    detector = drawn.detector(net)
    variables = [each.value for each in detector.trainable_variables]
    with tf.GradientTape() as tape:
        sums = sums_in_parts(detection.parts_of(detector), *batch(), training=True)
        regions = tf.reduce_sum(sums.objectness + sums.rpn_box_reg)
        loss = sums.of_rois / tf.reduce_sum(sums.rois) + regions / tf.reduce_sum(sums.anchors)
    gradients = tape.gradient(loss, variables)
    for variable, gradient in zip(detector.trainable_variables, gradients, strict=True):
        variable.assign(gradient)
    gradients = to_torch(detector)  # in torchvision's names and layout
    names = [name for name in expected if name.startswith(f"{net}/derivative/")]
    assert len(names) == 5
    for name in names:
        parameter = name.rpartition("/")[2]
        gradient = gradients[parameter].astype("float64")
        generator = np.random.RandomState(zlib.crc32(f"direction {parameter}".encode()))
        direction = generator.uniform(-1, 1, gradient.shape)
        found = (gradient * direction).sum() / np.linalg.norm(direction)
        np.testing.assert_allclose(found, expected[name], rtol=2e-4, err_msg=name)
