"""A model that wants bicubic images gets them, whichever way it is asked, as Pillow makes them."""

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import export, graphs, runs

SIZE, CROP = 32, 0.75


@pytest.fixture(scope="module")
def model():
    """As weights of timm leave it."""
    keras.utils.set_random_seed(0)
    net = keras_resnet.ResNet(
        (1, 1), "basic", (8, 16), input_shape=(SIZE, SIZE, 3), classes=5, stem="cifar"
    )
    head = net.get_layer("predictions")
    head.set_weights([20 * array for array in head.get_weights()])
    graphs.remember(net, normalization="tf", crop=CROP, interpolation="bicubic")
    return net


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """Noise, which every way to resize makes something else of."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), "uint8")
    path = tmp_path_factory.mktemp("images") / "noise.png"
    PIL.Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def expected(model, photograph):
    """What the model says of the middle of the image, by the name of an interpolation."""
    picture = PIL.Image.open(photograph)
    side = int(CROP * 24)
    left, top = (32 - side) // 2, (24 - side) // 2
    answers = {}
    for name in ("BICUBIC", "BILINEAR"):
        how = PIL.Image.Resampling[name]
        shown = picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), how)
        images = np.asarray(shown, "float32")[None] / 127.5 - 1
        answers[name] = np.asarray(model(images))[0]
    return answers


def assert_bicubic(answer, expected):
    # Pillow rounds to whole shades.
    np.testing.assert_allclose(answer, expected["BICUBIC"], atol=2e-3)
    assert np.abs(expected["BILINEAR"] - expected["BICUBIC"]).max() > 2e-2


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


@pytest.mark.parametrize("way", ["keras", "weights.h5", "safetensors"])
def test_is_remembered_by_files(model, tmp_path, way):
    path = tmp_path / f"net.{way}"
    if way == "safetensors":
        keras_resnet.pretrained.to_torch(model, path)
    elif way == "keras":
        model.save(path)
    else:
        model.save_weights(path)
    again = keras_resnet.ResNet(
        (1, 1), "basic", (8, 16), weights=path, input_shape=(SIZE, SIZE, 3), classes=5, stem="cifar"
    )
    wants = graphs.wants_of(again)
    assert (wants.normalization, wants.interpolation, wants.crop) == ("tf", "bicubic", CROP)


def test_in_predictions(saved, photograph, expected):
    assert_bicubic(runs.predict(saved, [photograph]).outputs[0], expected)


def test_in_predictions_of_several_views(saved, photograph, model, expected):
    picture = np.asarray(PIL.Image.open(photograph), "float32")
    (flipped,) = runs.predict(saved, [photograph], tta="flip").outputs
    mirrored = photograph.with_name("mirrored.png")
    PIL.Image.fromarray(picture[:, ::-1].astype("uint8")).save(mirrored)
    (of_mirrored,) = runs.predict(saved, [mirrored]).outputs
    assert_bicubic(2 * flipped - of_mirrored, expected)


def test_on_a_server(saved, photograph, expected, tmp_path):
    record = runs.export(saved, tmp_path / "served")
    assert record.exported.card["interpolation"] == "bicubic"
    served = tf.saved_model.load(record.exported.path).signatures
    answer = served["classify_bytes"](tf.constant([photograph.read_bytes()]))
    best = np.argsort(-expected["BICUBIC"])
    np.testing.assert_array_equal(answer["labels"][0], [str(index).encode() for index in best])
    np.testing.assert_allclose(answer["probabilities"][0], expected["BICUBIC"][best], atol=2e-3)


def test_beside_a_mobile_model(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    exported = export.litert(model, tmp_path / "net.tflite", verbose=False)
    assert (exported.card["interpolation"], exported.card["crop"]) == ("bicubic", CROP)
