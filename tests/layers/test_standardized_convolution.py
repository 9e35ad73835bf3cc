import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import ROUNDING, error, numbers

from keras_resnet import layers


def standardized(kernel, epsilon=1e-8):
    """Each filter's numbers minus their mean, divided by their standard deviation."""
    flat = kernel.astype("float64").reshape(-1, kernel.shape[-1])
    flat = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + epsilon)
    return flat.reshape(kernel.shape)


class TestStandardizedConv2D:
    @pytest.mark.parametrize("strides", [1, 2])
    @pytest.mark.parametrize("epsilon", [1e-8, 0.1])
    def test_equals_a_convolution_with_a_standardized_kernel(self, strides, epsilon):
        options = {"strides": strides, "padding": "same"}
        layer = layers.StandardizedConv2D(8, 3, epsilon=epsilon, **options)
        plain = keras.layers.Conv2D(8, 3, **options)
        images = numbers((2, 7, 7, 5))
        layer.build(images.shape)
        plain.build(images.shape)
        kernel, bias = 0.01 * numbers(layer.kernel.shape, seed=1) + 0.5, numbers(8, seed=2)
        layer.set_weights([kernel, bias])
        plain.set_weights([standardized(kernel, epsilon), bias])
        assert error(layer.standardized_kernel(), standardized(kernel, epsilon)) < 1e-4
        assert error(layer(images), plain(images)) < 1e-4

    def test_gradient_equals_finite_differences(self):
        layer = layers.StandardizedConv2D(3, 2, dtype="float64")
        images = tf.constant(numbers((1, 4, 4, 2)), "float64")
        layer.build(images.shape)

        def outputs(kernel):
            layer.kernel.assign(kernel)
            return tf.sin(layer(images))

        kernel = tf.constant(layer.kernel)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(layer(images)))
        gradient = tape.gradient(loss, layer.kernel.value)
        for index in np.ndindex(*kernel.shape):
            step = np.zeros(kernel.shape)
            step[index] = 1e-6
            up, down = (np.sum(outputs(kernel + sign * step)) for sign in (1, -1))
            assert abs((up - down) / 2e-6 - gradient[index]) < 1e-6

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_standardizes_in_float32_whatever_the_policy(self, policy):
        layer = layers.StandardizedConv2D(8, 3, dtype=policy)
        images = numbers((2, 6, 6, 4))
        layer.build(images.shape)
        # In bfloat16 all of these numbers are 1.
        kernel = 1 + 1e-3 * numbers(layer.kernel.shape, seed=1)
        layer.set_weights([kernel, numbers(8)])
        outputs = layer(images)
        assert outputs.dtype == layer.compute_dtype
        plain = keras.layers.Conv2D(8, 3)
        plain.build(images.shape)
        plain.set_weights([standardized(kernel), numbers(8)])
        assert error(outputs, plain(images)) < ROUNDING[layer.compute_dtype]

    def test_survives_saving_with_what_a_model_wants(self, tmp_path):
        inputs = keras.Input((8, 8, 3))
        layer = layers.StandardizedConv2D(4, 3, epsilon=1e-5, normalization="tf", crop=0.9)
        model = keras.Model(inputs, layer(inputs))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        images = numbers((2, 8, 8, 3))
        np.testing.assert_array_equal(again(images), model(images))
        first = again.layers[1]
        assert (first.epsilon, first.normalization, first.crop) == (1e-5, "tf", 0.9)
        model.save_weights(tmp_path / "model.weights.h5")
        other = keras.Model(inputs, layers.StandardizedConv2D(4, 3, normalization="torch")(inputs))
        with pytest.raises(ValueError, match="normalized as 'tf'"):
            other.load_weights(tmp_path / "model.weights.h5")

    def test_trains(self):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.StandardizedConv2D(4, 3, dtype="mixed_bfloat16"),
                keras.layers.GlobalAveragePooling2D(dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        images, targets = numbers((8, 8, 8, 3)), numbers((8, 4), seed=1)
        losses = model.fit(images, targets, epochs=4, verbose=0).history["loss"]
        assert losses == sorted(losses, reverse=True)

    def test_refuses_groups_and_a_negative_epsilon(self):
        with pytest.raises(ValueError, match="groups=2: StandardizedConv2D has no groups"):
            layers.StandardizedConv2D(4, 3, groups=2)
        with pytest.raises(ValueError, match="epsilon=-1 must be at least 0"):
            layers.StandardizedConv2D(4, 3, epsilon=-1)
