"""Which choices of a search mattered."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from keras_resnet.tuning.records import SearchRecord, best, differing, short

FEWEST = 8
"""Different nets from which on `importance` says anything."""
# By chance alone, a forest does better than 19 shuffled ones in 1 of 20 searches.
_TREES, _SHUFFLES = 100, 19


@dataclass(frozen=True)
class Marginal:
    """What a value did: how many nets have it, their mean score, and the mean difference between
    it and the mean score of all nets of as many epochs.
    """

    value: str
    nets: int
    score: float
    gain: float


@dataclass(frozen=True)
class Choice:
    """How much a choice mattered, and what its values did.

    Parameters
    ----------
    name : str
        Such as "width".
    share : float
        Of what the choices explain, 0 to 1.
    marginals : tuple of Marginal
        Of each value; of a third each, where there are more than three numbers.
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
        Different nets that could be compared.
    explained : float or None
        Fraction of the variance of held-out scores that the choices explain, 0 or less where they
        do not; None if there are too few nets.
    chance : float
        The most that shuffled choices explain.
    choices : tuple of Choice
        The most important one first; empty if there are too few nets.
    """

    nets: int
    explained: float | None
    chance: float
    choices: tuple[Choice, ...]

    @property
    def beyond_chance(self) -> bool:
        """Whether the choices explain anything; all shares are 0 if not."""
        return self.explained is not None and self.explained > self.chance


def importance(record: SearchRecord) -> Importance:
    """Find out which choices made the difference between good scores and bad ones.

    A forest of trees predicts every score from the choices, by those of its trees that have not
    seen the net. A choice matters as much as the prediction gets worse without it.

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
    # Scores of different epochs cannot be compared: Hyperband trains all nets for a few and goes on
    # with good ones, so that epochs would speak for whatever good nets happen to share. Every net
    # counts once, as it was after its first round: nobody had been selected by then. Its score is
    # seen against the mean of its equals, those of as many epochs; alone, it says nothing.
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
    rng, columns = np.random.default_rng(0), _columns(trials, names)
    errors = _held_out_errors(columns, gains, rng, range(len(names)))
    variance = gains.var()
    # Of equal scores there is nothing to explain, but for rounding.
    differ = variance > (1e-9 * np.abs(scores).max()) ** 2
    explained, chance = float(1 - errors[0] / variance) if differ else 0.0, 0.0
    for _ in range(_SHUFFLES):
        if explained <= chance:
            break
        error = _held_out_errors(rng.permutation(columns), gains, rng)[0]
        chance = max(chance, float(1 - error / variance))
    lost = np.clip(errors[1:] - errors[0], 0, None) * (explained > chance)
    choices = [
        Choice(name, float(share), _marginals(trials, scores, gains, name))
        for name, share in zip(names, lost / (lost.sum() or 1), strict=True)
    ]
    choices.sort(key=lambda choice: -choice.share)
    return Importance(len(trials), explained, chance, tuple(choices))


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _columns(trials, names):
    """Choices as numbers, a column each; NaN where one is not active."""
    columns = np.full((len(trials), len(names)), np.nan, "float32")
    for column, name in zip(columns.T, names, strict=True):
        values = {
            row: trial.values[name] for row, trial in enumerate(trials) if name in trial.values
        }
        if not all(map(_is_number, values.values())):
            # Names are numbered: with two cuts, a tree has any of them by itself.
            known = sorted(set(map(str, values.values())))
            values = {row: known.index(str(value)) for row, value in values.items()}
        column[list(values)] = list(values.values())
    return columns


def _held_out_errors(columns, gains, rng, forgotten=()):
    """Mean squared errors of a forest, every net predicted by the trees that have not seen it.

    With all that is known first, then without each of the `forgotten` columns.
    """
    from sklearn.tree import DecisionTreeRegressor

    count = len(gains)
    predicted, trees = np.zeros((1 + len(forgotten), count)), np.zeros(count)
    for _ in range(_TREES):
        # Where a choice is not active, any of its values will do: that it is not is the doing of
        # the choice that it depends on, which shall have the credit.
        filled, other = columns.copy(), np.empty_like(columns)
        for column, drawn in zip(filled.T, other.T, strict=True):
            active = ~np.isnan(column)
            drawn[:] = rng.choice(column[active], count)
            column[~active] = drawn[~active]
        seen = rng.integers(count, size=count)
        tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=rng.integers(2**31))
        tree.fit(filled[seen], gains[seen], check_input=False)
        unseen = np.setdiff1d(np.arange(count), seen)
        asked = np.repeat(filled[None, unseen], len(predicted), axis=0)
        for row, index in enumerate(forgotten, start=1):
            asked[row, :, index] = other[unseen, index]
        answers = tree.predict(asked.reshape(-1, columns.shape[1]), check_input=False)
        predicted[:, unseen] += answers.reshape(len(predicted), len(unseen))
        trees[unseen] += 1
    return np.square(predicted / np.maximum(trees, 1) - gains).mean(axis=1)


def _marginals(trials, scores, gains, name):
    values = {row: trial.values[name] for row, trial in enumerate(trials) if name in trial.values}
    numbers, groups = all(map(_is_number, values.values())), {}
    thirds = None
    if numbers and len(set(values.values())) > 3:
        thirds = np.quantile(list(values.values()), (1 / 3, 2 / 3))
    for row in sorted(values, key=values.get if numbers else lambda row: f"{values[row]}"):
        group = values[row] if thirds is None else int(np.searchsorted(thirds, values[row]))
        groups.setdefault(group, []).append(row)
    marginals = []
    for rows in groups.values():
        ends = dict.fromkeys(short(values[row]) for row in (rows[0], rows[-1]))
        means = float(scores[rows].mean()), float(gains[rows].mean())
        marginals.append(Marginal(" to ".join(ends), len(rows), *means))
    return tuple(marginals)
