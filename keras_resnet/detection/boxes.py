"""Boxes as x1, y1, x2, y2 in pixels: what is done to them.

Conversions and IoU are those of `keras.utils.bounding_boxes`. Its clipping leaves out classes and
batches of images of several sizes, and its decoding overflows for large deltas: hence `clip` and
the bound in `decode`.
"""

import math

import tensorflow as tf
from keras.utils import bounding_boxes

LARGEST_SCALE = math.log(1000.0 / 16)
"""The logarithm of how much larger than its anchor a box may be decoded to be."""

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""What the deltas of RoIs are multiplied by, so that they spread like those of other numbers."""


def encode(boxes: tf.Tensor, anchors: tf.Tensor, weights=(1.0, 1.0, 1.0, 1.0)) -> tf.Tensor:
    """Describe boxes by their deltas from anchors.

    Parameters
    ----------
    boxes, anchors : tensor of shape (..., 4)
        Boxes, and what they are to be described by.
    weights : sequence of 4 floats, default (1, 1, 1, 1)
        What the deltas are multiplied by.

    Returns
    -------
    tensor of shape (..., 4)
        Distances of the centres, in units of the anchor's width and height, and logarithms of the
        ratios of widths and heights.

    References
    ----------
    Girshick et al., Rich Feature Hierarchies for Accurate Object Detection, CVPR 2014.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from keras_resnet.detection.boxes import encode
    >>> encode(tf.constant([[5.0, 0, 15, 10]]), tf.constant([[0.0, 0, 10, 10]])).numpy().tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    deltas = bounding_boxes.encode_box_to_deltas(
        anchors, boxes, anchor_format="xyxy", box_format="xyxy", encoding_format="center_xywh"
    )
    return deltas * tf.constant(weights, deltas.dtype)


def decode(deltas: tf.Tensor, anchors: tf.Tensor, weights=(1.0, 1.0, 1.0, 1.0)) -> tf.Tensor:
    """Find boxes by their deltas from anchors.

    Parameters
    ----------
    deltas, anchors : tensor of shape (..., 4)
        As `encode` returns and takes them.
    weights : sequence of 4 floats, default (1, 1, 1, 1)
        What the deltas were multiplied by.

    Returns
    -------
    tensor of shape (..., 4)
        No box is larger than 62.5 times its anchor.
    """
    deltas = deltas / tf.constant(weights, deltas.dtype)
    deltas = tf.concat([deltas[..., :2], tf.minimum(deltas[..., 2:], LARGEST_SCALE)], -1)
    return bounding_boxes.decode_deltas_to_boxes(
        anchors, deltas, anchor_format="xyxy", box_format="xyxy", encoded_format="center_xywh"
    )


def clip(boxes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Cut off what is outside of the images.

    Parameters
    ----------
    boxes : tensor of shape (images, ..., 4)
        Boxes.
    sizes : tensor of shape (images, 2)
        Height and width of each image.

    Returns
    -------
    tensor of shape (images, ..., 4)
    """
    corners = tf.cast(tf.gather(sizes, (1, 0, 1, 0), axis=-1), boxes.dtype)
    for _ in range(boxes.shape.rank - 2):
        corners = corners[:, None]
    return tf.clip_by_value(boxes, tf.zeros((), boxes.dtype), corners)


def have_sides(boxes: tf.Tensor, smallest: float) -> tf.Tensor:
    """Tell which boxes are at least so many pixels wide and high.

    Parameters
    ----------
    boxes : tensor of shape (..., 4)
        Boxes.
    smallest : float
        Pixels.

    Returns
    -------
    bool tensor of shape (...)
    """
    return tf.reduce_all(boxes[..., 2:] - boxes[..., :2] >= smallest, -1)


def suppressed(
    boxes: tf.Tensor, scores: tf.Tensor, most: int, threshold: float, least: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Drop boxes that overlap more probable ones.

    Parameters
    ----------
    boxes : tensor of shape (images, boxes, 4)
        Boxes.
    scores : tensor of shape (images, boxes)
        How probable each is.
    most : int
        Boxes of an image that are kept, at most.
    threshold : float
        IoU above which one is dropped.
    least : float
        Score that those to be looked at are above.

    Returns
    -------
    indices : int32 tensor of shape (images, most)
        The boxes that are kept, the most probable first; 0 in places that are left.
    count : int32 tensor of shape (images,)
        How many are kept.
    """
    # TensorFlow suppresses in float32, or less, only.
    pair = tf.cast(boxes, "float32"), tf.cast(scores, "float32")
    return tf.map_fn(
        lambda of_image: tuple(
            tf.raw_ops.NonMaxSuppressionV4(
                boxes=of_image[0],
                scores=of_image[1],
                max_output_size=most,
                iou_threshold=threshold,
                score_threshold=least,
                pad_to_max_output_size=True,
            )
        ),
        pair,
        fn_output_signature=(tf.TensorSpec((most,), "int32"), tf.TensorSpec((), "int32")),
    )
