"""Detectors on splits of images of several sizes."""

import keras
import numpy as np
import PIL.Image
import pytest
from boxes_found import truths
from errors import one_line_error

import keras_resnet
from keras_resnet import data, detection

NAMES = ("cat", "dog")
SIZES = ((60, 90), (80, 50), (64, 64))


@pytest.fixture(scope="module")
def detector():
    """With random weights, and no threshold: it finds something everywhere."""
    keras.utils.set_random_seed(0)  # of some weights, not 20 objects are found
    backbone = keras_resnet.ResNet((1, 1, 1, 1), "basic", (4, 4, 4, 4), include_top=False)
    options = dict(min_size=48, max_size=96, box_score_thresh=0.0, box_detections_per_img=20)
    return detection.FasterRCNN(
        backbone, 2, "c4", rpn_post_nms_top_n_test=20, trainable_batch_norm=True, **options
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    files = [folder / f"{index:012d}.png" for index in (7, 9, 1000)]
    for file, size in zip(files, SIZES, strict=True):
        PIL.Image.fromarray(random.integers(0, 256, (*size, 3), "uint8")).save(file)
    boxes = [[(5, 5, 40, 40, 0, 0), (50, 20, 80, 50, 1, 1)], [], [(0, 0, 64, 64, 1, 0)]]
    return data.Split(files, truths(*boxes))


def test_evaluates_what_detect_finds(detector, split):
    quality = detection.evaluate(detector, split, NAMES)
    images = [np.asarray(PIL.Image.open(file)) for file in split.images]
    for one, other in zip(quality.detections, detection.detect(detector, images), strict=True):
        assert len(one["boxes"]) == 20
        assert all(np.allclose(one[key], other[key], atol=1e-3) for key in other)
    again = detection.DetectionEvaluation(split.labels, quality.detections, NAMES)
    assert quality.metrics() == pytest.approx(again.metrics(), nan_ok=True)
    assert quality.image_ids == (7, 9, 1000)  # as COCO names its files
    assert quality.per_class()["dog"]["ignored"] == 1


def test_padding_of_a_batch_is_no_part_of_an_image(detector, split):
    quality = detection.evaluate(detector, split, NAMES, batch_size=3)
    for (height, width), each in zip(SIZES, quality.detections, strict=True):
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"] <= (width, height, width, height)).all()


def test_names_what_is_wrong(detector, split):
    with one_line_error("has 2 classes; class_names has 1"):
        detection.evaluate(detector, split, ["cat"])
    with one_line_error("split has no images"):
        detection.evaluate(detector, split.take(np.arange(0)), NAMES)
    kernel = detector.get_layer("box_head").trainable_weights[-1]
    before = kernel.numpy()
    kernel.assign(np.full_like(before, np.nan))
    try:
        with one_line_error("are NaN, as after a training that diverged"):
            detection.evaluate(detector, split, NAMES)
    finally:
        kernel.assign(before)
