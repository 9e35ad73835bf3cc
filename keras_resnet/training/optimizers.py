"""Optimizers that Keras lacks."""

from collections.abc import Mapping

import keras


@keras.saving.register_keras_serializable(package="keras_resnet")
class LayerwiseSGD(keras.optimizers.SGD):
    """Stochastic gradient descent whose learning rate differs from layer to layer.

    Parameters
    ----------
    *args, **kwargs
        Those of `keras.optimizers.SGD`.
    rates : mapping of str to float, optional
        Factors of the learning rate by what the names of layers begin with; 1 for the others.

    References
    ----------
    Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018,
    section 3.2: discriminative fine-tuning.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.training.optimizers import LayerwiseSGD
    >>> slow, fast = (keras.Variable([1.0], name=name) for name in ("conv2_kernel", "kernel"))
    >>> LayerwiseSGD(1.0, rates={"conv2": 0.1}).apply([keras.ops.ones(1)] * 2, [slow, fast])
    >>> [round(float(variable.numpy()[0]), 3) for variable in (slow, fast)]
    [0.9, 0.0]
    """

    def __init__(self, *args, rates: Mapping[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = dict(rates or {})

    def update_step(self, gradient, variable, learning_rate):  # noqa: D102
        # What comes is the backend's variable; Keras' own knows its layer.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        for beginning, rate in self.rates.items():
            if path.startswith(beginning):
                learning_rate = learning_rate * keras.ops.cast(rate, learning_rate.dtype)
                break
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "rates": self.rates}
