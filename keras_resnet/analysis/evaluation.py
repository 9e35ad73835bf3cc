"""How good a model is on labelled images, by task."""

import collections
import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import graphs, progress
from keras_resnet.checks import check_choice
from keras_resnet.files import written_beside
from keras_resnet.training.tasks import TASKS

_SCORES = ("precision", "recall", "f1-score", "support")


@dataclass(frozen=True)
class Evaluation:
    """A classifier's predictions on labelled images, and their quality.

    Parameters
    ----------
    labels : int array of shape (images,)
        True classes.
    probabilities : array of shape (images, classes)
        Outputs of the model.
    class_names : tuple of str
        Names of the classes.
    """

    FILE: ClassVar[str] = "confusion.csv"
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of every image."""
        return TASKS["classification"].decide(self.probabilities)

    @property
    def right(self) -> np.ndarray:
        """Whether the prediction is right, for every image."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose class is right."""
        return float(np.mean(self.right))

    def metrics(self) -> dict[str, float]:
        """All metrics by name, the one to compare models by first: "accuracy"."""
        return {"accuracy": self.accuracy}

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric to compare models by."""
        return next(iter(self.metrics().items()))

    def details(self) -> dict:
        """Everything else that a report has, by name: "per_class" and "confusion"."""
        return {"per_class": self.per_class(), "confusion": self.confusion().tolist()}

    def confusion(self) -> np.ndarray:
        """Images of every true class (row) that were taken for every class (column)."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predictions, labels=range(len(self.class_names)))

    def save_confusion(self, path: str | os.PathLike) -> None:
        """Write the confusion matrix as a CSV file.

        Parameters
        ----------
        path : path
            The file: true classes down, predicted classes across.
        """
        rows = zip(self.class_names, self.confusion().tolist(), strict=True)
        _write(path, ["", *self.class_names], ([name, *row] for name, row in rows))

    def save(self, folder: str | os.PathLike) -> Path:
        """Write confusion.csv to a folder.

        Parameters
        ----------
        folder : path
            The folder.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(folder) / self.FILE
        self.save_confusion(path)
        return path

    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 score and number of images ("support") of every class."""
        from sklearn.metrics import precision_recall_fscore_support

        scores = precision_recall_fscore_support(
            self.labels,
            self.predictions,
            labels=range(len(self.class_names)),
            zero_division=0.0,
        )
        return _by_name(self.class_names, _SCORES, scores)

    def order(self) -> np.ndarray:
        """The images in order of interest: the most certain mistakes, then the near misses."""
        certainty = self.probabilities.max(axis=-1)
        return np.argsort(np.where(self.right, 1 + certainty, -certainty), kind="stable")

    def caption(self, index: int) -> str:
        """The prediction for an image, and what is right, if it is not."""
        predicted = self.class_names[self.predictions[index]]
        caption = f"{predicted} ({self.probabilities[index].max():.0%})"
        right = self.right[index]
        return caption if right else f"{caption}\nis {self.class_names[self.labels[index]]}"


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """Predictions of several labels per image, and their quality.

    A label counts as predicted where its probability is above its threshold.

    Parameters
    ----------
    labels : array of shape (images, labels)
        1 for every label that an image has, 0 for the others.
    probabilities : array of shape (images, labels)
        Outputs of the model.
    class_names : tuple of str
        Names of the labels.
    thresholds : tuple of float, optional
        What the probability of each label must exceed. Default: 0.5.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import MultiLabelEvaluation
    >>> found = np.array([[0.9, 0.2], [0.7, 0.6]])
    >>> quality = MultiLabelEvaluation(np.array([[1, 0], [1, 1]]), found, ("cat", "dog"))
    >>> quality.headline
    ('mean_average_precision', 1.0)
    """

    FILE: ClassVar[str] = "per_label.csv"
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None

    @property
    def predictions(self) -> np.ndarray:
        """1 for every label that is predicted of an image, 0 for the others."""
        return TASKS["multilabel"].decide(self.probabilities, self.thresholds)

    @property
    def right(self) -> np.ndarray:
        """Whether all labels are right, for every image."""
        return (self.predictions == self.labels).all(-1)

    @property
    def accuracy(self) -> float:
        """Fraction of the images with exactly the right labels."""
        return float(np.mean(self.right))

    def metrics(self) -> dict[str, float]:
        """All metrics by name, the one to compare models by first.

        Returns
        -------
        dict of str to float
            "mean_average_precision", the mean of the labels' average precision; "accuracy"; and
            "f1", the mean of their F1 scores. Labels that no image has are left out of the means;
            where there is no other, there is only "accuracy".
        """
        found = [scores for scores in self.per_label().values() if scores["support"]]
        if not found:
            return {"accuracy": self.accuracy}
        return {
            "mean_average_precision": _mean(found, "average_precision"),
            "accuracy": self.accuracy,
            "f1": _mean(found, "f1-score"),
        }

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric to compare models by."""
        return next(iter(self.metrics().items()))

    def details(self) -> dict:
        """Everything else that a report has, by name: "per_label"."""
        return {"per_label": self.per_label()}

    def per_label(self) -> dict[str, dict[str, float]]:
        """Scores of every label.

        Returns
        -------
        dict of str to dict of str to float
            "average_precision", the area under the curve of precision over recall; "precision",
            "recall" and "f1-score" of predictions; "support", the number of images that have the
            label, without any of which the scores are 0; and "threshold", if there are thresholds.
        """
        from sklearn.metrics import average_precision_score, precision_recall_fscore_support

        columns = (
            np.asarray(each).T for each in (self.labels, self.probabilities, self.predictions)
        )
        scores = [
            (
                average_precision_score(labels, found) if labels.any() else 0.0,
                *np.ravel(
                    precision_recall_fscore_support(
                        labels, predicted, labels=[1], zero_division=0.0
                    )
                ),
            )
            for labels, found, predicted in zip(*columns, strict=True)
        ]
        names, scores = ("average_precision", *_SCORES), zip(*scores, strict=True)
        if self.thresholds is not None:
            names, scores = (*names, "threshold"), (*scores, self.thresholds)
        return _by_name(self.class_names, names, scores)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write per_label.csv, the scores of every label, to a folder.

        Parameters
        ----------
        folder : path
            The folder.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(folder) / self.FILE
        scores = self.per_label()
        header = ["label", *next(iter(scores.values()))]
        _write(path, header, ([name, *values.values()] for name, values in scores.items()))
        return path

    def order(self) -> np.ndarray:
        """The images in order of interest: the most certain mistakes, then the near misses."""
        certainties = self.probabilities
        if self.thresholds is not None:  # an even chance is then where the threshold is
            ends = ((0.0, max(each, 1e-9), 1.0 + 1e-9) for each in self.thresholds)
            columns = zip(certainties.T, ends, strict=True)
            certainties = np.stack([np.interp(p, x, (0, 0.5, 1)) for p, x in columns], -1)
        return np.argsort(-np.abs(certainties - self.labels).max(-1), kind="stable")

    def caption(self, index: int) -> str:
        """The labels predicted of an image, and those it has, if they differ."""
        describe = TASKS["multilabel"].describe
        caption = describe(self.predictions[index], self.class_names)
        if self.right[index]:
            return caption
        return f"{caption}\nis {describe(self.labels[index], self.class_names)}"


@dataclass(frozen=True)
class RegressionEvaluation:
    """Numbers predicted of labelled images, and their quality.

    Parameters
    ----------
    labels : array of shape (images,) or (images, values)
        True values.
    predictions : array of shape (images, values)
        Outputs of the model.
    class_names : tuple of str
        Names of the values.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import RegressionEvaluation
    >>> quality = RegressionEvaluation(np.array([1.0, 3.0]), np.array([[1.5], [3.0]]), ("age",))
    >>> quality.metrics()["r2"], quality.metrics()["mean_absolute_error"]
    (0.875, 0.25)
    """

    FILE: ClassVar[str] = "residuals.csv"
    labels: np.ndarray
    predictions: np.ndarray
    class_names: tuple[str, ...]

    @property
    def right(self) -> None:
        """None: a number is not just right or wrong."""
        return None

    @property
    def residuals(self) -> np.ndarray:
        """Predicted minus true values, of shape (images, values)."""
        return np.asarray(self.predictions, "float64") - self._values

    @property
    def _values(self):
        return np.asarray(self.labels, "float64").reshape(len(self.labels), -1)

    def metrics(self) -> dict[str, float]:
        """All metrics by name, the one to compare models by first.

        Returns
        -------
        dict of str to float
            "r2", the fraction of the variance that is explained, "mean_absolute_error" and
            "root_mean_squared_error"; means over the values, if there are several. Values that are
            the same for all images have no "r2".
        """
        scores = list(self.per_value().values())
        names = max(scores, key=len)  # with "r2", if any value has one
        return {name: _mean(scores, name) for name in names}

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the metric to compare models by."""
        return next(iter(self.metrics().items()))

    def details(self) -> dict:
        """Everything else that a report has, by name: "per_value", if there are several."""
        return {"per_value": self.per_value()} if len(self.class_names) > 1 else {}

    def per_value(self) -> dict[str, dict[str, float]]:
        """The metrics of every value."""
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        scores = {
            "r2": r2_score,
            "mean_absolute_error": mean_absolute_error,
            "root_mean_squared_error": root_mean_squared_error,
        }
        columns = zip(self.class_names, self._values.T, self.predictions.T, strict=True)
        return {
            class_name: {
                name: float(score(values, found))
                for name, score in scores.items()
                if name != "r2" or np.ptp(values) > 0  # there is a variance to explain
            }
            for class_name, values, found in columns
        }

    def save(self, folder: str | os.PathLike) -> Path:
        """Write residuals.csv, true and predicted values of every image, to a folder.

        Parameters
        ----------
        folder : path
            The folder.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(folder) / self.FILE
        found = (self._values.tolist(), self.predictions.tolist(), self.residuals.tolist())
        rows = (
            [image, name, *numbers]
            for image, columns in enumerate(zip(*found, strict=True))
            for name, *numbers in zip(self.class_names, *columns, strict=True)
        )
        _write(path, ["image", "name", "value", "prediction", "residual"], rows)
        return path

    def order(self) -> np.ndarray:
        """The images in order of interest: the largest errors first."""
        spread = self._values.std(0)
        errors = np.abs(self.residuals) / np.where(spread > 0, spread, 1.0)
        return np.argsort(-errors.max(-1), kind="stable")

    def caption(self, index: int) -> str:
        """The values predicted of an image, and the true ones."""
        describe = TASKS["regression"].describe
        predicted = describe(self.predictions[index], self.class_names)
        return f"{predicted}\nis {describe(self._values[index], self.class_names)}"


EVALUATIONS = {
    "classification": Evaluation,
    "multilabel": MultiLabelEvaluation,
    "regression": RegressionEvaluation,
}
"""The evaluation of each task, made of labels, outputs and names."""


def evaluate(
    model: keras.Model,
    dataset: tf.data.Dataset,
    class_names: tuple[str, ...],
    task: str = "classification",
    *,
    ask: Callable[[tf.Tensor], np.ndarray] | None = None,
) -> Evaluation | MultiLabelEvaluation | RegressionEvaluation:
    """Run a model on labelled images.

    Parameters
    ----------
    model : keras.Model
        A model of the task. Logits become probabilities; of several labels, those are predicted
        whose probability exceeds the model's threshold, or 0.5.
    dataset : tf.data.Dataset
        Batches of (images, labels), as `data.batches` makes them.
    class_names : tuple of str
        Names of the classes, labels or values, in the order of the model's outputs.
    task : str, default "classification"
        A key of `EVALUATIONS`, such as `source.task`.
    ask : callable, optional
        A function that returns the model's outputs for a batch of images, such as
        `export.compiled(model)`. Default: the model.

    Returns
    -------
    Evaluation, MultiLabelEvaluation or RegressionEvaluation

    Raises
    ------
    ValueError
        For an unknown task, a model of other outputs, or one that gives NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import Evaluation
    >>> quality = Evaluation(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
    >>> quality.accuracy, quality.per_class()["dog"]["recall"]
    (0.5, 0.0)
    """
    check_choice(tuple(EVALUATIONS), task=task)
    answers = TASKS[task].answers_of(model)
    graphs.check_weights(model)
    ask, shown = ask or model.predict_on_batch, progress.batches(dataset, "Evaluating")
    batches = [(labels, ask(images)) for images, labels in shown]
    if not batches:
        raise ValueError("dataset: there are no images to evaluate on.")
    labels, outputs = zip(*batches, strict=True)
    outputs = check_finite(answers(np.concatenate(outputs)), model)
    if outputs.shape[1:] != (len(class_names),):
        raise ValueError(
            f"{model.name} has {outputs.shape[-1]} outputs; class_names has {len(class_names)}."
        )
    thresholds = graphs.thresholds_of(model)
    decided = {} if thresholds is None else {"thresholds": thresholds}
    return EVALUATIONS[task](np.concatenate(labels), outputs, class_names, **decided)


def submission(
    path: str | os.PathLike,
    files: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    positive: str | None = None,
    *,
    probability: bool = False,
    task: str = "classification",
    thresholds: Sequence[float] | None = None,
) -> int:
    """Write predictions as the `id,label` file that Kaggle's competitions ask for.

    Parameters
    ----------
    path : path
        The CSV file; replaced if it exists.
    files : sequence of pathlib.Path
        The images, whose ids are those of `submission_ids`. Lines are in the order of the ids if
        all of them are numbers, and otherwise in the order of the files.
    probabilities : array of shape (images, classes)
        Outputs of a model.
    class_names : sequence of str
        Names of the classes, labels or values.
    positive : str, optional
        The class or label to write as 1, all others as 0. Default: write names, several of them
        with "|" in between.
    probability : bool, default False
        Write the probability of the positive class instead of 1 or 0.
    task : str, default "classification"
        A key of `EVALUATIONS`. For regression, the second column is called "value".
    thresholds : sequence of float, optional
        For several labels: what the probability of each must exceed. Default: 0.5.

    Returns
    -------
    int
        Lines written, without the header.

    Raises
    ------
    ValueError
        If there is no such positive class, if there is none although probabilities are asked for,
        for an unknown task, thresholds of another task, or a file that is named twice.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from keras_resnet.analysis import submission
    >>> files, found = [Path("10.jpg"), Path("9.jpg")], np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = submission(Path(folder) / "out.csv", files, found, ["cat", "dog"], "dog")
    ...     (Path(folder) / "out.csv").read_text().split()
    ['id,label', '9,1', '10,0']
    """
    check_choice(tuple(EVALUATIONS), task=task)
    if thresholds is not None and task != "multilabel":
        raise ValueError(f"thresholds={thresholds!r} are for several labels, not for {task}.")
    decided = {} if thresholds is None else {"thresholds": thresholds}
    lines = list(
        zip(
            submission_ids(files),
            _LABELS[task](probabilities, list(class_names), positive, probability, **decided),
            strict=True,
        )
    )
    if all(name.isdecimal() for name, _ in lines):
        lines.sort(key=lambda line: int(line[0]))
    _write(path, ("id", "value" if task == "regression" else "label"), lines)
    return len(lines)


def submission_ids(files: Sequence[str | os.PathLike]) -> list[str]:
    """Name each image for a submission.

    Parameters
    ----------
    files : sequence of path
        The images.

    Returns
    -------
    list of str
        The names of the files without suffixes. If two of these are the same, the paths below the
        folder that holds all files; if two of these are the same, the paths with suffixes.

    Raises
    ------
    ValueError
        For a file that is named twice.

    Examples
    --------
    >>> from keras_resnet.analysis.evaluation import submission_ids
    >>> submission_ids(["cats/1.jpg", "cats/2.jpg"]), submission_ids(["cats/1.jpg", "dogs/1.jpg"])
    (['1', '2'], ['cats/1', 'dogs/1'])
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    if twice := [path for path, count in collections.Counter(paths).items() if count > 1]:
        raise ValueError(f"files: {str(twice[0])!r} is named twice.")
    folder = os.path.commonpath([path.parent for path in paths]) if paths else ""
    below = [path.relative_to(folder) for path in paths]
    candidates = (
        [path.stem for path in paths],
        [path.with_suffix("").as_posix() for path in below],
        [path.as_posix() for path in below],
    )
    return next(ids for ids in candidates if len({*ids}) == len(ids))


def check_finite(outputs: np.ndarray, model: keras.Model) -> np.ndarray:
    """Check that all outputs of a model are finite.

    Parameters
    ----------
    outputs : array of shape (images, ...)
        What the model gave.
    model : keras.Model
        The model, for the message.

    Returns
    -------
    array
        The same outputs.

    Raises
    ------
    ValueError
        For outputs that are NaN or infinite: they would still have an `argmax`.
    """
    lost = ~np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
    if lost.any():
        raise ValueError(
            f"model {model.name!r} gives NaN or infinity for {lost.sum():,} of {len(outputs):,} "
            f"images; the first is image {lost.argmax()} (counted from 0)."
        )
    return outputs


def _of_classes(outputs, names, positive, probability):
    """Labels of a submission, one class per image."""
    _check_positive(names, positive, probability)
    if probability:
        return _probabilities(outputs, names, positive)
    found = [names[index] for index in TASKS["classification"].decide(outputs)]
    return found if positive is None else [int(name == positive) for name in found]


def _of_labels(outputs, names, positive, probability, thresholds=None):
    """Labels of a submission, any number of labels per image."""
    _check_positive(names, positive, probability)
    if probability:
        return _probabilities(outputs, names, positive)
    found = TASKS["multilabel"].decide(outputs, thresholds).astype(int)
    if positive is not None:
        return found[:, names.index(positive)].tolist()
    return ["|".join(np.array(names)[row > 0]) for row in found]


def _of_values(outputs, names, positive, probability):
    """Labels of a submission, a number per image."""
    if positive is not None or probability:
        raise ValueError(
            f"positive={positive!r}, probability={probability!r}: numbers have no classes; leave "
            "them out."
        )
    if len(names) > 1:
        raise ValueError(f"class_names={names!r}: a submission has one value per image.")
    return [f"{value:.7g}" for value in outputs[:, 0]]


_LABELS: dict[str, Callable] = {
    "classification": _of_classes,
    "multilabel": _of_labels,
    "regression": _of_values,
}


def _check_positive(names, positive, probability):
    if positive not in ((*names,) if probability else (None, *names)):
        raise ValueError(f"positive={positive!r} must be one of {', '.join(names)}.")


def _probabilities(outputs, names, positive):
    return [f"{value:.6f}" for value in outputs[:, names.index(positive)]]


def _mean(scores: Iterable[dict[str, float]], name: str) -> float:
    """The mean of a score over those that have it."""
    return float(np.mean([each[name] for each in scores if name in each]))


def _by_name(
    class_names: Sequence[str], score_names: Sequence[str], scores: Iterable
) -> dict[str, dict[str, float]]:
    """Scores, each a column of one value per class, as a table by names of classes."""
    return {
        class_name: dict(zip(score_names, map(float, values), strict=True))
        for class_name, *values in zip(class_names, *scores, strict=True)
    }


def _write(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence]):
    with (
        written_beside(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([header, *rows])
