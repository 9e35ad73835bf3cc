"""Grouped convolutions that train on a CPU."""

import functools
import operator
from collections.abc import Iterable

import keras
from keras import ops

from keras_resnet.layers.devices import gains_from_xla, on_accelerator, serializable, tf

# oneDNN convolves in blocks of 16 channels. Narrower groups are put together until they fill one
# block: measured fastest, in float32 and bfloat16, for every stage of ResNeXt-50.
_CHANNELS_PER_FILTER_GRADIENT = 16


@serializable
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


def _differentiates_groups(tensor):
    """Whether TensorFlow has the gradients of a grouped convolution of `tensor`.

    Accelerators do. On CPUs oneDNN brings them, for some types, where TensorFlow was built with it
    and it is not switched off.
    """
    return on_accelerator(tensor) or _onednn_differentiates_groups(tensor.dtype)


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
