"""Training: recipes, and the loop that follows one."""

from keras_resnet.training.logs import TensorBoardLog
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.trainer import Result, train

__all__ = ["Recipe", "Result", "TensorBoardLog", "train"]
