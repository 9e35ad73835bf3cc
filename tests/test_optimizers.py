import keras
import numpy as np
import pytest
import small
from keras.src.optimizers.base_optimizer import BaseOptimizer

from keras_resnet.optimizers import LayerwiseAdamW, LayerwiseLamb, LayerwiseSGD

OURS = [LayerwiseSGD, LayerwiseAdamW, LayerwiseLamb]


def train(optimizer):
    model = small.model(filters=(4, 8))
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    random = np.random.default_rng(0)
    images, labels = random.uniform(0, 255, (16, 8, 8, 1)), random.integers(0, 10, 16)
    for _ in range(2):
        model.train_on_batch(images, labels)
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def test_without_rates_is_sgd():
    ours = train(LayerwiseSGD(0.1, momentum=0.9))
    theirs = train(keras.optimizers.SGD(0.1, momentum=0.9))
    for path in ours:
        np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6)


def test_a_rate_of_zero_holds_its_layers():
    initial = {weight.path: weight.numpy() for weight in small.model(filters=(4, 8)).weights}
    trained = train(LayerwiseSGD(0.1, momentum=0.9, rates={"conv2": 0.0}))
    held = {
        path.partition("/")[0]
        for path in initial
        if path.endswith(("kernel", "gamma", "beta")) and (initial[path] == trained[path]).all()
    }
    assert held == {path.partition("/")[0] for path in initial if path.startswith("conv2")}


@pytest.mark.parametrize("ours", OURS)
def test_a_rate_is_a_factor_of_the_step(ours):
    names = ("conv2_kernel", "conv2_block1_kernel", "kernel")
    variables = [keras.Variable([1.0], name=name) for name in names]
    optimizer = ours(0.1, rates={"conv2": 0.5, "conv2_block1": 0.0})
    optimizer.apply([keras.ops.array([0.3])] * 3, variables)
    half, none, whole = (1.0 - variable.numpy()[0] for variable in variables)
    assert (half, none) == (pytest.approx(0.5 * whole, rel=1e-5), 0.0)
    assert whole > 0.0


@pytest.mark.parametrize(
    "optimizer",
    [
        LayerwiseSGD(0.1, rates={"conv1": 0.5}, l2=0.01),
        LayerwiseAdamW(0.1, rates={"conv1": 0.5}, weight_decay=0.01),
        LayerwiseLamb(0.1, rates={"conv1": 0.5}, weight_decay=0.01),
    ],
)
def test_is_saved_with_its_rates(optimizer):
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer)
    assert again.rates == {"conv1": 0.5}
    assert getattr(again, "l2", again.weight_decay) == 0.01


# The same steps of PyTorch's AdamW (2.13) and timm's Lamb (1.0.31, max_grad_norm=None and 1.0), the
# bias in a group without weight decay.
THEIRS = {
    "adamw": (
        LayerwiseAdamW,
        dict(epsilon=1e-8),
        [0.5566831, -1.0273514, 1.9686878, 0.3213489, 0.3523033, -0.1523033],
    ),
    "lamb": (
        LayerwiseLamb,
        dict(epsilon=1e-6),
        [0.6117746, -1.0282476, 1.8611881, 0.403538, 0.3523037, -0.1523034],
    ),
    "clipped lamb": (
        LayerwiseLamb,
        dict(epsilon=1e-6, global_clipnorm=1.0),
        [0.5601133, -0.9977857, 1.8731229, 0.3412769, 0.3389522, -0.1389516],
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_steps_are_those_of_pytorch_and_timm(name):
    make, options, expected = THEIRS[name]
    kernel = keras.Variable([[0.5, -1.0], [2.0, 0.25]], name="kernel")
    bias = keras.Variable([0.5, -0.3], name="bias")
    optimizer = make(0.05, weight_decay=0.3, **options)
    for step in range(4):
        of_kernel = keras.ops.array([[0.3, -0.1], [0.02, 1.5]]) * (step - 1.3)
        optimizer.apply([of_kernel, keras.ops.array([0.2, -0.7]) * (2.0 - step)], [kernel, bias])
    found = np.concatenate([kernel.numpy().ravel(), bias.numpy()])
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_rates_hold_for_weight_decay():
    slow, fast = (keras.Variable([1.0], name=name) for name in ("conv2_kernel", "kernel"))
    optimizer = LayerwiseAdamW(0.1, weight_decay=0.5, rates={"conv2": 0.1})
    optimizer.apply([keras.ops.zeros(1)] * 2, [slow, fast])
    np.testing.assert_allclose([slow.numpy()[0], fast.numpy()[0]], [0.995, 0.95], rtol=1e-6)


def test_lamb_leaves_weights_of_zero_where_updates_can_move_them():
    kernel = keras.Variable([0.0, 0.0], name="kernel")
    LayerwiseLamb(0.1).apply([keras.ops.array([1.0, 0.0])], [kernel])
    np.testing.assert_allclose(kernel.numpy(), [-0.1, 0.0], rtol=1e-5)
    still = keras.Variable([2.0], name="kernel")
    LayerwiseLamb(0.1).apply([keras.ops.zeros(1)], [still])
    assert still.numpy() == 2.0


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


class Elsewhere(LayerwiseSGD):
    """Takes a step as with JAX and PyTorch, which know nothing of TensorFlow's replicas."""

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        BaseOptimizer._backend_update_step(self, grads, trainable_variables, learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        raise NotImplementedError


CLIPPED = {
    "global_clipnorm": [-0.6, -0.8],
    "clipnorm": [-1.0, -1.0],
    "clipvalue": [-1.0, -1.0],
}


@pytest.mark.parametrize("optimizer", [LayerwiseSGD, Elsewhere])
@pytest.mark.parametrize(("option", "expected"), CLIPPED.items())
def test_clips_with_every_backend(optimizer, option, expected):
    variables = [keras.Variable([0.0], name=name) for name in ("conv2_kernel", "kernel")]
    optimizer = optimizer(1.0, **{option: 1.0}, rates={"conv2": 0.5})
    optimizer.apply([keras.ops.array([3.0]), keras.ops.array([4.0])], variables)
    moved = [variable.numpy()[0] for variable in variables]
    np.testing.assert_allclose(moved, np.multiply(expected, [0.5, 1.0]), rtol=1e-6)


@pytest.mark.parametrize("eagerly", [False, True])
def test_clips_in_a_models_own_fit(eagerly):
    inputs, targets = np.array([[3.0, 4.0]]), np.array([[-1000.0]])
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(LayerwiseSGD(1.0, global_clipnorm=1.0), "mse", run_eagerly=eagerly)
    model.fit(inputs, targets, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [-0.6, -0.8], rtol=1e-6)
