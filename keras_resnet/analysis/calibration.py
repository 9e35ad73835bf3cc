"""Whether probabilities mean what they say."""

import logging
from dataclasses import dataclass

import numpy as np

from keras_resnet.checks import check_choice, check_positive, check_range

_logger = logging.getLogger(__name__)

_TEMPERATURES = 0.05, 20.0
_FAR_FROM_1 = 0.01  # float16 is exact to a thousandth of each probability


@dataclass(frozen=True)
class Calibration:
    """How often predictions of a certainty are right: a reliability diagram, as numbers.

    Predictions are put into bins of equal width by their certainty. A model is calibrated if, in
    each bin, the fraction of right predictions is the mean certainty.

    Parameters
    ----------
    edges : float array of shape (bins + 1,)
        Where bins begin and end, from 0 to 1.
    counts : int array of shape (bins,)
        Predictions in each.
    certainty, accuracy : float array of shape (bins,)
        Mean certainty, and fraction that is right, in each; NaN in empty ones.
    """

    edges: np.ndarray
    counts: np.ndarray
    certainty: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error: the mean gap between the two, over predictions."""
        return float(np.nansum(self._gaps * self.counts) / self.counts.sum())

    @property
    def largest_error(self) -> float:
        """The largest gap of any bin that is not empty."""
        return float(np.nanmax(self._gaps))

    @property
    def _gaps(self):
        return np.abs(self.certainty - self.accuracy)


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> Calibration:
    """Compare how certain a model is with how often it is right.

    Parameters
    ----------
    labels : int array of shape (images,), or of shape (images, labels)
        The true class of every image; of several labels, 1 for every label that an image has and 0
        for the others.
    probabilities : float array of shape (images, classes) or (images, labels)
        Outputs of the model.
    bins : int, default 15
        Bins of equal width.

    Returns
    -------
    Calibration
        Of classes, of the most probable class of every image. Of several labels, of every label of
        every image, whose certainty is its probability, and which is right if the image has it.

    Raises
    ------
    ValueError
        For no images, shapes that do not fit, labels that are not whole numbers or too high, and
        probabilities that are not from 0 to 1 or whose sum over classes is not 1.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import calibration
    >>> found = calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]), bins=10)
    >>> round(found.expected_error, 2)  # |0.9 - 1| / 2 + |0.6 - 0| / 2
    0.35
    """
    check_positive(bins=bins)
    labels, probabilities = _checked(labels, probabilities)
    if labels.ndim == 1:
        certainty = probabilities.max(-1)
        right = probabilities.argmax(-1) == labels
    else:
        certainty, right = probabilities.ravel(), labels.ravel() == 1
    edges = np.linspace(0, 1, bins + 1)
    # A bin does not hold its lower edge, but the first one does.
    places = np.clip(np.searchsorted(edges, certainty, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(places, each, bins) / counts for each in (certainty, right)]
    return Calibration(edges, counts, *means)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the temperature that makes probabilities the most plausible.

    Parameters
    ----------
    labels, probabilities
        As for `calibration`: of images that the model was not trained on, best the validation
        images. At any temperature, predictions stay the same: classes, and labels whose threshold
        is 0.5.

    Returns
    -------
    float
        What logits are to be divided by, from 0.05 to 20: above 1 for a model that is too sure of
        itself. The minimum of the cross-entropy, which has only one; a warning says so if it lies
        outside of this range, as when all predictions are right.

    Raises
    ------
    ValueError
        As `calibration` does.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import fit_temperature
    >>> labels, sure = np.array([0, 0, 0, 1]), np.tile([0.99, 0.01], (4, 1))
    >>> round(fit_temperature(labels, sure), 2)  # right in 3 of 4 cases: log 99 / log 3
    4.18
    """
    temperature, is_best = best_temperature(labels, probabilities)
    if not is_best:
        _logger.warning(
            "The best temperature is not between %g and %g, as when all predictions are right or "
            "most are wrong: %g is returned.",
            *(*_TEMPERATURES, temperature),
        )
    return temperature


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, bool]:
    """Find what `fit_temperature` returns, and whether it is an optimum, not just a bound."""
    from scipy.optimize import minimize_scalar

    labels, probabilities = _checked(labels, probabilities)

    def loss(logarithm):
        found = at_temperature(probabilities, np.exp(logarithm), labels.ndim)
        with np.errstate(divide="ignore"):  # at a bound, what is wrong may be impossible
            return _cross_entropy(labels, found)

    bounds = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=bounds, method="bounded")
    best = min((found.x, *bounds), key=loss)
    return float(np.exp(best)), best not in bounds


def at_temperature(
    probabilities: np.ndarray, temperature: float, dimensions: int = 1
) -> np.ndarray:
    """What probabilities would be if logits were divided by a temperature.

    Parameters
    ----------
    probabilities : float array of shape (images, classes) or (images, labels)
        Outputs of a model.
    temperature : float
        The temperature, above 0.
    dimensions : {1, 2}, default 1
        1 for the classes of a softmax, 2 for several labels with a sigmoid each: dimensions of
        `labels` in `calibration`.

    Returns
    -------
    float array of the same shape

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import at_temperature
    >>> at_temperature(np.array([[0.9, 0.1]]), 2.0).round(2)
    array([[0.75, 0.25]])
    """
    from scipy.special import expit, logit, softmax

    check_range("positive", temperature=temperature)
    check_choice((1, 2), dimensions=dimensions)
    probabilities = np.asarray(probabilities, "float64")
    _check_probabilities(probabilities)
    probabilities = np.clip(probabilities, 1e-12, 1 - 1e-12)
    if dimensions == 1:
        return softmax(np.log(probabilities) / temperature, axis=-1)
    return expit(logit(probabilities) / temperature)


def _cross_entropy(labels, probabilities):
    """The mean over images, or over images and labels."""
    if labels.ndim == 1:
        return -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    return -np.log(np.where(labels == 1, probabilities, 1 - probabilities)).mean()


def _check_probabilities(probabilities):
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError("probabilities must be from 0 to 1: pass those, not logits.")


def _checked(labels, probabilities):
    """Labels and probabilities that fit each other."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, "float64")
    fits = labels.shape in (probabilities.shape, probabilities.shape[:1])
    if probabilities.ndim != 2 or not len(labels) or not fits:
        raise ValueError(
            f"labels of shape {labels.shape} and probabilities of shape {probabilities.shape} do "
            "not fit: there must be a row of probabilities for every image, and at least one image."
        )
    _check_probabilities(probabilities)
    classes = probabilities.shape[1] if labels.ndim == 1 else 2
    if classes < 2:
        raise ValueError(
            "probabilities must be of at least two classes; those of a sigmoid need two columns, "
            "1 - p and p."
        )
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all():
        labels = labels.astype(int)  # a split has them as floats
    if labels.dtype.kind not in "biu":
        raise ValueError(f"labels of type {labels.dtype} must be whole numbers.")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} must be from 0 to {classes - 1}."
        )
    if labels.ndim == 1 and not np.allclose(probabilities.sum(1), 1, atol=_FAR_FROM_1):
        raise ValueError(
            "probabilities of the classes of an image must sum to 1; those of several labels need "
            "labels for every column, of the same shape."
        )
    return labels, probabilities
