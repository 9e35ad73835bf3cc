"""Several labels per image, and numbers, through all commands; and models of other people."""

import csv
import json

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import refused, run, table_of
from halves import NAMES, write_halves

from keras_resnet import runs

SMALL = ("--model", "CIFARResNet8", "--image-size", 16, "--batch-size", 8, "--learning-rate", 0.8)


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    return write_halves(tmp_path_factory.mktemp("halves"))


@pytest.fixture(scope="session")
def which(halves, tmp_path_factory):
    """A run on several labels per image, and what it answered."""
    output = tmp_path_factory.mktemp("runs") / "which"
    arguments = ["--data", halves / "which.csv", *SMALL, "--epochs", 6, "--output", output]
    result = run("train", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout)


@pytest.fixture(scope="session")
def how(halves, tmp_path_factory):
    """A run on numbers, and what it answered."""
    output = tmp_path_factory.mktemp("runs") / "how"
    arguments = ["--data", halves / "how.csv", *SMALL, "--epochs", 16, "--output", output]
    result = run("train", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout)


def answer(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def pixels(*files):
    return np.stack([np.asarray(PIL.Image.open(file)) for file in files])


def served(path, images):
    """The one output of a SavedModel, and its name."""
    ask = tf.saved_model.load(path).signatures["serving_default"]
    ((name, output),) = ask(tf.constant(images, "float32")).items()
    return name, output.numpy()


class TestSeveralLabels:
    def test_training_tells_the_metrics_of_the_task(self, which):
        output, metrics = which
        assert metrics == json.loads((output / "metrics.json").read_text())
        assert metrics["task"] == "multilabel"
        assert metrics["mean_average_precision"] > 0.9
        assert 0 <= metrics["accuracy"] <= 1
        assert metrics["per_label"].keys() == set(NAMES)
        assert "test_accuracy" not in metrics
        head, rows = table_of(output / "per_label.csv")
        assert head[0] == "label"
        assert [row[0] for row in rows] == list(NAMES)
        assert (output / "labels.txt").read_text().split() == list(NAMES)
        for picture in ("curves.png", "predictions.png"):
            PIL.Image.open(output / picture).verify()

    def test_a_search_chooses_by_the_metric_of_the_task(self, halves, tmp_path):
        """Numbers: the search for several labels is tested in `tests/tuning`."""
        fixed = [f"conv{stage}_blocks=1" for stage in (2, 3, 4)]
        fixed += ["width=0.5", "shortcut=A", "block=basic", "augmentation_strength=none"]
        choices = [word for each in fixed for word in ("--set", each)]
        found = answer(
            *("tune", "--data", halves / "how.csv", "--task", "regression", *choices),
            *("--trials", 1, "--epochs", 1, "--image-size", 16, "--output", tmp_path),
            *("--retrain-epochs", 0),
        )
        assert found["trials"] == 1
        assert found["best"]["score"] > 0
        assert "val_mean_absolute_error (minimum)" in (tmp_path / "report.html").read_text()

    def test_evaluation_repeats_them(self, which, halves):
        output, metrics = which
        again = answer("evaluate", output, "--data", halves / "which.csv")
        for name in ("task", "mean_average_precision", "accuracy", "f1", "per_label"):
            assert again[name] == metrics[name]
        table = run("evaluate", output, "--data", f"{halves / 'which.csv'}:train").stdout
        assert "mean average precision" in table

    def test_prediction_tells_the_likely_labels(self, which, halves):
        output, _ = which
        files = [halves / f"{index}.png" for index in range(8)]
        predictions = answer("predict", output, *files)["predictions"]
        model = keras.saving.load_model(output / "model.keras", compile=False)
        expected = model.predict(pixels(*files), verbose=0)
        for each, row in zip(predictions, expected, strict=True):
            assert each["labels"] == [name for name, p in zip(NAMES, row, strict=True) if p > 0.5]
            assert [guess["class"] for guess in each["classes"]] == sorted(
                each["labels"], key=lambda name: -row[NAMES.index(name)]
            )
            for guess in each["classes"]:
                index = NAMES.index(guess["class"])
                assert guess["probability"] == pytest.approx(row[index], abs=1e-5)
        for each in answer("predict", output, *files, "--top", 2)["predictions"]:
            assert {guess["class"] for guess in each["classes"]} == set(NAMES)
        lines = run("predict", output, *files).stdout.splitlines()
        assert lines[1].split() == ["image", "label", "probability"]
        assert sum("none" in line for line in lines) == sum(
            not each["labels"] for each in predictions
        )

    def test_a_csv_file_joins_the_labels(self, which, halves, tmp_path):
        output, _ = which
        path = tmp_path / "out.csv"
        files = [halves / f"{index}.png" for index in range(8)]
        predictions = answer("predict", output, *files, "--csv", path)["predictions"]
        head, rows = table_of(path)
        assert head == ["id", "label"]
        assert rows == [[str(i), "|".join(each["labels"])] for i, each in enumerate(predictions)]

    def test_the_export_gives_a_probability_per_label(self, which, halves, tmp_path):
        output, _ = which
        arguments = ["--calibrate", halves / "which.csv", "--output", tmp_path / "exported"]
        result = answer("export", output, *arguments)
        assert result["agreement"] == 1
        _, found = served(result["output"], pixels(halves / "0.png"))
        model = keras.saving.load_model(output / "model.keras", compile=False)
        expected = model.predict(pixels(halves / "0.png"), verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_the_same_in_python(self, which, halves):
        output, metrics = which
        record = runs.evaluate(output, halves / "which.csv")
        assert record.evaluation.metrics()["accuracy"] == metrics["accuracy"]
        found = runs.predict(output, halves / "3.png")
        assert (found.task, found.names) == ("multilabel", NAMES)


class TestNumbers:
    def test_training_tells_the_metrics_of_the_task(self, how):
        output, metrics = how
        assert metrics == json.loads((output / "metrics.json").read_text())
        assert metrics["task"] == "regression"
        assert metrics["r2"] > 0.5
        assert metrics["mean_absolute_error"] < 50
        assert table_of(output / "residuals.csv")[0][0] == "image"
        for picture in ("curves.png", "predictions.png"):
            PIL.Image.open(output / picture).verify()

    def test_evaluation_repeats_them(self, how, halves):
        output, metrics = how
        again = answer("evaluate", output, "--data", halves / "how.csv")
        for name in ("task", "r2", "mean_absolute_error", "root_mean_squared_error"):
            assert again[name] == pytest.approx(metrics[name])
        assert "MAE" in run("evaluate", output, "--data", halves / "how.csv").stdout

    def test_prediction_tells_values(self, how, halves, tmp_path):
        output, _ = how
        files = [halves / f"{index}.png" for index in range(4)]
        predictions = answer("predict", output, *files, "--csv", tmp_path / "out.csv")[
            "predictions"
        ]
        model = keras.saving.load_model(output / "model.keras", compile=False)
        expected = model.predict(pixels(*files), verbose=0)[:, 0]
        values = [each["value"] for each in predictions]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert 1000 < np.mean(values) < 1300  # in the unit of the data
        head, rows = table_of(tmp_path / "out.csv")
        assert head == ["id", "value"]
        np.testing.assert_allclose([float(value) for _, value in rows], values, rtol=1e-5)
        lines = run("predict", output, *files).stdout.splitlines()
        assert lines[1].split() == ["image", "name", "value"]
        assert not any("probability" in line for line in lines)
        assert "positive='1'" in refused(
            run("predict", output, *files, "--csv", tmp_path / "b.csv", "--positive", "1")
        )

    def test_the_export_gives_values(self, how, halves, tmp_path):
        output, _ = how
        arguments = ["--calibrate", halves / "how.csv", "--output", tmp_path / "exported"]
        result = answer("export", output, *arguments)
        _, found = served(result["output"], pixels(halves / "0.png"))
        model = keras.saving.load_model(output / "model.keras", compile=False)
        expected = model.predict(pixels(halves / "0.png"), verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


class TestMixedUp:
    """Models and data that are not for each other."""

    def test_another_task_is_one_line(self, which, how, trained, halves, tmp_path):
        classifier, _ = trained
        for model, source, words in (
            (
                classifier,
                halves / "which.csv",
                "is for multilabel; the model is for classification",
            ),
            (classifier, halves / "how.csv", "is for regression; the model is for classification"),
            (which[0], halves / "how.csv", "is for regression; the model is for multilabel"),
            (which[0], "digits", "has one class an image"),
            (how[0], halves / "which.csv", "is for multilabel; the model is for regression"),
        ):
            assert words in refused(run("evaluate", model, "--data", source))

    def test_a_task_that_the_model_is_not_for_is_one_line(self, which, halves):
        line = refused(run("predict", which[0], halves / "0.png", "--task", "regression"))
        assert "task='regression': model 'cifar_resnet8' is for multilabel" in line

    def test_options_for_classes_are_refused_with_numbers(self, how, halves, tmp_path):
        line = refused(run("predict", how[0], halves / "0.png", "--top", 2))
        assert "top=2 is for classes and labels" in line
        arguments = ["--data", halves / "how.csv", *SMALL, "--output", tmp_path / "run"]
        line = refused(run("train", *arguments, "--balanced"))
        assert "balanced=True weights classes or labels" in line
        line = refused(run("train", *arguments, "--set", "label_smoothing=0.1"))
        assert "label_smoothing=0.1 is for classes and labels" in line
        assert not (tmp_path / "run").exists()

    def test_one_label_or_none_is_evaluated(self, which, halves, tmp_path):
        model = keras.saving.load_model(which[0] / "model.keras", compile=False)
        outputs = keras.layers.Dense(1, "sigmoid")(model.layers[-2].output)
        (tmp_path / "labels.txt").write_text("left\n")
        keras.Model(model.inputs, outputs).save(tmp_path / "model.keras")
        lines = [f"{halves / f'{i}.png'},{'left' if i % 2 else ''},{split}" for i, split in
                 enumerate(["train"] * 4 + ["validation"] * 2 + ["test"] * 2)]  # fmt: skip
        path = tmp_path / "left.csv"
        path.write_text("\n".join(["path,label,split", *lines]))
        found = answer("evaluate", tmp_path, "--data", path, "--task", "multilabel")
        assert answer("evaluate", tmp_path, "--data", path) == found
        path.write_text("\n".join(["path,label,split", *lines[:-1]]))
        found = answer("evaluate", tmp_path, "--data", path)
        assert (found["task"], found["images"]) == ("multilabel", 1)
        assert "mean_average_precision" not in found

    def test_whole_numbers_are_numbers_if_one_says_so(self, halves, tmp_path):
        _, rows = table_of(halves / "how.csv")
        path = halves / "whole.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [["path", "label"], *([name, round(float(value) / 50)] for name, value in rows)]
            )
        for name in ("confusion.csv", "per_label.csv"):  # of earlier runs, on other tasks
            (tmp_path / name).write_text("")
        arguments = ["--data", path, *SMALL, "--epochs", 1, "--output", tmp_path]
        found = answer("train", *arguments, "--task", "regression")
        assert found["task"] == "regression"
        assert [path.name for path in tmp_path.glob("[cpr]*.csv")] == ["residuals.csv"]
        # The model knows what its labels are.
        assert answer("evaluate", tmp_path, "--data", path)["r2"] == pytest.approx(found["r2"])
        assert answer("data", path, "--task", "regression")["task"] == "regression"

    def test_data_are_looked_over_by_task(self, halves):
        result = run("data", halves / "which.csv")
        assert result.exit_code == 0, result.output
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["label", "train", "validation", "test"] in rows
        assert sum(map(int, next(row for row in rows if row[:1] == ["all"])[1:])) == 48
        result = run("data", halves / "how.csv", "--sheet", halves / "sheet.png")
        assert result.exit_code == 0, result.output
        assert "largest" in result.stdout
        PIL.Image.open(halves / "sheet.png").verify()
        found = answer("data", halves / "how.csv")
        assert found["task"] == "regression"
        (values,) = found["values"]["train"]
        assert 1000 < values["smallest"] < values["mean"] < values["largest"] < 1300
