"""A LiteRT file that TensorFlow Serving serves in place of a SavedModel."""

import detectors
import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error

import keras_resnet
from keras_resnet import export
from keras_resnet.export.warmup import FILE as WARM_UP

pytestmark = pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras_resnet.CIFARResNet(8, classes=5, include_preprocessing=True)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")


def served(path):
    """The file as the server runs it: in one thread, called by the names of its own tensors."""
    interpreter = tf.lite.Interpreter(str(path), num_threads=1)
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()

    def ask(inputs):
        assert [*inputs] == [given["name"]]
        images = inputs[given["name"]]
        assert images.dtype == given["dtype"]
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return {taken["name"]: interpreter.get_tensor(taken["index"])}

    return ask


@pytest.mark.parametrize(("precision", "near"), [("int8", 0.1), ("float32", 1e-5)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_same_requests_get_nearly_the_same_answers(
    tmp_path, model, images, precision, near, dtype
):
    images = images.astype(dtype)
    new = export.saved_model(
        model, tmp_path, image_dtype=dtype, with_litert=precision, calibrate=images, verbose=False
    )
    ask = served(new.path / "model.tflite")
    stock = tf.saved_model.load(str(new.path)).signatures["serving_default"]
    assert [*stock.structured_input_signature[1]] == ["images"]
    for count in (1, 3, 8, 2):
        (answer,) = ask({"images": images[:count]}).items()
        (expected,) = stock(images=tf.constant(images[:count])).items()
        assert answer[0] == expected[0]
        assert (answer[1].dtype, answer[1].shape) == (np.float32, (count, 5))
        np.testing.assert_allclose(answer[1], expected[1], atol=near)


def test_is_verified_and_on_the_card(tmp_path, model, images, capsys):
    new = export.saved_model(
        *(model, tmp_path),
        **dict(with_litert="int8", calibrate=images, images=images, agreement=0.5),
    )
    compared = new.beside["model.tflite"]
    assert (compared.runtime, compared.images) == ("LiteRT", len(images))
    card = new.card["litert"]
    assert (card["file"], card["precision"]) == ("model.tflite", "int8")
    assert card["verification"]["agreement"] == compared.agreement
    assert str(new.path / "model.tflite") in capsys.readouterr().out
    assert export.load(tmp_path).runtime == "TensorFlow"


def test_a_server_warms_up_what_the_file_has(tmp_path, model, images):
    """A server refuses a model that cannot answer one of its warm-up requests."""
    asked = {}
    for precision in (None, "float32"):
        new = export.saved_model(model, tmp_path, with_litert=precision, verbose=False)
        requests = tf.data.TFRecordDataset(str(new.path / WARM_UP))
        names = ("serving_default", "features", "classify_bytes")
        asked[precision] = {
            name for record in requests for name in names if name.encode() in record.numpy()
        }
    assert asked == {None: {*names}, "float32": {"serving_default"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"with_litert": "int8"}, "precision='int8' needs images"),
        ({"with_litert": "int4"}, "with_litert='int4' must be one of 'float32', 'float16'"),
        ({"with_litert": "float32", "resize": True}, "takes only images of the model's size"),
    ],
)
def test_mistakes(tmp_path, model, options, message):
    with one_line_error(message):
        export.saved_model(model, tmp_path / "new", verbose=False, **options)
    assert [*tmp_path.iterdir()] == []


def test_not_of_detectors(tmp_path):
    with one_line_error("is a detector, which cannot be written as a LiteRT file"):
        export.saved_model(detectors.tiny(), tmp_path / "new", with_litert="float32")
    assert [*tmp_path.iterdir()] == []


def test_one_that_disagrees_leaves_nothing(tmp_path, model, images):
    """Calibrated on images of another range than the ones it is compared on."""
    with one_line_error("with_litert='int8': the exported model chooses the same class"):
        export.saved_model(
            *(model, tmp_path),
            **dict(with_litert="int8", calibrate=images / 1e4, images=images, verbose=False),
        )
    assert [*tmp_path.iterdir()] == []
