"""Weight soups, against arithmetic."""

import keras
import numpy as np
import pytest
import small
import tensorflow as tf
from errors import one_line_error

from keras_resnet import training


def constant(value, units=1):
    start = keras.initializers.Constant(value)
    layers = [keras.Input((1,)), keras.layers.Dense(units, kernel_initializer=start)]
    return keras.Sequential(layers)


def other(seed):
    """The same network with other weights and statistics."""
    model, random = small.model(filters=(4, 8)), np.random.default_rng(seed)
    model.set_weights([random.uniform(0.5, 1.5, each.shape) for each in model.get_weights()])
    return model


def closeness(target):
    return lambda model: -abs(float(model.get_weights()[0][0, 0]) - target)


class TestSoup:
    def test_uniform_is_the_mean_of_all(self):
        models = [other(seed) for seed in range(3)]
        before = [model.get_weights() for model in models]
        made = training.soup(models)
        assert made.taken == (0, 1, 2)
        for found, *parts in zip(made.model.get_weights(), *before, strict=True):
            np.testing.assert_allclose(found, sum(parts) / 3, rtol=1e-6)
        for model, weights in zip(models, before, strict=True):
            for now, former in zip(model.get_weights(), weights, strict=True):
                np.testing.assert_array_equal(now, former)

    @pytest.mark.parametrize(
        ("values", "taken", "result"),
        [
            ((10, 1, 3), (1, 2), 2),  # the mean of all, 4.67, is worse
            ((2, 1, 3), (0,), 2),  # nothing is better than the best
            ((8, 4, -4), (1, 2, 0), 8 / 3),  # 4, then 0, then 2.67
            ((1, 1, 1), (0, 1, 2), 1),  # no worse
        ],
    )
    def test_greedy_takes_what_does_no_harm(self, values, taken, result):
        target = 2 if values != (8, 4, -4) else 1.9
        made = training.soup([*map(constant, values)], score=closeness(target))
        assert made.taken == taken
        assert made.model.get_weights()[0][0, 0] == pytest.approx(result)
        assert made.scores == pytest.approx([-abs(value - target) for value in values])
        assert made.score == pytest.approx(-abs(result - target), abs=1e-6)

    def test_every_mean_is_measured_anew(self):
        seen = []
        training.soup(
            [*map(constant, (10, 1, 3))],
            score=closeness(2),
            renew=lambda model: seen.append(float(model.get_weights()[0][0, 0])),
        )
        assert seen == pytest.approx([2, 14 / 3, 2])  # both trials, and the result

    def test_refuses_what_has_no_mean(self):
        with one_line_error("models: 1 came; a soup is made of two or more"):
            training.soup([constant(1)])
        with one_line_error("number 2, "):
            training.soup([constant(1), constant(1, units=2)])
        with one_line_error("only models of the same architecture have a mean"):
            training.soup([small.model(filters=(4, 8), shortcut=name) for name in "BA"])

    def test_what_matters_in_training_alone_may_differ(self):
        def net(rate, momentum):
            layers = [
                keras.Input((3,)),
                *([keras.layers.Dropout(rate)] if rate else []),
                keras.layers.Dense(2, kernel_regularizer="l2" if rate else None),
                keras.layers.BatchNormalization(momentum=momentum),
            ]
            return keras.Sequential(layers)

        training.soup([net(0.0, 0.9), net(0.1, 0.99), net(0.2, 0.9)])
        with one_line_error("has other layers than the first"):
            other = keras.Sequential([keras.Input((3,)), *net(0.0, 0.9).layers[:-1]])
            training.soup([net(0.0, 0.9), other])
        with one_line_error("has other layers than the first"):
            relu, elu = (
                keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name)])
                for name in ("relu", "elu")
            )
            training.soup([relu, elu])


class TestStatistics:
    def test_are_those_of_all_images(self):
        images = np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype("float32")
        model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        training.renew_statistics(model, batches(images, 16))  # the last one is smaller
        layer = model.layers[-1]
        np.testing.assert_allclose(layer.moving_mean, images.mean(0), rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, images.var(0), rtol=1e-5)
        assert layer.momentum == 0.99

    def test_layers_see_what_those_before_them_make_of_a_batch(self):
        model = small.model(filters=(4, 8))
        images = np.random.default_rng(1).integers(0, 256, (32, 8, 8, 1)).astype("float32")
        training.renew_statistics(model, batches(images, 32))
        # With the statistics of the one batch, the model does the same in training and later.
        learning = model(images, training=True).numpy()
        training.renew_statistics(model, batches(images, 32))
        np.testing.assert_allclose(model(images).numpy(), learning, rtol=1e-3, atol=1e-5)

    def test_dropout_goes_on_where_it_was_and_frozen_layers_stay(self):
        layers = [keras.layers.Dropout(0.5, seed=1), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.layers[-1].trainable = False
        before = [each.numpy() for each in model.variables]
        training.renew_statistics(model, batches(np.ones((8, 4), "float32"), 8))
        model.layers[-1].trainable = True
        training.renew_statistics(model, batches(np.ones((8, 4), "float32"), 8))
        after = [each.numpy() for each in model.variables]
        changed = [
            variable.path
            for variable, a, b in zip(model.variables, before, after, strict=True)
            if (a != b).any()
        ]
        assert [path.rpartition("/")[2] for path in changed] == ["moving_mean", "moving_variance"]

    def test_are_compared(self):
        models = [other(seed) for seed in range(2)]
        assert not training.same_statistics(models)
        models[1].set_weights(models[0].get_weights())
        models[1].layers[-1].set_weights(
            [np.zeros_like(w) for w in models[1].layers[-1].get_weights()]
        )
        assert training.same_statistics(models)
        assert training.same_statistics([constant(1), constant(2)])


def batches(images, size):
    return tf.data.Dataset.from_tensor_slices((images, np.zeros(len(images)))).batch(size)
