"""Thresholds against all that could have been chosen."""

import logging

import numpy as np
import pytest
import sklearn.metrics
from errors import one_line_error

from keras_resnet import analysis

SCORES = {
    "f1": lambda truth, found: sklearn.metrics.f1_score(truth, found, zero_division=0.0),
    "balanced_accuracy": sklearn.metrics.balanced_accuracy_score,
}


def some(seed, images=30, digits=7):
    """Labels and probabilities that have something to do with them; few digits make many equal."""
    random = np.random.default_rng(seed)
    labels = (random.uniform(size=(images, 4)) < [0.1, 0.3, 0.5, 0.9]).astype("float32")
    probabilities = random.beta(1 + 2 * labels, 3)
    return labels, np.round(probabilities, digits).astype("float32")


@pytest.mark.parametrize("rule", SCORES)
@pytest.mark.parametrize("digits", [1, 7])
def test_are_the_best_of_all(rule, digits):
    for seed in range(2):
        labels, probabilities = some(seed, digits=digits)
        chosen = analysis.choose_thresholds(labels, probabilities, rule)
        for truth, found, threshold in zip(labels.T, probabilities.T, chosen, strict=True):
            best = max(SCORES[rule](truth, found > each) for each in np.unique([0.0, *found]))
            assert SCORES[rule](truth, found > threshold) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    ("truth", "found", "threshold"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 0.25),
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], 0.5),  # as good as any between 0.2 and 0.6
        ([0, 1, 0, 1], [0.7, 0.8, 0.8, 0.9], 0.75),
        ([1, 1, 0], [0.1, 0.2, 0.05], 0.075),
        ([1, 1, 0], [0.1, 0.2, 0.0], 0.05),
        ([1, 0], [0.0, 0.0], 0.5),  # which no threshold can find
        ([0, 0], [0.3, 0.9], 0.5),
        ([1, 1], [0.3, 0.9], 0.5),
    ],
)
def test_lie_between_images_and_near_a_half(truth, found, threshold):
    chosen = analysis.choose_thresholds(np.array(truth)[:, None], np.array(found)[:, None])
    assert chosen == pytest.approx((threshold,), abs=1e-12)


def test_of_labels_that_say_nothing_are_told(caplog):
    caplog.set_level(logging.INFO, "keras_resnet")
    labels = np.array([[1, 0], [0, 0]])
    analysis.choose_thresholds(labels, np.array([[0.9, 0.1], [0.2, 0.3]]), class_names=("a", "b"))
    assert [each.message for each in caplog.records] == [
        "None or all of the 2 images have b: the threshold stays 0.5."
    ]


def test_mistakes_are_refused():
    labels, found = some(0)
    with one_line_error("rule='best' must be one of 'f1', 'balanced_accuracy'."):
        analysis.choose_thresholds(labels, found, "best")
    with one_line_error("labels of shape (30, 3) and probabilities of shape (30, 4)"):
        analysis.choose_thresholds(labels[:, :3], found)
