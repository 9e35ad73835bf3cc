"""Which choices of a search mattered."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from keras_resnet.tuning.records import SearchRecord, best, differing, short

FEWEST = 8
"""Number of different models from which on `importance` draws conclusions."""
# By chance alone, a forest beats 19 that were trained on shuffled scores in 1 of 20 searches.
_TREES, _SHUFFLES = 50, 19
_FOLDS, _REPEATS = 5, 5


@dataclass(frozen=True)
class Marginal:
    """The models with one value of a choice.

    Parameters
    ----------
    value : str
        The value, or a range of values.
    nets : int
        How many models have it.
    score : float
        Their mean score.
    gain : float
        The mean difference from the mean score of all models trained for as many epochs.
    """

    value: str
    nets: int
    score: float
    gain: float


@dataclass(frozen=True)
class Choice:
    """How much a choice mattered, and the scores with its values.

    Parameters
    ----------
    name : str
        Such as "width".
    share : float
        Fraction of what the choices explain, 0 to 1.
    marginals : tuple of Marginal
        One for every value; if there are more than three numbers, one for every third of them.
    """

    name: str
    share: float
    marginals: tuple[Marginal, ...]


@dataclass(frozen=True)
class Importance:
    """Which choices mattered.

    Parameters
    ----------
    nets : int
        Number of different models that could be compared.
    explained : float or None
        Fraction of the variance of held-out scores that the choices explain, 0 or less if they
        explain nothing; None if there are too few models.
    chance : float
        The most that the choices explain of shuffled scores.
    choices : tuple of Choice
        The most important one first; empty if there are too few models.
    """

    nets: int
    explained: float | None
    chance: float
    choices: tuple[Choice, ...]

    @property
    def beyond_chance(self) -> bool:
        """Whether the choices explain more than chance; otherwise all their fractions are 0."""
        return self.explained is not None and self.explained > self.chance


def importance(record: SearchRecord) -> Importance:
    """Find out which choices mattered more than chance would explain.

    A random forest predicts every score from the choices, using only trees that have not seen the
    model. The same is done with shuffled scores, to see what chance explains. A choice matters as
    much as predictions for held-out models get worse when its values are permuted.

    Parameters
    ----------
    record : SearchRecord
        The search.

    Returns
    -------
    Importance
        The same for the same record. Choices that are the same in all trials are left out.

    References
    ----------
    Breiman (2001), Random Forests, section 10.
    Ojala and Garriga (2010), Permutation Tests for Studying Classifier Performance.

    Examples
    --------
    >>> from keras_resnet.tuning.importance import importance
    >>> from keras_resnet.tuning.records import SearchRecord, TrialRecord
    >>> trials = [
    ...     TrialRecord(n, {"depth": n, "width": n % 2}, "completed", n % 2, 1, 1, 1, 1.0)
    ...     for n in range(16)
    ... ]
    >>> found = importance(SearchRecord("val_accuracy", "max", "random", "", 0, 16.0, trials))
    >>> found.beyond_chance, found.choices[0].name
    (True, 'width')
    """
    # Scores after different numbers of epochs cannot be compared: Hyperband trains all models for a
    # few epochs and continues with good ones, so that epochs would stand for whatever good models
    # have in common. Every model counts once, after its first round, before any selection, and its
    # score is compared with the mean of all models trained for as many epochs.
    firsts = {}
    for trial in sorted(best(record), key=lambda trial: (trial.epochs, trial.number)):
        firsts.setdefault(repr(sorted(trial.values.items())), trial)
    equals = Counter(trial.epochs for trial in firsts.values())
    trials = [trial for trial in firsts.values() if equals[trial.epochs] > 1]
    names = differing(trials)
    if len(trials) < FEWEST or not names:
        return Importance(len(trials), None, 0.0, ())
    scores, epochs = (np.array([getattr(t, key) for t in trials]) for key in ("score", "epochs"))
    gains = scores - [scores[epochs == count].mean() for count in epochs]
    rng = np.random.default_rng(0)
    columns = _columns(trials, names, rng)
    # If all scores are equal, there is nothing to explain but rounding errors.
    differ = gains.var() > (1e-9 * np.abs(scores).max()) ** 2
    explained, chance = _explained(columns, gains) if differ else 0.0, 0.0
    for _ in range(_SHUFFLES):
        if explained <= chance:
            break
        chance = max(chance, _explained(columns, rng.permutation(gains)))
    lost = _lost(columns, gains) if explained > chance else np.zeros(len(names))
    choices = [
        Choice(name, float(share), _marginals(trials, scores, gains, name))
        for name, share in zip(names, lost / (lost.sum() or 1), strict=True)
    ]
    choices.sort(key=lambda choice: -choice.share)
    return Importance(len(trials), explained, chance, tuple(choices))


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(trials, names, rng):
    """Choices as numbers, one column each."""
    columns = np.empty((len(trials), len(names)), "float32")
    for column, name in zip(columns.T, names, strict=True):
        values = {
            row: trial.values[name] for row, trial in enumerate(trials) if name in trial.values
        }
        if not all(map(_is_number, values.values())):
            # Names are numbered: with two cuts, a tree can single out any of them.
            known = sorted(set(map(str, values.values())))
            values = {row: known.index(str(value)) for row, value in values.items()}
        # Where a choice is not active, a random one of its values: that it is not active is due to
        # the choice that it depends on, which should get the credit.
        column[:] = rng.choice(list(values.values()), len(trials))
        column[list(values)] = list(values.values())
    return columns


def _forest(**options):
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=0, **options)


def _explained(columns, gains):
    """Fraction of the variance that trees explain for the models that they have not seen."""
    return float(_forest(oob_score=True).fit(columns, gains).oob_score_)


def _lost(columns, gains):
    """How much worse held-out predictions get when each of the columns is permuted."""
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    lost = np.zeros(columns.shape[1])
    for seen, held_out in KFold(_FOLDS, shuffle=True, random_state=0).split(columns):
        forest = _forest().fit(columns[seen], gains[seen])
        lost += (
            len(held_out)
            * permutation_importance(
                forest,
                columns[held_out],
                gains[held_out],
                scoring="neg_mean_squared_error",
                n_repeats=_REPEATS,
                random_state=0,
            ).importances_mean
        )
    return np.clip(lost, 0, None)


def _marginals(trials, scores, gains, name):
    """Scores with each value of a choice."""
    values = {row: trial.values[name] for row, trial in enumerate(trials) if name in trial.values}
    numbers, groups = all(map(_is_number, values.values())), {}
    thirds = None
    if numbers and len(set(values.values())) > 3:
        thirds = np.quantile(list(values.values()), (1 / 3, 2 / 3))
    for row in sorted(values, key=lambda row: values[row] if numbers else f"{values[row]}"):
        group = values[row] if thirds is None else int(np.searchsorted(thirds, values[row]))
        groups.setdefault(group, []).append(row)
    marginals = []
    for rows in groups.values():
        ends = dict.fromkeys(short(values[row]) for row in (rows[0], rows[-1]))
        means = float(scores[rows].mean()), float(gains[rows].mean())
        marginals.append(Marginal(" to ".join(ends), len(rows), *means))
    return tuple(marginals)
