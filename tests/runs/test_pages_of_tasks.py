"""The pages of runs for numbers, labels and boxes, and such runs side by side."""

import json
import re

import browsing
import numpy as np
import pytest
from finished_runs import write_run
from pictures import write_images

from keras_resnet import runs

NAMES = (
    *("cat", "<script>console.error(1)</script>"),
    *(f"$x$_{'long' * 49}", "\u05e9\u05dc\u05d5\u05dd"),
)
COUNT, TRAIN = 36, 4
BOXES = np.array([[1.0, 1, 7, 6], [3, 2, 11, 8]])


def numbers(random):
    true = np.random.default_rng(0).normal(40, 10, (COUNT, 2))
    found = true + random.normal(0, 3, true.shape)
    return true, found, ("age", "<b>$w$"), "1|2"


def labels(random):
    true = np.random.default_rng(0).integers(0, 2, (COUNT, 4)).astype("float32")
    found = np.clip(0.5 * true + 0.6 * random.random((COUNT, 4)), 0, 1)
    return true, found, NAMES, "|".join(NAMES)


def boxes(random):
    """Two objects an image; the second is sometimes taken for another class, or not found."""
    true = np.zeros((COUNT, 2, 6), "float32")
    true[:, :, :4], true[:, 1, 4] = BOXES, 1
    found = []
    for _ in range(COUNT):
        there = np.array([True, random.random() < 0.8])
        kinds = np.array([0, 1 if random.random() < 0.7 else 3])
        scores = np.round(random.uniform(0.5, 1, 2), 3)
        found.append({"boxes": BOXES[there], "scores": scores[there], "labels": kinds[there]})
    return true, found, NAMES, json.dumps([[1, 1, 5, 5, "cat"]])


TASKS = {"regression": numbers, "multilabel": labels, "detection": boxes}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of each task, with what they said: labels, answers and quality."""
    folder = tmp_path_factory.mktemp("tasks")
    write_images(folder / "images", COUNT + TRAIN)
    files = [folder / "images" / f"{number}.png" for number in range(COUNT + TRAIN)]
    found = {}
    for task, make in TASKS.items():
        for seed in (1, 2):
            true, answers, names, text = make(np.random.default_rng(seed))
            place = folder / task / f"{seed}"
            quality = write_run(
                place, files[:COUNT], true, answers, names, task=task, settings={"seed": seed},
                train=[(file, text) for file in files[COUNT:]],
            )  # fmt: skip
            found[task, seed] = place, true, answers, quality
    return found


@pytest.fixture(scope="module")
def drawn(made):
    return {task: runs.report(made[task, 1][0]) for task in TASKS}


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return {
        task: runs.compare([made[task, 1][0], made[task, 2][0]], folder / f"{task}.html")
        for task in TASKS
    }


class TestPages:
    @pytest.mark.parametrize("task", TASKS)
    def test_fit_windows_and_names_are_text(self, drawn, task, tmp_path):
        page = drawn[task].page.read_text(encoding="utf-8")
        assert "<script>console" not in page
        assert page.count("<script>") == 1
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert all(content <= width for width, content, _ in found), found
        assert complaints == []

    def test_of_numbers_have_each_value_with_its_errors(self, drawn, made):
        assert "Predicted and true values" in drawn["regression"].sections
        _, true, answers, _ = made["regression", 1]
        page = drawn["regression"].page.read_text(encoding="utf-8")
        for column in (answers.astype("float32") - true).T:
            for number in (np.abs(column).mean(), column.mean(), np.quantile(np.abs(column), 0.9)):
                assert f">{number:.4g}<" in page

    def test_of_labels_have_curves(self, drawn, made):
        assert {"Labels", "Calibration", "Precision and recall"} <= {*drawn["multilabel"].sections}

    def test_of_boxes_have_average_precisions_and_errors(self, drawn, made):
        quality = made["detection", 1][3]
        page = drawn["detection"].page.read_text(encoding="utf-8")
        assert {"Classes", "Precision and recall", "Errors"} <= {*drawn["detection"].sections}
        for scores in quality.per_class().values():
            if scores["AP"] == scores["AP"]:
                assert f">{scores['AP']:.1%}<" in page
        (count,) = re.findall(r"<td>misclassified</td>.*?>(\d+)<", page, re.DOTALL)
        assert int(count) == quality.details()["errors"]["counts"]["misclassified"] > 0

    def test_of_boxes_show_the_images_with_the_most_errors(self, drawn, made):
        page = drawn["detection"].page.read_text(encoding="utf-8")
        section = page[page.index('id="images-with-the-most-errors"') :]
        wrong = int((~made["detection", 1][3].right).sum())
        assert section.count('src="data:image/webp') == min(12, wrong)


class TestSideBySide:
    @pytest.mark.parametrize("task", TASKS)
    def test_fit_windows(self, compared, task, tmp_path):
        page = compared[task].output.read_text(encoding="utf-8")
        found, complaints = browsing.measured(page, (360, 768, 1440), tmp_path)
        assert all(content <= width for width, content, _ in found), found
        assert complaints == []
        assert page.count('src="data:image/webp') == min(24, len(compared[task].changed))

    def test_numbers_are_nearer_in_one_run(self, compared, made):
        (_, true, first, _), (_, _, second, _) = (made["regression", seed] for seed in (1, 2))
        spread = true.std(0)
        errors = [(np.abs(each - true) / spread).max(1) for each in (first, second)]
        nearer = int((errors[0] < errors[1]).sum()), int((errors[1] < errors[0]).sum())
        assert compared["regression"].pairs[0].better == nearer

    def test_labels_are_all_right_or_not(self, compared, made):
        (_, true, first, _), (_, _, second, _) = (made["multilabel", seed] for seed in (1, 2))
        right = [((each > 0.5) == true).all(1) for each in (first, second)]
        better = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        assert compared["multilabel"].pairs[0].better == better

    def test_boxes_have_an_error_or_none(self, compared, made):
        def is_right(each):
            return len(each["labels"]) == 2 and each["labels"][1] == 1

        (_, _, first, _), (_, _, second, _) = (made["detection", seed] for seed in (1, 2))
        right = [np.array([*map(is_right, each)]) for each in (first, second)]
        better = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        record = compared["detection"]
        assert record.pairs[0].better == better
        assert len(record.changed) == sum(better)
        assert record.settings == {"seed": (1, 2)}
