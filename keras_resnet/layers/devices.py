"""What the devices of this process are good at."""

import contextlib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import keras

tf: Any = None
"""TensorFlow, where Keras runs on it."""

if keras.backend.backend() == "tensorflow":
    tf = importlib.import_module("tensorflow")


def _always() -> bool:
    return True


may_record: Callable[[], bool] = _always
"""Whether a gradient tape may be recording."""

if tf is not None:
    with contextlib.suppress(ImportError, AttributeError):  # not a public name
        may_record = importlib.import_module("tensorflow.python.eager.record").could_possibly_record

_Layer = TypeVar("_Layer", bound=type)


def serializable(layer: _Layer) -> _Layer:
    """Register a layer with Keras under the name that users import it by."""
    # Files name the module of a layer: moving it to another file must not change them.
    layer.__module__ = "keras_resnet.layers"
    return keras.saving.register_keras_serializable(package="keras_resnet")(layer)


def gains_from_xla() -> bool:
    """Whether XLA makes these layers faster: on CPUs it is 2 to 100 times slower than oneDNN."""
    return tf is None or any(
        device.device_type != "CPU" for device in tf.config.list_physical_devices()
    )


def on_accelerator(tensor) -> bool:
    """Whether `tensor` will live on a GPU or TPU, which need none of our detours.

    In a graph that names no device, it will if there is one.
    """
    accelerated = any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
    return accelerated and "CPU" not in tensor.device.upper()
