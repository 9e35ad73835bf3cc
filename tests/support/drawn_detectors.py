"""Detectors with parameters that follow from torchvision's names by the rule of the fixtures."""

import re
import sys
from pathlib import Path

import keras
import numpy as np

import keras_resnet
from keras_resnet import detection

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

FIXTURES = Path(rule.__file__).with_name("detection.npz")
NETS = {
    "fpn": ("ResNet50", "fpn"),
    "fpn_v2": ("ResNet50", "fpn_v2"),
    "c4_50": ("ResNet50", "c4"),
    "c4_101": ("ResNet101", "c4"),
}
"""The nets of the fixtures: backbone and head."""

OPTIONS = dict(
    min_size=128,
    max_size=192,
    rpn_pre_nms_top_n_test=300,
    rpn_post_nms_top_n_test=100,
    rpn_pre_nms_top_n_train=300,
    rpn_post_nms_top_n_train=100,
    rpn_batch_size_per_image=10**6,
    box_batch_size_per_image=10**6,
    box_detections_per_img=20,
)
SIZES = np.array([[100, 140], [120, 90]], "int32")

_PLAIN = {
    "conv1_conv": "BODY.conv1",
    "conv1_bn": "BODY.bn1",
    "rpn_logits": "rpn.head.cls_logits",
    "rpn_deltas": "rpn.head.bbox_pred",
    "fc7": "roi_heads.box_head.fc7",
    "box_logits": "roi_heads.box_predictor.cls_score",
    "box_deltas": "roi_heads.box_predictor.bbox_pred",
}
_PARTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def images():
    """The two images of the fixtures, of 0 to 255."""
    generator = np.random.RandomState(7)
    return [generator.uniform(0, 1, (*size, 3)) * 255 for size in SIZES]


def detector(net, **options):
    """A detector with the parameters of a net of the fixtures."""
    backbone, head = NETS[net]
    backbone = getattr(keras_resnet, backbone)(weights=None, include_top=False)
    model = detection.FasterRCNN(backbone, 3, head, **{**OPTIONS, **options})
    for layer in model._flatten_layers():
        if layer.weights and not isinstance(layer, keras.Model):
            name = torchvision_name(layer.name, head)
            layer.set_weights(
                [_drawn(f"{name}.{_PARTS[each.name]}", each) for each in layer.weights]
            )
    return model


def torchvision_name(name, head):
    """What torchvision calls a layer of a detector."""
    body = "backbone" if head == "c4" else "backbone.body"
    if found := re.fullmatch(r"conv(\d+)_block(\d+)_(\d)_(conv|bn)", name):
        stage, block, number = (int(each) for each in found.groups()[:3])
        kind = found[4]
        last = f"{kind}{number}" if number else f"downsample.{int(kind == 'bn')}"
        place = "roi_heads.box_head" if head == "c4" and stage == 5 else body
        return f"{place}.layer{stage - 1}.{block - 1}.{last}"
    if found := re.fullmatch(r"fpn_(inner|layer)(\d)(_bn)?", name):
        return f"backbone.fpn.{found[1]}_blocks.{int(found[2]) - 2}.{int(bool(found[3]))}"
    if found := re.fullmatch(r"rpn_conv(\d)", name):
        return f"rpn.head.conv.{int(found[1]) - 1}.0"
    if found := re.fullmatch(r"box_conv(\d)(_bn)?", name):
        return f"roi_heads.box_head.{int(found[1]) - 1}.{int(bool(found[2]))}"
    if name == "fc6":
        return f"roi_heads.box_head.{'fc6' if head == 'fpn' else 5}"
    return _PLAIN[name].replace("BODY", body)


def _drawn(name, variable):
    """A parameter as a layer holds it."""
    shape = tuple(variable.shape)
    if len(shape) == 4:
        return rule.parameter(name, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
    if len(shape) == 2:
        drawn = rule.parameter(name, shape[::-1])
        if re.search(r"box_head\.(fc6|5)\.", name):  # 7x7 bins of channels, channels first
            return drawn.reshape(shape[1], -1, 7, 7).transpose(2, 3, 1, 0).reshape(shape)
        return drawn.T
    return rule.parameter(name, shape)
