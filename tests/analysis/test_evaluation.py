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


def test_the_metrics_of_a_classifier_are_what_a_report_has(tmp_path):
    quality = analysis.Evaluation(np.array([0, 1, 1, 1]), np.eye(2)[[0, 1, 1, 0]], ("cat", "dog"))
    assert quality.headline == ("accuracy", 0.75)
    assert quality.metrics() == {"accuracy": 0.75}
    assert quality.details() == {"per_class": quality.per_class(), "confusion": [[1, 0], [1, 2]]}
    assert quality.save(tmp_path) == tmp_path / "confusion.csv"
    assert read(tmp_path / "confusion.csv") == [
        ["", "cat", "dog"],
        ["cat", "1", "0"],
        ["dog", "1", "2"],
    ]


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class TestMultiLabel:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], "float32")
    found = np.array([[0.9, 0.2, 0.1], [0.8, 0.4, 0.2], [0.65, 0.7, 0.1], [0.1, 0.3, 0.4]])
    quality = analysis.MultiLabelEvaluation(labels, found, ("a", "b", "c"))

    def test_scores_are_those_by_hand(self):
        scores = self.quality.per_label()
        assert scores["a"] == {
            "average_precision": 1.0,
            "precision": pytest.approx(2 / 3),
            "recall": 1.0,
            "f1-score": pytest.approx(0.8),
            "support": 2.0,
        }
        assert scores["b"]["average_precision"] == 1.0
        assert (scores["b"]["precision"], scores["b"]["recall"]) == (1.0, 0.5)
        assert self.quality.accuracy == 0.5

    def test_average_precision_is_precision_at_every_rank_of_an_image_that_has_the_label(self):
        labels, found = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
        quality = analysis.MultiLabelEvaluation(labels, found, ("a",))
        assert quality.headline == ("mean_average_precision", pytest.approx((1 / 1 + 2 / 3) / 2))

    def test_labels_that_no_image_has_are_left_out_of_the_means(self):
        assert self.quality.per_label()["c"]["support"] == 0
        metrics = self.quality.metrics()
        assert list(metrics) == ["mean_average_precision", "accuracy", "f1"]
        assert metrics["mean_average_precision"] == 1.0
        assert metrics["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
        nothing = analysis.MultiLabelEvaluation(0 * self.labels, self.found, ("a", "b", "c"))
        assert nothing.headline == ("accuracy", nothing.accuracy)
        assert list(nothing.metrics()) == ["accuracy"]

    def test_a_table_of_labels_is_saved(self, tmp_path):
        assert self.quality.save(tmp_path) == tmp_path / "per_label.csv"
        head, *rows = read(tmp_path / "per_label.csv")
        assert head == ["label", "average_precision", "precision", "recall", "f1-score", "support"]
        assert [row[0] for row in rows] == ["a", "b", "c"]
        assert rows[1][1:4] == ["1.0", "1.0", "0.5"]

    def test_certain_mistakes_come_first_and_say_what_is_right(self):
        assert self.quality.order().tolist() == [2, 1, 3, 0]
        assert self.quality.caption(2) == "a, b\nis b"
        assert self.quality.caption(1) == "a\nis a, b"
        assert self.quality.caption(3) == "none"
        assert self.quality.right.tolist() == [True, False, False, True]


class TestRegression:
    values = np.array([1.0, 2.0, 3.0, 6.0], "float32")
    found = np.array([[1.0], [2.5], [2.0], [6.0]], "float32")
    quality = analysis.RegressionEvaluation(values, found, ("age",))

    def test_metrics_are_those_by_hand(self):
        residuals = self.found[:, 0] - self.values
        assert self.quality.headline == (
            "r2",
            pytest.approx(
                1 - (residuals**2).sum() / ((self.values - self.values.mean()) ** 2).sum()
            ),
        )
        assert self.quality.metrics() == {
            "r2": self.quality.headline[1],
            "mean_absolute_error": pytest.approx(np.abs(residuals).mean()),
            "root_mean_squared_error": pytest.approx(np.sqrt((residuals**2).mean())),
        }
        assert self.quality.details() == {}

    def test_several_values_count_equally(self):
        labels = np.stack([self.values, 100 * self.values], -1)
        found = np.concatenate([self.found, 100 * self.found], -1)
        quality = analysis.RegressionEvaluation(labels, found, ("age", "weight"))
        scores = quality.details()["per_value"]
        assert scores["age"]["r2"] == pytest.approx(scores["weight"]["r2"])
        assert quality.metrics()["mean_absolute_error"] == pytest.approx(101 * 1.5 / 4 / 2)

    def test_one_image_has_no_r2(self):
        quality = analysis.RegressionEvaluation(self.values[:1], self.found[:1], ("age",))
        assert quality.headline == ("mean_absolute_error", 0.0)

    def test_values_that_are_all_the_same_have_no_r2(self):
        same = np.full(4, 7.0)
        quality = analysis.RegressionEvaluation(same, self.found, ("age",))
        assert list(quality.metrics()) == ["mean_absolute_error", "root_mean_squared_error"]
        found = np.concatenate([self.found, self.found], -1)
        both = np.stack([same, self.values], -1)
        quality = analysis.RegressionEvaluation(both, found, ("age", "weight"))
        assert quality.headline == ("r2", quality.per_value()["weight"]["r2"])

    def test_residuals_are_saved(self, tmp_path):
        assert self.quality.save(tmp_path) == tmp_path / "residuals.csv"
        head, *rows = read(tmp_path / "residuals.csv")
        assert head == ["image", "name", "value", "prediction", "residual"]
        assert rows[2] == ["2", "age", "3.0", "2.0", "-1.0"]

    def test_large_errors_come_first(self):
        assert self.quality.order().tolist() == [2, 1, 0, 3]
        assert self.quality.caption(2) == "2\nis 3"
        assert self.quality.right is None


@pytest.mark.parametrize(
    ("task", "activation", "kind"),
    [
        ("multilabel", "sigmoid", analysis.MultiLabelEvaluation),
        ("multilabel", None, analysis.MultiLabelEvaluation),
        ("regression", None, analysis.RegressionEvaluation),
    ],
)
def test_evaluate_asks_the_task(task, activation, kind):
    inputs = keras.Input((2,))
    unchanged = keras.layers.Dense(2, activation, kernel_initializer="identity")
    model = keras.Model(inputs, unchanged(inputs))
    rows = np.array([[9.0, -9.0], [-9.0, -9.0], [9.0, 9.0]], "float32")
    labels = (rows > 0).astype("float32") if task == "multilabel" else rows
    dataset = tf.data.Dataset.from_tensor_slices((rows, labels)).batch(2)
    quality = analysis.evaluate(model, dataset, ("a", "b"), task)
    assert type(quality) is kind
    assert quality.headline[1] == pytest.approx(1.0)
    if task == "multilabel":
        assert ((quality.probabilities > 0) & (quality.probabilities < 1)).all()


@pytest.mark.parametrize("output", ["softmax", "logits", "chance of b"])
def test_evaluate_of_a_classifier_gives_probabilities_of_all_classes(output):
    inputs, units = keras.Input((2,)), 1 if output == "chance of b" else 2
    activation = {"softmax": "softmax", "logits": None, "chance of b": "sigmoid"}[output]
    model = keras.Model(inputs, keras.layers.Dense(units, activation)(inputs))
    kernel = np.array([[-1.0], [1.0]]) if units == 1 else np.eye(2)
    model.set_weights([kernel, np.zeros(units)])
    rows = np.array([[3.0, 1.0], [0.0, 1.0]], "float32")
    dataset = tf.data.Dataset.from_tensor_slices((rows, [0, 1])).batch(1)
    expected = np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)
    found = analysis.evaluate(model, dataset, ("a", "b")).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "activation"),
    [("classification", "sigmoid"), ("multilabel", "softmax"), ("regression", "softmax")],
)
def test_evaluate_refuses_outputs_of_another_kind(task, activation):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation)(inputs), name="net")
    dataset = tf.data.Dataset.from_tensor_slices((np.eye(2), [0, 1])).batch(2)
    with one_line_error("net gives no"):
        analysis.evaluate(model, dataset, ("a", "b"), task)


def test_evaluate_refuses_as_many_names_as_there_are_no_outputs():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(inputs), name="net")
    dataset = tf.data.Dataset.from_tensor_slices((np.eye(2), [0, 1])).batch(2)
    with one_line_error("net has 2 outputs; class_names has 3"):
        analysis.evaluate(model, dataset, ("a", "b", "c"))


def test_evaluate_refuses_an_unknown_task():
    with one_line_error("task='segmentation' must be one of 'classification', 'multilabel'"):
        analysis.evaluate(None, [], ("a",), "segmentation")


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

    def test_joins_several_labels(self, tmp_path):
        self.probabilities = np.array([[0.9, 0.8], [0.2, 0.7], [0.1, 0.2]])
        names, task = ["1.jpg", "2.jpg", "3.jpg"], dict(task="multilabel")
        assert [line[1] for line in self.lines(tmp_path, names, **task)] == ["cat|dog", "dog", ""]
        marked = self.lines(tmp_path, names, "cat", **task)
        assert [line[1] for line in marked] == ["1", "0", "0"]
        chances = self.lines(tmp_path, names, "cat", probability=True, **task)
        assert [float(line[1]) for line in chances] == [0.9, 0.2, 0.1]

    def test_of_numbers_has_numbers(self, tmp_path):
        path, files = tmp_path / "new.csv", [pathlib.Path("1.jpg"), pathlib.Path("2.jpg")]
        values = np.array([[1.25], [-3e6]], "float32")
        analysis.submission(path, files, values, ["age"], task="regression")
        assert path.read_text().split() == ["id,value", "1,1.25", "2,-3000000"]
        with one_line_error("positive='age', probability=False: numbers have no classes"):
            analysis.submission(path, files, values, ["age"], "age", task="regression")
