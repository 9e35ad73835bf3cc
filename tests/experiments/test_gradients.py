"""The experiment `gradients`: its theorems on small models, its page, its settings."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_resnet import experiments
from keras_resnet.analysis import autocorrelation, gradient_correlation
from keras_resnet.experiments import gradients, trainings
from keras_resnet.experiments.gradients import (
    GradientSettings,
    fresh_model,
    kernel_correlation,
    moments,
    residual_moments,
    with_error,
)

SMALL = {
    "depths": (2, 4),
    "width": 20,
    "inputs": 20,
    "seeds": 2,
    "photograph_seeds": 1,
    "photograph_depths": (8,),
    "photograph_steps": 16,
}
COMMITTED = Path(__file__).parents[2] / "docs" / "experiments" / "gradients"


def test_theorems_by_hand():
    # Two branches of beta = 1: the variance takes 1 + 1 and 1 + 1/2, the covariance half of each.
    assert residual_moments(3) == pytest.approx((3, 1.5 * 1.25))
    assert residual_moments(1) == (1, 1)
    for depth, beta in [(10, 1.0), (50, 0.1)]:
        assert residual_moments(depth, beta)[0] == pytest.approx(beta**2 * (depth - 1) + 1)
    # For great depth, the covariance is a root of the variance, but for a factor.
    slope = math.log(residual_moments(4000)[1] / residual_moments(1000)[1]) / math.log(4)
    assert slope == pytest.approx(0.5, abs=0.001)
    # Without normalization: right angles lose a half, then the cosine is 1 / pi; 3/4 for a branch.
    assert kernel_correlation(2) == pytest.approx(0.5 * (1 - math.acos(1 / math.pi) / math.pi))
    assert kernel_correlation(2, residual=True) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", [*gradients.THEORY])
def test_fresh_models_have_the_expected_correlation(kind):
    """At four layers of 100 units; each of 12 models has 100 coordinates and 64 x 63 pairs."""
    inputs, found = np.random.default_rng(0).normal(size=(64, 100)), []
    for seed in range(12):
        model = gradients._drawn(seed, kind, 4, 100, 100)
        products = gradient_correlation(model, inputs, statistics="batch", batch_size=64).covariance
        found.append(moments(products))
    variance, covariance = np.mean(found, 0)
    expected = gradients.THEORY[kind](4)
    if kind.startswith("residual-batch"):
        expected = gradients._centred(4, kind)
    # Less than 1 in 10 remains in plain models, and noise is greater beside it.
    assert covariance / variance == pytest.approx(expected, rel=0.3 if "plain" in kind else 0.1)


def test_moments_and_errors_are_those_of_numpy():
    products = np.random.default_rng(0).normal(size=(6, 6))
    beside = products[~np.eye(6, dtype=bool)]
    assert moments(products) == pytest.approx((np.diag(products).mean(), beside.mean()))
    runs = np.random.default_rng(1).normal(size=30)
    assert with_error(np.mean, runs) == pytest.approx((runs.mean(), runs.std(ddof=1) / 30**0.5))


def test_models_are_as_deep_and_drawn_as_said():
    model = trainings.built(0, fresh_model, "residual-batch-0.1", 5, 30)
    dense = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert [layer.kernel.shape for layer in dense] == [(1, 30), *[(30, 30)] * 4, (30, 1)]
    assert [layer.scale for layer in model.layers if "rescaling" in layer.name] == [0.1] * 4
    drawn = [gradients._drawn(seed, "plain", 3, 200, 1).get_weights() for seed in (0, 1, 0)]
    kernel, bias = drawn[0][2], drawn[0][1]
    assert kernel.var() == pytest.approx(2 / 200, rel=0.05)
    assert abs(bias).max() < 1
    assert bias.std() == pytest.approx(1 / 3**0.5, rel=0.15)
    assert not drawn[0][3].any()
    assert np.array_equal(kernel, drawn[2][2])
    assert abs(kernel - drawn[1][2]).max() > 0.01


def test_runs_resumes_and_takes_more_seeds(tmp_path):
    record = experiments.run("gradients", tmp_path, **SMALL)
    printed = json.loads(json.dumps(record.to_json()))
    assert "plain_base" in printed
    assert -1.5 < printed["residual_exponent"] < 0
    files = [*(tmp_path / "results").iterdir()]
    assert {each.stem for each in files} == {"lines-0", "lines-1", "photographs-0"}
    for suffix in ("", ".zh"):
        page = (tmp_path / f"report{suffix}.md").read_text(encoding="utf-8")
        assert "nan" not in page.lower()
        assert "{{" not in page
    # Claims that so small a run does not carry are not made.
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "whether plain and residual models differ cannot be said" in page
    assert "LayerNormalization, whose other choices" not in page
    former = {each: each.stat().st_mtime_ns for each in files}
    more = experiments.run("gradients", tmp_path, **{**SMALL, "seeds": 3})
    assert {each: each.stat().st_mtime_ns for each in files} == former
    assert {*more.results} == {"lines-0", "lines-1", "lines-2", "photographs-0"}
    # What is on the line is what the measure finds there.
    text = record.results["lines-1"]["plain-batch-4"]["gradients"]
    model = gradients._drawn(1, "plain-batch", 4, 20, 1)
    line = np.linspace(-2, 2, 20)[:, None]
    found = gradient_correlation(model, line, statistics="batch").gradients[:, 0]
    np.testing.assert_allclose([float(each) for each in text.split()], found, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 1}, "seeds=1: the spread over seeds needs at least 2"),
        ({"depths": (10,)}, r"depths=\(10,\) must be at least two different ones"),
        ({"depths": (2, 2)}, r"depths=\(2, 2\) must be at least two different ones"),
        ({"depths": (0, 2)}, "depths=0 must be a whole number of at least 1"),
        ({"inputs": 15}, "inputs=15 must be above 15, the longest lag"),
        ({"photograph_steps": 3}, "photograph_steps=3 must be above 15"),
        ({"photograph_depths": (21,)}, "21"),
        ({"width": 0}, "width=0 must be"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        GradientSettings(**changes)


def test_full_settings_fit():
    full = experiments.find("gradients").chosen({}, full=True)
    assert {2, 4, 10, 24, 50} <= {*full.depths}
    assert full.seeds > GradientSettings().seeds


def test_committed_run_shows_what_is_claimed(tmp_path):
    recorded = json.loads((COMMITTED / "experiment.json").read_text())["settings"]
    assert recorded["width"] == 200
    assert recorded["inputs"] == 256
    assert {2, 4, 10, 24, 50} <= {*recorded["depths"]}
    shutil.copytree(COMMITTED / "results", tmp_path / "results")
    shutil.copy(COMMITTED / "experiment.json", tmp_path)
    found = experiments.rebuild(tmp_path).to_json()
    assert found["plain_base"] == pytest.approx(0.5, abs=0.05)
    assert len(found["plain_depths"]) >= 4
    assert found["residual_exponent"] == pytest.approx(-0.5, abs=0.1)
    assert found["residual_exponent"] == pytest.approx(found["residual_exponent_centred"], abs=0.04)
    assert found["residual_against_variance"] == pytest.approx(-0.5, abs=0.05)
    assert found["coactive_plain_batch"] == pytest.approx(0.25, abs=0.005)
    # The order of the published -.054, .605 and .840, of models with LayerNormalization.
    lags = [
        found[f"lag_{kind}"] for kind in ("plain_layer", "residual_layer", "residual_layer_0_1")
    ]
    assert lags == sorted(lags)
    assert lags[0] < 0.3 < 0.5 < lags[1]
    assert found["lag_residual_batch"] < found["lag_residual_layer"]
    # The mean of the page, from the gradients that are kept.
    lines = [
        json.loads(file.read_text())["residual-batch-50"]["gradients"].split()
        for file in (COMMITTED / "results").glob("lines-*.json")
    ]
    by_hand = [autocorrelation(np.array(each, float), 5)[5] for each in lines]
    assert found["lag_residual_batch"] == pytest.approx(np.mean(by_hand))
