"""A moving average of the weights of a model."""

import contextlib
from collections.abc import Iterator

import keras


class WeightAverage:
    """An exponential moving average of a model's weights and BatchNormalization statistics.

    Keras' own, `use_ema` of its optimizers, leaves the statistics out. Weights averaged over many
    steps are then used with the statistics of the last step, and while the learning rate is high,
    that is worse than not averaging at all.

    Parameters
    ----------
    model : keras.Model
        The model, made in the scope of the same strategy as this.
    momentum : float
        Weight of the former average in the one after a step. It is smaller in the first steps, so
        that the initial weights are soon forgotten.

    Attributes
    ----------
    variables : list of keras.Variable
        The average.
    statistics : list of keras.Variable
        Those of `variables` that average the model's `statistics`.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.training.averages import WeightAverage
    >>> layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    >>> average = WeightAverage(keras.Sequential([keras.Input((1,)), layer]), momentum=0.999)
    >>> _ = layer.kernel.assign([[1.0]])
    >>> average.follow(step=1)  # after which it is still a tenth of the old
    >>> average.swap()
    >>> round(float(layer.kernel.numpy()[0, 0]), 3)
    0.9
    """

    def __init__(self, model: keras.Model, momentum: float):
        self.momentum = momentum
        self._followed = [*model.trainable_variables, *statistics(model)]
        self.variables = [
            keras.Variable(each.numpy(), trainable=False, dtype=each.dtype, name="average")
            for each in self._followed
        ]
        self.statistics = self.variables[len(model.trainable_variables) :]

    def follow(self, step) -> None:
        """Move the average towards the current weights.

        Parameters
        ----------
        step : int or int tensor
            Steps taken so far, including this one.
        """
        steps = keras.ops.cast(step, "float32")
        momentum = keras.ops.minimum(self.momentum, steps / (steps + 9.0))
        for variable, average in zip(self._followed, self.variables, strict=True):
            part = keras.ops.cast(1.0 - momentum, average.dtype)
            average.assign(average + part * (variable - average))

    def swap(self) -> None:
        """Exchange the weights of the model and their average."""
        for variable, average in zip(self._followed, self.variables, strict=True):
            value = variable.numpy()
            variable.assign(average.numpy())
            average.assign(value)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """A context in which the model has the average as its weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def statistics(model: keras.Model) -> list[keras.Variable]:
    """The moving statistics of a model's BatchNormalization layers.

    Parameters
    ----------
    model : keras.Model
        The model.

    Returns
    -------
    list of keras.Variable
    """
    return [each for each in model.non_trainable_variables if "moving_" in each.path]
