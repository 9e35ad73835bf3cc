"""The trials of `batch_norm`: models that are trained, and what is measured of them."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import checks, data, export, graphs, training, zoo
from keras_resnet.experiments import trainings
from keras_resnet.experiments.experiment import Trial
from keras_resnet.experiments.trainings import TrainingSettings

MOMENTUM = 0.9
"""Of the moving statistics of our models, as in PyTorch, where it is called 0.1."""

GROUPS = 8
"""Of GroupNormalization: the first stage of the CIFAR models has only 16 channels."""

TUNED = {"head": 0.01, "all": 0.001}
"""What learns in fine-tuning, and its learning rate."""

_NORMALIZATION = keras.layers.BatchNormalization


@dataclass(frozen=True, kw_only=True)
class BatchNormSettings(TrainingSettings):
    """What can be chosen: what `TrainingSettings` have, and what is varied around it.

    Parameters
    ----------
    depth : int, default 8
        Layers of the models, 6n + 2.
    learning_rates : tuple of float, default (0.03, 0.1, 0.3, 1.0, 3.0)
        For `batch_size` images per step, with and without normalization.
    batch_sizes : tuple of int, default (2, 8, 32, 128)
        Images per step. The learning rate is proportional, so that all see the same images.
    momenta : tuple of float, default (0.0, 0.9, 0.99, 0.999)
        Of the moving statistics, from 0 to 1.
    test_batch_sizes : tuple of int, default (1, 2, 4, 8, 32, 128)
        Images that are normalized together in a test that uses the statistics of the batch.
    tuning_batch_size : int, default 4
        Images per step of fine-tuning.
    tuning_steps : tuple of int, default (0, 5, 20, 50, 100, 200)
        When fine-tuning is tested.
    """

    depth: int = 8
    learning_rate: float = 0.1
    epochs: int = 4
    images: int | None = 1280
    test_images: int | None = 1000
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    batch_sizes: tuple[int, ...] = (2, 8, 32, 128)
    momenta: tuple[float, ...] = (0.0, 0.9, 0.99, 0.999)
    test_batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 32, 128)
    tuning_batch_size: int = 4
    tuning_steps: tuple[int, ...] = (0, 5, 20, 50, 100, 200)

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depth(depth=self.depth)
        checks.check_range("count", tuning_batch_size=self.tuning_batch_size)
        for name, kind in {
            "learning_rates": "positive",
            "batch_sizes": "count",
            "momenta": "fraction",
            "test_batch_sizes": "count",
            "tuning_steps": "index",
        }.items():
            values = getattr(self, name)
            several = values if isinstance(values, tuple) else ()
            for value in several:
                checks.check_range(kind, **{name: value})
            if not several or len(several) > len({*several}):
                raise ValueError(f"{name}={values!r} must be different numbers, such as [1, 2].")


class Run(NamedTuple):
    """A training.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    learning_rate : float
        The highest.
    batch_size : int
        Images per step.
    momentum : float, default MOMENTUM
        Of the moving statistics.
    """

    kind: str
    learning_rate: float
    batch_size: int
    momentum: float = MOMENTUM

    def trial(self, seed: int) -> str:
        """What its trial is called."""
        numbers = (f"{each:g}" for each in (self.learning_rate, self.batch_size, self.momentum))
        return f"{self.kind}-{'-'.join(numbers)}-{seed}"


class Images(NamedTuple):
    """Decoded images and their classes."""

    pixels: np.ndarray
    labels: np.ndarray


def _with_groups(model):
    """The same model with GroupNormalization, from the same kernels."""

    def twin(layer):
        if isinstance(layer, _NORMALIZATION):
            return keras.layers.GroupNormalization(GROUPS, epsilon=layer.epsilon, name=layer.name)
        return graphs.twin_of(layer)

    twins = keras.models.clone_model(
        model,
        clone_function=twin,
        # BatchNormalization is called with a mask, which GroupNormalization does not take.
        call_function=lambda layer, *inputs, **_: layer(*inputs),
    )
    for layer in model.layers:
        if layer.weights and not isinstance(layer, _NORMALIZATION):
            graphs.copy_state(layer, twins.get_layer(layer.name))
    return twins


KINDS: dict[str, Callable[[keras.Model], keras.Model]] = {
    "batch": lambda model: model,
    # Fresh statistics normalize nothing. Folded into the convolutions, they leave biases.
    "none": export.fold_batch_norm,
    "group": _with_groups,
}
"""What becomes of a fresh model with BatchNormalization."""


def reference_run(settings):
    """The training that others are compared with, and whose model is measured."""
    return Run("batch", settings.learning_rate, settings.batch_size)


def runs_by_rate(settings, kind):
    """Trainings with several learning rates."""
    return [Run(kind, rate, settings.batch_size) for rate in settings.learning_rates]


def runs_by_size(settings, kind):
    """Trainings with several batch sizes, and learning rates in proportion."""
    rate = settings.learning_rate / settings.batch_size
    return [Run(kind, rate * size, size) for size in settings.batch_sizes]


def runs_by_momentum(settings):
    """Trainings with several momenta of the moving statistics."""
    return [reference_run(settings)._replace(momentum=momentum) for momentum in settings.momenta]


def trials(settings):
    """All trials."""
    runs = [
        *(runs_by_rate(settings, "batch") + runs_by_rate(settings, "none")),
        *(runs_by_size(settings, "batch") + runs_by_size(settings, "group")),
        *runs_by_momentum(settings),
    ]
    return [
        Trial(name, work)
        for seed in range(settings.seeds)
        for name, work in {
            f"bias-{seed}": partial(_biased, settings, seed),
            **{run.trial(seed): partial(_trained, settings, run, seed) for run in runs},
            reference_run(settings).trial(seed): partial(_measured, settings, seed),
        }.items()
    ]


def _built(settings, run, seed, images):
    """A fresh model of a kind."""
    model = trainings.classifier(
        images,
        seed,
        zoo.CIFARResNet,
        settings.depth,
    )
    for layer in _normalizations(model):
        layer.momentum = run.momentum
    return KINDS[run.kind](model)


def _normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, _NORMALIZATION)]


def _curve(settings, run, seed, context):
    """A trained model, its curve, and its errors in both modes."""
    model = _built(settings, run, seed, context.images)
    rate = run.learning_rate * 256 / run.batch_size  # a recipe's is that of 256 images per step
    curve = trainings.train(
        *(model, settings, seed, context), learning_rate=rate, batch_size=run.batch_size
    )
    tested = Examined(model, _decoded(context.images.test, context.images))
    start = time.perf_counter()
    curve["moving"] = tested.error()
    if run.kind == "batch":
        curve["batch"] = tested.error(tested.shuffled(seed), run.batch_size, training=True)
    curve["seconds"] += time.perf_counter() - start
    return tested, curve


def _trained(settings, run, seed, context):
    """What a training found; that it diverged is a result."""
    try:
        return _curve(settings, run, seed, context)[1]
    except training.DivergedError:
        return {"diverged": True}


def _measured(settings, seed, context):
    """What the training that others are compared with found, and mistakes with its model."""
    tested, curve = _curve(settings, reference_run(settings), seed, context)
    start = time.perf_counter()
    train = _decoded(context.images.train, context.images)
    found = {
        "classes": len(context.images.class_names),
        **_neighbours(tested, settings.test_batch_sizes, seed),
        "never": _never_updated(tested),
        **_folded(tested),
    }
    for part, training_mode in itertools.product(TUNED, (False, True)):
        mode = "batch" if training_mode else "moving"
        errors = _fine_tuned(settings, tested, train, part, training_mode, seed)
        found[f"{part}_{mode}"] = errors
    curve["seconds"] += time.perf_counter() - start
    return {**curve, **found}


def _decoded(split, source):
    """All images of a split."""
    batches = data.batches(
        split, image_size=source.image_size, channels=source.channels, batch_size=250
    )
    pixels, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return Images(np.concatenate(pixels), np.concatenate(labels).reshape(-1))


class Examined:
    """A model and test images, which are shown in batches of any size and order.

    Parameters
    ----------
    model : keras.Model
        A classifier.
    images : Images
        The images.
    """

    def __init__(self, model: keras.Model, images: Images):
        self.model, self.images = model, images
        signature = [tf.TensorSpec((None, *images.pixels.shape[1:]))]
        self._calls = {
            mode: tf.function(
                partial(model, training=mode), input_signature=signature, autograph=False
            )
            for mode in (False, True)
        }

    def shuffled(self, *seed: int) -> np.ndarray:
        """The numbers of the images in an order that follows from a seed."""
        return np.random.default_rng(seed).permutation(len(self.images.labels))

    def by_class(self) -> np.ndarray:
        """The numbers of the images, one class after the other."""
        return np.argsort(self.images.labels, kind="stable")

    def answers(
        self, order: np.ndarray | None = None, size: int = 250, *, training: bool = False
    ) -> np.ndarray:
        """Show the images to the model, which stays as it is.

        Parameters
        ----------
        order : int array, optional
            In which order they are shown. Default: theirs.
        size : int, default 250
            Images per batch. The last batch is filled up with the first images.
        training : bool, default False
            Whether the model normalizes with the statistics of the batch.

        Returns
        -------
        array of shape (images, classes)
            Probabilities for each image, in the order of the images.
        """
        count = len(self.images.labels)
        order = np.arange(count) if order is None else order
        shown = np.resize(order, math.ceil(count / size) * size).reshape(-1, size)
        kept = self.model.get_weights()
        found = [self._calls[training](self.images.pixels[batch]) for batch in shown]
        self.model.set_weights(kept)  # training mode moves the statistics
        answers = np.empty((count, found[0].shape[-1]), "float32")
        answers[order] = np.concatenate(found)[:count]
        return answers

    def classes(self, *arguments: Any, **options: Any) -> np.ndarray:
        """The most probable class of every image; arguments as for `answers`."""
        return self.answers(*arguments, **options).argmax(-1)

    def error(self, *arguments: Any, **options: Any) -> float:
        """The fraction of mistakes; arguments as for `answers`."""
        return float(np.mean(self.classes(*arguments, **options) != self.images.labels))


def _neighbours(tested, sizes, seed):
    """Errors in training mode by batch size: neighbours of any class, or of the same."""
    found = {"shuffled": [], "sorted": [], "changed": []}
    for size in sizes:
        classes, others = (
            tested.classes(tested.shuffled(seed, draw), size, training=True) for draw in range(2)
        )
        found["shuffled"].append(float(np.mean(classes != tested.images.labels)))
        found["changed"].append(float(np.mean(classes != others)))
        found["sorted"].append(tested.error(tested.by_class(), size, training=True))
    return found


def _never_updated(tested):
    """The error if the moving statistics are still those of a fresh model."""
    kept = tested.model.get_weights()
    for layer in _normalizations(tested.model):
        layer.moving_mean.assign(keras.ops.zeros_like(layer.moving_mean))
        layer.moving_variance.assign(keras.ops.ones_like(layer.moving_variance))
    error = tested.error()
    tested.model.set_weights(kept)
    return error


def _folded(tested):
    """How much answers change if every normalization is folded into its convolution."""
    folded = Examined(export.fold_batch_norm(tested.model), tested.images)
    change = np.abs(folded.answers() - tested.answers()).max()
    left = len(_normalizations(folded.model))
    return {"folded_change": float(change), "folded_error": folded.error(), "folded_left": left}


def _fine_tuned(settings, tested, train, part, training_mode, seed):
    """Test errors, in inference mode, after some steps of fine-tuning in one of the modes."""
    model, head = tested.model, tested.model.get_layer("predictions")
    kept, random = model.get_weights(), np.random.default_rng(seed)
    if part == "head":  # a fresh one on frozen features
        draw = keras.initializers.GlorotUniform(seed)
        head.kernel.assign(draw(head.kernel.shape))
        head.bias.assign(keras.ops.zeros_like(head.bias))
    variables = head.trainable_variables if part == "head" else model.trainable_variables
    optimizer = keras.optimizers.SGD(TUNED[part], momentum=0.9)
    optimizer.build(variables)

    @partial(tf.function, autograph=False)
    def step(pixels, labels):
        with tf.GradientTape() as tape:
            answers = model(pixels, training=training_mode)
            losses = keras.losses.sparse_categorical_crossentropy(labels, answers)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)

    errors = {}
    for done in range(max(settings.tuning_steps) + 1):
        if done in settings.tuning_steps:
            errors[done] = tested.error()
        some = random.choice(len(train.labels), settings.tuning_batch_size)
        step(tf.constant(train.pixels[some]), tf.constant(train.labels[some]))
    model.set_weights(kept)
    return [errors[done] for done in settings.tuning_steps]


PRECISIONS = ("float32", "float64")
"""What biases are compared in: if a difference is rounding, it shrinks."""

PASSES = 60
"""In training mode, during which the moving statistics follow a bias."""


def _biased(settings, seed, context):
    """A fresh model with random biases before its normalizations, against the same without."""
    images = context.images
    few = images.train.take(np.arange(min(8, len(images.train))))
    pixels, labels = _decoded(few, images)
    model = _built(settings, reference_run(settings), seed, images)
    found = {}
    for precision in PRECISIONS:
        bare, biased = (_copy(model, precision, seed, biases) for biases in (False, True))
        measures = _bias_measures(bare, biased, tf.cast(pixels, precision), labels)
        found |= {f"{precision}_{name}": value for name, value in measures.items()}
    return found


def _copy(model, precision, seed, biases):
    """The same model in a precision, maybe with normal random biases of its convolutions."""

    def twin(layer):
        changes = {"use_bias": True} if biases and isinstance(layer, keras.layers.Conv2D) else {}
        return graphs.twin_of(layer, dtype=precision, **changes)

    twins, random = (
        keras.models.clone_model(model, clone_function=twin),
        np.random.default_rng(seed),
    )
    for layer in model.layers:
        if weights := layer.get_weights():
            its_twin = twins.get_layer(layer.name)
            if len(its_twin.weights) > len(weights):
                weights = [*weights, random.standard_normal(weights[0].shape[-1])]
            its_twin.set_weights(weights)
    return twins


def _bias_measures(bare, biased, pixels, labels):
    """What biases change in training mode, and in inference mode after 0, 1, ... passes in it."""
    pairs = list(zip(_normalizations(bare), _normalizations(biased), _biases(biased), strict=True))
    largest = max(np.abs(bias).max() for *_, bias in pairs)

    @partial(tf.function, autograph=False)
    def passed():
        with tf.GradientTape() as tape:
            answers = biased(pixels, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, answers)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, biased.trainable_variables)
        return tf.reduce_max(tf.abs(answers - bare(pixels, training=True))), gradients

    @partial(tf.function, autograph=False)
    def inference_change():
        return tf.reduce_max(tf.abs(bare(pixels) - biased(pixels)))

    def gap():
        """The most that a moving mean still lacks of the bias before it."""
        return max(
            np.abs(one.moving_mean.numpy() + bias - other.moving_mean.numpy()).max()
            for one, other, bias in pairs
        )

    changes, gaps = [inference_change()], [gap() / largest]
    for _ in range(PASSES):
        training_change, gradients = passed()
        changes.append(inference_change())
        gaps.append(gap() / largest)
    for one, other, bias in pairs:
        other.moving_mean.assign(one.moving_mean + bias)
    steepest = {
        name: max(
            float(tf.reduce_max(tf.abs(gradient)))
            for variable, gradient in zip(biased.trainable_variables, gradients, strict=True)
            if variable.path.endswith(f"_conv/{name}")
        )
        for name in ("bias", "kernel")
    }
    return {
        "training": float(training_change),
        "gradient": steepest["bias"] / steepest["kernel"],
        "inference": [float(change) for change in changes],
        "gap": [float(each) for each in gaps],
        "shifted": float(inference_change()),
    }


def _biases(model):
    """The biases before each normalization."""
    return [layer.bias.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
