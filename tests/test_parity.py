"""Logits and gradients of our nets against PyTorch's, from the same parameters."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import rule

import keras_resnet
from keras_resnet import blocks, initialization
from keras_resnet.pretrained import load_state_dict, mapping, state_dict_shapes

LOGITS = np.load(Path(rule.__file__).with_name("logits.npz"))
GRADIENTS = np.load(Path(rule.__file__).with_name("gradients.npz"))

# Promised is 1e-4. Five times less is what float32 allows: the fixtures are made so that PyTorch's
# own rounding stays below it.
PROMISED = 1e-4
TOLERANCE = 2e-5

IMAGENET_NETS = (
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNeXt50_32x4d",
    "ResNeXt101_32x8d",
    "ResNeXt101_64x4d",
    "WideResNet50_2",
    "WideResNet101_2",
)
CIFAR_NETS = ("CIFARResNet20", "CIFARResNet56")

# Each block: function, channels of the input, arguments.
BLOCKS = {
    "basic": (blocks.basic_block, 16, dict(filters=32, strides=2)),
    "basic_identity": (blocks.basic_block, 16, dict(filters=16)),
    "bottleneck": (blocks.bottleneck_block, 32, dict(filters=16, strides=2)),
    "bottleneck_identity": (blocks.bottleneck_block, 64, dict(filters=16)),
    "grouped_bottleneck": (
        blocks.bottleneck_block,
        64,
        dict(filters=32, strides=2, cardinality=8, base_width=16),
    ),
    "grouped_bottleneck_identity": (
        blocks.bottleneck_block,
        128,
        dict(filters=32, cardinality=8, base_width=16),
    ),
}


@pytest.fixture(autouse=True)
def start_at_zero():
    """Every parameter is replaced, so none needs to be drawn: that halves the time of a test."""
    with initialization.kernels_to_be_loaded():
        yield


def difference(ours, golden):
    """The largest difference as a fraction of the largest golden value."""
    ours = np.asarray(ours)
    assert ours.shape == golden.shape
    return np.abs(ours - golden).max() / np.abs(golden).max()


def drawn_net(name, **options):
    """A net with the parameters that the rule draws, and those parameters."""
    if name in CIFAR_NETS:
        depth = int(name.removeprefix("CIFARResNet"))
        net = keras_resnet.CIFARResNet(depth, classifier_activation=None, **options)
    else:
        net = getattr(keras_resnet, name)(
            weights=None, classifier_activation=None, input_shape=(64, 64, 3), **options
        )
    head = "linear" if name in CIFAR_NETS else "fc"
    state = {
        ours: rule.parameter(ours.replace("fc.", f"{head}."), shape)
        for ours, shape in state_dict_shapes(net).items()
    }
    load_state_dict(net, state)
    return net, state


class TestNets:
    @pytest.mark.parametrize("name", IMAGENET_NETS + CIFAR_NETS)
    def test_logits_and_moving_averages_are_those_of_pytorch(self, name):
        net, state = drawn_net(name)
        images = rule.image((4, *net.input_shape[1:]))
        for training in (False, True):
            mode = "training" if training else "inference"
            seen = difference(net(images, training=training), LOGITS[f"{name}/{mode}"])
            assert seen <= TOLERANCE <= PROMISED, mode

        layer = net.get_layer("conv1_bn")
        mean = np.asarray(layer.moving_mean)
        assert difference(mean, LOGITS[f"{name}/bn1.running_mean"]) <= 1e-6
        # Keras averages the biased variance of the batch, PyTorch the unbiased one.
        kept = 0.9 * state["bn1.running_var"].astype("float64")
        values = 4 * 32 * 32
        biased = np.asarray(layer.moving_variance)
        unbiased = kept + (biased - kept) * values / (values - 1)
        golden = LOGITS[f"{name}/bn1.running_var"]
        assert difference(unbiased, golden) <= 1e-6 < difference(biased, golden)

    def test_the_tolerance_tells_where_the_stride_is(self):
        net, _ = drawn_net("ResNet50", stride_in="1x1")
        outputs = net(rule.image((4, 64, 64, 3)), training=False)
        assert difference(outputs, LOGITS["ResNet50/inference"]) > 100 * PROMISED

    @pytest.mark.parametrize("training", [False, True])
    def test_the_tolerance_tells_epsilons_apart(self, training):
        net, _ = drawn_net("ResNet18")
        for layer in net.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.epsilon = 1e-3
        golden = LOGITS["ResNet18/training" if training else "ResNet18/inference"]
        assert difference(net(rule.image((4, 64, 64, 3)), training=training), golden) > PROMISED


class TestBlocks:
    @pytest.mark.parametrize("name", BLOCKS)
    def test_output_and_every_gradient_are_those_of_pytorch(self, name):
        block, channels, options = BLOCKS[name]
        inputs = keras.Input((7, 9, channels))
        model = keras.Model(inputs, block(inputs, name="conv2_block1", **options))
        prefix = "layer1.0."
        load_state_dict(
            model,
            {
                key: rule.parameter(f"{name}.{key.removeprefix(prefix)}", shape)
                for key, shape in state_dict_shapes(model).items()
            },
        )
        tensors = {
            key.removeprefix(prefix): tensor
            for key, tensor in mapping._slots(model, "torchvision").items()
            if tensor.variable.trainable
        }
        images = tf.constant(rule.image((2, 7, 9, channels)))
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=True)
            weights = np.cos(np.arange(np.prod(outputs.shape))).reshape(outputs.shape)
            loss = tf.reduce_sum(outputs * weights.astype("float32"))
        input_gradient, gradients = tape.gradient(
            loss, (images, {key: tensor.variable.value for key, tensor in tensors.items()})
        )
        ours = {"output": outputs, "input_gradient": input_gradient} | {
            f"gradient/{key}": np.transpose(gradient, tensors[key].axes)
            for key, gradient in gradients.items()
        }
        golden = {
            key.removeprefix(f"{name}/"): GRADIENTS[key]
            for key in GRADIENTS
            if key.startswith(f"{name}/")
        }
        assert ours.keys() == golden.keys()
        seen = {key: difference(ours[key], golden[key]) for key in golden}
        assert max(seen.values()) <= TOLERANCE, seen
