import keras
import pytest
import tensorflow as tf

from keras_resnet import layers
from keras_resnet.layers import devices


class GPU:
    device_type = "GPU"


class Tensor:
    device = ""


@pytest.mark.parametrize(
    "make", [lambda: layers.GroupedConv2D(8, 3, groups=2), layers.BatchNormalization]
)
def test_models_are_compiled_by_xla_beside_an_accelerator_only(make, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [])
    model = keras.Sequential([keras.Input((8, 8, 8)), make()])
    model.compile("sgd", "mse")
    assert not model.jit_compile
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [GPU])
    assert make().supports_jit


def test_a_tensor_without_a_device_goes_to_the_accelerator(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [GPU])
    assert devices.on_accelerator(Tensor)
    Tensor.device = "/job:localhost/replica:0/task:0/device:CPU:0"
    assert not devices.on_accelerator(Tensor)
