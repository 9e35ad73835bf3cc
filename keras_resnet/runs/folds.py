"""Cross-validation: a model for each part of the data, tested on that part."""

import contextlib
import csv
import functools
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import data, progress
from keras_resnet.data.image_sets import Files
from keras_resnet.data.labels import LABELS
from keras_resnet.files import (
    as_python,
    json_text,
    locked,
    read_object,
    write_text,
    written_beside,
)
from keras_resnet.interrupts import continued
from keras_resnet.runs.choices import FOLDS_FILE, PAGE_FILE
from keras_resnet.runs.comparison import compare
from keras_resnet.runs.guards import check_files, check_run, job
from keras_resnet.runs.results import TrainRecord
from keras_resnet.runs.training import Asked, as_train, command_of, learn, settled
from keras_resnet.training import Recipe, collectives
from keras_resnet.training.checkpoints import differences

log = logging.getLogger(__name__)

RESULT_FILE = "cross_validation.json"
PREDICTIONS_FILE = "out_of_fold.csv"
_DONE = "fold.json"  # of a fold, written when all else is there

# What a model says of each image, by task. Boxes are in files of their own.
_ANSWERS: dict[str, Callable] = {
    "classification": attrgetter("probabilities"),
    "multilabel": attrgetter("probabilities"),
    "regression": attrgetter("predictions"),
}


@dataclass(frozen=True)
class CrossValidationRecord:
    """What `cross_validate` has found.

    Parameters
    ----------
    model : str
        Name of the model.
    source : Source
        The data; all images that take part are in its training split.
    folds : tuple of dict of str to float
        The metrics of each model on the images that it was not trained on.
    output : pathlib.Path
        The folder.
    """

    model: str
    source: data.Source
    folds: tuple[dict[str, float], ...]
    output: Path

    def metrics(self) -> dict[str, dict]:
        """Mean, spread (the standard deviation of a sample) and values of every metric.

        A metric that one of the folds does not have, such as the "r2" of equal values, is left out.
        """
        names = [name for name in self.folds[0] if all(name in fold for fold in self.folds)]
        values = {name: [fold[name] for fold in self.folds] for name in names}
        return {
            name: {
                "mean": float(np.mean(values[name])),
                "spread": float(np.std(values[name], ddof=1)),
                "values": values[name],
            }
            for name in names
        }

    def to_json(self) -> dict:
        """What `keras-resnet train --folds N --json` prints."""
        predictions = self.output / PREDICTIONS_FILE if self.source.task in _ANSWERS else None
        return {
            "model": self.model,
            "data": self.source.name,
            "task": self.source.task,
            "folds": len(self.folds),
            "images": len(self.source.train),
            "metrics": self.metrics(),
            "notes": list(self.source.notes),
            "output": str(self.output),
            "predictions": predictions and str(predictions),
        }


@job
def cross_validate(
    source: str | os.PathLike, output: str | os.PathLike, *, folds: int = 5, **options: Any
) -> CrossValidationRecord:
    """Train as many models as there are folds, as `keras-resnet train --folds` does.

    Each is tested on the images of its fold, which the others are trained on, so that every image
    is tested on once. All images take part but the test images that the data itself has, which stay
    unseen. Folds have the same fraction of every class; equal images, and those of a group, stay in
    one fold. Which fold an image is in depends on the data and the number of folds alone.

    Writes what `train` does into output/fold-1 and so on, and into `output` cross_validation.json;
    report.html, a page of the folds side by side; and out_of_fold.csv: for every image, the answer
    of the model that was not trained on it. An interrupted run continues where it stopped when it
    is started again with the same arguments.

    Parameters
    ----------
    source, output, **options
        As `train` takes them. `validation` is the fraction of what a fold leaves that its best
        epoch is chosen on.
    folds : int, default 5
        Number of folds.

    Returns
    -------
    CrossValidationRecord

    Raises
    ------
    ValueError
        As `train` does, for more folds than images of a class, and for several machines.
    keras_resnet.training.Interrupted
        As `train` does.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> options = {"model": "CIFARResNet8", "epochs": 1, "image_size": 8}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.cross_validate("digits", folder, folds=2, **options)
    >>> record.to_json()["images"], len(record.metrics()["test_accuracy"]["values"])
    (1797, 2)
    """
    if options.get("exports") is not None:
        raise ValueError("exports: every fold has its own SavedModel, in its own folder.")
    asked = as_train(options)
    command = command_of(source, output, {**options, "folds": folds})
    output = Path(output)
    if (workers := collectives.workers(asked.strategy)[0]) > 1:
        raise ValueError(
            f"folds={folds!r}: they are trained on one machine, these are {workers} processes. "
            "Run each fold on one, or train without folds."
        )
    check_files(output, (FOLDS_FILE, RESULT_FILE, PREDICTIONS_FILE, PAGE_FILE))
    pool = _pool(asked.images(source, validation=0.0, test=0.0))
    parts = data.folds_of(pool.train, pool.class_names, pool.task, folds)
    places = [output / f"fold-{number}" for number in range(1, len(parts) + 1)]
    for place in places:
        check_run(place, place / "saved_model")
    for part in parts:
        data.with_fold(pool, part, asked.policy.validation)  # tells mistakes before the first one
    with locked(output), continued(lambda: _how_far(places)):
        asked = settled(asked, pool, _begun(output))
        _begin(output, _settings(asked, pool, folds, os.fspath(source)))
        found: list[Any] = []
        with progress.task("Cross-validation", len(parts), "folds", done=_count(places)) as advance:
            for number, (part, place) in enumerate(zip(parts, places, strict=True), start=1):
                if _done(place) is None:
                    log.info("Fold %d of %d:", number, len(parts))
                    fold = data.with_fold(pool, part, asked.policy.validation)
                    name, last = os.fspath(source), functools.partial(_write, place)
                    learn(asked, fold, place, place / "saved_model", name, command, last)
                    advance()
                shutil.rmtree(place / "checkpoints", ignore_errors=True)  # if that was interrupted
                found.append(_done(place))
        metrics = tuple(each["metrics"] for each in found)
        validated = CrossValidationRecord(found[0]["model"], pool, metrics, output)
        if pool.task in _ANSWERS:
            _join(output / PREDICTIONS_FILE, places, parts)
        _draw_page(output, places)
        write_text(output / RESULT_FILE, json_text(validated.to_json()) + "\n")
    return validated


def _draw_page(output, places):
    """Draw the page that shows the folds side by side; only warn if that fails."""
    try:
        compare(places, output / PAGE_FILE)
    except Exception as error:  # the models are trained: a page must not make the run fail
        log.warning("%s: its page could not be drawn (%s).", output, error)


def _count(places):
    """Folds that are finished."""
    return sum(_done(place) is not None for place in places)


def _how_far(places):
    """How many folds are finished, and how to continue."""
    return f"{_count(places)} of {len(places)} folds are done. The same command continues."


def _pool(images):
    """All images to learn from in one split."""
    whole = images.with_all_to_train()
    if len(whole.test):
        log.info("The %d test images of %s are left out.", len(whole.test), whole.name)
    return whole


def _settings(asked: Asked, pool, folds, name):
    """What distinguishes a cross-validation from others."""
    order, execution = asked.order, asked.execution
    recipe = asdict(order.recipe) if isinstance(order.recipe, Recipe) else order.recipe
    settings = {
        "data": name,
        **asked.settings(),
        "fingerprint": pool.fingerprint(),
        "folds": folds,
        "validation": asked.policy.validation,
        "starting recipe": recipe,
        **{f"changes: {field}": value for field, value in order.changes.items()},
        "shortcut": order.shortcut,
        "balanced": order.balanced,
        "image_size": execution.image_size,
        "crop": execution.crop,
        "seed": execution.seed,
        **({} if asked.thresholds is None else {"thresholds": asked.thresholds}),
    }
    return json.loads(json.dumps(as_python(settings)))


def _has_progress(output):
    """Whether a fold is finished, or has saved its state."""
    found = (output.glob(f"fold-*/{each}") for each in (_DONE, "checkpoints/**/after-*"))
    return any(next(each, None) for each in found)


def _begun(output):
    """The settings of an interrupted cross-validation; None if there is none."""
    file = output / FOLDS_FILE
    if (output / RESULT_FILE).exists() or not file.exists() or not _has_progress(output):
        return None
    return read_object(file, "Remove it, and the same command continues.")


def _begin(output, settings):
    """Continue what is there, or start over; ValueError if its settings are others."""
    file = output / FOLDS_FILE
    if (output / RESULT_FILE).exists():
        log.warning("%s holds a finished cross-validation, which this run replaces.", output)
        for marker in output.glob(f"fold-*/{_DONE}"):
            marker.unlink()
        (output / RESULT_FILE).unlink()
    elif (former := _begun(output)) and (found := differences(former, settings)):
        raise ValueError(
            f"{str(output)!r} holds an interrupted cross-validation with other settings: "
            f"{'; '.join(found)}. Repeat its command to continue it, or remove the folder to "
            "start over."
        )
    write_text(file, json_text(settings) + "\n")


def _done(place):
    """What `_write` wrote of a fold, if it is finished."""
    file = place / _DONE
    return read_object(file, "Remove it to train this fold again.") if file.exists() else None


def _write(place, record: TrainRecord):
    """Write down the answers of a fold, and what has to be known of it later."""
    source = record.source
    if source.task in _ANSWERS:
        _write_answers(place / PREDICTIONS_FILE, record)
    done = {"model": record.model.name, "metrics": record.metrics()}
    write_text(place / _DONE, json_text(done) + "\n")


def _write_answers(path, record):
    """Write a line for each test image of a model."""
    source, quality = record.source, record.evaluation
    names, split, kind = source.class_names, source.test, LABELS[source.task]
    images: Sequence = split.image_set.names()
    if isinstance(split.image_set, Files):
        images = [*map(os.path.abspath, images)]
    answers = np.asarray(_ANSWERS[source.task](quality))
    predictions = answers if source.task == "regression" else quality.predictions
    lines = zip(images, split.labels, predictions, answers, strict=True)
    with _table(path) as table:
        table.writerow(["image", "label", "prediction", *names])
        for image, label, prediction, answer in lines:
            said = (kind.written(each, names) for each in (label, prediction))
            table.writerow([image, *said, *(f"{number:.6g}" for number in answer)])


def _join(path, places, parts):
    """Put the answers of all folds into one file, in the order of the images."""
    lines = {}
    for number, (place, part) in enumerate(zip(places, parts, strict=True), start=1):
        file = place / PREDICTIONS_FILE
        try:
            with file.open(newline="", **_TEXT) as opened:
                head, *rows = csv.reader(opened)
            for index, (image, *row) in zip(part.tolist(), rows, strict=True):
                # Of images in memory, the number in the fold says nothing here.
                lines[index] = [image if os.path.isabs(image) else index, number, *row]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{str(file)!r} is cut off or damaged: {error}. Remove {str(place / _DONE)!r} to "
                "train this fold again."
            ) from error
    with _table(path) as table:
        table.writerow([head[0], "fold", *head[1:]])
        table.writerows(lines[index] for index in sorted(lines))


_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # names are bytes


@contextlib.contextmanager
def _table(path):
    """A CSV file to write, whole or not at all."""
    with written_beside(path) as partial, partial.open("w", newline="", **_TEXT) as file:
        yield csv.writer(file)
