import keras
import numpy as np
import pytest

from keras_resnet import layers


class TestPreprocessing:
    @pytest.mark.parametrize("mode", ["torch", "caffe", "tf"])
    def test_equals_keras_applications(self, mode):
        images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
        expected = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
        np.testing.assert_allclose(layers.Preprocessing(mode)(images), expected, atol=1e-4)

    def test_equals_detectron2(self):
        # INPUT.FORMAT "BGR", PIXEL_MEAN and PIXEL_STD of its defaults.
        images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype("float32")
        expected = images[..., ::-1] - [103.53, 116.28, 123.675]
        for each, found in ((images, expected), (images[0], expected[0])):
            np.testing.assert_allclose(layers.Preprocessing("detectron2")(each), found, atol=1e-4)

    def test_is_exact_under_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            layer = layers.Preprocessing("torch")
        finally:
            keras.config.set_dtype_policy("float32")
        images = np.array([[[[100.6, 100.7, 100.8]]]], "float32")
        assert layer(images).dtype == "float32"
        np.testing.assert_array_equal(layer(images), layers.Preprocessing("torch")(images))

    def test_takes_bytes(self):
        images = np.full((1, 2, 2, 3), 255, "uint8")
        np.testing.assert_allclose(layers.Preprocessing("tf")(images), np.ones((1, 2, 2, 3)))

    def test_refuses_unknown_modes_and_grey_images(self):
        with pytest.raises(ValueError, match="mode='pytorch' must be one of 'torch'"):
            layers.Preprocessing("pytorch")
        with pytest.raises(ValueError, match="have 1 channels"):
            layers.Preprocessing("caffe")(np.zeros((1, 2, 2, 1)))
