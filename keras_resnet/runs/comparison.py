"""Finished runs side by side."""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.data import SPLITS
from keras_resnet.files import as_python, write_text
from keras_resnet.names import some
from keras_resnet.runs.choices import FOLDS_FILE, IMAGES_FILE, MODEL_FILE
from keras_resnet.runs.guards import check_files, check_writable, job
from keras_resnet.runs.reporting.facts import Run, check_done, read
from keras_resnet.training.tasks import TASKS

COMPARISON_FILE = "comparison.html"
"""The default name of the page."""

_OF_ALL = ("class_names", "thresholds")  # fields of an evaluation that are not per image


@dataclass(frozen=True)
class Tested:
    """A run's answers to some test images.

    Parameters
    ----------
    quality : Evaluation, MultiLabelEvaluation, RegressionEvaluation or DetectionEvaluation
        The answer to each image.
    places : int array of shape (images,)
        Which rows of the run's test images these are.
    rows : tuple
        The images, as images.csv lists them.
    """

    quality: Any
    places: np.ndarray
    rows: tuple[Any, ...]

    def take(self, indices: np.ndarray) -> "Tested":
        """The answers to some of the images."""
        some = {
            each.name: _taken(getattr(self.quality, each.name), indices)
            for each in fields(self.quality)
            if each.name not in _OF_ALL
        }
        rows = tuple(self.rows[index] for index in indices)
        return Tested(replace(self.quality, **some), self.places[indices], rows)


def _taken(column, indices):
    """Some of the elements of an array or a tuple."""
    if isinstance(column, np.ndarray):
        return column[indices]
    return tuple(column[index] for index in indices)


@dataclass(frozen=True)
class Change:
    """A test image on which the runs differ.

    Parameters
    ----------
    image : str
        Its path, or its number in the split, in the first run.
    digest : str
        The digest of its contents.
    label : str
        The true label, as in images.csv.
    answers : tuple of str
        Each run's answer.
    certainties : tuple of float or None
        The probability of each answer; None where answers have none.
    right : tuple of bool or None
        Whether each answer is right; None for numbers.
    errors : tuple of float
        How wrong each run was: for classes, one minus the probability of the right one; for labels,
        the largest difference of a probability from 0 or 1; for numbers, the largest error, in
        standard deviations of the true values; for boxes, the number of errors.
    """

    image: str
    digest: str
    label: str
    answers: tuple[str, ...]
    certainties: tuple[float | None, ...]
    right: tuple[bool | None, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """Two runs, compared on the test images that all runs have in common.

    Parameters
    ----------
    runs : tuple of (int, int)
        Which ones, counted from 0.
    better : tuple of (int, int)
        How many images only the first gets right, and only the second; for numbers, on how many
        each has the smaller error.
    alike : int
        On how many images they do equally well.
    p : float
        Probability of a difference at least this large if the two runs were equally good:
        McNemar's exact test or, for numbers, the sign test.
    """

    runs: tuple[int, int]
    better: tuple[int, int]
    alike: int
    p: float


@dataclass(frozen=True)
class ComparisonRecord:
    """What `compare` found.

    Parameters
    ----------
    runs : tuple of Run
        The runs.
    names : tuple of str
        The name of each: as much of its folder's path as tells it from the others.
    settings : dict of str to tuple
        The settings that differ, with a value for each run; None where it has none.
    same : dict of str to object
        The settings that all have in common.
    metrics : dict of str to tuple of float or None
        The metrics of each run on its own test images.
    tests : tuple of Tested
        Each run's answers to the test images that all have in common.
    common : dict of str to tuple of float
        The metrics of each run on those images.
    pairs : tuple of Pair
        All pairs of runs, compared on those images.
    changed : tuple of Change
        Those of the images that only some runs get right (for numbers, those with different
        errors), largest differences first.
    notes : tuple of str
        Caveats, one line each.
    output : pathlib.Path or None
        The page.
    """

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    settings: dict[str, tuple[Any, ...]]
    same: dict[str, Any]
    metrics: dict[str, tuple[float | None, ...]]
    tests: tuple[Tested, ...]
    common: dict[str, tuple[float | None, ...]]
    pairs: tuple[Pair, ...]
    changed: tuple[Change, ...]
    notes: tuple[str, ...]
    output: Path | None = None

    @property
    def task(self) -> str:
        """The task of all runs."""
        return self.runs[0].task

    @property
    def images(self) -> int:
        """How many test images all runs have in common."""
        return len(self.tests[0].rows) if self.tests else 0

    def to_json(self) -> dict:
        """What `keras-resnet report RUN RUN --json` prints."""
        return {
            "runs": [
                {
                    "run": str(run.folder),
                    "name": name,
                    "model": run.metrics.get("model"),
                    "data": run.metrics.get("data"),
                    "settings_known": bool(run.asked),
                    "test_images": len(rows_of(run)),
                }
                for run, name in zip(self.runs, self.names, strict=True)
            ],
            "task": self.task,
            "settings": {name: list(values) for name, values in self.settings.items()},
            "metrics": {name: list(values) for name, values in self.metrics.items()},
            "images_in_common": self.images,
            "metrics_in_common": {name: list(values) for name, values in self.common.items()},
            "pairs": [
                {"runs": list(each.runs), "better": list(each.better), "alike": each.alike}
                | {"p": each.p}
                for each in self.pairs
            ],
            "changed": [
                {
                    "image": each.image,
                    "label": each.label,
                    "answers": list(each.answers),
                    "certainties": list(each.certainties),
                    "right": list(each.right),
                    "errors": list(each.errors),
                }
                for each in self.changed
            ],
            "notes": list(self.notes),
            "output": self.output and str(self.output),
        }


@job
def compare(
    runs: Sequence[str | os.PathLike], output: str | os.PathLike | None = COMPARISON_FILE
) -> ComparisonRecord:
    """Compare finished runs, as `keras-resnet report RUN RUN ...` does.

    Images are matched by their contents, not by their paths. A run of an earlier version did not
    record its answers: they are computed again for those of its test images that are unchanged.

    Parameters
    ----------
    runs : sequence of path
        The folders of at least two runs with the same task and classes.
    output : path, optional
        The page, a self-contained HTML file; replaced if it exists. None for no page. Default:
        comparison.html.

    Returns
    -------
    ComparisonRecord

    Raises
    ------
    ValueError
        For fewer than two runs, a run that is named twice, a folder without a finished run, and
        runs with different tasks or classes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for rate in ("0.1", "0.2"):
    ...         _ = runs.train(
    ...             "digits",
    ...             Path(folder) / rate,
    ...             model="CIFARResNet8",
    ...             epochs=1,
    ...             learning_rate=float(rate),
    ...         )
    ...     record = runs.compare([Path(folder) / "0.1", Path(folder) / "0.2"], output=None)
    >>> record.images, record.settings["learning_rate"]
    (359, (0.1, 0.2))
    """
    output = None if output is None else Path(output)
    if output is not None:
        check_writable(output.parent)
        check_files(output.parent, [output.name])
    if isinstance(runs, str | os.PathLike) or len(runs) < 2:
        raise ValueError(f"runs={runs!r} must be the folders of at least two runs.")
    folders = [Path(run).parent if Path(run).name == MODEL_FILE else Path(run) for run in runs]
    _check_different(folders)
    for folder in folders:
        check_done(folder)
    found = tuple(map(read, folders))
    _check_alike(found)
    settings, same = _settings(found)
    tests, relabelled = _in_common(found)
    some = bool(tests and len(tests[0].rows))
    record = ComparisonRecord(
        runs=found,
        names=(names := _names(folders)),
        settings=settings,
        same=same,
        metrics=_recorded(found),
        tests=tests,
        common=_side_by_side([each.quality.metrics() for each in tests]) if some else {},
        pairs=_pairs(found[0].task, tests) if some else (),
        changed=_changes(found[0].task, tests) if some else (),
        notes=tuple(_notes(found, names, tests, relabelled)),
        output=output,
    )
    if output is not None:
        from keras_resnet.runs.comparison_page import page

        write_text(output, page(record))
    return record


def _check_different(folders):
    """Raise ValueError for a run that is named twice."""
    real = [os.path.realpath(folder) for folder in folders]
    for folder in real:
        if real.count(folder) > 1:
            raise ValueError(f"run {folder!r} is named twice: compare different runs.")


def _check_alike(runs):
    """Raise ValueError for runs that cannot be compared."""
    first, *others = runs
    for run in runs:
        if run.images is None:
            raise ValueError(
                f"run {str(run.folder)!r} has no {IMAGES_FILE}, which lists its images: train it "
                "again."
            )
    for other in others:
        if other.task != first.task:
            raise ValueError(
                f"run {str(first.folder)!r} is for {first.task}, {str(other.folder)!r} for "
                f"{other.task}: compare runs of the same task."
            )
        if other.names != first.names:
            unlike = [
                some([name for name in these if name not in {*those}] or these, 10)
                for these, those in itertools.permutations([first.names, other.names])
            ]
            raise ValueError(
                f"run {str(first.folder)!r} knows {unlike[0]}, {str(other.folder)!r} {unlike[1]}: "
                "compare runs with the same classes, in the same order."
            )


def rows_of(run: Run, split: str = "test") -> list[Any]:
    """The images of a run in a split, as images.csv lists them."""
    return run.images.rows[split] if run.images else []


def _names(folders):
    """The shortest ends of paths that tell the folders apart."""
    parts = [Path(os.path.realpath(folder)).parts for folder in folders]
    ends = (["/".join(each[-length:]) for each in parts] for length in itertools.count(1))
    return tuple(next(each for each in ends if len({*each}) == len(each)))


def _settings(runs):
    """The settings that differ, and those that are the same, of the runs that recorded theirs."""
    asked = [dict(_flat(run.asked.get("settings") or {})) for run in runs]
    known = [each for each in asked if each]
    names = dict.fromkeys(itertools.chain(*known))
    values = {name: tuple(as_python(each.get(name)) for each in asked) for name in names}
    alike = {
        name: known[0][name]
        for name in names
        if all(name in each and each[name] == known[0][name] for each in known)
    }
    return {name: each for name, each in values.items() if name not in alike}, alike


_ITS_OWN = ("output",)  # settings that are different for every run
_PLAN = "training"  # the recipe, or a list of stages
_STAGE = "back_to"  # what names a stage of the training


def _flat(settings, before=""):
    """Nested settings made flat; "head: ema" is the field of the recipe of a stage."""
    for name, value in settings.items():
        if before + name in _ITS_OWN:
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {str(each.get(_STAGE, place)): each for place, each in enumerate(value, 1)}
        if isinstance(value, dict):
            yield from _flat(value, before if name == _PLAN else f"{before}{name}: ")
        else:
            yield f"{before}{name}", value


def _side_by_side(metrics):
    """Metrics by name, with a value for each run."""
    names = dict.fromkeys(itertools.chain(*metrics))
    return {name: tuple(each.get(name) for each in metrics) for name in names}


def _recorded(runs):
    """The metrics that the runs recorded on their own test images."""
    names = next((run.test.metrics() for run in runs if run.test), _METRICS[runs[0].task])
    found = {name: tuple(_metric(run, name) for run in runs) for name in names}
    for name in ("expected_error", "temperature"):
        values = [(run.metrics.get("calibration") or {}).get(name) for run in runs]
        found[f"calibration: {name}"] = tuple(values)
    return {name: values for name, values in found.items() if {*values} != {None}}


def _metric(run, name):
    """A metric that a run recorded; a classifier's may begin with test_."""
    return run.metrics.get(f"test_{name}", run.metrics.get(name))


_METRICS = {
    "classification": ("accuracy",),
    "multilabel": ("mean_average_precision", "accuracy", "f1"),
    "regression": ("r2", "mean_absolute_error", "root_mean_squared_error"),
    "detection": ("AP", "AP50", "AP75"),
}


def _tested(run):
    """A run's answers to its test images; None if they are not known."""
    if run.test is None:
        return None
    rows, places = rows_of(run), run.places["test"]
    if (len(places) and places.max() >= len(rows)) or len(run.test.labels) != len(places):
        raise ValueError(
            f"run {str(run.folder)!r} has answers for {len(run.test.labels)} test images, but "
            f"{IMAGES_FILE} lists {len(rows)}: these are from different runs. Train it again."
        )
    return Tested(run.test, places, tuple(rows[place] for place in places))


def _in_common(runs):
    """The answers to the test images in common, and how many of those were relabelled.

    An image that a split has several times is matched as often as all runs have it. Images whose
    labels differ between runs are left out. Empty if the answers of a run are not known.
    """
    tests = [found for run in runs if (found := _tested(run))]
    if len(tests) < len(runs):
        return (), 0
    keys = [_by_contents(each.rows) for each in tests]
    shared = [key for key in keys[0] if all(key in other for other in keys)]
    same = [
        key
        for key in shared
        if len({each.rows[of[key]].label for each, of in zip(tests, keys, strict=True)}) == 1
    ]
    taken = (
        each.take(np.array([of[key] for key in same], int))
        for each, of in zip(tests, keys, strict=True)
    )
    return tuple(taken), len(shared) - len(same)


def _by_contents(rows):
    """The places of images, by digest and how often that has occurred before."""
    seen, places = {}, {}
    for place, row in enumerate(rows):
        seen[row.digest] = seen.get(row.digest, -1) + 1
        places[row.digest, seen[row.digest]] = place
    return places


def _errors_of_classes(quality):
    return 1 - quality.probabilities[np.arange(len(quality.labels)), quality.labels]


def _errors_of_labels(quality):
    return np.abs(quality.probabilities - quality.labels).max(-1)


def _errors_of_numbers(quality):
    spread = np.asarray(quality.labels, float).reshape(len(quality.labels), -1).std(0)
    return (np.abs(quality.residuals) / np.where(spread > 0, spread, 1.0)).max(-1)


def _errors_of_boxes(quality):
    return np.bincount(quality.errors().images, minlength=len(quality.labels)).astype(float)


_ERRORS: dict[str, Callable[[Any], np.ndarray]] = {
    "classification": _errors_of_classes,
    "multilabel": _errors_of_labels,
    "regression": _errors_of_numbers,
    "detection": _errors_of_boxes,
}
"""How wrong answers are, by task."""


def _pairs(task, tests):
    """All pairs of runs, and on how many images each does better."""
    right = [each.quality.right for each in tests]
    if right[0] is None:  # numbers are not right or wrong, only closer or farther
        errors = [_ERRORS[task](each.quality) for each in tests]
    else:
        errors = [np.where(each, 0, 1) for each in right]
    pairs = itertools.combinations(range(len(tests)), 2)
    return tuple(_pair(one, other, errors) for one, other in pairs)


def _pair(one, other, errors):
    from scipy.stats import binomtest

    first, second = errors[one], errors[other]
    better = int(np.sum(first < second)), int(np.sum(second < first))
    p = binomtest(better[0], sum(better)).pvalue if sum(better) else 1.0
    return Pair((one, other), better, len(first) - sum(better), float(p))


def _changes(task, tests):
    """The images that only some runs get right, largest differences first."""
    errors = np.array([_ERRORS[task](each.quality) for each in tests])
    right = [each.quality.right for each in tests]
    changed = np.ptp(errors, 0) > 0 if right[0] is None else np.ptp(np.array(right, int), 0) > 0
    order = np.argsort(-np.ptp(errors, 0), kind="stable")
    said = [_in_words(task, each.quality) for each in tests]
    sure = [each.quality.probabilities.max(-1) if task == "classification" else None
            for each in tests]  # fmt: skip
    return tuple(
        Change(
            image=(row := tests[0].rows[index]).image,
            digest=row.digest,
            label=row.label,
            answers=tuple(answer(index) for answer in said),
            certainties=tuple(None if each is None else float(each[index]) for each in sure),
            right=tuple(None if each is None else bool(each[index]) for each in right),
            errors=tuple(errors[:, index].tolist()),
        )
        for index in order[changed[order]].tolist()
    )


def _in_words(task, quality):
    """A function that returns a run's answer to an image in words."""
    if task == "detection":
        return quality.caption
    decided, describe = quality.predictions, TASKS[task].describe
    return lambda index: describe(decided[index], quality.class_names)


def _notes(runs, names, tests, relabelled):
    """Caveats: what to know before trusting the numbers."""
    for run, name in zip(runs, names, strict=True):
        yield from (f"{name}: {line}" for line in run.lacks)
    if are_folds(runs):
        return
    common = len(tests[0].rows) + relabelled if tests else 0
    counts = [len(rows_of(run)) for run in runs]
    if tests and {*counts} != {common}:
        each = ", ".join(f"{n} of {name}" for n, name in zip(counts, names, strict=True))
        yield (
            f"The runs were tested on different images: {each}, of which {common} are in common. "
            "Metrics on different images are not comparable; those on the images in common are."
        )
    if relabelled:
        yield f"{relabelled} of the images in common are left out: the runs label them differently."
    yield from _seen(runs, names)


def are_folds(runs: Sequence[Run]) -> bool:
    """Whether runs are the folds of one cross-validation."""
    above = {Path(os.path.realpath(run.folder)).parent for run in runs}
    return len(above) == 1 and (above.pop() / FOLDS_FILE).is_file()


def _seen(runs, names):
    """Lines about test images of one run that another was trained or selected on."""
    of = [{split: {row.digest for row in rows_of(run, split)} for split in SPLITS} for run in runs]
    what = {"train": "was trained on", "validation": "chose its best epoch on"}
    for one, other in itertools.permutations(range(len(runs)), 2):
        for split, did in what.items():
            if count := len(of[one]["test"] & of[other][split]):
                yield (
                    f"{names[other]} {did} {count} of the test images of {names[one]}: its metrics "
                    "on these are too good."
                )
