"""Looking at models, data and predictions."""

from keras_resnet.analysis.complexity import StageComplexity, complexity
from keras_resnet.analysis.overview import Overview, overview
from keras_resnet.analysis.plots import (
    class_sheet,
    contact_sheet,
    prediction_sheet,
    training_curves,
)
from keras_resnet.analysis.report import Evaluation, evaluate, submission

__all__ = [
    "Evaluation",
    "Overview",
    "StageComplexity",
    "class_sheet",
    "complexity",
    "contact_sheet",
    "evaluate",
    "overview",
    "prediction_sheet",
    "submission",
    "training_curves",
]
