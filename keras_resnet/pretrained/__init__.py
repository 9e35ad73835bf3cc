"""Pretrained weights: finding and reading files, checking them, and loading them into models."""

from keras_resnet.pretrained.load import load_weights
from keras_resnet.pretrained.mapping import load_state_dict, state_dict_shapes, to_torch
from keras_resnet.pretrained.registry import list_weights

__all__ = [
    "list_weights",
    "load_state_dict",
    "load_weights",
    "state_dict_shapes",
    "to_torch",
]
