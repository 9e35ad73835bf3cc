"""Tasks: what can be learned from labels."""

import numpy as np
import pytest
from errors import one_line_error

from keras_resnet import data, training


def source_of(values):
    split = data.Split(np.zeros((len(values), 8, 8, 3), "uint8"), np.array(values, "float64"))
    return data.Source("values", ("value",), 3, 8, "none", split, split, split, task="regression")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([2.5, 2.5, 2.5], "all training images have the same value"),
        ([1e37, 2e38, 3e38], "too large or too small to compute with in float32"),
        ([1e-37, 2e-37, 0.0], "too large or too small to compute with in float32"),
        ([1.7e9, 1.7e9 + 1000, 1.7e9 + 2000], "subtract a constant"),
    ],
)
def test_numbers_that_float32_cannot_hold_are_refused(values, reason):
    source = source_of(values)
    with one_line_error(reason):
        training.task_of(source).objective(source, training.Recipe())


@pytest.mark.parametrize("values", [[-1e20, 0.0, 1e20], [1e-20, 2e-20, 0], [1e5, 1e5 + 10, 1e5]])
def test_loss_of_numbers_is_in_units_of_their_variance(values):
    source = source_of(values)
    objective = training.task_of(source).objective(source, training.Recipe())
    labels = source.train.labels
    mean = np.full((3, 1), labels.mean(dtype="float64"), "float32")
    assert np.mean(objective.loss(labels, mean)) == pytest.approx(1, rel=1e-2)
