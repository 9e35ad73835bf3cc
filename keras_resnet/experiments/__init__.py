"""The papers' experiments: models are trained and measured, and a page says what was found."""

from keras_resnet.experiments.experiment import (
    Context,
    Experiment,
    Report,
    Settings,
    Table,
    Trial,
)
from keras_resnet.experiments.running import ExperimentRecord, rebuild, run
from keras_resnet.experiments.table import EXPERIMENTS, find
from keras_resnet.experiments.trainings import TrainingSettings

__all__ = [
    "EXPERIMENTS",
    "Context",
    "Experiment",
    "ExperimentRecord",
    "Report",
    "Settings",
    "Table",
    "TrainingSettings",
    "Trial",
    "find",
    "rebuild",
    "run",
]
