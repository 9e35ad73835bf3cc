"""Layers that the family needs and Keras lacks, or runs slowly.

Every class is an ordinary, serializable Keras layer on any backend. Where TensorFlow has a faster
way than the one Keras takes, the layer takes it; those fast paths live in this folder alone.
"""

from keras_resnet.layers.batch_normalization import BatchNormalization
from keras_resnet.layers.devices import gains_from_xla
from keras_resnet.layers.grouped_convolution import GroupedConv2D
from keras_resnet.layers.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.layers.shortcut import ZeroPaddedShortcut

__all__ = [
    "NORMALIZATIONS",
    "BatchNormalization",
    "GroupedConv2D",
    "Preprocessing",
    "ZeroPaddedShortcut",
    "gains_from_xla",
]
