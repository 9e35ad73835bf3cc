"""Layers that the family needs and Keras lacks, or runs slowly.

Each class is an ordinary, serializable Keras layer on any backend. Where TensorFlow has a faster
way than Keras takes, the layer takes it; these fast paths live in this folder only. README.md says
what each layer does, why, and how that was measured.
"""

from keras_resnet.layers.batch_normalization import BatchNormalization
from keras_resnet.layers.blur import BlurPool2D
from keras_resnet.layers.convolution import Conv2D
from keras_resnet.layers.devices import gains_from_xla
from keras_resnet.layers.grouped_convolution import GroupedConv2D
from keras_resnet.layers.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.layers.shortcut import ZeroPaddedShortcut
from keras_resnet.layers.standardized_convolution import StandardizedConv2D
from keras_resnet.layers.thresholds import Thresholds

__all__ = [
    "NORMALIZATIONS",
    "BatchNormalization",
    "BlurPool2D",
    "Conv2D",
    "GroupedConv2D",
    "Preprocessing",
    "StandardizedConv2D",
    "Thresholds",
    "ZeroPaddedShortcut",
    "gains_from_xla",
]
