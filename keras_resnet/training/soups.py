"""Weight soups: one model of the mean weights of several, trained from the same beginning."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import graphs
from keras_resnet.progress import batches, tracked
from keras_resnet.training.averages import statistics
from keras_resnet.training.checkpoints import random_states
from keras_resnet.training.prepare import replicated

# Entries of a layer's config that say how it is trained, or what it is called.
_LEARNING = re.compile(
    r"_(initializer|regularizer|constraint)$|^(name|trainable|momentum|synchronized|dtype|seed)$"
)


@dataclass(frozen=True)
class Soup:
    """A model of the mean weights of several.

    Parameters
    ----------
    model : keras.Model
        The model.
    taken : tuple of int
        Which of the models it is made of, counted from 0, in the order in which they were added.
    scores : tuple of float
        For a greedy soup: what each model scores alone; otherwise empty.
    score : float, optional
        For a greedy soup: what it scores.
    """

    model: keras.Model
    taken: tuple[int, ...]
    scores: tuple[float, ...] = ()
    score: float | None = None


def soup(
    models: Sequence[keras.Model],
    *,
    score: Callable[[keras.Model], float] | None = None,
    renew: Callable[[keras.Model], None] | None = None,
) -> Soup:
    """Make a model of the mean weights of several.

    Their mean is worth something if they were trained from the same weights, such as those of
    ImageNet, with other hyperparameters or seeds. Models that began apart have no good mean.

    Parameters
    ----------
    models : sequence of keras.Model
        Models of the same layers, at least two. They stay as they are.
    score : callable, optional
        How good a model is; more is better. Makes a greedy soup: the models are added one after the
        other, the best first, and each stays if the score does not fall. Default: a uniform soup,
        the mean of all.
    renew : callable, optional
        Is given each mean, to measure its BatchNormalization statistics anew, as `renew_statistics`
        does: the mean of statistics is not what the mean weights would measure. Default: the mean.

    Returns
    -------
    Soup

    Raises
    ------
    ValueError
        For fewer than two models, or models of different layers.

    References
    ----------
    Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time, ICML 2022.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from keras_resnet import training
    >>> def constant(value):
    ...     start = keras.initializers.Constant(value)
    ...     layer = keras.layers.Dense(1, kernel_initializer=start)
    ...     return keras.Sequential([keras.Input((1,)), layer])
    >>> made = training.soup([constant(1.0), constant(2.0)])
    >>> made.model.get_weights()[0].tolist()
    [[1.5]]
    """
    _check_same(models)
    weights = [model.get_weights() for model in models]
    made = replicated(models[0], models[0].distribute_strategy, synchronized=False)

    def cook(some):
        if len(some) == 1:
            return made.set_weights(weights[some[0]])
        made.set_weights([_mean(each) for each in zip(*(weights[i] for i in some), strict=True)])
        if renew:
            renew(made)

    if score is None:
        taken = [*range(len(models))]
        cook(taken)
        return Soup(made, tuple(taken))
    scores = [score(model) for model in tracked(models, "Scoring", unit="models")]
    first, *others = sorted(range(len(models)), key=lambda index: -scores[index])
    taken, best = [first], scores[first]
    for index in tracked(others, "Averaging", unit="models"):
        cook([*taken, index])
        found = score(made)
        if found >= best:
            taken, best = [*taken, index], found
    cook(taken)
    return Soup(made, tuple(taken), tuple(scores), best)


def same_statistics(models: Sequence[keras.Model]) -> bool:
    """Tell whether all models have the same BatchNormalization statistics, or none.

    Those that were fine-tuned with frozen statistics have: these belong to their mean as well.

    Parameters
    ----------
    models : sequence of keras.Model
        Models of the same layers.

    Returns
    -------
    bool
    """
    first, *others = ([each.numpy() for each in statistics(model)] for model in models)
    return all(
        np.array_equal(mine, theirs)
        for other in others
        for mine, theirs in zip(first, other, strict=True)
    )


def renew_statistics(model: keras.Model, dataset: tf.data.Dataset) -> None:
    """Measure the statistics of a model's BatchNormalization layers anew.

    Means and variances are those over all images together, where each layer sees what those before
    it make of a batch in training.

    Parameters
    ----------
    model : keras.Model
        The model, which is changed. Frozen layers keep their statistics.
    dataset : tf.data.Dataset
        Batches of (images, labels), in random order.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> from keras_resnet.training import renew_statistics
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> images = np.arange(8, dtype="float32")[:, None]
    >>> renew_statistics(model, tf.data.Dataset.from_tensor_slices((images, images)).batch(4))
    >>> layer = model.layers[-1]
    >>> float(layer.moving_mean[0]), float(layer.moving_variance[0])
    (3.5, 5.25)
    """
    layers = [
        layer
        for layer in graphs.flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers:
        return
    former = [layer.momentum for layer in layers]
    random = {each.path: each.numpy() for each in random_states(model)}
    totals: list[Any] = [0.0] * len(layers)
    count = 0

    @tf.function
    def run(images):
        model(images, training=True)

    try:
        for layer in layers:
            layer.momentum = 0.0  # so that they hold those of the last batch
        for images, _ in batches(dataset, "Statistics"):
            run(images)
            count += len(images)
            for index, layer in enumerate(layers):
                mean, variance = (
                    each.numpy().astype("float64")
                    for each in (layer.moving_mean, layer.moving_variance)
                )
                totals[index] += len(images) * np.stack([mean, variance + mean**2])
    finally:
        for layer, momentum in zip(layers, former, strict=True):
            layer.momentum = momentum
        for variable in random_states(model):
            variable.assign(random[variable.path])
    for layer, total in zip(layers, totals, strict=True):
        mean, squares = total / count
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(squares - mean**2, 0.0))


def _mean(arrays):
    """The mean of a weight; one that is not a float is that of the first model."""
    first = arrays[0]
    if first.dtype.kind != "f" and first.dtype.name != "bfloat16":
        return first
    return np.mean(arrays, 0, "float64").astype(first.dtype)


def _check_same(models):
    if len(models) < 2:
        raise ValueError(f"models: {len(models)} came; a soup is made of two or more.")
    first, *others = models
    for number, other in enumerate(others, start=2):
        if _computed(first) != _computed(other):
            raise ValueError(
                f"models: number {number}, {other.name!r} of {other.count_params():,} parameters, "
                f"has other layers than the first, {first.name!r} of {first.count_params():,}: "
                "only models of the same architecture have a mean."
            )


def _computed(model):
    """What a model computes after training: its layers in order, but their weights."""
    return [
        (
            type(layer).__name__,
            {name: value for name, value in _config(layer).items() if not _LEARNING.search(name)},
            [tuple(weight.shape) for weight in layer.weights],
            tuple(layer.output.shape),
        )
        for layer in graphs.flat_layers(model)
        if not isinstance(layer, graphs.PASSING)
    ]


def _config(layer):
    return keras.saving.serialize_keras_object(layer)["config"]
