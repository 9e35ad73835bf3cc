import json
from functools import cache

import numpy as np
import pytest

import keras_resnet
from keras_resnet import experiments
from keras_resnet.experiments.paths import EXPERIMENT, PathsSettings

CHANCE, IMAGES = 0.9, 400


def run(kind, without, *, whole=0.1, orders=((1, 0.9, 0.2), (2, 0.5, 0.4)), rise=0.3):
    """What a trial may find in a model of four blocks, of which the third changes the shape."""
    return {
        "whole": whole,
        "chance": CHANCE,
        "measured_on": IMAGES,
        "names": [f"{kind}_{number}" for number in range(4)],
        "sizes": [8, 8, 4, 4],
        "changes": [0, 0, 1, 0],
        "without": without,
        "counts": [1, 2, 4],
        "several": [[whole + rise * step] * 2 for step in (1, 2, 2.5)],
        "swaps": [[0, 1, 0.25], [2, 3, 0.35]],
        "orders": [*map(list, orders)],
        "machine": "one",
        "seconds": 1.0,
    }


RESIDUAL = [0.12, 0.14, 0.3, 0.12]
PLAIN = [None, 0.9, None, 0.88]


def reported(residual, plain, **changes):
    settings = EXPERIMENT.chosen(changes)
    return EXPERIMENT.report(settings, {"residual-20-0": residual, "plain-20-0": plain})


def test_values_are_those_of_the_results():
    values = reported(run("block", RESIDUAL), run("layer", PLAIN)).values
    assert values["residual_without_mean"] == pytest.approx(0.17)
    assert values["residual_without_worst"] == 0.3
    assert values["residual_worst"] == "block_2"
    assert values["residual_worst_changes_shape"]
    assert values["residual_without_changing"] == 0.3
    assert values["residual_without_keeping"] == pytest.approx(0.38 / 3)
    assert values["residual_lost"] == 0
    assert (values["plain_blocks"], values["plain_fixed"]) == (2, 2)
    assert values["plain_lost"] == 1  # 0.88 is within two standard errors of 0.9
    assert values["plain_without_mean"] == pytest.approx(0.89)
    assert (values["residual_half"], values["residual_without_half"]) == (2, pytest.approx(0.7))
    assert values["residual_swapped_mean"] == pytest.approx(0.3)
    assert values["residual_order_and_error"] == pytest.approx(-1)
    # Of the 16 paths, one goes around all blocks and one through all: 14 of 16 are less than 95%.
    assert (values["paths"], values["shortest"], values["longest"]) == (16, 0, 4)


def test_tables():
    tables = reported(run("block", RESIDUAL), run("layer", PLAIN)).tables
    blocks = {(row[0], row[1]): row[2:] for row in tables["blocks"].rows}
    assert blocks["residual-20", "block_2"] == [4, True, 0.3, None]
    assert blocks["plain-20", "layer_0"] == [8, False, None, None]
    assert ["residual-20", "block_2", "block_3", 0.35, None] in tables["swapped"].rows
    model, count, error, deviation = tables["several"].rows[-1]
    assert (model, count, deviation) == ("residual-20", 4, 0)
    assert error == pytest.approx(0.85)


@cache
def page(language, **names):
    from keras_resnet.experiments import pages

    runs = {
        "lost": (run("block", RESIDUAL), run("layer", PLAIN)),
        "reversed": (run("block", [0.9] * 4), run("layer", [None, 0.12, None, 0.12])),
        "alike": (run("block", [0.3] * 4), run("layer", [None, 0.3, None, 0.3])),
        "nothing": (run("block", [0.9] * 4, whole=0.89), run("layer", PLAIN, whole=0.91)),
        "falls": (run("block", RESIDUAL, whole=0.2, rise=-0.05), run("layer", PLAIN)),
    }[names["case"]]
    settings = EXPERIMENT.chosen({})
    facts = dict(settings=settings.recorded(), data="made up", command="", machines=[], seconds=1)
    return pages._markdown("paths", language, reported(*runs), facts)


@pytest.mark.parametrize(
    ("case", "language", "said", "unsaid"),
    [
        ("lost", "en", "does better without a block", "not better than chance here"),
        ("lost", "en", "matter more (30.0% on average)", "do not matter"),
        ("lost", "en", "rise steadily", "though not"),
        ("reversed", "en", "does *not* do better", "does better"),
        ("reversed", "en", "do not matter clearly more", "matter more ("),
        ("alike", "en", "do not differ clearly", "does better"),
        ("nothing", "en", "residual-20 is not better than chance here", "So the residual"),
        ("falls", "en", "do not rise", "rise steadily"),
        ("lost", "zh", "损失小于普通网络", "没有学到什么"),
        ("reversed", "zh", "**并不**小于", "损失小于普通网络"),
        ("nothing", "zh", "没有学到什么", "可见残差网络"),
    ],
)
def test_pages_say_what_the_numbers_carry(case, language, said, unsaid):
    text = page(language, case=case)
    assert said in text
    assert unsaid not in text


def test_weights_of_a_file(tmp_path, monkeypatch):
    """The residual model is loaded, the plain one trained; no folder is written down."""
    from keras_resnet import data
    from keras_resnet.analysis import paths

    monkeypatch.setattr(paths, "_compiled", lambda compute, link: compute)
    digits = data.load("digits")
    size = digits.image_size
    loaded = keras_resnet.CIFARResNet(
        14, input_shape=(size, size, 1), shortcut="A", include_preprocessing=True
    )
    file = tmp_path / "somewhere" / "trained.weights.h5"
    file.parent.mkdir()
    loaded.save_weights(file)
    record = experiments.run(
        "paths",
        tmp_path / "out",
        digits,
        epochs=1,
        images=128,
        test_images=60,
        plain_depth=8,
        draws=1,
        weights={"residual-14": str(file)},
    )
    assert [*record.results] == ["residual-14-loaded", "plain-8-0"]
    assert record.settings["weights"] == {"residual-14": "trained.weights.h5"}
    found = record.results["residual-14-loaded"]
    shown = PathsSettings(test_images=60, images=128).images_of(digits).test
    (batch,) = data.batches(shown, image_size=size, channels=1, batch_size=60)
    images, labels = batch
    wrong = np.asarray(loaded(images)).argmax(-1) != np.asarray(labels)
    assert found["whole"] == pytest.approx(wrong.mean(), abs=1e-6)
    assert len(found["without"]) == 6
    assert "error" not in found
    assert "test_error" in record.results["plain-8-0"]
    written = (tmp_path / "out" / "experiment.json").read_text()
    assert str(tmp_path) not in written
    assert json.loads(written)["settings"]["weights"]
    assert "trained.weights.h5; it was not trained here" in (
        tmp_path / "out" / "report.md"
    ).read_text(encoding="utf-8")
    before = (tmp_path / "out" / "report.zh.md").read_text(encoding="utf-8")
    experiments.rebuild(tmp_path / "out")
    assert (tmp_path / "out" / "report.zh.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "resnet56.th"}, "weights='resnet56.th' must be names with files"),
        ({"weights": {"resnet-56": "a"}}, "at most one file"),
        ({"weights": {"residual-56": "a", "residual-20": "b"}}, "at most one file"),
        ({"weights": {"residual-55": "a"}}, "55"),
        ({"plain_depth": 21}, "21"),
        ({"draws": 0}, "draws=0"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        EXPERIMENT.chosen(changes)
