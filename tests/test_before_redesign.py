"""What was written before the redesign still loads, and what was interrupted still goes on.

How the files were made, and what they are, is in `fixtures/before_redesign/README.md`.
"""

import csv
import json
import re
import tarfile
from pathlib import Path

import click.testing
import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import data, export, transfer
from keras_resnet.cli import main

FOLDER = Path(__file__).parent / "fixtures" / "before_redesign"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
KERAS = EXPECTED["made_with"]["keras"]

# A run knows its model by what Keras says of the layers, which may change from version to version.
same_keras = pytest.mark.skipif(
    keras.__version__.split(".")[:2] != KERAS.split(".")[:2],
    reason=f"interrupted with Keras {KERAS}: another version may describe the layers differently",
)


@pytest.fixture(autouse=True)
def before(tmp_path, monkeypatch):
    """A copy of all files, in the folder that they were made in."""
    with tarfile.open(FOLDER / "files.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def outputs():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def answers(model, images):
    times = model.input_shape[1] // images.shape[1]
    enlarged = images.repeat(times, axis=1).repeat(times, axis=2)
    return np.asarray(model(enlarged.astype("float32"), training=False), "float32")


def run(*arguments):
    """Run a command; its answer, and what it has said."""
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_history(history, expected):
    """Epochs that were finished are as they were, and the others as they would have been."""
    done = expected["interrupted"]["history"]
    assert {name: history[name][: len(done[name])] for name in done} == done
    for name, values in expected["history"].items():
        assert len(history[name]) == len(values)
        tolerance = dict(abs=0.02) if "accuracy" in name else dict(rel=0.02)
        assert history[name] == pytest.approx(values, **tolerance)


class TestNets:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("finished_run/model.keras", "finished_run"),
            ("narrow.keras", "narrow"),
            ("classifier.keras", "classifier"),
        ],
    )
    def test_give_the_same_answers(self, outputs, path, name):
        model = keras.saving.load_model(path)
        np.testing.assert_allclose(answers(model, outputs["images"]), outputs[name], atol=1e-5)

    def test_without_preprocessing_give_the_same_answers(self, outputs):
        model = keras.saving.load_model("without_preprocessing.keras")
        images = keras_resnet.preprocess_input(outputs["images"], "tf").numpy()
        np.testing.assert_allclose(
            answers(model, images), outputs["without_preprocessing"], atol=1e-5
        )

    @pytest.mark.parametrize("shortcut", ["A", "B"])
    def test_in_bfloat16_give_about_the_same_answers(self, outputs, shortcut):
        name = f"grouped_{shortcut.lower()}"
        model = keras.saving.load_model(f"{name}.keras")
        assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
        np.testing.assert_allclose(answers(model, outputs["images"]), outputs[name], atol=0.05)

        options = EXPECTED["nets"]["grouped"]
        model = keras_resnet.ResNet(shortcut=shortcut, weights=f"{name}.keras", **options)
        found = answers(model, outputs["images"])
        np.testing.assert_allclose(found, outputs[f"{name}_float32"], atol=1e-5)

    def test_bring_their_optimizer_along(self, outputs):
        model = keras.saving.load_model("narrow.keras")
        norms = [np.linalg.norm(each.numpy()) for each in model.optimizer.variables]
        np.testing.assert_allclose(np.sort(norms), outputs["narrow_optimizer"], rtol=1e-5)
        # A tenth for each of the two milestones that are behind it.
        assert float(model.optimizer.learning_rate) == pytest.approx(0.001)

    def test_keep_their_frozen_layers(self):
        model = keras.saving.load_model("classifier.keras")
        assert len(model.trainable_variables) == 2

    @pytest.mark.parametrize("file", ["narrow.weights.h5", "narrow.safetensors", "narrow.keras"])
    def test_take_the_weights(self, outputs, file):
        model = keras_resnet.ResNet(weights=file, classes=10, **EXPECTED["nets"]["narrow"])
        np.testing.assert_allclose(answers(model, outputs["images"]), outputs["narrow"], atol=1e-5)

    def test_take_the_weights_from_keras(self, outputs):
        model = keras_resnet.ResNet(classes=10, **EXPECTED["nets"]["narrow"])
        model.load_weights("narrow.weights.h5")
        np.testing.assert_allclose(answers(model, outputs["images"]), outputs["narrow"], atol=1e-5)


class TestExports:
    @pytest.mark.parametrize(
        ("path", "name"),
        [("exported/saved_model", "saved_model"), ("exported/narrow.tflite", "litert")],
    )
    def test_give_the_same_answers(self, outputs, path, name):
        found = export.load(path)(outputs["images"])
        np.testing.assert_allclose(found, outputs[name], atol=1e-5)

    def test_count_as_versions(self):
        assert export.next_version("exported/saved_model").name == "2"


class TestRuns:
    def test_that_have_ended_are_evaluated(self):
        metrics = json.loads(Path("finished_run/metrics.json").read_text())
        answer, _ = run("evaluate", "finished_run", "--data", "digits", "--json")
        assert answer["accuracy"] == pytest.approx(metrics["test_accuracy"], abs=0.003)

    @same_keras
    @pytest.mark.parametrize(
        ("name", "lines"),
        [
            ("interrupted_run", ["3/4", "4/4"]),
            # Of the head, then of the last stage.
            ("interrupted_fine_tuning", [*(f"{epoch}/20" for epoch in range(5, 11)), "1/1"]),
        ],
    )
    def test_go_on_where_they_were_interrupted(self, name, lines):
        expected = EXPECTED[name]
        metrics, said = run(*expected["command"], "--output", name)
        assert re.findall(r"^Epoch (\S+):", said, re.MULTILINE) == lines
        rows = rows_of(f"{name}/history.csv")
        check_history(
            {column: [float(row[column]) for row in rows] for column in expected["history"]},
            expected,
        )
        assert metrics["stages"] == expected["stages"]
        assert metrics["best_epoch"] == expected["best_epoch"]
        assert metrics["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)
        assert not Path(name, "checkpoints").exists()

    @same_keras
    def test_in_stages_go_on_within_an_epoch(self):
        expected, steps = EXPECTED["interrupted_stages"], []
        count = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: steps.append(step)
        )
        keras.utils.set_random_seed(4)
        backbone = keras_resnet.ResNet(
            include_top=False, weights="narrow.weights.h5", **expected["net"]
        )
        result = transfer.fine_tune(
            transfer.classifier(backbone, 10, 0.2),
            data.load("digits"),
            transfer.stages(**expected["plan"]),
            seed=4,
            checkpoints="interrupted_stages",
            save_every=7,
            callbacks=[count],
            verbose=0,
        )
        epoch = list(range(20))
        assert steps == epoch[expected["interrupted"]["step"] :] + epoch
        check_history(result.history, expected)
        assert result.stages == expected["stages"]
        assert result.best_epoch == expected["best_epoch"]


class TestSearch:
    @same_keras
    def test_goes_on_and_repeats_no_finished_trial(self):
        expected = EXPECTED["interrupted_search"]
        answer, said = run(*expected["command"], "--output", "interrupted_search")
        assert answer["trials"] == len(expected["trials"])
        assert re.findall(r"^Trial (\d+)/5:", said, re.MULTILINE) == ["4", "5"]
        found = rows_of("interrupted_search/trials.csv")
        for trials in (found, expected["trials"]):
            for trial in trials:
                del trial["seconds"]
        finished = expected["finished"]
        assert found[:finished] == expected["trials"][:finished]
        for trial, other in zip(found[finished:], expected["trials"][finished:], strict=True):
            score, expected_score = float(trial.pop("score")), float(other.pop("score"))
            assert trial == other
            if trial["number"] == "4":  # of the other one, training begins only now
                assert score == pytest.approx(expected_score, abs=0.1)
