"""What each layer of a model sees of the image."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from keras_resnet import graphs
from keras_resnet.layers import BlurPool2D, Preprocessing, Thresholds, ZeroPaddedShortcut


@dataclass(frozen=True)
class Window:
    """Which inputs each output sees, along one axis, where nothing is cut off by a border.

    Output `j` sees the inputs from `shift * (j // n) + first[j % n]` to
    `shift * (j // n) + last[j % n]`, n being the length of `first`: behind up-sampling, neighbours
    see different numbers of pixels, and the pattern repeats.

    Parameters
    ----------
    shift : int
        Inputs by which the pattern moves from one repetition to the next.
    first, last : tuple of int
        The first and last input of each output in the pattern, negative in the padding.
    """

    shift: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    def __call__(self, output: int) -> tuple[int, int]:
        """The first and last input that an output sees."""
        repetition, place = divmod(output, len(self.first))
        moved = self.shift * repetition
        return moved + self.first[place], moved + self.last[place]

    @property
    def size(self) -> int:
        """The most inputs that an output sees."""
        return max(last - first + 1 for first, last in zip(self.first, self.last, strict=True))

    def over(self, inner: "Window") -> "Window":
        """The window of this layer behind another one."""
        repetitions = len(inner.first) // math.gcd(len(inner.first), self.shift)
        seen = [self(output) for output in range(repetitions * len(self.first))]
        return Window(
            inner.shift * (repetitions * self.shift // len(inner.first)),
            tuple(inner(first)[0] for first, _ in seen),
            tuple(inner(last)[1] for _, last in seen),
        )

    def joined(self, other: "Window") -> "Window | None":
        """The window of a sum of two; None if their outputs are not equally far apart."""
        if self.shift * len(other.first) != other.shift * len(self.first):
            return None
        length = math.lcm(len(self.first), len(other.first))
        seen = [(*self(output), *other(output)) for output in range(length)]
        return Window(
            self.shift * (length // len(self.first)),
            tuple(min(first, its_first) for first, _, its_first, _ in seen),
            tuple(max(last, its_last) for _, last, _, its_last in seen),
        )


@dataclass(frozen=True)
class ReceptiveField:
    """What the outputs of a layer see of the image.

    Tuples have one entry for each axis of the image: (height, width).

    Parameters
    ----------
    name : str
        The layer; "model/layer" for one of a model inside of the model.
    output_shape : tuple of int or None
        Height and width of its output.
    windows : tuple of Window or None
        Which pixels each output sees; None where every output sees everything.
    """

    name: str
    output_shape: tuple[int | None, ...]
    windows: tuple[Window | None, ...]

    @property
    def size(self) -> tuple[int | None, ...]:
        """Pixels that an output sees, the padding included; None for the whole image.

        From the first to the last pixel: a dilated convolution leaves some out in between.
        """
        return tuple(window and window.size for window in self.windows)

    @property
    def stride(self) -> tuple[float | None, ...]:
        """Pixels between what neighbouring outputs see."""
        return tuple(window and _number(window.shift, len(window.first)) for window in self.windows)

    @property
    def offset(self) -> tuple[int | None, ...]:
        """The first pixel that output 0 sees; negative in the padding."""
        return tuple(None if window is None else window(0)[0] for window in self.windows)

    @property
    def centre(self) -> tuple[float | None, ...]:
        """The middle of what output 0 sees, where pixel 0 is at 0."""
        return tuple(
            None if window is None else _number(sum(window(0)), 2) for window in self.windows
        )

    def region(self, *position: int) -> tuple[tuple[int, int] | None, ...]:
        """What one output sees.

        Parameters
        ----------
        *position : int
            Its row and column.

        Returns
        -------
        tuple of (int, int) or None
            The first and last pixel on each axis, which may lie in the padding.
        """
        return tuple(
            None if window is None else window(place)
            for window, place in zip(self.windows, position, strict=True)
        )


def _number(numerator, denominator):
    """A fraction, as a whole number where it is one."""
    return numerator / denominator if numerator % denominator else numerator // denominator


def receptive_fields(model: keras.Model) -> list[ReceptiveField]:
    """Compute what the outputs of every layer see of the image: size, stride, and where.

    Of several paths to a layer, the field spans all. What behind global pooling, channel attention
    or a normalization over the whole map sees everything is said to. A batch normalization sees its
    pixel, as in inference.

    Parameters
    ----------
    model : keras.Model
        A functional model with one input. Where height or width is None, it is taken for a multiple
        of all strides, on which the place of padding="same" depends.

    Returns
    -------
    list of ReceptiveField
        One for each layer with a map as its output, in the order in which data flow; those of
        models inside of it in their place.

    Raises
    ------
    ValueError
        If the model is not functional, does not begin with one image, or has a layer whose field is
        not known; if it joins maps of different strides.

    References
    ----------
    Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill, 2019.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.analysis import receptive_fields
    >>> fields = {each.name: each for each in receptive_fields(keras_resnet.ResNet18(weights=None))}
    >>> last = fields["conv5_block2_out"]
    >>> last.size, last.stride, last.output_shape
    ((435, 435), (32, 32), (7, 7))
    """
    graphs.check_functional(model)
    if len(model.inputs) != 1 or len(model.inputs[0].shape) < 3:
        shapes = ", ".join(str(each.shape) for each in model.inputs)
        raise ValueError(
            f"model {model.name!r} must begin with one image; its inputs are {shapes}."
        )
    formats = {getattr(layer, "data_format", None) for layer in graphs.flat_layers(model)}
    maps = _Maps(len(model.inputs[0].shape) - 2, "channels_first" in formats)
    found = []
    _walk(model, [(Window(1, (0,), (0,)),) * maps.axes], maps, "", found)
    return found


@dataclass(frozen=True)
class _Maps:
    """How the maps of a model are laid out."""

    axes: int
    channels_first: bool

    def sizes(self, tensor) -> tuple[int | None, ...]:
        """Height and width."""
        return tuple(tensor.shape[2:] if self.channels_first else tensor.shape[1:-1])

    def holds(self, tensor) -> bool:
        """Whether a tensor is a map."""
        return len(tensor.shape) == self.axes + 2

    def without(self, windows, axis, tensor):
        """Windows in which a layer mixes all that lies along an axis, or several."""
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        first = 2 if self.channels_first else 1
        mixed = {each % len(tensor.shape) - first for each in axes}
        return tuple(None if index in mixed else each for index, each in enumerate(windows))


def _walk(model, entering, maps, prefix, found):
    """The windows of a model's outputs, and on the way those of its layers."""
    graph = graphs.plain(model) if isinstance(model, keras.Sequential) else model
    windows = {id(each): its for each, its in zip(graph.inputs, entering, strict=True)}
    for node in _nodes(graph):
        layer, inputs, outputs = node.operation, node.input_tensors, node.outputs
        before = [windows[id(each)] for each in inputs]
        if isinstance(layer, keras.Model):
            after = _walk(layer, before, maps, f"{prefix}{layer.name}/", found)
        else:
            after = [_after(layer, inputs, outputs, before, maps)] * len(outputs)
            if maps.holds(outputs[0]):
                name = f"{prefix}{layer.name}"
                found.append(ReceptiveField(name, maps.sizes(outputs[0]), after[0]))
        windows |= {id(each): its for each, its in zip(outputs, after, strict=True)}
    return [windows[id(each)] for each in graph.outputs]


def _nodes(graph) -> Iterator[Any]:
    """The calls of a model's layers, in the order in which data flow."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def _after(layer, inputs, outputs, before, maps):
    """The windows of the outputs of a layer."""
    everything = (None,) * maps.axes
    if all(windows == everything for windows in before) or not maps.holds(outputs[0]):
        return everything  # whatever the layer does
    kind = next((kind for kind in _KINDS if isinstance(layer, kind.layers)), None)
    if kind is None and _is_function(layer):
        kind = _PIXELWISE
    if kind is None:
        raise ValueError(
            f"layer {layer.name!r}: the receptive field of {type(layer).__name__} is not known. "
            "Pass a model that ends before it."
        )
    if kind is _EVERYTHING:
        return everything
    if kind is _ALONG_AN_AXIS:
        return maps.without(before[0], getattr(layer, "axis", -1), inputs[0])
    own = kind.windows and kind.windows(layer, maps.sizes(inputs[0]))
    if own is None:
        return _joined(layer, inputs, outputs, before, maps)
    return tuple(inner and outer.over(inner) for outer, inner in zip(own, before[0], strict=True))


def _joined(layer, inputs, outputs, before, maps):
    """Windows over those of several inputs, of which one place makes one place."""
    everything = (None,) * maps.axes
    sizes = {
        maps.sizes(tensor)
        for tensor, windows in zip([*inputs, *outputs], [*before, None], strict=True)
        if windows != everything
    }
    joined = before[0]
    for windows in before[1:]:
        joined = tuple(
            first and other and first.joined(other)
            for first, other in zip(joined, windows, strict=True)
        )
    lost = any(
        window is None and all(each[axis] for each in before) for axis, window in enumerate(joined)
    )
    if len(sizes) > 1 or lost:
        together = " and ".join(sorted(map(str, sizes)))
        raise ValueError(
            f"layer {layer.name!r} joins maps of different sizes or strides: it is not known what "
            f"{together} see. Pass a model that ends before it."
        )
    return joined


def _is_function(layer):
    """Whether something in a graph is a function of `keras.ops` from pixel to pixel."""
    return (
        type(layer).__module__.startswith("keras.src.ops.") and type(layer).__name__ in _FUNCTIONS
    )


# What each kind of layer sees of its input: a window for each axis, of the layer and the input's
# height and width.


def _sliding(kernel, stride, dilation=1, before=0):
    """A window that slides over the input, with so much padding before it."""
    return Window(stride, (-before,), ((kernel - 1) * dilation - before,))


def _convolution(layer, sizes):
    return [
        _sliding(kernel, stride, dilation, _padding(layer, axis, size, kernel, stride, dilation))
        for axis, (size, kernel, stride, dilation) in enumerate(
            zip(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
        )
    ]


def _pooling(layer, sizes):
    return [
        _sliding(kernel, stride, 1, _padding(layer, axis, size, kernel, stride))
        for axis, (size, kernel, stride) in enumerate(
            zip(sizes, _each(layer.pool_size, sizes), _each(layer.strides, sizes), strict=True)
        )
    ]


def _padding(layer, axis, size, kernel, stride, dilation=1):
    """Zeros before the input."""
    if explicit := getattr(layer, "explicit_padding", None):
        return explicit[axis][0]
    if layer.padding == "causal":
        return (kernel - 1) * dilation
    if layer.padding == "valid":
        return 0
    # An unknown size is a multiple of the stride.
    over = stride if size is None or size % stride == 0 else size % stride
    return max((kernel - 1) * dilation + 1 - over, 0) // 2


def _transposed_convolution(layer, sizes):
    """Output j sees the inputs i for which i * stride + tap - before is j."""
    if max(layer.dilation_rate) > 1 or layer.output_padding is not None:
        raise ValueError(
            f"layer {layer.name!r}: the receptive field of a transposed convolution with "
            "dilation_rate or output_padding is not known."
        )
    windows = []
    for kernel, stride in zip(layer.kernel_size, layer.strides, strict=True):
        if kernel < stride:
            raise ValueError(
                f"layer {layer.name!r}: kernel_size={layer.kernel_size} is below strides="
                f"{layer.strides}, so that some outputs see nothing."
            )
        before = (kernel - stride) // 2 if layer.padding == "same" else 0
        places = [place + before for place in range(stride)]
        first = tuple(-((kernel - 1 - place) // stride) for place in places)
        windows.append(Window(1, first, tuple(place // stride for place in places)))
    return windows


def _upsampling(layer, sizes):
    """Nearest pixels, or a line between the two around the place."""
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(
            f"layer {layer.name!r}: the receptive field of interpolation={interpolation!r} is "
            "not known; those of 'nearest' and 'bilinear' are."
        )
    windows = []
    for factor in _each(layer.size, sizes):
        first = last = (0,) * factor
        if interpolation == "bilinear":
            places = [(2 * place + 1 - factor, 2 * factor) for place in range(factor)]
            first = tuple(above // below for above, below in places)
            last = tuple(-(-above // below) for above, below in places)
        windows.append(Window(1, first, last))
    return windows


def _zero_padding(layer, sizes):
    return [_sliding(1, 1, 1, before) for before, _ in _pairs(layer.padding)]


def _cropping(layer, sizes):
    return [_sliding(1, 1, 1, -before) for before, _ in _pairs(layer.cropping)]


def _pairs(amounts):
    """(before, after) of each axis, of which Keras' layers of one axis have only one."""
    return amounts if isinstance(amounts[0], (tuple, list)) else [amounts]


def _each(amount, sizes):
    """An amount for each axis, of which Keras' layers of one axis may have a number."""
    return (amount,) * len(sizes) if isinstance(amount, int) else tuple(amount)


class _Kind(NamedTuple):
    """Layers that look at their input in the same way."""

    layers: tuple[type, ...]
    windows: Callable[[Any, tuple[int | None, ...]], Sequence[Window]] | None = None


_keras = keras.layers

# Every output sees everything.
_EVERYTHING = _Kind(
    (
        *(_keras.GlobalAveragePooling1D, _keras.GlobalAveragePooling2D),
        *(_keras.GlobalAveragePooling3D, _keras.GlobalMaxPooling1D),
        *(_keras.GlobalMaxPooling2D, _keras.GlobalMaxPooling3D),
        _keras.GroupNormalization,
    )
)
# Every output sees all that lies along the layer's axis, which may be that of the channels alone.
_ALONG_AN_AXIS = _Kind(
    (
        *(_keras.LayerNormalization, _keras.RMSNormalization, _keras.UnitNormalization),
        *(_keras.Softmax, _keras.Dense),
    )
)
# Every output sees the pixels of its place.
_PIXELWISE = _Kind(
    (
        *(_keras.Add, _keras.Average, _keras.Concatenate, _keras.Maximum, _keras.Minimum),
        *(_keras.Multiply, _keras.Subtract),
        *(_keras.Activation, _keras.ELU, _keras.LeakyReLU, _keras.PReLU, _keras.ReLU),
        *(_keras.BatchNormalization, _keras.Normalization, _keras.Rescaling),
        *(_keras.ActivityRegularization, _keras.AlphaDropout, _keras.Dropout),
        *(_keras.GaussianDropout, _keras.GaussianNoise, _keras.Identity),
        *(_keras.SpatialDropout1D, _keras.SpatialDropout2D, _keras.SpatialDropout3D),
        *(Preprocessing, Thresholds),
    )
)
_FUNCTIONS = {
    *("Absolute", "Add", "Clip", "Divide", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"),
    *("Maximum", "Minimum", "Multiply", "Negative", "Relu", "Relu6", "Sigmoid", "Silu", "Sqrt"),
    *("Square", "Subtract", "Tanh", "TrueDivide"),
}

_KINDS = (
    _Kind(
        (_keras.Conv1DTranspose, _keras.Conv2DTranspose, _keras.Conv3DTranspose),
        _transposed_convolution,
    ),
    _Kind(
        (
            *(_keras.Conv1D, _keras.Conv2D, _keras.Conv3D),
            *(_keras.DepthwiseConv1D, _keras.DepthwiseConv2D),
            *(_keras.SeparableConv1D, _keras.SeparableConv2D),
        ),
        _convolution,
    ),
    _Kind(
        (
            *(_keras.MaxPooling1D, _keras.MaxPooling2D, _keras.MaxPooling3D),
            *(_keras.AveragePooling1D, _keras.AveragePooling2D, _keras.AveragePooling3D),
        ),
        _pooling,
    ),
    _Kind((_keras.ZeroPadding1D, _keras.ZeroPadding2D, _keras.ZeroPadding3D), _zero_padding),
    _Kind((_keras.Cropping1D, _keras.Cropping2D, _keras.Cropping3D), _cropping),
    _Kind((_keras.UpSampling1D, _keras.UpSampling2D, _keras.UpSampling3D), _upsampling),
    _Kind((BlurPool2D,), lambda layer, sizes: [_sliding(3, layer.strides, before=1)] * 2),
    _Kind((ZeroPaddedShortcut,), lambda layer, sizes: [_sliding(1, layer.strides)] * 2),
    _EVERYTHING,
    _ALONG_AN_AXIS,
    _PIXELWISE,
)
