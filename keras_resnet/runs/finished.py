"""A finished run, as the files in its folder have it."""

import csv
import json
import os
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import detection, pages
from keras_resnet.analysis.evaluation import EVALUATIONS
from keras_resnet.data.labels import LABELS, Task
from keras_resnet.data.labels_file import LABELS_FILE, read_labels
from keras_resnet.files import read_text
from keras_resnet.runs.choices import IMAGES_FILE, METRICS_FILE, MODEL_FILE
from keras_resnet.runs.images import RunImages, images_of
from keras_resnet.runs.kinds import Quality

RUN_FILE, ANSWERS_FILE = "run.json", "answers.npz"

_HISTORY = "history.csv"
_OF_ALL = ("class_names", "thresholds")  # fields of an evaluation that are not one an image


@dataclass(frozen=True)
class Finished:
    """What the folder of a finished run says of it.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    metrics : dict
        What metrics.json holds.
    asked : dict
        What run.json holds; nothing for a run of an earlier version.
    history : dict of str to list of float
        A value an epoch.
    images : RunImages
        Its images.
    class_names : tuple of str
        Names of its classes, labels or values.
    """

    folder: Path
    metrics: dict[str, Any]
    asked: dict[str, Any]
    history: dict[str, list[float]]
    images: RunImages
    class_names: tuple[str, ...]

    @property
    def task(self) -> Task:
        """What was learned."""
        return self.metrics.get("task", "classification")

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, by name; "recipe: ema" is a field of the recipe."""
        return dict(_flat(self.asked.get("settings") or {}))

    def metric(self, name: str) -> float | None:
        """A metric on the test images, by what an evaluation calls it; None if it has none."""
        return self.metrics.get(f"test_{name}", self.metrics.get(name))


@dataclass(frozen=True)
class Tested:
    """The answers of a run to its test images.

    Parameters
    ----------
    quality : Evaluation, MultiLabelEvaluation, RegressionEvaluation or DetectionEvaluation
        What was said of each image.
    rows : tuple
        The images, as images.csv has them.
    """

    quality: Quality
    rows: tuple[Any, ...]

    def take(self, indices: np.ndarray) -> "Tested":
        """The answers to some of the images."""
        columns = {each.name: getattr(self.quality, each.name) for each in fields(self.quality)}
        some = {
            name: column[indices]
            if isinstance(column, np.ndarray)
            else tuple(column[index] for index in indices)
            for name, column in columns.items()
            if name not in _OF_ALL
        }
        return Tested(replace(self.quality, **some), tuple(self.rows[index] for index in indices))


def finished(run: str | os.PathLike) -> Finished:
    """Read what a run has left in its folder.

    Raises ValueError for a folder that is none of a run, or of one that has not ended.
    """
    folder = Path(run).parent if Path(run).name == MODEL_FILE else Path(run)
    if not folder.is_dir():
        raise ValueError(f"run {str(folder)!r} is not a folder.")
    missing = [
        name for name in (METRICS_FILE, IMAGES_FILE, LABELS_FILE) if not (folder / name).is_file()
    ]
    if missing:
        raise ValueError(f"run {str(folder)!r} has no {missing[0]}: {_why_not(folder)}")
    metrics, images = _json(folder / METRICS_FILE), images_of(folder)
    assert images is not None
    asked = _json(folder / RUN_FILE) if (folder / RUN_FILE).is_file() else {}
    names = tuple(read_labels(folder / LABELS_FILE))
    return Finished(folder, metrics, asked, _history(folder / _HISTORY), images, names)


def _why_not(folder):
    """What a folder is that is not one of a finished run, and what to do."""
    if (folder / "folds.json").is_file():
        return "it is of a cross-validation. Name its folds, fold-1 and so on."
    if (folder / "report.html").is_file() or (folder / "trials.csv").is_file():
        return "it is not of a training."
    return "the run is not finished, or not one. Repeat its command to finish it, or leave it out."


def _json(file):
    try:
        found = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(file)!r} is not whole JSON ({error}): repeat the run.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{str(file)!r} holds no JSON object: repeat the run.")
    return found


def _flat(settings, before=""):
    """Settings without dictionaries in them."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}: ")
        else:
            yield f"{before}{name}", value


def _history(file):
    """The columns of numbers of a history; nothing without one."""
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [*csv.DictReader(opened)]
    try:
        return {
            name: [float(row[name]) for row in rows]
            for name in (rows[0] if rows else ())
            if name not in ("epoch", "stage")
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is not a whole history: {error}.") from error


def tested(run: Finished) -> Tested:
    """What a run said of its test images.

    Of a run of an earlier version that did not write it down, its model is asked again about the
    images that are unchanged.
    """
    rows = tuple(run.images.rows["test"])
    if run.task == "detection":
        return Tested(_objects(run, rows), rows)
    if (run.folder / ANSWERS_FILE).is_file():
        return Tested(_answers(run, rows), rows)
    return _asked_again(run, rows)


def _answers(run, rows):
    """The answers that the run has written down."""
    file = run.folder / ANSWERS_FILE
    try:
        with np.load(file, allow_pickle=False) as found:
            outputs, labels = found["test"], found["test_labels"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(file)!r} is not whole ({error}): remove it.") from error
    shape = (len(rows), len(run.class_names))
    if outputs.shape != shape or len(labels) != len(rows):
        raise ValueError(
            f"{str(file)!r} holds answers of shape {outputs.shape}, the run has {shape[0]} test "
            f"images and {shape[1]} {LABELS[run.task].noun} names: they are of two runs."
        )
    options = {"thresholds": _thresholds(run)} if run.task == "multilabel" else {}
    return EVALUATIONS[run.task](labels, outputs, run.class_names, **options)


def _thresholds(run):
    """The thresholds of labels; None for those of an even chance."""
    scores = run.metrics.get("per_label") or {}
    found = [scores.get(name, {}).get("threshold") for name in run.class_names]
    return None if None in found else tuple(found)


def _objects(run, rows):
    """The objects that a detector has found in the test images."""
    labels = LABELS["detection"].read([row.label for row in rows], run.class_names)
    ids = [image["id"] for image in _json(run.folder / "truths.json")["images"]]
    file = run.folder / "detections.json"
    try:
        found = json.loads(read_text(file))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{str(file)!r} is not whole ({error}): repeat the run.") from error
    if len(ids) != len(rows):
        raise ValueError(
            f"{str(file)!r} is of {len(ids)} images, the run has {len(rows)} test images: they are "
            "of two runs."
        )
    of_image = defaultdict(list)
    for each in found:
        of_image[each["image_id"]].append(each)
    return detection.DetectionEvaluation(
        labels, [_found(of_image[each]) for each in ids], run.class_names, tuple(ids)
    )


def _found(results):
    """Objects in an image, from COCO's results."""
    boxes = np.array([each["bbox"] for each in results], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "boxes": boxes,
        "scores": np.array([each["score"] for each in results], float),
        "labels": np.array([each["category_id"] - 1 for each in results], int),
    }


def _asked_again(run, rows):
    """The answers of the run's model, to those images that are still there."""
    from keras_resnet.runs.evaluation import evaluate

    record = evaluate(run.folder)
    places = defaultdict(list)
    for row in rows:
        places[row.digest].append(row)
    digests = np.char.decode(record.source.test.digests()).tolist()
    return Tested(record.evaluation, tuple(places[digest].pop(0) for digest in digests))


def each_shown(
    run: Finished, rows: Sequence[Any], side: int, alt: Mapping[str, str]
) -> dict[str, Any]:
    """Show test images of a run, as far as they are still there and unchanged.

    Parameters
    ----------
    run : Finished
        The run.
    rows : sequence
        Some of the test images, as images.csv has them.
    side : int
        Pixels of the longer side of an image on the page.
    alt : mapping of str to str
        What to say of each to those who do not see it, by its digest.

    Returns
    -------
    dict of str to markupsafe.Markup
        An element of a page for each, by its digest.
    """
    try:
        images = replace(run.images, rows={**run.images.rows, "test": [*rows]})
        source, _ = images.find(("test",), run.class_names, run.task)
    except (ValueError, OSError, ImportError):  # none is left, or the data cannot be loaded
        return {}
    split = source.test
    reader = split.image_set.reader(split.labels, source.channels)
    pixels = reader.elements().map(lambda element, _: reader.whole(element))
    digests = np.char.decode(split.digests()).tolist()
    return {
        digest: pages.picture(image, alt[digest], side=side, shown=side)
        for digest, image in zip(digests, pixels.as_numpy_iterator(), strict=True)
    }
