"""One step of training or validation, on all replicas of a strategy."""

from collections.abc import Callable
from itertools import zip_longest

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.training.averages import WeightAverage
from keras_resnet.training.tasks import Objective


def training_function(
    model: keras.Model,
    objective: Objective,
    *,
    accumulation: int = 1,
    average: WeightAverage | None = None,
) -> Callable:
    """Make a function that trains a model for some steps.

    The loss of a batch is the mean over all of its images, on whatever replica they are. (Keras
    takes the mean of the replicas' means, which differs where replicas have different numbers of
    images, as in the last batch of an epoch.)

    Parameters
    ----------
    model : keras.Model
        The model, compiled in the scope of its strategy.
    objective : Objective
        What a step computes.
    accumulation : int, default 1
        Parts in which each replica takes its images, one after the other.
    average : WeightAverage, optional
        A moving average that follows the weights.

    Returns
    -------
    callable
        Given an iterator over batches, a float32 scalar that is 1 if this process was asked to
        stop, and an int32 scalar of steps: takes them and returns a float32 tensor of shape (steps,
        totals + 1), the same on all replicas: `objective.totals` of every step, and the number of
        replicas that were asked to stop.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    replicas = model.distribute_strategy.num_replicas_in_sync
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    # What is to be blamed is found out with the weights from before the step.
    keeps = objective.suspects is not None and not scales
    count = len(objective.totals)

    def gradients_of(inputs, labels, images):
        """Gradients of the mean loss of all images with respect to some of them."""
        with tf.GradientTape() as tape:
            totals = objective.sums(model, inputs, labels, training=True)
            mean = totals[0] / images
            if model.losses:
                part = tf.cast(_images(labels), "float32") / images
                mean += part * tf.add_n([tf.cast(each, "float32") for each in model.losses])
            scaled = optimizer.scale_loss(mean)
        return tape.gradient(scaled, variables, unconnected_gradients="zero"), totals

    def accumulated(inputs, labels, images):
        """The same, one part after the other."""
        mine, gradients, totals = _images(labels), [], tf.zeros(count)
        for index in range(accumulation):
            first, last = (each * mine // accumulation for each in (index, index + 1))
            # Not all at once, which would take as much memory as the whole batch. (A loop in the
            # graph is not an option: MirroredStrategy cannot reduce anything inside one.)
            with tf.control_dependencies(gradients):
                its_inputs, its_labels = tf.nest.map_structure(
                    lambda each, first=first, last=last: tf.identity(each[first:last]),
                    (inputs, labels),
                )
                its_gradients, its_totals = gradients_of(its_inputs, its_labels, images)
            gradients = [
                each if former is None else former + each
                for former, each in zip_longest(gradients, its_gradients)
            ]
            totals += its_totals
        return gradients, totals

    def step(inputs, labels, stop):
        # On all replicas, before anything is differentiated: through synchronized statistics, the
        # images of one replica matter as much to the others as to itself.
        images = _of_all_replicas(tf.cast(_images(labels), "float32"))[0]
        compute = gradients_of if accumulation == 1 else accumulated
        gradients, totals = compute(inputs, labels, images)
        looks = [totals[:1], *gradients] if keeps else gradients if scales else []
        finite = [tf.reduce_all(tf.math.is_finite(each)) for each in looks]
        overflow = 1.0 - tf.cast(tf.reduce_all(finite), "float32")
        totals = _of_all_replicas(totals, stop, overflow)
        if scales and replicas > 1:
            # If a step overflows on one replica, all skip it: Keras looks at each replica's own
            # gradients, and some would wait for others that skipped the step.
            whole = tf.where(totals[-1] > 0, np.nan, 1.0)
            gradients = [each * tf.cast(whole, each.dtype) for each in gradients]
        if keeps:
            lost = totals[-1] > 0
            gradients = [tf.where(lost, tf.zeros_like(each), each) for each in gradients]
            totals = tf.concat([tf.where(lost, np.nan, totals[:1]), totals[1:]], 0)
        optimizer.apply(gradients, variables)
        if average:
            average.follow(optimizer.iterations)
        return totals[: count + 1]

    return _repeated(step, model)


def validation_function(model: keras.Model, objective: Objective) -> Callable:
    """Make a function that measures a model on some batches.

    Parameters
    ----------
    model, objective
        As for `training_function`.

    Returns
    -------
    callable
        Like that of `training_function`.
    """

    def step(inputs, labels, stop):
        return _of_all_replicas(objective.sums(model, inputs, labels, training=False), stop)

    return _repeated(step, model)


def _images(labels):
    """The number of images, from labels of any structure."""
    return tf.shape(tf.nest.flatten(labels)[0])[0]


def _of_all_replicas(*totals):
    context = tf.distribute.get_replica_context()
    totals = tf.concat([tf.reshape(each, [-1]) for each in totals], 0)
    return context.all_reduce("SUM", totals) if context.num_replicas_in_sync > 1 else totals


def _repeated(step, model):
    """Turn a step of one replica into a function of several steps of all replicas."""
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
        # Traced by hand: TensorFlow would take the models that one process trains for a single
        # function that is traced again and again, and warn.
        if function not in traced:
            traced[function] = function.get_concrete_function(iterator, stop, *arguments)
        return traced[function](iterator, stop, *arguments)

    return run
