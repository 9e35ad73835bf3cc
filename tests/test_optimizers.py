import sys

import keras
import numpy as np
import pytest
import small

from keras_resnet.optimizers import LayerwiseSGD


def train(**rates):
    model = small.model(filters=(4, 8))
    optimizer = LayerwiseSGD(0.1, momentum=0.9, rates=rates)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    random = np.random.default_rng(0)
    images, labels = random.uniform(0, 255, (16, 8, 8, 1)), random.integers(0, 10, 16)
    for _ in range(2):
        model.train_on_batch(images, labels)
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def test_without_rates_is_sgd(monkeypatch):
    ours = train()
    monkeypatch.setattr(
        sys.modules[__name__],
        "LayerwiseSGD",
        lambda *args, rates, **options: keras.optimizers.SGD(*args, **options),
    )
    theirs = train()
    for path in ours:
        np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6)


def test_a_rate_of_zero_holds_its_layers():
    initial = {weight.path: weight.numpy() for weight in small.model(filters=(4, 8)).weights}
    trained = train(conv2=0.0)
    held = {
        path.partition("/")[0]
        for path in initial
        if path.endswith(("kernel", "gamma", "beta")) and (initial[path] == trained[path]).all()
    }
    assert held == {path.partition("/")[0] for path in initial if path.startswith("conv2")}


def test_is_saved_with_its_rates():
    optimizer = LayerwiseSGD(0.1, rates={"conv1": 0.5}, l2=0.01)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.rates == {"conv1": 0.5}
    assert again.l2 == 0.01


@pytest.mark.parametrize("nesterov", [False, True])
def test_decay_and_momentum_are_those_of_the_papers(nesterov):
    kernel = keras.Variable([1.0, -2.0], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    optimizer = LayerwiseSGD(0.1, momentum=0.9, nesterov=nesterov, l2=0.5)
    weight, velocity = np.array([1.0, -2.0]), 0.0
    for gradient in ([0.3, 0.1], [-0.2, 0.4], [0.0, 0.0]):
        optimizer.apply([keras.ops.array(gradient), keras.ops.zeros(1)], [kernel, bias])
        slope = np.array(gradient) + 0.5 * weight
        velocity = 0.9 * velocity + slope
        weight = weight - 0.1 * (slope + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(kernel.numpy(), weight, rtol=1e-5)
    assert bias.numpy() == 1.0


def test_clips_the_length_of_all_gradients_together():
    variables = [keras.Variable([0.0]), keras.Variable([0.0])]
    optimizer = LayerwiseSGD(1.0, global_clipnorm=1.0)
    optimizer.apply([keras.ops.array([3.0]), keras.ops.array([4.0])], variables)
    np.testing.assert_allclose([v.numpy()[0] for v in variables], [-0.6, -0.8], rtol=1e-6)
