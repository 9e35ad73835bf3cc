"""Real weights on real images, against published figures and against keras.applications."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import keras_resnet
from keras_resnet.cli import main
from keras_resnet.pretrained import load_weights

CAFFE_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"


def decode(content):
    """Decoded as PIL does it, rather than as fast as can be."""
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


@pytest.fixture
def caffe_file(assets):
    return assets / CAFFE_FILE


@pytest.fixture
def imagenet_samples(assets):
    """The middle 224 pixels of 500 photographs, and their classes."""
    files = sorted((assets / "imagenet_samples").glob("*.jpg"))
    centre = keras.layers.CenterCrop(224, 224)
    images = [centre(decode(file.read_bytes())) for file in files]
    return np.stack(images), np.array([int(file.name[:4]) for file in files])


def largest_difference(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


class TestResNet50OfKerasApplications:
    def probabilities(self, caffe_file, images):
        ours = keras_resnet.ResNet50(weights=caffe_file)
        return ours.predict(keras_resnet.preprocess_input(images, ours.preprocessing), verbose=0)

    @pytest.mark.slow
    def test_has_its_accuracy(self, caffe_file, imagenet_samples):
        images, labels = imagenet_samples
        assert len(images) == 500
        best = [
            [wnid for wnid, _, _ in guesses]
            for guesses in keras_resnet.decode_predictions(self.probabilities(caffe_file, images))
        ]
        wnids = [wnid for wnid, _ in keras_resnet.preprocessing.imagenet_classes()]
        right = [guesses.index(wnids[label]) if wnids[label] in guesses else 5
                 for guesses, label in zip(best, labels, strict=True)]  # fmt: skip
        assert np.mean(np.equal(right, 0)) == pytest.approx(0.910, abs=0.004)
        assert np.mean(np.less(right, 5)) == pytest.approx(0.988, abs=0.004)

    def test_has_its_probabilities(self, caffe_file, imagenet_samples):
        images = imagenet_samples[0][::20]
        theirs = keras.applications.ResNet50(weights=caffe_file)
        expected = theirs.predict(
            keras.applications.resnet.preprocess_input(images.astype("float32")), verbose=0
        )
        ours = self.probabilities(caffe_file, images)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("pooling", [None, pytest.param("avg", marks=pytest.mark.slow)])
    def test_has_its_features(self, caffe_file, imagenet_samples, pooling):
        images = imagenet_samples[0][:8]
        theirs = keras.applications.ResNet50(weights=caffe_file)
        layer = "avg_pool" if pooling else "conv5_block3_out"
        theirs = keras.Model(theirs.input, theirs.get_layer(layer).output)
        ours = keras_resnet.ResNet50(
            include_top=False, weights=caffe_file, pooling=pooling, include_preprocessing=True
        )
        expected = theirs.predict(
            keras.applications.resnet.preprocess_input(images.astype("float32")), verbose=0
        )
        assert largest_difference(ours.predict(images, verbose=0), expected) < 1e-4

    @pytest.mark.filterwarnings("default:.* has MD5:RuntimeWarning")
    def test_names_what_is_in_a_photograph(self, assets, monkeypatch):
        monkeypatch.setenv("KERAS_RESNET_WEIGHTS", str(assets))
        photograph = next((assets / "imagenet_samples").glob("0280_*.jpg"))
        arguments = ["predict", "ResNet50", str(photograph), "--weights", "imagenet_caffe"]
        # The file was converted anew, so its digits are not those that Keras publishes.
        table = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert "has MD5" in table.stderr
        assert "grey fox" in table.stdout
        answer = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
        (prediction,) = json.loads(answer.stdout)["predictions"]
        assert len(prediction["classes"]) == 5
        assert prediction["classes"][0]["class"] == "grey fox"
        assert prediction["classes"][0]["probability"] > 0.8


@pytest.mark.parametrize(
    ("depth", "file", "accuracy", "count", "tolerance"),
    [
        (20, "resnet20-12fca82f.th", 0.8103, 2_000, 0.02),
        pytest.param(20, "resnet20-12fca82f.th", 0.8103, 10_000, 0.002, marks=pytest.mark.slow),
        pytest.param(56, "resnet56-4bfd9763.th", 0.8320, 10_000, 0.002, marks=pytest.mark.slow),
    ],
)
def test_nets_of_the_cifar_zoo_have_their_accuracy(
    assets, cifar10_test, depth, file, accuracy, count, tolerance
):
    files, labels = (each[:count] for each in cifar10_test)
    images = tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec((32, 32, 3), "uint8"))
    model = keras_resnet.CIFARResNet(
        depth, weights=assets / "cifar_resnet" / file, shortcut="A", include_preprocessing=True
    )
    best = model.predict(images, batch_size=256, verbose=0).argmax(axis=1)
    assert np.mean(best == labels) == pytest.approx(accuracy, abs=tolerance)


def test_pretrained_tensors_are_those_of_the_file_after_a_round_trip(assets, tmp_path):
    file = assets / "cifar_resnet" / "resnet20-12fca82f.th"
    model = keras_resnet.CIFARResNet(20, weights=file)
    path = tmp_path / "net.safetensors"
    keras_resnet.pretrained.to_torch(model, path, naming="cifar")
    again = load_weights(keras_resnet.CIFARResNet(20), path)
    theirs = keras_resnet.pretrained.readers.read(file)
    ours = keras_resnet.pretrained.readers.read(path)
    assert {f"module.{name}" for name in ours} >= theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name.removeprefix("module.")], tensor)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
