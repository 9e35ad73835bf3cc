"""The four losses, whole and in parts."""

import numpy as np
import pytest
import tensorflow as tf
from detectors import batch_of, tiny

from keras_resnet import detection
from keras_resnet.detection import loss


def test_of_deltas_is_a_square_and_then_a_line():
    distance = np.linspace(-2, 2, 4001)[:, None] * (1, 0, 0, 0)
    found = loss.smooth_l1(tf.constant(distance), tf.zeros_like(distance)).numpy()
    size = np.abs(distance[:, 0])
    expected = np.where(size < 1 / 9, 4.5 * size**2, size - 1 / 18)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_of_rois_is_that_of_their_own_class():
    generator = np.random.default_rng(0)
    logits, deltas = generator.normal(size=(2, 3, 4)), generator.normal(size=(2, 3, 16))
    targets, classes = generator.normal(size=(2, 3, 4)), np.array([[0, 1, 3], [2, 0, 0]])
    valid = np.array([[True, True, True], [True, True, False]])
    rois = loss.RoIs(tf.zeros((2, 3, 4)), *map(tf.constant, (classes, targets, valid)))
    found = loss.roi_losses(tf.constant(logits), tf.constant(deltas), rois)
    for image, roi in np.ndindex(2, 3):
        its = classes[image, roi]
        entropy = np.log(np.exp(logits[image, roi]).sum()) - logits[image, roi, its]
        size = np.abs(deltas[image, roi].reshape(4, 4)[its] - targets[image, roi])
        box = np.where(size < 1 / 9, 4.5 * size**2, size - 1 / 18).sum()
        expected = np.array([entropy, box * (its > 0)]) * valid[image, roi]
        np.testing.assert_allclose([each[image, roi] for each in found], expected, atol=1e-12)


@pytest.mark.parametrize("head", ["c4", pytest.param("fpn", marks=pytest.mark.slow)])
def test_in_parts_are_those_of_all_rois_at_once(head, monkeypatch):
    detector = tiny(head, box_batch_size_per_image=20)
    parts, (inputs, labels) = detection.parts_of(detector), batch_of()
    # Of 20 RoIs of each of the three images, three at a time.
    monkeypatch.setattr(loss, "_AT_ONCE", 9)
    monkeypatch.setattr(loss, "_bytes", lambda _: 1)
    variables = [each.value for each in detector.trainable_variables]

    @tf.function
    def whole():
        with tf.GradientTape() as tape:
            found = detection.losses(parts, inputs, labels)
            total = tf.add_n([*found.values()])
        return total, tape.gradient(total, variables)

    @tf.function
    def in_parts():
        with tf.GradientTape() as tape:
            sums = loss.sums_in_parts(parts, inputs, labels, True)
            regions = tf.reduce_sum(sums.objectness + sums.rpn_box_reg)
            total = sums.of_rois / tf.reduce_sum(sums.rois)
            total += regions / tf.reduce_sum(sums.anchors)
        return total, tape.gradient(total, variables)

    (total, gradients), (its_total, its_gradients) = whole(), in_parts()
    np.testing.assert_allclose(total, its_total, rtol=1e-6)
    for variable, one, other in zip(variables, gradients, its_gradients, strict=True):
        largest = np.abs(one).max()
        assert largest > 0, variable.name
        np.testing.assert_allclose(one, other, atol=2e-5 * largest, err_msg=variable.name)
    sums = loss.sums_in_parts(parts, inputs, labels, False)
    found = detection.losses(parts, inputs, labels, training=False)
    np.testing.assert_allclose(sums.of_rois / tf.reduce_sum(sums.rois),
                               found["classifier"] + found["box_reg"], rtol=1e-6)  # fmt: skip


def test_learn_nothing_from_ignored_boxes():
    """An image whose only box is ignored has no positive anchor and no positive RoI."""
    parts, (inputs, labels) = detection.parts_of(tiny("fpn")), batch_of()
    labels["ignored"] = tf.ones_like(labels["ignored"])
    found = detection.losses(parts, inputs, labels)
    assert found["box_reg"] == found["rpn_box_reg"] == 0
    assert np.isfinite(found["classifier"])
    assert found["objectness"] > 0


def test_are_finite_with_degenerate_boxes():
    parts, (inputs, labels) = detection.parts_of(tiny("fpn")), batch_of()
    labels["boxes"] = tf.constant([[[10, 10, 10, 30], [5, 5, 5, 5]]] * 3, "float32")
    assert all(np.isfinite(each) for each in detection.losses(parts, inputs, labels).values())
