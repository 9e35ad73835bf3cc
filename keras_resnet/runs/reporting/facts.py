"""What the files of a finished run tell about it."""

import csv
import functools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import analysis, data, detection, graphs
from keras_resnet.data.labels import LABELS, Task
from keras_resnet.data.labels_file import LABELS_FILE, read_labels
from keras_resnet.detection.evaluation import read_coco_results
from keras_resnet.export import CARD_FILE
from keras_resnet.files import LockedError, locked, read_object
from keras_resnet.runs.answers import read_answers
from keras_resnet.runs.choices import (
    ANSWERS_FILE,
    IMAGES_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RUN_FILE,
)
from keras_resnet.runs.images import RunImages, images_of
from keras_resnet.runs.models import Answering, answering, load_model
from keras_resnet.runs.repeating import read_run

log = logging.getLogger(__name__)

_HISTORY = "history.csv"
_NEEDED = (MODEL_FILE, LABELS_FILE, METRICS_FILE)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Parameters
    ----------
    folder : pathlib.Path
        Its folder.
    asked : mapping
        What run.json holds; empty for a run of an earlier version.
    metrics : mapping
        What metrics.json holds.
    names : tuple of str
        Names of the classes, labels or values.
    history : dict of str to list
        The columns of history.csv by name; "stage" is one of them for training in stages.
    card : mapping
        The model card of the SavedModel; empty if there is none.
    images : RunImages, optional
        Its images, as images.csv lists them.
    quality : dict of str to quality
        How the model does on the "test" split, and on "validation" if there is one, image by image
        in the order of `places`.
    places : dict of str to int array
        Which rows of a split's images those are.
    lacks : tuple of str
        What the page cannot show, and why, one line each.
    source : Source, optional
        The data, if it is in memory.
    model : Model, optional
        The model, if it is in memory; otherwise it is loaded when it is needed.
    """

    folder: Path
    asked: Mapping[str, Any]
    metrics: Mapping[str, Any]
    names: tuple[str, ...]
    history: Mapping[str, Sequence[Any]]
    card: Mapping[str, Any]
    images: RunImages | None
    quality: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    source: data.Source | None = None
    model: Any = None

    @property
    def task(self) -> Task:
        """The task of the run."""
        return self.metrics.get("task") or "classification"

    @property
    def test(self) -> Any:
        """How the model does on each test image; None if that is not known."""
        return self.quality.get("test")

    @property
    def processor(self) -> str:
        """The processor it ran on; empty if that is not known."""
        return (self.asked.get("machine") or "").partition(". Python ")[0]

    @functools.cached_property
    def answering(self) -> Answering:
        """The model."""
        if self.model is not None:
            return answering(self.model, self.names, self.task)
        return load_model(self.folder, None, self.task)

    def name_of(self, split: str, place: int) -> str:
        """The name of an image: its file's, or its number in the split."""
        if self.images is None or place >= len(self.images.rows[split]):
            return ""
        return os.path.basename(self.images.rows[split][place].image)

    def some(self, split: str, places: np.ndarray) -> tuple[data.Split, np.ndarray]:
        """The given images of a split, as far as they are unchanged, and their places.

        Raises ValueError or OSError where the data can no longer be loaded.
        """
        places = np.unique(places)  # in the order of a stream
        if self.source is not None:
            return self.source.splits[split].take(places), places
        if self.images is None:
            raise ValueError(f"there is no {IMAGES_FILE}, which lists the images.")
        return self.images.some(split, places, self.names, self.task)


def read(folder: Path, model: Any = None, source: data.Source | None = None) -> Run:
    """Gather what is known about a finished run.

    Parameters
    ----------
    folder : pathlib.Path
        Its folder.
    model : keras.Model, optional
        Its model, if that is in memory.
    source : Source, optional
        Its data, if that is in memory.

    Returns
    -------
    Run
    """
    metrics = read_object(folder / METRICS_FILE)
    names, lacks = tuple(read_labels(folder / LABELS_FILE)), []
    asked, images = read_run(folder), images_of(folder)
    if not asked:
        lacks.append(
            f"There is no {RUN_FILE}, as in runs of earlier versions: the settings, machine and "
            "versions are not known."
        )
    history = _history(folder / _HISTORY)
    if not history:
        lacks.append(f"There is no {_HISTORY}: there are no training curves.")
    if images is None:
        lacks.append(f"There is no {IMAGES_FILE}: the images of the run are not known.")
    run = Run(
        folder, asked, metrics, names, history, _card(folder, metrics), images,
        source=source, model=model,
    )  # fmt: skip
    quality, places = _answers(run, lacks)
    loaded = vars(run).get("answering")  # once is enough
    return replace(
        run,
        quality=quality,
        places=places,
        lacks=tuple(lacks),
        model=loaded.model if loaded else model,
    )


def check_done(folder: Path) -> None:
    """Raise ValueError unless a folder holds a finished run, and say what to do."""
    if not folder.is_dir():
        raise ValueError(f"run {str(folder)!r}: there is no such folder.")
    asked, missing = read_run(folder), [each for each in _NEEDED if not (folder / each).is_file()]
    unfinished = bool(asked) and asked.get("seconds") is None and "seconds" in asked
    unfinished = unfinished or (folder / "checkpoints").is_dir()
    if not (missing or unfinished):
        return
    if not unfinished and len(missing) == len(_NEEDED):
        raise ValueError(
            f"run {str(folder)!r} is not the folder of a run: there is no {MODEL_FILE} in it. Give "
            "the folder that train wrote to, its --output."
        )
    if _is_held(folder):
        since = f" (started {asked['started']})" if asked.get("started") else ""
        raise ValueError(
            f"run {str(folder)!r} is still in progress{since}: its page is drawn when it finishes. "
            f"Until then, tensorboard --logdir {folder / 'logs'} shows its progress."
        )
    what = f"there is no {' and no '.join(missing)}" if missing else "its training is not finished"
    goes_on = (folder / "checkpoints").is_dir()
    again = "continues it" if goes_on else "trains it again"
    command = " ".join((asked.get("command") or "").split())
    how = f"this {again}: {command}" if command else f"the command that started it {again}"
    raise ValueError(f"run {str(folder)!r} is incomplete: {what}; {how}")


def _is_held(folder):
    """Whether a process is writing to the folder of a run."""
    try:
        with locked(folder):
            return False
    except LockedError:
        return True


def _history(file) -> dict[str, list]:
    """The columns of history.csv; none if it is not there."""
    if not file.is_file():
        return {}
    convert = {"stage": str}
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = [*csv.DictReader(opened)]
        columns = [name for name in (rows[0] if rows else {}) if name != "epoch"]
        return {name: [convert.get(name, float)(row[name]) for row in rows] for name in columns}
    except (TypeError, ValueError, csv.Error) as error:  # a line that was cut off has None
        raise ValueError(f"{str(file)!r} is damaged ({error}): remove it.") from error


def _card(folder, metrics) -> dict:
    """The model card of the SavedModel, wherever that is."""
    named = metrics.get("saved_model")
    if not named:
        return {}
    # The SavedModel of a run that was moved is in the run's folder.
    places = (Path(named), folder / "saved_model" / Path(named).name)
    card = next((each / CARD_FILE for each in places if (each / CARD_FILE).is_file()), None)
    return {**read_object(card), "path": str(card.parent)} if card else {}


def _answers(run: Run, lacks: list[str]):
    """The model's predictions on the run's images: read from a file, or else computed again."""
    if run.task == "detection":
        return _objects(run, lacks)
    thresholds = _thresholds(run)
    quality = read_answers(run.folder, run.task, run.names, thresholds)
    if quality:
        return quality, {split: np.arange(len(each.labels)) for split, each in quality.items()}
    if run.images is None:
        lacks.append(
            f"There is no {ANSWERS_FILE}, and the images are not known: only what metrics.json "
            "says about the test images is shown."
        )
        return {}, {}
    try:
        return _computed(run, lacks)
    except (ValueError, OSError) as error:
        lacks.append(
            f"There is no {ANSWERS_FILE}, and the predictions cannot be computed again: {error}"
        )
        return {}, {}


def _objects(run: Run, lacks):
    """The objects that the detector found in the test images."""
    files = [run.folder / name for name in ("detections.json", "truths.json")]
    if run.images is None or not all(file.is_file() for file in files):
        lacks.append("There is no list of the objects found in each image.")
        return {}, {}
    rows, truths = run.images.rows["test"], read_object(files[1])
    try:
        found = json.loads(files[0].read_text(encoding="utf-8"))
        ids = [image["id"] for image in truths["images"]]
        if len(ids) != len(rows):
            raise ValueError(f"{len(ids)} images, but {IMAGES_FILE} lists {len(rows)} test images")
        labels = LABELS["detection"].read([row.label for row in rows], run.names)
        detections = read_coco_results(found, ids)
        quality = detection.DetectionEvaluation(labels, detections, run.names, tuple(ids))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(files[0])!r} is damaged or from another run ({error}).") from error
    return {"test": quality}, {"test": np.arange(len(rows))}


def _thresholds(run):
    """The threshold of each label, if there are any."""
    scores = run.metrics.get("per_label") or {}
    found = tuple(each["threshold"] for each in scores.values() if "threshold" in each)
    return found if found and len(found) == len(run.names) else None


def _computed(run: Run, lacks):
    """The model's predictions on those of the run's images that are unchanged."""
    quality, places, gone = {}, {}, 0
    for split in ("test", "validation"):
        count = len(run.images.rows[split]) if run.images else 0
        if not count:
            continue
        images, there = run.some(split, np.arange(count))
        gone += count - len(there)
        if len(there):
            found = run.answering
            batches = data.batches(images, **vars(graphs.view_of(found.model)))
            quality[split] = analysis.evaluate(found.predictor, batches, run.names, run.task)
            places[split] = there
    if not quality:
        raise ValueError("all of the images have been changed or removed.")
    left_out = f", except {gone} that have been changed or removed" if gone else ""
    lacks.append(
        f"There is no {ANSWERS_FILE}: the predictions were computed again from the "
        f"images{left_out}."
    )
    return quality, places
