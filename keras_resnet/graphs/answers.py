"""From the outputs of a model to answers: probabilities of classes or labels, or values."""

from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_resnet.graphs.heads import Head


@dataclass(frozen=True)
class Answer:
    """What turns the outputs of a model into answers of a task.

    Parameters
    ----------
    activation : {"softmax", "sigmoid"}, optional
        The activation that the model lacks.
    both : bool, default False
        Whether the output is the probability of the second of two classes, and the answer has both.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.graphs import Answer
    >>> Answer("sigmoid", both=True)(np.zeros((1, 1))).numpy().tolist()
    [[0.5, 0.5]]
    """

    activation: Literal["softmax", "sigmoid"] | None = None
    both: bool = False

    def __call__(self, outputs: Any) -> Any:
        """Turn outputs of shape (images, units), an array or a tensor, into answers."""
        if self.activation:
            outputs = getattr(keras.ops, self.activation)(outputs)
        return keras.ops.concatenate([1 - outputs, outputs], axis=-1) if self.both else outputs


# By task and by what comes out of a model; "linear" is a projection without an activation.
_ANSWERS = {
    "classification": {
        "probabilities": Answer(),
        "logits": Answer("softmax"),
        "linear": Answer("softmax"),
    },
    "multilabel": {"multilabel": Answer(), "linear": Answer("sigmoid")},
    "regression": {"number": Answer(), "linear": Answer(), "unknown": Answer()},
}
# One output decides between two classes; a softmax of it is always 1.
_OF_ONE_OUTPUT = {
    "multilabel": Answer(both=True),
    "linear": Answer("sigmoid", both=True),
}


def answer_of(head: Head, task: str) -> Answer | None:
    """Find what turns the outputs of a head into answers of a task.

    Parameters
    ----------
    head : Head
        The head of a model.
    task : {"classification", "multilabel", "regression"}
        What the model is for.

    Returns
    -------
    Answer or None
        None if the outputs cannot answer that task.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet import graphs
    >>> head = graphs.head_of(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    >>> graphs.answer_of(head, "classification")
    Answer(activation='sigmoid', both=True)
    """
    known: dict[str, Answer] = _ANSWERS[task]
    if task == "classification" and head.units == 1:
        # A single label with a threshold is no choice between two classes.
        known = {} if head.thresholds else _OF_ONE_OUTPUT
    return known.get("linear" if head.linear else head.output)


def task_of_outputs(head: Head, names: int | None) -> str | None:
    """Find the task that the outputs of a head are for.

    Parameters
    ----------
    head : Head
        The head of a model.
    names : int or None
        How many names were given: of classes, unless the model says otherwise. None for no names.

    Returns
    -------
    {"classification", "multilabel", "regression"} or None
        None if neither the model nor the names tell.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet import graphs
    >>> head = graphs.head_of(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    >>> graphs.task_of_outputs(head, names=3)
    'classification'
    >>> graphs.task_of_outputs(head, names=None) is None
    True
    """
    if head.output == "unknown":
        of_classes = head.linear and names is not None and names > 1
        return "classification" if of_classes else None
    single = head.units == 1 and not head.thresholds
    if head.output == "multilabel" and single and names in (None, 2):
        return "classification"
    return next((task for task, known in _ANSWERS.items() if head.output in known), None)
