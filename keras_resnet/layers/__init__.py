"""Layers that the family needs and Keras lacks, or runs slowly.

Each class is an ordinary, serializable Keras layer on any backend. Where TensorFlow has a faster
way than Keras takes, the layer takes it; these fast paths live in this folder only. README.md says
what each layer does, why, and how that was measured.
"""

from keras_resnet.layers.batch_normalization import BatchNormalization
from keras_resnet.layers.convolution import Conv2D
from keras_resnet.layers.devices import gains_from_xla
from keras_resnet.layers.grouped_convolution import GroupedConv2D
from keras_resnet.layers.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.layers.shortcut import ZeroPaddedShortcut

__all__ = [
    "NORMALIZATIONS",
    "BatchNormalization",
    "Conv2D",
    "GroupedConv2D",
    "Preprocessing",
    "ZeroPaddedShortcut",
    "gains_from_xla",
]
