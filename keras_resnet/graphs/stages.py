"""The stages of a model: the layers between the strides that make its feature maps smaller."""

import itertools
import re

import keras

from keras_resnet.graphs.heads import POOLING, head_of
from keras_resnet.graphs.structure import check_functional, flat_layers, is_functional, plain

# Strides of these make maps larger.
_UPWARDS = (keras.layers.Conv2DTranspose, keras.layers.UpSampling2D)


def stages_of(model: keras.Model) -> tuple[tuple[keras.Layer, ...], ...]:
    """Find the stages of a model: a new one begins where a stride makes the feature map smaller.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, of this package or any other.

    Returns
    -------
    tuple of tuple of layers
        Each stage's layers, in order; those of nested models in their place. Stages without
        weights belong to the one before, and the head to none.

    Raises
    ------
    ValueError
        If the model is not functional or has several outputs.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> stages = graphs.stages_of(keras_resnet.CIFARResNet(8))
    >>> [next(layer.name for layer in stage if layer.weights) for stage in stages]
    ['conv1_conv', 'conv3_block1_1_conv', 'conv4_block1_1_conv']
    """
    check_functional(model)
    levels = {}
    _walk(model, [0] * len(model.inputs), levels)
    head, stages, reached = set(head_of(model).layers), [[]], 0
    for layer in flat_layers(model):
        level = levels.get(layer)
        if level is not None and level > reached:
            reached = level
            stages.append([])
        if layer not in head:
            stages[-1].append(layer)
    found = stages[:1]
    for stage in stages[1:]:
        both_learn = all(any(layer.weights for layer in each) for each in (found[-1], stage))
        found = [*found, stage] if both_learn else [*found[:-1], [*found[-1], *stage]]
    return tuple(map(tuple, found))


def _walk(model, entering, levels):
    """Count the strides before each output of a model: None for what is not a feature map.

    The counts of its layers go into `levels`.
    """
    model = plain(model) if isinstance(model, keras.Sequential) else model
    known = {id(each): level for each, level in zip(model.inputs, entering, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            found = [known.get(id(each)) for each in node.input_tensors]
            if is_functional(node.operation):
                leaving = _walk(node.operation, found, levels)
            else:
                level = _after(node, [each for each in found if each is not None])
                levels.setdefault(node.operation, level)
                leaving = [level] * len(node.outputs)
            known.update(zip(map(id, node.outputs), leaving, strict=True))
    return [known.get(id(each)) for each in model.outputs]


def _after(node, before):
    """Count the strides before the output of a layer; None for what is not a feature map."""
    layer = node.operation
    # Pooled maps within a block, which say what channels to excite, do not make a stage.
    if not before or isinstance(layer, POOLING) or len(node.outputs[0].shape) != 4:
        return None
    strides = getattr(layer, "strides", 1)
    larger = max(strides if isinstance(strides, tuple | list) else (strides,)) > 1
    return max(before) + (larger and not isinstance(layer, _UPWARDS))


def last_stage(model: keras.Model) -> tuple[keras.Layer, ...]:
    """Find the layers of a model's last stage.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.

    Returns
    -------
    tuple of layers
        In order, without those of the head.

    Raises
    ------
    ValueError
        As `stages_of` does, and if neither strides nor names tell stages apart.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> graphs.last_stage(keras_resnet.CIFARResNet(8))[0].name
    'conv4_block1_1_conv'
    """
    *before, last = stages_of(model)
    if before:
        return last
    # A model of this package without strides.
    named = [each for each in last if re.match(r"conv\d+_block", each.name)]
    if not named:
        raise ValueError(
            f"{model.name} has no strides that would divide it into stages: give the name of the "
            "first layer that is to learn."
        )
    name = stage_name(named[-1])
    return tuple(itertools.dropwhile(lambda layer: stage_name(layer) != name, last))


def stage_name(layer: keras.Layer) -> str:
    """Tell a layer's stage by its name, as models of this package have it.

    Parameters
    ----------
    layer : keras.Layer
        A layer of a stage.

    Returns
    -------
    str
        What the names of all layers of the stage begin with, such as "conv4".
    """
    return layer.name.partition("_")[0]
