"""One step of training or validation, on all replicas of a strategy."""

from collections.abc import Callable, Mapping
from itertools import zip_longest

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training.averages import WeightAverage

TOTALS = ("loss", "accuracy", "images", "stop")
"""What a step gives: the sum of the losses, the images classified right, the images there were, and
the processes that were asked to stop."""


def training_function(
    model: keras.Model,
    loss: keras.losses.Loss,
    *,
    class_weight: Mapping[int, float] | None = None,
    accumulation: int = 1,
    average: WeightAverage | None = None,
) -> Callable:
    """Make a function that trains a model for some steps.

    The loss of a batch is the mean over all of its images, wherever they are. (Keras takes the mean
    over the replicas of their means, which is another one where they have different numbers of
    images, as in the last batch of an epoch.)

    Parameters
    ----------
    model : keras.Model
        A classifier that ends in a softmax, compiled in the scope of its strategy.
    loss : keras.losses.Loss
        The loss of one image each: of reduction "none".
    class_weight : mapping of int to float, optional
        How much each class counts.
    accumulation : int, default 1
        Parts that each replica takes its images in, one after the other.
    average : WeightAverage, optional
        What is to follow the weights.

    Returns
    -------
    callable
        Given an iterator over batches, a float32 scalar that is 1 if this process was asked to
        stop, and an int32 scalar of steps: carries them out and returns a float32 tensor of shape
        (steps, 4), `TOTALS` of every step, the same on all replicas.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    replicas = model.distribute_strategy.num_replicas_in_sync
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

    def gradients_of(inputs, labels, images):
        """The gradients of a replica's images or a part of them, as a part of all."""
        with tf.GradientTape() as tape:
            totals = _totals(model, loss, class_weight, inputs, labels, training=True)
            mean = totals[0] / images
            if model.losses:
                part = tf.cast(tf.shape(labels)[0], "float32") / images
                mean += part * tf.add_n([tf.cast(each, "float32") for each in model.losses])
            scaled = optimizer.scale_loss(mean)
        return tape.gradient(scaled, variables, unconnected_gradients="zero"), totals

    def accumulated(inputs, labels, images):
        """The same, a part after the other."""
        count, gradients, totals = tf.shape(labels)[0], [], tf.zeros(3)
        for index in range(accumulation):
            first, last = (each * count // accumulation for each in (index, index + 1))
            # Not at the same time, which would take as much memory as all of it at once. (A loop
            # of the graph is out of question: MirroredStrategy cannot reduce anything in one.)
            with tf.control_dependencies(gradients):
                part = (tf.identity(each[first:last]) for each in (inputs, labels))
                its_gradients, its_totals = gradients_of(*part, images)
            gradients = [
                each if former is None else former + each
                for former, each in zip_longest(gradients, its_gradients)
            ]
            totals += its_totals
        return gradients, totals

    def step(inputs, labels, stop):
        # Of all replicas, before anything is differentiated: what a replica's images do to the
        # others through synchronized statistics counts for as much as what they do to itself.
        images = _of_all_replicas(tf.cast(tf.shape(labels)[0], "float32"))[0]
        compute = gradients_of if accumulation == 1 else accumulated
        gradients, totals = compute(inputs, labels, images)
        finite = [tf.reduce_all(tf.math.is_finite(each)) for each in gradients] if scales else []
        overflow = 1.0 - tf.cast(tf.reduce_all(finite), "float32")
        totals = _of_all_replicas(totals, stop, overflow)
        if scales and replicas > 1:
            # A step that overflows on one replica is left out by all: Keras looks at each one's
            # own gradients, and some would wait for others that have left the step out.
            whole = tf.where(totals[4] > 0, np.nan, 1.0)
            gradients = [each * tf.cast(whole, each.dtype) for each in gradients]
        optimizer.apply(gradients, variables)
        if average:
            average.follow(optimizer.iterations)
        return totals[:4]

    return _repeated(step, model)


def validation_function(model: keras.Model, loss: keras.losses.Loss) -> Callable:
    """Make a function that looks at a model's answers to some batches.

    Parameters
    ----------
    model, loss
        As for `training_function`.

    Returns
    -------
    callable
        As that of `training_function`.
    """

    def step(inputs, labels, stop):
        totals = _totals(model, loss, None, inputs, labels, training=False)
        return _of_all_replicas(totals, stop)

    return _repeated(step, model)


def _totals(model, loss, class_weight, inputs, labels, training):
    """Of a replica's images: the sum of their losses, those that are right, their number."""
    probabilities = tf.cast(model(inputs, training=training), "float32")
    losses, mixed = loss(labels, probabilities), labels.shape.rank == 2
    classes = tf.argmax(labels, -1) if mixed else tf.cast(labels, "int64")
    if class_weight:
        weights = [class_weight.get(index, 1.0) for index in range(probabilities.shape[-1])]
        weights = tf.constant(weights, "float32")
        losses *= tf.linalg.matvec(labels, weights) if mixed else tf.gather(weights, classes)
    right = tf.cast(tf.argmax(probabilities, -1) == classes, "float32")
    return tf.stack(
        [tf.reduce_sum(losses), tf.reduce_sum(right), tf.reduce_sum(tf.ones_like(right))]
    )


def _of_all_replicas(*totals):
    context = tf.distribute.get_replica_context()
    totals = tf.concat([tf.reshape(each, [-1]) for each in totals], 0)
    return context.all_reduce("SUM", totals) if context.num_replicas_in_sync > 1 else totals


def _repeated(step, model):
    """A function of a step for one replica becomes one of several steps for all of them."""
    strategy = model.distribute_strategy
    if model.jit_compile and strategy.num_replicas_in_sync == 1:
        step = tf.function(step, jit_compile=True)

    def on_all_replicas(iterator, stop):
        totals = strategy.run(step, args=(*next(iterator), stop))
        return strategy.experimental_local_results(totals)[0]

    @tf.function(reduce_retracing=True)
    def steps(iterator, stop, count):
        totals = tf.TensorArray("float32", count)
        for index in tf.range(count):
            totals = totals.write(index, on_all_replicas(iterator, stop))
        return totals.stack()

    @tf.function(reduce_retracing=True)
    def one(iterator, stop):
        return on_all_replicas(iterator, stop)[None]

    traced = {}

    def run(iterator, stop, count):
        function, arguments = (one, ()) if count == 1 else (steps, (tf.constant(count),))
        # Traced by hand: TensorFlow would take the nets of one process after the other for one
        # function that is traced again and again, and warn of it.
        if function not in traced:
            traced[function] = function.get_concrete_function(iterator, stop, *arguments)
        return traced[function](iterator, stop, *arguments)

    return run
