import numpy as np
import pytest

from keras_resnet import data, experiments, zoo
from keras_resnet.experiments import shortcuts
from keras_resnet.experiments.experiment import Context
from tests.support.errors import one_line_error
from tests.support.experiments_made_up import curve, page_of


def made_up(**errors):
    """Results with two seeds: the given errors, and one percent more."""
    return {
        f"{kind.lower()}-{seed}": curve(error + 0.01 * seed, error + 0.01 * seed)
        for kind, error in errors.items()
        for seed in range(2)
    }


ALIKE = made_up(none=0.501, A=0.503, B=0.502, C=0.5)
APART = made_up(none=0.8, A=0.6, B=0.5, C=0.4)


class TestPage:
    def test_says_what_is_clear(self, tmp_path):
        page, record = page_of(tmp_path, "shortcuts", APART)
        assert (
            "Any shortcut trains better than none: even the worst is ahead by 20.00 percentage"
            in page
        )
        assert (
            "C and highest with A: the difference is 20.00 percentage points. That is more" in page
        )
        assert "| A | 60.5% | 0.7% | 60.5% | 0.7% | 25.0% |" in page
        assert "28.54% (none), 25.03% (A), 24.52% (B), 24.19% (C)" in page
        assert record.to_json()["test_error_between"] == pytest.approx(0.2)
        assert "C is best, ahead of A by 0.84 points. " in page
        page, _ = page_of(tmp_path, "shortcuts", made_up(none=0.8, A=0.4, B=0.5, C=0.6))
        assert "ahead of A by 0.84 points: what is best this early need not be" in page

    def test_says_what_is_within_the_spread(self, tmp_path):
        page, _ = page_of(tmp_path, "shortcuts", ALIKE)
        assert "Not every shortcut trains better than none here" in page
        assert "this run does not rank them" in page
        assert "Any shortcut" not in page
        page, _ = page_of(tmp_path, "shortcuts", made_up(none=0.51, A=0.503, B=0.502, C=0.5))
        assert "ahead of none by 0.70 percentage points only" in page

    def test_of_one_seed_says_so(self, tmp_path):
        page, _ = page_of(tmp_path, "shortcuts", APART, seeds=1)
        assert page.count("With one seed, it cannot be said") == 2

    def test_in_chinese_says_the_same(self, tmp_path):
        page, _ = page_of(tmp_path, "shortcuts", APART, ".zh")
        assert "即使最差的一种也领先 20.00 个百分点" in page
        page, _ = page_of(tmp_path, "shortcuts", ALIKE, ".zh")
        assert "并非每种捷径" in page
        assert "不能给出排名" in page

    def test_without_plain_models_does_not_speak_of_them(self, tmp_path):
        results = made_up(A=0.5, D=0.5)
        page, record = page_of(tmp_path, "shortcuts", results, shortcuts=("A", "D"))
        assert "With or without" not in page
        assert "**D** is later" in page
        assert record.values["error_gap"] is None


@pytest.fixture(scope="module")
def rows():
    """The table of costs: stages, parameters and multiply-adds, by model and shortcut."""
    settings = shortcuts.ShortcutsSettings(
        depth=8, epochs=2, shortcuts=("none", "A", "B", "C", "D")
    )
    results = {**APART, **made_up(D=0.5)}
    table = shortcuts.EXPERIMENT.report(settings, results).tables["costs"]
    return {tuple(row[:2]): row[2:] for row in table.rows}


class TestCosts:
    def test_projections_stand_where_the_paper_has_them(self, rows):
        ours, theirs = "CIFARResNet8", "ResNet34"
        assert rows[ours, "none"][:4] == rows[ours, "A"][:4] == [0, 0, 0, None]
        assert rows[ours, "B"][:4] == rows[ours, "D"][:4] == [0, 1, 1, None]
        assert rows[ours, "C"][:4] == [1, 1, 1, None]
        assert rows[theirs, "B"][:4] == [0, 1, 1, 1]
        assert rows[theirs, "C"][:4] == [3, 4, 6, 3]

    def test_parameters_are_those_of_the_projections(self, rows):
        without = rows["CIFARResNet8", "none"][4]
        added = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # kernels and normalizations
        assert rows["CIFARResNet8", "A"][4] == without
        assert rows["CIFARResNet8", "B"][4] == without + added
        assert rows["CIFARResNet8", "C"][4] == without + added + 16 * 16 + 2 * 16

    @pytest.mark.parametrize("kind", ["A", "C"])
    def test_are_those_of_the_built_model(self, rows, kind):
        model = zoo.CIFARResNet(8, shortcut=kind)
        built = sum(np.prod(each.shape) for each in model.trainable_weights)
        assert rows["CIFARResNet8", kind][4] == built

    def test_multiply_adds_are_those_of_the_projections(self, rows):
        plain, projected = (rows["CIFARResNet8", kind][5] for kind in ("A", "B"))
        assert projected - plain == 16**2 * 16 * 32 + 8**2 * 32 * 64


def test_blocks_are_drawn_as_they_are(tmp_path):
    report = shortcuts.EXPERIMENT.report(shortcuts.ShortcutsSettings(epochs=2), APART)
    texts = [
        {text.get_text().replace("\n", " ") for text in axis.texts if text.get_text()}
        for axis in report.figures["blocks"].axes
    ]
    assert ["identity" in each for each in texts] == [False, True, True, *[False] * 5]
    assert "stride 2 + 16 zeros" in texts[5]
    assert "1x1 16 → 32 stride 2" in texts[6] & texts[7]
    assert "1x1 32 → 32" in texts[3]
    assert "+" not in texts[0] | texts[4]


def test_trains_what_it_says(tmp_path):
    settings = shortcuts.EXPERIMENT.chosen(
        dict(depth=8, epochs=1, images=64, test_images=32, shortcuts=("none", "C"), seeds=1)
    )
    trials = shortcuts.EXPERIMENT.trials(settings)
    assert [trial.name for trial in trials] == ["none-0", "c-0"]
    source = settings.images_of(data.load("digits"))
    found = trials[1].work(Context(source, tmp_path))
    model = zoo.CIFARResNet(8, shortcut="C", input_shape=(8, 8, 1))
    assert found["parameters"] == sum(np.prod(each.shape) for each in model.trainable_weights)
    assert 0 <= found["test_error"][0] <= 1


@pytest.mark.slow
def test_runs(tmp_path):
    record = experiments.run(
        "shortcuts",
        tmp_path,
        data.load("digits"),
        depth=8,
        epochs=4,
        images=600,
        test_images=200,
        shortcuts=("none", "A"),
    )
    assert record.values["A_error"] < 0.8
    assert (tmp_path / "report.zh.html").exists()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (dict(depth=21), ["depth=21", "6n + 2"]),
        (dict(shortcuts=("A",)), ["shortcuts=('A',)", "at least two different ones"]),
        (dict(shortcuts=("A", "E")), ["shortcuts=('A', 'E')", "'none', 'A', 'B', 'C', 'D'"]),
    ],
    ids=str,
)
def test_wrong_settings_are_named(changes, parts):
    with one_line_error(*parts):
        shortcuts.EXPERIMENT.chosen(changes)


def test_full_is_the_schedule_of_the_paper():
    settings = shortcuts.EXPERIMENT.chosen({}, full=True)
    assert (settings.images, settings.batch_size, settings.milestones) == (None, 128, (0.5, 0.75))
    assert settings.shortcuts == ("none", "A", "B", "C", "D")
