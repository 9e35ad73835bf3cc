import numpy as np
import pytest
from scipy.stats import tukey_hsd

from keras_resnet.experiments import comparing
from tests.support.errors import one_line_error


@pytest.mark.parametrize(("kinds", "seeds"), [(2, 2), (5, 2), (4, 3)])
def test_the_least_difference_is_that_of_tukeys_test(kinds, seeds):
    runs = np.random.default_rng(kinds * seeds).normal(size=(kinds, seeds))
    runs -= runs.mean(1, keepdims=True)  # kinds that are all alike ...
    runs[0] += comparing.least_difference(runs)  # ... but for one
    assert tukey_hsd(*runs).pvalue[0, 1] == pytest.approx(0.05, abs=1e-6)


def test_one_seed_has_no_spread():
    assert comparing.least_difference([[1.0], [2.0]]) is None
    told = comparing.values({"error": {"a": [0.1], "b": [0.9]}})
    assert told["error_between"] == pytest.approx(0.8)
    assert told["error_between_is_clear"] is False


def test_what_is_clear_is_more_than_the_spread():
    found = {
        "error": {"none": [0.80, 0.82], "A": [0.50, 0.52], "B": [0.51, 0.49], "C": [0.52, 0.53]}
    }
    told = comparing.values(found, without="none")
    assert (told["error_best"], told["error_worst"]) == ("B", "C")
    assert told["error_of_best"] == told["B_error"] == pytest.approx(0.5)
    assert told["error_between"] == pytest.approx(0.025)
    assert told["error_gap"] == pytest.approx(0.81 - 0.525)
    assert told["error_between"] < told["error_least_difference"] < told["error_gap"]
    assert (told["error_between_is_clear"], told["error_gap_is_clear"]) == (False, True)
    assert comparing.values({"error": {"A": [0.1, 0.1], "B": [0.2, 0.2]}})["error_gap"] is None


def test_rows_are_means_and_deviations():
    found = comparing.ends(
        {"A": [{"error": [0.9, 0.2], "test_error": [0.9, error]} for error in (0.3, 0.5)]}
    )
    ((kind, *numbers),) = comparing.rows(found)
    assert kind == "A"
    assert numbers == pytest.approx([0.2, 0.0, 0.4, 0.02**0.5])


def test_figures_show_every_run():
    found = {
        "error": {"A": [0.2, 0.4], "B": [0.1, 0.1]},
        "test_error": {"A": [0.5, 0.5], "B": [0.3, 0.4]},
    }
    drawn = comparing.by_kind(
        found, {"they": {"B": 7.0}}, kinds="kind", ours="error, %", theirs="theirs, %"
    )
    ours, theirs = drawn.axes
    training, test = (
        np.asarray(line.get_ydata()) for line in ours.lines if line.get_marker() == "o"
    )
    np.testing.assert_allclose(training, [30, 10])
    np.testing.assert_allclose(test, [50, 35])
    (mark,) = theirs.lines
    assert np.asarray(mark.get_xydata()).tolist() == [[1, 7.0]]
    assert [label.get_text() for label in theirs.get_xticklabels()] == ["A", "B"]


@pytest.mark.parametrize("kinds", [("A",), ("A", "A", "B"), ("A", "E"), ["A", "B"], "AB", None])
def test_fewer_than_two_kinds_cannot_be_compared(kinds):
    with one_line_error(f"shortcuts={kinds!r}", "at least two different ones of 'A', 'B', 'C'"):
        comparing.check_compared("ABC", shortcuts=kinds)
