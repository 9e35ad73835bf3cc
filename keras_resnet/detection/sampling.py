"""Which anchors and RoIs are in the losses, and what each of them should find."""

from typing import NamedTuple

import tensorflow as tf


class Truth(NamedTuple):
    """What is to be seen in the images of a batch, as far as it matters to boxes.

    Parameters
    ----------
    boxes : tensor of shape (images, boxes, 4)
        Boxes as x1, y1, x2, y2; those of rows without a box may be anything finite.
    found : bool tensor of shape (images, boxes)
        Which of them a detector is to find.
    ignored : bool tensor of shape (images, boxes)
        Which of them it may find or not.
    """

    boxes: tf.Tensor
    found: tf.Tensor
    ignored: tf.Tensor


class Matches(NamedTuple):
    """What candidates, such as anchors, have to do with the boxes of their images.

    Parameters
    ----------
    box : int32 tensor of shape (images, candidates)
        The box that each overlaps most; 0 for one that overlaps none.
    positive : bool tensor of shape (images, candidates)
        Whether it is to find that box.
    negative : bool tensor of shape (images, candidates)
        Whether it is to find nothing. A candidate may be neither.
    """

    box: tf.Tensor
    positive: tf.Tensor
    negative: tf.Tensor


class Samples(NamedTuple):
    """Candidates that were chosen, those that are positive first.

    Parameters
    ----------
    index : int32 tensor of shape (images, samples)
        Which candidates.
    positive : bool tensor of shape (images, samples)
        Whether each is positive.
    valid : bool tensor of shape (images, samples)
        Whether there is a candidate at all: an image may have too few.
    """

    index: tf.Tensor
    positive: tf.Tensor
    valid: tf.Tensor


def match(
    candidates: tf.Tensor,
    truth: Truth,
    *,
    foreground: float,
    background: float,
    low_quality: bool = False,
) -> Matches:
    """Decide which candidates are to find which boxes.

    Boxes are gone through one after the other, so that no matrix of all overlaps is needed: with
    200,000 anchors and 300 boxes, one takes 240 MB an image, several times over.

    Parameters
    ----------
    candidates : tensor of shape (images, candidates, 4) or (1, candidates, 4)
        Boxes.
    truth : Truth
        What is to be seen.
    foreground : float
        IoU with a box from which a candidate is positive.
    background : float
        IoU with all boxes below which it is negative, unless as much of it is in an ignored box.
    low_quality : bool, default False
        Whether the candidates that overlap a box most are positive, too, however little that is.
        (As in torchvision, they are to find the box that they themselves overlap most.)

    Returns
    -------
    Matches

    References
    ----------
    Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
    NIPS 2015, section 3.1.2.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from keras_resnet.detection.sampling import Truth, match
    >>> box = tf.constant([[[0.0, 0, 10, 10]]])
    >>> truth = Truth(box, tf.constant([[True]]), tf.constant([[False]]))
    >>> anchors = tf.constant([[[0.0, 0, 10, 8], [0, 0, 10, 4], [20, 0, 30, 10]]])
    >>> matches = match(anchors, truth, foreground=0.7, background=0.3)
    >>> matches.positive.numpy().tolist(), matches.negative.numpy().tolist()
    ([[True, False, False]], [[False, False, True]])
    """
    candidates = tf.stop_gradient(candidates)
    boxes = tf.cast(truth.boxes, candidates.dtype)
    left, top, right, bottom = tf.unstack(candidates, axis=-1)
    areas = (right - left) * (bottom - top)
    shape = tf.stack([tf.shape(boxes)[0], tf.shape(candidates)[1]])
    zeros, no = tf.zeros(shape, candidates.dtype), tf.zeros(shape, "bool")

    def overlaps(row):
        """Areas that candidates have in common with a box of each image, and IoU with it."""
        x1, y1, x2, y2 = tf.unstack(boxes[:, row, None], axis=-1)
        width = tf.maximum(tf.minimum(right, x2) - tf.maximum(left, x1), 0.0)
        height = tf.maximum(tf.minimum(bottom, y2) - tf.maximum(top, y1), 0.0)
        common = width * height
        return common, tf.math.divide_no_nan(common, areas + (x2 - x1) * (y2 - y1) - common)

    def look(row, best, box, chosen, covered):
        common, overlap = overlaps(row)
        overlap = tf.where(truth.found[:, row, None], overlap, 0.0)
        inside = tf.where(truth.ignored[:, row, None], tf.math.divide_no_nan(common, areas), 0.0)
        if low_quality:
            highest = tf.reduce_max(overlap, 1, keepdims=True)
            chosen |= (overlap == highest) & (highest > 0.0)
        box = tf.where(overlap > best, row, box)
        return row + 1, tf.maximum(overlap, best), box, chosen, tf.maximum(inside, covered)

    # The last row that has a box in any of the images.
    there = tf.reduce_any(truth.found | truth.ignored, 0)
    rows = tf.reduce_max(tf.where(there, tf.range(1, tf.shape(there)[0] + 1), 0))
    _, best, box, chosen, covered = tf.while_loop(
        lambda row, *_: row < rows,
        look,
        (tf.constant(0), zeros, tf.zeros(shape, "int32"), no, zeros),
    )
    positive = chosen | (best >= foreground)
    return Matches(box, positive, ~positive & (best < background) & (covered < background))


def sample(matches: Matches, chances: tf.Tensor, size: int, fraction: float) -> Samples:
    """Choose candidates at random, a fixed number of them for each image.

    Parameters
    ----------
    matches : Matches
        What the candidates are.
    chances : tensor of shape (images, candidates)
        Random numbers: the highest are chosen. All must be at least 0.
    size : int
        Samples of each image; all candidates if that is fewer.
    fraction : float
        Fraction of `size` that is positive, at most. Where there are fewer, negative ones take
        their places.

    Returns
    -------
    Samples

    Examples
    --------
    >>> import tensorflow as tf
    >>> from keras_resnet.detection.sampling import Matches, sample
    >>> positive = tf.constant([[True, True, False, False, False]])
    >>> matches = Matches(tf.zeros((1, 5), "int32"), positive, ~positive)
    >>> chances = tf.constant([[0.1, 0.2, 0.3, 0.4, 0.5]])
    >>> sample(matches, chances, 3, 0.4).index.numpy().tolist()
    [[1, 4, 3]]
    """
    candidates = tf.shape(chances)[1]
    size, most = tf.minimum(size, candidates), tf.minimum(int(size * fraction), candidates)

    def chosen(which, count):
        value, index = tf.math.top_k(tf.where(which, chances, -1.0), count)
        return index, value >= 0.0

    positives, are_positive = chosen(matches.positive, most)
    negatives, are_negative = chosen(matches.negative, size)
    left = size - tf.reduce_sum(tf.cast(are_positive, "int32"), 1, keepdims=True)
    are_negative &= tf.range(size) < left
    index, valid = tf.concat([positives, negatives], 1), tf.concat([are_positive, are_negative], 1)
    positive = tf.concat([are_positive, tf.zeros_like(are_negative)], 1)
    # Those that there are, in their order, and as many others as it takes.
    order = tf.argsort(tf.cast(valid, "int32"), 1, "DESCENDING", stable=True)[:, :size]
    return Samples(*(tf.gather(each, order, batch_dims=1) for each in (index, positive, valid)))


def chances(seeds: tf.Tensor, candidates: tf.Tensor, stage: int) -> tf.Tensor:
    """Draw random numbers that depend on the image alone, not on its batch or the device.

    Parameters
    ----------
    seeds : int32 tensor of shape (images, 2)
        A seed for each image.
    candidates : int tensor
        How many numbers to draw for each.
    stage : int
        What they are for: others are drawn for another.

    Returns
    -------
    float32 tensor of shape (images, candidates)
        From 0 to 1.
    """

    def draw(seed):
        # "philox": what TensorFlow takes by itself depends on the device.
        seed = tf.random.fold_in(seed, stage, alg="philox")
        return tf.random.stateless_uniform(tf.reshape(candidates, [1]), seed, alg="philox")

    return tf.map_fn(draw, seeds, fn_output_signature=tf.TensorSpec((None,), "float32"))
