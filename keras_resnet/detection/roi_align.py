"""Features of regions, at points between pixels.

A bin of a region is the mean of the features at some points, each interpolated between four pixels.
There are two ways to compute it. `tf.image.crop_and_resize` interpolates at any evenly spaced
points; it chooses others than RoIAlign does, and sees zeros outside of the image where RoIAlign
sees the border, so boxes and border are adapted first. The other way is a product of matrices,
since rows and columns are interpolated separately: it costs less where features are small and have
many channels, and bins may have any number of points.
"""

import keras
import tensorflow as tf

from keras_resnet.detection.options import OfDetector, serializable

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
"""A RoI of this size in pixels is taken from the level of this number, of stride 16."""

_POINTS = 16  # in each direction of a RoI, up to which crops cost less than products of matrices
_AT_ONCE = 32  # RoIs whose rows are kept in memory


@serializable
class RoIAlign(OfDetector):
    """The features of regions of interest, in a grid of bins each.

    Takes levels of features, the batch that they are of, and proposals of shape (images,
    proposals, 4). Returns features of shape (images * proposals, bins, bins, channels). Each
    proposal is taken from the level that suits its size.

    Parameters
    ----------
    bins : int
        Rows and columns of bins of a region.
    options : Options or dict
        `roi_sampling_ratio` and `roi_aligned` are used.
    **kwargs
        `name` and other arguments of `keras.layers.Layer`.

    References
    ----------
    He et al., Mask R-CNN, ICCV 2017. The level of a region: Lin et al., Feature Pyramid Networks
    for Object Detection, CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import detection
    >>> layer = detection.RoIAlign(7, detection.Options())
    >>> features = [np.ones((1, 4, 4, 8), "float32")]
    >>> layer(features, np.zeros((1, 64, 64, 3)), np.array([[[0.0, 0, 64, 32]]])).shape
    TensorShape([1, 7, 7, 8])
    """

    def __init__(self, bins, options, **kwargs):
        # Boxes keep their precision, and features theirs.
        super().__init__(options, **{"autocast": False, **kwargs})
        self.bins = bins

    def call(self, levels, batch, proposals):
        count = tf.shape(proposals)[1]
        owners = tf.repeat(tf.range(tf.shape(proposals)[0]), count)
        boxes = tf.stop_gradient(tf.reshape(proposals, (-1, 4)))
        scales = _scales(levels, batch, boxes.dtype)
        if len(levels) == 1:
            found = self._of_level(levels[0], boxes * scales[0], owners)
        else:
            places = level_of(boxes, scales[0], len(levels))
            indices = tf.dynamic_partition(tf.range(tf.size(owners)), places, len(levels))
            parts = [
                self._of_level(level, tf.gather(boxes, some) * scale, tf.gather(owners, some))
                for level, scale, some in zip(levels, scales, indices, strict=True)
            ]
            found = tf.dynamic_stitch(indices, parts)
        return tf.ensure_shape(found, (None, self.bins, self.bins, levels[0].shape[-1]))

    def levels_of(self, levels, batch, boxes):
        """The number of the level that each box is taken from, of shape (boxes,)."""
        return level_of(boxes, _scales(levels, batch, boxes.dtype)[0], len(levels))

    def _of_level(self, features, boxes, owners):
        ratio, aligned = self.options.roi_sampling_ratio, self.options.roi_aligned
        align = by_crops if ratio and self.bins * ratio <= _POINTS else by_matrices
        return align(features, boxes, owners, self.bins, ratio, aligned)

    def compute_output_spec(self, levels, batch, proposals):
        shape = (None, self.bins, self.bins, levels[0].shape[-1])
        return keras.KerasTensor(shape, levels[0].dtype)

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


def _scales(levels, batch, dtype):
    """1 / stride of each level."""
    strides = [tf.shape(batch)[1] // tf.shape(level)[1] for level in levels]
    return [1.0 / tf.cast(stride, dtype) for stride in strides]


def level_of(boxes: tf.Tensor, finest: tf.Tensor, levels: int) -> tf.Tensor:
    """Choose a level for each region by its size.

    Parameters
    ----------
    boxes : tensor of shape (boxes, 4)
        Regions in pixels of the batch.
    finest : scalar tensor
        1 / stride of the first level.
    levels : int
        Their number; each has twice the stride of the one before.

    Returns
    -------
    int32 tensor of shape (boxes,)
        From 0.
    """
    sides = tf.cast(tf.maximum(boxes[:, 2:] - boxes[:, :2], 0), "float32")
    size = tf.sqrt(tf.reduce_prod(sides, -1))
    octaves = tf.math.log(size / CANONICAL_SIZE) / tf.math.log(2.0)
    wanted = tf.floor(CANONICAL_LEVEL + octaves + 1e-6)
    first = tf.round(-tf.math.log(tf.cast(finest, "float32")) / tf.math.log(2.0))
    return tf.cast(tf.clip_by_value(wanted - first, 0, levels - 1), "int32")


def by_crops(features, boxes, owners, bins, ratio=2, aligned=False) -> tf.Tensor:
    """RoIAlign by `tf.image.crop_and_resize`.

    Parameters
    ----------
    features : tensor of shape (images, height, width, channels)
        Features.
    boxes : tensor of shape (boxes, 4)
        Regions in pixels of the features.
    owners : int32 tensor of shape (boxes,)
        The image of each.
    bins : int
        Rows and columns of the result.
    ratio : int, default 2
        Points in each direction that a bin is the mean of.
    aligned : bool, default False
        As `roi_aligned` in `Options`.

    Returns
    -------
    tensor of shape (boxes, bins, bins, channels)
    """
    first, step = _points(boxes, bins * ratio, aligned)
    # With the border twice, points up to a pixel outside see the border, and those beyond zeros.
    padded = tf.concat([features[:, :1], features, features[:, -1:]], 1)
    padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], 2)
    last = tf.cast(tf.shape(padded)[1:3] - 1, first.dtype)
    begin, end = (first + 1.0) / last, (first + step * (bins * ratio - 1) + 1.0) / last
    windows = tf.cast(tf.concat([begin, end], -1), "float32")
    if features.dtype == "bfloat16":  # which the operation does not take
        padded = tf.cast(padded, "float32")
    points = tf.image.crop_and_resize(padded, windows, owners, (bins * ratio, bins * ratio))
    points = tf.cast(points, features.dtype)
    return tf.nn.avg_pool2d(points, ratio, ratio, "VALID") if ratio > 1 else points


def by_matrices(features, boxes, owners, bins, ratio=2, aligned=False) -> tf.Tensor:
    """RoIAlign by products of matrices.

    Parameters
    ----------
    features, boxes, owners, bins, aligned
        As in `by_crops`.
    ratio : int, default 2
        Points in each direction that a bin is the mean of; 0 for as many as it has pixels.

    Returns
    -------
    tensor of shape (boxes, bins, bins, channels)
    """
    height, width = tf.unstack(tf.shape(features)[1:3])
    rows, columns = (
        tf.cast(interpolation(boxes, axis, size, bins, ratio, aligned), features.dtype)
        for axis, size in enumerate((height, width))
    )
    # One that nobody asked for, where there are none: an array of no parts has no shape.
    more = tf.cast(tf.equal(tf.size(owners), 0), "int32")
    rows, columns = (tf.pad(each, [[0, more], [0, 0], [0, 0]]) for each in (rows, columns))
    found = _interpolated(features, rows, columns, tf.pad(owners, [[0, more]]))
    return found[: tf.size(owners)]


def interpolation(boxes, axis, size, bins, ratio, aligned) -> tf.Tensor:
    """How much of every row, or column, of the features is in every bin.

    Parameters
    ----------
    boxes, bins, ratio, aligned
        As in `by_matrices`.
    axis : {0, 1}
        Rows or columns.
    size : int32 scalar
        Their number.

    Returns
    -------
    tensor of shape (boxes, bins, size)
        A bin's row sums to 1, unless it is partly outside.
    """
    if ratio:
        first, step = (each[:, axis, None, None] for each in _points(boxes, bins * ratio, aligned))
        counts = tf.constant(ratio, "int32")
        numbers = tf.reshape(tf.range(bins * ratio), (1, bins, ratio))
        weights = tf.ones((1, 1, ratio), boxes.dtype) / ratio
        points = first + step * tf.cast(numbers, boxes.dtype)
    else:
        first, side = (each[:, axis] for each in _spans(boxes, aligned))
        side /= bins
        counts = tf.maximum(tf.math.ceil(side), 1.0)
        numbers = tf.range(tf.reduce_max(tf.concat([counts, [1.0]], 0)), dtype=boxes.dtype)
        weights = tf.where(numbers < counts[:, None], 1.0 / counts[:, None], 0.0)[:, None]
        offsets = (numbers + 0.5) / counts[:, None]
        of_bins = tf.range(bins, dtype=boxes.dtype)[None, :, None]
        points = first[:, None, None] + side[:, None, None] * (of_bins + offsets[:, None])
    last = tf.cast(size - 1, points.dtype)
    inside = tf.cast((points >= -1.0) & (points <= last + 1.0), points.dtype)
    points = tf.clip_by_value(points, 0.0, last)[..., None]
    near = tf.maximum(1.0 - tf.abs(points - tf.range(last + 1.0)), 0.0)
    return tf.einsum("nbp,nbps->nbs", weights * inside, near)


def _spans(boxes, aligned):
    """Where regions begin, and their height and width."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = tf.unstack(boxes - shift, axis=-1)
    sides = tf.stack([y2 - y1, x2 - x1], -1)
    return tf.stack([y1, x1], -1), sides if aligned else tf.maximum(sides, 1.0)


def _points(boxes, count, aligned):
    """The first of so many points in each direction, and the way to the next."""
    first, sides = _spans(boxes, aligned)
    step = sides / count
    return first + step / 2, step


def _interpolated(features, rows, columns, owners):
    """Bins of features, some RoIs at a time: together, their rows would need gigabytes."""
    bins, channels = rows.shape[1], features.shape[-1]
    shape, count = tf.shape(features), tf.shape(owners)[0]
    height, width = tf.unstack(shape[1:3])
    ends = tf.searchsorted(owners, tf.range(shape[0]), side="right")

    def in_parts(compute, upstream, *shape):
        """One array of what is computed for each part, which is of a single image."""

        def step(first, owners_of, found):
            owner = owners[first]
            last = tf.minimum(first + _AT_ONCE, ends[owner])
            value = compute(owner, slice(first, last), upstream)
            place = found.size()
            return last, owners_of.write(place, owner), found.write(place, value)

        arrays = (
            tf.TensorArray("int32", 0, dynamic_size=True, element_shape=()),
            tf.TensorArray(features.dtype, 0, dynamic_size=True, infer_shape=False,
                           element_shape=shape),
        )  # fmt: skip
        return tf.while_loop(
            lambda first, *_: first < count, step, (0, *arrays), parallel_iterations=1
        )[1:]

    def forward(owner, part, _):
        image = tf.reshape(features[owner], (height, -1))
        in_rows = tf.reshape(rows[part], (-1, height)) @ image
        return columns[part][:, None] @ tf.reshape(in_rows, (-1, bins, width, channels))

    def backward(_, part, upstream):
        in_rows = tf.matmul(columns[part][:, None], upstream[part], transpose_a=True)
        in_rows = tf.reshape(in_rows, (-1, width * channels))
        image = tf.matmul(tf.reshape(rows[part], (-1, height)), in_rows, transpose_a=True)
        return tf.reshape(image, (height, width, channels))

    @tf.custom_gradient
    def interpolated(_features):
        def gradient(upstream):
            of_image, parts = in_parts(backward, upstream, None, None, channels)
            return tf.math.unsorted_segment_sum(parts.stack(), of_image.stack(), shape[0])

        return in_parts(forward, None, None, bins, bins, channels)[1].concat(), gradient

    return interpolated(features)
