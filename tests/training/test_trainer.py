import csv

import keras
import numpy as np
import pytest

import keras_resnet
from keras_resnet import data, training


def small_net(classes=10):
    keras.utils.set_random_seed(0)
    return keras_resnet.CIFARResNet(
        8, input_shape=(8, 8, 1), classes=classes, include_preprocessing=True
    )


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def trained(digits):
    model = small_net()
    recipe = training.Recipe(epochs=3, learning_rate=0.2)
    return model, training.train(model, digits, recipe, image_size=8, verbose=0)


class TestTrain:
    def test_learns(self, trained):
        _, result = trained
        assert result.history["loss"][-1] < 0.5 * result.history["loss"][0]
        assert result.seconds > 0

    def test_leaves_the_best_weights(self, trained, digits):
        model, result = trained
        losses = result.history["val_loss"]
        assert result.best_epoch == 1 + int(np.argmin(losses))
        validation = data.batches(digits.validation, image_size=8, channels=1, batch_size=64)
        loss, _ = model.evaluate(validation, verbose=0)
        assert loss == pytest.approx(min(losses), rel=1e-4)

    def test_repeats_with_the_seed(self, trained, digits):
        _, result = trained
        recipe = training.Recipe(epochs=3, learning_rate=0.2)
        again = training.train(small_net(), digits, recipe, image_size=8, verbose=0)
        np.testing.assert_allclose(again.history["loss"], result.history["loss"], rtol=1e-2)

    def test_history_is_saved_a_line_an_epoch(self, trained, tmp_path):
        _, result = trained
        result.save(tmp_path / "history.csv")
        with (tmp_path / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        assert [float(row["val_loss"]) for row in rows] == result.history["val_loss"]

    def test_refuses_a_model_of_other_classes(self, digits):
        with pytest.raises(ValueError, match="has 4 outputs, digits has 10 classes"):
            training.train(small_net(classes=4), digits, image_size=8)

    def test_refuses_a_model_without_probabilities(self, digits):
        model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), classifier_activation=None)
        with pytest.raises(ValueError, match="build it with classifier_activation='softmax'"):
            training.train(model, digits)

    def test_trains_at_the_size_of_the_model(self, digits):
        recipe = training.Recipe(epochs=1, batch_size=512)
        assert training.train(small_net(), digits, recipe, verbose=0).best_epoch == 1

    def test_says_when_the_loss_is_lost(self, digits):
        model = small_net()
        recipe = training.Recipe(epochs=2, learning_rate=1e20, warm_up=0.0)
        with pytest.raises(ValueError, match="Use a lower learning rate"):
            training.train(model, digits, recipe, image_size=8, verbose=0)


class TestRecipe:
    def test_learning_rate_warms_up_scales_and_decays(self):
        recipe = training.Recipe(epochs=10, batch_size=128, learning_rate=0.1, warm_up=0.2)
        rate = recipe.schedule(steps_per_epoch=10)
        rates = np.array([float(rate(step)) for step in range(101)])
        np.testing.assert_allclose(rates[:21], np.linspace(0, 0.05, 21), atol=1e-6)
        cosine = 0.025 * (1 + np.cos(np.pi * np.arange(81) / 80))
        np.testing.assert_allclose(rates[20:], cosine, atol=1e-6)

    def test_weights_decay_but_for_biases_and_normalization(self):
        model = small_net()
        optimizer = training.Recipe(weight_decay=0.1).optimizer(1)
        optimizer.build(model.trainable_variables)
        decayed = {v.name for v in model.trainable_variables if optimizer._use_weight_decay(v)}
        assert decayed == {"kernel"}

    @pytest.mark.parametrize(
        "options",
        [
            dict(epochs=0),
            dict(epochs=1.5),
            dict(batch_size=0),
            dict(learning_rate=0.0),
            dict(warm_up=1),
            dict(momentum=7),
            dict(weight_decay=-1),
        ],
    )
    def test_refuses_numbers_out_of_range(self, options):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            training.Recipe(**options)
