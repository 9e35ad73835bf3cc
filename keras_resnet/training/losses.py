"""Losses by name: what each of them costs an image, by task."""

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from keras_resnet.training.values import in_rows, moments

_FOCUS = 2.0  # the exponent of the focal loss, as in its paper


def asymmetric(
    labels: tf.Tensor,
    outputs: tf.Tensor,
    *,
    positive: float = 0.0,
    negative: float = 4.0,
    margin: float = 0.05,
) -> tf.Tensor:
    """The asymmetric loss: what is absent from most images soon counts little.

    Parameters
    ----------
    labels : tensor of shape (images, labels)
        1 for every label that an image has, 0 for the others, or something in between.
    outputs : float tensor of shape (images, labels)
        Probabilities.
    positive, negative : float, default 0.0 and 4.0
        How much less the labels count that are found, and those that are absent and not found: the
        exponents of 1 - p and of p. 0 for cross-entropy.
    margin : float, default 0.05
        Probability up to which a label that is absent costs nothing.

    Returns
    -------
    tensor of shape (images,)
        Means over the labels.

    References
    ----------
    Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021, and its defaults for
    MS-COCO. There, the loss is the sum over the labels.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from keras_resnet.training.losses import asymmetric
    >>> found = tf.constant([[0.9, 0.04], [0.9, 0.5]])
    >>> [round(float(loss), 4) for loss in asymmetric(tf.constant([[1, 0], [1, 0]]), found)]
    [0.0527, 0.0649]
    """
    least = keras.config.epsilon()  # or gradients of powers and logarithms would be NaN
    labels, found = tf.cast(labels, outputs.dtype), tf.clip_by_value(outputs, least, 1 - least)
    shifted = tf.maximum(found - margin, least)
    present = (1 - found) ** positive * tf.math.log(found)
    absent = shifted**negative * tf.math.log(1 - shifted)
    return -tf.reduce_mean(labels * present + (1 - labels) * absent, -1)


def _of_classes(make):
    """The loss of each image of one class, which may be weighted."""

    def losses(_source, recipe, weights, soft):
        loss = make(recipe, soft)
        if not weights:
            return loss

        def weighted(labels, outputs):
            of_classes = tf.constant(weights, "float32")
            mixed = labels.shape.rank == 2
            return loss(labels, outputs) * (
                tf.linalg.matvec(labels, of_classes)
                if mixed
                else tf.gather(of_classes, tf.cast(labels, "int64"))
            )

        return weighted

    return losses


def _of_labels(make):
    """The mean loss of each image's labels, which may be weighted where an image has them."""

    def losses(_source, recipe, weights, _soft):
        loss = make(recipe.label_smoothing)
        if not weights:
            return loss

        def weighted(labels, outputs):
            labels = tf.cast(labels, "float32")
            of_each = loss(labels[..., None], outputs[..., None])  # rather than their mean
            return tf.reduce_mean(of_each * (1.0 + labels * (tf.constant(weights) - 1.0)), -1)

        return weighted

    return losses


def _of_values(loss):
    """In units of the standard deviation, so that a learning rate suits values of any unit."""

    def losses(source, _recipe, _weights, _soft):
        _, spread = moments(source)
        return lambda labels, outputs: loss(in_rows(labels) / spread, outputs / spread)

    return losses


def _cross_entropy(recipe, soft):
    if soft:
        return keras.losses.CategoricalCrossentropy(
            label_smoothing=recipe.label_smoothing, reduction=None
        )
    return keras.losses.SparseCategoricalCrossentropy(reduction=None)


def _one_against_all(recipe, soft):
    """Of every class, whether an image shows it: from a sigmoid of what the softmax is given.

    The mean over classes, and labels that are smoothed over them, as in timm.
    """

    def loss(labels, outputs):
        logits = _logits_of(outputs)
        classes = logits.shape[-1]
        labels = labels if soft else tf.one_hot(tf.cast(labels, "int64"), classes)
        smoothing, least = recipe.label_smoothing, recipe.target_threshold
        labels = tf.cast(labels, logits.dtype) * (1 - smoothing) + smoothing / classes
        if least is not None:
            labels = tf.cast(labels > least, logits.dtype)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), -1)

    return loss


def _logits_of(probabilities):
    """What a softmax was given, which Keras keeps with what it gives, for its own losses."""
    try:
        return probabilities._keras_logits
    except AttributeError:
        raise ValueError(
            "loss='binary_cross_entropy' of classes needs what the model's softmax is given, and "
            "the model does not end in a softmax of Keras in float32: leave it out."
        ) from None


def _focal(recipe, soft):
    loss = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=_FOCUS, label_smoothing=recipe.label_smoothing, reduction=None
    )
    if soft:
        return loss
    return lambda labels, outputs: loss(
        tf.one_hot(tf.cast(labels, "int64"), outputs.shape[-1]), outputs
    )


def _asymmetric(smoothing):
    def loss(labels, outputs):
        labels = tf.cast(labels, outputs.dtype)
        return asymmetric(labels * (1 - smoothing) + smoothing / 2, outputs)

    return loss


LOSSES: dict[str, Mapping[str, Callable]] = {
    "cross_entropy": {"classification": _of_classes(_cross_entropy)},
    "binary_cross_entropy": {
        # Wightman et al., ResNet strikes back, 2021, section 3.
        "classification": _of_classes(_one_against_all),
        "multilabel": _of_labels(
            lambda smoothing: keras.losses.BinaryCrossentropy(
                label_smoothing=smoothing, reduction=None
            )
        ),
    },
    # Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, without their alpha, which
    # weights what is there against what is not: class weights do.
    "focal": {
        "classification": _of_classes(_focal),
        "multilabel": _of_labels(
            lambda smoothing: keras.losses.BinaryFocalCrossentropy(
                gamma=_FOCUS, label_smoothing=smoothing, reduction=None
            )
        ),
    },
    "asymmetric": {"multilabel": _of_labels(_asymmetric)},
    "squared_error": {"regression": _of_values(keras.losses.MeanSquaredError(reduction=None))},
    "absolute_error": {"regression": _of_values(keras.losses.MeanAbsoluteError(reduction=None))},
    # Squared up to one standard deviation of the training values.
    "huber": {"regression": _of_values(keras.losses.Huber(delta=1.0, reduction=None))},
}
"""By name and by task: functions that make the loss of each image, as `Task.losses` does."""


def loss_of(task: str, name: str) -> Callable:
    """Find what makes a loss for a task.

    Parameters
    ----------
    task : str
        A key of `TASKS`.
    name : str
        A key of `LOSSES`.

    Returns
    -------
    callable
        Makes the loss of each image, given the source, the recipe, class weights or None, and
        whether labels are probabilities.

    Raises
    ------
    ValueError
        If it is for other tasks.

    Examples
    --------
    >>> from keras_resnet.training.losses import loss_of
    >>> loss_of("regression", "asymmetric")
    Traceback (most recent call last):
        ...
    ValueError: loss='asymmetric' is for multilabel, not for regression: choose squared_error, ...
    """
    tasks = LOSSES[name]
    if task in tasks:
        return tasks[task]
    known = [each for each in LOSSES if task in LOSSES[each]]
    advice = f"choose {', '.join(known)}" if known else "leave it out"
    raise ValueError(f"loss={name!r} is for {' and '.join(tasks)}, not for {task}: {advice}.")
