"""The sections of the page of a run, by task: a row of `SECTIONS`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet.pages import Section, parts
from keras_resnet.runs.reporting.asked import asked, versions
from keras_resnet.runs.reporting.classes import classes, confusion, precision_recall
from keras_resnet.runs.reporting.exports import exported
from keras_resnet.runs.reporting.facts import Run
from keras_resnet.runs.reporting.images import looked_at, sample_images
from keras_resnet.runs.reporting.labels import label_curves
from keras_resnet.runs.reporting.learning import curves
from keras_resnet.runs.reporting.numbers import predicted_values
from keras_resnet.runs.reporting.objects import error_kinds, object_curves, objects, worst_images
from keras_resnet.runs.reporting.trust import calibrated, calibration_facts

if TYPE_CHECKING:
    from markupsafe import Markup

_BEGIN = (asked, sample_images, curves)
_END = (exported, versions)

SECTIONS: dict[str, Sequence[Callable[[Run], Section | None]]] = {
    "classification": (
        *_BEGIN,
        *(confusion, classes, calibrated, precision_recall, looked_at),
        *_END,
    ),
    "multilabel": (*_BEGIN, classes, calibrated, label_curves, looked_at, *_END),
    "regression": (*_BEGIN, predicted_values, looked_at, *_END),
    "detection": (*_BEGIN, objects, object_curves, error_kinds, worst_images, *_END),
}
"""The sections of a page, from top to bottom; None instead of one with nothing to show."""

_SHOWN = {
    "test_accuracy": "Accuracy",
    "accuracy": "All labels right",
    "mean_average_precision": "Mean average precision",
    "f1": "Mean F1 score",
    "r2": "R²",
    "mean_absolute_error": "Mean absolute error",
    "root_mean_squared_error": "Root mean squared error",
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
}
_FRACTIONS = ("test_accuracy", "accuracy")


def sections_of(run: Run) -> list[Section]:
    """The sections of the page of a run."""
    found = (section(run) for section in SECTIONS[run.task])
    return [section for section in found if section is not None]


def lead(run: Run) -> list["Markup"]:
    """What is above them: how good the model is, in a few numbers, and what is not known."""
    found = run.metrics
    rows: list[tuple[str, Any]] = [("Test images", found.get("test_images"))]
    for name, label in _SHOWN.items():
        value = found.get(name)
        if value is not None:
            rows.append((label, f"{value:.2%}" if name in _FRACTIONS else f"{value:.4g}"))
    rows += calibration_facts(run)
    return [parts.facts(rows), *(parts.note(line) for line in run.lacks)]
