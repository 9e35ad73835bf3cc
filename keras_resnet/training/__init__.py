"""Training: tasks, recipes, devices, and the loop that brings them together."""

from keras_resnet.interrupts import Interrupted
from keras_resnet.training.cluster import LostWorkerError
from keras_resnet.training.execution import Execution
from keras_resnet.training.learning_rates import LearningRates, find_learning_rate
from keras_resnet.training.logs import Profile, TensorBoardLog
from keras_resnet.training.recipes import RECIPES, Recipe, recipe
from keras_resnet.training.result import DivergedError, Result
from keras_resnet.training.soups import Soup, renew_statistics, same_statistics, soup
from keras_resnet.training.strategies import STRATEGIES, strategy
from keras_resnet.training.tasks import TASKS, Task, task_of
from keras_resnet.training.trainer import train

__all__ = [
    "RECIPES",
    "STRATEGIES",
    "TASKS",
    "DivergedError",
    "Execution",
    "Interrupted",
    "LearningRates",
    "LostWorkerError",
    "Profile",
    "Recipe",
    "Result",
    "Soup",
    "Task",
    "TensorBoardLog",
    "find_learning_rate",
    "recipe",
    "renew_statistics",
    "same_statistics",
    "soup",
    "strategy",
    "task_of",
    "train",
]
