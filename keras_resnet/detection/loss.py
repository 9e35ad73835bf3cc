"""The losses of Faster R-CNN: of anchors, and of RoIs."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization

from keras_resnet.detection.boxes import WEIGHTS, encode
from keras_resnet.detection.faster_rcnn import Parts
from keras_resnet.detection.options import Options
from keras_resnet.detection.sampling import Truth, chances, match, sample
from keras_resnet.graphs import flat_layers

_BETA = 1 / 9  # where the loss of a delta turns from a square into a line
_ANCHORS, _ROIS = range(2)  # what random numbers are drawn for
_AT_ONCE = 2**29  # bytes that the box head may keep of the RoIs that it is shown at once

LOSSES = ("classifier", "box_reg", "objectness", "rpn_box_reg")
"""The names of the losses, as in torchvision."""


class Sums(NamedTuple):
    """The losses of a detector, summed over each image.

    Parameters
    ----------
    classifier, box_reg, objectness, rpn_box_reg : tensor of shape (images,)
        The sums.
    rois, anchors : tensor of shape (images,)
        What their sums over all images are divided by: RoIs for the first two, anchors for the
        others.
    of_rois : tensor of shape ()
        The sum of `classifier` and `box_reg`. In `sums_in_parts`, this alone has a gradient.
    """

    classifier: tf.Tensor
    box_reg: tf.Tensor
    objectness: tf.Tensor
    rpn_box_reg: tf.Tensor
    rois: tf.Tensor
    anchors: tf.Tensor
    of_rois: tf.Tensor


class RegionSums(NamedTuple):
    """Losses of the anchors that were sampled, summed over each image.

    Parameters
    ----------
    objectness, rpn_box_reg : tensor of shape (images,)
        The sums.
    sampled : tensor of shape (images,)
        The number of anchors.
    """

    objectness: tf.Tensor
    rpn_box_reg: tf.Tensor
    sampled: tf.Tensor


class RoIs(NamedTuple):
    """RoIs that were sampled, and what is to be found in them.

    Parameters
    ----------
    boxes : tensor of shape (images, rois, 4)
        Where they are.
    classes : int32 tensor of shape (images, rois)
        What they show; 0 is the background.
    deltas : tensor of shape (images, rois, 4)
        Where it is, from there; 0 for the background.
    valid : bool tensor of shape (images, rois)
        Whether there is a RoI at all.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    deltas: tf.Tensor
    valid: tf.Tensor


def smooth_l1(predicted: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The loss of deltas: squares up to a difference of 1/9, lines beyond, summed over a box.

    Parameters
    ----------
    predicted, target : tensor of shape (..., 4)
        Deltas.

    Returns
    -------
    tensor of shape (...)

    Examples
    --------
    >>> import tensorflow as tf
    >>> from keras_resnet.detection.loss import smooth_l1
    >>> loss = smooth_l1(tf.constant([[1.0, 1 / 9, 0, 0]]), tf.zeros((1, 4)))
    >>> loss.numpy().round(4).tolist()
    [1.0]
    """
    distance = tf.abs(predicted - target)
    square, line = 0.5 / _BETA * distance**2, distance - 0.5 * _BETA
    return tf.reduce_sum(tf.where(distance < _BETA, square, line), -1)


def region_sums(
    objectness: tf.Tensor,
    deltas: tf.Tensor,
    anchors: tf.Tensor,
    truth: Truth,
    seeds: tf.Tensor,
    options: Options,
) -> RegionSums:
    """Compare what a region proposal network says of its anchors with the truth.

    Parameters
    ----------
    objectness : tensor of shape (images, anchors)
        Logits.
    deltas : tensor of shape (images, anchors, 4)
        Where the objects are, from the anchors.
    anchors : tensor of shape (anchors, 4)
        The anchors.
    truth : Truth
        What is to be seen.
    seeds : int32 tensor of shape (images, 2)
        Seeds of the choice.
    options : Options
        The detector's.

    Returns
    -------
    RegionSums
    """
    anchors = anchors[None]
    matches = match(
        anchors,
        truth,
        foreground=options.rpn_fg_iou_thresh,
        background=options.rpn_bg_iou_thresh,
        low_quality=True,
    )
    numbers = chances(seeds, tf.shape(objectness)[1], _ANCHORS)
    size, fraction = options.rpn_batch_size_per_image, options.rpn_positive_fraction
    index, positive, valid = sample(matches, numbers, size, fraction)
    objectness, deltas = (tf.gather(each, index, batch_dims=1) for each in (objectness, deltas))
    found = tf.gather(truth.boxes, tf.gather(matches.box, index, batch_dims=1), batch_dims=1)
    target = _targets(found, tf.gather(anchors[0], index), positive)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(positive, objectness.dtype), logits=objectness
    )
    return RegionSums(
        _sum(entropy, valid),
        _sum(smooth_l1(deltas, tf.cast(target, deltas.dtype)), positive),
        _sum(tf.ones_like(entropy), valid),
    )


def sample_rois(
    proposals: tf.Tensor,
    count: tf.Tensor,
    truth: Truth,
    classes: tf.Tensor,
    seeds: tf.Tensor,
    options: Options,
) -> RoIs:
    """Choose the RoIs to learn from, among proposals and the boxes themselves.

    Parameters
    ----------
    proposals : tensor of shape (images, proposals, 4)
        Proposals.
    count : int tensor of shape (images,)
        How many of them there are.
    truth : Truth
        What is to be seen.
    classes : int tensor of shape (images, boxes)
        The class of each box; 0 is the first that is not background.
    seeds : int32 tensor of shape (images, 2)
        Seeds of the choice.
    options : Options
        The detector's.

    Returns
    -------
    RoIs
    """
    proposals = tf.stop_gradient(proposals)
    candidates = tf.concat([proposals, tf.cast(truth.boxes, proposals.dtype)], 1)
    there = tf.sequence_mask(count, tf.shape(proposals)[1])
    there = tf.concat([there, truth.found], 1)
    matches = match(
        candidates,
        truth,
        foreground=options.box_fg_iou_thresh,
        background=options.box_bg_iou_thresh,
    )
    matches = matches._replace(positive=matches.positive & there, negative=matches.negative & there)
    numbers = chances(seeds, tf.shape(candidates)[1], _ROIS)
    size, fraction = options.box_batch_size_per_image, options.box_positive_fraction
    index, positive, valid = sample(matches, numbers, size, fraction)
    boxes = tf.gather(candidates, index, batch_dims=1)
    which = tf.gather(matches.box, index, batch_dims=1)
    found = tf.gather(truth.boxes, which, batch_dims=1)
    classes = tf.gather(tf.cast(classes, "int32"), which, batch_dims=1) + 1
    return RoIs(
        boxes,
        tf.where(positive, classes, 0),
        _targets(found, boxes, positive, WEIGHTS),
        valid,
    )


def roi_losses(logits: tf.Tensor, deltas: tf.Tensor, rois: RoIs) -> tuple[tf.Tensor, tf.Tensor]:
    """Compare what a box head says of RoIs with the truth.

    Parameters
    ----------
    logits : tensor of shape (..., classes + 1)
        Logits of the background and the classes.
    deltas : tensor of shape (..., (classes + 1) * 4)
        Where the object is, from the RoI, if it is of that class.
    rois : RoIs
        Of shapes (..., 4) and (...).

    Returns
    -------
    tuple of two tensors of shape (...)
        The loss of its class, and that of its box, of each RoI; 0 where there is none.
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=rois.classes, logits=logits)
    shape = tf.concat([tf.shape(logits), [4]], 0)
    of_class = tf.gather(
        tf.reshape(deltas, shape), rois.classes, batch_dims=rois.classes.shape.rank
    )
    regression = smooth_l1(of_class, tf.cast(rois.deltas, of_class.dtype))
    is_object = rois.valid & (rois.classes > 0)
    return (
        tf.where(rois.valid, entropy, tf.zeros_like(entropy)),
        tf.where(is_object, regression, tf.zeros_like(regression)),
    )


def losses(
    parts: Parts, inputs: Mapping, labels: Mapping, training: bool = True
) -> dict[str, tf.Tensor]:
    """Measure what a detector gets wrong, as torchvision does.

    All four can be differentiated. `keras_resnet.training.train` needs less memory: it shows the
    box head some RoIs at a time.

    Parameters
    ----------
    parts : Parts
        The detector's.
    inputs, labels : mapping of str to tensor
        A batch, as `detection.batches` makes them. Its `seeds` decide which anchors and RoIs are
        sampled.
    training : bool, default True
        Whether layers are to behave as in training.

    Returns
    -------
    dict of str to scalar tensor
        "classifier" and "box_reg", of the RoIs; "objectness" and "rpn_box_reg", of the anchors.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detector = detection.FasterRCNN(backbone, classes=3, min_size=64, max_size=96)
    >>> inputs = {"images": np.zeros((1, 50, 60, 3), "float32"), "sizes": np.array([[50, 60]])}
    >>> labels = {
    ...     "boxes": np.array([[[10, 10, 40, 50]]], "float32"),
    ...     "classes": np.array([[2]]),
    ...     "ignored": np.array([[False]]),
    ...     "seeds": np.array([[0, 0]]),
    ... }
    >>> sorted(detection.losses(detection.parts_of(detector), inputs, labels))
    ['box_reg', 'classifier', 'objectness', 'rpn_box_reg']
    """
    sums = _sums(parts, inputs, labels, training, _at_once)
    return {
        name: tf.math.divide_no_nan(tf.reduce_sum(getattr(sums, name)), tf.reduce_sum(count))
        for name, count in zip(LOSSES, [sums.rois] * 2 + [sums.anchors] * 2, strict=True)
    }


def sums_in_parts(parts: Parts, inputs: Mapping, labels: Mapping, training: bool) -> Sums:
    """Measure what a detector gets wrong, some RoIs at a time.

    What a box head of many layers keeps of 1,000 RoIs takes gigabytes. Here it is shown as many as
    half a gigabyte is enough for, and their gradient is taken at once, with nothing computed twice:
    of a sum, the parts can be differentiated one after the other.

    Parameters
    ----------
    parts, inputs, labels, training
        As in `losses`.

    Returns
    -------
    Sums
        `classifier` and `box_reg` cannot be differentiated, but their sum can, `of_rois`.
    """
    in_parts = not training or _is_separable(parts.box_head)
    return _sums(parts, inputs, labels, training, _in_parts if in_parts else _at_once)


def _sums(parts, inputs, labels, training, look):
    """The losses, summed over each image; `look` computes those of RoIs."""
    options, seeds = parts.options, labels["seeds"]
    batch, sizes = parts.transform(inputs["images"], inputs["sizes"])
    truth = _truth(labels, inputs["sizes"], sizes)
    levels = parts.levels(batch, training)
    objectness, deltas = parts.rpn(levels, training=training)
    anchors, counts = parts.anchors(batch, levels)
    regions = region_sums(objectness, deltas, anchors, truth, seeds, options)
    proposals, kept = parts.proposals(objectness, deltas, anchors, counts, sizes, training=training)
    rois = sample_rois(proposals, kept, truth, labels["classes"], seeds, options)
    of_rois, sums = look(parts, levels, batch, rois, training)
    classifier, box_reg = tf.unstack(sums, axis=1)
    sampled = tf.reduce_sum(tf.cast(rois.valid, regions.sampled.dtype), 1)
    return Sums(classifier, box_reg, *regions[:2], sampled, regions.sampled, of_rois)


def _truth(labels, sizes, resized):
    """What is to be seen, in pixels of the batch."""
    factors = tf.cast(resized, "float64") / tf.cast(sizes, "float64")
    factors = tf.gather(factors, (1, 0, 1, 0), axis=1)[:, None]
    boxes = tf.cast(labels["boxes"], "float64") * factors
    there = (labels["classes"] >= 0) & tf.reduce_all(boxes[..., 2:] > boxes[..., :2], -1)
    boxes = tf.cast(boxes, keras.config.floatx())
    return Truth(boxes, there & ~labels["ignored"], there & labels["ignored"])


def _at_once(parts, levels, batch, rois, training):
    """The losses of all RoIs: their sum, and the sums of each image, of shape (images, 2)."""
    logits, deltas = parts.box_head(parts.pooled(levels, batch, rois.boxes), training=training)
    shape = tf.shape(rois.classes)
    logits, deltas = (
        tf.reshape(each, (shape[0], shape[1], each.shape[-1])) for each in (logits, deltas)
    )
    found = roi_losses(logits, deltas, rois)
    sums = tf.stack([tf.reduce_sum(each, 1) for each in found], 1)
    return tf.reduce_sum(sums), sums


def _in_parts(parts, levels, batch, rois, training):
    """The same, some RoIs at a time; the gradient of their sum is computed along with it."""
    images, count = tf.unstack(tf.shape(rois.classes))
    some = tf.maximum(_AT_ONCE // _bytes(parts.box_head) // images, 1)
    fixed = [tf.stop_gradient(each) for each in levels]
    variables = [each.value for each in parts.box_head.trainable_variables] if training else []
    sources = [*fixed, *variables] if training else []

    def look(first, sums, *gradients):
        last = tf.minimum(first + some, count)
        its = RoIs(*(each[:, first:last] for each in rois))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            total, found = _at_once(parts, fixed, batch, its, training)
        found = [sums + found]
        if sources:
            others = tape.gradient(total, sources, unconnected_gradients="zero")
            found += [each + other for each, other in zip(gradients, others, strict=True)]
        return last, *found

    dtype = parts.box_head.outputs[0].dtype
    zeros = [tf.zeros((images, 2), dtype), *map(tf.zeros_like, sources)]
    _, sums, *gradients = tf.while_loop(
        lambda first, *_: first < count, look, (tf.constant(0), *zeros), parallel_iterations=1
    )
    total, sums = tf.reduce_sum(sums), tf.stop_gradient(sums)
    if not sources:
        return total, sums
    return _with_gradients(tf.stop_gradient(total), [*levels, *variables], gradients), sums


def _with_gradients(value, sources, gradients):
    """A scalar whose gradients are known."""
    gradients = [tf.stop_gradient(each) for each in gradients]

    @tf.custom_gradient
    def known(*_):
        return tf.identity(value), lambda upstream: [
            tf.cast(upstream, each.dtype) * each for each in gradients
        ]

    return known(*map(tf.convert_to_tensor, sources))


def _is_separable(box_head):
    """Whether RoIs do not matter to each other, and gradients need no scale."""
    layers = flat_layers(box_head)
    learned = [each.trainable for each in layers if isinstance(each, BatchNormalization)]
    return not any(learned) and all(each.compute_dtype != "float16" for each in layers)


def _bytes(box_head):
    """What a box head keeps of a RoI to take the gradient, if it keeps all that its layers make."""
    # Layers of a backbone were first called on images, of any size: the head's own calls count.
    calls = itertools.chain.from_iterable(box_head._nodes_by_depth.values())
    made = [tensor for call in calls for tensor in call.outputs]
    return sum(np.prod(each.shape[1:]) * tf.as_dtype(each.dtype).size for each in made)


def _sum(losses, which):
    """The sum of some losses of each image."""
    return tf.reduce_sum(tf.where(which, losses, tf.zeros_like(losses)), 1)


def _targets(found, candidates, positive, weights=(1.0, 1.0, 1.0, 1.0)):
    """Deltas that positive candidates are to give; others may have no sides to divide by."""
    positive = positive[..., None]
    square = tf.constant((0.0, 0.0, 1.0, 1.0), candidates.dtype)
    found = tf.where(positive, tf.cast(found, candidates.dtype), square)
    return tf.stop_gradient(encode(found, tf.where(positive, candidates, square), weights))
