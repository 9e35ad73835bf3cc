import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_resnet
from keras_resnet import data, experiments
from keras_resnet.analysis import layer_responses
from keras_resnet.experiments import responses
from keras_resnet.experiments.responses import EXPERIMENT, ResponsesSettings, fraction_below

COMMITTED = Path(__file__).parents[2] / "docs/experiments/responses"


class TestFractionBelow:
    def test_as_many_layers(self):
        assert fraction_below([1.0, 3.0, 2.0], [4.0, 1.5, 2.5]) == 1
        # 3 > 2.9, 2 = 2, 1 < 1.5
        assert fraction_below([1.0, 3.0, 2.0], [2.0, 1.5, 2.9]) == pytest.approx(1 / 3)

    def test_fewer_layers_are_interpolated(self):
        # The line from 3 to 1, at five places: 3, 2.5, 2, 1.5, 1.
        assert fraction_below([2.9, 2.6, 1.9, 1.4, 1.1], [1.0, 3.0]) == pytest.approx(3 / 5)
        assert fraction_below([3.0, 1.0], [1.1, 1.6, 2.1, 2.6, 2.9]) == pytest.approx(1 / 2)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(depths=(21,)), "depth=21"),
            (dict(weights={"residual-8": "a.h5"}), "weights: model 'residual-8' is not known"),
            (dict(weights={"resnet-20": "a.h5"}), "There are plain-20, residual-20, plain-56"),
            (dict(weights="a.h5"), "weights='a.h5' must be names with files"),
            (dict(weihgts={}), "Did you mean weights"),
        ],
    )
    def test_mistakes(self, changes, message):
        with pytest.raises(ValueError, match=message) as error:
            EXPERIMENT.chosen(changes)
        assert "\n" not in str(error.value)

    def test_folders_are_not_written_down(self):
        settings = ResponsesSettings(weights={"residual-20": Path("/home/me/r.th")})
        assert settings.recorded()["weights"] == {"residual-20": "r.th"}

    def test_of_the_paper(self):
        settings = EXPERIMENT.chosen({}, full=True)
        names = [trial.name for trial in EXPERIMENT.trials(settings)]
        assert {"residual-110-2", "plain-56-0"} < {*names}
        assert (settings.epochs, settings.learning_rate) == (164, 0.1)

    def test_what_is_loaded_comes_first(self):
        settings = ResponsesSettings(depths=(8,), weights={"RESIDUAL_8": "no such file"})
        names = [trial.name for trial in EXPERIMENT.trials(settings)]
        assert names == ["residual-8-loaded", "plain-8-0", "residual-8-0"]


def made_up(curves):
    """What trials found, of responses alone."""
    return {
        name: {
            "layers": [f"conv{number}" for number in range(len(curve))],
            "responses": curve,
            "gamma": 1.0,
            "measured_error": 0.5,
        }
        for name, curve in curves.items()
    }


CURVES = {
    "residual-8-loaded": [0.2, 0.1] * 5,
    **{f"residual-8-{seed}": [0.5] * 9 + [1.5] for seed in range(2)},
    "residual-14-0": [0.4] * 9 + [0.6],
    "residual-14-1": [0.4] * 8 + [0.6] * 2,
    **{f"plain-8-{seed}": [1.0] * 10 for seed in range(2)},
    **{f"plain-14-{seed}": [0.55] * 10 for seed in range(2)},
}


class TestReport:
    settings = ResponsesSettings(depths=(8, 14), seeds=2, weights={"residual-8": "x/r8.th"})

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls):
        return EXPERIMENT.report(cls.settings, made_up(CURVES))

    def test_orders(self, report):
        rows = {tuple(row[:2]): row[2:] for row in report.tables["orders"].rows}
        assert rows == {
            # With one layer of ten above, it holds.
            ("residual-8", "plain-8"): [pytest.approx(0.6), pytest.approx(0.9), "yes"],
            # With two, which the second seed has, it does not.
            ("residual-14", "plain-14"): [pytest.approx(0.43 / 0.55), pytest.approx(0.8), "no"],
            ("residual-8-loaded", "plain-8"): [pytest.approx(0.15), 1.0, "yes"],
            ("residual-14", "residual-8"): [pytest.approx(0.43 / 0.6), pytest.approx(0.9), "yes"],
        }

    def test_claims(self, report):
        values = report.values
        assert values["residual_below_plain_loaded"] is True
        assert values["residual_below_plain_trained"] is False
        assert values["deeper_below_shallower_trained"] is True
        assert values["deeper_below_shallower_loaded"] is None  # there is one

    def test_tables(self, report):
        rows = {tuple(row[:3]): row[3:] for row in report.tables["models"].rows}
        assert rows["residual", 8, "r8.th"][:2] == [pytest.approx(0.15), None]
        mean = [statistics.mean(CURVES[f"residual-14-{seed}"]) for seed in range(2)]
        assert rows["residual", 14, None][0] == pytest.approx(statistics.mean(mean))
        assert rows["residual", 14, None][1] == pytest.approx(statistics.stdev(mean))
        layers = report.tables["layers"].rows
        assert len(layers) == sum(map(len, CURVES.values()))
        assert ["residual-8", 1, 10, "conv9", 1.5] in layers


def test_from_weights_to_a_page(tmp_path):
    source = data.load("digits")
    options: dict[str, Any] = dict(depth=8, input_shape=(16, 16, 1), include_preprocessing=True)
    model = keras_resnet.CIFARResNet(shortcut="A", **options)
    model.save_weights(tmp_path / "known.weights.h5")
    changes: dict[str, Any] = dict(depths=(8,), epochs=1, images=64, test_images=50, batch_size=64)
    folder = tmp_path / "out"
    record = experiments.run(
        *("responses", folder, source),
        weights={"residual-8": tmp_path / "known.weights.h5"},
        **changes,
    )
    assert not record.missing
    drawn = ResponsesSettings(**changes).images_of(source).test
    batches = data.batches(drawn, image_size=16, channels=1)
    found = record.results["residual-8-loaded"]
    np.testing.assert_allclose(
        found["responses"], layer_responses(model, batches).deviations, rtol=1e-5
    )
    assert found["gamma"] == 1
    assert len(record.results["plain-8-0"]["responses"]) == 7
    files = (each for each in folder.rglob("*") if each.is_file())
    texts = {each: each.read_text(encoding="utf-8") for each in files}
    assert not [each for each, text in texts.items() if str(tmp_path) in text]
    page = texts[folder / "report.md"]
    assert "known.weights.h5" in page
    assert "akamaster" not in page  # which is about other files
    assert experiments.rebuild(folder).values == record.values


def test_a_file_that_is_not_there_stops_at_once(tmp_path):
    weights = {"residual-8": tmp_path / "none.weights.h5"}
    with pytest.raises((OSError, ValueError), match=r"none\.weights\.h5"):
        experiments.run(
            *("responses", tmp_path / "out", data.load("digits")),
            depths=(8,),
            images=64,
            test_images=50,
            weights=weights,
        )
    assert not [*tmp_path.glob("out/results/*")]


class TestCommitted:
    """The run whose page is in docs: files of the zoo, and plain models that were trained here."""

    @pytest.fixture(scope="class")
    @classmethod
    def results(cls):
        files = (COMMITTED / "results").glob("*.json")
        return {each.stem: json.loads(each.read_text(encoding="utf-8")) for each in files}

    @pytest.mark.parametrize(
        ("below", "above"),
        [
            ("residual-20-loaded", "plain-20-0"),
            ("residual-56-loaded", "plain-56-0"),
            ("residual-56-loaded", "residual-20-loaded"),
            # By one schedule for all.
            ("residual-20-0", "plain-20-0"),
            ("residual-56-0", "plain-56-0"),
        ],
    )
    def test_orders_of_the_paper(self, results, below, above):
        below, above = (results[each]["responses"] for each in (below, above))
        assert np.mean(below) < np.mean(above)
        assert fraction_below(below, above) >= responses.MOST

    def test_what_does_not_hold_is_said(self, results):
        deep, shallow = (results[f"residual-{depth}-0"]["responses"] for depth in (56, 20))
        assert fraction_below(deep, shallow) < responses.MOST
        page = (COMMITTED / "report.md").read_text(encoding="utf-8")
        assert 'and "deeper below shallower" does not hold' in page

    def test_are_of_all_layers(self, results):
        for name, found in results.items():
            assert len(found["responses"]) == int(name.split("-")[1]) - 1

    @pytest.mark.slow
    @pytest.mark.parametrize("depth", [20, 56])
    def test_files_of_the_zoo_again(self, assets, results, depth):
        (file,) = (assets / "cifar_resnet").glob(f"resnet{depth}-*.th")
        model = keras_resnet.CIFARResNet(
            depth, weights=file, shortcut="A", include_preprocessing=True
        )
        source = data.load(str(assets / "cifar10_jpeg_*.tfrecord.gz"))
        settings = json.loads((COMMITTED / "experiment.json").read_text(encoding="utf-8"))
        drawn = ResponsesSettings(test_images=settings["settings"]["test_images"]).images_of(source)
        found = layer_responses(model, data.batches(drawn.test, image_size=32, batch_size=50))
        known = results[f"residual-{depth}-loaded"]
        assert [*found.names] == known["layers"]
        np.testing.assert_allclose(found.deviations, known["responses"], rtol=1e-4)
