"""Detectors that take little time, and images with boxes for them.

Run as a program, `python detectors.py STRATEGY FILE JSON`: trains one on the devices of a strategy,
or on one device for "alone", with options of `train`; the losses and weights are in the file.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import data, detection, training, zoo

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


def tiny(head="fpn", classes=3, seed=0, input_shape=None, **options):
    """A detector of few filters for images of about 64 pixels."""
    keras.utils.set_random_seed(seed)
    backbone = zoo.ResNet(
        (1,) * 4, "basic", (8, 16, 16, 32), include_top=False, input_shape=input_shape
    )
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


def boxes(train=7, validation=3, augmentation="mirrored", seed=0):
    """Images of one size with up to two rectangles, the color of which is their class."""
    generator, count = np.random.default_rng(seed), train + validation
    images = generator.integers(0, 60, (count, 60, 80, 3)).astype("uint8")
    labels = np.tile(np.array([0, 0, 0, 0, -1, 0], "float32"), (count, 2, 1))
    for index, (image, rows) in enumerate(zip(images, labels, strict=True)):
        for row in rows[: 2 - index % 3]:
            (x, y), (width, height) = generator.integers(0, (40, 30)), generator.integers(12, 30, 2)
            row[:] = x, y, x + width, y + height, generator.integers(3), 0
            image[y : y + height, x : x + width, int(row[4])] = 250
    splits = np.split(np.arange(count), [train])
    return data.Source(
        "boxes", ("red", "green", "blue"), 3, 64, augmentation,
        *(data.Split(images[some], labels[some]) for some in (*splits, splits[1])),
        task="detection",
    )  # fmt: skip


def train(strategy=None, source=None, recipe=None, detector=None, **options):
    """Losses of all steps, the history, and all weights."""
    losses, source = [], source or boxes()
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
    )
    recipe = training.recipe("detection", **{"epochs": 2, "batch_size": 4, **(recipe or {})})
    options = {"verbose": 0, "callbacks": [record], **options}
    detector = tiny("c4") if detector is None else detector
    result = training.train(detector, source, recipe, strategy, **options)
    return losses, result.history, detector.get_weights()


if __name__ == "__main__":
    name, file, options = sys.argv[1:]
    # In float64: two devices round in other ways than one. Of RoIs, all are taken, so that images
    # have different numbers of them.
    keras.config.set_floatx("float64")
    chosen = None if name == "alone" else training.strategy(name)
    losses, history, weights = train(
        chosen, detector=tiny("c4", box_batch_size_per_image=100), **json.loads(options)
    )
    np.savez(file, json.dumps([losses, history]), *weights)
