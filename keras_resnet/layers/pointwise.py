"""1x1 convolutions whose filter gradient is one matrix product."""

import functools
import os

from keras_resnet.layers.devices import may_record, on_accelerator, tf
from keras_resnet.machine import cpu

SWITCH = "KERAS_RESNET_MATMUL_GRADIENTS"
"""The environment variable that overrides the choice by CPU: "1" for always, "0" for never."""


def takes_over(layer, inputs) -> bool:
    """Whether to convolve here rather than in Keras: for training, where that is faster.

    Only while a gradient tape records: without one, the graph is that of an ordinary convolution,
    so that TensorFlow can fuse and export it.
    """
    return (
        tf is not None
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and may_record()
        and _is_faster(inputs.dtype)
        and not on_accelerator(inputs)
    )


def _is_faster(dtype):
    """Whether a matrix product is faster than oneDNN's filter gradient in this type."""
    switch = os.environ.get(SWITCH)
    if switch in ("0", "1"):
        return switch == "1"
    return dtype == "bfloat16" and _has_amx()


@functools.cache
def _has_amx():
    return "amx_bf16" in cpu().flags


def convolution(inputs, kernel, strides):
    """What `tf.nn.conv2d` computes for a 1x1 kernel, and its gradients.

    `inputs` is (images, height, width, channels), `kernel` (1, 1, channels, filters).
    """

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(upstream):
            of_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                strides=(1, *strides, 1),
                padding="VALID",
            )
            seen = inputs
            if max(strides) > 1:
                # Several times faster than a strided slice, and so is its gradient.
                seen = tf.nn.avg_pool2d(inputs, 1, strides, "VALID")
            rows, columns = (tf.reshape(each, (-1, each.shape[-1])) for each in (seen, upstream))
            of_kernel = tf.matmul(rows, columns, transpose_a=True)
            return tf.ensure_shape(of_inputs, inputs.shape), tf.reshape(of_kernel, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, "VALID"), gradient

    return convolve(tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel))
