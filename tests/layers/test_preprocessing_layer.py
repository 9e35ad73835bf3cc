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

    @pytest.mark.parametrize("channels", [1, 2, 4, 13])
    @pytest.mark.parametrize("mode", layers.NORMALIZATIONS)
    def test_of_other_channels_goes_through_the_colors_in_turn(self, mode, channels):
        images = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, channels)).astype("float32")
        reverse, mean, deviation = layers.NORMALIZATIONS[mode]
        mean, deviation = (np.broadcast_to(each, 3) for each in (mean, deviation))
        expected = np.empty_like(images)
        for channel in range(channels):
            place = (
                {0: 2, 1: 1, 2: 0}.get(channel, channel) if reverse and channels > 2 else channel
            )
            if channels == 1:
                constants = mean.mean(), deviation.mean()
            else:
                constants = mean[channel % 3], deviation[channel % 3]
            expected[..., channel] = (images[..., place] - constants[0]) / constants[1]
        layer = layers.Preprocessing(mode)
        np.testing.assert_allclose(layer(images), expected, atol=1e-4)
        np.testing.assert_allclose(layer(images[0]), expected[0], atol=1e-4)

    def test_refuses_unknown_modes_and_numbers_of_channels(self):
        with pytest.raises(ValueError, match="mode='pytorch' must be one of 'torch'"):
            layers.Preprocessing("pytorch")
        with pytest.raises(ValueError, match="how many channels"):
            layers.Preprocessing("caffe")(keras.Input((2, 2, None)))
