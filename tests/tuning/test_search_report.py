import csv
import html.parser
import re

import browsing
import numpy as np
import PIL.Image
import pytest
from errors import one_line_error
from hypothesis import given
from hypothesis import strategies as st

from keras_resnet.tuning import report
from keras_resnet.tuning.importance import FEWEST, importance
from keras_resnet.tuning.records import SearchRecord, TrialRecord, best, pareto_front


def trial(number, score, macs=5_000_000, epochs=8, **values):
    return TrialRecord(number, values, "completed", score, 77_000, macs, epochs, 9.5)


def failed(number, message, **values):
    return TrialRecord(number, values, "failed", None, 90_000, 7_000_000, 8, 0.0, message=message)


def search(trials, objective="val_accuracy", direction="max"):
    return SearchRecord(objective, direction, "random", "params=300000", 17, 4000.0, trials)


def numbers(trials):
    return [trial.number for trial in trials]


def written(folder, record):
    report.write_report(folder, record)
    assert sorted(path.name for path in folder.iterdir()) == [
        "pareto.png",
        "report.html",
        "trials.csv",
    ]
    return Page((folder / "report.html").read_text(encoding="utf-8"))


class Page(html.parser.HTMLParser):
    """A page's elements and text; every element that is opened must be closed."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.texts, self._open = source, [], {}, []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "wbr", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        where = self._open[-1] if self._open else ""
        self.texts.setdefault(where, []).append(data)

    @property
    def text(self):
        return " ".join(
            text
            for tag, texts in self.texts.items()
            if tag not in ("style", "script")
            for text in texts
        )


class TestRecords:
    def test_refuse_an_unknown_status(self):
        with one_line_error("status='stopped'", "'completed' or 'failed'"):
            TrialRecord(1, {}, "stopped", None, 1, 1, 1, 1.0)

    @pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
    def test_refuse_a_completed_trial_without_a_score(self, score):
        with one_line_error(f"score={score!r}", "finite"):
            trial(1, score)

    def test_refuse_an_unknown_direction(self):
        with one_line_error("direction='up'", "'max' or 'min'"):
            search([], direction="up")


class TestBest:
    trials = (trial(1, 0.5, 9), trial(2, 0.7, 9), failed(3, ""), trial(4, 0.7, 8))

    def test_is_the_highest_accuracy_and_of_equals_the_cheapest(self):
        assert numbers(best(search(self.trials))) == [4, 2, 1]

    def test_is_the_lowest_loss(self):
        assert numbers(best(search(self.trials, "val_loss", "min"))) == [1, 4, 2]


class TestParetoFront:
    # Few different numbers, so that there are ties.
    @given(
        st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=12),
        st.sampled_from(["max", "min"]),
    )
    def test_is_what_nothing_dominates(self, pairs, direction):
        trials = [trial(n, score / 6, macs) for n, (score, macs) in enumerate(pairs, start=1)]
        sign = 1 if direction == "max" else -1
        merits = [(sign * trial.score, -trial.macs) for trial in trials]
        expected = [
            trial.number
            for trial, mine in zip(trials, merits, strict=True)
            if not any(o[0] >= mine[0] and o[1] >= mine[1] and o != mine for o in merits)
        ]
        front = pareto_front(search([*trials, failed(99, "")], direction=direction))
        assert sorted(numbers(front)) == expected
        assert [trial.macs for trial in front] == sorted(trial.macs for trial in front)


def drawn(count, score, seed=0, epochs=lambda values: 8):
    """Random trials of a search space with all kinds of choices."""
    rng, trials = np.random.default_rng(seed), []
    for number in range(1, count + 1):
        values = {
            "block": str(rng.choice(["basic", "bottleneck"])),
            "depth": int(rng.integers(1, 9)),
            "learning_rate": float(10 ** rng.uniform(-3, 0)),
            "zero_init": bool(rng.integers(2)),
            "shortcut": str(rng.choice(["A", "B", "C"])),
        }
        if values["block"] == "bottleneck":
            values["cardinality"] = int(rng.choice([1, 8, 32]))
        trials.append(trial(number, score(values, rng), epochs=epochs(values), **values))
    return search(trials)


class TestImportance:
    @pytest.mark.parametrize(
        ("name", "effect"),
        [
            ("shortcut", lambda values: values["shortcut"] == "B"),
            ("zero_init", lambda values: values["zero_init"]),
            ("depth", lambda values: values["depth"] / 8),
            ("learning_rate", lambda values: -abs(np.log10(values["learning_rate"]) + 1.5)),
        ],
    )
    def test_finds_the_choice_that_mattered(self, name, effect):
        found = importance(
            drawn(30, lambda values, rng: 0.7 + 0.1 * effect(values) + rng.normal(0, 0.02))
        )
        assert found.beyond_chance
        assert found.nets == 30
        assert 0.3 < found.explained < 1
        assert found.choices[0].name == name
        assert found.choices[0].share > 0.8
        assert min(choice.share for choice in found.choices) >= 0
        assert sum(choice.share for choice in found.choices) == pytest.approx(1)

    def test_shares_the_credit(self):
        def score(values, rng):
            large, small = values["zero_init"], values["block"] == "basic"
            return 0.7 + 0.2 * large + 0.1 * small + rng.normal(0, 0.01)

        first, second, *others = importance(drawn(50, score)).choices
        assert (first.name, second.name) == ("zero_init", "block")
        # Variances add up: four to one.
        assert 0.65 < first.share < 0.9
        assert 0.1 < second.share < 0.35
        assert sum(choice.share for choice in others) < 0.05

    @pytest.mark.parametrize("count", [10, 20, 50])
    def test_claims_nothing_of_noise(self, count):
        claims, explained = 0, []
        for seed in range(6):
            found = importance(drawn(count, lambda values, rng: rng.normal(0.7, 0.05), seed=seed))
            explained.append(found.explained)
            claims += found.beyond_chance
            if not found.beyond_chance:
                assert {choice.share for choice in found.choices} == {0}
        assert claims <= 1
        assert np.median(explained) < 0

    def test_claims_nothing_that_shuffled_scores_are_explained_by_as_well(self):
        # By chance, some of the variance is explained.
        found = importance(drawn(10, lambda values, rng: rng.normal(0.7, 0.05), seed=144))
        assert 0 < found.explained <= found.chance
        assert not found.beyond_chance

    def test_does_not_take_epochs_for_a_choice(self):
        # Deep models happened to be trained for longer, and longer training is all that helps.
        def epochs(values):
            return 27 if values["depth"] > 5 else 9 if values["depth"] > 2 else 3

        def score(values, rng):
            return 0.5 + 0.1 * np.log(epochs(values)) + rng.normal(0, 0.01)

        record = drawn(40, score, epochs=epochs)
        assert not importance(record).beyond_chance
        # Nor where nothing but rounding is left.
        exact = drawn(40, lambda values, rng: 0.5 + 0.1 * np.log(epochs(values)), epochs=epochs)
        found = importance(exact)
        assert not found.beyond_chance
        gains = [marginal.gain for choice in found.choices for marginal in choice.marginals]
        assert gains == pytest.approx([0] * len(gains), abs=1e-9)

    def test_sees_through_the_rounds_of_hyperband(self):
        def score(values, rng):
            return 0.6 + 0.1 * (values["shortcut"] == "B") + rng.normal(0, 0.01)

        first = drawn(24, score, epochs=lambda values: 3).trials
        promoted = best(search(first))[:8]
        later = [
            trial(number, 0.9, epochs=9, **before.values)
            for number, before in enumerate(promoted, start=25)
        ]
        found = importance(search([*first, *later]))
        # A model that was trained twice is one model, and its later score cannot be compared.
        assert found == importance(search(first))
        assert found.nets == 24
        assert found.beyond_chance
        assert found.choices[0].name == "shortcut"

    def test_models_that_cannot_be_compared_are_left_out(self):
        def score(values, rng):
            return rng.normal()

        trials = drawn(12, score).trials
        alone = trial(13, 0.9, epochs=99, depth=99, block="basic")
        assert importance(search([*trials, alone])) == importance(search(trials))

    def test_a_condition_takes_the_credit_for_what_depends_on_it(self):
        def score(values, rng):
            return 0.7 + 0.1 * (values["block"] == "basic") + rng.normal(0, 0.01)

        found = importance(drawn(40, score))
        shares = {choice.name: choice.share for choice in found.choices}
        assert found.choices[0].name == "block"
        assert shares["cardinality"] < 0.05

    def test_a_conditional_choice_matters_where_it_is_active(self):
        def score(values, rng):
            return 0.7 + 0.1 * (values.get("cardinality") == 32) + rng.normal(0, 0.01)

        record = drawn(50, score)
        found = importance(record)
        choice = found.choices[0]
        assert choice.name == "cardinality"
        active = [trial for trial in record.trials if "cardinality" in trial.values]
        assert [marginal.value for marginal in choice.marginals] == ["1", "8", "32"]
        assert sum(marginal.nets for marginal in choice.marginals) == len(active) < 50

    def test_marginals_are_means_by_hand(self):
        trials = [
            trial(n, n / 10, epochs=1 if n < 5 else 2, depth=n + (n > 4), shortcut="AB"[n > 4])
            for n in range(1, 10)
        ]
        choices = {choice.name: choice for choice in importance(search(trials)).choices}
        assert set(choices) == {"depth", "shortcut"}
        thirds = choices["depth"].marginals
        assert [marginal.value for marginal in thirds] == ["1 to 3", "4 to 7", "8 to 10"]
        assert [marginal.nets for marginal in thirds] == [3, 3, 3]
        assert [m.score for m in thirds] == pytest.approx([0.2, 0.5, 0.8])
        assert [m.gain for m in thirds] == pytest.approx([-0.05, -0.05, 0.1])
        named = choices["shortcut"].marginals
        assert [(marginal.value, marginal.nets) for marginal in named] == [("A", 4), ("B", 5)]
        assert [m.score for m in named] == pytest.approx([0.25, 0.7])
        assert [m.gain for m in named] == pytest.approx([0, 0], abs=1e-9)

    def test_is_silent_with_few_models(self):
        def score(values, rng):
            return values["depth"]

        assert importance(drawn(FEWEST, score)).explained is not None
        few = importance(drawn(FEWEST - 1, score))
        assert (few.nets, few.explained, few.beyond_chance, few.choices) == (7, None, False, ())
        # The same model many times over is one model.
        again = [trial(n, n / 20, depth=n % 2) for n in range(1, 20)]
        assert importance(search(again)).explained is None

    def test_without_a_choice_is_silent(self):
        assert importance(search([])).choices == ()
        assert importance(search([trial(n, n / 20) for n in range(20)])).choices == ()

    def test_equal_scores_leave_nothing_to_explain(self):
        for score in (0.0, 0.7):
            found = importance(drawn(12, lambda values, rng, score=score: score))
            assert (found.explained, found.beyond_chance) == (0, False)

    def test_is_the_same_again(self):
        record = drawn(16, lambda values, rng: rng.normal())
        assert importance(record) == importance(record)


class TestTable:
    def test_shows_the_best_and_what_differs(self):
        trials = [
            trial(1, 0.875, block="basic", stem="cifar", learning_rate=0.123456),
            trial(2, 0.9375, 2_500_000_000, block="bottleneck", stem="cifar", cardinality=32),
            trial(3, 0.5, block="basic", stem="cifar", zero=True),
            failed(4, "", block="basic", other=1),
        ]
        columns, rows = report.table(search(trials), limit=2)
        assert columns == [
            *("rank", "trial", "score", "parameters", "multiply-adds", "epochs", "seconds"),
            *("block", "cardinality", "learning_rate", "zero"),
        ]
        assert rows == [
            ["1", "2", "93.75%", "77,000", "2.50 G", "8", "10", "bottleneck", "32", "", ""],
            ["2", "1", "87.50%", "77,000", "5.0 M", "8", "10", "basic", "", "0.123", ""],
        ]

    def test_shows_losses_as_they_are_and_milliseconds_if_measured(self):
        timed = TrialRecord(1, {}, "completed", 0.123456, 1, 10**6, 3, 4.0, 12.345)
        columns, (row,) = report.table(search([timed], "val_loss", "min"))
        assert row[2] == "0.1235"
        assert row[columns.index("ms")] == "12.3"

    def test_of_nothing_is_empty(self):
        columns, rows = report.table(search([failed(1, "")]))
        assert rows == []
        assert "score" in columns

    def test_refuses_a_limit_of_nothing(self):
        with one_line_error("limit=0", "at least 1"):
            report.table(search([]), limit=0)


class TestParetoPlot:
    def test_is_a_picture_of_completed_trials(self, tmp_path):
        completed = [trial(1, 0.5, 10**6, block="basic"), trial(2, 0.9, 10**8, block="$x$_")]
        for name, trials in [("both", completed), ("failed too", [*completed, failed(3, "")])]:
            report.pareto_plot(tmp_path / name, search(trials))
        report.pareto_plot(tmp_path / "one", search(completed[:1]))
        pictures = {}
        for path in tmp_path.iterdir():
            with PIL.Image.open(path) as image:
                assert image.format == "PNG"
                pictures[path.name] = np.asarray(image.convert("RGB")).astype(int)
        # The colours of the two kinds of blocks.
        for colour, name in [((0, 114, 178), "one"), ((213, 94, 0), "both")]:
            near = np.abs(pictures[name] - colour).sum(axis=-1) < 60
            assert near.any()
        assert (pictures["both"] == pictures["failed too"]).all()
        assert (pictures["both"] != pictures["one"]).any()

    def test_of_nothing_says_so(self, tmp_path):
        report.pareto_plot(tmp_path / "none.png", search([]))
        assert (tmp_path / "none.png").exists()


class TestWriteReport:
    trials = (
        trial(1, 0.875, block="basic", depth=3, learning_rate=0.1234567890123),
        trial(2, 0.9375, 9_000_000, block="bottleneck", depth=5, cardinality="32x4d"),
        failed(3, 'out of memory, "all" of it\nand <script>alert("1")</script>', block="<b>&"),
        failed(4, "the loss is nan", block="basic", zero=True),
        failed(5, "the loss is nan", block="basic"),
    )

    def test_has_every_trial_in_the_csv_file(self, tmp_path):
        written(tmp_path, search(self.trials))
        with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = ("block", "depth", "learning_rate", "cardinality", "zero")
        assert len(rows) == len(self.trials)
        for row, one in zip(rows, self.trials, strict=True):
            facts = ("number", "status", "parameters", "macs", "epochs", "seconds", "message")
            for fact in facts:
                assert row[fact] == str(getattr(one, fact))
            assert row["score"] == ("" if one.score is None else repr(one.score))
            assert row["milliseconds"] == ""
            for name in names:
                assert row[name] == str(one.values.get(name, ""))
        assert set(rows[0]) == {*facts, "score", "milliseconds", *names}

    def test_is_a_page_that_needs_nothing_else(self, tmp_path):
        page = written(tmp_path, search(self.trials))
        assert page.tags.count("svg") == 1
        assert not {"img", "iframe", "image", "object"} & set(page.tags)
        assert "src=" not in page.source
        assert re.findall("<link[^>]*>", page.source) == ['<link rel="icon" href="data:,">']
        source = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source)
        assert not re.search(r"(?i)https?:|//\w|@import|url\((?!#)|<!DOCTYPE svg|<\?xml", source)

    def test_says_what_was_searched_and_found(self, tmp_path):
        page = written(tmp_path, search(self.trials))
        for fact in (
            *("val_accuracy", "random", "params=300000", "17 models over it declined"),
            *("2 completed, 3 failed", "1 h 7 min", "93.75%", "cardinality=32x4d"),
            *("77,000 parameters", "9.0 M multiply-adds", "Too few trials"),
        ):
            assert fact in page.text
        # The same failure is reported once.
        assert page.text.count("the loss is nan") == 1
        assert "4, 5" in page.text

    def test_escapes_values_and_messages(self, tmp_path):
        page = written(
            tmp_path,
            SearchRecord(
                *("val_accuracy", "max", "<i>", "<u>", 0, 1.0),
                [*self.trials, trial(6, 0.99, **{"block": "<script>", "<em>": '"</title><s>'})],
            ),
        )
        assert not {"b", "i", "u", "em", "s"} & set(page.tags)
        assert page.tags.count("script") == 1  # sorts tables
        assert '<script>alert("1")</script>' in page.text
        assert "block=<script>" in page.text

    def test_names_trials_at_their_points(self, tmp_path):
        page = written(tmp_path, search(self.trials))
        tips = [text for text in page.texts["title"] if text.startswith("trial ")]
        assert len(tips) == 2
        assert "trial 2, val_accuracy 93.75%" in tips[0]
        assert "cardinality=32x4d" in tips[0]

    def test_says_which_choices_mattered(self, tmp_path, monkeypatch):
        record = drawn(30, lambda values, rng: 0.5 + values["depth"] / 20 + rng.normal(0, 0.02))
        found = importance(record)
        monkeypatch.setattr(report, "importance", lambda record: found)
        page = written(tmp_path, record)
        assert f"The choices explain {found.explained:.0%} of the variance" in page.text
        assert page.source.count("--share:") == len(found.choices)
        for choice in found.choices:
            for marginal in choice.marginals:
                assert marginal.value in page.text
        lines = report.summary(record).splitlines()
        assert any(f"depth {found.choices[0].share:.0%}" in line for line in lines)

    def test_says_that_choices_explain_nothing(self, tmp_path):
        record = drawn(20, lambda values, rng: rng.normal(0.7, 0.05))
        page = written(tmp_path, record)
        assert "No choice mattered more than chance would explain" in page.text
        assert "--share:" not in page.source
        assert "No choice mattered more than chance would explain" in report.summary(record)

    @pytest.mark.parametrize("trials", [(), trials[2:]])
    def test_says_that_no_trial_completed(self, tmp_path, trials):
        page = written(tmp_path, search(trials))
        assert "No trial completed." in page.text
        assert "svg" not in page.tags
        lines = report.summary(search(trials)).splitlines()
        assert 5 <= len(lines) <= 8
        assert "Best: none, no trial completed." in lines

    def test_replaces_an_earlier_report_and_keeps_it_if_it_fails(self, tmp_path, monkeypatch):
        written(tmp_path, search(self.trials[:1]))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def fail(record):
            raise RuntimeError("no more")

        with monkeypatch.context() as patch:
            patch.setattr(report, "_plot", fail)
            for folder in (tmp_path, tmp_path / "new"):
                with pytest.raises(RuntimeError, match="no more"):
                    report.write_report(folder, search(self.trials))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        written(tmp_path, search(self.trials))
        after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert all(after[name] != before[name] for name in before)

    def test_fits_windows_of_all_widths(self, tmp_path):
        trials = [
            trial(n, 0.5 + n / 99, 10**6 * n, depth=n, **{f"a_choice_of_{i}": n for i in range(9)})
            for n in range(12)
        ]
        page = written(tmp_path / "run", search([*trials, failed(13, "x" * 300)])).source
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert all(content <= width for width, content, _ in found), found
        assert complaints == []

    def test_tables_sort(self, tmp_path):
        trials = [trial(n, score, n * 10**8) for n, score in [(1, 0.5), (2, 0.9), (3, 0.7)]]
        page = written(tmp_path / "run", search(trials)).source
        script = """(() => {
          page.querySelectorAll("th button")[4].click();
          return [...page.querySelectorAll("td:nth-child(5)")].map(cell => cell.textContent);
        })()"""
        (cells,), _ = browsing.examined(page, script, tmp_path)
        assert cells == ["0.30 G", "0.20 G", "0.10 G"]

    def test_is_the_same_page_for_the_same_record(self, tmp_path):
        pages = [written(tmp_path / name, search(self.trials)).source for name in "ab"]
        assert pages[0] == pages[1]


class TestSummary:
    def test_is_a_few_lines(self):
        lines = report.summary(search(TestWriteReport.trials)).splitlines()
        assert 5 <= len(lines) <= 8
        assert lines[2] == "Trials: 2 completed, 3 failed, in 1 h 7 min"
        assert lines[3].startswith("Best: trial 2, val_accuracy 93.75%")
        assert "1 (5.0 M, 87.50%), 2 (9.0 M, 93.75%)" in lines[5]
        assert lines[-1].startswith("Failed: out of memory")
        assert lines[-1].endswith("the loss is nan (trial 4, 5)")

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.4, "in 0 s"), (80, "in 80 s"), (600, "in 10 min"), (3599, "in 1 h 0 min")],
    )
    def test_tells_the_time(self, seconds, text):
        record = SearchRecord("val_loss", "min", "random", "", 0, seconds, [])
        assert report.summary(record).splitlines()[2].endswith(text)
