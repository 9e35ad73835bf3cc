"""What the parts of a detector cost: layers, parameters and multiply-adds."""

import re
from dataclasses import replace

import keras

from keras_resnet import analysis
from keras_resnet.analysis import StageComplexity
from keras_resnet.detection.faster_rcnn import parts_of
from keras_resnet.detection.transform import resized_sizes
from keras_resnet.layers.view import sides


def complexity(
    model: keras.Model,
    image_size: int | tuple[int, int] | None = None,
    proposals: int | None = None,
) -> list[StageComplexity]:
    """Count layers, parameters and multiply-adds of a detector, part by part.

    Parameters
    ----------
    model : keras.Model
        A detector.
    image_size : int or tuple of (int, int), optional
        Height and width of the image that comes in, which the detector resizes. Default: the
        longest sides that it resizes to, `min_size` and `max_size`.
    proposals : int, optional
        Proposals of the image, on each of which the box head runs. Default: as many as there are at
        most, `rpn_post_nms_top_n_test`.

    Returns
    -------
    list of StageComplexity
        "conv1" and so on of the backbone, "fpn", "rpn", and "box_head", after the last stage of the
        backbone where that runs on proposals. Multiply-adds are those of an image with all of its
        proposals; output shapes are those of one proposal. Anchors, NMS and RoIAlign, whose
        multiply-adds are few, are not counted.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet50(weights=None, include_top=False)
    >>> model = detection.FasterRCNN(backbone, 90, "c4", min_size=600, max_size=1000)
    >>> stages = detection.complexity(model, (600, 800), proposals=300)
    >>> {stage.name: round(stage.macs / 1e9) for stage in stages}
    {'conv1': 1, 'conv2': 6, 'conv3': 10, 'conv4': 14, 'rpn': 18, 'conv5': 243, 'box_head': 0}
    """
    parts = parts_of(model)
    options = parts.options
    size = (options.min_size, options.max_size) if image_size is None else sides(image_size)
    resized = resized_sizes([size], options.min_size, options.max_size)[0]
    divisor = parts.transform.divisor
    height, width = (-(-int(side) // divisor) * divisor for side in resized)
    count = options.rpn_post_nms_top_n_test if proposals is None else proposals
    features = _of_size(parts.features, [(height, width, parts.features.inputs[0].shape[-1])])
    levels = [tensor.shape[1:] for tensor in features.outputs]
    rpn = _named(_of_size(parts.rpn, levels), "rpn")
    box_head = _named(parts.box_head, "box_head")
    return [
        *_named(features, "fpn"),
        *(replace(each, layers=each.layers // len(levels)) for each in rpn),  # which levels share
        *(replace(each, macs=each.macs * count) for each in box_head),
    ]


def _of_size(model, shapes):
    """The same layers for images of a known size."""
    inputs = [
        keras.Input(shape, dtype=tensor.dtype)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(model.input, inputs)
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer)


def _named(model, rest):
    """The stages of the backbone in a part, and the rest of it under one name."""
    stages = analysis.complexity(model)
    own = [each for each in stages if re.fullmatch(r"conv\d+", each.name)]
    others = [each for each in stages if each not in own]
    return [*own, *([analysis.total(others, rest)] if others else [])]
