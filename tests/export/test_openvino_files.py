"""OpenVINO files, run by OpenVINO itself."""

import logging
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import export
from keras_resnet.export import runtimes

openvino = pytest.importorskip("openvino")
nncf = pytest.importorskip("nncf")

SIZE = 32


@pytest.fixture(scope="module")
def model():
    """A model with grouped convolutions that takes raw images."""
    keras.utils.set_random_seed(0)
    net = keras_resnet.ResNet(
        (1, 1), filters=(64, 128), cardinality=8, base_width=16, input_shape=(SIZE, SIZE, 3),
        classes=5, include_preprocessing=True,
    )  # fmt: skip
    random = np.random.default_rng(0)
    for weight in net.weights:  # as training leaves them
        if "moving_mean" in weight.path or "beta" in weight.path:
            weight.assign(random.normal(0, 0.2, weight.shape))
        if "moving_variance" in weight.path or "gamma" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return net


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(0, 255, (20, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture(scope="module")
def files(model, images, tmp_path_factory):
    """A file of every precision."""
    folder = tmp_path_factory.mktemp("files")
    for precision in ("float32", "bfloat16", "int8"):
        calibrate = images if precision == "int8" else None
        options = dict(calibrate=calibrate, verified=False, verbose=False)
        export.openvino(model, folder / f"{precision}.xml", precision=precision, **options)
    return folder


def outputs(path, images, **options):
    """What OpenVINO answers, without this package."""
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return compiled({"images": images})["probabilities"]


@pytest.mark.parametrize(
    ("precision", "near"), [("float32", 1e-5), ("bfloat16", 0.02), ("int8", 0.05)]
)
class TestFiles:
    def test_compute_nearly_the_same(self, files, model, images, precision, near):
        hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        found = outputs(files / f"{precision}.xml", images, **hint)
        assert np.abs(found - np.asarray(model(images))).max() < near

    def test_are_loaded_for_any_batch(self, files, model, images, precision, near):
        loaded = export.load(files / f"{precision}.xml", threads=1)
        assert (loaded.runtime, loaded.image_shape) == ("OpenVINO", (None, SIZE, SIZE, 3))
        assert (loaded.image_dtype, loaded.outputs) == ("float32", ("probabilities",))
        pair = [files / f"{precision}.xml", files / f"{precision}.bin"]
        assert loaded.mebibytes == sum(map(os.path.getsize, pair)) / 2**20
        for count in (1, 3):
            expected = np.asarray(model(images[:count]))
            assert np.abs(loaded(images[:count]) - expected).max() < near
        first = loaded(images[:3])
        kept = first.copy()
        loaded(images[3:6])
        np.testing.assert_array_equal(first, kept)  # not overwritten by the next call


def test_fewer_bits_are_smaller_files(files):
    sizes = {each.stem: each.stat().st_size for each in files.glob("*.bin")}
    assert sizes["float32"] > 1.8 * sizes["bfloat16"] > 2.8 * sizes["int8"]


def test_a_file_is_computed_in_what_it_was_verified_in(files, images, monkeypatch):
    asked = []
    compile_model = openvino.Core.compile_model

    def noted(core, model, device, options):
        asked.append(options)
        return compile_model(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    for precision in ("float32", "bfloat16", "int8"):
        export.load(files / f"{precision}.xml", threads=2)(images)
    assert [each["INFERENCE_PRECISION_HINT"] for each in asked] == ["f32", "bf16", "f32"]
    assert {each["INFERENCE_NUM_THREADS"] for each in asked} == {2}


def test_int8_keeps_the_head_in_float(files):
    model = openvino.Core().read_model(files / "int8.xml")
    of_type = {}
    for operation in model.get_ordered_ops():
        of_type.setdefault(operation.get_type_name(), []).append(operation)
    (head,) = of_type["MatMul"]
    assert head.input_value(1).get_node().get_type_name() == "Constant"
    assert all(quantized(files / "int8.xml"))
    assert "FakeQuantize" in of_type


def test_int8_answers_alike_on_cpus_that_add_pairs_of_products_in_16_bits(files):
    """Without VNNI: 255 * 64 * 2 fits into 16 bits, 255 * 127 * 2 does not."""
    model = openvino.Core().read_model(files / "int8.xml")
    constants = (each for each in model.get_ordered_ops() if each.get_type_name() == "Constant")
    weights = [each for each in (node.get_data() for node in constants) if each.dtype == np.int8]
    assert len(weights) == len(quantized(files / "int8.xml"))
    assert max(np.abs(each.astype(int)).max() for each in weights) <= 64


class TestExport:
    def test_is_verified_and_has_a_card(self, tmp_path, model, images, capsys):
        new = export.openvino(
            model, tmp_path / "a.xml", "abcde", precision="int8", calibrate=images, agreement=0.5
        )
        assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml"]
        assert new.card["precision"] == "int8"
        count = len(quantized(new))
        assert new.card["quantization"] == {
            "calibrated_on": 16,
            "held_out": 4,
            "accuracy_aware": False,
            "convolutions": count,
            "convolutions_in_int8": count,
        }
        assert new.verification.runtime == "OpenVINO"
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == str(tmp_path / "a.xml")
        assert len(lines) == 3  # nothing of NNCF's

    def test_batches_of_one_size(self, tmp_path, model, images):
        for precision in ("float32", "int8"):
            new = export.openvino(
                model, tmp_path / f"{precision}.xml", precision=precision, batch_size=4,
                calibrate=images, agreement=0.5, verbose=False,
            )  # fmt: skip
            assert export.load(new).image_shape == (4, SIZE, SIZE, 3)
            assert [*new.verification.milliseconds] == [4]

    def test_images_of_any_size(self, tmp_path):
        model = keras_resnet.ResNet(
            (1, 1), filters=(16, 32), classes=3, include_preprocessing=True,
            input_shape=(None, None, 3),
        )  # fmt: skip
        new = export.openvino(model, tmp_path / "a.xml", image_size=48, verbose=False)
        assert export.load(new).image_shape == (None, None, None, 3)
        images = np.random.default_rng(0).uniform(0, 255, (2, 40, 56, 3)).astype("float32")
        np.testing.assert_allclose(export.load(new)(images), model(images), atol=1e-5)

    def test_neither_file_is_overwritten(self, tmp_path, model):
        (tmp_path / "a.bin").write_text("mine")
        with one_line_error("a.bin' is there already: choose another name"):
            export.openvino(model, tmp_path / "a.xml")
        assert (tmp_path / "a.bin").read_text() == "mine"
        assert os.listdir(tmp_path) == ["a.bin"]

    def test_one_that_disagrees_leaves_nothing(self, tmp_path, model, images):
        with one_line_error("chooses the same class"):
            export.openvino(model, tmp_path / "a.xml", images=images, agreement=1.1)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"precision": "float16"}, "precision='float16' must be one of 'float32', 'bfloat16'"),
            ({"precision": "int8"}, "calibrate: precision='int8' needs images"),
            (
                {"precision": "int8", "calibrate": np.zeros((2, 16, 16, 3))},
                "calibrate has the shape (2, 16, 16, 3); the model takes (None, 32, 32, 3)",
            ),
            (
                {"images": np.zeros((2, 16, 16, 3))},
                "images has the shape (2, 16, 16, 3); the model takes",
            ),
        ],
    )
    def test_mistakes(self, tmp_path, model, options, message):
        with one_line_error(message):
            export.openvino(model, tmp_path / "a.xml", **options)
        assert os.listdir(tmp_path) == []


class TestCPUWithoutBfloat16:
    @pytest.fixture(autouse=True)
    def without(self, monkeypatch):
        found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        found = [each for each in found if each != "BF16"]
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_: found)

    def test_verifies_none(self, tmp_path, model, images):
        with one_line_error("precision='bfloat16' cannot be verified on this CPU"):
            export.openvino(model, tmp_path / "a.xml", precision="bfloat16", images=images)
        assert os.listdir(tmp_path) == []

    def test_writes_one_for_another_machine(self, tmp_path, model):
        options = dict(precision="bfloat16", verified=False, verbose=False)
        assert export.openvino(model, tmp_path / "a.xml", **options).verification is None

    def test_says_what_it_computes_in(self, files, images, caplog):
        with caplog.at_level(logging.WARNING, "keras_resnet"):
            export.load(files / "float32.xml")
            assert not caplog.messages
            export.load(files / "bfloat16.xml")(images)
        (line,) = caplog.messages
        assert "no instructions for bfloat16: OpenVINO computes in float32" in line


class TestLoad:
    def test_finds_the_file_of_the_highest_version(self, files, tmp_path, images):
        for version in ("9", "10"):
            (tmp_path / version).mkdir()
            for suffix in ("xml", "bin"):
                shutil.copy(files / f"int8.{suffix}", tmp_path / version / f"net.{suffix}")
        (tmp_path / "10" / "labels.txt").write_text("a")
        loaded = export.load(tmp_path)
        assert loaded.path == tmp_path / "10" / "net.xml"
        np.testing.assert_array_equal(loaded(images), export.load(files / "int8.xml")(images))
        with one_line_error("holds 3 exported models: name one, such as bfloat16.xml."):
            export.load(files)

    def test_needs_the_weights_beside_it(self, files, tmp_path):
        shutil.copy(files / "float32.xml", tmp_path / "net.xml")
        with one_line_error("net.xml' cannot be loaded: its weights, net.bin, are not beside it"):
            export.load(tmp_path / "net.xml")

    def test_says_why_not(self, tmp_path):
        (tmp_path / "net.xml").write_text("<nothing/>")
        (tmp_path / "net.bin").write_text("")
        with one_line_error("net.xml' cannot be loaded: Unable to read the model"):
            export.load(tmp_path / "net.xml")

    def test_takes_files_of_others(self, tmp_path, images):
        parameter = openvino.opset13.parameter([-1, SIZE, SIZE, 3], name="x")
        parameter.output(0).set_names({"x"})
        relu = openvino.opset13.relu(parameter)
        relu.output(0).set_names({"y"})
        openvino.save_model(openvino.Model([relu], [parameter]), tmp_path / "theirs.xml")
        loaded = export.load(tmp_path / "theirs.xml")
        np.testing.assert_allclose(loaded(images - 100), np.maximum(images - 100, 0), rtol=1e-2)

    def test_does_without_tensorflow(self, files):
        program = (
            "import sys, numpy, keras_resnet; "
            f"model = keras_resnet.export.load({os.fspath(files / 'int8.xml')!r}); "
            f"print(model(numpy.ones((2, {SIZE}, {SIZE}, 3))).shape); "
            "print({'tensorflow', 'keras', 'torch', 'nncf'} & {*sys.modules})"
        )
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert process.stdout == "(2, 5)\nset()\n", process.stderr


def quantized(path):
    """For each convolution in a file, whether its weights are 8-bit numbers."""
    return [
        each.input_value(1).get_node().get_type_name() != "Constant"
        for each in openvino.Core().read_model(os.fspath(path)).get_ordered_ops()
        if each.get_type_name() in ("Convolution", "GroupConvolution")
    ]


class TestAccuracyControl:
    @pytest.fixture
    def verdicts(self, monkeypatch):
        """The results of successive verifications: whether all answers are the same."""
        found = []
        module = sys.modules["keras_resnet.export.comparison"]
        monkeypatch.setattr(module, "same", lambda output, *_: np.full(len(output), found.pop(0)))
        return found

    def test_layers_stay_in_float_where_too_much_changes(
        self, tmp_path, model, images, verdicts, monkeypatch
    ):
        def search(net, calibration, validation, judge, *, max_drop, ignored_scope, **options):
            """In place of NNCF's search: calls the judge, and finds the first convolution."""
            compiled = openvino.compile_model(net, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            kept, outputs = judge(compiled, validation.get_data())
            assert (kept, len(outputs)) == (1.0, 16)
            assert max_drop == pytest.approx(0.025)
            del options["advanced_accuracy_restorer_parameters"]
            options["advanced_parameters"] = options.pop("advanced_quantization_parameters")
            first = next(
                each.get_friendly_name()
                for each in net.get_ordered_ops()
                if each.get_type_name() == "Convolution"
            )
            scope = nncf.IgnoredScope(names=[first], types=ignored_scope.types)
            return nncf.quantize(net, calibration, ignored_scope=scope, **options)

        monkeypatch.setattr(nncf, "quantize_with_accuracy_control", search)
        verdicts += [False, True]
        options = dict(precision="int8", calibrate=images, verbose=False)
        new = export.openvino(model, tmp_path / "a.xml", **options)
        convolutions = quantized(new)
        assert convolutions.count(False) == 1
        found = new.card["quantization"]
        assert (found["accuracy_aware"], found["held_out"]) == (True, 4)
        assert found["convolutions"] == len(convolutions)
        assert found["convolutions_in_int8"] == len(convolutions) - 1
        assert not verdicts

    def test_one_without_8_bits_is_refused(self, tmp_path, model, images, verdicts, monkeypatch):
        monkeypatch.setattr(nncf, "quantize_with_accuracy_control", lambda net, *_, **__: net)
        verdicts += [False]
        with one_line_error("precision='int8'", "no convolution can stay in 8 bits"):
            export.openvino(model, tmp_path / "a.xml", precision="int8", calibrate=images)
        assert os.listdir(tmp_path) == []

    def test_of_what_is_exact_nothing_is_controlled(self, tmp_path, model, images, monkeypatch):
        def fail(*_, **__):
            pytest.fail("accuracy was controlled")

        monkeypatch.setattr(nncf, "quantize_with_accuracy_control", fail)
        options = dict(precision="int8", calibrate=images, agreement=0.5, verbose=False)
        export.openvino(model, tmp_path / "a.xml", **options)


def test_computes_bfloat16_as_the_cpu_says():
    file = "/proc/cpuinfo"
    if sys.platform != "linux":
        pytest.skip("the CPU is read from /proc")
    with open(file) as lines:
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
    assert runtimes.computes_bfloat16() == ("avx512_bf16" in flags or "amx_bf16" in flags)
