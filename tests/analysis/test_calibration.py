import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from keras_resnet.analysis import at_temperature, calibration, fit_temperature

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def sharpened():
    """Labels drawn from probabilities, and these with logits three times as large."""
    logits = RANDOM.normal(0, 1.5, (20_000, 5))
    truth = softmax(logits, -1)
    labels = (truth.cumsum(-1) > RANDOM.random((len(truth), 1))).argmax(-1)
    return labels, truth, softmax(3 * logits, -1)


def test_the_error_is_that_of_a_loop(sharpened):
    labels, _, probabilities = sharpened
    certainty, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    expected = 0.0
    for lower in np.arange(10) / 10:
        inside = (certainty > lower) & (certainty <= lower + 0.1)
        if inside.any():
            expected += inside.mean() * abs(certainty[inside].mean() - right[inside].mean())
    assert calibration(labels, probabilities, bins=10).expected_error == pytest.approx(expected)


def test_of_several_labels_it_is_the_curve_of_scikit_learn():
    probabilities = RANDOM.random((500, 3))
    labels = (RANDOM.random((500, 3)) < probabilities**2).astype(int)
    found = calibration(labels, probabilities, bins=8)
    right, certainty = calibration_curve(labels.ravel(), probabilities.ravel(), n_bins=8)
    np.testing.assert_allclose(found.accuracy, right)
    np.testing.assert_allclose(found.certainty, certainty)


def test_temperature_undoes_what_made_a_model_too_sure(sharpened):
    labels, truth, probabilities = sharpened
    temperature = fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(3, abs=0.1)
    softened = at_temperature(probabilities, temperature)
    np.testing.assert_allclose(softened, truth, atol=0.01)
    assert (softened.argmax(-1) == probabilities.argmax(-1)).all()
    before, after = (calibration(labels, each).expected_error for each in (probabilities, softened))
    assert before > 0.15
    assert after < 0.01


def test_temperature_of_several_labels():
    logits = RANDOM.normal(0, 1, (5000, 2))
    labels = (RANDOM.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(labels, 1 / (1 + np.exp(-logits / 0.5))) == pytest.approx(2, abs=0.1)


def test_certain_predictions_are_no_nan():
    labels, sure = np.array([0, 1, 0, 0]), np.eye(2)[[0, 1, 0, 1]]
    assert np.isfinite(at_temperature(sure, fit_temperature(labels, sure))).all()
    found = calibration(labels, sure)
    assert found.expected_error == found.largest_error == 0.25


def test_several_labels_may_be_floats_as_a_split_has_them():
    labels, found = np.array([[1, 0], [1, 1]]), np.array([[0.9, 0.2], [0.7, 0.6]])
    as_floats = labels.astype("float32")
    assert calibration(as_floats, found).expected_error == calibration(labels, found).expected_error
    assert fit_temperature(as_floats, found) == fit_temperature(labels, found)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([], np.zeros((0, 2))), ([0, 1], [[0.5, 0.5]]), ([0], [0.5]), ([0], [[2.0, -1.0]])],
)
def test_what_does_not_fit_is_refused(labels, probabilities):
    with pytest.raises(ValueError, match="probabilities"):
        calibration(labels, probabilities)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 2], [[0.5, 0.5]] * 2, "labels from 0 to 2 must be from 0 to 1"),
        ([-1], [[0.5, 0.5]], "from 0 to 1"),
        ([0.0], [[0.5, 0.5]], "labels of type float64"),
        ([[0, 2]], [[0.5, 0.5]], "from 0 to 1"),
        ([1, 0], [[0.9], [0.2]], "at least two classes"),
        ([1, 0], [[0.9, 0.8], [0.2, 0.1]], "must sum to 1"),
    ],
)
@pytest.mark.parametrize("function", [calibration, fit_temperature])
def test_what_would_give_a_wrong_number_is_refused(function, labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        function(labels, probabilities)


@pytest.mark.parametrize(("labels", "bound"), [([0, 1], 0.05), ([1, 0], 20)])
def test_a_temperature_out_of_range_is_not_given_without_a_word(labels, bound, caplog):
    found = fit_temperature(labels, [[0.9, 0.1], [0.3, 0.7]])
    assert found == pytest.approx(bound)
    assert f"as when all predictions are right or most are wrong: {bound} is returned." in (
        caplog.text
    )


@pytest.mark.parametrize("options", [(0,), (np.nan,), (1.0, 3)])
def test_temperatures_that_are_none(options):
    with pytest.raises(ValueError, match="must be"):
        at_temperature([[0.9, 0.1]], *options)
    with pytest.raises(ValueError, match="not logits"):
        at_temperature([[3.0, -1.0]], 1.0)


def test_half_precision_is_enough(sharpened):
    labels, truth, _ = sharpened
    exact = calibration(labels, truth).expected_error
    assert calibration(labels, truth.astype("float16")).expected_error == pytest.approx(exact, 0.1)
