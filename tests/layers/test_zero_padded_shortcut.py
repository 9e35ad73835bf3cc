import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import layers


class TestZeroPaddedShortcut:
    @settings(max_examples=40, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
        channels=st.integers(1, 4),
        new=st.integers(0, 5),
        strides=st.integers(1, 4),
        dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
        graph=st.booleans(),
    )
    def test_equals_slicing_and_padding(self, size, channels, new, strides, dtype, graph):
        pixels = numbers((2, *size, channels))
        for seed, value in enumerate((np.nan, np.inf, -np.inf)):
            pixels[np.random.default_rng(seed).random(pixels.shape) < 0.1] = value
        images = tf.cast(pixels, dtype)
        shortcut = layers.ZeroPaddedShortcut(channels + new, strides, dtype=dtype)
        outputs = (tf.function(shortcut) if graph else shortcut)(images)
        pads = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
        expected = np.pad(images.numpy()[:, ::strides, ::strides], pads)
        np.testing.assert_array_equal(tf.cast(outputs, "float64"), expected.astype("float64"))
        assert outputs.shape == shortcut.compute_output_shape(images.shape)

    @pytest.mark.parametrize("strides", [1, 2, 3])
    @pytest.mark.parametrize("graph", [False, True])
    def test_gradient_is_that_of_slicing_and_padding(self, strides, graph):
        images, shortcut = tf.constant(numbers((2, 5, 8, 3))), layers.ZeroPaddedShortcut(6, strides)

        def gradient(upstream):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = shortcut(images)
            return tape.gradient(outputs, images, upstream)

        upstream = numbers(shortcut.compute_output_shape(images.shape))
        upstream[0, 1, 1] = np.nan
        expected = np.zeros(images.shape, "float32")
        expected[:, ::strides, ::strides] = upstream[..., 1:4]
        actual = (tf.function(gradient) if graph else gradient)(tf.constant(upstream))
        np.testing.assert_array_equal(actual, expected)

    def test_takes_channels_last_whatever_the_configuration(self):
        images = numbers((1, 6, 6, 2))
        keras.config.set_image_data_format("channels_first")
        try:
            outputs = layers.ZeroPaddedShortcut(2, strides=2)(images)
        finally:
            keras.config.set_image_data_format("channels_last")
        np.testing.assert_array_equal(outputs, images[:, ::2, ::2])

    def test_refuses_to_drop_channels(self):
        with pytest.raises(ValueError, match="16 come in, filters=8 go out"):
            layers.ZeroPaddedShortcut(8)(numbers((1, 4, 4, 16)))
