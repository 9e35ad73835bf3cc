"""Transfer learning: a pretrained model becomes a classifier of other images."""

from keras_resnet.graphs import extractor_of, features_of
from keras_resnet.transfer.features import features
from keras_resnet.transfer.freezing import freeze, unfreeze
from keras_resnet.transfer.head import classifier
from keras_resnet.transfer.stages import DISCRIMINATIVE, Stage, fine_tune, stages

__all__ = [
    "DISCRIMINATIVE",
    "Stage",
    "classifier",
    "extractor_of",
    "features",
    "features_of",
    "fine_tune",
    "freeze",
    "stages",
    "unfreeze",
]
