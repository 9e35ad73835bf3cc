"""Gradients along lines of inputs, and by layer, against NumPy and closed forms."""

import itertools

import keras
import numpy as np
import pytest

from keras_resnet import CIFARResNet, analysis
from keras_resnet.analysis import (
    GradientCorrelation,
    autocorrelation,
    brown_noise,
    correlation_of,
    gradient_correlation,
    gradient_norms,
    path,
    white_noise,
)

RNG = np.random.default_rng(0)


def normalized_model(outputs=1, dtype="float64"):
    """A small model with BatchNormalization whose moving averages are not those of a fresh one."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype=dtype),
            keras.layers.Dense(5, dtype=dtype, bias_initializer="normal"),
            keras.layers.BatchNormalization(dtype=dtype, momentum=0.7),
            keras.layers.Activation("tanh", dtype=dtype),
            keras.layers.Dense(outputs, dtype=dtype),
        ]
    )
    model.layers[1].moving_mean.assign(RNG.normal(size=5))
    model.layers[1].moving_variance.assign(RNG.uniform(0.5, 2, 5))
    return model


def in_numpy(model, inputs, statistics, around=None):
    """The outputs of `normalized_model`; statistics of the inputs `around`."""
    kernel, bias, gamma, beta, mean, variance, last, offset = model.get_weights()
    hidden = inputs @ kernel + bias
    if statistics != "moving":
        reference = hidden if around is None else around @ kernel + bias
        mean, variance = reference.mean(0), reference.var(0)
    epsilon = model.layers[1].epsilon
    hidden = (hidden - mean) / np.sqrt(variance + epsilon) * gamma + beta
    return np.tanh(hidden) @ last + offset


def differences(function, inputs, step=1e-5):
    """Central differences of the sum of a function's results, by coordinate of the inputs."""
    result = np.empty_like(inputs)
    for place in np.ndindex(inputs.shape):
        moved = np.zeros_like(inputs)
        moved[place] = step
        result[place] = (function(inputs + moved) - function(inputs - moved)).sum() / (2 * step)
    return result


@pytest.mark.parametrize("statistics", ["moving", "batch", "total"])
def test_gradients_are_those_of_finite_differences(statistics):
    model, inputs = normalized_model(), RNG.normal(size=(7, 2))
    # "batch" holds the statistics of the inputs where they are; "total" lets them move along.
    around = inputs if statistics == "batch" else None
    expected = differences(lambda x: in_numpy(model, x, statistics, around), inputs)
    found = gradient_correlation(model, inputs, statistics=statistics, batch_size=3)
    np.testing.assert_allclose(found.gradients, expected, rtol=1e-6, atol=1e-8)


def test_statistics_make_different_gradients_and_leave_the_model_alone():
    model, inputs = normalized_model(), RNG.normal(size=(7, 2))
    former = model.get_weights()
    moving, batch, total = (
        gradient_correlation(model, inputs, statistics=each).gradients
        for each in ("moving", "batch", "total")
    )
    assert abs(moving - batch).max() > 0.01
    assert abs(total - batch).max() > 0.01
    # The same shift of all inputs changes nothing behind BatchNormalization.
    np.testing.assert_allclose(total.sum(0), 0, atol=1e-6)
    assert abs(batch.sum(0)).max() > 0.01
    for before, after in zip(former, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert model.layers[1].momentum == 0.7


def test_output_chooses_what_is_differentiated():
    model, inputs = normalized_model(outputs=3), RNG.normal(size=(4, 2))
    parts = [gradient_correlation(model, inputs, output=each).gradients for each in range(3)]
    expected = differences(lambda x: in_numpy(model, x, "moving")[:, 1], inputs)
    np.testing.assert_allclose(parts[1], expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sum(parts), gradient_correlation(model, inputs).gradients)


def test_covariance_and_correlation_are_those_of_numpy():
    gradients = RNG.normal(size=(5, 4, 3))
    found = GradientCorrelation(gradients)
    for i in range(5):
        for j in range(5):
            product = np.mean(gradients[i] * gradients[j])
            cosine = np.vdot(gradients[i], gradients[j]) / (
                np.linalg.norm(gradients[i]) * np.linalg.norm(gradients[j])
            )
            assert found.covariance[i, j] == pytest.approx(product)
            assert found.correlation[i, j] == pytest.approx(cosine)
    assert np.isnan(correlation_of([[1.0, 0.0], [0.0, 0.0]])[0, 1])


def test_autocorrelation_by_hand():
    # Around the mean of 2: -1, 0, 2, -1; squares sum to 6; products at lag 1: -2, at lag 2: -2 + 0.
    np.testing.assert_allclose(autocorrelation([1, 2, 4, 1], 3), [1, -2 / 6, -2 / 6, 1 / 6])
    both = np.array([[1, 0], [2, 3], [4, 0], [1, 3]], float)
    # The second coordinate: -1.5, 1.5, -1.5, 1.5; products at lag 1 sum to -6.75, squares to 9.
    assert autocorrelation(both, 1)[1] == pytest.approx((-2 - 6.75) / (6 + 9))
    # As NumPy computes it from the full convolution.
    noise = white_noise(50, 3)
    around = noise - noise.mean()
    full = np.correlate(around, around, "full")[49:]
    np.testing.assert_allclose(autocorrelation(noise, 15), full[:16] / full[0])
    assert np.isnan(autocorrelation(np.full(10, 0.1), 2)).all()


def test_noise_has_the_covariance_of_its_formula():
    white = np.array([white_noise(30, seed) for seed in range(4000)])
    brown = np.array([brown_noise(30, seed) for seed in range(4000)])
    places = np.arange(1, 31)
    least = np.minimum.outer(places, places)
    np.testing.assert_allclose(white.T @ white / 4000, np.eye(30), atol=0.1)
    np.testing.assert_allclose(brown.T @ brown / 4000 / 30, least / 30, atol=0.1)
    expected = np.sqrt(least / np.maximum.outer(places, places))
    np.testing.assert_allclose(correlation_of(brown.T @ brown), expected, atol=0.06)
    # White noise around its mean has -1 / n in the mean, at every lag.
    mean = np.mean([autocorrelation(each, 5) for each in white], 0)
    np.testing.assert_allclose(mean[1:], -1 / 30, atol=0.01)
    np.testing.assert_array_equal(brown_noise(30, 5), np.cumsum(white_noise(30, 5)))


def test_a_layer_of_rectifiers_by_hand():
    """f(x) = sum_k v_k relu(w_k x), with w_k at the eight angles 22.5, 67.5, ... degrees.

    Over v of independent signs, the gradients at x and y have the covariance of the sum over the
    units that are active at both of w_k w_k = 1, and half of that per coordinate.
    """
    angles = np.pi / 8 * np.arange(1, 16, 2)
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="float64"),
            keras.layers.Dense(8, "relu", dtype="float64"),
            keras.layers.Dense(1, dtype="float64"),
        ]
    )
    hidden, last = model.layers
    hidden.kernel.assign([np.cos(angles), np.sin(angles)])
    at = np.radians([0.0, 90.0, 180.0, 10.0])  # active are the units within 90 degrees of an input
    inputs = np.stack([np.cos(at), np.sin(at)], 1)
    products = []
    for signs in itertools.product([-1.0, 1.0], repeat=7):  # the first may be 1: f -> -f
        last.kernel.assign(np.array([1.0, *signs])[:, None])
        products.append(gradient_correlation(model, inputs).covariance)
    mean = np.mean(products, 0)
    # Four of the eight are active at each; two at both of a right angle, none at opposite inputs,
    # and the same four at 0 and 10 degrees.
    np.testing.assert_allclose(np.diag(mean), 2, rtol=1e-6)
    np.testing.assert_allclose(mean[0], [2, 1, 0, 2], atol=1e-6)
    np.testing.assert_allclose(correlation_of(mean)[1], [0.5, 1, 0.5, 0.5], atol=1e-6)


def test_one_number_without_biases_has_two_gradients():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,))])
    for _ in range(4):
        model.add(keras.layers.Dense(20, "relu"))
    model.add(keras.layers.Dense(1))
    found = gradient_correlation(model, np.linspace(-2, 2, 10)[:, None]).gradients[:, 0]
    np.testing.assert_allclose(found, np.repeat(found[[0, -1]], 5), rtol=1e-5)
    assert found[0] != found[-1]


def test_image_models_along_a_path():
    keras.utils.set_random_seed(0)
    model = CIFARResNet(8, input_shape=(8, 8, 3), classifier_activation=None)
    first, second = RNG.normal(size=(2, 8, 8, 3))
    images = path(first, second, 6)
    np.testing.assert_allclose(images[0], first)
    np.testing.assert_allclose(images[-1], second)
    np.testing.assert_allclose(images[2], 0.6 * first + 0.4 * second)
    found = gradient_correlation(model, images, output=2, statistics="batch", batch_size=4)
    assert found.gradients.shape == (6, 8, 8, 3)
    correlation = found.correlation
    np.testing.assert_allclose(np.diag(correlation), 1)
    assert correlation[0, 1] > correlation[0, 5]
    # A change of the input along the gradient changes the output by its square.
    extractor = gradient_correlation(model, images, output=2).gradients
    step = 1e-3 * extractor / np.linalg.norm(extractor)
    change = np.asarray(model(images + step) - model(images - step))[:, 2]
    assert change.sum() == pytest.approx(2 * np.vdot(extractor, step), rel=0.02)


def nested_classifier():
    keras.utils.set_random_seed(2)
    inner_input = keras.Input((4,))
    inner = keras.Model(
        inner_input,
        keras.layers.Dense(6, "tanh", name="second")(
            keras.layers.Dense(5, "tanh", name="first")(inner_input)
        ),
        name="inner",
    )
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, "softmax", name="third")(inner(inputs))
    return keras.Model(inputs, outputs)


def test_gradient_norms_are_those_of_finite_differences_in_the_order_of_data_flow():
    model = nested_classifier()
    images, labels = RNG.normal(size=(8, 4)), RNG.integers(0, 3, 8)
    found = gradient_norms(model, images, labels)
    assert [each.name for each in found] == ["first", "second", "third"]
    weights = [np.asarray(each, "float64") for each in model.get_weights()]

    def loss(weights):
        x = images
        for kernel, bias in ((weights[0], weights[1]), (weights[2], weights[3])):
            x = np.tanh(x @ kernel + bias)
        logits = x @ weights[4] + weights[5]
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        return -np.mean(np.log(probabilities[np.arange(8), labels]))

    for number, each in enumerate(found):
        kernel = weights[2 * number]

        def at(changed, place=2 * number):
            return np.array(loss([*weights[:place], changed, *weights[place + 1 :]]))

        assert each.gradient == pytest.approx(np.linalg.norm(differences(at, kernel)), rel=1e-4)
        assert each.kernel == pytest.approx(np.linalg.norm(kernel), rel=1e-6)


def test_gradient_norms_of_logits_and_probabilities_are_the_same():
    probabilities = nested_classifier()
    logits = keras.models.clone_model(probabilities)
    logits.set_weights(probabilities.get_weights())
    logits.layers[-1].activation = keras.activations.linear
    images, labels = RNG.normal(size=(8, 4)), RNG.integers(0, 3, 8)
    for one, other in zip(
        *(gradient_norms(model, images, labels) for model in (probabilities, logits)), strict=True
    ):
        assert one.gradient == pytest.approx(other.gradient, rel=1e-4)


def test_gradient_norms_leave_moving_averages_alone():
    model = CIFARResNet(8, input_shape=(8, 8, 3))
    former = model.get_weights()
    images, labels = RNG.normal(size=(4, 8, 8, 3)), np.arange(4)
    found = gradient_norms(model, images, labels)
    assert len(found) == 8  # 7 convolutions and a dense layer: shortcuts A have no weights
    assert all(each.gradient > 0 for each in found)
    for before, after in zip(former, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def whole_numbers():
    inputs = keras.Input((1,), dtype="int32")
    return keras.Model(inputs, keras.layers.Embedding(3, 2)(inputs))


def undifferentiable():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.ops.cast(keras.ops.argmax(inputs, -1), "float32"))


def two_inputs():
    inputs = [keras.Input((2,)), keras.Input((2,))]
    return keras.Model(inputs, keras.layers.Add()(inputs))


@pytest.mark.parametrize(
    ("model", "inputs", "options", "message"),
    [
        (whole_numbers, np.zeros((2, 1)), {}, "takes int32; only with respect to real numbers"),
        (undifferentiable, np.zeros((2, 2)), {}, "does not depend on its input"),
        (two_inputs, np.zeros((2, 2)), {}, "has 2 inputs; it must have one"),
        (normalized_model, np.zeros((1, 2)), {}, "1 given; a correlation needs at least two"),
        (normalized_model, np.zeros((2, 3)), {}, r"shape \(2, 3\); 'sequential\w*' takes"),
        (normalized_model, [["a", "b"]] * 2, {}, "must be numbers"),
        (normalized_model, np.zeros((2, 2)), {"output": 1}, "output=1 must be None or a whole"),
        (normalized_model, np.zeros((2, 2)), {"statistics": "no"}, "statistics='no' must be one"),
        (normalized_model, np.zeros((2, 2)), {"batch_size": 0}, "batch_size=0 must be"),
    ],
)
def test_errors_of_correlations(model, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        gradient_correlation(model(), inputs, **options)


def test_nan_is_no_gradient():
    model = nested_classifier()
    with pytest.raises(ValueError, match="inputs hold NaN or infinity"):
        gradient_correlation(model, np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="there are none"):
        gradient_norms(model, np.zeros((0, 4)), [])
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(ValueError, match="its gradients are NaN or infinite"):
        gradient_correlation(model, np.ones((2, 4)))
    with pytest.raises(ValueError, match="the loss is nan"):
        gradient_norms(model, np.ones((2, 4)), [0, 1])


def test_errors_of_the_rest():
    with pytest.raises(ValueError, match="lags=5 must be below the number of inputs, which is 5"):
        autocorrelation(np.arange(5.0), 5)
    with pytest.raises(ValueError, match=r"first has the shape \(2,\), second \(3,\)"):
        path(np.zeros(2), np.zeros(3), 4)
    with pytest.raises(ValueError, match="steps=1 must be a whole number of at least 2"):
        path(np.zeros(2), np.zeros(2), 1)
    with pytest.raises(ValueError, match="only a functional model"):
        gradient_norms(Subclassed(), np.zeros((2, 2)), [0, 1])
    model = nested_classifier()
    with pytest.raises(ValueError, match="labels from 0 to 3 must be from 0 to 2"):
        gradient_norms(model, np.zeros((2, 4)), [0, 3])
    with pytest.raises(ValueError, match="one for each of the 2 images"):
        gradient_norms(model, np.zeros((2, 4)), [0, 1, 2])
    with pytest.raises(ValueError, match="not those of a classifier; give a loss"):
        gradient_norms(keras.Model(model.inputs, keras.ops.tanh(model.output)), np.eye(4), [0] * 4)
    assert {"gradient_correlation", "gradient_norms"} <= {*analysis.__all__}
