"""The page of a run, also of an incomplete one, and with hostile names."""

import html.parser
import json
import re
import shutil
from pathlib import Path

import browsing
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from commands import refused
from left_behind import HOSTILE, left_behind
from sklearn.metrics import confusion_matrix, precision_score

from keras_resnet import analysis, runs, training
from keras_resnet.cli import main
from keras_resnet.files import locked
from keras_resnet.runs import reporting

SECTIONS = [
    *("Settings", "Data", "Training", "Confusion matrix", "Classes", "Calibration"),
    *(
        "Precision and recall",
        "Mistakes and uncertain predictions",
        "Export",
        "Versions and machine",
    ),
]


class Page(html.parser.HTMLParser):
    """What a page shows: its words, its headings, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.tables, self.headings, self.images = [], [], [], [], []
        self._within = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")
        elif tag == "img":
            self.images.append(dict(attributes))

    def handle_endtag(self, tag):
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, words):
        if self._within and self._within[-1] in ("style", "script"):
            return
        self.words.append(words)
        if {"td", "th"} & {*self._within}:
            self.tables[-1][-1][-1] += words
        if self._within and self._within[-1] == "h2":
            self.headings[-1] += words

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def table(self, *heads):
        """The rows of the first table that begins with these heads."""
        for head, *rows in self.tables:
            if [cell.strip() for cell in head[: len(heads)]] == [*heads]:
                return [[cell.strip() for cell in row] for row in rows]
        raise AssertionError(f"no table of {heads}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return left_behind(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def record(run):
    return runs.report(run)


@pytest.fixture(scope="module")
def page(record):
    return record.page.read_text(encoding="utf-8")


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=lambda *_: ["report.html"]))


def answers_of(run):
    with np.load(run / "answers.npz") as found:
        return {name: found[name] for name in found.files}


class TestPage:
    def test_has_all_sections(self, record, page, run):
        assert Page(page).headings == SECTIONS == [*record.sections]
        assert record.page == run / "report.html"
        assert record.lacks == ()
        assert record.to_json()["bytes"] == len(page.encode()) < 3e6

    @pytest.mark.parametrize(
        ("best", "said"), [(2, "2, in which validation loss was lowest."), (3, "3. ")]
    )
    def test_says_why_the_model_has_the_weights_of_an_epoch(self, tmp_path, best, said):
        shown = runs.report(left_behind(tmp_path, best_epoch=best)).page.read_text(encoding="utf-8")
        assert f"The model has the weights of epoch {said}" in Page(shown).text

    def test_needs_no_other_file(self, page):
        for tag, attributes in Page(page).tags:
            for name in ("src", "href", "xlink:href"):
                assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert "@import" not in page
        assert not re.search(r"url\((?!#)", page)

    def test_says_how_to_repeat_it(self, page):
        assert "keras-resnet train --data pets --output run" in Page(page).text

    def test_confusion_and_scores_are_those_of_the_answers(self, page, run):
        found = answers_of(run)
        labels, said = found["test_labels"], found["test"].argmax(1)
        matrix = [row[1:] for row in Page(page).table("")]
        counts = [[int(cell or 0) for cell in row] for row in matrix]
        assert counts == confusion_matrix(labels, said).tolist()
        rows = {row[0]: row for row in Page(page).table("class", "precision")}
        for name, precision in zip(
            ("cat", "dog"), precision_score(labels, said, average=None), strict=True
        ):
            assert rows[name][1] == f"{precision:.1%}"

    def test_tells_how_sure_to_be(self, page, run):
        found = answers_of(run)
        labels, sure = found["test_labels"], found["test"]
        before = analysis.calibration(labels, sure).expected_error
        temperature = analysis.fit_temperature(found["validation_labels"], found["validation"])
        logits = np.log(sure) / temperature
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        after = analysis.calibration(labels, exponents / exponents.sum(1, keepdims=True))
        assert temperature > 1
        assert after.expected_error < before
        text = Page(page).text
        assert f"{before:.2%}; {after.expected_error:.2%} at temperature {temperature:.3g}" in text

    def test_shows_mistakes_with_maps(self, page):
        alts = [image["alt"] for image in Page(page).images]
        assert alts.count("A test image") == alts.count("Where the model looked") == 12
        assert sum(alt.startswith("A training image: ") for alt in alts) == 24

    def test_names_what_is_wrong_with_the_data(self, copy, run):
        rows = (copy / "images.csv").read_text().splitlines()
        digest = rows[1].rpartition(",")[2]
        rows[-1] = rows[-1].rpartition(",")[0] + f",{digest}"
        (copy / "images.csv").write_text("\n".join(rows) + "\n")
        text = Page(runs.report(copy).page.read_text()).text
        assert "1 of 60 test images are also in train" in text
        assert "'cat/7.jpg' is not an image that can be read." in text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The page of a run whose classes and data have hostile names."""
    run = left_behind(tmp_path_factory.mktemp("hostile"), HOSTILE, each=3, data=HOSTILE[0])
    return runs.report(run).page.read_text(encoding="utf-8")


class TestNames:
    def test_are_shown_as_they_are(self, hostile):
        found = Page(hostile)
        classes = {row[0].strip() for rows in found.tables for row in rows}
        assert {*HOSTILE} <= classes
        assert [tag for tag, _ in found.tags].count("script") == 1
        assert not any("onerror" in attributes for _, attributes in found.tags)

    def test_do_no_harm_in_a_browser(self, hostile, tmp_path):
        script = "[page.title, width, root.scrollWidth, page.querySelectorAll('h2').length]"
        found, complaints = browsing.examined(hostile, script, tmp_path, (360, 768, 1440))
        for title, width, needed, headings in found:
            assert title == f"small on {HOSTILE[0]}"
            assert needed <= width
            assert headings == len(SECTIONS) - 1  # two classes alone have precision and recall
        assert complaints == []


class TestManyClasses:
    def test_have_a_heat_map(self, tmp_path):
        names = [f"class {number}" for number in range(1000)]
        run = left_behind(tmp_path, names, each=1)
        record = runs.report(run)
        page = record.page.read_text()
        assert len(page.encode()) < 3e6
        found = Page(page)
        labels, sure = (answers_of(run)[name] for name in ("test_labels", "test"))
        wrong = (sure.argmax(1) != labels).sum()
        assert len(found.table("true class")) == min(30, wrong)
        assert "Each cell is the maximum over 2 x 2 classes." in found.text
        lowest = found.table("class", "precision")
        assert [row[3] for row in lowest] == ["0.0%"] * 20
        assert sorted(row[1] for row in found.table("number")) == sorted(names)
        ((width, needed, _),), complaints = browsing.measured(page, (360,), tmp_path)
        assert needed <= width
        assert complaints == []


class TestFoldersThatAreNotWhole:
    def test_are_none(self, tmp_path):
        with pytest.raises(ValueError, match="there is no such folder"):
            runs.report(tmp_path / "none")
        with pytest.raises(ValueError, match=r"not the folder of a run: there is no model\.keras"):
            runs.report(tmp_path)
        assert not [*tmp_path.iterdir()]

    @pytest.mark.parametrize("file", ["model.keras", "labels.txt", "metrics.json"])
    def test_say_what_is_missing_and_how_to_go_on(self, copy, file):
        (copy / file).unlink()
        with pytest.raises(
            ValueError, match=f"there is no {re.escape(file)}; this trains it again: "
        ):
            runs.report(copy)
        assert not (copy / "report.html").exists()

    def test_an_interrupted_run_beside_a_finished_one(self, copy):
        asked = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps({**asked, "seconds": None}))
        (copy / "checkpoints").mkdir()
        expected = "is incomplete: its training is not finished; this continues it: keras-"
        with pytest.raises(ValueError, match=expected):
            runs.report(copy)

    def test_a_run_in_progress(self, copy):
        (copy / "checkpoints").mkdir()
        with (
            locked(copy),
            pytest.raises(ValueError, match=r"is still in progress \(started 2.*tensorboard"),
        ):
            runs.report(copy)

    @pytest.mark.parametrize("file", ["run.json", "metrics.json", "answers.npz"])
    def test_damaged_files_are_named(self, copy, file):
        (copy / file).write_text("{")
        with pytest.raises(ValueError, match=rf"{re.escape(file)}' is (cut off or )?damaged"):
            runs.report(copy)
        assert not (copy / "report.html").exists()

    def test_answers_with_a_byte_changed_are_named(self, copy):
        content = bytearray((copy / "answers.npz").read_bytes())
        content[60:64] = bytes(4)
        (copy / "answers.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"answers\.npz' is damaged"):
            runs.report(copy)

    def test_a_history_with_a_byte_changed_is_named(self, copy):
        (copy / "history.csv").write_bytes((copy / "history.csv").read_bytes() + b"4,\xff")
        with pytest.raises(ValueError, match=r"history\.csv' is damaged"):
            runs.report(copy)


class TestOlderRuns:
    def test_are_evaluated_again(self, copy):
        for name in ("run.json", "answers.npz"):
            (copy / name).unlink()
        record = runs.report(copy)
        without = {"Settings", "Versions and machine"}
        assert [*record.sections] == [each for each in SECTIONS if each not in without]
        first, second = record.lacks
        assert first.startswith("There is no run.json")
        assert "computed again from the images." in second
        text = Page(record.page.read_text()).text
        assert first in text
        assert second in text

    def test_of_images_that_are_gone(self, run, copy):
        rows = (copy / "images.csv").read_text().splitlines()
        (copy / "images.csv").write_text("\n".join(rows).replace("/images/", "/elsewhere/"))
        (copy / "answers.npz").unlink()
        record = runs.report(copy)
        (lack,) = record.lacks
        assert "all of the images have been changed or removed" in lack
        assert {"Confusion matrix", "Classes"} <= {*record.sections}  # which metrics.json has
        assert "Calibration" not in record.sections

    def test_with_less_still(self, copy):
        for name in ("run.json", "answers.npz", "images.csv", "history.csv"):
            (copy / name).unlink()
        record = runs.report(copy)
        assert [*record.sections] == ["Data", "Confusion matrix", "Classes", "Export"]
        assert len(record.lacks) == 4


class TestInABrowser:
    def test_fits_and_shows_its_images(self, page, tmp_path):
        script = """[width, root.scrollWidth, page.images.length,
          [...page.images].filter(each => each.complete && each.naturalWidth).length]"""
        found, complaints = browsing.examined(page, script, tmp_path, (360, 768, 1440))
        for width, needed, images, loaded in found:
            assert needed <= width
            assert images == loaded == 48
        assert complaints == []

    def test_tables_sort(self, page, tmp_path):
        script = """[...page.querySelectorAll("table.sortable")].map(table => {
          const before = table.tBodies[0].textContent;
          table.querySelector("th button").click(); table.querySelector("th button").click();
          return [table.tHead.textContent.trim() !== "", before !== table.tBodies[0].textContent,
                  table.tBodies[0].rows.length];
        })"""
        ((*tables,),), _ = browsing.examined(page, script, tmp_path)
        assert len(tables) == 4
        assert all(named for named, *_ in tables)
        assert all(turned for _, turned, rows in tables if rows > 1)


class TestFailure:
    def test_never_loses_a_trained_model(self, run, caplog, monkeypatch):
        def broken(**_):
            raise RuntimeError("no ink")

        monkeypatch.setattr(reporting, "sections_of", lambda _: broken())
        assert reporting.draw_page(run, None, None) is None
        (line,) = [each.getMessage() for each in caplog.records]
        assert "its page could not be drawn (RuntimeError: no ink)" in line
        assert f"keras-resnet report {run}" in line

    def test_ctrl_c_while_it_is_drawn_loses_nothing(self, tmp_path, monkeypatch):
        def interrupted(_):
            raise KeyboardInterrupt

        class Untrained(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                pytest.fail("It is trained again.")

        options = {"model": "CIFARResNet8", "epochs": 1, "image_size": 8, "batch_size": 256}
        with monkeypatch.context() as patch:
            patch.setattr(reporting, "sections_of", interrupted)
            with pytest.raises(training.Interrupted, match="the same command continues"):
                runs.train("digits", tmp_path, **options)
        model = keras.saving.load_model(tmp_path / "model.keras")
        again = runs.train("digits", tmp_path, callbacks=[Untrained()], **options)
        for before, after in zip(model.get_weights(), again.model.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
        assert (tmp_path / "report.html").is_file()
        assert not (tmp_path / "checkpoints").exists()


class TestCommand:
    def test_prints_the_calibration_and_where_the_page_is(self, run, tmp_path):
        page = tmp_path / "page.html"
        result = CliRunner().invoke(main, ["report", str(run), "--output", str(page)])
        assert result.exit_code == 0, result.output
        first, second = result.stdout.splitlines()
        assert re.fullmatch(
            r"Expected calibration error \d+\.\d\d%; \d+\.\d\d% at temperature \d+(\.\d+)?\.", first
        )
        assert second.startswith(f"{page}: ")
        assert page.is_file()

    def test_answers_in_json_alone(self, run):
        result = CliRunner().invoke(main, ["report", str(run), "--json"])
        found = json.loads(result.stdout)
        assert found["page"] == str(run / "report.html")
        assert {*found["calibration"]} == {
            "temperature", "expected_error", "expected_error_at_temperature"
        }  # fmt: skip

    def test_a_file_that_was_cut_off_is_named_in_a_line(self, copy):
        content = (copy / "run.json").read_bytes()
        (copy / "run.json").write_bytes(content[: len(content) // 2])
        line = refused(CliRunner().invoke(main, ["report", str(copy)]))
        assert f"{str(copy / 'run.json')!r} is cut off or damaged: " in line
        assert line.endswith("Remove it, or put a copy in its place.")
        (copy / "run.json").unlink()
        assert runs.report(copy).lacks[0].startswith("There is no run.json")

    def test_mistakes_are_a_line(self, tmp_path):
        result = CliRunner().invoke(main, ["report", str(tmp_path)])
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


def test_exports_know_the_temperature(run, tmp_path):
    record = runs.export(run, tmp_path / "served", image_size=12)
    card = json.loads((record.exported.path / "model_card.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    assert card == json.loads(json.dumps(record.exported.card))
    assert card["calibration"] == metrics["calibration"]
    assert card["calibration"]["temperature"] > 1
