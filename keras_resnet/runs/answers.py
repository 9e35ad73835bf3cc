"""A model's answers on the images of its run, saved beside it; and their calibration."""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_resnet import analysis
from keras_resnet.analysis.calibration import best_temperature
from keras_resnet.files import written_beside
from keras_resnet.runs.choices import ANSWERS_FILE
from keras_resnet.runs.kinds import Quality


class Answers(NamedTuple):
    """How the answers of a task are saved.

    Parameters
    ----------
    outputs : callable
        Returns the array of answers, given what the task's `evaluated` returned.
    quality : callable
        Restores that, given labels, outputs, names, and the thresholds of the names or None.
    sure : bool
        Whether the answers are probabilities, which can be calibrated.
    """

    outputs: Callable[[Any], np.ndarray]
    quality: Callable[..., Quality]
    sure: bool


ANSWERS = {
    "classification": Answers(
        lambda quality: quality.probabilities,
        lambda labels, outputs, names, _: analysis.Evaluation(labels, outputs, names),
        sure=True,
    ),
    "multilabel": Answers(
        lambda quality: quality.probabilities, analysis.MultiLabelEvaluation, sure=True
    ),
    "regression": Answers(
        lambda quality: quality.predictions,
        lambda labels, outputs, names, _: analysis.RegressionEvaluation(labels, outputs, names),
        sure=False,
    ),
}
"""By task; detectors' answers are in detections.json instead."""


def answers_of(quality: Quality) -> Answers | None:
    """How the answers of a model are saved; None if they are not."""
    task = _TASKS.get(type(quality))
    return ANSWERS[task] if task else None


_TASKS = {
    analysis.Evaluation: "classification",
    analysis.MultiLabelEvaluation: "multilabel",
    analysis.RegressionEvaluation: "regression",
}


def write_answers(folder: Path, found: Mapping[str, Any]) -> None:
    """Save a model's answers, in the order of images.csv, and the labels.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the run.
    found : mapping of str to quality or None
        How the model does on each split; None for a split that it was not evaluated on.
    """
    arrays = {}
    for split, quality in found.items():
        if quality is not None and (kept := answers_of(quality)):
            arrays[split] = np.asarray(kept.outputs(quality), "float32")
            arrays[f"{split}_labels"] = np.asarray(quality.labels)
    if arrays:
        with written_beside(folder / ANSWERS_FILE) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)


def read_answers(
    folder: Path, task: str, names: tuple[str, ...], thresholds: tuple[float, ...] | None = None
) -> dict[str, Any]:
    """How a model does on the splits of its run, from the saved answers.

    Raises ValueError if the file is damaged or from another model.
    """
    file = folder / ANSWERS_FILE
    if task not in ANSWERS or not file.is_file():
        return {}
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
        return {
            split: _checked(ANSWERS[task], kept, split, names, thresholds)
            for split in ("test", "validation")
            if split in kept
        }
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{str(file)!r} is damaged or from another model ({error}): remove it, and the answers "
            "are computed again."
        ) from error


def _checked(kind, kept, split, names, thresholds):
    outputs, labels = kept[split], kept[f"{split}_labels"]
    if outputs.shape != (len(labels), len(names)):
        raise ValueError(f"{split}: outputs of shape {outputs.shape} for {len(names)} names")
    return kind.quality(labels, outputs, names, thresholds)


def calibrated(test: Any, validation: Any) -> dict[str, float | None] | None:
    """The calibration error of a model, and the temperature that reduces it.

    Parameters
    ----------
    test, validation : quality
        How the model does on each split; None for no validation images.

    Returns
    -------
    dict or None
        As in `TrainRecord`; None for answers that are not probabilities.
    """
    kept = answers_of(test)
    if kept is None or not kept.sure or not len(test.labels):
        return None
    found: dict[str, float | None] = {
        "expected_error": analysis.calibration(test.labels, test.probabilities).expected_error
    }
    if validation is None or not len(validation.labels):
        return found
    temperature, is_best = best_temperature(validation.labels, validation.probabilities)
    if not is_best:
        return {"temperature": None, **found, "expected_error_at_temperature": None}
    after = analysis.calibration(test.labels, cooled(test, temperature))
    return {
        "temperature": temperature,
        **found,
        "expected_error_at_temperature": after.expected_error,
    }


def cooled(quality: Any, temperature: float) -> np.ndarray:
    """The probabilities of a model at a temperature."""
    dimensions = np.ndim(quality.labels)
    return analysis.at_temperature(quality.probabilities, temperature, dimensions)
