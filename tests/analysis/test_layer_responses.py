import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_resnet
from keras_resnet.analysis import layer_responses
from keras_resnet.layers import GroupedConv2D, StandardizedConv2D
from tests.support import small


def randomized(model):
    """The model with statistics, factors and offsets that are not those it begins with."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        low = 0.5 if weight.name in ("gamma", "moving_variance") else -0.5
        weight.assign(random.uniform(low, low + 1, weight.shape))
    return model


def pictures(count=5, shape=(9, 8, 2)):
    return np.random.default_rng(0).normal(1, 2, (count, *shape)).astype("float32")


def by_keras(model, images, names):
    """Standard deviations of what comes out of some layers, as a Keras model gives it."""
    outputs = [model.get_layer(name).output for name in names]
    found = keras.Model(model.input, outputs).predict(images, verbose=0)
    return [np.asarray(each, "float64").std() for each in keras.tree.flatten(found)]


def tiny():
    x = inputs = keras.Input((9, 8, 2))
    x = layers.Conv2D(3, 3, padding="same", name="first")(x)
    x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(5, 1, name="pointwise")(x)
    x = layers.BatchNormalization(name="pointwise_bn")(x)
    x = layers.Conv2D(4, 3, use_bias=False, name="second")(x)
    x = layers.BatchNormalization(scale=False, epsilon=0.1, name="second_bn")(x)
    return randomized(keras.Model(inputs, layers.ReLU()(x)))


class TestAgainstNumPy:
    @staticmethod
    def convolved(x, kernel, bias=None):
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
        outputs = np.einsum("nhwcij,ijco->nhwo", windows, kernel)
        return outputs if bias is None else outputs + bias

    @staticmethod
    def normalized(x, layer):
        mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
        x = (x - mean) / np.sqrt(variance + layer.epsilon)
        return x * (np.array(layer.gamma) if layer.scale else 1) + np.array(layer.beta)

    def test_a_convolution_and_a_normalization_by_hand(self):
        model, images = tiny(), pictures()
        layer = model.get_layer
        x = np.pad(images.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = self.normalized(
            self.convolved(x, *map(np.array, layer("first").weights)), layer("first_bn")
        )
        expected = [x.std()]
        x = self.convolved(np.maximum(x, 0), *map(np.array, layer("pointwise").weights))
        x = self.convolved(
            self.normalized(x, layer("pointwise_bn")), np.array(layer("second").kernel)
        )
        expected.append(self.normalized(x, layer("second_bn")).std())
        found = layer_responses(model, images)
        assert found.names == ("first", "second")
        assert found.left_out == ()
        np.testing.assert_allclose(found.deviations, expected, rtol=1e-5)

    def test_numbers_that_are_far_from_zero(self):
        x = inputs = keras.Input((40, 40, 1))
        x = layers.Conv2D(1, 3, use_bias=False, kernel_initializer="ones", name="conv")(x)
        model = keras.Model(inputs, layers.BatchNormalization(epsilon=0.0, name="bn")(x))
        images = np.random.default_rng(0).integers(0, 2, (9, 40, 40, 1)) + 10_000.0
        windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
        found = layer_responses(model, images, batch_size=2)
        # In float32, squares of 90,000 would leave nothing of a variance of 2.
        assert found.deviations[0] == pytest.approx(windows.sum((-1, -2)).std(), rel=1e-9)


class TestWhereverLayersAre:
    def test_kinds_of_convolutions(self):
        x = inputs = keras.Input((9, 8, 4))
        for number, layer in enumerate(
            [
                GroupedConv2D(4, 3, padding="same", groups=2, name="grouped"),
                StandardizedConv2D(4, 3, name="standardized"),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.SeparableConv2D(4, 3, padding="same", name="separable"),
                layers.Conv2D(4, (1, 3), name="oblong"),
            ]
        ):
            x = layers.BatchNormalization(name=f"bn{number}")(layer(x))
        model, images = randomized(keras.Model(inputs, x)), pictures(shape=(9, 8, 4))
        found = layer_responses(model, images)
        assert found.names == ("grouped", "standardized", "depthwise", "separable")
        expected = by_keras(model, images, [f"bn{number}" for number in range(4)])
        np.testing.assert_allclose(found.deviations, expected, rtol=1e-5)

    @pytest.mark.parametrize("options", [{}, {"shortcut": None}, {"cardinality": 2}])
    def test_our_models(self, options):
        kind = "bottleneck" if "cardinality" in options else "basic"
        model = keras_resnet.ResNet(
            (1, 1), kind, (8, 16), stem="cifar", input_shape=(8, 8, 1), classes=2, **options
        )
        images = pictures(shape=(8, 8, 1))
        found = layer_responses(randomized(model), images)
        normalizations = [re.sub("conv$", "bn", name) for name in found.names]
        expected = by_keras(model, images, normalizations)
        assert len(found.names) == (3 if "cardinality" in options else 5)
        np.testing.assert_allclose(found.deviations, expected, rtol=1e-5)

    def test_a_model_of_keras(self):
        whole = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, include_top=False)
        model = keras.Model(whole.input, whole.get_layer("block_2_add").output)
        images = pictures(2, (32, 32, 3))
        found = layer_responses(model, images)
        assert found.names == (
            *("Conv1", "expanded_conv_depthwise"),
            *("block_1_depthwise", "block_2_depthwise"),
        )
        normalizations = ["bn_Conv1", *(f"{name}_BN" for name in found.names[1:])]
        expected = by_keras(model, images, normalizations)
        np.testing.assert_allclose(found.deviations, expected, rtol=1e-4)

    def test_models_within_models(self):
        flat, images = tiny(), pictures()
        before = keras.Model(flat.input, flat.get_layer("pointwise_bn").output)
        # Its 3x3 convolution comes last, so that what normalizes it is outside.
        middle = keras.Sequential([keras.Input((9, 8, 5)), flat.get_layer("second")])
        x = inputs = keras.Input((9, 8, 2))
        both = keras.Model(inputs, flat.get_layer("second_bn")(middle(before(x))))
        nested = keras.Sequential([keras.Input((9, 8, 2)), both, layers.GlobalMaxPooling2D()])
        assert layer_responses(nested, images) == layer_responses(flat, images)

    def test_a_model_that_is_called_twice(self):
        flat = tiny()
        one, other = keras.Input((9, 8, 2)), layers.Rescaling(2.0)
        x = layers.Concatenate()([flat(one), flat(other(one))])
        found = layer_responses(keras.Model(one, x), pictures())
        assert sorted(found.names) == ["first", "first", "second", "second"]
        deviations = dict(zip(found.names, found.deviations, strict=True))
        assert set(layer_responses(flat, pictures()).deviations) < set(found.deviations)
        assert len(set(found.deviations)) == 4 > len(deviations)

    def test_preactivation_leaves_some_out(self):
        model = keras_resnet.ResNet(
            (1, 1), "basic_preactivation", (8, 16), stem="cifar", input_shape=(8, 8, 1), classes=2
        )
        found = layer_responses(model, pictures(shape=(8, 8, 1)))
        assert found.names == ("conv1_conv", "conv2_block1_1_conv", "conv3_block1_1_conv")
        assert found.left_out == ("conv2_block1_2_conv", "conv3_block1_2_conv")


class TestImages:
    def test_neither_batch_size_nor_container_matters(self):
        model, images = tiny(), pictures(7)
        expected = layer_responses(model, images).deviations
        labelled = tf.data.Dataset.from_tensor_slices((images, np.arange(7)))
        for same in (
            layer_responses(model, images, batch_size=1),
            layer_responses(model, [*images], batch_size=3),
            layer_responses(model, tf.constant(images), batch_size=2),
            layer_responses(model, labelled.batch(4)),
            layer_responses(model, (images[start : start + 2] for start in range(0, 7, 2))),
        ):
            np.testing.assert_allclose(same.deviations, expected, rtol=1e-6)

    def test_whole_numbers_are_what_the_model_takes(self):
        images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), "uint8")
        model = small.model()
        assert layer_responses(model, images) == layer_responses(model, images.astype("float32"))

    def test_in_half_precision(self):
        images = pictures(16, (8, 8, 1)) * 20 + 128
        half = randomized(small.model(dtype="mixed_bfloat16"))
        full = randomized(small.model())
        found, expected = layer_responses(half, images), layer_responses(full, images)
        assert found.names == expected.names
        np.testing.assert_allclose(found.deviations, expected.deviations, rtol=0.01)
        assert found.deviations != expected.deviations


def test_leave_the_model_as_it_is():
    x = inputs = keras.Input((9, 8, 2))
    x = layers.Dropout(0.5)(layers.Conv2D(3, 3, name="conv")(x), training=True)
    model = keras.Model(inputs, layers.BatchNormalization(name="bn")(x, training=True))
    before, calls = model.get_weights(), [len(layer._inbound_nodes) for layer in model.layers]
    found = layer_responses(model, pictures())
    assert found == layer_responses(model, pictures())
    np.testing.assert_allclose(found.deviations, by_keras(model, pictures(), ["bn"]), rtol=1e-5)
    for weight, former in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, former)
    assert calls == [len(layer._inbound_nodes) for layer in model.layers]


def chain(*layers_of_it, shape=(9, 8, 2)):
    return keras.Sequential([keras.Input(shape), *layers_of_it], name="chain")


def two_inputs():
    inputs = [keras.Input((9, 8, 1)), keras.Input((9, 8, 1))]
    return keras.Model(inputs, layers.Conv2D(2, 3)(layers.Concatenate()(inputs)), name="pair")


class TestMistakes:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (lambda: chain(layers.Conv2D(2, 1), layers.Conv2D(2, (5, 3))),
             "'chain' has no 3x3 convolution to measure: its kernels are 1x1, 5x3"),
            (lambda: chain(layers.Flatten(), layers.Dense(2)),
             "'chain' has no 3x3 convolution to measure: it has no convolution"),
            (lambda: chain(layers.Conv2D(2, 3), layers.GroupNormalization(1), layers.Conv2D(2, 3)),
             "no BatchNormalization follows any of its 3x3 convolutions, but GroupNormalization"),
            (lambda: chain(layers.Conv2D(2, 3)),
             "no BatchNormalization follows any of its 3x3 convolutions, but nothing"),
            (two_inputs, "'pair' has 2 inputs"),
            (lambda: keras.Sequential([layers.Conv2D(2, 3)]), "has not been built"),
        ],
    )  # fmt: skip
    def test_models(self, model, message):
        with pytest.raises(ValueError, match=message) as error:
            layer_responses(model(), pictures())
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (pictures(0), "images: there are none"),
            ([], "images: there are none"),
            (tf.data.Dataset.from_tensor_slices(pictures(2)).take(0).batch(2), "there are none"),
            (
                pictures(2)[0],
                r"of shape \(None, 9, 8, 2\), as .* takes them; one is of \(9, 8, 2\)",
            ),
            (pictures(2, (8, 8, 2)), r"one is of \(2, 8, 8, 2\)"),
            (np.full((1, 9, 8, 2), np.nan), "layer 'first' is NaN or infinite"),
        ],
    )
    def test_images(self, images, message):
        with pytest.raises(ValueError, match=message):
            layer_responses(tiny(), images)

    def test_batch_size(self):
        with pytest.raises(ValueError, match="batch_size=0"):
            layer_responses(tiny(), pictures(), batch_size=0)
