"""The trials of a search and their results, as data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Parameters
    ----------
    number : int
        From 1, in the order in which trials began.
    values : mapping of str to str, int, float or bool
        What was chosen; choices whose condition does not hold are missing.
    status : str
        "completed" or "failed".
    score : float or None
        The objective; None for a failed trial.
    parameters, macs : int
        Parameters of the model, and its multiply-adds for one image.
    epochs : int
        In total, including those of the earlier rounds that it continued.
    seconds : float
        Time of training.
    milliseconds : float, optional
        Time of a prediction for one image, measured if the budget limits it.
    message : str, default ""
        Why it failed.
    """

    number: int
    values: Mapping[str, Any]
    status: str
    score: float | None
    parameters: int
    macs: int
    epochs: int
    seconds: float
    milliseconds: float | None = None
    message: str = ""

    def __post_init__(self):
        if self.status not in ("completed", "failed"):
            raise ValueError(f"status={self.status!r} must be 'completed' or 'failed'.")
        if self.status == "completed" and (self.score is None or not math.isfinite(self.score)):
            raise ValueError(f"score={self.score!r} of a completed trial must be a finite number.")


@dataclass(frozen=True)
class SearchRecord:
    """A search and its trials.

    Parameters
    ----------
    objective : str
        What models were chosen by, such as "val_accuracy".
    direction : str
        "max" or "min".
    algorithm : str
        "hyperband", "random" or "bayesian".
    budget : str
        Such as "params=300000", or "" for none.
    declined : int
        Number of models that were over the budget, and never trained.
    seconds : float
        Duration, without interruptions.
    trials : sequence of TrialRecord
        All trials.
    """

    objective: str
    direction: str
    algorithm: str
    budget: str
    declined: int
    seconds: float
    trials: Sequence[TrialRecord]

    def __post_init__(self):
        if self.direction not in ("max", "min"):
            raise ValueError(f"direction={self.direction!r} must be 'max' or 'min'.")


def best(record: SearchRecord) -> list[TrialRecord]:
    """Sort completed trials, the best first; of equals, the one with fewer multiply-adds.

    Examples
    --------
    >>> from keras_resnet.tuning.records import SearchRecord, TrialRecord, best
    >>> trials = [
    ...     TrialRecord(1, {"block": "basic"}, "completed", 0.91, 77_000, 5_000_000, 8, 9.5),
    ...     TrialRecord(2, {"block": "bottleneck"}, "completed", 0.93, 80_000, 7_000_000, 8, 12.0),
    ...     TrialRecord(3, {"block": "bottleneck"}, "failed", None, 90_000, 9_000_000, 8, 0.0),
    ... ]
    >>> record = SearchRecord("val_accuracy", "max", "random", "", 0, 25.0, trials)
    >>> [trial.number for trial in best(record)]
    [2, 1]
    """
    completed = (trial for trial in record.trials if trial.status == "completed")
    return sorted(completed, key=lambda trial: (-merit(record, trial), trial.macs))


def champion(record: SearchRecord) -> TrialRecord:
    """Find the best trial.

    Parameters
    ----------
    record : SearchRecord
        The search.

    Returns
    -------
    TrialRecord

    Raises
    ------
    ValueError
        If no trial was completed, with the reason of the first failure.
    """
    if ranked := best(record):
        return ranked[0]
    if not record.trials:
        raise ValueError(
            f"the search has no trials: all {record.declined:,} models that were drawn are over "
            "the budget or cannot be built."
        )
    reasons = [trial.message for trial in record.trials if trial.message]
    raise ValueError(f"none of the {len(record.trials)} trials completed. {' '.join(reasons[:1])}")


def pareto_front(record: SearchRecord) -> list[TrialRecord]:
    """Find the completed trials that no other trial beats, by increasing multiply-adds.

    One trial beats another if its score is at least as good and its multiply-adds are at least as
    few, unless both are equal.
    """
    front = []
    for trial in sorted(best(record), key=lambda trial: trial.macs):
        better = not front or merit(record, trial) > merit(record, front[-1])
        if better or (trial.macs, trial.score) == (front[-1].macs, front[-1].score):
            front.append(trial)
    return front


def score_of(trial: TrialRecord) -> float:
    """The score of a completed trial."""
    if trial.score is None:
        raise ValueError(f"trial {trial.number} failed, so that it has no score.")
    return trial.score


def merit(record: SearchRecord, trial: TrialRecord) -> float:
    """The score of a completed trial, negated if less is better."""
    return score_of(trial) if record.direction == "max" else -score_of(trial)


def differing(trials: Sequence[TrialRecord]) -> list[str]:
    """Names of the choices that differ between trials."""
    names = dict.fromkeys(name for trial in trials for name in trial.values)
    return [name for name in names if len({repr(t.values.get(name)) for t in trials}) > 1]


def short(value: Any) -> str:
    """A value of a choice in a few characters; "" for a choice that is not active."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else f"{value}"
