"""Transfer learning: a pretrained model learns another task."""

from keras_resnet.graphs import extractor_of, features_of
from keras_resnet.transfer.cached_features import features
from keras_resnet.transfer.fine_tuning import fine_tune
from keras_resnet.transfer.freezing import freeze, unfreeze
from keras_resnet.transfer.heads import classifier, model_for
from keras_resnet.transfer.plans import DISCRIMINATIVE, Stage, stages
from keras_resnet.transfer.views import view_for

__all__ = [
    "DISCRIMINATIVE",
    "Stage",
    "classifier",
    "extractor_of",
    "features",
    "features_of",
    "fine_tune",
    "freeze",
    "model_for",
    "stages",
    "unfreeze",
    "view_for",
]
