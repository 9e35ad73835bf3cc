"""Settings of all experiments, given what does not belong there."""

import dataclasses
import json

import numpy as np
import pytest

from keras_resnet.experiments import run
from keras_resnet.experiments.table import EXPERIMENTS, find

WRONG = [
    *(-1, 2.5, True, float("nan"), float("inf"), "fast", ""),
    *({"a": 1}, [{}], ["a"], ["a", 2], [2.5], [True], [float("nan")], [[1, 2]], [-3, 14]),
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_value_that_does_not_fit_is_named(name):
    experiment = find(name)
    for setting in dataclasses.fields(experiment.settings):
        refused = list(_refusals(experiment, setting.name))
        assert all(setting.name in message and "\n" not in message for message in refused)
        # A learning rate, unlike a count, may be 2.5.
        assert len(refused) >= len(WRONG) - 1, setting.name


def _refusals(experiment, setting):
    for value in WRONG:
        try:
            experiment.chosen({setting: value})
        except ValueError as error:
            yield str(error)


def test_numbers_of_numpy_are_pythons():
    found = find("gradients").chosen({"seeds": np.int64(3), "depths": [np.int64(2), np.int32(4)]})
    assert json.loads(json.dumps(found.recorded()))["depths"] == [2, 4]
    assert type(found.seeds) is int


def test_a_name_of_data_is_no_source(tmp_path):
    with pytest.raises(ValueError, match=r"source='digits' must be a Source, as data\.load makes"):
        run("degradation", tmp_path / "out", "digits")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("degradation", {"learning_rate": "fast"}, "learning_rate='fast' must be a number above 0"),
        ("degradation", {"learning_rate": -1}, "learning_rate=-1 must be above 0"),
        ("paths", {"plain_depth": 9}, "plain_depth: depth=9 must be 6n"),
        ("gradients", {"photograph_depths": [9]}, "photograph_depths: depth=9 must be 6n"),
        ("gradients", {"depths": [2, "a"]}, "depths='a' must be a whole number"),
        ("shortcuts", {"shortcuts": ["A", {}]}, "two different ones of 'none', 'A'"),
        ("responses", {"weights": {"residual-20": 5}}, "weights=.*must be names with files"),
        ("paths", {"weights": {"residual-56": None}}, "weights=.*must be names with files"),
        ("batch-norm", {"momenta": [{}]}, "momenta={} must be a number"),
    ],
)
def test_says_what_is_allowed(name, changes, message):
    with pytest.raises(ValueError, match=message):
        find(name).chosen(changes)
