"""The paper's table 1 for any net: what each stage has and costs."""

import math
import re
from dataclasses import dataclass

import keras


@dataclass
class StageComplexity:
    """One stage of a net.

    Parameters
    ----------
    name : str
        "conv1" ... "conv5", "head" for what follows.
    output_shape : tuple
        Shape of one image's features after the stage.
    layers : int
        Convolutions and dense layers on the main path: the layers that count as depth.
    parameters : int
        Trainable parameters, those of shortcuts included.
    macs : int
        Multiply-adds of convolutions and dense layers for one image.
    """

    name: str
    output_shape: tuple[int | None, ...] = ()
    layers: int = 0
    parameters: int = 0
    macs: int = 0


def complexity(model: keras.Model) -> list[StageComplexity]:
    """Count layers, parameters and multiply-adds of a net, stage by stage.

    Parameters
    ----------
    model : keras.Model
        A functional model with a known image size. Layers outside of the stages of this package's
        nets count as "head".

    Returns
    -------
    list of StageComplexity
        In the order of the data's flow.

    Raises
    ------
    ValueError
        If height or width of the input are not known, or the model wraps another.

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
            "the net for one, for example input_shape=(224, 224, 3)."
        )
    stages = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) or layer.name == "preprocessing":
            continue
        if isinstance(layer, keras.Model):
            raise ValueError(f"{model.name} wraps {layer.name} as one layer: ask for that layer.")
        match = re.match(r"(conv|pool)(\d+)_", layer.name)
        # The max-pooling of the stem is the first step of conv2 in the paper's table.
        name = f"conv{int(match[2]) + (match[1] == 'pool')}" if match else "head"
        stage = stages.setdefault(name, StageComplexity(name))
        stage.output_shape = tuple(layer.output.shape[1:])
        stage.parameters += sum(math.prod(weight.shape) for weight in layer.trainable_weights)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            positions = math.prod(layer.output.shape[1:-1])
            stage.macs += positions * math.prod(layer.kernel.shape)
            stage.layers += not layer.name.endswith("_0_conv")
    return list(stages.values())
