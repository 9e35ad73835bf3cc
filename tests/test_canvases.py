"""Which digits are in an image, and what is their sum: learned, tested and exported by commands."""

import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import run, table_of
from digits_on_canvas import SIDE, write_canvases

LEARNING = [
    *("--model", "CIFARResNet20", "--image-size", SIDE, "--batch-size", 32),
    *("--learning-rate", 0.4, "--set", "weight_decay=5e-4", "--set", "ema=0.98"),
    *("--augmentation", "handwriting", "--cache", "memory"),
]


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    return write_canvases(tmp_path_factory.mktemp("canvases"), train=5000, test=600)


def answer(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def served(path, file):
    """What a SavedModel makes of an image."""
    images = np.asarray(PIL.Image.open(file).convert("RGB"), "float32")[None]
    (output,) = (
        tf.saved_model.load(path).signatures["serving_default"](tf.constant(images)).values()
    )
    return output.numpy()[0]


@pytest.mark.slow
def test_which_digits_are_in_an_image(canvases, tmp_path):
    table, _ = canvases
    folder = tmp_path / "which"
    found = answer("train", "--data", table, *LEARNING, "--epochs", 12, "--output", folder)
    assert found["mean_average_precision"] >= 0.95
    assert json.loads((folder / "metrics.json").read_text()) == found
    tested = answer("evaluate", folder, "--data", table)
    assert tested["mean_average_precision"] == pytest.approx(found["mean_average_precision"])
    truth = {path: label for path, label, split in table_of(table)[1] if split == "test"}
    answer("predict", folder, table.parent / "test", "--csv", tmp_path / "found.csv")
    labels = dict(table_of(tmp_path / "found.csv")[1])
    right = [labels[path[5:-4]] == label for path, label in truth.items()]
    assert np.mean(right) == pytest.approx(found["accuracy"], abs=0.01)
    exported = answer("export", folder, "--calibrate", table, "--output", tmp_path / "exported")
    digits = np.flatnonzero(served(exported["output"], table.parent / "test" / "0.png") > 0.5)
    assert "|".join(map(str, digits)) == labels["0"]


@pytest.mark.slow
def test_the_sum_of_the_digits_in_an_image(canvases, tmp_path):
    _, table = canvases
    folder = tmp_path / "sum"
    found = answer("train", "--data", table, *LEARNING, "--epochs", 20, "--output", folder)
    assert found["r2"] >= 0.9
    assert json.loads((folder / "metrics.json").read_text()) == found
    assert answer("evaluate", folder, "--data", table)["r2"] == pytest.approx(found["r2"])
    truth = {path: float(value) for path, value, split in table_of(table)[1] if split == "test"}
    answer("predict", folder, table.parent / "test", "--csv", tmp_path / "found.csv")
    values = {name: float(value) for name, value in table_of(tmp_path / "found.csv")[1]}
    errors = [abs(values[path[5:-4]] - value) for path, value in truth.items()]
    assert np.mean(errors) == pytest.approx(found["mean_absolute_error"], rel=0.01)
    exported = answer("export", folder, "--calibrate", table, "--output", tmp_path / "exported")
    value = served(exported["output"], table.parent / "test" / "0.png")
    assert value[0] == pytest.approx(values["0"], rel=1e-3)
