"""Search over depth, cardinality and width, under a budget; keras-tuner searches."""

from keras_resnet.tuning.budget import Budget
from keras_resnet.tuning.hypermodel import ResNetHyperModel, TransferHyperModel
from keras_resnet.tuning.parallel import LostChiefError
from keras_resnet.tuning.searches import ALGORITHMS, retrain, search
from keras_resnet.tuning.space import AUGMENTATION_STRENGTHS, CARDINALITIES, default_space

__all__ = [
    "ALGORITHMS",
    "AUGMENTATION_STRENGTHS",
    "CARDINALITIES",
    "Budget",
    "LostChiefError",
    "ResNetHyperModel",
    "TransferHyperModel",
    "default_space",
    "retrain",
    "search",
]
