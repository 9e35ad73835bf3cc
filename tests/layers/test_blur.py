import keras
import numpy as np
import pytest
import tensorflow as tf
from arrays import ROUNDING, error, numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import layers


def textbook(images, strides):
    """Nine shifted copies of the reflected images, weighted and subsampled."""
    padded = np.pad(images.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    height, width = images.shape[1:3]
    blurred = sum(
        np.outer([1, 2, 1], [1, 2, 1])[y, x] / 16 * padded[:, y : y + height, x : x + width]
        for y in range(3)
        for x in range(3)
    )
    return blurred[:, ::strides, ::strides]


class TestBlurPool2D:
    @settings(max_examples=30, deadline=None)
    @given(
        size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
        strides=st.integers(1, 4),
        dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
        graph=st.booleans(),
    )
    def test_equals_the_textbook(self, size, strides, dtype, graph):
        images = tf.cast(numbers((2, *size, 3)), dtype)
        layer = layers.BlurPool2D(strides, dtype=dtype)
        outputs = (tf.function(layer) if graph else layer)(images)
        assert outputs.dtype == dtype
        assert outputs.shape == layer.compute_output_shape(images.shape)
        assert error(outputs, textbook(images.numpy(), strides)) < ROUNDING[dtype]

    @pytest.mark.parametrize("strides", [1, 2, 3])
    def test_gradient_equals_finite_differences(self, strides):
        layer = layers.BlurPool2D(strides, dtype="float64")
        images = tf.constant(numbers((1, 6, 5, 2)), "float64")
        (theoretical,), (numerical,) = tf.test.compute_gradient(
            lambda images: tf.sin(layer(images)), [images]
        )
        np.testing.assert_allclose(theoretical, numerical, atol=1e-7)

    def test_survives_saving_and_takes_images_of_any_size(self, tmp_path):
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, layers.BlurPool2D(2, name="pool1_blur")(inputs))
        assert not model.weights
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        for size in (6, 9):
            images = numbers((1, size, size, 3))
            np.testing.assert_array_equal(again(images), model(images))
            assert error(again(images), textbook(images, 2)) < ROUNDING["float32"]

    def test_takes_channels_last_whatever_the_configuration(self):
        images = numbers((1, 6, 6, 2))
        keras.config.set_image_data_format("channels_first")
        try:
            outputs = layers.BlurPool2D(2)(images)
        finally:
            keras.config.set_image_data_format("channels_last")
        assert error(outputs, textbook(images, 2)) < ROUNDING["float32"]

    @pytest.mark.parametrize("strides", [0, -1, 1.5, True])
    def test_refuses_other_strides(self, strides):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            layers.BlurPool2D(strides)

    def test_refuses_an_image_of_one_row(self):
        with pytest.raises(ValueError, match="images of 1x4 pixels"):
            layers.BlurPool2D()(numbers((1, 1, 4, 3)))
