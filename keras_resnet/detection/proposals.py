"""From the outputs of a region proposal network to proposals."""

import keras
import tensorflow as tf

from keras_resnet.detection.boxes import clip, decode, have_sides, suppressed
from keras_resnet.detection.options import OfDetector, serializable

_SMALLEST = 1e-3  # pixels a side of a proposal


@serializable
class Proposals(OfDetector):
    """The regions that most probably hold an object.

    Takes objectness, a logit for each anchor of each image; deltas; the anchors and the number of
    them on each level; and the sizes of the images in the batch. Returns proposals of shape
    (images, proposals, 4), the most probable first, padded with zeros to the same number for each
    image; and how many each image has.

    Parameters
    ----------
    options : Options or dict
        Those for proposals, which begin with "rpn_", are used.
    **kwargs
        `name` and other arguments of `keras.layers.Layer`.

    References
    ----------
    Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
    NIPS 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import detection
    >>> anchors = np.array([[0, 0, 16, 16], [0, 0, 16, 17.0]])
    >>> layer = detection.Proposals(detection.Options())
    >>> objectness, deltas = np.array([[1.0, 2.0]]), np.zeros((1, 2, 4))
    >>> counts, sizes = np.array([2]), np.array([[64, 64]])
    >>> boxes, counts = layer(objectness, deltas, anchors, counts, sizes)
    >>> boxes.numpy().tolist(), counts.numpy().tolist()
    ([[[0.0, 0.0, 16.0, 17.0]]], [1])
    """

    def call(self, objectness, deltas, anchors, counts, sizes, training=None):
        options, counts = self.options, tf.convert_to_tensor(counts)
        kind = "train" if training else "test"
        before, after = (
            getattr(options, f"rpn_{when}_nms_top_n_{kind}") for when in ("pre", "post")
        )
        levels = counts.shape[0]
        of_levels = zip(
            tf.split(tf.stop_gradient(objectness), counts, 1, num=levels),
            tf.split(tf.stop_gradient(deltas), counts, 1, num=levels),
            tf.split(anchors, counts, num=levels),
            strict=True,
        )
        found = [self._of_level(*level, sizes, before, after) for level in of_levels]
        boxes, scores = (tf.concat(parts, 1) for parts in zip(*found, strict=True))
        if levels > 1:
            scores, best = tf.math.top_k(scores, tf.minimum(after, tf.shape(scores)[1]))
            boxes = tf.gather(boxes, best, batch_dims=1)
        counts = tf.reduce_sum(tf.cast(scores >= 0, "int32"), 1)
        # At least one: layers of the head may not take an empty batch.
        places = tf.maximum(tf.reduce_max(counts), 1)
        return boxes[:, :places], counts

    def _of_level(self, objectness, deltas, anchors, sizes, before, after):
        """Boxes of a level, the most probable first, and how probable they are: -1 for none."""
        logits, best = tf.math.top_k(objectness, tf.minimum(before, tf.shape(objectness)[1]))
        boxes = decode(tf.gather(deltas, best, batch_dims=1), tf.gather(anchors, best))
        boxes, scores = clip(boxes, sizes), tf.sigmoid(logits)
        wanted = have_sides(boxes, _SMALLEST) & (scores >= self.options.rpn_score_thresh)
        scores = tf.where(wanted, scores, -1.0)
        kept, count = suppressed(boxes, scores, after, self.options.rpn_nms_thresh, -0.5)
        there = tf.sequence_mask(count, after)
        boxes = tf.where(there[..., None], tf.gather(boxes, kept, batch_dims=1), 0.0)
        return boxes, tf.where(there, tf.gather(scores, kept, batch_dims=1), -1.0)

    def compute_output_spec(self, objectness, deltas, anchors, counts, sizes, training=None):
        images = objectness.shape[0]
        return (
            keras.KerasTensor((images, None, 4), self.compute_dtype),
            keras.KerasTensor((images,), "int32"),
        )
