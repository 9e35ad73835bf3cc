import csv
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error

from keras_resnet import analysis


def test_scores_are_those_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 0, 1])
    quality = analysis.Evaluation(labels, np.eye(3)[predictions], ("a", "b", "c"))
    assert quality.accuracy == pytest.approx(0.5)
    scores = quality.per_class()
    assert scores["a"]["precision"] == pytest.approx(2 / 3)
    assert scores["b"]["recall"] == pytest.approx(1 / 2)
    assert scores["c"] == {"precision": 0, "recall": 0, "f1-score": 0, "support": 1}


def test_classes_may_be_called_like_the_averages():
    names = ("accuracy", "macro avg", "weighted avg")
    quality = analysis.Evaluation(np.array([0, 1, 1]), np.eye(3)[[0, 1, 0]], names)
    scores = quality.per_class()
    assert [scores[name]["support"] for name in names] == [1, 2, 0]
    assert scores["accuracy"]["precision"] == pytest.approx(0.5)


def test_evaluate_keeps_images_and_labels_together():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Softmax()(inputs))
    rows = np.eye(3, dtype="float32")[[2, 0, 1, 1]] * 9
    dataset = tf.data.Dataset.from_tensor_slices((rows, [2, 0, 1, 0])).batch(3)
    quality = analysis.evaluate(model, dataset, ("a", "b", "c"))
    assert quality.labels.tolist() == [2, 0, 1, 0]
    assert quality.predictions.tolist() == [2, 0, 1, 1]


def test_the_confusion_is_counted_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 1, 1, 1, 0, 0, 2])
    quality = analysis.Evaluation(labels, np.eye(4)[predictions], ("a", "b", "c", "d"))
    expected = np.zeros((4, 4), int)
    for label, prediction in zip(labels, predictions, strict=True):
        expected[label, prediction] += 1
    np.testing.assert_array_equal(quality.confusion(), expected)
    assert quality.confusion().trace() / len(labels) == pytest.approx(quality.accuracy)


def test_the_confusion_is_a_table_for_spreadsheets(tmp_path):
    names = ("cat", 'a "big", dog', "schöner Hund")
    quality = analysis.Evaluation(np.array([0, 1, 1]), np.eye(3)[[0, 2, 1]], names)
    quality.save_confusion(tmp_path / "new" / "confusion.csv")
    with (tmp_path / "new" / "confusion.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["", *names]
    assert rows == [["cat", "1", "0", "0"], [names[1], "0", "1", "1"], [names[2], "0", "0", "0"]]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["confusion.csv"]


class TestSubmission:
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5], [1 / 3, 2 / 3]])

    def lines(self, folder, names, *arguments, **options):
        files = [pathlib.Path("images", name) for name in names]
        path = folder / "submission.csv"
        count = analysis.submission(
            path, files, self.probabilities[: len(names)], ["cat", "dog"], *arguments, **options
        )
        with path.open(newline="", encoding="utf-8") as file:
            head, *lines = csv.reader(file)
        assert head == ["id", "label"]
        assert count == len(lines) == len(names)
        return lines

    def test_names_classes_in_the_order_of_numbers(self, tmp_path):
        names = ["10.jpg", "9.jpg", "100.jpg", "1.jpg"]
        lines = self.lines(tmp_path, names)
        assert lines == [["1", "dog"], ["9", "dog"], ["10", "cat"], ["100", "cat"]]

    def test_keeps_the_order_of_other_names(self, tmp_path):
        names = ["10.jpg", "b,c.png", "9.tar.png"]
        lines = self.lines(tmp_path, names)
        assert lines == [["10", "cat"], ["b,c", "dog"], ["9.tar", "cat"]]

    def test_marks_one_class(self, tmp_path):
        names = ["3.jpg", "2.jpg", "1.jpg"]
        dogs = self.lines(tmp_path, names, "dog")
        assert dogs == [["1", "0"], ["2", "1"], ["3", "0"]]
        cats = self.lines(tmp_path, names, positive="cat")
        assert cats == [["1", "1"], ["2", "0"], ["3", "1"]]

    def test_gives_its_probability(self, tmp_path):
        names = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        lines = self.lines(tmp_path, names, "dog", probability=True)
        assert [line[0] for line in lines] == ["1", "2", "3", "4"]
        shares = [float(line[1]) for line in lines]
        np.testing.assert_allclose(shares, self.probabilities[:, 1], atol=1e-6)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"positive": "cow"}, "positive='cow' must be one of cat, dog"),
            ({"positive": "cow", "probability": True}, "positive='cow' must be one of cat, dog"),
            ({"probability": True}, "positive=None must be one of cat, dog"),
        ],
    )
    def test_of_an_unknown_class_is_refused(self, tmp_path, options, complaint):
        with one_line_error(complaint):
            self.lines(tmp_path, ["1.jpg"], **options)
        assert list(tmp_path.iterdir()) == []

    def test_replaces_what_was_there(self, tmp_path):
        (tmp_path / "submission.csv").write_text("old\n" * 100)
        assert self.lines(tmp_path, ["1.jpg"]) == [["1", "cat"]]
        assert [file.name for file in tmp_path.iterdir()] == ["submission.csv"]
