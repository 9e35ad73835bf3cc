from .experiment import (
    Context,
    Experiment,
    Report,
    Settings,
    Table,
    Trial,
)
from .running import ExperimentRecord, index, rebuild, run
from .table import EXPERIMENTS, find
from .trainings import TrainingSettings

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
    "index",
    "rebuild",
    "run",
]
