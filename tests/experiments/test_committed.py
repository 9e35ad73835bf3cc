"""The experiments in docs/experiments: their pages are those of their results."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from keras_resnet import cli, experiments
from keras_resnet.experiments import pages

DOCS = Path(__file__).parents[2] / "docs" / "experiments"
FOLDERS = sorted(file.parent for file in DOCS.glob("*/experiment.json"))
THERE = {folder.name for folder in FOLDERS}
INDEXES = {"en": DOCS / "index.md", "zh": DOCS / "index.zh.md"}


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """What is made of the committed results alone."""
    copy = tmp_path_factory.mktemp("rebuilt") / "experiments"
    shutil.copytree(DOCS, copy, ignore=shutil.ignore_patterns("*.md", "*.csv", "*.svg", "trials"))
    assert [*experiments.index(copy)] == [each for each in experiments.EXPERIMENTS if each in THERE]
    return copy


def test_every_experiment_has_its_page():
    assert {*experiments.EXPERIMENTS} == THERE


def files(folder, suffix):
    return {file.relative_to(folder) for file in folder.rglob(f"*{suffix}")}


@pytest.mark.parametrize("suffix", [".md", ".csv", ".svg"])
def test_nothing_else_is_committed(rebuilt, suffix):
    assert files(rebuilt, suffix) == files(DOCS, suffix)


def test_pages_are_those_of_the_results(rebuilt):
    for name in files(DOCS, ".md"):
        assert (rebuilt / name).read_text() == (DOCS / name).read_text(), name


def test_tables_are_those_of_the_results(rebuilt):
    for name in files(DOCS, ".csv"):
        tables = []
        for folder in (rebuilt, DOCS):
            with (folder / name).open(newline="", encoding="utf-8") as file:
                tables.append([*csv.reader(file)])
        for row, expected in zip(*tables, strict=True):
            assert list(map(number_or_text, row)) == list(map(number_or_text, expected)), name


def number_or_text(cell):
    """A cell to compare: numbers differ in the last digit from one version of Python to another."""
    try:
        return pytest.approx(float(cell), rel=1e-9)
    except ValueError:
        return cell


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_place_on_a_machine_is_written_down(folder):
    for file in folder.rglob("*"):
        if file.suffix in (".md", ".csv", ".json"):
            assert not re.search(r"(?<![\w.:/])/(tmp|home|work|root|Users)/", file.read_text()), (
                file
            )


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_mark_of_markdown_is_left(folder):
    """Such as ** that is not emphasis beside Chinese punctuation, or one that was escaped."""
    from markdown_it import MarkdownIt

    for name in ("report.md", "report.zh.md"):
        shown = MarkdownIt("commonmark").enable("table").render((folder / name).read_text())
        shown = re.sub("<(code|pre)>.*?</(code|pre)>", "", shown, flags=re.DOTALL)
        assert "*" not in shown, name
        assert "{%" not in shown, name


@pytest.mark.parametrize(
    "file", sorted(DOCS.rglob("*.md")), ids=lambda file: str(file.relative_to(DOCS))
)
def test_links_and_pictures_lead_somewhere(file):
    links = re.findall(r"\]\(([^)\s]+)\)", file.read_text())
    assert links
    for link in links:
        if not link.startswith("https://"):
            assert (file.parent / link).exists(), link


@pytest.mark.parametrize("language", pages.LANGUAGES)
class TestIndex:
    def test_walks_through_all_experiments(self, language):
        links = re.findall(r"\]\(([\w-]+)/report(\.zh)?\.md\)", INDEXES[language].read_text())
        there = [name for name in experiments.EXPERIMENTS if name in THERE]
        assert links == [(name, pages.LANGUAGES[language]) for name in there]

    def test_commands_have_the_options_that_there_are(self, language):
        text = INDEXES[language].read_text()
        lines = re.findall(r"keras-resnet experiment ([a-z][^`\n]*)", text)
        assert {line.split()[0] for line in lines} == {*experiments.EXPERIMENTS}
        known = {
            option
            for each in cli.main.get_command(None, "experiment").params
            for option in each.opts
        }
        for line in lines:
            words = shlex.split(line, comments=True)
            assert {word for word in words if word.startswith("--")} <= known
