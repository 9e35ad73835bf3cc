"""Search for the best depth, cardinality and width within a budget, with keras-tuner."""

from keras_resnet.checks import check_installed

check_installed("tune", "keras_tuner")

from keras_resnet.blocks import CARDINALITIES
from keras_resnet.tuning.budget import Budget
from keras_resnet.tuning.hypermodel import ResNetHyperModel, TransferHyperModel
from keras_resnet.tuning.parallel import LostChiefError
from keras_resnet.tuning.searches import ALGORITHMS, retrain, search
from keras_resnet.tuning.space import AUGMENTATION_STRENGTHS, default_space

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
