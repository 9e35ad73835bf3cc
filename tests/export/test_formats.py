import contextlib
import importlib
import os
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from keras import layers

import keras_resnet
from keras_resnet import export
from keras_resnet.export.formats import FORMATS, LITERT_PRECISIONS
from keras_resnet.export.kinds import KINDS
from keras_resnet.runs.choices import EXPORTS

INT8 = {"precision": "int8"}


def trained_like(model):
    """Normalizations with values that differ, as training leaves them."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for name in ("gamma", "moving_variance"):
                shape = getattr(layer, name).shape
                getattr(layer, name).assign(random.uniform(0.5, 1.5, shape))
            for name in ("beta", "moving_mean"):
                shape = getattr(layer, name).shape
                getattr(layer, name).assign(random.normal(0, 0.2, shape))
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return trained_like(keras_resnet.CIFARResNet(8, classifier_activation=None))


@pytest.fixture(scope="module")
def grouped():
    keras.utils.set_random_seed(0)
    return trained_like(
        keras_resnet.ResNet(
            (1, 1), filters=(64, 128), cardinality=8, base_width=16, input_shape=(32, 32, 3),
            classes=5, include_preprocessing=True,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(16, 32, 32, 3)).astype("float32")


def written(model, folder, precision, images):
    calibrate = images if precision == "int8" else None
    path = folder / f"{precision}.tflite"
    options = {"precision": precision, "calibrate": calibrate}
    return export.litert(model, path, verified=False, verbose=False, **options)


def operations(path):
    interpreter = tf.lite.Interpreter(os.fspath(path))
    return {each["op_name"] for each in interpreter._get_ops_details()}


def answers(path, images):
    """What a bare interpreter gives, one image at a time."""
    interpreter = tf.lite.Interpreter(os.fspath(path))
    interpreter.allocate_tensors()
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == taken["dtype"] == np.float32
    results = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(taken["index"])[0])
    return np.array(results)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
class TestLiteRT:
    @pytest.mark.parametrize(
        ("precision", "near"),
        [("float32", 1e-5), ("float16", 5e-3), ("dynamic", 0.1), ("int8", 0.15)],
    )
    @pytest.mark.parametrize("name", ["model", "grouped"])
    def test_computes_nearly_the_same(self, request, tmp_path, images, name, precision, near):
        model = request.getfixturevalue(name)
        given = images if name == "model" else 128 + 50 * images
        new = written(model, tmp_path, precision, given)
        expected = np.asarray(model(given))
        assert np.abs(answers(new, given) - expected).max() < near * np.abs(expected).max()
        used = operations(new)
        assert not {each for each in used if each.startswith("Flex") or each == "CUSTOM"}
        assert "CONV_2D" in used
        assert [file.name for file in tmp_path.iterdir()] == [f"{precision}.tflite"]

    def test_fewer_bits_are_smaller_files(self, tmp_path, grouped, images):
        sizes = {
            each: os.path.getsize(written(grouped, tmp_path, each, images))
            for each in LITERT_PRECISIONS
        }
        assert sizes["float32"] > 1.8 * sizes["float16"] > 2.8 * sizes["int8"]
        assert sizes["float16"] > 1.5 * sizes["dynamic"]

    def test_batches_of_any_size_and_of_one(self, tmp_path, model, images):
        for batch_size in (None, 4):
            path = tmp_path / f"{batch_size}.tflite"
            export.litert(
                model, path, batch_size=batch_size, verified=False, verbose=False
            )  # fmt: skip
            loaded = export.load(path)
            assert loaded.image_shape == (batch_size, 32, 32, 3)
            np.testing.assert_allclose(loaded(images[:4]), model(images[:4]), rtol=1e-3, atol=1e-4)
        assert export.load(tmp_path / "None.tflite")(images[:7]).shape == (7, 10)

    def test_is_verified_and_has_a_card(self, tmp_path, model, images, capsys):
        new = export.litert(
            model, tmp_path / "a.tflite", "abcdefghij", precision="float16", images=images
        )
        assert new.card["precision"] == "float16"
        assert [*new.card["labels"]] == [*"abcdefghij"]
        assert new.card["verification"]["images"] == new.verification.images == len(images)
        assert new.verification.runtime == "LiteRT"
        assert "LiteRT" in capsys.readouterr().out

    def test_one_that_disagrees_leaves_nothing(self, tmp_path, model, images):
        with one_line_error("chooses the same class"):
            export.litert(model, tmp_path / "a.tflite", images=images, agreement=1.1)
        assert [*tmp_path.iterdir()] == []

    def test_raw_images_of_8_bits_in_the_model(self, tmp_path):
        inputs = keras.Input((32, 32, 3), dtype="uint8")
        model = keras_resnet.CIFARResNet(8, input_tensor=inputs, include_preprocessing=True)
        new = export.litert(model, tmp_path / "a.tflite", verbose=False)
        assert new.verification.largest_difference < 1e-5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"precision": "int4"}, "precision='int4' must be one of 'float32', 'float16'"),
            ({"precision": "int8"}, "calibrate: precision='int8' needs images"),
            ({"precision": "int8", "calibrate": np.zeros((0, 32, 32, 3))}, "needs images"),
            (
                {"precision": "int8", "calibrate": np.zeros((1, 16, 16, 3))},
                "calibrate has the shape (1, 16, 16, 3); the model takes (None, 32, 32, 3)",
            ),
            ({"precision": "int8", "calibrate": np.zeros((32, 32, 3))}, "calibrate has the shape"),
            ({"batch_size": 0}, "batch_size=0 must be"),
            ({"labels": ["a"]}, "1 names came for the 10 outputs"),
        ],
    )
    def test_arguments_out_of_range(self, tmp_path, model, options, message):
        with one_line_error(message):
            export.litert(model, tmp_path / "a.tflite", **options)
        assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("write", "suffix"),
    [(export.litert, ".tflite"), (export.onnx, ".onnx"), (export.openvino, ".xml")],
)
class TestPath:
    def test_nothing_is_overwritten(self, tmp_path, model, write, suffix):
        (tmp_path / f"a{suffix}").write_text("mine")
        with one_line_error("is there already: choose another name"):
            write(model, tmp_path / f"a{suffix}")
        assert (tmp_path / f"a{suffix}").read_text() == "mine"

    def test_a_file_is_named_as_what_it_is(self, tmp_path, model, write, suffix):
        for name in ("model", "model.pb", f"model{suffix}.bak"):
            with one_line_error(f"{name}' must end in {suffix}"):
                write(model, tmp_path / name)

    def test_a_graph_of_layers_is_needed(self, tmp_path, write, suffix):
        with one_line_error("only a functional model"):
            write(keras.Sequential([layers.Conv2D(3, 3)]), tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("format", "module", "options"),
    [("onnx", "tf2onnx", {}), ("openvino", "openvino", {}), ("openvino", "nncf", INT8)],
)
def test_what_to_install_is_said_before_anything_is_done(
    tmp_path, model, images, monkeypatch, format, module, options
):
    monkeypatch.setitem(sys.modules, module, None)
    # It is all that is said, whatever else is wrong.
    monkeypatch.setattr(keras.Model, "__call__", lambda *_, **__: pytest.fail("work was done"))
    path = tmp_path / f"a{FORMATS[format].suffix}"
    calibrate = {"calibrate": images} if options else {}
    with pytest.raises(ImportError) as caught:
        getattr(export, format)(model, path, **options, **calibrate)
    missing, _, remedy = str(caught.value).partition(" not installed: ")
    assert module in missing.split()  # others may be missing, too
    assert remedy == f"pip install 'keras_resnet[{format}]'."
    assert [*tmp_path.iterdir()] == []


def test_the_table_is_what_jobs_and_models_know():
    (kind,) = (each for each in KINDS if each.name == "model of images")
    assert {each.key: each.precisions for each in FORMATS.values()} == {
        name: precisions for name, precisions in EXPORTS.items() if name != "saved_model"
    }
    assert kind.formats == tuple(EXPORTS)
    for key in FORMATS:
        assert callable(getattr(export, key))


def test_functions_are_not_hidden_by_the_files_of_their_names():
    for name in export.__all__:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"keras_resnet.export.{name}")
        assert not isinstance(getattr(export, name), types.ModuleType)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("format", ["litert", "openvino"])
class TestImagesThatVerifyInt8:
    @pytest.fixture(autouse=True)
    def needs_the_runtime(self, format):
        if format == "openvino":
            pytest.importorskip("nncf")

    @pytest.fixture
    def compared(self, monkeypatch):
        """The images that were compared, and the fraction of same answers they are to give."""
        module, found = sys.modules["keras_resnet.export.comparison"], {"same": 1.0}
        check = module.check_images

        def noted(images, loaded):
            found["images"] = images
            check(images, loaded)

        monkeypatch.setattr(module, "check_images", noted)
        monkeypatch.setattr(
            module, "same", lambda output, *_: np.arange(len(output)) < found["same"] * len(output)
        )
        return found

    def write(self, format, model, folder, calibrate, **options):
        path = folder / f"a{FORMATS[format].suffix}"
        options = {**INT8, "calibrate": calibrate, "verbose": False, **options}
        return getattr(export, format)(model, path, **options)

    def test_some_are_held_out(self, tmp_path, model, images, format, compared):
        exported = self.write(format, model, tmp_path, images)
        np.testing.assert_array_equal(compared["images"], images[2::5])
        assert not exported.verification.made_up
        held_out = exported.card["verification"]["images"]
        assert held_out == exported.card["quantization"]["held_out"] == 3
        assert exported.card["quantization"]["calibrated_on"] == 13

    def test_none_where_others_are_given(self, tmp_path, model, images, format, compared):
        others = np.random.default_rng(5).normal(size=(4, 32, 32, 3)).astype("float32")
        exported = self.write(format, model, tmp_path, images, images=others)
        np.testing.assert_array_equal(compared["images"], others)
        assert exported.card["quantization"]["held_out"] == 0
        assert exported.card["quantization"]["calibrated_on"] == len(images)

    def test_chance_alone_refuses_nothing(self, tmp_path, model, format, compared):
        images = np.random.default_rng(6).normal(size=(100, 32, 32, 3)).astype("float32")
        compared["same"] = 0.9  # of 20 images, which two standard errors allow
        self.write(format, model, tmp_path, images)
        with one_line_error("for only 90.0% of 20 images, agreement=95.0%"):
            self.write(format, model, tmp_path / "new", images, images=images[:20])
        assert [*(tmp_path / "new").iterdir()] == []

    def test_two_are_the_least(self, tmp_path, model, images, format):
        with one_line_error("calibrate has 1 image; it needs at least two"):
            self.write(format, model, tmp_path, images[:1])
        exported = self.write(format, model, tmp_path, images[:2], agreement=0.0)
        assert exported.verification.images == 1


class TestONNX:
    @pytest.fixture(autouse=True)
    def needs_the_runtime(self):
        pytest.importorskip("tf2onnx")
        self.onnx = pytest.importorskip("onnx")
        self.runtime = pytest.importorskip("onnxruntime")

    @pytest.mark.parametrize("batch_size", [None, 4])
    def test_computes_the_same(self, tmp_path, grouped, images, batch_size):
        path, given = tmp_path / "a.onnx", 128 + 50 * images[:4]
        new = export.onnx(grouped, path, batch_size=batch_size, verbose=False)
        assert new.verification.runtime == "ONNX Runtime"
        session = self.runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (argument,) = session.get_inputs()
        (outputs,) = session.run(None, {argument.name: given})
        np.testing.assert_allclose(outputs, grouped(given), rtol=1e-3, atol=1e-5)
        assert [output.name for output in session.get_outputs()] == ["probabilities"]
        assert export.load(path).image_shape == (batch_size, 32, 32, 3)

    def test_has_no_normalization_and_no_foreign_operation(self, tmp_path, model):
        path = tmp_path / "a.onnx"
        export.onnx(model, path, verified=False, verbose=False)
        nodes = self.onnx.load(path).graph.node
        assert {node.domain for node in nodes} <= {"", "ai.onnx"}
        assert "BatchNormalization" not in {node.op_type for node in nodes}
        assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
