"""What the devices of this process do well."""

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


serializable = keras.saving.register_keras_serializable(package="keras_resnet")


def gains_from_xla():
    """Whether XLA is any good to these layers: on CPUs it is 2 to 100 times slower than oneDNN."""
    return tf is None or any(
        device.device_type != "CPU" for device in tf.config.list_physical_devices()
    )


def on_accelerator(tensor):
    """Whether the device that will hold `tensor` is not a CPU: only CPUs need help of ours.

    A tensor in a graph that names no device goes to an accelerator if there is one.
    """
    accelerated = any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
    return accelerated and "CPU" not in tensor.device.upper()
