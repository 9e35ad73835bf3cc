"""The named detectors: a table, and a short function for each."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import keras

from keras_resnet import names, zoo
from keras_resnet.detection import weights as pretrained
from keras_resnet.detection.faster_rcnn import FasterRCNN
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.resnet import feature_pyramid

Weights = str | os.PathLike | pretrained.Pretrained | None
Backbone = str | os.PathLike | None


class Named(NamedTuple):
    """A detector by name: the builder of its backbone, and its head."""

    backbone: str
    head: Literal["fpn", "fpn_v2", "c4"]

    @property
    def name(self) -> str:
        """The name itself."""
        return f"{PREFIX}_{self.backbone}_{self.head.upper()}"


PREFIX = "FasterRCNN"
"""What the names of detectors begin with."""

DETECTORS = {
    each.name: each
    for each in (
        Named("ResNet50", "fpn"),
        Named("ResNet50", "fpn_v2"),
        Named("ResNet50", "c4"),
        Named("ResNet101", "fpn"),
        Named("ResNet101", "c4"),
        Named("ResNeXt101_32x8d", "fpn"),
    )
}
"""The named detectors."""

# Without weights: those of COCO, as torchvision numbers them.
_CLASSES = 90


def FasterRCNN_ResNet50_FPN(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over ResNet-50 and a feature pyramid, as torchvision's of this name.

    Parameters
    ----------
    weights : str, path, Pretrained or None, default None
        Those of a whole detector: a tag that `keras_resnet.list_weights` lists for this name
        ("coco" for torchvision's, "coco_detectron2_3x"), a file, as in `load_weights`, or the
        result of `find_weights`.
    weights_backbone : str, path or None, default None
        Those of the backbone alone: a tag of its builder ("imagenet", "imagenet_caffe"), or a file.
        With None for both, the whole backbone is trained, with its BatchNormalization.
    classes : int, optional
        Number of classes, without the background. Default: that of `weights`; without weights, 90,
        COCO's in torchvision's numbering. If `weights` have another number, the last layers,
        `box_logits` and `box_deltas`, keep fresh weights, and this is logged.
    **options
        Keywords of `FasterRCNN`, fields of `Options`, and `trained_with` of `load_weights`.
        Options that weights need, such as `roi_aligned=True` for detectron2's, are set
        automatically.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        For an argument out of its range, or weights that do not fit.
    OSError
        If weights cannot be downloaded.

    Examples
    --------
    >>> from keras_resnet import detection
    >>> detector = detection.FasterRCNN_ResNet50_FPN(classes=3)
    >>> detector.name
    'faster_rcnn_resnet50_fpn'
    """
    return build("FasterRCNN_ResNet50_FPN", weights, weights_backbone, classes, **options)


def FasterRCNN_ResNet50_FPN_V2(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over ResNet-50, with BatchNormalization in the pyramid and in the head.

    The arguments are those of `FasterRCNN_ResNet50_FPN`.

    References
    ----------
    Li et al., Benchmarking Detection Transfer Learning with Vision Transformers, 2021.
    """
    return build("FasterRCNN_ResNet50_FPN_V2", weights, weights_backbone, classes, **options)


def FasterRCNN_ResNet50_C4(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over conv1 to conv4 of ResNet-50, with conv5 on every region.

    The arguments are those of `FasterRCNN_ResNet50_FPN`.
    """
    return build("FasterRCNN_ResNet50_C4", weights, weights_backbone, classes, **options)


def FasterRCNN_ResNet101_FPN(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over ResNet-101 and a feature pyramid.

    The arguments are those of `FasterRCNN_ResNet50_FPN`.
    """
    return build("FasterRCNN_ResNet101_FPN", weights, weights_backbone, classes, **options)


def FasterRCNN_ResNet101_C4(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over conv1 to conv4 of ResNet-101, with conv5 on every region.

    That of He et al. 2015. The arguments are those of `FasterRCNN_ResNet50_FPN`.
    """
    return build("FasterRCNN_ResNet101_C4", weights, weights_backbone, classes, **options)


def FasterRCNN_ResNeXt101_32x8d_FPN(
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    **options: Any,
) -> keras.Model:
    """Build a Faster R-CNN over ResNeXt-101 32x8d and a feature pyramid.

    The arguments are those of `FasterRCNN_ResNet50_FPN`.
    """
    return build("FasterRCNN_ResNeXt101_32x8d_FPN", weights, weights_backbone, classes, **options)


def builder(name: str) -> Callable[..., keras.Model]:
    """Find the function of a named detector.

    Parameters
    ----------
    name : str
        A name of `DETECTORS`; case, "-" and "_" do not matter.

    Returns
    -------
    callable
        Takes the arguments of `FasterRCNN_ResNet50_FPN`.

    Raises
    ------
    ValueError
        For an unknown name, suggesting the nearest.

    Examples
    --------
    >>> from keras_resnet import detection
    >>> detection.builder("faster-rcnn-resnet50-c4").__name__
    'FasterRCNN_ResNet50_C4'
    """
    return globals()[names.find("detector", name, DETECTORS)]


def build(
    named: Named | str,
    weights: Weights = None,
    weights_backbone: Backbone = None,
    classes: int | None = None,
    *,
    trained_with: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    **options: Any,
) -> keras.Model:
    """Build a detector and load its weights, with the options that these need.

    Parameters
    ----------
    named : Named or str
        The builder of the backbone, and the head; or a key of `DETECTORS`.
    weights, weights_backbone, classes, trained_with, **options
        As in `FasterRCNN_ResNet50_FPN`.
    backbone : mapping, optional
        Further options of the backbone's builder, such as `shortcut`.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError, OSError
        As `FasterRCNN_ResNet50_FPN`.
    """
    named = DETECTORS[named] if isinstance(named, str) else named
    given: dict[str, Any] = {
        "include_top": False,
        "input_shape": (None, None, 3),
        **(backbone or {}),
    }
    if weights is None:
        model = zoo.builder(named.backbone)(weights=weights_backbone, **given)
        if weights_backbone is None:  # all of it has to learn
            fresh = {"trainable_backbone_layers": len(feature_pyramid(model)) + 1}
            options = {**fresh, "trainable_batch_norm": True, **options}
        return FasterRCNN(model, _CLASSES if classes is None else classes, named.head, **options)
    if weights_backbone is not None:
        raise ValueError(
            f"weights= are those of a whole detector: with them, leave out "
            f"weights_backbone={str(weights_backbone)!r}."
        )
    found = pretrained.find(weights, named.name, trained_with)
    _check_head(named, found)
    wanted = found.classes if classes is None else classes
    if wanted is None:
        raise ValueError(
            f"{found.argument}: the file does not say how many classes it is for: give classes=."
        )
    with kernels_to_be_loaded():
        model = zoo.builder(named.backbone)(weights=None, **given, **found.backbone)
    model = FasterRCNN(model, wanted, named.head, **{**found.options, **options})
    return pretrained.load_found(model, found, new_head=wanted != found.classes)


def _check_head(named, found):
    """Raise an error for weights of another head, before anything is built."""
    if found.layout and found.layout.head != named.head:
        others = [name for name, each in DETECTORS.items() if each.head == found.layout.head]
        raise ValueError(
            f"{found.argument}: the weights are of a detector of {found.layout.library} with the "
            f"head {found.layout.head!r}, {named.name} has {named.head!r}. Build "
            f"{', '.join(others)}, or keras_resnet.detection.FasterRCNN with "
            f"head={found.layout.head!r}."
        )
