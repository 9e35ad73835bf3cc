"""Objects in images: Faster R-CNN over any backbone of the family.

===============  ==================================================================
`FasterRCNN`     builds a detector over a backbone
`DETECTORS`      the named ones, such as `FasterRCNN_ResNet50_FPN`, with pretrained weights
`Options`        what it is built with, by torchvision's names
`detect`         the objects in images of any sizes
`evaluate`       how good a detector is, by COCO's and Pascal VOC's protocols
`draw`           draws boxes into a copy of an image
`parts_of`       the layers of a detector; `is_detector` is True for one
`losses`         the four losses of Faster R-CNN
`load_weights`   loads a pretrained detector; `to_torch` converts back
`coco_classes`   class names of detectors trained on COCO
`batches`        images and boxes of a split, with the policies of `AUGMENTATIONS`
===============  ==================================================================

A detector is an ordinary functional model of eight layers: `transform` → `features` → `rpn`,
`anchors` → `proposals` → `roi_align` → `box_head` → `detections`.
"""

from keras_resnet.analysis import draw_boxes as draw
from keras_resnet.detection import task as _task  # noqa: F401  a row of `training.TASKS`
from keras_resnet.detection.anchors import Anchors
from keras_resnet.detection.augmentation import AUGMENTATIONS, Augmentation
from keras_resnet.detection.batches import batches
from keras_resnet.detection.classes import coco_classes
from keras_resnet.detection.complexity import complexity
from keras_resnet.detection.detect import detect
from keras_resnet.detection.detections import Detections
from keras_resnet.detection.evaluation import (
    DetectionEvaluation,
    coco_metrics,
    coco_results,
    coco_truths,
    evaluate,
)
from keras_resnet.detection.faster_rcnn import HEADS, FasterRCNN, Parts, is_detector, parts_of
from keras_resnet.detection.loss import losses
from keras_resnet.detection.options import Options
from keras_resnet.detection.plots import error_sheet
from keras_resnet.detection.proposals import Proposals
from keras_resnet.detection.roi_align import RoIAlign
from keras_resnet.detection.transform import Transform
from keras_resnet.detection.weights import Pretrained, load_weights, to_torch
from keras_resnet.detection.weights import find as find_weights
from keras_resnet.detection.zoo import (
    DETECTORS,
    FasterRCNN_ResNet50_C4,
    FasterRCNN_ResNet50_FPN,
    FasterRCNN_ResNet50_FPN_V2,
    FasterRCNN_ResNet101_C4,
    FasterRCNN_ResNet101_FPN,
    FasterRCNN_ResNeXt101_32x8d_FPN,
    builder,
)

__all__ = [
    "AUGMENTATIONS",
    "DETECTORS",
    "HEADS",
    "Anchors",
    "Augmentation",
    "DetectionEvaluation",
    "Detections",
    "FasterRCNN",
    "FasterRCNN_ResNeXt101_32x8d_FPN",
    "FasterRCNN_ResNet50_C4",
    "FasterRCNN_ResNet50_FPN",
    "FasterRCNN_ResNet50_FPN_V2",
    "FasterRCNN_ResNet101_C4",
    "FasterRCNN_ResNet101_FPN",
    "Options",
    "Parts",
    "Pretrained",
    "Proposals",
    "RoIAlign",
    "Transform",
    "batches",
    "builder",
    "coco_classes",
    "coco_metrics",
    "coco_results",
    "coco_truths",
    "complexity",
    "detect",
    "draw",
    "error_sheet",
    "evaluate",
    "find_weights",
    "is_detector",
    "load_weights",
    "losses",
    "parts_of",
    "to_torch",
]
