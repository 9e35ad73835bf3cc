import contextlib
import json
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from keras import layers
from serving import needs_switch, serve_without_xla
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

import keras_resnet
from keras_resnet import export
from keras_resnet.export.warmup import write_requests


def attributes(path):
    """Names of the attributes of every function and node in a SavedModel."""
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    return {name for holder in [*graph.library.function, *nodes] for name in holder.attr}


def resnext():
    return keras_resnet.ResNet(
        (1, 1), filters=(64, 128), cardinality=8, base_width=16, input_shape=(32, 32, 3), classes=5
    )


class TestServing:
    @needs_switch
    def test_resnext_is_free_of_xla_and_runs_without_it(self, tmp_path):
        model = resnext()
        path = export.saved_model(model, tmp_path / "resnext" / "1").path
        assert "_XlaMustCompile" not in attributes(path)
        process = serve_without_xla(path, tmp_path / "outputs.npz")
        assert process.returncode == 0, process.stderr
        outputs = np.load(tmp_path / "outputs.npz")["serving_default.probabilities"]
        np.testing.assert_allclose(outputs, model(np.ones((2, 32, 32, 3))), atol=1e-6)

    @needs_switch
    def test_the_switch_refuses_what_keras_exports(self, tmp_path):
        model = keras.Sequential([keras.Input((8, 8, 8)), keras.layers.Conv2D(8, 3, groups=4)])
        path = tmp_path / "1"
        model.export(path, verbose=False)
        assert "_XlaMustCompile" in attributes(path)
        process = serve_without_xla(path, tmp_path / "outputs.npz")
        assert process.returncode != 0
        assert "XLA" in process.stderr

    @pytest.mark.slow
    @needs_switch
    @pytest.mark.parametrize("name", ["ResNeXt50_32x4d", "ResNeXt101_32x8d", "ResNeXt101_64x4d"])
    def test_every_resnext_runs_without_xla(self, tmp_path, name):
        model = getattr(keras_resnet, name)(weights=None)
        path = export.saved_model(model, tmp_path / "1").path
        assert "_XlaMustCompile" not in attributes(path)
        process = serve_without_xla(path, tmp_path / "outputs.npz")
        assert process.returncode == 0, process.stderr


def quickly(model, path, **options):
    return export.saved_model(model, path, verified=False, verbose=False, **options)


@pytest.fixture(scope="module")
def model():
    return keras_resnet.CIFARResNet(8, include_preprocessing=True)


class TestSavedModel:
    def test_holds_model_and_labels(self, tmp_path):
        path = export.saved_model(resnext(), tmp_path / "1", labels="abcde").path
        assert (path / "assets" / "labels.txt").read_text() == "a\nb\nc\nd\ne\n"
        assert tf.saved_model.contains_saved_model(path)
        assert [file.name for file in tmp_path.iterdir()] == ["1"]

    def test_labels_are_lines_of_utf_8(self, tmp_path):
        model, names = resnext(), ["schön", "[b]", "c c", "d", "猫"]
        path = quickly(model, tmp_path / "1", labels=names).path
        lines = (path / "assets" / "labels.txt").read_bytes().decode("utf-8").splitlines()
        assert lines == names
        for label, said in (("a\nb", r"'a\nb'"), ("a\n", r"'a\n'"), ("", "''")):
            with one_line_error(f"label {said} must be one line"):
                quickly(model, tmp_path / "2", labels=[label, "c", "d", "e", "f"])
        assert [file.name for file in tmp_path.iterdir()] == ["1"]

    def test_wants_a_label_for_every_output(self, tmp_path, model):
        with one_line_error("2 names came for the 10 outputs"):
            quickly(model, tmp_path / "1", labels=["a", "b"])
        assert list(tmp_path.iterdir()) == []

    def test_the_card_says_what_it_is(self, tmp_path, model):
        names, images = [*"abcdefghij"], np.zeros((3, 32, 32, 3), "float32")
        new = export.saved_model(model, tmp_path, names, images=images, top=3, verbose=False)
        card = json.loads((new.path / "model_card.json").read_text(encoding="utf-8"))
        assert card == json.loads(json.dumps(new.card))
        expected = {
            "model": "cifar_resnet8",
            "parameters": model.count_params(),
            "input": [32, 32, 3],
            "output": "probabilities",
            "precision": "float32",
            "labels": names,
            "preprocessing": "raw",
            "image_size": 32,
            "top": 3,
            "not_folded": {},
        }
        assert {name: card[name] for name in expected} == expected
        assert card["made_with"]["keras"] == keras.__version__
        assert card["verification"]["images"] == 3
        assert card["verification"]["agreement"] == new.verification.agreement == 1.0
        assert quickly(model, tmp_path).card["verification"] is None

    def test_lists_what_is_not_folded(self, tmp_path):
        inputs = keras.Input((32, 32, 3))
        x = layers.BatchNormalization(name="first")(inputs)
        net = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
        assert [*quickly(net, tmp_path).card["not_folded"]] == ["first"]

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_weights_are_kept_in_its_precision(self, tmp_path, model, precision):
        path = quickly(model, tmp_path, precision=precision).path
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        shapes, kinds = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        kernels = {name for name, shape in shapes.items() if len(shape) == 4}
        assert len(kernels) == 7
        assert {kinds[name].name for name in kernels} == {precision}
        (head,) = [name for name, shape in shapes.items() if shape == [64, 10]]
        assert kinds[head] == "float32"

    def test_names_no_folder_of_this_machine(self, tmp_path, model):
        path = export.saved_model(model, tmp_path / "somewhere", [*"abcdefghij"]).path
        folders = {
            str(tmp_path), "somewhere", str(Path.home()), str(Path.cwd()), sys.prefix,
            str(Path(keras_resnet.__file__).parent), "site-packages",
        } - {"/"}  # fmt: skip
        for file in path.rglob("*"):
            if file.is_file():
                contents = file.read_bytes()
                held = {folder for folder in folders if folder.encode() in contents}
                # The warm-up requests are for a model of that name.
                assert held <= ({"somewhere"} if "assets.extra" in file.parts else set()), file

    @pytest.mark.parametrize("name", ["a folder/schön 猫", "nested/a/b", "trailing/"])
    def test_folders_of_any_name(self, tmp_path, monkeypatch, model, name):
        monkeypatch.chdir(tmp_path)
        path = quickly(model, name).path
        assert path == Path(name) / "1"
        assert tf.saved_model.contains_saved_model(tmp_path / name / "1")


class TestVersions:
    def test_the_next_one_is_free(self, tmp_path, model):
        folder = tmp_path / "cifar"
        assert quickly(model, folder).path == folder / "1"
        assert quickly(model, folder / "7").path == folder / "7"
        assert quickly(model, folder).path == folder / "8"
        assert sorted(each.name for each in folder.iterdir()) == ["1", "7", "8"]

    def test_one_that_exists_stays(self, tmp_path, model):
        (tmp_path / "1").mkdir()
        with one_line_error("1' is there already", "choose another version number"):
            quickly(model, tmp_path / "1")
        assert list((tmp_path / "1").iterdir()) == []
        (tmp_path / "2").write_text("mine")
        with one_line_error("2' is there already"):
            quickly(model, tmp_path / "2")
        assert (tmp_path / "2").read_text() == "mine"

    def test_a_file_in_the_way_stays(self, tmp_path, model):
        (tmp_path / "file").write_text("mine")
        for path in (tmp_path / "file", tmp_path / "file" / "1"):
            with one_line_error("file", "is there already"):
                quickly(model, path)
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_of_something_else_stays(self, tmp_path, model):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "cat.jpg").write_text("mine")
        with one_line_error("photos' is there already and is no folder of a model's versions"):
            quickly(model, tmp_path / "photos")
        assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]

    def test_an_empty_folder_is_taken(self, tmp_path, model):
        assert quickly(model, tmp_path).path == tmp_path / "1"

    def test_one_that_somebody_else_made_meanwhile_stays(self, tmp_path, monkeypatch, model):
        module, write = sys.modules["keras_resnet.export.saved_model"], write_requests

        def slowly(*arguments):
            write(*arguments)
            (tmp_path / "1").mkdir(exist_ok=True)
            (tmp_path / "1" / "saved_model.pb").write_text("theirs")

        monkeypatch.setattr(module, "write_requests", slowly)
        with contextlib.suppress(FileExistsError):
            assert quickly(model, tmp_path).path == tmp_path / "2"
        assert [file.name for file in (tmp_path / "1").iterdir()] == ["saved_model.pb"]
        assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]

    def test_next_version_follows_the_highest(self, tmp_path):
        assert export.next_version(tmp_path / "new").name == "1"
        for name in ("1", "2", "10", "latest", ".99-11"):
            (tmp_path / name).mkdir()
        (tmp_path / "12").write_text("a file")
        assert export.next_version(tmp_path).name == "11"

    def test_a_watching_server_sees_whole_versions_alone(self, tmp_path, model):
        whole, seen, done = {"saved_model.pb", "model_card.json", "assets.extra"}, set(), False

        def watch():
            while not done:
                for each in tmp_path.iterdir():
                    if each.name.isdecimal() and each.name not in seen:
                        found = {file.name for file in each.iterdir()}
                        seen.add(each.name if found >= whole else f"a part of {each.name}")

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            export.saved_model(model, tmp_path, verbose=False)
        finally:
            done = True
            watcher.join()
        assert seen <= {"1"}


class TestFailures:
    @pytest.mark.parametrize(
        "stage",
        ["_check_servable", "write_labels", "write_requests", "verify_export", "model_card"],
    )
    def test_leave_nothing_behind(self, tmp_path, monkeypatch, model, stage):
        def fail(*arguments):
            raise OSError("disk full")

        monkeypatch.setattr(sys.modules["keras_resnet.export.saved_model"], stage, fail)
        with pytest.raises(OSError, match="disk full"):
            export.saved_model(model, tmp_path / "models", [*"abcdefghij"])
        assert list((tmp_path / "models").iterdir()) == []

    def test_of_the_disk_leave_nothing_behind(self, tmp_path, monkeypatch, model):
        def fail(module, path, **options):
            path.mkdir()
            (path / "half").write_text("half")
            raise KeyboardInterrupt

        monkeypatch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(KeyboardInterrupt):
            export.saved_model(model, tmp_path / "models" / "1")
        assert list((tmp_path / "models").iterdir()) == []

    def test_of_the_verification_leave_nothing_behind(self, tmp_path, model):
        images = np.zeros((2, 32, 32, 3), "float32")
        with one_line_error("chooses the same class as the original for"):
            export.saved_model(model, tmp_path, images=images, agreement=1.1)
        assert list(tmp_path.iterdir()) == []


class TestWhatNoServerRuns:
    @pytest.mark.parametrize(
        ("function", "operation"),
        [(tf.py_function, "EagerPyFunc"), (tf.numpy_function, "PyFunc")],
    )
    def test_python(self, tmp_path, function, operation):
        class InPython(layers.Layer):
            def call(self, inputs):
                return tf.ensure_shape(function(np.asarray, [inputs], "float32"), inputs.shape)

            def compute_output_shape(self, shape):
                return shape

        inputs = keras.Input((8, 8, 3))
        x = layers.GlobalAveragePooling2D()(InPython()(inputs))
        with one_line_error(f"the operation {operation} is not one of TensorFlow Serving's"):
            quickly(keras.Model(inputs, layers.Dense(2)(x)), tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_xla(self, tmp_path, precision):
        inputs = keras.Input((8, 8, 8))
        x = layers.Conv2D(8, 3, groups=4, data_format="channels_first")(inputs)
        net = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
        with one_line_error("can be run by XLA only", "groups and channels first"):
            quickly(net, tmp_path, precision=precision)
        assert list(tmp_path.iterdir()) == []

    def test_no_operation_is_run_by_python_or_is_unknown(self, tmp_path, model):
        contents = (quickly(model, tmp_path).path / "saved_model.pb").read_bytes()
        (graph,) = saved_model_pb2.SavedModel.FromString(contents).meta_graphs
        functions = graph.graph_def.library.function
        nodes = [*graph.graph_def.node, *(node for each in functions for node in each.node_def)]
        used = {node.op for node in nodes} - {each.signature.name for each in functions}
        assert not {op for op in used if "Py" in op or op.startswith("Xla")}
        assert {op for op in used if op_def_registry.get(op) is None} == set()
