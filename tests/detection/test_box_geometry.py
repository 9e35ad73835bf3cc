import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.utils import bounding_boxes

from keras_resnet import detection
from keras_resnet.detection import boxes as geometry
from keras_resnet.detection.anchors import around_zero
from keras_resnet.detection.transform import resized_sizes

place, side = st.floats(-200, 1000), st.floats(0.5, 800)
numbers = st.integers(0, 2**32 - 1)
weightings = st.sampled_from([(1.0,) * 4, geometry.WEIGHTS])
box = st.tuples(place, place, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(box, box), min_size=1, max_size=8),
    st.sampled_from([(1.0,) * 4, geometry.WEIGHTS]),
)
def test_decoding_undoes_encoding(pairs, weights):
    boxes, anchors = (tf.constant(each, "float64") for each in zip(*pairs, strict=True))
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    found = geometry.decode(geometry.encode(boxes, anchors, weights), anchors, weights)
    fits = tf.reduce_all(ratio < 62.4, -1).numpy()  # larger ones are cut
    assert np.allclose(found[fits], boxes[fits], atol=1e-6)


def test_deltas_are_those_of_keras():
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 100, (2, 50, 2))
    boxes, anchors = np.concatenate(
        [first, first + generator.uniform(1, 90, (2, 50, 2))], -1
    ).astype("float32")
    expected = bounding_boxes.encode_box_to_deltas(
        anchors, boxes, anchor_format="xyxy", box_format="xyxy", encoding_format="center_xywh"
    )
    assert np.allclose(
        geometry.encode(tf.constant(boxes), tf.constant(anchors)), expected, atol=1e-5
    )


def test_large_deltas_stay_finite():
    found = geometry.decode(tf.constant([[0.0, 0, 1e4, 1e4]]), tf.constant([[0.0, 0, 16, 16]]))
    assert np.allclose(found, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]], atol=1e-2)


def test_boxes_are_clipped_to_the_size_of_their_own_image():
    boxes = tf.constant([[[-5.0, -5, 50, 50]], [[10.0, 20, 300, 400]]])
    found = geometry.clip(boxes, tf.constant([[30, 40], [200, 100]]))
    assert found.numpy().tolist() == [[[0, 0, 40, 30]], [[10, 20, 100, 200]]]


def overlap(a, b):
    wide = np.clip(min(a[2], b[2]) - max(a[0], b[0]), 0, None)
    high = np.clip(min(a[3], b[3]) - max(a[1], b[1]), 0, None)
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (a, b))
    return wide * high / (areas - wide * high)


def by_brute_force(boxes, scores, most, threshold, least):
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        free = all(overlap(boxes[index], boxes[other]) <= threshold for other in kept)
        if scores[index] > least and free and len(kept) < most:
            kept.append(index)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.integers(1, 12),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_suppression_is_that_of_brute_force(seed, count, most, threshold):
    generator = np.random.default_rng(seed)
    first = generator.uniform(0, 30, (2, count, 2))
    boxes = np.concatenate([first, first + generator.uniform(5, 30, (2, count, 2))], -1).astype(
        "f4"
    )
    scores = generator.permutation(np.linspace(0, 1, 2 * count)).reshape(2, count).astype("f4")
    indices, counts = geometry.suppressed(boxes, scores, most, threshold, 0.2)
    for image in (0, 1):
        expected = by_brute_force(boxes[image], scores[image], most, threshold, 0.2)
        assert indices[image, : counts[image]].numpy().tolist() == expected


def test_anchors_have_the_area_of_their_size_and_the_shape_of_their_ratio():
    found = around_zero((32, 64), (0.5, 1.0, 2.0), rounded=False)
    wide, high = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    assert np.allclose(wide * high, [32**2, 64**2] * 3)
    assert np.allclose(high / wide, np.repeat([0.5, 1, 2], 2))
    assert (around_zero((32, 64), (0.5, 1.0, 2.0), rounded=True) % 1 == 0).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 1000), st.integers(0, 1000))
def test_sizes_after_resizing_are_those_of_python_floats(height, width, min_size, more):
    scale = min(min_size / min(height, width), (min_size + more) / max(height, width))
    expected = [max(int(each * scale), 1) for each in (height, width)]
    assert resized_sizes([[height, width]], min_size, min_size + more).numpy().tolist() == [
        expected
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": 900, "max_size": 800}, "min_size=900 is the shorter side"),
        ({"box_nms_thresh": 1.5}, "box_nms_thresh=1.5 must be at least 0 and at most 1"),
        ({"rpn_anchor_sizes": ()}, "rpn_anchor_sizes=() must be numbers above 0"),
        ({"rpn_anchor_sizes": 32.5}, None),
        ({"roi_sampling_ratio": -1}, "roi_sampling_ratio=-1 must be a whole number of at least 0"),
        ({"roi_aligned": "yes"}, "roi_aligned='yes' must be one of True, False"),
        ({"box_detections_per_img": 0}, "box_detections_per_img=0 must be a whole number"),
    ],
)
def test_options_out_of_their_range_are_named(options, message):
    if message is None:
        assert detection.Options(**options).rpn_anchor_sizes == (32.5,)
        return
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        detection.Options(**options)
