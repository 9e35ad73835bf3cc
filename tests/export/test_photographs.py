"""Exported models with real weights and photographs, against `keras-resnet predict`."""

import json

import click.testing
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import export
from keras_resnet.cli import main
from keras_resnet.preprocessing import imagenet_classes

WEIGHTS = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"


@pytest.fixture(scope="module")
def served(tmp_path_factory, assets):
    net = keras_resnet.ResNet50(weights=assets / WEIGHTS, include_preprocessing=True)
    labels = [name for _, name in imagenet_classes()]
    path = tmp_path_factory.mktemp("exported")
    return export.saved_model(net, path, labels, verified=False)


@pytest.mark.slow  # `data/test_one_picture.py` is quick
def test_classify_bytes_answers_as_predict_does(served, assets):
    files = sorted((assets / "imagenet_samples").glob("*.jpg"))[:100]
    files += sorted((assets / "cats_dogs" / "test").rglob("*.jpg"))[::10]
    assert len(files) == 200
    arguments = ["predict", "ResNet50", "--weights", assets / WEIGHTS, "--json", *files]
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    expected = [each["classes"] for each in json.loads(result.stdout)["predictions"]]

    classify = tf.saved_model.load(served).signatures["classify_bytes"]
    for start in range(0, len(files), 20):
        contents = tf.constant([file.read_bytes() for file in files[start : start + 20]])
        answer = classify(image_bytes=contents)
        for labels, probabilities, guesses in zip(
            answer["labels"].numpy(),
            answer["probabilities"].numpy(),
            expected[start:],
            strict=False,
        ):
            assert [label.decode() for label in labels] == [guess["class"] for guess in guesses]
            np.testing.assert_allclose(
                probabilities, [guess["probability"] for guess in guesses], atol=1e-5
            )
