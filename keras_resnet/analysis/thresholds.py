"""Thresholds of labels, chosen on images that a model was not trained on."""

import logging

import numpy as np

from keras_resnet import names
from keras_resnet.checks import check_choice
from keras_resnet.graphs.thresholds import THRESHOLD

_logger = logging.getLogger("keras_resnet")

RULES = {
    # Of a label: images that have it and are found, those that are found and lack it, and how many
    # have it and lack it at all.
    "f1": lambda right, wrong, have, lack: 2 * right / (right + wrong + have),
    "balanced_accuracy": lambda right, wrong, have, lack: (right / have + 1 - wrong / lack) / 2,
}
"""What thresholds may maximize for each label, by name."""


def choose_thresholds(
    labels: np.ndarray,
    probabilities: np.ndarray,
    rule: str = "f1",
    class_names: tuple[str, ...] | None = None,
) -> tuple[float, ...]:
    """Choose what the probability of each label must exceed.

    Of thresholds that are equally good, the nearest to 0.5. It lies in the middle between the
    probabilities of two images, or is 0.5. Few images make a poor choice: a label that none or all
    of them have keeps 0.5.

    Parameters
    ----------
    labels : array of shape (images, labels)
        1 for every label that an image has, 0 for the others: best of validation images.
    probabilities : array of shape (images, labels)
        What a model gives for them.
    rule : {"f1", "balanced_accuracy"}, default "f1"
        What to maximize for each label: the F1 score, or the mean of the fractions of right answers
        among the images that have the label and among those that lack it.
    class_names : tuple of str, optional
        Names of the labels, for a message about those that keep 0.5. Default: none.

    Returns
    -------
    tuple of float
        As `graphs.with_thresholds` takes them.

    Raises
    ------
    ValueError
        For an unknown rule, or arrays of other shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import analysis
    >>> found = np.array([[0.1], [0.2], [0.3], [0.45]])
    >>> analysis.choose_thresholds(np.array([[0], [0], [1], [1]]), found)
    (0.25,)
    """
    check_choice(tuple(RULES), rule=rule)
    labels, probabilities = np.asarray(labels) > 0.5, np.asarray(probabilities, "float64")
    if labels.shape != probabilities.shape or labels.ndim != 2:
        raise ValueError(
            f"labels of shape {labels.shape} and probabilities of shape {probabilities.shape} must "
            "both be (images, labels)."
        )
    decidable = np.logical_and(labels.any(0), ~labels.all(0))
    if class_names and not decidable.all():
        _logger.info(
            "None or all of the %d images have %s: the threshold stays %s.",
            len(labels),
            names.some([class_names[index] for index in np.flatnonzero(~decidable)]),
            THRESHOLD,
        )
    return tuple(
        _threshold(present, found, RULES[rule]) if may_be else THRESHOLD
        for present, found, may_be in zip(labels.T, probabilities.T, decidable, strict=True)
    )


def _threshold(present, probabilities, score):
    """The best threshold of one label."""
    found, which = np.unique(probabilities, return_inverse=True)
    have = np.bincount(which[present], minlength=len(found))
    lack = np.bincount(which, minlength=len(found)) - have
    # At each place: the images of this probability and higher ones. The threshold lies below.
    right, wrong = (np.cumsum(each[::-1])[::-1] for each in (have, lack))
    scores = score(right, wrong, have.sum(), lack.sum())
    below = np.concatenate([[0.0], found[:-1]])
    between = (below + found) / 2
    between = np.where((below <= THRESHOLD) & (found > THRESHOLD), THRESHOLD, between)
    scores = np.where(between < found, scores, 0.0)  # nothing is below a probability of 0
    if not scores.any():
        return THRESHOLD
    best = between[scores >= scores.max() * (1 - 1e-12)]
    return float(best[np.argmin(np.abs(best - THRESHOLD))])
