"""Operations on boxes, x1, y1, x2, y2 in pixels.

`keras.utils.bounding_boxes` encodes and decodes, too, but always in float32, and its decoding
overflows for large deltas; its clipping takes one size for all images.
"""

import math

import tensorflow as tf

LARGEST_SCALE = math.log(1000.0 / 16)
"""The logarithm of how much larger than its anchor a box may be decoded to be."""

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors that give the deltas of RoIs about unit variance."""


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
    (centers, sides), (places, shapes) = _centered(boxes), _centered(anchors)
    deltas = tf.concat([(centers - places) / shapes, tf.math.log(sides / shapes)], -1)
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
    moves, scales = tf.split(deltas / tf.constant(weights, deltas.dtype), 2, -1)
    places, shapes = _centered(anchors)
    centers = places + moves * shapes
    half = tf.exp(tf.minimum(scales, LARGEST_SCALE)) * shapes / 2
    return tf.concat([centers - half, centers + half], -1)


def _centered(boxes):
    """Centres, and widths and heights."""
    first, last = tf.split(boxes, 2, -1)
    return (first + last) / 2, last - first


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
    """Find the boxes that are at least so many pixels wide and high.

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
        Boxes with this score or less are dropped first.

    Returns
    -------
    indices : int32 tensor of shape (images, most)
        The boxes that are kept, the most probable first, padded with 0.
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
