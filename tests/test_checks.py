import math

import numpy as np
import pytest
from errors import one_line_error

from keras_resnet import checks

CROP = "above 0 and at most 1."


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("count", [1, 7, np.int64(3)]),
        ("index", [0, np.uint8(5)]),
        ("crop", [1, 1.0, 0.875, np.float32(0.5)]),
        ("dropout", [0, 0.0, 0.999]),
        ("agreement", [0, 1]),
        ("milestone", [0.5]),
        ("nonnegative", [0, 1e9]),
        ("limit", [0.1, math.inf]),
        ("number", [-3, 0.5]),
    ],
)
def test_numbers_within_a_range_pass(kind, numbers):
    for number in numbers:
        checks.check_range(kind, number=number)
        assert checks.is_within(kind, number)


@pytest.mark.parametrize(
    ("kind", "number", "wording"),
    [
        ("count", 0, "a whole number of at least 1."),
        ("count", 2.0, "a whole number of at least 1."),
        ("count", True, "a whole number of at least 1."),
        ("count", "3", "a whole number of at least 1."),
        ("index", -1, "a whole number of at least 0."),
        ("crop", 0, CROP),
        ("crop", 1.5, CROP),
        ("crop", math.nan, f"a number {CROP}"),
        ("crop", True, f"a number {CROP}"),
        ("crop", "half", f"a number {CROP}"),
        ("crop", None, f"a number {CROP}"),
        ("validation", 1, "at least 0 and below 1."),
        ("dropout", "low", "a number of at least 0 and below 1."),
        ("positive", math.inf, "a number above 0."),
        ("limit", 0, "above 0."),
        ("number", math.nan, "a number."),
        ("number", [1], "a number."),
    ],
)
def test_others_are_named_with_what_is_allowed(kind, number, wording):
    with one_line_error(f"argument={number!r} must be {wording}"):
        checks.check_range(kind, argument=number)
    assert not checks.is_within(kind, number)


def test_the_first_wrong_argument_is_named():
    with one_line_error("keep=0"):
        checks.check_positive(epochs=1, keep=0, workers=0)


def test_none_passes_where_it_is_allowed():
    checks.check_range("count", optional=True, patience=None)
    with one_line_error("patience=0"):
        checks.check_range("count", optional=True, patience=0)


@pytest.mark.parametrize("value", ["min", None, True, ["avg"], np.array(["avg"])])
def test_what_is_no_choice_is_named_with_the_choices(value):
    checks.check_choice(("avg", "max"), pooling="max")
    with one_line_error("pooling=", "must be one of 'avg', 'max'."):
        checks.check_choice(("avg", "max"), pooling=value)
