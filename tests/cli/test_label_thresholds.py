"""Thresholds of labels from training to exports, and what is refused."""

import json

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run, table_of
from halves import NAMES, write_halves

from keras_resnet import graphs, runs

SMALL = ("--model", "CIFARResNet8", "--image-size", 16, "--batch-size", 8)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    return write_halves(tmp_path_factory.mktemp("halves"))


@pytest.fixture(scope="module")
def which(halves, tmp_path_factory):
    """A run that has learned something, and what it answered."""
    output = tmp_path_factory.mktemp("runs") / "which"
    result = run(
        *("train", "--data", halves / "which.csv", *SMALL, "--learning-rate", 0.8, "--epochs", 2),
        *("--loss", "asymmetric", "--thresholds", "f1", "--output", output, "--json"),
    )
    assert result.exit_code == 0, result.output
    return output, json.loads(result.stdout)


def answer(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def thresholds_in(metrics):
    return [metrics["per_label"][name]["threshold"] for name in NAMES]


def test_are_chosen_on_validation_images(which):
    output, metrics = which
    assert metrics["thresholds"] == "f1"
    model = keras.saving.load_model(output / "model.keras")
    assert graphs.thresholds_of(model) == tuple(thresholds_in(metrics))
    assert thresholds_in(metrics) != [0.5, 0.5]
    quality = runs.evaluate(output, split="validation").evaluation
    for index, scores in enumerate(quality.per_label().values()):
        labels, found = quality.labels[:, index] > 0.5, quality.probabilities[:, index]
        others = [2 * (labels & (found > t)).sum() / (labels.sum() + (found > t).sum())
                  for t in np.linspace(0, 0.99, 500)]  # fmt: skip
        assert scores["f1-score"] == pytest.approx(max(others), abs=1e-3)


def test_are_in_tables_and_cards(which):
    output, metrics = which
    head, rows = table_of(output / "per_label.csv")
    assert [float(row[head.index("threshold")]) for row in rows] == thresholds_in(metrics)
    card = json.loads((output / "saved_model" / "1" / "model_card.json").read_text())
    assert card["thresholds"] == thresholds_in(metrics)
    assert "threshold" in run("evaluate", output).stdout


def test_are_what_evaluation_and_prediction_go_by(which, halves, tmp_path):
    output, metrics = which
    again = answer("evaluate", output)
    for name in ("mean_average_precision", "accuracy", "f1", "per_label"):
        assert again[name] == metrics[name]
    files = [halves / f"{index}.png" for index in range(12)]
    found = answer("predict", output, *files, "--csv", tmp_path / "out.csv")
    assert [found["thresholds"][name] for name in NAMES] == thresholds_in(metrics)
    pixels = np.stack([np.asarray(PIL.Image.open(file)) for file in files])
    model = keras.saving.load_model(output / "model.keras")
    present = model.predict(pixels, verbose=0) > np.array(thresholds_in(metrics))
    expected = [[*np.array(NAMES)[row]] for row in present]
    assert [each["labels"] for each in found["predictions"]] == expected
    _, rows = table_of(tmp_path / "out.csv")
    assert [row[1] for row in rows] == ["|".join(labels) for labels in expected]


def test_are_in_exports(which, halves, tmp_path):
    output, metrics = which
    for kind in ("saved_model", "litert"):
        given = ("--format", kind, "--calibrate", halves / "which.csv", "--output", tmp_path / kind)
        assert answer("export", output, *given)["agreement"] == 1
        (card,) = (tmp_path / kind).rglob("*.json")
        assert json.loads(card.read_text())["thresholds"] == thresholds_in(metrics)


@pytest.mark.slow
def test_do_not_hinder_fine_tuning(which, halves, tmp_path):
    """The new model has a head of its own, without them."""
    output, _ = which
    given = (*SMALL, "--data", halves / "which.csv", "--weights", output / "model.keras")
    metrics = answer("train", *given, "--recipe", "paper", "--epochs", 1, "--output", tmp_path)
    assert "threshold" not in metrics["per_label"]["left"]
    assert "thresholds" not in metrics


class TestMistakes:
    @pytest.mark.parametrize("thresholds", ["2", "-0.1", "nan", "best"])
    def test_what_is_no_threshold(self, halves, tmp_path, thresholds):
        given = ("--data", halves / "which.csv", "--output", tmp_path / "run")
        line = refused(run("train", *given, f"--thresholds={thresholds}"))
        assert "must be 'f1' or 'balanced_accuracy', or a number from 0 to 1" in line
        assert not (tmp_path / "run").exists()

    def test_data_of_another_task(self, tmp_path):
        given = ("--data", "digits", "--output", tmp_path / "run", "--model", "CIFARResNet8")
        line = refused(run("train", *given, "--thresholds", 0.3))
        assert "thresholds=0.3 are for several labels per image; data 'digits' is for class" in line
        line = refused(run("train", *given, "--loss", "asymmetric"))
        assert "loss='asymmetric' is for multilabel, not for classification: choose" in line

    def test_no_validation_images(self, halves, tmp_path):
        given = ("--data", halves / "which.csv", "--output", tmp_path / "run", *SMALL)
        line = refused(run("train", *given, "--thresholds", "f1", "--validation", 0))
        assert "chosen on validation images, and data 'which' has none" in line

    def test_labels_with_nothing_between(self, tmp_path):
        (tmp_path / "some.csv").write_text("path,label\n0.png,a|b\n1.png,a||b\n")
        given = ("--data", tmp_path / "some.csv", "--output", tmp_path / "run")
        line = refused(run("train", *given))
        assert "line 3: label 'a||b' has nothing beside a '|'" in line
