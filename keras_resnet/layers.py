"""Layers that the family needs and Keras lacks, or runs slowly.

Every class is an ordinary, serializable Keras layer on any backend. Where TensorFlow has a faster
way than the one Keras takes, the layer takes it; those fast paths live in this file alone.
"""

import functools
import operator
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    try:
        from tensorflow.python.eager.record import could_possibly_record as _may_record
    except ImportError:  # it is no public name

        def _may_record():
            return True
else:
    tf = None

_serializable = keras.saving.register_keras_serializable(package="keras_resnet")

# oneDNN convolves in blocks of 16 channels. Narrower groups are put together until they fill one
# block: measured fastest, in float32 and bfloat16, for every stage of ResNeXt-50.
_CHANNELS_PER_FILTER_GRADIENT = 16


@_serializable
class GroupedConv2D(keras.layers.Conv2D):
    """2D convolution whose groups train on a CPU and never pass through XLA.

    Takes what `keras.layers.Conv2D` takes, and computes the same. On the TensorFlow backend Keras
    compiles a grouped convolution with XLA, because TensorFlow's own CPU kernels have no gradient
    for it; that costs two orders of magnitude in training, and leaves functions in a SavedModel
    which TensorFlow Serving refuses to run. This layer calls TensorFlow's grouped kernel directly.
    Its gradient is that of oneDNN, which TensorFlow uses on most CPUs, or of the accelerator. Where
    neither has one, the layer brings it along: the input gradient is another grouped convolution,
    the filter gradient a few ordinary ones. Second derivatives work too; `GradientTape.jacobian`
    with respect to the kernel needs `experimental_use_pfor=False`. On other backends the layer is
    `keras.layers.Conv2D`.

    On a CPU `model.compile` chooses against XLA for a net that has this layer.

    Parameters
    ----------
    filters : int
        Channels of the output; a multiple of `groups`.
    kernel_size : int or pair of int
        Height and width of the kernel in pixels.
    strides : int or pair of int, default 1
        Step of the kernel in pixels.
    padding : {"valid", "same"}, int, pair of int or pair of pairs, default "valid"
        A name as in Keras, or the rows and columns of zeros to add: one number for every side,
        (vertical, horizontal), or ((top, bottom), (left, right)). `padding=1` of a 3x3 kernel is
        what PyTorch calls `padding=1`, which differs from "same" where the stride is not 1.
    data_format : None or "channels_last", default None
        Order of the axes; None takes the one of the Keras configuration.
    dilation_rate : int or pair of int, default 1
        Spacing of the kernel's taps; must be 1 where `groups` is not.
    groups : int, default 1
        Number of groups (the cardinality of a ResNeXt block).
    **kwargs
        Everything else that `keras.layers.Conv2D` takes: `use_bias`, `kernel_initializer`, ...

    Raises
    ------
    ValueError
        If the channels are not divisible by `groups`, if `padding` is none of the above, or for
        channels first or a dilated grouped convolution.

    References
    ----------
    Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import GroupedConv2D
    >>> layer = GroupedConv2D(64, 3, strides=2, padding=1, groups=32, use_bias=False)
    >>> layer(np.zeros((1, 56, 56, 64), "float32")).shape[1:3], layer.kernel.shape[2]
    (TensorShape([28, 28]), 2)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        **kwargs,
    ):
        named = isinstance(padding, str)
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding if named else "valid",
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            **kwargs,
        )
        self.explicit_padding = None if named else _pair_of_pairs(padding)
        self.supports_jit = gains_from_xla()
        if self.data_format != "channels_last":
            raise ValueError(
                f"data_format={self.data_format!r} is not supported: use 'channels_last'."
            )
        if groups > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"dilation_rate={dilation_rate!r} with groups={groups}: a grouped convolution must "
                "have dilation_rate=1."
            )

    def convolution_op(self, inputs, kernel):
        if self.explicit_padding:
            inputs = ops.pad(inputs, ((0, 0), *self.explicit_padding, (0, 0)))
        if tf is None or self.groups == 1:
            return super().convolution_op(inputs, kernel)
        kernel, padding = tf.convert_to_tensor(kernel), self.padding.upper()
        if padding == "SAME" and (
            max(self.strides) > 1 or not all(size % 2 for size in self.kernel_size)
        ):
            # oneDNN, too, has wrong gradients for taps that see nothing but such padding.
            inputs, padding = _pad_same(inputs, self.kernel_size, self.strides), "VALID"
        if _differentiates_groups(inputs):
            return tf.nn.conv2d(inputs, kernel, self.strides, padding)
        return _grouped_convolution(inputs, kernel, self.groups, self.strides, padding)

    def compute_output_shape(self, input_shape):
        if self.explicit_padding:
            batch, height, width, channels = input_shape
            (top, bottom), (left, right) = self.explicit_padding
            input_shape = (
                batch,
                None if height is None else height + top + bottom,
                None if width is None else width + left + right,
                channels,
            )
        return super().compute_output_shape(input_shape)

    def get_config(self):
        config = super().get_config()
        if self.explicit_padding:
            config["padding"] = self.explicit_padding
        return config


def _pair_of_pairs(padding):
    """((top, bottom), (left, right)) from one number, two numbers or two pairs."""
    try:
        sides = padding if isinstance(padding, Iterable) else (padding, padding)
        rows, columns = (side if isinstance(side, Iterable) else (side, side) for side in sides)
        pairs = tuple(tuple(map(operator.index, pair)) for pair in (rows, columns))
        if all(len(pair) == 2 and min(pair) >= 0 for pair in pairs):
            return pairs
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"padding={padding!r} must be 'valid', 'same', a number of pixels >= 0, two of them "
        "(vertical, horizontal), or ((top, bottom), (left, right))."
    )


def gains_from_xla():
    """Whether XLA is any good to these layers: on CPUs it is 2 to 100 times slower than oneDNN."""
    return tf is None or any(
        device.device_type != "CPU" for device in tf.config.list_physical_devices()
    )


def _on_accelerator(tensor):
    """Whether the device that will hold `tensor` is not a CPU: only CPUs need help of ours.

    A tensor in a graph that names no device goes to an accelerator if there is one.
    """
    accelerated = any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
    return accelerated and "CPU" not in tensor.device.upper()


def _differentiates_groups(tensor):
    """Whether TensorFlow has the gradients of a grouped convolution of `tensor`.

    Accelerators do. On CPUs oneDNN brings them, for some types, where TensorFlow was built with it
    and it is not switched off.
    """
    return _on_accelerator(tensor) or _onednn_differentiates_groups(tensor.dtype)


@functools.cache
def _onednn_differentiates_groups(dtype):
    """Try it."""
    with tf.init_scope(), tf.device("CPU:0"):
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=tf.zeros((1, 1, 1, 4), dtype),
                filter_sizes=(1, 1, 2, 4),
                out_backprop=tf.zeros((1, 1, 1, 4), dtype),
                strides=(1, 1, 1, 1),
                padding="VALID",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


def _pad_same(inputs, kernel_size, strides):
    """Pad with zeros so that a "valid" convolution becomes TensorFlow's "same"."""
    sizes = tf.shape(inputs)[1:3]
    pads = []
    for axis, (kernel, stride) in enumerate(zip(kernel_size, strides, strict=True)):
        size = sizes[axis]
        total = tf.maximum((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads.append([total // 2, total - total // 2])
    return tf.pad(inputs, [[0, 0], *pads, [0, 0]])


def _grouped_convolution(inputs, kernel, groups, strides, padding):
    """Grouped convolution with a gradient that needs no grouped gradient kernel.

    `inputs` is (batch, height, width, channels), `kernel` (height, width, channels / groups,
    filters). `padding` is "VALID", or "SAME" for odd kernels with stride 1 only: where both the
    convolution and its transpose pad alike.
    """

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(upstream):
            transposed = _transpose_groups(kernel, groups)
            if padding == "SAME":
                spread = upstream
            else:
                spread = _spread(upstream, tf.shape(inputs), kernel.shape, strides)
            # The gradient is itself a grouped convolution, and so differentiable the same way.
            input_gradient = _grouped_convolution(spread, transposed, groups, (1, 1), padding)
            input_gradient = tf.ensure_shape(input_gradient, inputs.shape)
            return input_gradient, _filter_gradient(
                inputs, kernel.shape, upstream, groups, strides, padding
            )

        outputs = tf.nn.conv2d(inputs, kernel, strides, padding)
        # Without oneDNN, TensorFlow would fuse a bias into a kernel that refuses groups. This stops
        # it.
        return tf.ensure_shape(outputs, outputs.shape), gradient

    return convolve(inputs, kernel)


def _transpose_groups(kernel, groups):
    """Flip the kernel and swap the in- and outgoing channels of every group."""
    height, width, channels, filters = kernel.shape
    kernel = tf.reshape(tf.reverse(kernel, [0, 1]), (height, width, channels, groups, -1))
    kernel = tf.transpose(kernel, (0, 1, 4, 3, 2))
    return tf.reshape(kernel, (height, width, filters // groups, groups * channels))


def _spread(upstream, input_shape, kernel_shape, strides):
    """Set the incoming gradient `strides` apart, in zeros, ready for a "VALID" convolution.

    The result is `kernel - 1` rows higher and columns wider than the input of the convolution.
    """
    batch, height, width, channels = tf.unstack(tf.shape(upstream))
    (down, across), (kernel_height, kernel_width) = strides, kernel_shape[:2]
    if max(strides) > 1:
        upstream = tf.reshape(upstream, (batch, height, 1, width, 1, channels))
        upstream = tf.pad(
            upstream, ((0, 0), (0, 0), (0, down - 1), (0, 0), (0, across - 1), (0, 0))
        )
        height, width = height * down, width * across
        upstream = tf.reshape(upstream, (batch, height, width, channels))
    bottom = tf.maximum(input_shape[1] - height, 0)
    right = tf.maximum(input_shape[2] - width, 0)
    upstream = tf.pad(
        upstream, [[0, 0], [kernel_height - 1, bottom], [kernel_width - 1, right], [0, 0]]
    )
    if kernel_height < down or kernel_width < across:
        # A stride longer than the kernel has set zeros beyond the last input that was seen.
        upstream = upstream[
            :, : input_shape[1] + kernel_height - 1, : input_shape[2] + kernel_width - 1
        ]
    return upstream


def _filter_gradient(inputs, kernel_shape, upstream, groups, strides, padding):
    """Gradient with respect to the kernel: ordinary convolutions over a few groups each.

    A convolution over several groups at once also computes the products between different groups;
    only the diagonal blocks are kept. Up to 16 channels that waste is cheaper than more kernels.
    """
    height, width, channels, filters = kernel_shape
    together = max(
        count
        for count in range(1, groups + 1)
        if groups % count == 0 and count * channels <= max(_CHANNELS_PER_FILTER_GRADIENT, channels)
    )
    per_group = filters // groups
    gradients = []
    for some_inputs, some_upstream in zip(
        tf.split(inputs, groups // together, axis=-1),
        tf.split(upstream, groups // together, axis=-1),
        strict=True,
    ):
        gradient = tf.raw_ops.Conv2DBackpropFilter(
            input=some_inputs,
            filter_sizes=(height, width, together * channels, together * per_group),
            out_backprop=some_upstream,
            strides=(1, *strides, 1),
            # Never "EXPLICIT": oneDNN has no such gradient, and the fallback is 50 times slower.
            padding=padding,
        )
        if together > 1:
            gradient = tf.reshape(
                gradient, (height, width, together, channels, together, per_group)
            )
            gradient = tf.linalg.diag_part(tf.transpose(gradient, (0, 1, 3, 5, 2, 4)))
            gradient = tf.transpose(gradient, (0, 1, 2, 4, 3))
            gradient = tf.reshape(gradient, (height, width, channels, together * per_group))
        gradients.append(gradient)
    return tf.concat(gradients, axis=-1)


@_serializable
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization in one fused operation.

    Takes what `keras.layers.BatchNormalization` takes, holds the same variables, and computes the
    same outputs and moving averages. On the TensorFlow backend, for images with the channels last,
    the chain of small operations is replaced by TensorFlow's fused one; statistics stay in
    float32 under mixed precision. In inference in bfloat16 on a CPU, the layer becomes part of the
    convolution before it. Synchronized statistics travel between devices in one exchange a layer
    instead of three. Everything else (masks, renormalization, other ranks, float64) runs Keras' own
    code.

    On a CPU `model.compile` chooses against XLA for a net that has this layer.

    Parameters
    ----------
    *args, **kwargs
        Those of `keras.layers.BatchNormalization`, with its defaults.

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
        if learns and self.synchronized and (context := _context_of_several_replicas()):
            return self._with_statistics_of_all(context, inputs, scale, offset)
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
        # The operation moves the averages itself, but towards the unbiased variance, which is this
        # much larger than the biased one that Keras' average is of.
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

    def _with_statistics_of_all(self, context, inputs, scale, offset):
        """Normalize by the statistics of all replicas, in one exchange where Keras has three."""
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


def _context_of_several_replicas():
    """The replica that this is one of several of, if it is."""
    context = tf.distribute.get_replica_context()
    return context if context and context.num_replicas_in_sync > 1 else None


def _is_foldable(tensor):
    """Whether `tensor` is the output of a convolution, into which a factor and an offset may go.

    Not where gradients are recorded, as somebody may ask for that of `tensor` itself. Of float32
    TensorFlow takes care itself, in every graph that it runs.
    """
    if tf.executing_eagerly() or tensor.dtype != "bfloat16" or _on_accelerator(tensor):
        return False
    operation = tensor.op
    return (
        operation.type == "Conv2D"
        and operation.get_attr("data_format") == b"NHWC"
        and operation.get_attr("padding") != b"EXPLICIT"
        and max(operation.get_attr("dilations")) == 1
        and not _may_record()
    )


def _fold(tensor, scale, offset):
    """`tensor * scale + offset`, by another convolution than the one that gave `tensor`.

    Nothing reads the first convolution then, and TensorFlow drops it from the graph.
    """
    inputs, kernel = tensor.op.inputs
    if kernel.op.type == "Cast":
        scaled = tf.cast(tf.cast(kernel.op.inputs[0], scale.dtype) * scale, kernel.dtype)
    else:
        scaled = kernel * tf.cast(scale, kernel.dtype)
    strides, padding = tensor.op.get_attr("strides")[1:3], tensor.op.get_attr("padding").decode()
    outputs = tf.nn.conv2d(inputs, scaled, strides, padding)
    return tf.nn.bias_add(outputs, tf.cast(offset, tensor.dtype))


@_serializable
class ZeroPaddedShortcut(keras.layers.Layer):
    """Parameter-free shortcut: every other pixel, and zeros for the new channels (option A).

    Parameters
    ----------
    filters : int
        Channels of the output, at least those of the input. Half of the new channels go before
        the old ones, half after, as in the CIFAR-10 nets whose weights are published.
    strides : int, default 1
        Keep one pixel in every `strides` rows and columns.
    **kwargs
        `name`, `dtype` and the like of `keras.layers.Layer`.

    Raises
    ------
    ValueError
        On a call whose input has more than `filters` channels.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import ZeroPaddedShortcut
    >>> shortcut = ZeroPaddedShortcut(4, strides=2)
    >>> np.asarray(shortcut(np.ones((1, 2, 2, 2), "float32"))).tolist()
    [[[[0.0, 1.0, 1.0, 0.0]]]]
    """

    def __init__(self, filters, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape):
        if input_shape[-1] > self.filters:
            raise ValueError(
                f"shortcut='A' cannot drop channels: {input_shape[-1]} come in, filters="
                f"{self.filters} go out. Use shortcut='B' for stages that get narrower."
            )

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        kept = (None if size is None else -(-size // self.strides) for size in sizes)
        return (batch, *kept, self.filters)

    def call(self, inputs):
        new = self.filters - inputs.shape[-1]
        # Several times faster than a slice with steps, and so is its gradient.
        kept = ops.average_pool(inputs, 1, self.strides, data_format="channels_last")
        return ops.pad(kept, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


# For every convention: whether RGB becomes BGR, then mean and standard deviation of the channels,
# both on the scale of 0 to 255. "tf" fits any number of channels.
NORMALIZATIONS = {
    "torch": (False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "caffe": (True, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "tf": (False, 127.5, 127.5),
}


@_serializable
class Preprocessing(keras.layers.Layer):
    """Normalize raw images as the weights of a net expect it.

    Computes in float32 whatever the precision of the net, so that no shade is lost.

    Parameters
    ----------
    mode : {"torch", "caffe", "tf"}, default "torch"
        "torch" subtracts the ImageNet mean and divides by its standard deviation; "caffe" turns
        RGB to BGR and subtracts the mean; "tf" scales to -1 ... 1, for any number of channels.
    crop : float, default 1.0
        Part of a photograph's shorter side that the net is to be shown, in the middle. Saved with
        the model for those who prepare its images; images that come here are cropped already.
    **kwargs
        `name` and the like of `keras.layers.Layer`.

    Raises
    ------
    ValueError
        For an unknown mode, a crop out of its range, or images without three channels where the
        mode needs them.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.layers import Preprocessing
    >>> np.asarray(Preprocessing("tf")(np.array([[[0.0, 127.5, 255.0]]]))).tolist()
    [[[-1.0, 0.0, 1.0]]]
    """

    def __init__(self, mode="torch", crop=1.0, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not 0 < crop <= 1:
            raise ValueError(f"crop={crop!r} must be above 0 and at most 1.")
        if mode not in NORMALIZATIONS:
            raise ValueError(
                f"mode={mode!r} must be one of {', '.join(map(repr, NORMALIZATIONS))}."
            )
        self.mode, self.crop = mode, crop

    def build(self, input_shape):
        if self.mode != "tf" and input_shape[-1] != 3:
            raise ValueError(
                f"mode={self.mode!r} needs RGB images, these have {input_shape[-1]} channels: use "
                "mode='tf'."
            )

    def call(self, inputs):
        reverse, mean, deviation = NORMALIZATIONS[self.mode]
        images = ops.cast(inputs, "float32")
        if tf is not None and self.mode != "tf" and len(images.shape) == 4:
            images = tf.convert_to_tensor(images)
            if not _on_accelerator(images):
                return _normalized_at_once(images, reverse, mean, deviation)
        if reverse:
            images = images[..., ::-1]
        return (images - ops.array(mean, "float32")) / ops.array(deviation, "float32")

    def get_config(self):
        return {**super().get_config(), "mode": self.mode, "crop": self.crop}


def _normalized_at_once(images, reverse, mean, deviation):
    """Order, mean and deviation of the channels as one convolution.

    On a CPU that takes a tenth of the time of a slice with the step -1 and two operations more.
    (On an accelerator, a convolution may round its inputs to fewer digits.)
    """
    factors = np.diag(1.0 / np.array(deviation))
    kernel = factors[::-1] if reverse else factors
    offset = -np.array(mean) / np.array(deviation)
    outputs = tf.nn.conv2d(images, kernel[None, None].astype("float32"), 1, "VALID")
    return tf.nn.bias_add(outputs, offset.astype("float32"))
