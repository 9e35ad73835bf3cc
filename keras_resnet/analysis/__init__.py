"""Looking at models and their predictions."""

from keras_resnet.analysis.complexity import StageComplexity, complexity
from keras_resnet.analysis.plots import contact_sheet, prediction_sheet, training_curves
from keras_resnet.analysis.report import Evaluation, evaluate

__all__ = [
    "Evaluation",
    "StageComplexity",
    "complexity",
    "contact_sheet",
    "evaluate",
    "prediction_sheet",
    "training_curves",
]
