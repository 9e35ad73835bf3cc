"""The ResNet and ResNeXt family, first-class for Keras 3 and TensorFlow.

The names are listed in `__init__.pyi`; what stands behind one is imported when it is first used.
"""

import importlib

import lazy_loader
import wrapt

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


_OF_DETECTORS = ("Anchors", "Detections", "Proposals", "RoIAlign", "Transform")


class _Later:
    """Stands for a layer of detectors until a file has one: only then is it imported."""

    def __init__(self, name):
        self.name = name

    def from_config(self, config):
        layer = getattr(importlib.import_module("keras_resnet.detection"), self.name)
        return layer.from_config(config)


@wrapt.when_imported("keras")
def _register_parts(keras):
    """Let `keras.saving.load_model` find our layers and optimizers, once Keras is used."""
    for module in ("layers", "optimizers"):
        importlib.import_module(f"keras_resnet.{module}")
    for name in _OF_DETECTORS:
        keras.saving.get_custom_objects().setdefault(f"keras_resnet>{name}", _Later(name))
