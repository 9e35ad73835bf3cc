"""Training: recipes, devices, and the loop that follows the one on the others."""

from keras_resnet.training.logs import Profile, TensorBoardLog
from keras_resnet.training.recipes import RECIPES, Recipe, recipe
from keras_resnet.training.strategies import STRATEGIES, LostWorkerError, strategy
from keras_resnet.training.trainer import DivergedError, Interrupted, Result, train

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
