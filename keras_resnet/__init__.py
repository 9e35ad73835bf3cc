"""The ResNet and ResNeXt family, first-class for Keras 3 and TensorFlow.

The names are listed in `__init__.pyi`; what stands behind one is imported when it is first used.
"""

import importlib
import sys

import lazy_loader

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


def _register_parts():
    """Let `keras.saving.load_model` find our layers and optimizers."""
    import keras

    for module in ("layers", "optimizers"):
        importlib.import_module(f"keras_resnet.{module}")
    for name in _OF_DETECTORS:
        keras.saving.get_custom_objects().setdefault(f"keras_resnet>{name}", _Later(name))


class _AfterKeras:
    """Registers our parts when anyone imports Keras.

    `wrapt.when_imported` does the same, but importing wrapt takes ten times as long as all of this.
    """

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "keras":
            return None
        others = (each for each in sys.meta_path if each is not cls and hasattr(each, "find_spec"))
        found = (each.find_spec(name, path, target) for each in others)
        spec = next(filter(None, found), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def executed(module):
                execute(module)
                _register_parts()

            spec.loader.exec_module = executed
        return spec


if "keras" in sys.modules:
    _register_parts()
else:
    sys.meta_path.insert(0, _AfterKeras)
