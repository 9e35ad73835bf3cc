from .evaluation import EvaluateRecord, evaluate
from .exporting import BenchRecord, ExportRecord, bench, export
from .prediction import PredictRecord, predict
from .search import TuneRecord, tune
from .training import TrainRecord, train

__all__ = [
    "BenchRecord",
    "EvaluateRecord",
    "ExportRecord",
    "PredictRecord",
    "TrainRecord",
    "TuneRecord",
    "bench",
    "evaluate",
    "export",
    "predict",
    "train",
    "tune",
]
