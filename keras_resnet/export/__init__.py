"""Models in formats that other programs load.

The names are listed in `__init__.pyi` and imported when they are first used, so that `load` runs a
LiteRT, ONNX or OpenVINO file without TensorFlow.
"""

import sys
import types

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(types.ModuleType):
    """A package whose functions are not hidden by submodules of the same name."""

    def __setattr__(self, name, value):
        if not (isinstance(value, types.ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
