"""From which probability on a label counts as present."""

import keras

from keras_resnet.checks import check_range
from keras_resnet.layers.devices import serializable


@serializable
class Thresholds(keras.layers.Layer):
    """The last layer of a model of several labels, which says from where on each is present.

    It changes nothing: probabilities pass. It is there because the configuration of a layer is all
    that survives saving, cloning and nesting of a model. `graphs.thresholds_of` reads it.

    Parameters
    ----------
    thresholds : sequence of float
        For each label, what its probability must exceed, from 0 to 1.
    **kwargs
        `name`, `dtype` and other arguments of `keras.layers.Layer`.

    Raises
    ------
    ValueError
        For a threshold outside of [0, 1], or inputs with another number of labels.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import Thresholds
    >>> np.asarray(Thresholds([0.25, 0.5])(np.array([[0.5, 0.75]]))).tolist()
    [[0.5, 0.75]]
    """

    def __init__(self, thresholds, **kwargs):
        super().__init__(**kwargs)
        for each in thresholds:
            check_range("fraction", threshold=each)
        self.thresholds = tuple(map(float, thresholds))

    def build(self, input_shape):
        if input_shape[-1] != len(self.thresholds):
            raise ValueError(
                f"thresholds: {len(self.thresholds)} came for the {input_shape[-1]} labels of the "
                "model: give one for each."
            )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return inputs

    def get_config(self):
        return {**super().get_config(), "thresholds": [*self.thresholds]}
