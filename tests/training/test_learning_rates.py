"""The learning rate finder, against gradient descent in NumPy."""

import csv
import json

import keras
import numpy as np
import pytest
import small
from commands import refused, run
from errors import one_line_error

import keras_resnet
from keras_resnet import runs, training
from keras_resnet.training import LearningRates, Recipe, find_learning_rate

IMAGES, STEPS, LOWEST, HIGHEST = 300, 25, 1e-2, 3.0
# All images in every step: in whatever order they come.
WHOLE = Recipe(
    batch_size=IMAGES, momentum=0.0, nesterov=False, weight_decay=0.05, augmentation="none"
)


def softmax_regression():
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(10, "softmax", kernel_initializer="zeros", name="predictions"),
    ]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def descended(images, labels, rates, decay):
    """Losses of gradient descent on a softmax regression, one before each step."""
    x, y = images.reshape(len(images), -1) / 255, np.eye(10)[labels]
    kernel, bias = np.zeros((64, 10)), np.zeros(10)
    for rate in rates:
        scores = np.exp(x @ kernel + bias)
        found = scores / scores.sum(1, keepdims=True)
        yield -np.log(found[range(len(y)), labels]).mean()
        error = (found - y) / len(y)
        kernel = kernel - rate * (x.T @ error + decay * kernel)
        bias = bias - rate * error.sum(0)


class TestFinder:
    def test_takes_the_steps_that_numpy_takes(self):
        source = small.digits(IMAGES)
        found = find_learning_rate(
            softmax_regression(), source, WHOLE, lowest=LOWEST, highest=HIGHEST, steps=STEPS
        )
        rates = LOWEST * (HIGHEST / LOWEST) ** (np.arange(STEPS) / (STEPS - 1))
        np.testing.assert_allclose(found.rates, rates)
        split = source.train
        expected = [*descended(split.images, split.labels, rates * IMAGES / 256, 0.05)]
        np.testing.assert_allclose(found.losses, expected, rtol=1e-4)
        assert not found.diverged

    def test_the_model_stays_as_it_is(self):
        model, source = small.model(), small.digits()
        model.compile("adam", "sparse_categorical_crossentropy")
        before, optimizer, view = model.get_weights(), model.optimizer, model.get_config()
        find_learning_rate(model, source, Recipe(batch_size=32), steps=20, highest=0.1)
        for weight, former in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, former)
        assert model.optimizer is optimizer
        assert not optimizer.built
        assert model.get_config() == view

    @pytest.mark.slow
    def test_the_same_again(self):
        source, recipe = small.digits(), Recipe(batch_size=32)
        once, again = (find_learning_rate(small.model(), source, recipe, steps=20) for _ in "12")
        np.testing.assert_allclose(once.losses, again.losses, rtol=1e-5)

    def test_ends_where_the_loss_explodes(self):
        found = find_learning_rate(
            small.model(), small.digits(), Recipe(batch_size=32), highest=1e5, steps=40
        )
        assert found.diverged
        assert 5 < len(found.losses) < 40
        assert np.isfinite(found.losses).all()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"lowest": 0.0}, "lowest=0.0 must be above 0"),
            ({"lowest": 1.0, "highest": 0.5}, "lowest=1.0 must be below highest=0.5"),
            ({"steps": 19}, "steps=19 must be a whole number of at least 20"),
            ({"steps": 2.5}, "steps=2.5 must be a whole number"),
            ({"recipe": Recipe(rates={"conv9": 0.1})}, "no layer or stage 'conv9'"),
        ],
    )
    def test_refuses(self, options, reason):
        with one_line_error(reason):
            find_learning_rate(small.model(), small.digits(), **options)


class TestSuggestion:
    def curve(self, losses, noise=0.0):
        random = np.random.default_rng(0)
        rates = np.geomspace(1e-4, 10, len(losses))
        return LearningRates(rates, losses + noise * random.normal(size=len(losses)), False)

    def test_lies_between_half_of_the_fall_and_all_of_it(self):
        x = np.linspace(-4, 1, 100)
        losses = np.interp(x, [-3, -1, 0, 1], [3, 1, 3, 9])  # half of it is done at -2
        found = self.curve(losses, noise=0.02)
        assert np.log10(found.lowest) == pytest.approx(-1, abs=0.1)
        assert np.log10(found.suggestion) == pytest.approx(-1.5, abs=0.1)

    def test_a_second_fall_does_not_count(self):
        # Rates that spoil a network may make it blind to them: what it learns then is luck.
        losses = np.interp(np.linspace(-4, 1, 100), [-3, -1, 0, 1], [3, 1, 4, 0.5])
        assert np.log10(self.curve(losses, noise=0.02).lowest) == pytest.approx(-1, abs=0.2)

    def test_there_is_none_without_a_fall(self):
        assert self.curve(np.full(100, 2.3), noise=0.1).suggestion is None
        assert self.curve(np.linspace(2, 3, 100), noise=0.01).suggestion is None


class TestJob:
    OPTIONS = ("--data", "digits", "--model", "CIFARResNet8", "--batch-size", 64)

    def test_writes_a_plot_and_a_table_and_suggests(self, tmp_path):
        output = tmp_path / "run"
        result = run("train", *self.OPTIONS, "--output", output, "--find-learning-rate", "--json")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert {file.name for file in output.iterdir()} == {
            "learning_rate.csv",
            "learning_rate.png",
        }
        with (output / "learning_rate.csv").open() as file:
            rows = [*csv.DictReader(file)]
        assert len(rows) == answer["steps"]
        assert float(rows[0]["learning_rate"]) == pytest.approx(1e-5)
        assert 0.02 < answer["learning_rate"] < answer["lowest_loss_at"] <= 10
        rates = [float(row["learning_rate"]) for row in rows]
        assert answer["lowest_loss_at"] == pytest.approx(min(rates, key=lambda rate: abs(
            rate - answer["lowest_loss_at"])), rel=1e-4)  # fmt: skip

    def test_of_weights_it_is_the_rate_of_the_head(self, tmp_path, monkeypatch):
        seen = {}

        def finder(net, images, recipe, strategy, execution):
            seen.update(trainable={each.path for each in net.trainable_variables}, recipe=recipe)
            return LearningRates(np.geomspace(1e-3, 10, 81), np.linspace(3, 1, 81), False)

        weights = tmp_path / "weights.weights.h5"
        keras_resnet.CIFARResNet(8, input_shape=(16, 16, 1)).save_weights(weights)
        monkeypatch.setattr(training, "find_learning_rate", finder)
        options = {"model": "CIFARResNet8", "weights": weights, "batch_size": 16}
        record = runs.find_learning_rate("digits", tmp_path / "run", **options)
        assert seen["trainable"] == {"predictions/kernel", "predictions/bias"}
        assert seen["recipe"].batch_size == 16
        assert record.to_json()["lowest_loss_at"] == pytest.approx(10)

    def test_mistakes_are_those_of_training(self, tmp_path):
        line = refused(
            run("train", *self.OPTIONS[:2], "--model", "ResNet51", "--find-learning-rate",
                "--output", tmp_path / "run")
        )  # fmt: skip
        assert "model 'ResNet51' is not known" in line
        assert not (tmp_path / "run").exists()
