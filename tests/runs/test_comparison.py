"""Runs side by side: the page and the record agree with the answers of the runs."""

import csv
import json
import re
import shutil
from math import comb

import browsing
import numpy as np
import pytest
from commands import refused, run
from errors import one_line_error
from finished_runs import write_run
from pictures import write_images

from keras_resnet import runs

NAMES = ("cat", "<script>alert(1)</script>", f"$x$_{'long' * 49}", "\u05e9\u05dc\u05d5\u05dd")
COUNT = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT + 8)
    return [folder / f"{number}.png" for number in range(COUNT + 8)]


def truths(seed=0):
    return np.random.default_rng(seed).integers(0, 4, COUNT)


def outputs(seed, labels):
    """Probabilities that are right more often than not."""
    found = np.random.default_rng(seed).random((len(labels), 4)) + 0.5 * np.eye(4)[labels]
    return found / found.sum(1, keepdims=True)


def classifier(folder, files, seed=1, **options):
    labels = options.pop("labels", truths())
    train = options.pop("train", [*zip(files[COUNT:], NAMES, strict=False)])
    names = options.pop("names", NAMES)
    write_run(
        folder, files[: len(labels)], labels, outputs(seed, labels), names, train=train, **options
    )
    return folder


@pytest.fixture(scope="module")
def pair(files, tmp_path_factory):
    """Two runs with some settings in common."""
    folder = tmp_path_factory.mktemp("pair")
    recipes = ({"learning_rate": rate, "ema": ema, "epochs": 2} for rate, ema in _RECIPES)
    return tuple(
        classifier(
            folder / name, files, seed,
            settings={"model": "ResNet18", "output": f"runs/{name}", "training": recipe},
        )
        for seed, (name, recipe) in enumerate(zip("ab", recipes, strict=True), start=1)
    )  # fmt: skip


_RECIPES = ((0.1, 0.99), (0.2, None))


@pytest.fixture(scope="module")
def compared(pair, tmp_path_factory):
    return runs.compare(pair, tmp_path_factory.mktemp("page") / "comparison.html")


def answers(folder):
    """Labels, outputs, and whether the most probable class is right."""
    with np.load(folder / "answers.npz") as found:
        labels, said = found["test_labels"], found["test"]
    return labels, said, said.argmax(1) == labels


class TestTwoRuns:
    def test_differ_in_settings(self, compared):
        assert compared.settings == {"learning_rate": (0.1, 0.2), "ema": (0.99, None)}
        assert compared.same == {"model": "ResNet18", "epochs": 2}

    def test_have_the_images_that_only_some_get_right(self, compared, pair):
        (labels, said, first), (_, other, second) = map(answers, pair)
        changed = np.flatnonzero(first != second)
        assert {each.image.rpartition("/")[2] for each in compared.changed} == {
            f"{number}.png" for number in changed
        }
        for each in compared.changed:
            number = int(re.search(r"(\d+)\.png", each.image)[1])
            assert each.label == NAMES[labels[number]]
            assert each.answers == tuple(NAMES[row[number].argmax()] for row in (said, other))
            assert each.certainties == pytest.approx((said[number].max(), other[number].max()))
            assert each.right == (first[number], second[number])

    def test_begin_with_what_they_differ_on_the_most(self, compared, pair):
        (labels, said, _), (_, other, _) = map(answers, pair)
        rows = np.arange(len(labels))
        apart = np.abs(said[rows, labels] - other[rows, labels])
        order = [apart[int(re.search(r"(\d+)\.png", each.image)[1])] for each in compared.changed]
        assert order == sorted(order, reverse=True)

    def test_are_put_to_the_exact_test_of_mcnemar(self, compared, pair):
        (_, _, first), (_, _, second) = map(answers, pair)
        better = int((first & ~second).sum()), int((second & ~first).sum())
        (found,) = compared.pairs
        assert found.better == better
        assert found.alike == COUNT - sum(better)
        # Twice the tail of heads among so many tosses of a coin.
        tail = sum(comb(sum(better), k) for k in range(min(better) + 1)) / 2 ** sum(better)
        assert found.p == pytest.approx(min(1, 2 * tail))

    def test_have_their_metrics_side_by_side(self, compared, pair):
        accuracies = tuple(answers(folder)[2].mean() for folder in pair)
        assert compared.metrics["accuracy"] == pytest.approx(accuracies)
        assert compared.common["accuracy"] == pytest.approx(accuracies)

    def test_are_json(self, compared):
        answer = json.loads(json.dumps(compared.to_json()))
        assert answer["settings"]["learning_rate"] == [0.1, 0.2]
        assert answer["images_in_common"] == COUNT
        assert len(answer["changed"]) == len(compared.changed)
        assert [each["settings_known"] for each in answer["runs"]] == [True, True]

    def test_have_a_page_on_which_names_are_text(self, compared):
        page = compared.output.read_text(encoding="utf-8")
        assert "<script>alert" not in page
        assert page.count("<script>") == 1  # sorts tables
        assert page.count('src="data:image/webp') == min(24, len(compared.changed))
        for text in ("learning_rate", "McNemar", "\u05e9\u05dc\u05d5\u05dd", "$x$_longlong"):
            assert text in page

    def test_fit_windows_of_all_widths(self, compared, tmp_path):
        page = compared.output.read_text(encoding="utf-8")
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert all(content <= width for width, content, _ in found), found
        assert complaints == []


class TestOtherImages:
    def test_are_matched_by_their_contents(self, files, pair, tmp_path):
        """In another place, under another name, in another order, and only some of them."""
        order = np.random.default_rng(5).permutation(COUNT)[:25]
        moved = [tmp_path / f"{index}.png" for index in order]
        for place, index in zip(moved, order, strict=True):
            shutil.copy(files[index], place)
        labels = truths()[order]
        write_run(tmp_path / "run", moved, labels, outputs(3, labels), NAMES)
        record = runs.compare([pair[0], tmp_path / "run"], None)
        (_, _, first), (_, _, second) = map(answers, (pair[0], tmp_path / "run"))
        assert record.images == 25
        better = int((first[order] & ~second).sum()), int((second & ~first[order]).sum())
        assert record.pairs[0].better == better
        assert record.common["accuracy"] == pytest.approx((first[order].mean(), second.mean()))
        assert record.metrics["accuracy"] == pytest.approx((first.mean(), second.mean()))
        notes = " ".join(record.notes)
        assert "run: There is no run.json" in notes
        assert "40 of a, 25 of run, of which 25 are in common" in notes

    def test_that_the_other_run_was_trained_on_are_counted(self, files, pair, tmp_path):
        train = [*zip(files[COUNT:], NAMES, strict=False), (files[1], "cat"), (files[2], "cat")]
        other = classifier(tmp_path / "run", files, 3, train=train)
        notes = runs.compare([pair[0], other], None).notes
        assert any("run was trained on 2 of the test images of a" in note for note in notes)

    def test_that_are_labelled_differently_are_left_out(self, files, pair, tmp_path):
        labels = truths()
        labels[:3] = (labels[:3] + 1) % 4
        other = classifier(tmp_path / "run", files, 3, labels=labels)
        record = runs.compare([pair[0], other], None)
        assert record.images == COUNT - 3
        assert any("3 of the images in common are left out" in note for note in record.notes)

    def test_leave_nothing_to_say_where_none_is_in_common(self, files, pair, tmp_path):
        labels = truths()[:4]
        other = tmp_path / "run"
        write_run(other, files[COUNT : COUNT + 4], labels, outputs(3, labels), NAMES)
        record = runs.compare([pair[0], other], tmp_path / "page.html")
        assert (record.images, record.pairs, record.changed) == (0, (), ())
        assert "Images that only some" not in record.output.read_text(encoding="utf-8")

    def test_that_are_gone_have_no_picture(self, files, tmp_path):
        places = []
        for file in files:
            places.append(tmp_path / file.name)
            shutil.copy(file, places[-1])
        first, second = (classifier(tmp_path / f"{seed}", places, seed) for seed in (1, 2))
        record = runs.compare([first, second], tmp_path / "page.html")
        lost = record.changed[0].image
        (tmp_path / lost).unlink()
        before = record.output.read_text(encoding="utf-8").count('src="data:image/webp')
        page = runs.compare([first, second], tmp_path / "page.html").output.read_text()
        assert page.count('src="data:image/webp') == before - 1
        assert "1 image is not shown" in page


def test_three_runs_are_compared_with_each_other(files, pair, tmp_path):
    third = classifier(tmp_path / ("c" * 150), files, 3)
    record = runs.compare([*pair, third], tmp_path / "page.html")
    assert [each.runs for each in record.pairs] == [(0, 1), (0, 2), (1, 2)]
    right = [answers(folder)[2] for folder in (*pair, third)]
    for each in record.pairs:
        one, other = (right[index] for index in each.runs)
        assert each.better == (int((one & ~other).sum()), int((other & ~one).sum()))
    assert len(record.changed) == int((np.ptp(np.array(right, int), 0) > 0).sum())
    found, complaints = browsing.measured(record.output.read_text(), (360, 768, 1440), tmp_path)
    assert all(content <= width for width, content, _ in found), found
    assert complaints == []


def test_stages_are_compared_with_each_other(files, tmp_path):
    folders = [
        classifier(
            tmp_path / f"{epochs}", files, epochs,
            settings={"training": [
                {"back_to": "head", "recipe": {"epochs": epochs, "ema": None}},
                {"back_to": "conv5", "recipe": {"epochs": 3, "ema": None}},
            ]},
        )
        for epochs in (1, 2)
    ]  # fmt: skip
    assert runs.compare(folders, None).settings == {"head: recipe: epochs": (1, 2)}


def test_runs_are_called_what_tells_them_apart(files, tmp_path):
    folders = [classifier(tmp_path / name / "run", files, 1) for name in ("x", "y")]
    assert runs.compare(folders, None).names == ("x/run", "y/run")


class TestCommand:
    def test_says_what_differs_and_draws_the_page(self, pair, compared, tmp_path):
        page = tmp_path / "it.html"
        result = run("report", *pair, "--output", page)
        assert result.exit_code == 0, result.output
        (line,) = (line for line in result.stdout.splitlines() if "learning_rate" in line)
        assert line.split()[1:] == ["0.1", "0.2"]
        first, second = compared.pairs[0].better
        assert f"a does better on {first}, b on {second}" in result.stdout
        assert page.read_text() == compared.output.read_text()

    def test_prints_json(self, pair, compared, tmp_path):
        result = run("report", *pair, "--output", tmp_path / "it.html", "--json")
        answer = json.loads(result.stdout)
        expected = json.loads(json.dumps(compared.to_json()))
        assert answer == {**expected, "output": str(tmp_path / "it.html")}

    def test_mistakes_are_told_in_a_line(self, pair, tmp_path):
        shutil.copytree(pair[1], tmp_path / "run")
        (tmp_path / "run" / "metrics.json").unlink()
        line = refused(run("report", pair[0], tmp_path / "run", "--output", tmp_path / "it.html"))
        assert "metrics.json" in line
        assert not (tmp_path / "it.html").exists()


class TestMistakes:
    def refused(self, folders, *words):
        with one_line_error(*words):
            runs.compare(folders, None)

    def test_one_run(self, pair):
        self.refused(pair[:1], "two runs")

    def test_a_run_twice(self, pair):
        self.refused([pair[0], pair[0] / "model.keras"], "named twice")

    def test_other_classes(self, files, pair, tmp_path):
        other = classifier(tmp_path / "run", files, names=("cat", "dog", "emu", "fox"))
        self.refused([pair[0], other], "dog, emu, fox", "same classes")

    def test_another_task(self, files, pair, tmp_path):
        labels = np.arange(4.0)
        write_run(tmp_path / "run", files[:4], labels, labels[:, None], ["age"], task="regression")
        self.refused([pair[0], tmp_path / "run"], "for classification", "for regression")

    def test_no_folder(self, pair, tmp_path):
        self.refused([pair[0], tmp_path / "none"], "no such folder")

    @pytest.mark.parametrize("name", ["metrics.json", "model.keras", "labels.txt", "images.csv"])
    def test_a_folder_that_is_half_written(self, pair, tmp_path, name):
        shutil.copytree(pair[1], tmp_path / "run")
        (tmp_path / "run" / name).unlink()
        self.refused([pair[0], tmp_path / "run"], "run'", f"no {name}")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("metrics.json", "is cut off or damaged"),
            ("run.json", "is cut off or damaged"),
            ("answers.npz", "is damaged"),
            ("history.csv", "is damaged"),
        ],
    )
    def test_a_file_that_is_cut_off(self, pair, tmp_path, name, words):
        shutil.copytree(pair[1], tmp_path / "run")
        file = tmp_path / "run" / name
        file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])
        self.refused([pair[0], tmp_path / "run"], name, words)

    def test_answers_of_another_run(self, files, pair, tmp_path):
        shutil.copytree(pair[1], tmp_path / "run")
        with (tmp_path / "run" / "images.csv").open(newline="", encoding="utf-8") as file:
            rows = [*csv.reader(file)]
        with (tmp_path / "run" / "images.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows[:-1])
        self.refused([pair[0], tmp_path / "run"], "has answers for 40", "from different runs")

    def test_a_folder_in_place_of_the_page(self, pair, tmp_path):
        with one_line_error("is a folder"):
            runs.compare(pair, tmp_path)


@pytest.fixture(scope="module", params=["known", "of an earlier version"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    options = {"model": "CIFARResNet8", "epochs": 1, "image_size": 8, "batch_size": 128}
    for seed in (0, 1):
        runs.train("digits", folder / f"{seed}", seed=seed, **options)
    found = [answers(folder / f"{seed}") for seed in (0, 1)]
    if request.param != "known":
        for name in ("run.json", "answers.npz"):
            (folder / "1" / name).unlink()
    page = folder / "page.html"
    return runs.compare([folder / "0", folder / "1"], page), found, request.param == "known"


@pytest.mark.slow
def test_trained_runs_are_compared_by_their_answers(trained):
    record, ((_, _, first), (_, _, second)), known = trained
    assert record.images == 359
    assert record.pairs[0].better == ((first & ~second).sum(), (second & ~first).sum())
    assert len(record.changed) == (first != second).sum()
    assert record.settings == ({"seed": (0, 1)} if known else {})
    assert any("no run.json" in note for note in record.notes) != known
    page = record.output.read_text(encoding="utf-8")
    assert page.count('src="data:image/webp') == min(24, len(record.changed))
