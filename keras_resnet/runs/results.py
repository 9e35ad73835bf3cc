"""What a trained model leaves behind: tests, files and an export."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_resnet import analysis, data, graphs
from keras_resnet.data.labels_file import write_labels
from keras_resnet.data.skipped import summary
from keras_resnet.export import Exported
from keras_resnet.export.card import with_facts
from keras_resnet.files import json_text, write_text, written_beside
from keras_resnet.runs import answers, repeating
from keras_resnet.runs.choices import METRICS_FILE, MODEL_FILE, RUN_FILES
from keras_resnet.runs.images import write_images
from keras_resnet.runs.kinds import Quality, kind_of
from keras_resnet.training import Result, task_of


@dataclass(frozen=True)
class TrainRecord:
    """What `train` has made.

    Parameters
    ----------
    model : keras.Model
        The trained model.
    source : Source
        The data.
    result : Result
        How the training went.
    evaluation : Evaluation, MultiLabelEvaluation, RegressionEvaluation or DetectionEvaluation
        How the model does on the test images.
    output : pathlib.Path
        The folder of the run.
    exported : Exported
        The SavedModel.
    thresholds : str, float or None
        How the thresholds of labels were chosen, as in `train`.
    calibration : dict of str to float, optional
        For classes and labels: "expected_error", the expected calibration error on the test images;
        and, if there are validation images, the "temperature" that fits these best, and
        "expected_error_at_temperature", both None if there is no best temperature.
    """

    model: keras.Model
    source: data.Source
    result: Result
    evaluation: Quality
    output: Path
    exported: Exported
    thresholds: str | float | None = None
    calibration: Mapping[str, float | None] | None = None

    def metrics(self) -> dict[str, float]:
        """The metrics on the test images, as `to_json` calls them."""
        found = self.evaluation.metrics()
        if self.source.task == "classification":
            return {f"test_{name}": value for name, value in found.items()}
        return found

    def to_json(self) -> dict:
        """What `keras-resnet train --json` prints and metrics.json holds."""
        verification = self.exported.verification
        return {
            "model": self.model.name,
            "data": self.source.name,
            "task": self.source.task,
            **self.metrics(),
            "test_images": len(self.source.test),
            **(details := self.evaluation.details()),
            **({} if self.thresholds is None else {"thresholds": self.thresholds}),
            **({} if self.calibration is None else {"calibration": self.calibration}),
            "best_epoch": self.result.best_epoch,
            "stages": self.result.stages,
            "seconds": self.result.seconds,
            "images_per_second": self.result.images_per_second,
            "loaded": self.source.loaded,
            "skipped_count": len(self.source.skipped),
            "skipped": summary(self.source.skipped),
            "notes": [*self.source.notes, *details.get("notes", ())],
            "output": str(self.output),
            "saved_model": str(self.exported.path),
            "saved_model_difference": verification and verification.largest_difference,
        }


def write_results(
    model: keras.Model,
    source: data.Source,
    result: Result,
    output: Path,
    exports: Path,
    precision: str,
    thresholds: str | float | None = None,
    begun: Mapping[str, Any] | None = None,
) -> TrainRecord:
    """Test a trained model, write its results, and export it; `begun` is its run.json."""
    kind = kind_of(source)
    validation = kind.evaluated(model, source.validation, source) if _is_asked(source) else None
    if thresholds is not None:
        model = _decided(model, validation, thresholds)
    quality = kind.evaluated(model, source.test, source)
    calibration = answers.calibrated(quality, validation)
    with written_beside(output / MODEL_FILE) as partial:
        model.save(partial)
        for name in RUN_FILES:  # nothing of an earlier run beside this model
            (output / name).unlink(missing_ok=True)
    if begun:
        repeating.write_run(output, begun)
    write_images(output, source)
    write_labels(output, source.class_names)
    result.save(output / "history.csv")
    quality.save(output)
    answers.write_answers(output, {"test": quality, "validation": validation})
    analysis.training_curves(output / "curves.png", result.history, result.stages)
    kind.drawn(output / "predictions.png", model, source.test, quality)
    exported = kind.exported(model, exports, source, precision)
    if calibration:
        exported = with_facts(exported, calibration=calibration)
    record = TrainRecord(model, source, result, quality, output, exported, thresholds, calibration)
    write_text(output / METRICS_FILE, json_text(record.to_json()) + "\n")
    if begun:
        repeating.write_run(output, repeating.ended(begun))
    return record


def _is_asked(source):
    """Whether the model's answers to the validation images are needed."""
    return bool(answers.ANSWERS.get(source.task)) and len(source.validation) > 0


def _decided(model, validation: Any, thresholds):
    """A model with the thresholds that are the best on validation images, or with a number."""
    if isinstance(thresholds, str):
        thresholds = analysis.choose_thresholds(
            validation.labels, validation.probabilities, thresholds, validation.class_names
        )
    return graphs.with_thresholds(model, thresholds)


def counted_names(source: data.Source) -> str:
    """How many classes, labels or values a source has, in words."""
    count, noun = len(source.class_names), task_of(source).labels
    one = {"classes": "class"}.get(noun, noun.removesuffix("s"))
    return f"{count} {one if count == 1 else noun}"
