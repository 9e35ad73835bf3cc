"""Training: recipes, devices, and the loop that follows the one on the others."""

from keras_resnet.training.cluster import LostWorkerError
from keras_resnet.training.logs import Profile, TensorBoardLog
from keras_resnet.training.recipes import RECIPES, Recipe, recipe
from keras_resnet.training.result import DivergedError, Interrupted, Result
from keras_resnet.training.strategies import STRATEGIES, strategy
from keras_resnet.training.trainer import train

__all__ = [
    "RECIPES",
    "STRATEGIES",
    "DivergedError",
    "Interrupted",
    "LostWorkerError",
    "Profile",
    "Recipe",
    "Result",
    "TensorBoardLog",
    "recipe",
    "strategy",
    "train",
]
