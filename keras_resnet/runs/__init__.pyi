from .comparison import ComparisonRecord, compare
from .evaluation import EvaluateRecord, evaluate
from .experiments import ExperimentRecord, experiment
from .explaining import ExplainRecord, explain
from .exporting import BenchRecord, ExportRecord, bench, export
from .folds import CrossValidationRecord, cross_validate
from .prediction import PredictRecord, predict
from .rates import LearningRateRecord, find_learning_rate
from .reporting import ReportRecord, report
from .search import TuneRecord, tune
from .soups import SoupRecord, soup
from .training import TrainRecord, train

__all__ = [
    "BenchRecord",
    "ComparisonRecord",
    "CrossValidationRecord",
    "EvaluateRecord",
    "ExperimentRecord",
    "ExplainRecord",
    "ExportRecord",
    "LearningRateRecord",
    "PredictRecord",
    "ReportRecord",
    "SoupRecord",
    "TrainRecord",
    "TuneRecord",
    "bench",
    "compare",
    "cross_validate",
    "evaluate",
    "experiment",
    "explain",
    "export",
    "find_learning_rate",
    "predict",
    "report",
    "soup",
    "train",
    "tune",
]
