"""Which learning rate to begin with: the loss while the rate rises."""

import functools
import os
from dataclasses import dataclass, fields, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_range
from keras_resnet.data import Source
from keras_resnet.files import written_beside
from keras_resnet.optimizers import check_rates
from keras_resnet.progress import tracked
from keras_resnet.training.execution import Execution, execution_of
from keras_resnet.training.prepare import devices_of, prepare, replicated
from keras_resnet.training.recipes import Recipe, as_recipe
from keras_resnet.training.tasks import task_of
from keras_resnet.training.trainer import check_drop_path, learning_of

_FEWEST = 20  # steps, for a curve that tells anything
_WIDTH = 0.03  # standard deviation of the smoothing, as a fraction of the steps
_OF_STEPS = 1.05  # the median difference of two steps, as the standard deviation of one
_CLEAR = 2.0  # standard deviations that are more than noise, once it is smoothed
_RISE = 0.2  # of a fall: it is over
_LOST = 4.0  # times the lowest loss: the rate is far too high
_MEMORY = 0.8  # of the average that is compared with that


@dataclass(frozen=True)
class LearningRates:
    """The loss while the learning rate rose from step to step.

    Parameters
    ----------
    rates : array of shape (steps,)
        Learning rates, for a batch of 256 images as in `Recipe`.
    losses : array of shape (steps,)
        The training loss at each; the last ones may be missing, if the training diverged.
    diverged : bool
        Whether it did.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.training import LearningRates
    >>> rates = np.geomspace(1e-3, 10, 81)
    >>> found = LearningRates(rates, 2 - np.tanh(np.log10(rates / 0.1)), diverged=False)
    >>> round(found.suggestion, 2), round(found.lowest, 2)
    (1.0, 10.0)
    """

    rates: np.ndarray
    losses: np.ndarray
    diverged: bool

    @property
    def smooth(self) -> np.ndarray:
        """The losses without their noise: means over neighbouring steps."""
        steps = np.arange(len(self.losses))
        width = max(_WIDTH * len(self.rates), 1.0)
        weights = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
        return weights @ self.losses / weights.sum(1)

    @property
    def lowest(self) -> float | None:
        """The rate at which the loss was lowest before it rose: too high to train with."""
        return self._fall and float(self.rates[self._fall[1]])

    @property
    def suggestion(self) -> float | None:
        """A rate to train with; None if the loss did not fall.

        The geometric mean of the rate at which half of the fall was done and that of the lowest
        loss. It varies less from seed to seed than the rate of the steepest slope.
        """
        return self._fall and float(np.sqrt(self.rates[self._fall[0]] * self.rates[self._fall[1]]))

    @functools.cached_property
    def _fall(self):
        """The steps at which half of the fall is done, and all of it; None without a clear one."""
        smooth, start, end = self.smooth, 0, 0
        noise = _OF_STEPS * np.median(np.abs(np.diff(self.losses)))
        for step, loss in enumerate(smooth):
            if loss < smooth[end]:
                end = step
            fall = smooth[start] - smooth[end]
            if fall <= _CLEAR * noise:
                if loss > smooth[start]:
                    start = end = step
            elif loss - smooth[end] > _RISE * fall:
                break
        if smooth[start] - smooth[end] <= _CLEAR * noise:
            return None
        half = (smooth[start] + smooth[end]) / 2
        return start + int(np.flatnonzero(smooth[start : end + 1] >= half)[-1]), end

    def save(self, path: str | os.PathLike) -> None:
        """Write rates and losses as a CSV file.

        Parameters
        ----------
        path : path
            The file.
        """
        columns = np.stack([self.rates[: len(self.losses)], self.losses, self.smooth], 1)
        with written_beside(path) as partial:
            header = "learning_rate,loss,smooth"
            np.savetxt(partial, columns, "%.6g", ",", header=header, comments="")


@dataclass(frozen=True)
class _Rising(Recipe):
    """A recipe whose learning rate rises to `highest`, by the same factor from step to step."""

    highest: float = 1.0
    steps: int = _FEWEST

    def schedule(self, steps_per_epoch):
        return keras.optimizers.schedules.ExponentialDecay(
            self._peak, self.steps - 1, self.highest / self.learning_rate
        )


def find_learning_rate(
    model: keras.Model,
    source: Source,
    recipe: Recipe | str | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    execution: Execution | None = None,
    **options: Any,
) -> LearningRates:
    """Find a learning rate: train a copy of a model for a few steps while the rate rises.

    The rate is multiplied by the same number from step to step. Too low, it changes nothing; too
    high, the loss rises again or explodes, which ends the test. The batch size, the augmentation
    and all else are the recipe's, so the answer depends on them. The model stays as it is.

    Parameters
    ----------
    model, source, recipe, strategy, execution, **options
        As in `keras_resnet.training.train`. Of the recipe, the learning rate, its schedule, epochs
        and averages are not used; of the execution, no checkpoints and no callbacks.
    lowest, highest : float, default 1e-5, 10
        The first and the last learning rate, as `Recipe.learning_rate`: for a batch of 256 images.
    steps : int, default 100
        Steps to take, at least 20.

    Returns
    -------
    LearningRates

    Raises
    ------
    ValueError
        As `train` does, and for rates or steps out of their range.

    References
    ----------
    Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, training
    >>> digits = data.load("digits")
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> found = training.find_learning_rate(model, digits, steps=20, verbose=0)
    >>> 1e-5 < found.suggestion < found.lowest <= 10
    True
    """
    check_range("positive", lowest=lowest, highest=highest)
    if lowest >= highest:
        raise ValueError(f"lowest={lowest!r} must be below highest={highest!r}.")
    check_range("count", steps=steps)
    if steps < _FEWEST:
        raise ValueError(f"steps={steps!r} must be a whole number of at least {_FEWEST}.")
    execution, task = execution_of(execution, options), task_of(source)
    execution = replace(execution, checkpoints=None, callbacks=())
    recipe = as_recipe(recipe or task.recipe)
    task.check(model, source)
    check_rates(recipe.rates, model)
    check_drop_path(recipe, model)
    view = task.view(model, source, recipe, execution)
    training, objective = learning_of(view, source, recipe, execution)
    # Steps of an epoch may be fewer, if each device needs images in the last one.
    epochs = -(-steps // max(len(source.train) // recipe.batch_size, 1))
    of_recipe = {each.name: getattr(recipe, each.name) for each in fields(Recipe)}
    changes = {"learning_rate": lowest, "epochs": epochs, "ema": 0.0}
    rising = _Rising(**{**of_recipe, **changes}, highest=highest, steps=steps)
    copy = replicated(model, model.distribute_strategy, synchronized=False)
    devices = devices_of(strategy, copy, rising, execution.synchronized)
    prepared = prepare(copy, training, None, rising, objective, devices, {}, execution)
    losses, diverged = _losses(prepared, steps)
    return LearningRates(np.geomspace(lowest, highest, steps), losses, diverged)


def _losses(prepared, steps):
    """The loss of every step, up to where it is lost, and whether it is."""
    iterator = prepared.devices.iterator(prepared.batches.rest(0, 0))
    losses, average, best = [], 0.0, np.inf
    for step in tracked(range(1, steps + 1), "Trying learning rates", unit="steps"):
        *totals, images, _ = prepared.train(iterator, tf.constant(0.0), 1).numpy()[0]
        loss = float(totals[0] / images)
        average = _MEMORY * average + (1 - _MEMORY) * loss
        unbiased = average / (1 - _MEMORY**step)
        if not np.isfinite(loss) or unbiased > _LOST * best:
            return np.array(losses), True
        losses.append(loss)
        best = min(best, unbiased)
    return np.array(losses), False
