"""Kinds of models, trained alike and compared at the end."""

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.experiments import trainings
from keras_resnet.experiments.figures import bars, published, spread
from keras_resnet.pages import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERRORS = {"error": "training", "test_error": "test"}
"""What `trainings.train` calls errors, and what figures call them."""

Ends = Mapping[str, Mapping[str, Sequence[float]]]
"""Errors of the last epoch: for each of `ERRORS` and each kind, one of every seed."""


def check_compared(known: Collection[str], **argument: Sequence[str]) -> None:
    """Make sure that an argument has at least two different kinds to compare.

    Parameters
    ----------
    known : collection of str
        The kinds that there are.
    **argument
        The argument, by its name: a tuple of some of them.

    Raises
    ------
    ValueError
        For one that is not known, one that is there twice, or fewer than two.

    Examples
    --------
    >>> from keras_resnet.experiments.comparing import check_compared
    >>> check_compared("ABC", shortcuts=("A", "E"))
    Traceback (most recent call last):
        ...
    ValueError: shortcuts=('A', 'E') must be at least two different ones of 'A', 'B', 'C'.
    """
    ((name, kinds),) = argument.items()
    several = kinds if isinstance(kinds, tuple) else ()
    there = [kind for kind in known if kind in several]
    if len(there) < max(2, len(several)):
        raise ValueError(
            f"{name}={kinds!r} must be at least two different ones of "
            f"{', '.join(map(repr, known))}."
        )


def least_difference(runs: Sequence[Sequence[float]]) -> float | None:
    """The least difference between two means that is more than the spread over seeds.

    This is Tukey's honestly significant difference at 5 %: if all kinds were equally good, the
    largest difference among them would exceed it in one experiment out of twenty.

    Parameters
    ----------
    runs : sequence of sequence of float, of shape (kinds, seeds)
        What each run of each kind found.

    Returns
    -------
    float or None
        None for one seed.

    Examples
    --------
    >>> from keras_resnet.experiments.comparing import least_difference
    >>> round(least_difference([[1.0, 3.0], [2.0, 4.0]]), 1)
    6.1
    """
    kinds, seeds = np.shape(runs)
    if seeds == 1:
        return None
    from scipy.stats import studentized_range  # half a second

    deviation = np.sqrt(np.mean(np.var(runs, axis=1, ddof=1)))
    factor = studentized_range.ppf(0.95, kinds, kinds * (seeds - 1))
    return float(factor * deviation / np.sqrt(seeds))


def ends(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Ends:
    """Errors of the last epoch.

    Parameters
    ----------
    curves : mapping of str to sequence of mapping
        For each kind, what `trainings.train` found with each seed.

    Returns
    -------
    mapping
    """
    return {
        key: {kind: [run[key][-1] for run in runs] for kind, runs in curves.items()}
        for key in ERRORS
    }


def rows(found: Ends) -> list[list[Any]]:
    """A row for each kind: its name, then mean and standard deviation of each of `ERRORS`.

    Parameters
    ----------
    found : Ends
        The errors.

    Returns
    -------
    list of list
    """
    return [
        [
            kind,
            *(
                number
                for key in ERRORS
                for number in trainings.mean_and_deviation(found[key][kind])
            ),
        ]
        for kind in found["error"]
    ]


def values(found: Ends, without: str | None = None) -> dict[str, Any]:
    """What is best and worst, and which differences are more than the spread over seeds.

    Parameters
    ----------
    found : Ends
        The errors.
    without : str, optional
        A kind to compare the best and the worst of the others with.

    Returns
    -------
    dict
        The mean errors as KIND_KEY, KEY being one of `ERRORS`; KEY_best and KEY_worst, two kinds;
        KEY_of_best and KEY_of_worst, their errors; KEY_between, the difference of these, and
        KEY_between_is_clear; KEY_gap, from the worst to `without`, and KEY_gap_is_clear; and
        KEY_least_difference, which clear differences are above.
    """
    told = {}
    for key, runs in found.items():
        mean = {kind: statistics.mean(each) for kind, each in runs.items()}
        order = sorted((kind for kind in mean if kind != without), key=mean.__getitem__)
        best, worst = order[0], order[-1]
        least = least_difference([*runs.values()])
        differences = {
            "between": mean[worst] - mean[best],
            "gap": mean[without] - mean[worst] if without in mean else None,
        }
        told |= {
            **{f"{kind}_{key}": error for kind, error in mean.items()},
            **{f"{key}_best": best, f"{key}_worst": worst},
            **{f"{key}_of_best": mean[best], f"{key}_of_worst": mean[worst]},
            **{f"{key}_{name}": difference for name, difference in differences.items()},
            **{
                f"{key}_{name}_is_clear": None not in (difference, least) and difference > least
                for name, difference in differences.items()
            },
            f"{key}_least_difference": least,
        }
    return told


def by_epoch(
    epochs: int, curves: Mapping[str, Sequence[Mapping[str, Any]]], title: str
) -> "Figure":
    """Draw training and test errors by epoch.

    Parameters
    ----------
    epochs : int
        How many there are.
    curves : mapping
        As for `ends`.
    title : str
        Of the legend: what the kinds are kinds of.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with figure(2, sharey=True) as (drawn, axes):
        for axis, (key, name) in zip(axes, ERRORS.items(), strict=True):
            for (kind, runs), colour in zip(curves.items(), COLOURS, strict=False):
                errors = [[100 * error for error in run[key]] for run in runs]
                spread(axis, range(1, epochs + 1), errors, kind, color=colour)
            axis.set_xlabel("epoch")
            axis.set_ylabel(f"{name} error, %")
        axes[1].legend(title=title)
    return drawn


def by_kind(
    found: Ends, known: Mapping[str, Mapping[str, float]], *, kinds: str, ours: str, theirs: str
) -> "Figure":
    """Draw the errors of the last epoch by kind, beside published ones.

    Parameters
    ----------
    found : Ends
        Ours.
    known : mapping of str to mapping of str to float
        Published errors of some kinds in percent, under a text for the legend.
    kinds, ours, theirs : str
        What the axes are called.

    Returns
    -------
    matplotlib.figure.Figure
    """
    places = {kind: place for place, kind in enumerate(found["error"])}
    with figure(2) as (drawn, axes):
        for (key, name), colour in zip(ERRORS.items(), COLOURS, strict=False):
            errors = 100 * np.transpose([found[key][kind] for kind in places])
            bars(axes[0], [*places.values()], errors.tolist(), name, color=colour, fmt="o")
        for (name, errors), colour in zip(known.items(), COLOURS[2:], strict=False):
            there = [kind for kind in places if kind in errors]
            published(
                *(
                    axes[1],
                    [places[kind] for kind in there],
                    [errors[kind] for kind in there],
                    name,
                ),
                color=colour,
            )
        for axis, label in zip(axes, (ours, theirs), strict=True):
            axis.set_xticks([*places.values()], [*places])
            axis.set_xlim(-0.5, len(places) - 0.5)
            axis.set_xlabel(kinds)
            axis.set_ylabel(label)
            axis.legend()
    return drawn
