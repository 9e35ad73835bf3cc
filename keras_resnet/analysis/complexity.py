"""The paper's table 1 for any model: the size and cost of each stage."""

import collections
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from keras_resnet import graphs


@dataclass
class StageComplexity:
    """One stage of a model.

    Parameters
    ----------
    name : str
        "conv1" ... "conv5"; "head" for what follows. Other models have other names.
    output_shape : tuple
        Shape of an image's features after the stage.
    layers : int
        Convolutions and dense layers on the main path: those that count as depth. Neither those of
        shortcuts nor those of channel attention do.
    parameters : int
        Trainable parameters, including those of shortcuts and attention.
    macs : int
        Multiply-adds per image of convolutions, also grouped, depthwise, separable and transposed
        ones, and of dense layers.
    """

    name: str
    output_shape: tuple[int | None, ...] = ()
    layers: int = 0
    parameters: int = 0
    macs: int = 0


@dataclass(frozen=True)
class StageComparison:
    """What two models do at the same size of map.

    Parameters
    ----------
    output_size : tuple of int or None
        Height and width after it; () for what has no map.
    stage, other : StageComplexity or None
        Those of each model that end at this size, summed; None if it has none.
    """

    output_size: tuple[int | None, ...]
    stage: StageComplexity | None
    other: StageComplexity | None

    @property
    def fraction(self) -> float | None:
        """Multiply-adds of the first for each of the second."""
        if self.stage is None or self.other is None or not self.other.macs:
            return None
        return self.stage.macs / self.other.macs


# Names of convolutions on shortcuts, and of those of channel attention.
_BESIDE = re.compile(r"_(0|se_\d|eca)_conv$")

# Names of layers that say which stage they are of. The max-pooling of the stem is the first step of
# conv2 in the paper's table. VGG, EfficientNet and Xception have blocks, ConvNeXt has stages.
_NAMED = re.compile(
    r"(?P<conv>conv)(\d+)(?=_|$)|(?P<pool>pool)(\d+)(?=_|$)|(?P<block>block)(\d+)[a-z]?(?=_)"
    r"|(?:.*_)?(?P<stage>stage)_?(\d+)(?=_)",
    re.IGNORECASE,
)


def complexity(model: keras.Model) -> list[StageComplexity]:
    """Count layers, parameters and multiply-adds of a model, stage by stage.

    Parameters
    ----------
    model : keras.Model
        A functional model with a known image size. Its stages are those that the names of its
        layers tell, as they do in this package and in VGG, EfficientNet, DenseNet, ... of
        `keras.applications`: "conv2", "block1", with a "stem" before and a "head" behind them. In
        other models, they are the layers whose maps are as many times smaller than the image:
        "stride 2", "stride 4", ...

    Returns
    -------
    list of StageComplexity
        In the order in which data flow through them.

    Raises
    ------
    ValueError
        If the model is not functional, the height or width of the input is not known, the model
        contains another, or another kind of layer has a kernel.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.analysis import complexity
    >>> stages = complexity(keras_resnet.ResNet18(weights=None))
    >>> [stage.layers for stage in stages], round(sum(stage.macs for stage in stages) / 1e9, 2)
    ([1, 4, 4, 4, 4, 1], 1.81)
    """
    graphs.check_functional(model)
    if None in model.input_shape[1:]:
        raise ValueError(
            f"input_shape={model.input_shape[1:]}: multiply-adds depend on the image size. Build "
            "the model for a fixed one, such as input_shape=(224, 224, 3)."
        )
    calls = collections.defaultdict(list)
    graph = graphs.plain(model) if isinstance(model, keras.Sequential) else model
    for node in itertools.chain.from_iterable(graph._nodes_by_depth.values()):
        calls[node.operation].append(node)
    stages = {}
    for layer, name in _stages(model, calls).items():
        if isinstance(layer, keras.Model):
            raise ValueError(f"{model.name} contains the model {layer.name}: pass that one.")
        stage = stages.setdefault(name, StageComplexity(name))
        if not isinstance(layer, keras.layers.ZeroPadding2D):  # which is for what follows
            stage.output_shape = tuple(calls[layer][-1].outputs[0].shape[1:])
        stage.parameters += sum(math.prod(weight.shape) for weight in layer.trainable_weights)
        for node in calls[layer]:
            macs = _macs(layer, node.input_tensors[0].shape, node.outputs[0].shape)
            stage.macs += macs
            stage.layers += macs > 0 and not _BESIDE.search(layer.name)
    return list(stages.values())


def total(stages: Sequence[StageComplexity], name: str = "total") -> StageComplexity:
    """Sum stages up.

    Parameters
    ----------
    stages : sequence of StageComplexity
        Such as `complexity` counts.
    name : str, default "total"
        What to call the sum.

    Returns
    -------
    StageComplexity
        With the output of the last one.

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> from keras_resnet.analysis import planned, total
    >>> total(planned(zoo.architecture("ResNet101"))).layers
    101
    """
    return StageComplexity(
        name,
        stages[-1].output_shape if stages else (),
        sum(stage.layers for stage in stages),
        sum(stage.parameters for stage in stages),
        sum(stage.macs for stage in stages),
    )


def compare(
    stages: Sequence[StageComplexity], others: Sequence[StageComplexity]
) -> list[StageComparison]:
    """Put the stages of two models side by side: those that end at the same size of map.

    Parameters
    ----------
    stages, others : sequence of StageComplexity
        What `complexity` or `planned` counts in each, for images of the same size.

    Returns
    -------
    list of StageComparison
        From the largest map to the head.

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> from keras_resnet.analysis import compare, planned
    >>> of_34, of_18 = (planned(zoo.architecture(f"ResNet{depth}")) for depth in (34, 18))
    >>> [(each.stage.name, each.fraction) for each in compare(of_34, of_18)[:2]]
    [('conv1', 1.0), ('conv2', 1.5)]
    """
    by_size = [collections.defaultdict(list), collections.defaultdict(list)]
    for found, each_of in zip(by_size, (stages, others), strict=True):
        for stage in each_of:
            found[stage.output_shape[:-1]].append(stage)
    sizes = sorted({*by_size[0], *by_size[1]}, key=math.prod, reverse=True)
    return [
        StageComparison(
            size,
            *(
                total(found[size], ", ".join(stage.name for stage in found[size]))
                if size in found
                else None
                for found in by_size
            ),
        )
        for size in sorted(sizes, key=lambda size: not size)
    ]


def _stages(model, calls):
    """The stage of each layer of a model."""
    layers = [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer) and layer.name != "preprocessing"
    ]
    kernels = [layer for layer in layers if _kernels(layer)]
    by_name = 2 * sum(_named(layer) is not None for layer in kernels) > len(kernels)
    found = [
        _named(layer) if by_name else _of_stride(model, calls[layer][-1].outputs[0].shape)
        for layer in layers
    ]
    known = [index for index, name in enumerate(found) if name is not None]
    first = known[0] if known else 0
    stages, former = {}, "stem" if {*kernels} & {*layers[:first]} else found and found[first]
    for index, (layer, name) in enumerate(zip(layers, found, strict=True)):
        # What closes the last stage of pre-activation blocks belongs to it.
        ended = not known or (index > known[-1] and not layer.name.startswith("post_"))
        former = "head" if ended else name or former
        stages[layer] = former
    return stages


def _named(layer):
    """The stage that the name of a layer tells, if it does."""
    match = _NAMED.match(layer.name)
    if not match:
        return None
    ((kind, _),) = ((kind, its) for kind, its in match.groupdict().items() if its)
    number = int(next(each for each in match.groups() if each and each.isdigit()))
    return f"conv{number + 1}" if kind == "pool" else f"{kind}{number}"


def _of_stride(model, shape):
    """How many times smaller than the image a map is, as a power of 2; None for a single pixel."""
    if len(shape) != 4 or len(model.input_shape) != 4 or math.prod(shape[1:3]) == 1:
        return None
    stride = max(
        image / size for image, size in zip(model.input_shape[1:3], shape[1:3], strict=True)
    )
    return f"stride {2 ** round(math.log2(stride))}"


def _kernels(layer):
    """The kernels of a layer."""
    return [weight for weight in layer.weights if weight.name.endswith("kernel")]


# Layers whose kernel is applied at every position of the output, and of the input.
_OF_OUTPUTS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
)
_OF_INPUTS = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def _macs(layer, inputs, outputs):
    """Multiply-adds of one call of a layer."""
    kernels = _kernels(layer)
    if not kernels:
        return 0
    if not isinstance(layer, _OF_OUTPUTS + _OF_INPUTS):
        raise ValueError(
            f"layer {layer.name!r}: the multiply-adds of {type(layer).__name__} are not known; "
            "those of convolutions and dense layers are."
        )
    _, *shape = inputs if isinstance(layer, _OF_INPUTS) else outputs
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    positions = shape[1:] if channels_first else shape[:-1]
    return math.prod(positions) * sum(math.prod(kernel.shape) for kernel in kernels)
