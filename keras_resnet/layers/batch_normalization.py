"""Batch normalization in one fused operation."""

import keras

from keras_resnet.layers.devices import (
    gains_from_xla,
    may_record,
    on_accelerator,
    serializable,
    tf,
)


@serializable
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization in one fused operation.

    Takes the arguments of `keras.layers.BatchNormalization`, holds the same variables, and computes
    the same outputs and moving averages. On the TensorFlow backend, for images with channels last,
    TensorFlow's fused operation replaces a chain of small ones; statistics stay in float32 under
    mixed precision. For inference in bfloat16 on a CPU, the layer becomes part of the convolution
    before it. Synchronized statistics take one exchange between devices per layer instead of three.
    Everything else (masks, renormalization, other ranks, float64) runs Keras' own code.

    On a CPU `model.compile` does not choose XLA for a model with this layer.

    Parameters
    ----------
    *args, **kwargs
        As for `keras.layers.BatchNormalization`, with its defaults.

    References
    ----------
    Ioffe and Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift, ICML 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import BatchNormalization
    >>> layer = BatchNormalization(momentum=0.9, epsilon=1e-5)
    >>> images = np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 1)).astype("float32")
    >>> round(float(np.std(layer(images, training=True))), 3)
    1.0
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_jit = gains_from_xla()

    def call(self, inputs, training=None, mask=None):
        if not self._is_fusable(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        inputs = tf.convert_to_tensor(inputs)
        channels = inputs.shape[-1]
        scale = self.gamma if self.scale else tf.ones(channels)
        offset = self.beta if self.center else tf.zeros(channels)
        learns = training and self.trainable
        if learns and self.synchronized and (context := _replica_context()):
            return self._synchronized_call(context, inputs, scale, offset)
        if not learns:
            if _is_foldable(inputs):
                scale = scale * tf.math.rsqrt(self.moving_variance + self.epsilon)
                return _fold(inputs, scale, offset - self.moving_mean * scale)
            return tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=scale,
                offset=offset,
                mean=self.moving_mean,
                variance=self.moving_variance,
                epsilon=self.epsilon,
                is_training=False,
            ).y
        # The operation moves the averages itself, but towards the unbiased variance. Keras averages
        # the biased one, which is smaller by this factor.
        count = tf.cast(tf.size(inputs) // channels, "float32")
        excess = count / tf.maximum(count - 1.0, 1.0)
        result = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=self.moving_mean,
            variance=self.moving_variance * excess,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=True,
        )
        self.moving_mean.assign(result.batch_mean)
        self.moving_variance.assign(result.batch_variance / excess)
        return result.y

    def _synchronized_call(self, context, inputs, scale, offset):
        """Normalize by the statistics of all replicas, in one exchange where Keras needs three."""
        x = tf.cast(inputs, "float32")
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), "float32")
        sums = [tf.reduce_sum(x, (0, 1, 2)), tf.reduce_sum(x * x, (0, 1, 2)), count[None]]
        sums = context.all_reduce("SUM", tf.concat(sums, 0))
        mean, mean_square = tf.split(sums[:-1] / sums[-1], 2)
        variance = tf.maximum(mean_square - mean * mean, 0.0)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        result = tf.nn.batch_normalization(x, mean, variance, offset, scale, self.epsilon)
        return tf.cast(result, inputs.dtype)

    def _is_fusable(self, inputs, mask):
        return (
            tf is not None
            and mask is None
            and len(inputs.shape) == 4
            and inputs.shape[-1] is not None
            and keras.backend.standardize_dtype(inputs.dtype) == self.compute_dtype
            and self.axis in (-1, 3)
            and not getattr(self, "renorm", False)
            and self.compute_dtype in ("float32", "bfloat16", "float16")
            and self.variable_dtype == "float32"
        )


def _replica_context():
    """The context of this replica, or None if it is the only one."""
    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None


def _is_foldable(tensor):
    """Whether `tensor` comes from a convolution that can absorb a factor and an offset.

    Not while gradients are recorded, as somebody may ask for the gradient of `tensor` itself. In
    float32 TensorFlow folds by itself, in every graph that it runs.
    """
    if tf.executing_eagerly() or tensor.dtype != "bfloat16" or on_accelerator(tensor):
        return False
    operation = tensor.op
    return (
        operation.type == "Conv2D"
        and operation.get_attr("data_format") == b"NHWC"
        and operation.get_attr("padding") != b"EXPLICIT"
        and max(operation.get_attr("dilations")) == 1
        and not may_record()
    )


def _fold(tensor, scale, offset):
    """Compute `tensor * scale + offset` with a new convolution, in place of the one before.

    Nothing reads the old convolution then, so TensorFlow drops it from the graph.
    """
    inputs, kernel = tensor.op.inputs
    if kernel.op.type == "Cast":
        scaled = tf.cast(tf.cast(kernel.op.inputs[0], scale.dtype) * scale, kernel.dtype)
    else:
        scaled = kernel * tf.cast(scale, kernel.dtype)
    strides, padding = tensor.op.get_attr("strides")[1:3], tensor.op.get_attr("padding").decode()
    outputs = tf.nn.conv2d(inputs, scaled, strides, padding)
    return tf.nn.bias_add(outputs, tf.cast(offset, tensor.dtype))
