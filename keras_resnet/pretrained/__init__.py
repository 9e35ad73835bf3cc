"""Weights from elsewhere: names mapped to layers, everything checked before anything changes."""

from keras_resnet.pretrained.load import load_weights
from keras_resnet.pretrained.mapping import load_state_dict, state_dict_shapes

__all__ = ["load_state_dict", "load_weights", "state_dict_shapes"]
