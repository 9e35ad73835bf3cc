"""Models, data and predictions as numbers and pictures."""

from keras_resnet.analysis.box_sheet import box_sheet
from keras_resnet.analysis.calibration import (
    Calibration,
    at_temperature,
    calibration,
    fit_temperature,
)
from keras_resnet.analysis.complexity import (
    StageComparison,
    StageComplexity,
    compare,
    complexity,
    total,
)
from keras_resnet.analysis.drawing import draw_boxes
from keras_resnet.analysis.evaluation import (
    EVALUATIONS,
    Evaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
    evaluate,
    submission,
)
from keras_resnet.analysis.gradients import (
    GradientCorrelation,
    GradientNorm,
    autocorrelation,
    brown_noise,
    correlation_of,
    gradient_correlation,
    gradient_norms,
    path,
    white_noise,
)
from keras_resnet.analysis.overview import Boxes, Overview, overview
from keras_resnet.analysis.paths import EffectivePaths, effective_paths, path_lengths
from keras_resnet.analysis.planned import planned
from keras_resnet.analysis.plots import (
    class_sheet,
    contact_sheet,
    learning_rate_curve,
    prediction_sheet,
    training_curves,
)
from keras_resnet.analysis.receptive_fields import ReceptiveField, receptive_fields
from keras_resnet.analysis.responses import LayerResponses, layer_responses
from keras_resnet.analysis.thresholds import choose_thresholds
from keras_resnet.analysis.views import VIEWS, find_views, over_views

__all__ = [
    "EVALUATIONS",
    "VIEWS",
    "Boxes",
    "Calibration",
    "EffectivePaths",
    "Evaluation",
    "GradientCorrelation",
    "GradientNorm",
    "LayerResponses",
    "MultiLabelEvaluation",
    "Overview",
    "ReceptiveField",
    "RegressionEvaluation",
    "StageComparison",
    "StageComplexity",
    "at_temperature",
    "autocorrelation",
    "box_sheet",
    "brown_noise",
    "calibration",
    "choose_thresholds",
    "class_sheet",
    "compare",
    "complexity",
    "contact_sheet",
    "correlation_of",
    "draw_boxes",
    "effective_paths",
    "evaluate",
    "find_views",
    "fit_temperature",
    "gradient_correlation",
    "gradient_norms",
    "layer_responses",
    "learning_rate_curve",
    "over_views",
    "overview",
    "path",
    "path_lengths",
    "planned",
    "prediction_sheet",
    "receptive_fields",
    "submission",
    "total",
    "training_curves",
    "white_noise",
]
