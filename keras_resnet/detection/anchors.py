"""The boxes that proposals start from."""

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.detection.options import OfDetector, serializable


@serializable
class Anchors(OfDetector):
    """The anchors at all positions of all levels of a batch.

    Takes the batch and its levels. Returns the anchors, of shape (anchors, 4), by level,
    row, column, ratio and size; and the number of anchors of each level.

    Parameters
    ----------
    options : Options or dict
        `rpn_anchor_sizes`, `rpn_aspect_ratios` and `anchors_rounded` are used.
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
    >>> layer = detection.Anchors(detection.Options(rpn_anchor_sizes=[32]))
    >>> anchors, counts = layer(np.zeros((1, 64, 64, 3)), [np.zeros((1, 4, 4, 8))])
    >>> anchors[1].numpy().tolist(), counts.numpy().tolist()
    ([-16.0, -16.0, 16.0, 16.0], [48])
    """

    def call(self, batch, levels):
        height, width = tf.unstack(tf.shape(batch)[1:3])
        found = []
        for level, sizes in zip(levels, sizes_of(self.options, len(levels)), strict=True):
            rows, columns = tf.unstack(tf.shape(level)[1:3])
            y, x = tf.meshgrid(
                tf.range(rows) * (height // rows), tf.range(columns) * (width // columns),
                indexing="ij",
            )  # fmt: skip
            places = tf.cast(tf.stack([x, y, x, y], -1), self.compute_dtype)
            shapes = around_zero(
                sizes, self.options.rpn_aspect_ratios, self.options.anchors_rounded
            )
            found.append(
                tf.reshape(places[:, :, None] + tf.constant(shapes, places.dtype), (-1, 4))
            )
        return tf.concat(found, 0), tf.stack([tf.shape(each)[0] for each in found])

    def compute_output_spec(self, batch, levels):
        return (
            keras.KerasTensor((None, 4), self.compute_dtype),
            keras.KerasTensor((len(levels),), "int32"),
        )


def sizes_of(options, levels: int) -> list[tuple[int, ...]]:
    """The sizes of the anchors of every level; a single level has all of them."""
    sizes = options.rpn_anchor_sizes
    return [sizes] if levels == 1 else [(size,) for size in sizes]


def around_zero(sizes, ratios, rounded: bool) -> np.ndarray:
    """The anchors of a position, around (0, 0)."""
    heights = np.sqrt(np.array(ratios, "float64"))
    heights, widths = (
        np.outer(each, np.array(sizes, "float64")).ravel() for each in (heights, 1 / heights)
    )
    corners = np.stack([-widths, -heights, widths, heights], -1) / 2
    return np.round(corners) if rounded else corners
