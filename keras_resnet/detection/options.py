"""The options of a detector, and where its layers keep them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import keras

from keras_resnet import checks


@dataclass(frozen=True)
class Options:
    """The options of a detector, with the names and defaults of torchvision's.

    Parameters
    ----------
    min_size, max_size : int, default 800 and 1333
        Images are resized so that their shorter side has `min_size` pixels, or, if that is less,
        so that their longer side has `max_size`.
    rpn_anchor_sizes : sequence of int, default (32, 64, 128, 256, 512)
        Sides of the anchors in pixels of a resized image: for "fpn" one per level, for "c4" all of
        them on the one level that it has.
    rpn_aspect_ratios : sequence of float, default (0.5, 1.0, 2.0)
        Heights of the anchors, divided by their widths.
    anchors_rounded : bool, default True
        Whether anchors are rounded to whole pixels, as in torchvision, but not in detectron2.
    rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test : int, default 2000 and 1000
        Most probable proposals of each level that enter suppression.
    rpn_post_nms_top_n_train, rpn_post_nms_top_n_test : int, default 2000 and 1000
        Proposals of an image that remain after it.
    rpn_nms_thresh : float, default 0.7
        IoU above which the less probable of two proposals is dropped.
    rpn_score_thresh : float, default 0.0
        Probability below which proposals are dropped.
    rpn_fg_iou_thresh, rpn_bg_iou_thresh : float, default 0.7 and 0.3
        In training: IoU with a box from which an anchor is positive, below which it is negative.
    rpn_batch_size_per_image : int, default 256
        In training: anchors sampled per image for the loss.
    rpn_positive_fraction : float, default 0.5
        Fraction of them that is positive, at most.
    roi_sampling_ratio : int, default 2
        Sampling points per bin of a RoI in each direction; 0 adapts it to the size of the RoI.
    roi_aligned : bool, default False
        Whether the centre of the first pixel is at 0.5, as in detectron2, rather than at 0.
    box_score_thresh : float, default 0.05
        Lowest probability of a detection.
    box_nms_thresh : float, default 0.5
        IoU above which the less probable of two detections of a class is dropped.
    box_detections_per_img : int, default 100
        Detections of an image, at most.
    box_fg_iou_thresh, box_bg_iou_thresh : float, default 0.5 and 0.5
        In training: IoU with a box from which a RoI is positive, below which it is negative.
    box_batch_size_per_image : int, default 512
        In training: RoIs sampled per image for the loss.
    box_positive_fraction : float, default 0.25
        Fraction of them that is positive, at most.

    Raises
    ------
    ValueError
        For an option out of its range.

    Examples
    --------
    >>> from keras_resnet.detection import Options
    >>> Options(min_size=600).rpn_nms_thresh
    0.7
    """

    min_size: int = 800
    max_size: int = 1333
    rpn_anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    rpn_aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchors_rounded: bool = True
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_score_thresh: float = 0.0
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    roi_sampling_ratio: int = 2
    roi_aligned: bool = False
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25

    def __post_init__(self):
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if isinstance(option.default, tuple):
                try:
                    value = tuple(value)
                except TypeError:
                    value = (value,)
                if not value or not all(checks.is_within("positive", each) for each in value):
                    raise ValueError(f"{option.name}={value!r} must be numbers above 0.")
                object.__setattr__(self, option.name, value)
            elif isinstance(option.default, bool):
                checks.check_choice((True, False), **{option.name: value})
            elif isinstance(option.default, float):
                checks.check_range("fraction", **{option.name: value})
                object.__setattr__(self, option.name, float(value))
            else:
                kind = "index" if option.name == "roi_sampling_ratio" else "count"
                checks.check_range(kind, **{option.name: value})
                object.__setattr__(self, option.name, int(value))
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size={self.min_size} is the shorter side of an image: it must be at most "
                f"max_size={self.max_size}."
            )


class OfDetector(keras.layers.Layer):
    """A layer of a detector without weights, which keeps its options.

    It computes in float32, or in float64 where Keras does.

    Parameters
    ----------
    options : Options or dict
        The options of the whole detector.
    **kwargs
        `name` and other arguments of `keras.layers.Layer`.
    """

    def __init__(self, options: Options | dict[str, Any], **kwargs):
        super().__init__(**{"dtype": keras.config.floatx(), **kwargs})
        self.supports_jit = False  # XLA would compile anew for every size of a batch
        self.options = options if isinstance(options, Options) else Options(**options)

    def get_config(self):
        return {**super().get_config(), "options": dataclasses.asdict(self.options)}


def serializable(layer):
    """Register a layer with Keras under the name that users import it by."""
    layer.__module__ = "keras_resnet.detection"
    return keras.saving.register_keras_serializable(package="keras_resnet")(layer)
