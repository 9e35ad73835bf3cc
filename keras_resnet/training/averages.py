"""An average of the weights that a net has had."""

import keras


class WeightAverage:
    """An exponential moving average of a model's weights, BatchNormalization's statistics included.

    Keras' own, `use_ema` of its optimizers, leaves the statistics out. Weights that are averaged
    over many steps then meet the statistics of those of the last one, and while the learning rate
    is high, that makes them worse than either.

    Parameters
    ----------
    model : keras.Model
        The model, made in the scope of the strategy that this is made in, too.
    momentum : float
        Part of the former average in the one after a step. Less in the first steps, so that the
        average does not hold on to the initial weights.

    Attributes
    ----------
    variables, statistics : list of keras.Variable
        The average, and what of it belongs to `statistics` of the model.

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
        """Take a step towards the weights as they are now.

        Parameters
        ----------
        step : int or int tensor
            Steps that have been taken, this one included.
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


def statistics(model: keras.Model) -> list[keras.Variable]:
    """The moving statistics of a model's BatchNormalization.

    Parameters
    ----------
    model : keras.Model
        The model.

    Returns
    -------
    list of keras.Variable
    """
    return [each for each in model.non_trainable_variables if "moving_" in each.path]
