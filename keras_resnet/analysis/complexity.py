"""The paper's table 1 for any model: the size and cost of each stage."""

import collections
import itertools
import math
import re
from dataclasses import dataclass

import keras

from keras_resnet import graphs


@dataclass
class StageComplexity:
    """One stage of a model.

    Parameters
    ----------
    name : str
        "conv1" ... "conv5"; "head" for what follows.
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


# Names of convolutions on shortcuts, and of those of channel attention.
_BESIDE = re.compile(r"_(0|se_\d|eca)_conv$")


def complexity(model: keras.Model) -> list[StageComplexity]:
    """Count layers, parameters and multiply-adds of a model, stage by stage.

    Parameters
    ----------
    model : keras.Model
        A functional model with a known image size. Layers outside of the stages of this package's
        models count as "head".

    Returns
    -------
    list of StageComplexity
        In the order in which data flow through them.

    Raises
    ------
    ValueError
        If the height or width of the input is not known, the model contains another, or another
        kind of layer has a kernel.

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
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) or layer.name == "preprocessing":
            continue
        if isinstance(layer, keras.Model):
            raise ValueError(f"{model.name} contains the model {layer.name}: pass that one.")
        match = re.match(r"(conv|pool)(\d+)_", layer.name)
        # The max-pooling of the stem is the first step of conv2 in the paper's table.
        name = f"conv{int(match[2]) + (match[1] == 'pool')}" if match else "head"
        if layer.name.startswith("post_") and stages:
            name = next(reversed(stages))  # what closes the last stage of pre-activation blocks
        stage = stages.setdefault(name, StageComplexity(name))
        stage.output_shape = tuple(calls[layer][-1].outputs[0].shape[1:])
        stage.parameters += sum(math.prod(weight.shape) for weight in layer.trainable_weights)
        for node in calls[layer]:
            macs = _macs(layer, node.input_tensors[0].shape, node.outputs[0].shape)
            stage.macs += macs
            stage.layers += macs > 0 and not _BESIDE.search(layer.name)
    return list(stages.values())


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
    kernels = [weight for weight in layer.weights if weight.name.endswith("kernel")]
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
