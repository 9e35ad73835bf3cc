"""Parts of a split for cross-validation, with scikit-learn's splitters."""

import warnings
from dataclasses import replace

import numpy as np

from keras_resnet.data.labels import LABELS
from keras_resnet.data.source import Source, Split

_BINS = 10  # of numbers
_PARTS = 20  # that a fraction is put together from


def folds_of(
    split: Split, class_names: tuple[str, ...], task: str, folds: int, seed: int = 0
) -> list[np.ndarray]:
    """Divide images into parts of equal size, each with as much of every class as the others.

    Equal images stay together, and so do those of a group, where the split has groups. Images of
    several labels, or of boxes, count for the rarest of them, and numbers are divided into ranges.

    Parameters
    ----------
    split : Split
        The images.
    class_names : tuple of str
        Names of the classes, labels or numbers.
    task : str
        A key of `LABELS`.
    folds : int
        Number of parts, at least 2.
    seed : int, default 0
        Seed of the division, which depends on nothing else but the contents of the images and their
        labels.

    Returns
    -------
    list of int array
        The images of each part, in order.

    Raises
    ------
    ValueError
        If there are more parts than images, or groups, of a class.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> parts = data.folds_of(digits.train, digits.class_names, digits.task, 5)
    >>> [len(part) for part in parts]
    [245, 245, 244, 244, 244]
    """
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or folds < 2:
        raise ValueError(f"folds={folds!r} must be a whole number of at least 2.")
    _check_enough(split, class_names, task, folds)
    return _divided(split, class_names, task, folds, seed)


def with_fold(source: Source, held_out: np.ndarray, validation: float, seed: int = 0) -> Source:
    """Test on some of the training images of a source, and train on the others.

    Parameters
    ----------
    source : Source
        A source whose training images are all there is to learn from.
    held_out : int array
        The images to test on, as `folds_of` returns them.
    validation : float
        Fraction of the others to validate on, divided in the same way.
    seed : int, default 0
        Seed of that division.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there are too few images of a class to validate on some of them.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits", validation=0.0, test=0.0)
    >>> parts = data.folds_of(digits.train, digits.class_names, digits.task, 5)
    >>> fold = data.with_fold(digits, parts[0], validation=0.15)
    >>> len(fold.train), len(fold.validation), len(fold.test)
    (1221, 216, 360)
    """
    names, task = source.class_names, source.task
    others = source.train.take(np.setdiff1d(np.arange(len(source.train)), held_out))
    chosen = np.array([], int)
    if validation:
        parts = _divided(others, names, task, _PARTS, seed)
        count = max(1, round(validation * len(parts)))
        # Of a class of few images, one must be left to train on.
        some = (np.concatenate(_turned(parts, by)[:count]) for by in range(len(parts)))
        found = (np.sort(each) for each in some if _leaves_some(others, each, names, task))
        chosen = next(found, None)
        if chosen is None:
            raise ValueError(
                f"validation={validation}: a {LABELS[task].noun} of {source.name!r} has too few "
                "images to hold one out. With validation=0, the last epoch's weights are kept."
            )
    return replace(
        source,
        train=others.take(np.setdiff1d(np.arange(len(others)), chosen)),
        validation=others.take(chosen),
        test=source.train.take(held_out),
    )


def _divided(split, class_names, task, folds, seed):
    """The parts, as many as there can be."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    _, first, which = _kept_together(split)
    strata = _strata(split, class_names, task)
    options = {"shuffle": True, "random_state": seed}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        if split.groups is not None:
            folds = min(folds, len(first))
            if folds < 2:
                return [np.arange(len(split))]
            # Which wants as many members of some class as there are parts.
            if np.unique(strata, return_counts=True)[1].max() < folds:
                strata = np.zeros_like(strata)
            parts = StratifiedGroupKFold(folds, **options).split(strata, strata, which)
            return [np.sort(held_out) for _, held_out in parts if len(held_out)]
        # One of each stands for all images that are equal.
        strata = strata[first]
        folds = min(folds, np.unique(strata, return_counts=True)[1].max())
        if folds < 2:
            return [np.arange(len(split))]
        parts = StratifiedKFold(folds, **options).split(strata, strata)
        return [np.flatnonzero(np.isin(which, held_out)) for _, held_out in parts]


def _kept_together(split):
    """What stays together, the first image of each, and to which each image belongs."""
    groups = split.digests() if split.groups is None else split.groups
    return np.unique(groups, return_index=True, return_inverse=True)


def _strata(split, class_names, task):
    """A number for each image; all parts are to have as many images of each number."""
    if task == "regression":
        values = split.labels.reshape(len(split), -1)[:, 0]
        ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        return ranks * _BINS // len(ranks)
    groups = LABELS[task].groups(split.labels, len(class_names))
    strata = np.full(len(split), -1)
    for index in sorted(range(len(groups)), key=lambda index: -len(groups[index])):
        strata[groups[index]] = index  # the rarest comes last
    return strata


def _check_enough(split, class_names, task, folds):
    """Raise ValueError for a class that is in fewer images, or groups, than there are parts."""
    names, _, which = _kept_together(split)
    what = "different images" if split.groups is None else "groups"
    kind = LABELS[task]
    if len(names) < folds:
        raise ValueError(f"folds={folds}: there are only {len(names)} {what}.")
    groups = kind.groups(split.labels, len(class_names))
    counts = [len(np.unique(which[group])) for group in groups]
    found = [
        (count, name)
        for count, name in zip(counts, class_names, strict=True)
        if count or kind.in_train
    ]
    count, name = min(found, default=(folds, ""))
    if count < folds:
        remedy = f"Use at most {count} folds" if count > 1 else "Add some"
        raise ValueError(
            f"folds={folds}: {kind.noun} {name!r} is in {count} {what} only. {remedy}."
        )


def _turned(parts, by):
    return [*parts[by:], *parts[:by]]


def _leaves_some(split, chosen, class_names, task):
    """Whether every class has images that are not chosen, if it has any."""
    groups = LABELS[task].groups(split.labels, len(class_names))
    return all(len(np.setdiff1d(group, chosen)) for group in groups if len(group))
