"""The jobs as functions: what the command line does, without a word."""

import dataclasses
import json

import keras
import numpy as np
import PIL.Image
import pytest
from commands import run
from errors import one_line_error

from keras_resnet import data, graphs, runs
from keras_resnet.runs.choices import RUN_FILES, RUN_FOLDERS
from keras_resnet.runs.kinds import Order, kind_of

SMALL = {"model": "CIFARResNet8", "epochs": 2, "batch_size": 64, "seed": 3}


def files_of(folder):
    """All that was written, without the logs, whose names hold the time."""
    files = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(file) for file in files if file.parts[0] != "logs"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by function, with the numbers of NumPy."""
    output = tmp_path_factory.mktemp("function") / "run"
    options = {name: np.asarray(value)[()] for name, value in SMALL.items()}
    return runs.train("digits", output, ema=np.float32(0), **options)


class TestTrain:
    def test_does_what_the_command_does(self, trained, tmp_path):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
        result = run("train", "--data", "digits", *options, "--output", tmp_path / "run", "--json")
        assert result.exit_code == 0, result.output
        command, function = json.loads(result.stdout), trained.to_json()
        assert command.keys() == function.keys()
        assert command["test_accuracy"] == pytest.approx(function["test_accuracy"], abs=0.02)
        for name in ("model", "data", "test_images", "best_epoch", "stages", "skipped"):
            assert command[name] == function[name]
        assert files_of(tmp_path / "run") == files_of(trained.output)

    def test_the_record_is_what_was_written(self, trained):
        assert json.loads((trained.output / "metrics.json").read_text()) == trained.to_json()
        saved = keras.saving.load_model(trained.output / "model.keras", compile=False)
        images = np.random.default_rng(0).integers(0, 256, (4, *saved.input_shape[1:]))
        np.testing.assert_allclose(
            saved.predict(images, verbose=0), trained.model.predict(images, verbose=0), atol=1e-6
        )
        assert trained.evaluation.accuracy == trained.to_json()["test_accuracy"]
        assert len(trained.result.history["loss"]) == 2
        with pytest.raises(dataclasses.FrozenInstanceError):
            trained.output = "elsewhere"
        written = {file.name for file in trained.output.iterdir()}
        assert written <= {*RUN_FILES, *RUN_FOLDERS, "saved_model"}  # which are checked first

    def test_prints_nothing_and_leaves_keras_as_it_was(self, tmp_path, capfd):
        capfd.readouterr()
        seen, policy = [], keras.config.dtype_policy().name
        watching = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: seen.append(epoch))
        output = tmp_path / "run"
        options = {**SMALL, "epochs": 1, "precision": "bfloat16", "callbacks": [watching]}
        runs.train("digits", output, **options)
        assert seen == [0]
        assert keras.config.dtype_policy().name == policy
        runs.evaluate(output, "digits")
        image = tmp_path / "image.png"
        PIL.Image.fromarray(np.zeros((8, 8), "uint8")).save(image)
        runs.predict(output, image)
        exported = runs.export(output, tmp_path / "exported").exported
        runs.bench(exported, batch_sizes=[1], seconds=0.1)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("recipe", "changes", "found"),
        [(None, {}, 0.0), ("a2", {}, 0.05), ("a2", {"drop_path": 0.3}, 0.3), ("a3", {}, 0.0)],
    )
    def test_models_drop_paths_as_the_recipe_says(self, recipe, changes, found):
        order = Order("CIFARResNet8", None, recipe, changes, None, 0.0, False)
        model = kind_of(source := data.load("digits")).built(order, source, 8)
        assert graphs.drop_path_of(model) == pytest.approx(found)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"optimizer": "lamb", "learning_rate": -0.01}, "learning_rate=-0.01 must be above 0"),
            ({"optimizer": "adam"}, "optimizer='adam' must be one of 'sgd', 'adamw', 'lamb'"),
            ({"modle": "ResNet50"}, "option 'modle' is not known"),
            ({"epochs": 0}, "epochs=0 must be a whole number"),
            ({"precision": "float8"}, "precision 'float8' is not known. Did you mean float"),
            ({"shortcut": "D"}, "shortcut 'D' is not known"),
            ({"recipe": "papr"}, "recipe 'papr' is not known. Did you mean paper?"),
            ({"model": "ResNet51"}, "model 'ResNet51' is not known"),
            ({"augmentation": "strnog"}, "augmentation 'strnog' is not known"),
        ],
    )
    def test_mistakes_are_told_before_the_data_is_read(self, tmp_path, options, reason):
        with one_line_error(reason):
            runs.train(tmp_path / "no" / "such" / "data", tmp_path / "run", **options)
        assert not list(tmp_path.iterdir())

    def test_the_place_of_the_results_is_tried_first(self, tmp_path):
        (tmp_path / "file").write_text("")
        with one_line_error("nothing can be written to"):
            runs.train(tmp_path / "no" / "such" / "data", tmp_path / "file" / "run")
