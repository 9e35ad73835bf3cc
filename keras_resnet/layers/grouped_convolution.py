"""Grouped and dilated convolutions that train on a CPU."""

import functools
import math
import operator
from collections.abc import Iterable

import keras
from keras import ops

from keras_resnet.layers.devices import gains_from_xla, on_accelerator, serializable, tf

# oneDNN convolves in blocks of 16 channels. Joining narrower groups until they fill one block was
# measured fastest, in float32 and bfloat16, for every stage of ResNeXt-50.
_CHANNELS_PER_FILTER_GRADIENT = 16


@serializable
class GroupedConv2D(keras.layers.Conv2D):
    """2D convolution with groups that trains on a CPU and never goes through XLA.

    Takes the arguments of `keras.layers.Conv2D` and computes the same. On the TensorFlow backend
    Keras compiles a grouped convolution with XLA, as TensorFlow's own CPU kernels have no gradient
    for it. That makes training two orders of magnitude slower, and puts functions into a SavedModel
    that TensorFlow Serving refuses to run. This layer calls TensorFlow's grouped kernel directly.
    The gradient is that of oneDNN, which TensorFlow uses on most CPUs, or of the accelerator. Where
    neither has one, the layer brings its own: the input gradient is another grouped convolution,
    the filter gradient a few ordinary ones. Second derivatives work; `GradientTape.jacobian` with
    respect to the kernel needs `experimental_use_pfor=False`. On other backends the layer is
    `keras.layers.Conv2D`.

    Strides that differ, such as (1, 2), take a detour that is right on every CPU, as TensorFlow's
    own kernels are not; see the notes below.

    On a CPU `model.compile` does not choose XLA for a model with this layer.

    Parameters
    ----------
    filters : int
        Output channels; a multiple of `groups`.
    kernel_size : int or pair of int
        Height and width of the kernel in pixels.
    strides : int or pair of int, default 1
        Vertical and horizontal step of the kernel in pixels.
    padding : {"valid", "same"}, int, pair of int or pair of pairs, default "valid"
        A name as in Keras, or the rows and columns of zeros to add: one number for every side,
        (vertical, horizontal), or ((top, bottom), (left, right)). `padding=1` with a 3x3 kernel is
        what PyTorch calls `padding=1`, which differs from "same" where the stride is not 1.
    data_format : None or "channels_last", default None
        Order of the axes; None follows the Keras configuration.
    dilation_rate : int or pair of int, default 1
        Distance between the kernel's taps in pixels; where it is not 1, `strides` must be.
    groups : int, default 1
        Number of groups (the cardinality of a ResNeXt block).
    **kwargs
        Other arguments of `keras.layers.Conv2D`: `use_bias`, `kernel_initializer`, ...

    Raises
    ------
    ValueError
        If the channels are not divisible by `groups`, if `padding` is none of the above, for
        channels first, or for a dilated convolution with a stride.

    Notes
    -----
    On CPUs with AMX, TensorFlow's convolution gives wrong values, even NaN, for some kernels whose
    two strides differ. Such a layer therefore convolves with the greatest common divisor of the
    strides in both directions, and keeps the outputs that were asked for.

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

    def convolution_op(self, inputs, kernel):
        if self.explicit_padding:
            inputs = ops.pad(inputs, ((0, 0), *self.explicit_padding, (0, 0)))
        down, across = self.strides
        dilated = max(self.dilation_rate) > 1
        if tf is None or (self.groups == 1 and down == across and not dilated):
            return super().convolution_op(inputs, kernel)
        inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
        padding = self.padding.upper()
        if padding == "SAME" and (
            max(self.strides) > 1 or not all(size % 2 for size in self.kernel_size)
        ):
            # oneDNN also has wrong gradients for taps that see nothing but such padding.
            reach = [
                (size - 1) * rate + 1
                for size, rate in zip(self.kernel_size, self.dilation_rate, strict=True)
            ]
            inputs, padding = _pad_same(inputs, reach, self.strides), "VALID"
        if dilated:
            return _dilated_convolution(inputs, kernel, self.groups, self.dilation_rate, padding)
        if down == across:
            return _convolution(inputs, kernel, self.groups, down, padding)
        step = math.gcd(down, across)
        outputs = _convolution(inputs, kernel, self.groups, step, padding)
        return outputs[:, :: down // step, :: across // step]

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


def _convolution(inputs, kernel, groups, stride, padding):
    """TensorFlow's convolution, with its gradients or ours."""
    if groups == 1 or on_accelerator(inputs) or _onednn_differentiates(inputs.dtype):
        return tf.nn.conv2d(inputs, kernel, stride, padding)
    return _grouped_convolution(inputs, kernel, groups, stride, padding)


def _dilated_convolution(inputs, kernel, groups, rates, padding):
    """TensorFlow's dilated convolution, or the same as a convolution without dilation.

    Pixels `rates` apart become images of their own, which an ordinary convolution takes at once.
    """
    if on_accelerator(inputs) or _onednn_differentiates(inputs.dtype, rates):
        return tf.nn.conv2d(inputs, kernel, 1, padding, dilations=rates)
    return tf.compat.v1.nn.with_space_to_batch(
        inputs,
        rates,
        padding,
        lambda images, _, padding: _convolution(images, kernel, groups, 1, padding),
        filter_shape=kernel.shape,
    )


@functools.cache
def _onednn_differentiates(dtype, rates=(1, 1)):
    """Whether this TensorFlow has CPU gradients of grouped convolutions; tells by trying.

    oneDNN has them for some types, and those of dilated ones, if TensorFlow was built with it and
    it is not switched off.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        try:
            tf.raw_ops.Conv2DBackpropFilter(
                input=tf.zeros((1, 1, 1, 4), dtype),
                filter_sizes=(1, 1, 2, 4),
                out_backprop=tf.zeros((1, 1, 1, 4), dtype),
                strides=(1, 1, 1, 1),
                dilations=(1, *rates, 1),
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


def _grouped_convolution(inputs, kernel, groups, stride, padding):
    """Grouped convolution whose gradient needs no grouped gradient kernel.

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
                spread = _spread(upstream, tf.shape(inputs), kernel.shape, stride)
            # The gradient is itself a grouped convolution, and so differentiable the same way.
            input_gradient = _grouped_convolution(spread, transposed, groups, 1, padding)
            input_gradient = tf.ensure_shape(input_gradient, inputs.shape)
            return input_gradient, _filter_gradient(
                inputs, kernel.shape, upstream, groups, stride, padding
            )

        outputs = tf.nn.conv2d(inputs, kernel, stride, padding)
        # Without oneDNN, TensorFlow would fuse a bias into a kernel that refuses groups. This stops
        # it.
        return tf.ensure_shape(outputs, outputs.shape), gradient

    return convolve(inputs, kernel)


def _transpose_groups(kernel, groups):
    """Flip the kernel and swap the incoming and outgoing channels of every group."""
    height, width, channels, filters = kernel.shape
    kernel = tf.reshape(tf.reverse(kernel, [0, 1]), (height, width, channels, groups, -1))
    kernel = tf.transpose(kernel, (0, 1, 4, 3, 2))
    return tf.reshape(kernel, (height, width, filters // groups, groups * channels))


def _spread(upstream, input_shape, kernel_shape, stride):
    """Space the incoming gradient `stride` pixels apart, ready for a "VALID" convolution.

    The result is `kernel - 1` rows higher and columns wider than the input of the convolution.
    """
    batch, height, width, channels = tf.unstack(tf.shape(upstream))
    kernel_height, kernel_width = kernel_shape[:2]
    if stride > 1:
        upstream = tf.reshape(upstream, (batch, height, 1, width, 1, channels))
        between = (0, stride - 1)
        upstream = tf.pad(upstream, ((0, 0), (0, 0), between, (0, 0), between, (0, 0)))
        height, width = height * stride, width * stride
        upstream = tf.reshape(upstream, (batch, height, width, channels))
    bottom = tf.maximum(input_shape[1] - height, 0)
    right = tf.maximum(input_shape[2] - width, 0)
    upstream = tf.pad(
        upstream, [[0, 0], [kernel_height - 1, bottom], [kernel_width - 1, right], [0, 0]]
    )
    if min(kernel_height, kernel_width) < stride:
        # A stride longer than the kernel has put zeros beyond the last input that was seen.
        upstream = upstream[
            :, : input_shape[1] + kernel_height - 1, : input_shape[2] + kernel_width - 1
        ]
    return upstream


def _filter_gradient(inputs, kernel_shape, upstream, groups, stride, padding):
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
            strides=(1, stride, stride, 1),
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
