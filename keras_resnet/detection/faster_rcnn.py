"""Faster R-CNN over any backbone of the family, as an ordinary functional model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from keras_resnet import checks
from keras_resnet.detection import heads
from keras_resnet.detection.anchors import Anchors, sizes_of
from keras_resnet.detection.detections import Detections
from keras_resnet.detection.options import Options
from keras_resnet.detection.proposals import Proposals
from keras_resnet.detection.roi_align import RoIAlign
from keras_resnet.detection.transform import Transform
from keras_resnet.graphs import flat_layers, wants_of
from keras_resnet.layers import Preprocessing
from keras_resnet.resnet import deep_graphs, feature_pyramid

_DIVISOR = 32  # what the sides of a batch are a multiple of, at least


@dataclass(frozen=True)
class Head:
    """A kind of head: a row of `HEADS`.

    Parameters
    ----------
    levels : callable
        From the stages of a backbone by name, C2 first, to the levels that anchors are on.
    bins : int
        Rows and columns of bins of a region.
    vectors : callable
        Makes the model from bins of regions to vectors, given the stages, `bins` and channels.
    convolutions : int, default 1
        3x3 convolutions of the region proposal network.
    """

    levels: Callable[[dict[str, keras.KerasTensor]], list[keras.KerasTensor]]
    bins: int
    vectors: Callable[[dict[str, keras.KerasTensor], int, int], keras.Model]
    convolutions: int = 1


def _last_stage(stages, bins, _channels):
    """The last stage of the backbone and average pooling, on regions."""
    *_, start, end = stages.values()
    stage = _sharing(start, [end], (bins, bins))
    pooled = keras.layers.GlobalAveragePooling2D(name="box_pool")(stage.outputs[0])
    return keras.Model(stage.inputs[0], pooled)


HEADS = {
    "fpn": Head(
        levels=heads.pyramid,
        bins=7,
        vectors=lambda _, *shape: heads.two_layers(*shape),
    ),
    "fpn_v2": Head(
        levels=lambda stages: heads.pyramid(stages, normalized=True),
        bins=7,
        vectors=lambda _, *shape: heads.four_convolutions(*shape),
        convolutions=2,
    ),
    "c4": Head(
        levels=lambda stages: [*stages.values()][-2:-1],
        bins=14,
        vectors=_last_stage,
    ),
}
"""The kinds of heads, by the name that `FasterRCNN` takes."""


@deep_graphs()
def FasterRCNN(
    backbone: keras.Model,
    classes: int,
    head: Literal["fpn", "fpn_v2", "c4"] = "fpn",
    *,
    trainable_backbone_layers: int = 3,
    trainable_batch_norm: bool = False,
    returned_layers: Sequence[int] | None = None,
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over a backbone.

    The detector is an ordinary functional model: save, load and clone it like any other. It takes
    raw `images`, padded to one size, and `sizes`, the height and width of each, and normalizes and
    resizes them itself. `keras_resnet.detection.detect` calls it with images of any sizes.

    Parameters
    ----------
    backbone : keras.Model
        A model of this package. The detector uses its layers, and freezes some of them.
    classes : int
        Number of classes, without the background.
    head : {"fpn", "fpn_v2", "c4"}, default "fpn"
        "fpn": a feature pyramid, and two dense layers on the 7x7 bins of a region; "fpn_v2": the
        same with BatchNormalization, and four convolutions and a dense layer; "c4": conv1 to conv4
        for the whole image, and conv5 on the 14x14 bins of a region.
    trainable_backbone_layers : int, default 3
        Stages of the backbone that are trained, counted from its end. 5 is everything, with the
        stem.
    trainable_batch_norm : bool, default False
        Whether the backbone's BatchNormalization learns and takes the statistics of batches, for a
        backbone without pretrained weights.
    returned_layers : sequence of int, optional
        For a pyramid: the consecutive stages that it is built on, counted as in torchvision: 1 is
        conv2. (2, 3, 4) is much faster to train, and misses more small objects. Default: all.
    name : str, optional
        Name of the model. Default: one that names the head and the backbone.
    **options
        Fields of `Options`, such as `min_size` and `box_score_thresh`.

    Returns
    -------
    keras.Model
        From a dict of `images`, float32 of shape (images, height, width, channels), and `sizes`,
        int32 of shape (images, 2), to the dict that `Detections` returns.

    Raises
    ------
    ValueError
        For an argument out of its range, or a backbone that does not say how it wants images
        normalized or has too few stages.

    References
    ----------
    Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
    NIPS 2015.
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, appendix A.
    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detector = detection.FasterRCNN(backbone, classes=3, min_size=64, max_size=96)
    >>> found = detector({"images": np.zeros((1, 50, 60, 3)), "sizes": np.array([[50, 60]])})
    >>> found["boxes"].shape
    TensorShape([1, 100, 4])
    """
    checks.check_choice(HEADS, head=head)
    checks.check_positive(classes=classes)
    checks.check_choice((True, False), trainable_batch_norm=trainable_batch_norm)
    _check_options(options)
    kind = HEADS[head]
    pyramid = feature_pyramid(backbone)
    if len(pyramid) < 2:
        raise ValueError(f"backbone {backbone.name!r} has one stage; a detector needs two or more.")
    _check_strides(backbone, head)
    start, mode = _beginning(backbone)
    shared = _sharing(start, list(pyramid.values()), (None, None))
    stages = _chosen(dict(zip(pyramid, shared.outputs, strict=True)), returned_layers, head)
    levels = kind.levels(stages)
    opts = _fitting(options, levels, stages)
    _freeze(backbone, len(pyramid) + 1, trainable_backbone_layers, trainable_batch_norm)
    features = keras.Model(shared.inputs[0], levels, name="features")
    channels = levels[0].shape[-1]
    anchors = len(opts.rpn_aspect_ratios) * len(sizes_of(opts, len(levels))[0])
    rpn = heads.proposal_network(len(levels), channels, anchors, kind.convolutions)
    box_head = heads.box_head(kind.vectors(stages, kind.bins, channels), int(classes))

    images = keras.Input((None, None, start.shape[-1]), name="images")
    sizes = keras.Input((2,), dtype="int32", name="sizes")
    divisor = max(_DIVISOR, 2 ** len(pyramid) * _stem_stride(start, pyramid) // 2)
    batch, resized = Transform(mode, opts, divisor, name="transform")(images, sizes)
    found = features(batch)
    found = found if isinstance(found, list) else [found]
    objectness, deltas = rpn(found)
    boxes, counts = Anchors(opts, name="anchors")(batch, found)
    proposals, kept = Proposals(opts, name="proposals")(objectness, deltas, boxes, counts, resized)
    regions = RoIAlign(kind.bins, opts, name="roi_align")(pooled_levels(found), batch, proposals)
    answers = box_head(regions)
    outputs = Detections(opts, name="detections")(*answers, proposals, kept, resized, sizes)
    name = name or f"faster_rcnn_{backbone.name}_{head}"
    return keras.Model({"images": images, "sizes": sizes}, outputs, name=name)


@dataclass(frozen=True)
class Parts:
    """The layers of a detector; each can be called by itself.

    Parameters
    ----------
    transform : Transform
        From images and their sizes to a batch.
    features : keras.Model
        From the batch to levels of features.
    rpn : keras.Model
        From the levels to objectness and deltas of all anchors.
    anchors : Anchors
        From batch and levels to anchors.
    proposals : Proposals
        From all that to proposals.
    roi_align : RoIAlign
        From levels and proposals to bins of regions.
    box_head : keras.Model
        From bins to logits and deltas of every class.
    detections : Detections
        From these to boxes.
    """

    transform: Transform
    features: keras.Model
    rpn: keras.Model
    anchors: Anchors
    proposals: Proposals
    roi_align: RoIAlign
    box_head: keras.Model
    detections: Detections

    @property
    def options(self) -> Options:
        """The options of the detector."""
        return self.detections.options

    @property
    def classes(self) -> int:
        """Number of classes, without the background."""
        return self.box_head.outputs[0].shape[-1] - 1

    def levels(self, batch, training: bool = False) -> list:
        """The levels of features of a batch, always as a list."""
        found = self.features(batch, training=training)
        return [*found] if isinstance(found, list | tuple) else [found]

    def pooled(self, levels: Sequence, batch, proposals):
        """Bins of regions, from the levels that they are pooled from."""
        return self.roi_align(pooled_levels(levels), batch, proposals)


def pooled_levels(levels: Sequence[Any]) -> Sequence[Any]:
    """The levels that regions are pooled from: the coarsest of a pyramid is for anchors only."""
    return levels[:-1] or levels


def parts_of(model: keras.Model) -> Parts:
    """Find the layers of a detector.

    Parameters
    ----------
    model : keras.Model
        A detector, made by `FasterRCNN`, or loaded or cloned.

    Returns
    -------
    Parts

    Raises
    ------
    ValueError
        For a model that is not a detector.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detection.parts_of(detection.FasterRCNN(backbone, classes=3)).classes
    3
    """
    if not is_detector(model):
        raise ValueError(
            f"model {getattr(model, 'name', model)!r} is not a detector: build one with "
            "keras_resnet.detection.FasterRCNN."
        )
    return Parts(**{part: model.get_layer(part) for part in Parts.__dataclass_fields__})


def is_detector(model: Any) -> bool:
    """Tell whether a model is a detector.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    bool

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> detection.is_detector(keras_resnet.ResNet18(weights=None))
    False
    """
    names = {layer.name for layer in getattr(model, "layers", ())}
    return names >= set(Parts.__dataclass_fields__) and isinstance(
        model.get_layer("detections"), Detections
    )


def _check_options(options):
    """Raise ValueError for an unknown option."""
    known = Options.__dataclass_fields__
    for name in options:
        if name not in known:
            raise ValueError(f"option {name!r} is unknown: there are {', '.join(known)}.")


def _check_strides(backbone, head):
    """Raise ValueError for a pyramid over levels of equal size."""
    dilated = [
        layer.name
        for layer in flat_layers(backbone)
        if max(np.atleast_1d(getattr(layer, "dilation_rate", 1))) > 1
    ]
    if dilated and head != "c4":
        raise ValueError(
            f"backbone {backbone.name!r} has dilation instead of strides, first in {dilated[0]}: "
            "the levels of a pyramid must halve. Build it without output_stride, or take head='c4'."
        )


def _chosen(stages, returned_layers, head):
    """The stages that a pyramid stands on."""
    if returned_layers is None:
        return stages
    names, known = [f"C{number + 1}" for number in returned_layers], [*stages]
    if head == "c4" or not names or ",".join(names) not in ",".join(known):
        raise ValueError(
            f"returned_layers={returned_layers!r} must be consecutive numbers out of "
            f"{[*range(1, len(known) + 1)]}, and is only for heads with a pyramid."
        )
    return {name: stages[name] for name in names}


def _fitting(options, levels, stages):
    """Options with anchors for every level."""
    if "rpn_anchor_sizes" not in options and len(levels) > 1:
        first = next(iter(stages)).removeprefix("C")
        sizes = Options.rpn_anchor_sizes[int(first) - 2 :][: len(levels)]
        options = {**options, "rpn_anchor_sizes": sizes}
    found = Options(**options)
    if len(levels) not in (1, len(found.rpn_anchor_sizes)):
        raise ValueError(
            f"rpn_anchor_sizes={found.rpn_anchor_sizes!r} must have one size for each of the "
            f"{len(levels)} levels."
        )
    return found


def _beginning(backbone):
    """The tensor that holds normalized images, and how they are normalized."""
    mode, start = wants_of(backbone).normalization, backbone.inputs[0]
    if mode == "raw":
        layer = next(each for each in backbone.layers if isinstance(each, Preprocessing))
        mode, start = layer.mode, layer.output
    if mode is None:
        raise ValueError(
            f"backbone {backbone.name!r} does not say how it wants images normalized: build it "
            "with this package, or state it with keras_resnet.graphs.remember(backbone, "
            "normalization=...)."
        )
    return start, mode


def _sharing(start, outputs, size):
    """A model of the same layers, for images of another size."""
    inputs = keras.Input((*size, start.shape[-1]), dtype=start.dtype)
    return keras.models.clone_model(
        keras.Model(start, outputs), input_tensors=inputs, clone_function=lambda layer: layer
    )


def _stem_stride(start, pyramid):
    """How many times smaller than the image the first stage is, where that is known."""
    first = next(iter(pyramid.values()))
    sizes = start.shape[1], first.shape[1]
    return -(-sizes[0] // sizes[1]) if all(sizes) else 4


def _freeze(backbone, stages, trainable, batch_norm):
    """Freeze the first stages of a backbone, and its BatchNormalization."""
    if not checks.is_within("index", trainable) or trainable > stages:
        raise ValueError(
            f"trainable_backbone_layers={trainable!r} must be a whole number from 0 to {stages}, "
            "the stages of the backbone and its stem."
        )
    for layer in flat_layers(backbone):
        # What follows the last sum of a model with pre-activation belongs to its last stage.
        stage = re.match(r"(?:conv|pool)(\d+)_", layer.name.replace("post_", f"conv{stages}_"))
        frozen = stage and int(stage[1]) <= stages - trainable
        if isinstance(layer, keras.layers.BatchNormalization):
            frozen = frozen or not batch_norm
        layer.trainable = not frozen
