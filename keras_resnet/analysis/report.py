"""How good a classifier is, class by class."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.files import written_beside


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

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of every image."""
        return self.probabilities.argmax(axis=-1)

    @property
    def accuracy(self) -> float:
        """Fraction of the images whose class is right."""
        return float(np.mean(self.predictions == self.labels))

    def confusion(self) -> np.ndarray:
        """Images of every true class (row) that were taken for every class (column)."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predictions, labels=range(len(self.class_names)))

    def save_confusion(self, path: str | os.PathLike) -> None:
        """Write the confusion matrix as a CSV file.

        Parameters
        ----------
        path : path
            The file: true classes downwards, predicted classes across.
        """
        with (
            written_beside(path) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["", *self.class_names])
            for name, row in zip(self.class_names, self.confusion().tolist(), strict=True):
                writer.writerow([name, *row])

    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 score and number of images ("support") of every class."""
        from sklearn.metrics import precision_recall_fscore_support

        scores = precision_recall_fscore_support(
            self.labels,
            self.predictions,
            labels=range(len(self.class_names)),
            zero_division=0.0,
        )
        names = ("precision", "recall", "f1-score", "support")
        return {
            class_name: dict(zip(names, map(float, values), strict=True))
            for class_name, *values in zip(self.class_names, *scores, strict=True)
        }


def evaluate(
    model: keras.Model, dataset: tf.data.Dataset, class_names: tuple[str, ...]
) -> Evaluation:
    """Classify labelled images.

    Parameters
    ----------
    model : keras.Model
        A classifier.
    dataset : tf.data.Dataset
        Batches of (images, labels), as `data.batches` makes them.
    class_names : tuple of str
        Names of the classes, in the order of the model's outputs.

    Returns
    -------
    Evaluation

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import Evaluation
    >>> quality = Evaluation(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), ("cat", "dog"))
    >>> quality.accuracy, quality.per_class()["dog"]["recall"]
    (0.5, 0.0)
    """
    labels, probabilities = zip(
        *((labels, model.predict_on_batch(images)) for images, labels in dataset), strict=True
    )
    return Evaluation(np.concatenate(labels), np.concatenate(probabilities), class_names)


def submission(
    path: str | os.PathLike,
    files: Sequence[Path],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    positive: str | None = None,
    *,
    probability: bool = False,
) -> int:
    """Write predictions as the `id,label` file that Kaggle's competitions ask for.

    Parameters
    ----------
    path : path
        The CSV file; replaced if it is there.
    files : sequence of pathlib.Path
        The images. An id is a file's name without its suffix; lines are in the order of numbers
        where all ids are numbers, and in that of the files otherwise.
    probabilities : array of shape (images, classes)
        What a model made of them.
    class_names : sequence of str
        Names of the classes.
    positive : str, optional
        The class whose label is 1; that of the others is 0. Default: labels are names.
    probability : bool, default False
        Write the positive class' probability instead of 1 or 0.

    Returns
    -------
    int
        Lines written, without the first.

    Raises
    ------
    ValueError
        If there is no such positive class; or none, and probabilities are asked for.

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
    if positive not in ((*class_names,) if probability else (None, *class_names)):
        raise ValueError(f"positive={positive!r} must be one of {', '.join(class_names)}.")
    labels = [class_names[index] for index in probabilities.argmax(axis=-1)]
    if positive is not None:
        labels = [int(label == positive) for label in labels]
    if probability:
        labels = [f"{p:.6f}" for p in probabilities[:, list(class_names).index(positive)]]
    lines = list(zip((file.stem for file in files), labels, strict=True))
    if all(name.isdecimal() for name, _ in lines):
        lines.sort(key=lambda line: int(line[0]))
    with (
        written_beside(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([("id", "label"), *lines])
    return len(lines)
