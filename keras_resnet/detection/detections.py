"""From the outputs of the box head to objects."""

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.detection.boxes import WEIGHTS, clip, decode, have_sides
from keras_resnet.detection.options import OfDetector, serializable

_SMALLEST = 1e-2  # pixels a side of a detection


@serializable
class Detections(OfDetector):
    """The most probable objects, in pixels of the input images.

    Takes logits of the background and the classes for every proposal; deltas for each of them; the
    proposals, and how many each image has; and the sizes of the images in the batch and before.
    Returns a dict of

    - `boxes`, of shape (images, detections, 4): x1, y1, x2, y2;
    - `scores`, of shape (images, detections): probabilities, the highest first;
    - `labels`, of shape (images, detections): classes, from 0;
    - `count`, of shape (images,): how many there are. The rest is padding: boxes and scores of 0,
      labels of -1.

    Parameters
    ----------
    options : Options or dict
        `box_score_thresh`, `box_nms_thresh` and `box_detections_per_img` are used.
    **kwargs
        `name` and other arguments of `keras.layers.Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import detection
    >>> layer = detection.Detections(detection.Options(box_detections_per_img=1))
    >>> logits, deltas = np.array([[-4.0, 4.0]]), np.zeros((1, 8))
    >>> proposals, counts = np.array([[[8.0, 8, 24, 24]]]), np.array([1])
    >>> resized, sizes = np.array([[64, 64]]), np.array([[32, 32]])
    >>> found = layer(logits, deltas, proposals, counts, resized, sizes)
    >>> found["boxes"].numpy().tolist(), found["labels"].numpy().tolist()
    ([[[4.0, 4.0, 12.0, 12.0]]], [[0]])
    """

    def call(self, logits, deltas, proposals, counts, resized, sizes):
        options, most = self.options, self.options.box_detections_per_img
        boxes, scores, lost = _candidates(logits, deltas, proposals, counts, resized)
        found = tf.image.combined_non_max_suppression(
            boxes,
            scores,
            max_output_size_per_class=most,
            max_total_size=most,
            iou_threshold=options.box_nms_thresh,
            score_threshold=options.box_score_thresh,
            clip_boxes=False,
        )
        there = tf.sequence_mask(found.valid_detections, most)
        return {
            "boxes": found.nmsed_boxes * factors(resized, sizes)[:, None],
            "scores": tf.where(lost[:, None], np.nan, found.nmsed_scores),
            "labels": tf.where(there, tf.cast(found.nmsed_classes, "int32"), -1),
            "count": found.valid_detections,
        }

    def origins(self, found, logits, deltas, proposals, counts, resized, sizes):
        """Find the proposal that each object came from, given the outputs and their inputs."""
        boxes, scores, _ = _candidates(logits, deltas, proposals, counts, resized)
        boxes *= factors(resized, sizes)[:, None, None]
        labels = tf.maximum(found["labels"], 0)
        of_class = tf.gather(tf.transpose(boxes, (0, 2, 1, 3)), labels, batch_dims=1)
        score_of = tf.gather(tf.transpose(scores, (0, 2, 1)), labels, batch_dims=1)
        apart = tf.reduce_sum(tf.abs(of_class - found["boxes"][:, :, None]), -1)
        apart += tf.abs(score_of - found["scores"][..., None])
        return tf.argmin(apart, -1, output_type="int32")

    def compute_output_spec(self, logits, deltas, proposals, counts, resized, sizes):
        images, most = proposals.shape[0], self.options.box_detections_per_img
        return {
            "boxes": keras.KerasTensor((images, most, 4), "float32"),
            "scores": keras.KerasTensor((images, most), "float32"),
            "labels": keras.KerasTensor((images, most), "int32"),
            "count": keras.KerasTensor((images,), "int32"),
        }


def factors(resized, sizes):
    """Factors from boxes in the batch to pixels of the images, of shape (images, 4)."""
    ratios = tf.cast(sizes, "float32") / tf.cast(resized, "float32")
    return tf.gather(ratios, (1, 0, 1, 0), axis=1)


def _candidates(logits, deltas, proposals, counts, resized):
    """The box of every class in every proposal, its score, and whether an image has scores of NaN.

    Padding and boxes that are too small have a score of 0.
    """
    shape, classes = tf.shape(proposals), logits.shape[-1] - 1
    scores = tf.reshape(tf.nn.softmax(logits), (shape[0], shape[1], classes + 1))[..., 1:]
    deltas = tf.reshape(deltas, (shape[0], shape[1], classes + 1, 4))[:, :, 1:]
    boxes = clip(decode(deltas, proposals[:, :, None], WEIGHTS), resized)
    wanted = tf.sequence_mask(counts, shape[1])[..., None] & have_sides(boxes, _SMALLEST)
    lost = tf.reduce_any(tf.math.is_nan(tf.reshape(scores, (shape[0], -1))), 1)
    scores = tf.where(wanted, scores, 0.0)
    return tf.cast(boxes, "float32"), tf.cast(scores, "float32"), lost
