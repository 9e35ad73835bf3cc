"""Detectors that take little time, and batches for them."""

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import detection, zoo

OPTIONS = dict(
    min_size=64,
    max_size=96,
    rpn_anchor_sizes=(8, 16, 32, 48, 64),
    rpn_post_nms_top_n_train=50,
    rpn_post_nms_top_n_test=50,
    rpn_batch_size_per_image=32,
    box_batch_size_per_image=16,
    box_detections_per_img=10,
)


def tiny(head="fpn", classes=3, seed=0, **options):
    """A detector of few filters for images of about 64 pixels."""
    keras.utils.set_random_seed(seed)
    backbone = zoo.ResNet((1,) * 4, "basic", (8, 16, 16, 32), include_top=False)
    return detection.FasterRCNN(
        backbone, classes, head, trainable_backbone_layers=5, **{**OPTIONS, **options}
    )


def batch_of(seed=0):
    """Three images with two boxes, one and none."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 255, (3, 60, 80, 3)).astype("float32")
    boxes = np.zeros((3, 2, 4), "float32")
    boxes[0], boxes[1, 0] = [[10, 10, 40, 50], [5, 5, 30, 30]], [20, 20, 60, 40]
    inputs = {"images": images, "sizes": np.array([[60, 80], [50, 70], [60, 80]], "int32")}
    labels = {
        "boxes": boxes,
        "classes": np.array([[2, 0], [1, -1], [-1, -1]], "int32"),
        "ignored": np.zeros((3, 2), bool),
        "seeds": np.array([[0, index] for index in range(3)], "int32"),
    }
    return tuple({name: tf.constant(each) for name, each in of.items()} for of in (inputs, labels))
