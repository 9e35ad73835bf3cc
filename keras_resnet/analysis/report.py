"""How good a classifier is, class by class."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf


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
