"""Cross-validation: every image is tested on once, by a model that has not seen it."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from commands import refused, run
from errors import one_line_error
from halves import write_halves

from keras_resnet import data, runs, training
from keras_resnet.runs import folds

OPTIONS = {"model": "CIFARResNet8", "epochs": 1, "image_size": 8, "batch_size": 128}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return runs.cross_validate("digits", tmp_path_factory.mktemp("folds"), folds=2, **OPTIONS)


class TestCrossValidation:
    def test_tests_on_every_image_once(self, found):
        answer = found.to_json()
        rows = rows_of(found.output / "out_of_fold.csv")
        assert answer["images"] == len(rows) == 1797
        assert [int(row["image"]) for row in rows] == [*range(1797)]
        pool = data.load("digits", validation=0.0, test=0.0).train
        assert [int(row["label"]) for row in rows] == pool.labels.tolist()
        outputs = np.array([[float(row[f"{digit}"]) for digit in range(10)] for row in rows])
        np.testing.assert_allclose(outputs.sum(1), 1, atol=1e-4)
        assert [int(row["prediction"]) for row in rows] == outputs.argmax(1).tolist()
        folds, right = np.array(
            [[row["fold"], row["label"] == row["prediction"]] for row in rows]
        ).T
        values = [np.mean(right[folds == fold] == "True") for fold in ("1", "2")]
        metric = answer["metrics"]["test_accuracy"]
        assert metric["values"] == pytest.approx(values)
        assert metric["mean"] == pytest.approx(sum(values) / 2)
        assert metric["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert json.loads((found.output / "cross_validation.json").read_text()) == answer

    def test_has_a_page_of_its_folds(self, found):
        page = (found.output / "report.html").read_text(encoding="utf-8")
        accuracy = found.metrics()["test_accuracy"]
        for text in ("2 folds", "fold-1", "fold-2", f"{accuracy['mean']:.4g}"):
            assert text in page
        assert (
            "of the test images of" not in page
        )  # the other folds were trained on them, as they should be

    def test_models_have_not_seen_their_fold(self, found):
        pool = data.load("digits", validation=0.0, test=0.0).train.digests()
        folds = np.array([int(row["fold"]) for row in rows_of(found.output / "out_of_fold.csv")])
        for fold in (1, 2):
            images = rows_of(found.output / f"fold-{fold}" / "images.csv")
            digests = {
                name: {row["digest"].encode() for row in images if row["split"] == name}
                for name in data.SPLITS
            }
            assert digests["test"] == {*pool[folds == fold].tolist()}
            assert digests["train"] | digests["validation"] == {*pool[folds != fold].tolist()}
            assert len(digests["validation"]) == pytest.approx(0.15 * 898, abs=5)
        alone = runs.evaluate(found.output / "fold-2").evaluation.accuracy
        assert alone == found.folds[1]["test_accuracy"]

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (["--folds", 175], "folds=175: class '8' is in 174 different images only"),
            (["--folds", 2, "--model", "ResNet51"], "model 'ResNet51' is not known"),
            (["--folds", 2, "--find-learning-rate"], "--folds does not go with"),
        ],
    )
    def test_mistakes_are_told_in_a_line(self, tmp_path, options, reason):
        output = tmp_path / "run"
        line = refused(run("train", "--data", "digits", "--output", output, *options))
        assert reason in line
        assert not output.exists()

    def test_one_fold_is_none(self, tmp_path):
        with one_line_error("folds=1 must be a whole number of at least 2"):
            runs.cross_validate("digits", tmp_path / "run", folds=1)
        result = run("train", "--data", "digits", "--output", tmp_path / "run", "--folds", 1)
        assert result.exit_code == 2


@pytest.mark.slow
class TestInterruption:
    def test_finished_folds_are_kept(self, found, tmp_path):
        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if (tmp_path / "run" / "fold-1" / "fold.json").exists():
                    raise RuntimeError("pulled the plug")

        output = tmp_path / "run"
        with pytest.raises(RuntimeError):
            runs.cross_validate("digits", output, folds=2, callbacks=[Stop()], **OPTIONS)
        model = output / "fold-1" / "model.keras"
        before = model.stat().st_mtime_ns
        with one_line_error("with other settings: folds was 2, is 3"):
            runs.cross_validate("digits", output, folds=3, **OPTIONS)
        with one_line_error("with other settings: changes: epochs was 1, is 2"):
            runs.cross_validate("digits", output, folds=2, **{**OPTIONS, "epochs": 2})
        again = runs.cross_validate("digits", output, folds=2, **OPTIONS)
        assert model.stat().st_mtime_ns == before
        assert again.folds[0] == pytest.approx(found.folds[0], abs=0.03)
        assert rows_of(output / "out_of_fold.csv")[5]["label"] == "5"

    def test_ctrl_c_while_the_page_is_drawn_loses_nothing(self, found, tmp_path, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        class Untrained(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                pytest.fail("It is trained again.")

        output = tmp_path / "run"
        shutil.copytree(found.output, output)
        (output / "cross_validation.json").unlink()
        (output / "fold-1" / "checkpoints").mkdir()  # of a fold that was interrupted at its end
        with monkeypatch.context() as patch:
            patch.setattr(folds, "compare", interrupted)
            with pytest.raises(training.Interrupted, match=r"2 of 2 folds are done\."):
                runs.cross_validate("digits", output, folds=2, **OPTIONS)
        callbacks = [Untrained()]
        again = runs.cross_validate("digits", output, folds=2, callbacks=callbacks, **OPTIONS)
        assert again.folds == found.folds
        assert (output / "report.html").is_file()
        assert not (output / "fold-1" / "checkpoints").exists()

    def test_damaged_files_are_named(self, found, tmp_path):
        output = tmp_path / "run"
        shutil.copytree(found.output, output)
        (output / "cross_validation.json").unlink()
        for name in ("fold-1/out_of_fold.csv", "fold-1/fold.json", "folds.json"):
            content = (output / name).read_bytes()
            (output / name).write_bytes(content[: len(content) // 2])
            with one_line_error(f"{name}' is cut off or damaged: ", "Remove "):
                runs.cross_validate("digits", output, folds=2, **OPTIONS)

    def test_a_finished_one_is_replaced(self, found, tmp_path):
        output = tmp_path / "run"
        shutil.copytree(found.output, output)
        command = ["--model", "CIFARResNet8", "--epochs", 1, "--image-size", 8, "--folds", 3]
        result = run("train", "--data", "digits", "--output", output, *command)
        assert result.exit_code == 0, result.output
        assert "finished cross-validation, which this run replaces" in result.stderr
        assert "3 folds" in result.stdout
        (mean,) = (line for line in result.stdout.splitlines() if line.strip().startswith("mean"))
        answer = json.loads((output / "cross_validation.json").read_text())
        assert f"{answer['metrics']['test_accuracy']['mean']:.4g}" in mean


@pytest.mark.slow
class TestOtherTasks:
    @pytest.mark.parametrize(
        ("table", "task", "columns"),
        [("which", "multilabel", ["left", "top"]), ("how", "regression", ["value"])],
    )
    def test_have_their_own_answers(self, tmp_path, table, task, columns):
        folder = write_halves(tmp_path / "halves")
        options = {"model": "CIFARResNet8", "epochs": 1, "batch_size": 8}
        record = runs.cross_validate(folder / f"{table}.csv", tmp_path / "run", folds=3, **options)
        assert record.source.task == task
        rows = rows_of(record.output / "out_of_fold.csv")
        assert [*rows[0]] == ["image", "fold", "label", "prediction", *columns]
        with (folder / f"{table}.csv").open() as file:
            listed = [row[0] for row in csv.reader(file)][1:]
        assert [row["image"] for row in rows] == [str(folder / name) for name in listed]
        assert all(np.isfinite(float(row[columns[0]])) for row in rows)
        assert len(record.folds) == 3
