import json
import re
import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run, table_of
from pictures import encoded, write_damaged, write_records

import keras_resnet
from keras_resnet import data, training


def copied(photographs, folder, **counts):
    """A folder of its own with the first images of every class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            contents = (photographs / name / f"{index}.png").read_bytes()
            (folder / name / f"{index}.png").write_bytes(contents)
    return folder


class TestDemo:
    # All its epochs take long; two show that every step works, and that it learns.
    @pytest.mark.parametrize(
        ("epochs", "accuracy"), [pytest.param(None, 0.98, marks=pytest.mark.slow), (2, 0.2)]
    )
    def test_goes_the_whole_way(self, tmp_path, epochs, accuracy):
        command = [sys.executable, "-m", "keras_resnet.cli", "demo", "--output", tmp_path, "--json"]
        command += ["--epochs", str(epochs)] if epochs else []
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        (line,) = process.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics["test_accuracy"] >= accuracy
        assert sum(scores["support"] for scores in metrics["per_class"].values()) == 359
        assert metrics["saved_model_difference"] < 1e-5
        assert metrics["saved_model"] == str(tmp_path / "saved_models" / "digits" / "1")
        assert {file.name for file in (tmp_path / "runs" / "digits").iterdir()} == {
            "answers.npz",
            "confusion.csv",
            "curves.png",
            "history.csv",
            "images.csv",
            "labels.txt",
            "logs",
            "metrics.json",
            "model.keras",
            "predictions.png",
            "report.html",
            "run.json",
        }
        assert "Epoch 1/" in process.stderr
        assert "Warning" not in process.stderr


class TestTrain:
    def test_answers_in_json_alone(self, trained, photographs):
        output, result = trained
        (line,) = result.stdout.splitlines()
        metrics = json.loads(line)
        assert metrics == json.loads((output / "metrics.json").read_text())
        assert metrics["test_accuracy"] > 0.9
        assert metrics["test_images"] == len(data.load(photographs).test)

    def test_writes_everything_it_says(self, trained):
        output, _ = trained
        assert (output / "labels.txt").read_text() == "one\nzero\n"
        assert len((output / "history.csv").read_text().splitlines()) == 9
        assert (output / "saved_model" / "1" / "saved_model.pb").exists()
        for picture in ("curves.png", "predictions.png"):
            PIL.Image.open(output / picture).verify()

    def test_the_confusion_is_that_of_the_scores(self, trained):
        output, result = trained
        metrics = json.loads(result.stdout)
        head, rows = table_of(output / "confusion.csv")
        assert head == ["", "one", "zero"]
        assert [row[0] for row in rows] == ["one", "zero"]
        counts = np.array([list(map(int, row[1:])) for row in rows])
        assert counts.tolist() == metrics["confusion"]
        assert counts.trace() / counts.sum() == pytest.approx(metrics["test_accuracy"])
        for name, right, of_class, taken_for in zip(
            ("one", "zero"), counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0), strict=True
        ):
            scores = metrics["per_class"][name]
            assert scores["support"] == of_class
            assert scores["recall"] == pytest.approx(right / of_class)
            assert scores["precision"] == pytest.approx(right / taken_for)
        model = keras.saving.load_model(output / "model.keras")
        assert model.output_shape == (None, 2)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--set", "ema"], "--set 'ema' must be FIELD=VALUE, such as ema=0.99"),
            (["--set", "label=1"], "field of a recipe 'label' is not known. Did you mean label_sm"),
            (["--set", "epochs=many"], "epochs='many' must be a whole number"),
            (["--set", "ema=2"], "ema=2 must be at least 0 and below 1"),
            (["--strategy", "gpu"], "strategy 'gpu' must be one of 'auto', 'mirrored'"),
            (["--hosts", "a,b"], "is for strategy 'multiworker', not 'auto'"),
            (["--strategy", "multiworker", "--hosts", "a,b"], "must list this machine once"),
            (["--strategy", "multiworker"], "TF_CONFIG='{' must be JSON such as"),
            (["--batch-size", "6", "--set", "accumulation=4"], "accumulation=4 must divide batch"),
        ],
    )
    def test_mistakes_are_told_before_anything_is_written(
        self, photographs, tmp_path, monkeypatch, options, reason
    ):
        monkeypatch.setenv("TF_CONFIG", "{")
        arguments = ["--data", photographs, "--model", "CIFARResNet8", "--output", tmp_path / "run"]
        assert reason in refused(run("train", *arguments, *options))
        assert not (tmp_path / "run").exists()

    def test_takes_records_and_its_options_together(self, tmp_path):
        images, labels = [encoded(number) for number in range(120)], [0, 1] * 60
        records = write_records(tmp_path / "pets.tfrecord.gz", images, labels)
        arguments = ["--data", records, "--model", "CIFARResNet8", "--image-size", 8, "--json"]
        arguments += ["--recipe", "modern", "--set", "milestones=[0.5]", "--epochs", 1]
        arguments += ["--shortcut", "none", "--validation", 0.3, "--precision", "bfloat16"]
        arguments += ["--output", tmp_path / "run", "--profile", "--set", "batch-size=4"]
        result = run("train", *arguments)
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
        assert not any(isinstance(layer, keras.layers.Add) for layer in model.layers)
        assert model.get_layer("conv1_conv").compute_dtype == "bfloat16"
        training, validation = re.search(
            r"(\d+) training, (\d+) validation", result.stderr
        ).groups()
        asked_for = data.load(records, validation=0.3)
        assert (int(training), int(validation)) == (len(asked_for.train), len(asked_for.validation))
        assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))

    def test_without_validation_the_last_epoch_is_kept(self, photographs, tmp_path):
        keras_resnet.CIFARResNet(8, include_preprocessing=True).save(tmp_path / "model.keras")
        arguments = ["--data", photographs, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--weights", tmp_path / "model.keras", "--validation", 0, "--epochs", 3]
        result = run("train", *arguments, "--output", tmp_path / "run")
        assert result.exit_code == 0, result.output
        assert ", 0 validation and" in result.stdout
        names, *epochs = (tmp_path / "run" / "history.csv").read_text().splitlines()
        assert "val_" not in names
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["best_epoch"] == len(epochs)

    def test_damaged_files_are_skipped_and_told(self, photographs, tmp_path):
        folder = copied(photographs, tmp_path / "images", one=20, zero=8)
        damaged = [str(file) for file in write_damaged(folder / "one")]
        arguments = ["--data", folder, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--epochs", 1, "--output", tmp_path / "run"]
        assert repr(damaged[0]) in refused(run("train", *arguments))
        assert not (tmp_path / "run").exists()
        result = run("train", *arguments, "--on-error", "skip", "--balanced")
        assert result.exit_code == 0, result.output
        skipped = json.loads((tmp_path / "run" / "metrics.json").read_text())["skipped"]
        lines = result.stdout.splitlines()
        place = lines.index("4 files were skipped:")
        for file, reason, line in zip(damaged, skipped, lines[place + 1 :], strict=False):
            assert reason.startswith(f"{file!r} is not an image")
            assert line == f"  {reason}"
        counts = map(int, re.search(r"(\d+) training, (\d+) val\w+ and (\d+)", lines[0]).groups())
        assert sum(counts) == 28
        assert "times as many images as the smallest: they are weighted equally." in result.stdout

    @pytest.mark.parametrize("balanced", [True, False])
    def test_balanced_weighs_the_classes(self, photographs, tmp_path, monkeypatch, balanced):
        seen = {}

        def stop(model, source, recipe, strategy, **options):
            seen.update(options, counts=source.train.counts(2))
            raise ValueError("enough")

        monkeypatch.setattr(training, "train", stop)
        folder = copied(photographs, tmp_path / "images", one=40, zero=10)
        arguments = ["--data", folder, "--model", "CIFARResNet8", "--image-size", 16]
        arguments += ["--output", tmp_path / "run", *(["--balanced"] if balanced else [])]
        result = run("train", *arguments)
        assert result.exit_code == 2
        ones, zeros = seen["counts"]
        assert f"The largest class has {ones / zeros:.1f} times" in result.stdout
        assert ("balanced weights them equally" in result.stdout) != balanced
        if balanced:
            total = ones + zeros
            assert seen["class_weight"] == pytest.approx(
                {0: total / 2 / ones, 1: total / 2 / zeros}
            )
        else:
            assert seen["class_weight"] is None

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
        assert "KERAS_BACKEND=tensorflow" in line

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

    def test_training_starts_from_them_with_a_head_of_its_own(self, tmp_path, photographs):
        net = keras_resnet.CIFARResNet(8, classes=7)
        keras_resnet.pretrained.to_torch(net, tmp_path / "net.safetensors")
        result = run(
            "train", "--data", photographs, "--model", "CIFARResNet8", "--epochs", 1,
            "--weights", tmp_path / "net.safetensors", "--image-size", 16,
            "--output", tmp_path / "run",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        model = keras.saving.load_model(tmp_path / "run" / "model.keras")
        assert model.output_shape == (None, 2)
        # The first layers, which one epoch leaves alone, are those of the file.
        np.testing.assert_array_equal(
            model.get_layer("conv1_conv").kernel, net.get_layer("conv1_conv").kernel
        )
