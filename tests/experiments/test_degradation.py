import itertools
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keras_resnet import data, experiments
from keras_resnet.experiments.degradation import KINDS

SMALL = dict(depths=(8, 14), images=60, test_images=20, epochs=2, seeds=1, batch_size=20)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("degradation")
    return experiments.run("degradation", folder, data.load("digits"), **SMALL)


def test_plain_and_residual_models_of_a_depth_have_the_same_parameters(record):
    for depth in (8, 14):
        counts = [record.results[f"{kind}-{depth}-0"]["parameters"] for kind in KINDS]
        assert counts[0] == counts[1]


def test_a_seed_gives_the_same_curve_again(record, tmp_path):
    experiment = experiments.find("degradation")
    settings = experiment.chosen({**SMALL, "seeds": 2})
    images = settings.images_of(data.load("digits"))
    trials = {trial.name: trial for trial in experiment.trials(settings)}
    losses = [
        trials[name].work(experiments.Context(images, tmp_path / name))["loss"]
        for name in ("plain-8-0", "plain-8-1")
    ]
    np.testing.assert_allclose(losses[0], record.results["plain-8-0"]["loss"], rtol=1e-4)
    assert losses[1] != losses[0]


@pytest.mark.parametrize(("plain", "residual"), [(0.9, 0.1), (0.1, 0.9)])
def test_what_the_page_says_follows_from_the_errors(record, plain, residual):
    errors = {("plain", 8): 0.5, ("residual", 8): 0.5}
    errors |= {("plain", 14): plain, ("residual", 14): residual}
    results = {
        f"{kind}-{depth}-0": {**record.results[f"{kind}-8-0"], "error": [0.6, last]}
        for (kind, depth), last in errors.items()
    }
    experiment = experiments.find("degradation")
    report = experiment.report(experiment.chosen(SMALL), results)
    assert report.values["plain_rise"] == pytest.approx(plain - 0.5)
    assert report.values["residual_rise"] == pytest.approx(residual - 0.5)
    assert report.values["plain_rises_at_every_step"] == (plain > 0.5)


def test_a_loss_that_is_nan_is_told_with_the_learning_rate_that_was_given(tmp_path):
    changes = {**SMALL, "learning_rate": 3e20}
    with pytest.raises(ValueError, match=r"^learning_rate=3e\+20: the loss became NaN"):
        experiments.run("degradation", tmp_path, data.load("digits"), **changes)
    assert not [*tmp_path.glob("report*"), *tmp_path.glob("results/*")]


def test_depths_that_do_not_fit_are_refused_before_anything(tmp_path):
    with pytest.raises(ValueError, match="6n \\+ 2"):
        experiments.run("degradation", tmp_path, data.load("digits"), depths=(20, 57))
    with pytest.raises(ValueError, match="different depths"):
        experiments.run("degradation", tmp_path, data.load("digits"), depths=(20, 20))
    with pytest.raises(ValueError, match="at least two"):
        experiments.run("degradation", tmp_path, data.load("digits"), depths=(20,))
    assert not [*tmp_path.iterdir()]


def test_a_data_set_of_one_class_is_refused(tmp_path):
    digits = data.load("digits")
    zeros = {
        name: split.take(np.flatnonzero(split.labels == 0)) for name, split in digits.splits.items()
    }
    with pytest.raises(ValueError, match="at least two classes"):
        experiments.run("degradation", tmp_path, replace(digits, class_names=("0",), **zeros))


def test_committed_plain_models_learn_less_with_depth_and_residual_ones_do_not():
    """What the paper claims, of two seeds each: training errors, which overfitting cannot raise."""
    folder = Path(__file__).parents[2] / "docs" / "experiments" / "degradation" / "results"
    ends = defaultdict(list)
    for file in folder.glob("*.json"):
        kind, depth, _ = file.stem.split("-")
        ends[kind, int(depth)].append(json.loads(file.read_text(encoding="utf-8"))["error"][-1])
    depths = (20, 32, 44, 56)
    assert {*ends} == {(kind, depth) for kind in KINDS for depth in depths}
    assert {len(each) for each in ends.values()} == {2}
    for shallow, deep in itertools.pairwise(depths):
        assert min(ends["plain", deep]) > max(ends["plain", shallow]) + 0.02
    assert np.mean(ends["plain", 56]) > np.mean(ends["plain", 20]) + 0.25
    assert np.mean(ends["residual", 56]) < np.mean(ends["residual", 20]) + 0.01
    for depth in depths:
        assert max(ends["residual", depth]) < min(ends["plain", 20])
