"""Jobs that run trained models on many images."""

import csv
import json

import keras
import numpy as np
import PIL.Image
import pytest

import keras_resnet
from keras_resnet import machine, runs
from keras_resnet.export.compiled import RUNTIMES
from keras_resnet.runs import asking, choices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and photographs of two classes."""
    folder = tmp_path_factory.mktemp("asking")
    keras.utils.set_random_seed(0)
    model = keras_resnet.CIFARResNet(8, classes=2, include_preprocessing=True)
    for layer in model.layers:  # as training leaves them
        if isinstance(layer, keras.layers.BatchNormalization):
            values = np.random.default_rng(0).uniform(0.5, 1.5, (4, layer.gamma.shape[0]))
            layer.set_weights([each.astype("float32") for each in values])
    model.save(folder / "net.keras")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(0, 256, (40, 48, 3), "uint8")
            PIL.Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder


def predicted(folder, **options):
    return runs.predict(folder / "net.keras", [*(folder / "images").iterdir()], **options)


def test_a_frozen_model_predicts_the_same(folder, monkeypatch, tmp_path):
    def lines(name, worth):
        monkeypatch.setattr(asking, "WORTH_FREEZING", worth)
        record = predicted(folder, csv=tmp_path / name)
        with (tmp_path / name).open() as file:
            return record.outputs, [*csv.reader(file)]

    def frozen(model):
        seen.append(model.name)
        return original(model)

    seen, original = [], asking.frozen
    monkeypatch.setattr(asking, "frozen", frozen)
    expected, rows = lines("as_it_is.csv", 1000)
    assert not seen
    given, same = lines("frozen.csv", 1)
    assert seen
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert same == rows
    assert len(rows) == 21


def test_a_frozen_model_is_evaluated_the_same(folder, monkeypatch):
    found = []
    for worth in (1000, 1):
        monkeypatch.setattr(asking, "WORTH_FREEZING", worth)
        record = runs.evaluate(folder / "net.keras", f"{folder / 'images'}:all")
        found.append((record.evaluation.metrics(), record.evaluation.probabilities))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)


def test_what_cannot_be_frozen_is_asked_as_it_is(folder, monkeypatch):
    def refuses(model):
        raise ValueError("no copies of me")

    expected = predicted(folder).outputs
    monkeypatch.setattr(asking, "WORTH_FREEZING", 1)
    monkeypatch.setattr(asking, "frozen", refuses)
    np.testing.assert_allclose(predicted(folder).outputs, expected, atol=1e-6)


@pytest.mark.parametrize("runtime", ["auto", *RUNTIMES])
def test_runtimes(folder, runtime, caplog):
    for module in RUNTIMES[runtime].modules if runtime != "auto" else ():
        pytest.importorskip(module)
    caplog.set_level("INFO", "keras_resnet.runs")
    record = predicted(folder, runtime=runtime)
    np.testing.assert_allclose(record.outputs, predicted(folder).outputs, atol=1e-4)
    assert "float32: " in caplog.text
    json.dumps(record.to_json())


def test_bfloat16(folder):
    if not machine.cpu().bfloat16:
        pytest.skip("this processor has no bfloat16")
    given = predicted(folder, runtime="tensorflow", precision="bfloat16").outputs
    difference = np.abs(given - predicted(folder).outputs).max()
    assert 1e-6 < difference < 0.05


def test_names_of_runtimes_are_the_same_in_both_places():
    """The command line knows them without TensorFlow."""
    assert {*choices.RUNTIMES} == {"auto", *RUNTIMES}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "torch"}, "runtime='torch' must be one of"),
        ({"precision": "int8"}, "precision='int8' must be one of"),
        ({"runtime": "litert", "precision": "bfloat16"}, "runtime='litert' computes in float32"),
    ],
)
def test_mistakes(folder, options, message):
    with pytest.raises(ValueError, match=message):
        predicted(folder, **options)
