import json
import sys

import pytest
from commands import refused, run

from keras_resnet import data


class TestExport:
    def test_saved_model_of_a_run_is_verified_on_test_images(self, trained, photographs, tmp_path):
        output, _ = trained
        arguments = ["--calibrate", photographs, "--precision", "bfloat16", "--json"]
        result = run("export", output, "--output", tmp_path / "pair", *arguments)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        folder = tmp_path / "pair" / "1"
        assert answer["output"] == str(folder)
        assert (answer["runtime"], answer["made_up"]) == ("TensorFlow", False)
        assert answer["agreement"] >= 0.99
        assert answer["images"] == len(data.load(photographs).test)
        assert (folder / "assets" / "labels.txt").read_text() == "one\nzero\n"
        again = run("export", output, "--output", tmp_path / "pair")
        assert again.exit_code == 0, again.output
        assert str(tmp_path / "pair" / "2") in again.stdout

    @pytest.mark.parametrize(
        ("format", "runtime", "suffixes"),
        [("litert", "LiteRT", ["tflite"]), ("openvino", "OpenVINO", ["xml", "bin"])],
    )
    @pytest.mark.parametrize("precision", ["float32", "int8"])
    def test_file_with_its_card_and_labels(
        self, trained, photographs, tmp_path, precision, format, runtime, suffixes
    ):
        if format == "openvino":
            pytest.importorskip("nncf")
        output, _ = trained
        arguments = ["--format", format, "--precision", precision, "--calibrate", photographs]
        result = run("export", output, "--output", tmp_path, *arguments)
        assert result.exit_code == 0, result.output
        assert runtime in result.stdout
        assert {file.name for file in tmp_path.iterdir()} == {
            *(f"cifar_resnet8.{suffix}" for suffix in suffixes),
            f"cifar_resnet8.{suffixes[0]}.json",
            "labels.txt",
        }
        card = json.loads((tmp_path / f"cifar_resnet8.{suffixes[0]}.json").read_text())
        assert (card["precision"], card["labels"]) == (precision, ["one", "zero"])
        splits = data.load(photographs)
        assert card["verification"]["images"] == len(splits.test)
        if precision == "int8":
            assert card["quantization"]["calibrated_on"] == min(100, len(splits.train))

    def test_saved_model_with_a_litert_file(self, trained, photographs, tmp_path):
        output, _ = trained
        arguments = ["--with-litert", "int8", "--calibrate", photographs, "--json"]
        result = run("export", output, "--output", tmp_path / "pair", *arguments)
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        file = tmp_path / "pair" / "1" / "model.tflite"
        assert file.exists()
        assert (answer["runtime"], answer["model.tflite"]["runtime"]) == ("TensorFlow", "LiteRT")
        assert str(file) in result.stderr

    def test_what_is_not_installed_is_said_first(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "openvino", None)
        result = run("export", "gone", "--output", tmp_path / "new", "--format", "openvino")
        assert result.exit_code == 1
        assert "openvino is not installed: pip install 'keras_resnet[openvino]'." in result.stderr
        assert [*tmp_path.iterdir()] == []

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--with-litert", "int8"], "with_litert='int8' needs images to calibrate"),
            (["--with-litert", "int8", "--format", "onnx"], "needs images to calibrate"),
            (["--with-litert", "float32", "--format", "onnx"], "is only for format 'saved_model'"),
            (["--precision", "int8"], "format 'saved_model' knows float32, bfloat16"),
            (
                ["--format", "litert", "--precision", "int8"],
                "needs images to calibrate: calibrate=SOURCE",
            ),
            (
                ["--format", "openvino", "--precision", "float16"],
                "format 'openvino' knows float32, bfloat16, int8",
            ),
            (["--format", "onnx", "--precision", "bfloat16"], "format 'onnx' knows float32"),
            (["--format", "litert", "--resize"], "resize and image_dtype are for"),
            (["--image-dtype", "uint8", "--batch-size", "2", "--output", "."], "no folder of a"),
        ],
    )
    def test_mistakes(self, trained, tmp_path, arguments, reason, monkeypatch):
        output, _ = trained
        (tmp_path / "something").write_text("else")
        monkeypatch.chdir(tmp_path)
        assert reason in refused(run("export", output, "--output", tmp_path / "new", *arguments))
        assert [file.name for file in tmp_path.iterdir()] == ["something"]


class TestBench:
    def test_models_side_by_side(self, trained, photographs, tmp_path):
        output, _ = trained
        file = tmp_path / "cifar_resnet8.tflite"
        assert run("export", output, "--output", tmp_path, "--format", "litert").exit_code == 0
        arguments = ["--images", photographs, "--seconds", "0.1", "--batch-size", "2", "--json"]
        result = run("bench", output / "saved_model", file, *arguments)
        assert result.exit_code == 0, result.output
        ours, theirs = json.loads(result.stdout)["results"]
        assert (ours["path"], ours["runtime"]) == (str(output / "saved_model" / "1"), "TensorFlow")
        assert (theirs["path"], theirs["runtime"]) == (str(file), "LiteRT")
        for latency in (ours, theirs):
            assert latency["batch_size"] == 2
            assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
            assert latency["images_per_second"] > 0
        assert "images/s" in result.stderr

    def test_what_is_no_exported_model(self, tmp_path):
        line = refused(run("bench", tmp_path))
        assert "is not an exported model" in line
