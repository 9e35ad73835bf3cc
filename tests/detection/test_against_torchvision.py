"""Every stage of four detectors as torchvision 0.28 computes it, in float64.

The fixtures hold what it gives for parameters that follow from their names, and two images of
random pixels; of features, only every third pixel and 32nd channel.
"""

import drawn_detectors as drawn
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_resnet import detection


@pytest.fixture(
    scope="module",
    params=[
        "fpn",
        "c4_50",
        *(pytest.param(net, marks=pytest.mark.slow) for net in ("fpn_v2", "c4_101")),
    ],
)
def stages(request):
    """What is expected of each stage, by name, and what it gives."""
    net = request.param
    with np.load(drawn.FIXTURES) as file:
        expected = {"batch": file["batch"]}
        for name in file.files:
            if name.startswith(f"{net}/"):
                expected[name.removeprefix(f"{net}/")] = file[name]
    before = keras.config.floatx()
    keras.config.set_floatx("float64")  # or rounding alone moves large boxes by hundredths
    try:
        parts = detection.parts_of(drawn.detector(net))
        found = _stages(parts, expected)
    finally:
        keras.config.set_floatx(before)
    return expected, found


def _stages(parts, expected):
    batch = tf.constant(expected["batch"], "float64")
    images = np.zeros((2, 120, 140, 3))
    for image, place in zip(drawn.images(), images, strict=True):
        place[: len(image), : image.shape[1]] = image
    transformed, resized = parts.transform(images, drawn.SIZES)
    levels = parts.levels(batch)
    anchors, counts = parts.anchors(batch, levels)
    objectness, deltas = parts.rpn(levels)
    proposals, kept = parts.proposals(objectness, deltas, anchors, counts, resized)
    regions = parts.pooled(levels, batch, proposals)
    logits, box_deltas = parts.box_head(regions)
    there = tf.reshape(tf.sequence_mask(kept, proposals.shape[1]), (-1,))
    found = {
        "batch": transformed,
        "resized": resized,
        "anchors/0": anchors,
        "rpn/objectness": objectness[:, ::5],
        "rpn/deltas": deltas[:, ::5],
        "kept": kept,
        "proposals": proposals,
        "roi/pooled": regions[:4, ..., ::32],
        "roi/logits": logits[there],
        "roi/deltas": box_deltas[there],
        "detections": parts.detections(logits, box_deltas, proposals, kept, resized, drawn.SIZES),
    }
    names = sorted(name for name in expected if name.startswith("feature/"))
    for name, level in zip(names, levels, strict=True):
        found[name] = level[:, ::3, ::3, ::32]
    return found


def _differs(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_images_are_normalized_resized_and_padded(stages):
    expected, found = stages
    assert found["resized"].numpy().tolist() == [[128, 179], [170, 128]]
    assert found["batch"].shape == expected["batch"].shape
    assert _differs(found["batch"], expected["batch"]) < 2e-5


def test_features(stages):
    expected, found = stages
    names = [name for name in expected if name.startswith("feature/")]
    assert len(names) in (1, 5)
    for name in names:
        assert found[name].shape == expected[name].shape
        assert _differs(found[name], expected[name]) < 1e-6


def test_anchors_objectness_and_deltas(stages):
    expected, found = stages
    if "anchors/0" in expected:
        assert np.array_equal(found["anchors/0"], expected["anchors/0"])
    for name in ("rpn/objectness", "rpn/deltas"):
        assert found[name].shape == expected[name].shape
        assert _differs(found[name], expected[name]) < 1e-6


def test_proposals_are_the_same_boxes_in_the_same_order(stages):
    expected, found = stages
    for image in (0, 1):
        boxes = expected[f"proposals/{image}"]
        assert found["kept"][image] == len(boxes)
        assert np.abs(found["proposals"][image, : len(boxes)] - boxes).max() < 1e-3


def test_regions_and_the_box_head(stages):
    expected, found = stages
    boxes = np.concatenate([expected["proposals/0"], expected["proposals/1"]])
    # A RoI narrower than a feature reaches over the border of the features, where torchvision's
    # operator sees zeros. The fixtures were made by its Python version, which sees the border.
    inside = np.ones(len(boxes), bool)
    if expected["roi/pooled"].shape[1] == 14:
        last = boxes[:, :2] + np.maximum(boxes[:, 2:] - boxes[:, :2], 16) * 27.5 / 28
        inside = (last <= 192).all(-1)
    assert inside.sum() >= len(boxes) - 1
    assert _differs(found["roi/pooled"], expected["roi/pooled"]) < 1e-5
    for name in ("roi/logits", "roi/deltas"):
        assert found[name].shape == expected[name].shape
        assert _differs(found[name][inside], expected[name][inside]) < 1e-5


def test_detections_are_the_same_boxes_in_the_same_order(stages):
    expected, found = stages
    for image in (0, 1):
        of_image = {key: value[image].numpy() for key, value in found["detections"].items()}
        assert of_image["count"] == len(expected[f"detections/{image}/scores"])
        assert np.abs(of_image["boxes"] - expected[f"detections/{image}/boxes"]).max() < 1e-3
        assert np.abs(of_image["scores"] - expected[f"detections/{image}/scores"]).max() < 1e-5
        assert (of_image["labels"] + 1 == expected[f"detections/{image}/labels"]).all()


def test_detect_in_float32_agrees():
    """From the images to the boxes, with the rounding of float32."""
    model = drawn.detector("c4_50")
    found = detection.detect(model, drawn.images(), batch_size=2)
    with np.load(drawn.FIXTURES) as expected:
        for image, answer in enumerate(found):
            boxes = expected[f"c4_50/detections/{image}/boxes"]
            assert np.abs(answer["boxes"] - boxes).max() < 2e-3
            assert (answer["labels"] + 1 == expected[f"c4_50/detections/{image}/labels"]).all()
