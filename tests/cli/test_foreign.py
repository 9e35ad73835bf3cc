"""Models that other people built: what comes out of them is shown as what it is."""

import json

import keras
import numpy as np
import PIL.Image
import pytest
from commands import refused, run, table_of
from halves import NAMES, write_halves

import keras_resnet
from keras_resnet import runs


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    return write_halves(tmp_path_factory.mktemp("halves"), 32)


def answer(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def convolutions():
    """A small body of its own that takes raw images."""
    keras.utils.set_random_seed(0)
    return [
        keras.Input((16, 16, 3)),
        keras.layers.Rescaling(1 / 127.5, -1.0),
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
    ]


def pooled(*head):
    return keras.Sequential([*convolutions(), keras.layers.GlobalAveragePooling2D(), *head])


def saved(model, folder, labels=None):
    folder.mkdir()
    model.save(folder / "model.keras")
    if labels:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    return folder


def images(halves, count=4):
    files = [halves / f"{index}.png" for index in range(count)]
    return files, np.stack([np.asarray(PIL.Image.open(file)) for file in files]).astype("float32")


def probabilities(prediction):
    return {guess["class"]: guess["probability"] for guess in prediction["classes"]}


def each_of(predictions, names, rows):
    """Predicted probabilities beside the expected ones."""
    for each, row in zip(predictions, rows, strict=True):
        yield probabilities(each), pytest.approx(dict(zip(names, row, strict=True)), abs=1e-5)


def softmax(numbers):
    return keras.ops.convert_to_numpy(keras.ops.softmax(numbers))


class TestHeadsOfThreeLayers:
    @pytest.fixture
    def model(self):
        return pooled(
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
            keras.layers.Softmax(),
        )

    def test_are_classifiers(self, model, halves, tmp_path):
        folder = saved(model, tmp_path / "net", NAMES)
        files, pixels = images(halves)
        expected = model.predict(pixels, verbose=0)
        predictions = answer("predict", folder, *files)["predictions"]
        assert all(found == row for found, row in each_of(predictions, NAMES, expected))
        tested = answer("evaluate", folder, "--data", f"{halves / 'classes.csv'}:train")
        assert tested["task"] == "classification"
        exported = answer("export", folder, "--output", tmp_path / "exported")
        card = json.loads((tmp_path / "exported" / "1" / "model_card.json").read_text())
        assert card["output"] == "probabilities"
        assert exported["largest_difference"] < 1e-3


class TestNestedClassifiers:
    @pytest.mark.parametrize("wrap", ["sequential", "functional"])
    def test_are_classifiers(self, wrap, halves, tmp_path):
        inner = pooled(keras.layers.Dense(2, "softmax"))
        if wrap == "sequential":
            model = keras.Sequential([keras.Input((16, 16, 3)), inner])
        else:
            pixels = keras.Input((16, 16, 3))
            model = keras.Model(pixels, inner(keras.layers.RandomFlip()(pixels)))
        folder = saved(model, tmp_path / "net", NAMES)
        files, pixels = images(halves)
        expected = model.predict(pixels, verbose=0)
        predictions = answer("predict", folder, *files)["predictions"]
        assert all(found == row for found, row in each_of(predictions, NAMES, expected))
        tested = answer("evaluate", folder, "--data", f"{halves / 'classes.csv'}:train")
        assert tested["per_class"].keys() == set(NAMES)
        answer("export", folder, "--output", tmp_path / "exported")


class TestLogits:
    """What is not a probability is never called one."""

    @pytest.mark.parametrize("knows", ["its name", "labels", "task"])
    def test_become_probabilities_where_they_are_known(self, knows, halves, tmp_path):
        last = "predictions" if knows == "its name" else "last"
        model = pooled(keras.layers.Dense(2, name=last))
        model.layers[-1].kernel.assign(np.random.default_rng(0).normal(0, 20, (8, 2)))
        folder = saved(model, tmp_path / "net", NAMES if knows == "labels" else None)
        files, pixels = images(halves)
        arguments = ["--task", "classification"] if knows == "task" else []
        found = answer("predict", folder, *files, *arguments)
        assert found["task"] == "classification"
        expected = softmax(model.predict(pixels, verbose=0))
        names = NAMES if knows == "labels" else "01"
        assert all(one == row for one, row in each_of(found["predictions"], names, expected))

    def test_are_outputs_where_they_are_not(self, halves, tmp_path):
        model = pooled(keras.layers.Dense(3, name="last"))
        folder = saved(model, tmp_path / "net")
        files, pixels = images(halves)
        found = answer("predict", folder, *files)
        assert found["task"] is None
        outputs = [each["output"] for each in found["predictions"]]
        np.testing.assert_allclose(outputs, model.predict(pixels, verbose=0), rtol=1e-4, atol=1e-5)
        result = run("predict", folder, *files)
        assert result.stdout.splitlines()[1].split() == ["image", "index", "output"]
        assert "probability" not in result.stdout
        assert "is not known" in result.stderr
        line = refused(run("predict", folder, *files, "--csv", tmp_path / "out.csv"))
        assert "is not known" in line
        assert not (tmp_path / "out.csv").exists()
        record = runs.predict(folder, files)
        assert record.task is None

    def test_that_are_numbers_are_values_if_one_says_so(self, halves, tmp_path):
        model = pooled(keras.layers.Dense(1, name="age"))
        folder = saved(model, tmp_path / "net")
        files, pixels = images(halves)
        found = answer("predict", folder, *files, "--task", "regression")["predictions"]
        expected = model.predict(pixels, verbose=0)[:, 0]
        np.testing.assert_allclose(
            [each["value"] for each in found], expected, rtol=1e-4, atol=1e-5
        )
        # The data say it, too.
        tested = answer("evaluate", folder, "--data", halves / "how.csv")
        assert tested["task"] == "regression"


class TestValues:
    @pytest.mark.parametrize("options", [{"name": "predictions"}, {"activation": "relu"}])
    def test_are_shown_if_one_says_that_they_are(self, options, halves, tmp_path):
        model = pooled(keras.layers.Dense(1, **options))
        folder = saved(model, tmp_path / "model")
        files, pixels = images(halves)
        found = answer("predict", folder, *files, "--task", "regression")["predictions"]
        expected = model.predict(pixels, verbose=0)[:, 0]
        np.testing.assert_allclose([each["value"] for each in found], expected, rtol=1e-4)
        arguments = ["--task", "regression", "--output", tmp_path / "exported"]
        assert answer("export", folder, *arguments)["answer"] == "values"


class TestOneSigmoid:
    def test_of_two_classes_shows_both(self, halves, tmp_path):
        model = pooled(keras.layers.Dense(1, "sigmoid"))
        folder = saved(model, tmp_path / "net", NAMES)
        files, pixels = images(halves)
        expected = model.predict(pixels, verbose=0)[:, 0]
        found = answer("predict", folder, *files, "--csv", tmp_path / "out.csv")["predictions"]
        both = [(1 - second, second) for second in expected]
        assert all(one == row for one, row in each_of(found, NAMES, both))
        _, rows = table_of(tmp_path / "out.csv")
        assert [label for _, label in rows] == [NAMES[int(second > 0.5)] for second in expected]
        tested = answer("evaluate", folder, "--data", f"{halves / 'classes.csv'}:train")
        assert tested["task"] == "classification"
        assert tested["per_class"].keys() == set(NAMES)

    def test_of_one_label_is_that_label(self, halves, tmp_path):
        model = pooled(keras.layers.Dense(1, "sigmoid"))
        folder = saved(model, tmp_path / "net", ["bright"])
        files, pixels = images(halves)
        found = answer("predict", folder, *files)
        assert found["task"] == "multilabel"
        for each, p in zip(found["predictions"], model.predict(pixels, verbose=0), strict=True):
            assert each["labels"] == (["bright"] if p[0] > 0.5 else [])


class TestOneLogit:
    """A softmax of it would be 1 for every image."""

    @pytest.mark.parametrize("knows", ["labels", "task"])
    def test_of_two_classes_shows_both(self, knows, halves, tmp_path):
        model = pooled(keras.layers.Dense(1))
        folder = saved(model, tmp_path / "net", NAMES if knows == "labels" else None)
        files, pixels = images(halves)
        second = 1 / (1 + np.exp(-model.predict(pixels, verbose=0)[:, 0]))
        arguments = ["--task", "classification"] if knows == "task" else []
        found = answer("predict", folder, *files, *arguments)
        names = NAMES if knows == "labels" else "01"
        both = [(1 - each, each) for each in second]
        assert all(one == row for one, row in each_of(found["predictions"], names, both))
        if knows == "labels":
            answer("export", folder, "--output", tmp_path / "exported")
            card = json.loads((tmp_path / "exported" / "1" / "model_card.json").read_text())
            assert card["output"] == "probabilities"

    @pytest.mark.parametrize("task", ["multilabel", "regression"])
    def test_has_one_name_where_it_is_no_class(self, task, halves, tmp_path):
        folder = saved(pooled(keras.layers.Dense(1)), tmp_path / "net", NAMES)
        line = refused(run("predict", folder, *images(halves)[0], "--task", task))
        assert f"task={task!r}: 2 names came for the 1 outputs" in line


class TestFeatures:
    def test_are_outputs(self, halves, tmp_path):
        model = pooled()
        folder = saved(model, tmp_path / "net")
        files, pixels = images(halves)
        found = answer("predict", folder, *files)
        outputs = [each["output"] for each in found["predictions"]]
        np.testing.assert_allclose(outputs, model.predict(pixels, verbose=0), rtol=1e-4, atol=1e-5)
        assert "probability" not in run("predict", folder, files[0]).stdout
        line = refused(run("evaluate", folder, "--data", halves / "classes.csv"))
        assert "gives features" in line


class TestWhatAModelWants:
    def test_images_are_normalized_as_a_saved_model_says(self, halves, tmp_path):
        """A model of the package without the layer that normalizes, as it was saved."""
        net = keras_resnet.CIFARResNet(8, classes=2, input_shape=(16, 16, 3))
        with_layer = keras_resnet.CIFARResNet(
            8, classes=2, input_shape=(16, 16, 3), include_preprocessing=True
        )
        with_layer.set_weights(net.get_weights())
        files, _ = images(halves)
        first = answer("predict", saved(net, tmp_path / "a", NAMES), *files)
        second = answer("predict", saved(with_layer, tmp_path / "b", NAMES), *files)
        for one, other in zip(first["predictions"], second["predictions"], strict=True):
            assert probabilities(one) == pytest.approx(probabilities(other), abs=1e-5)
