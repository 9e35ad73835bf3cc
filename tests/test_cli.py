import json
import subprocess
import sys

import click.testing
import keras
import numpy as np
import PIL.Image
import pytest

import keras_resnet
from keras_resnet import data
from keras_resnet.cli import main


def run(*arguments):
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result):
    """The one line that a mistake is answered with."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of class/image: the digits 0 and 1 as RGB files."""
    folder = tmp_path_factory.mktemp("zeros-and-ones")
    digits = data.load("digits").train
    for label, name in enumerate(("one", "zero")):
        (folder / name).mkdir()
        images = digits.images[digits.labels == 1 - label][:60]
        for index, image in enumerate(images):
            pixels = np.repeat(image, 3, axis=-1).repeat(2, axis=0).repeat(2, axis=1)
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "pair"
    arguments = ["--model", "cifar_resnet8", "--image-size", 16, "--epochs", 8, "--batch-size", 8]
    arguments += ["--learning-rate", 0.4]
    result = run("train", "--data", photographs, *arguments, "--output", output, "--json")
    assert result.exit_code == 0, result.output
    return output, result


def test_help_answers_without_tensorflow():
    script = (
        "import sys; from keras_resnet.cli import main; main(['--help'], standalone_mode=False)"
    )
    check = "; print('tensorflow' in sys.modules, 'keras' in sys.modules, 'numpy' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script + check], capture_output=True, text=True, check=True
    )
    assert process.stdout.endswith("False False False\n")
    assert "Usage:" in process.stdout


class TestDemo:
    def test_goes_the_whole_way(self, tmp_path):
        process = subprocess.run(
            [sys.executable, "-m", "keras_resnet.cli", "demo", "--output", tmp_path, "--json"],
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        (line,) = process.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics["test_accuracy"] >= 0.98
        assert sum(scores["support"] for scores in metrics["per_class"].values()) == 359
        assert metrics["saved_model_difference"] < 1e-5
        assert metrics["saved_model"] == str(tmp_path / "saved_models" / "digits" / "1")
        assert {file.name for file in (tmp_path / "runs" / "digits").iterdir()} == {
            "curves.png",
            "history.csv",
            "labels.txt",
            "metrics.json",
            "model.keras",
            "predictions.png",
        }
        assert "Epoch 1/" in process.stderr
        assert "Warning" not in process.stderr


class TestTrain:
    def test_answers_in_json_alone(self, trained):
        output, result = trained
        (line,) = result.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics == json.loads((output / "metrics.json").read_text())
        assert metrics["test_accuracy"] > 0.9
        assert metrics["test_images"] == 24

    def test_writes_everything_it_says(self, trained):
        output, _ = trained
        assert (output / "labels.txt").read_text() == "one\nzero\n"
        assert len((output / "history.csv").read_text().splitlines()) == 9
        assert (output / "saved_model" / "1" / "saved_model.pb").exists()
        for picture in ("curves.png", "predictions.png"):
            PIL.Image.open(output / picture).verify()

    def test_half_precision_trains_too(self, tmp_path):
        arguments = ["--model", "CIFARResNet8", "--image-size", 8, "--epochs", 1]
        try:
            result = run(
                "train", "--data", "digits", *arguments, "--precision", "bfloat16",
                "--output", tmp_path,
            )  # fmt: skip
        finally:
            keras.config.set_dtype_policy("float32")
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert model.get_layer("conv1_conv").compute_dtype == "bfloat16"

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--data", "no/such/folder"], "data 'no/such/folder': there is no such folder"),
            (["--data", "digits", "--model", "ResNet51"], "Did you mean ResNet5"),
            (["--data", "digits", "--model", "CIFARResNet21"], "depth=21 must be 6n + 2"),
            (["--data", "digits", "--model", "ResNet50"], "is too small"),
            (
                ["--data", "digits", "--model", "CIFARResNet8", "--weights", "lost.weights.h5"],
                "weights='lost.weights.h5': there is no such file",
            ),
        ],
    )
    def test_mistakes_are_one_line_and_leave_nothing(self, tmp_path, arguments, complaint):
        line = refused(run("train", *arguments, "--output", tmp_path / "run"))
        assert complaint in line
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "option", [["--epochs", 0], ["--batch-size", 0], ["--image-size", 0], ["--seed", -1]]
    )
    def test_numbers_out_of_range_are_named(self, tmp_path, option):
        result = run("train", "--data", "digits", *option, "--output", tmp_path / "run")
        assert result.exit_code == 2
        assert f"Invalid value for '{option[0]}'" in result.stderr

    def test_names_of_classes_may_be_anything(self, photographs, tmp_path):
        names = ["[bold]dog [x]", "odd [b] :cat:", "accuracy", "schön"]
        for name, source in zip(names, ["one", "zero"] * 2, strict=True):
            folder = tmp_path / "images" / name
            folder.mkdir(parents=True)
            for file in sorted((photographs / source).iterdir())[:6]:
                (folder / file.name).write_bytes(file.read_bytes())
        arguments = ["--model", "CIFARResNet8", "--image-size", 16, "--epochs", 1]
        output = tmp_path / "run"
        result = run("train", "--data", tmp_path / "images", *arguments, "--output", output)
        assert result.exit_code == 0, result.output
        assert "[bold]dog [x]" in result.stdout
        assert "odd [b] :cat:" in result.stdout
        image = tmp_path / "odd[" / "bold]x.png"
        image.parent.mkdir()
        image.write_bytes((photographs / "one" / "0.png").read_bytes())
        result = run("predict", output, image)
        assert "odd[/bold]x.png" in result.stdout

    def test_another_backend_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        line = refused(run("train", "--data", "digits", "--output", tmp_path / "run"))
        assert "training and export need KERAS_BACKEND=tensorflow" in line

    def test_a_text_file_named_jpg_is_named(self, tmp_path, photographs):
        folder = tmp_path / "images"
        for name in ("one", "zero"):
            (folder / name).mkdir(parents=True)
            for file in sorted((photographs / name).iterdir())[:5]:
                (folder / name / file.name).write_bytes(file.read_bytes())
        (folder / "zero" / "fake.jpg").write_text("zero")
        line = refused(run("train", "--data", folder, "--output", tmp_path / "run"))
        assert "zero/fake.jpg' is not an image" in line
        assert not (tmp_path / "run").exists()

    def test_a_damaged_image_is_named(self, tmp_path, photographs):
        folder = tmp_path / "images"
        for name in ("one", "zero"):
            (folder / name).mkdir(parents=True)
            for file in sorted((photographs / name).iterdir())[:5]:
                (folder / name / file.name).write_bytes(file.read_bytes()[:-40])
        arguments = ["--model", "CIFARResNet8", "--image-size", 16, "--epochs", 1]
        result = run("train", "--data", folder, *arguments, "--output", tmp_path / "run")
        assert result.exit_code == 2
        assert "png' is not an image that can be read" in result.stderr.splitlines()[-1]
        assert not (tmp_path / "run").exists()

    def test_a_place_that_cannot_be_written_to_is_named_before_training(self, tmp_path):
        (tmp_path / "file").write_text("")
        arguments = ["--data", "digits", "--model", "CIFARResNet8"]
        line = refused(run("train", *arguments, "--output", tmp_path / "file" / "run"))
        assert "nothing can be written to" in line


class TestEvaluate:
    def test_repeats_the_accuracy_of_training(self, trained, photographs):
        output, result = trained
        metrics = json.loads(result.stdout)
        answer = json.loads(run("evaluate", output, "--data", photographs, "--json").stdout)
        assert answer["accuracy"] == metrics["test_accuracy"]
        assert answer["per_class"] == metrics["per_class"]
        assert (answer["split"], answer["images"]) == ("test", 24)

    def test_tests_on_the_same_images_whatever_the_seed(self, photographs, tmp_path):
        arguments = ["--model", "cifar_resnet8", "--image-size", 16, "--epochs", 1, "--seed", 5]
        result = run("train", "--data", photographs, *arguments, "--output", tmp_path, "--json")
        metrics = json.loads(result.stdout)
        answer = json.loads(run("evaluate", tmp_path, "--data", photographs, "--json").stdout)
        assert answer["per_class"] == metrics["per_class"]

    def test_takes_a_split_and_prints_a_table(self, trained, photographs):
        output, _ = trained
        result = run("evaluate", output, "--data", f"{photographs}:validation")
        assert result.exit_code == 0, result.output
        assert "validation images" in result.stdout
        assert result.stdout.split().count("zero") == 1

    def test_refuses_other_classes(self, trained):
        output, _ = trained
        line = refused(run("evaluate", output, "--data", "digits"))
        assert "MODEL knows one, zero" in line


class TestPredict:
    def test_equals_the_model_in_python(self, trained, photographs):
        output, _ = trained
        file = photographs / "zero" / "0.png"
        result = run("predict", output, file, "--json")
        assert result.exit_code == 0, result.output
        (prediction,) = json.loads(result.stdout)["predictions"]
        model = keras.saving.load_model(output / "model.keras")
        expected = model.predict(np.asarray(PIL.Image.open(file))[None], verbose=0)[0]
        assert prediction["image"] == str(file)
        assert [guess["class"] for guess in prediction["classes"]] == ["zero", "one"]
        probabilities = [guess["probability"] for guess in prediction["classes"]]
        np.testing.assert_allclose(probabilities, expected[::-1], atol=1e-5)

    def test_takes_files_and_folders_and_prints_a_table(self, trained, photographs):
        output, _ = trained
        result = run(
            "predict", output / "model.keras", photographs / "one", photographs / "zero" / "0.png",
            "--top", 1,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        rows = [line for line in result.stdout.splitlines() if ".png" in line]
        assert len(rows) == 61
        assert sum("one" in row.split()[-2] for row in rows) > 50

    def test_works_without_the_names_of_the_classes(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, input_shape=(None, None, 3), include_preprocessing=True)
        net.save(tmp_path / "net.keras")
        result = run("predict", tmp_path / "net.keras", photographs / "one" / "0.png", "--json")
        classes = json.loads(result.stdout)["predictions"][0]["classes"]
        assert all(guess["class"] in "0123456789" for guess in classes)

    def test_mistakes_are_one_line(self, trained, photographs, tmp_path):
        output, _ = trained
        image = photographs / "one" / "0.png"
        text = tmp_path / "cat.jpg"
        text.write_text("cat")
        (tmp_path / "broken.keras").write_text("nothing")
        (tmp_path / "empty").mkdir()
        for arguments, complaint in (
            ([output, "lost.jpg"], "'lost.jpg': there is no such file or folder"),
            ([output, text], "cat.jpg' is not an image"),
            ([output, tmp_path / "empty"], "no images in"),
            ([tmp_path / "empty", image], "there is no file"),
            ([tmp_path / "broken.keras", image], "is no .keras file, or not a whole one"),
            (["resnet05", image], "model 'resnet05' is not known. Did you mean ResNet50?"),
            (["ResNet18", image, "--weights", "imagnet"], "Did you mean imagenet?"),
            (["ResNet18", image, "--weights", "imagenet_v2"], "only 'imagenet_v1'"),
            (["ResNet18", image, "--weights", "lost.pth"], "there is no such file"),
            (["CIFARResNet14", image], "model with pretrained weights 'CIFARResNet14'"),
        ):
            assert complaint in refused(run("predict", *arguments))


class TestPretrained:
    def test_weights_of_a_file_predict_as_in_python(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, classes=7, include_preprocessing=True)
        keras_resnet.pretrained.to_torch(net, tmp_path / "net.safetensors")
        image = photographs / "one" / "0.png"
        result = run(
            "predict", "cifar-resnet8", image, "--weights", tmp_path / "net.safetensors", "--json"
        )
        assert result.exit_code == 0, result.output
        classes = json.loads(result.stdout)["predictions"][0]["classes"]
        pixels = np.asarray(PIL.Image.open(image).resize((32, 32)))[None]
        expected = net.predict(pixels, verbose=0)[0]
        assert len(classes) == 5
        assert classes[0]["class"] == str(expected.argmax())
        assert classes[0]["probability"] == pytest.approx(expected.max(), abs=0.05)

    def test_training_starts_from_them_with_a_head_of_its_own(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, classes=7)
        keras_resnet.pretrained.to_torch(net, tmp_path / "net.safetensors")
        result = run(
            "train", "--data", photographs, "--model", "CIFARResNet8", "--epochs", 1,
            "--weights", tmp_path / "net.safetensors", "--image-size", 16,
            "--output", tmp_path / "run",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "The head for 7 classes is left out: cifar_resnet8 has 2." in result.stderr

    def test_weights_are_listed(self):
        result = run("weights", "resnet-50")
        assert result.exit_code == 0, result.output
        for cell in ("imagenet_v2", "80.86", "95.43", "BSD-3-Clause", "resnet50-11ad3fa6.pth"):
            assert cell in result.stdout
        rows = json.loads(run("weights", "--json").stdout)["weights"]
        assert len(rows) == 26
        assert {"model", "tag", "files", "top1", "licence", "options"} <= rows[0].keys()

    def test_a_net_without_any_is_refused(self):
        assert "Did you mean ResNet50?" in refused(run("weights", "resnet5"))


class TestSummary:
    def test_is_table_1_of_the_paper(self):
        result = run("summary", "resnet50")
        assert result.exit_code == 0, result.output
        rows = {
            line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()
        }
        assert rows["conv4"] == ["14x14x1024", "18", "7,098,368", "1.46", "G"]
        assert rows["total"] == ["50", "25,557,032", "4.09", "G"]

    def test_json_takes_any_size(self):
        result = run("summary", "CIFARResNet56", "--image-size", "64", "--json")
        answer = json.loads(result.stdout)
        assert (answer["parameters"], answer["layers"]) == (853_018, 56)
        assert answer["input_shape"] == [64, 64, 3]

    def test_wants_a_name_or_all(self):
        assert "give the NAME of a net, or --all" in refused(run("summary"))
        assert "Did you mean ResNeXt50_32x4d?" in refused(run("summary", "resnext50"))

    @pytest.mark.slow
    def test_all_is_a_line_for_every_net(self):
        result = run("summary", "--all", "--json")
        models = json.loads(result.stdout)["models"]
        assert [model["model"] for model in models][:2] == ["resnet18", "resnet34"]
        assert len(models) == 15
