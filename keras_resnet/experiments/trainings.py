"""Trainings of experiments: one schedule for all models, and a curve of each."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import checks, machine, training, zoo
from keras_resnet.data import Source
from keras_resnet.experiments.experiment import Context, Settings

FULL = {
    "seeds": 3,
    "epochs": 164,  # 64,000 steps of 128 images, out of 50,000
    "images": None,
    "test_images": None,
    "batch_size": 128,
    "learning_rate": 0.1,
    "milestones": (0.5, 0.75),
}
"""The schedule of He et al. for CIFAR-10."""

_Model = TypeVar("_Model", bound=keras.Model)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How the models of an experiment are trained: all in the same way.

    Parameters
    ----------
    seeds
        As in `Settings`.
    epochs : int, default 6
        Passes over the training images.
    images : int, optional, default 5000
        Training images, drawn once for all; None for all there are.
    test_images : int, optional, default 2000
        Test images, drawn once for all; None for all there are.
    batch_size : int, default 64
        Images per step.
    learning_rate : float, default 0.05
        The highest, of SGD with momentum 0.9.
    weight_decay : float, default 1e-4
        As in `training.Recipe`.
    precision : {"float32", "bfloat16", "float16"}, default "float32"
        What feature maps are computed in.
    milestones : tuple of float, default ()
        Fractions of the steps after which the learning rate is divided by 10. Default: it rises
        during a tenth of the steps, and falls to 0 along a cosine.

    Raises
    ------
    ValueError
        For a setting out of its range.
    """

    epochs: int = 6
    images: int | None = 5000
    test_images: int | None = 2000
    batch_size: int = 64
    learning_rate: float = 0.05
    weight_decay: float = 1e-4
    precision: str = "float32"
    milestones: tuple[float, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        checks.check_range("count", epochs=self.epochs, batch_size=self.batch_size)
        checks.check_range("count", optional=True, images=self.images, test_images=self.test_images)
        checks.check_range("positive", learning_rate=self.learning_rate)
        checks.check_choice(machine.PRECISIONS, precision=self.precision)
        self.recipe()  # whose checks are those of the rest

    def recipe(self, **changes: Any) -> training.Recipe:
        """How to train.

        Parameters
        ----------
        **changes
            Fields of `training.Recipe` that are different.

        Returns
        -------
        training.Recipe
        """
        return training.Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            # The learning rate of a recipe is that of 256 images per step.
            learning_rate=self.learning_rate * 256 / self.batch_size,
            nesterov=False,
            weight_decay=self.weight_decay,
            warm_up=0.0 if self.milestones else 0.1,
            milestones=self.milestones,
        ).changed(**changes)

    def images_of(self, source: Source) -> Source:
        """Draw the images: the same ones for all models and seeds.

        Parameters
        ----------
        source : Source
            Images of classes.

        Returns
        -------
        Source
            Without validation images: nothing is chosen by them.

        Raises
        ------
        ValueError
            For other labels than classes, for a single class, or too few images.
        """
        if source.task != "classification" or len(source.class_names) < 2:
            raise ValueError(
                f"source {source.name!r} must have images of at least two classes; it has "
                f"{len(source.class_names)} of the task {source.task!r}."
            )
        return replace(
            source,
            train=_drawn(source.train, self.images, images=source.name),
            validation=source.validation.take(np.arange(0)),
            test=_drawn(source.test, self.test_images, test_images=source.name),
        )


@dataclass(frozen=True, kw_only=True)
class LoadingSettings(TrainingSettings):
    """`TrainingSettings` of an experiment that can load trained weights for some of its models.

    Parameters
    ----------
    weights : mapping of str to str or path, default {}
        Names of models, such as "residual-56", and what builders take as `weights`.

    Raises
    ------
    ValueError
        As `TrainingSettings` does, and if `weights` is not a mapping of names to files.
    """

    weights: Mapping[str, str | os.PathLike] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        pairs = self.weights.items() if isinstance(self.weights, Mapping) else [(None, None)]
        if not all(
            isinstance(name, str) and isinstance(file, (str, os.PathLike)) for name, file in pairs
        ):
            raise ValueError(
                f"weights={self.weights!r} must be names with files, such as "
                '{"residual-20": "resnet20.th"}.'
            )

    def recorded(self) -> dict[str, Any]:
        """The settings, without the folders of weight files."""
        files = {name: Path(file).name for name, file in self.weights.items()}
        return {**super().recorded(), "weights": files}


def _drawn(split, count, **argument):
    """Some images of a split, in their order."""
    ((name, source),) = argument.items()
    if count is None:
        return split
    if len(split) < count:
        raise ValueError(f"{name}={count}: source {source!r} has {len(split)}.")
    drawn = np.random.default_rng(0).permutation(len(split))[:count]
    taken = split.take(np.sort(drawn))
    if isinstance(taken.images, tf.data.Dataset):
        # Kept here, since the whole stream would be read again for every model.
        contents = list(taken.images.as_numpy_iterator())
        taken = replace(taken, images=tf.data.Dataset.from_tensor_slices(contents))
    return taken


def train(
    model: keras.Model,
    settings: TrainingSettings,
    seed: int,
    context: Context,
    *,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Train a model, and measure it on the test images after every epoch.

    An interrupted training continues from its last checkpoint. Afterwards, the model has the
    weights of the epoch with the lowest test loss; the numbers are those of all epochs.

    Parameters
    ----------
    model : keras.Model
        A fresh classifier that takes raw images.
    settings : TrainingSettings
        The schedule.
    seed : int
        Seed for the order of the images and their augmentation.
    context : Context
        The images and the place for checkpoints.
    callbacks : tuple of keras.callbacks.Callback, default ()
        More to do during training.
    **changes
        Fields of `training.Recipe` that are different.

    Returns
    -------
    dict
        "loss", "error", "test_loss" and "test_error": lists of one number per epoch, errors as
        fractions; the first two are means over the epoch, of augmented images. "parameters" and
        "seconds".
    """
    images = context.images
    shown = replace(images, validation=images.test)
    recipe = settings.recipe(**changes)
    try:
        result = training.train(
            model,
            shown,
            recipe,
            seed=seed,
            cache="memory",
            checkpoints=context.folder / "checkpoints",
            keep=1,
            callbacks=callbacks,
            verbose=context.verbose,
        )
    except training.DivergedError as error:  # which speaks of 256 images per step
        theirs = f"learning_rate={recipe.learning_rate}"
        ours = f"learning_rate={recipe.learning_rate * recipe.batch_size / 256:g}"
        raise training.DivergedError(str(error).replace(theirs, ours)) from error
    history = result.history
    return {
        "loss": history["loss"],
        "error": _errors(history["accuracy"]),
        "test_loss": history["val_loss"],
        "test_error": _errors(history["val_accuracy"]),
        "parameters": int(sum(np.prod(each.shape) for each in model.trainable_weights)),
        "seconds": result.seconds,
    }


def _errors(accuracies):
    """Fractions of mistakes, to six digits."""
    return [round(1 - accuracy, 6) for accuracy in accuracies]


def built(seed: int, build: Callable[..., _Model], *arguments: Any, **options: Any) -> _Model:
    """Build a model whose fresh weights follow from a seed.

    Parameters
    ----------
    seed : int
        The seed.
    build : callable
        Makes the model of the arguments and options that follow.

    Returns
    -------
    keras.Model
    """
    keras.utils.set_random_seed(seed)
    return build(*arguments, **options)


def classifier(
    images: Source, seed: int, build: Callable[..., _Model], *arguments: Any, **options: Any
) -> _Model:
    """Build a classifier for some images, which takes raw pixels.

    Parameters
    ----------
    images : Source
        The images, which determine its input shape and classes.
    seed, build, *arguments, **options
        As for `built`.

    Returns
    -------
    keras.Model
    """
    return built(
        seed,
        build,
        *arguments,
        input_shape=(images.image_size, images.image_size, images.channels),
        classes=len(images.class_names),
        include_preprocessing=True,
        **options,
    )


def check_depth(**arguments: int) -> None:
    """Make sure that there is a CIFAR model of a depth.

    Parameters
    ----------
    **arguments
        The arguments, by name: layers, 6n + 2.

    Raises
    ------
    ValueError
        For another depth.
    """
    checks.check_positive(**arguments)
    for name, depth in arguments.items():
        try:
            zoo.architecture(f"CIFARResNet{depth}")
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def check_depths(**arguments: Sequence[int]) -> None:
    """Make sure that there are CIFAR models of some depths.

    Parameters
    ----------
    **arguments
        The arguments, by name: layers of each model.

    Raises
    ------
    ValueError
        For a depth that is not 6n + 2, one that is there twice, or none.

    Examples
    --------
    >>> from keras_resnet.experiments.trainings import check_depths
    >>> check_depths(depths=(20, 20))
    Traceback (most recent call last):
        ...
    ValueError: depths=(20, 20) must be different depths, such as [20, 56].
    """
    for name, depths in arguments.items():
        several = depths if isinstance(depths, tuple) else ()
        for depth in several:
            check_depth(**{name: depth})
        if not several or len(several) > len({*several}):
            raise ValueError(f"{name}={depths!r} must be different depths, such as [20, 56].")


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over seeds, and the standard deviation, which one seed does not have.

    Parameters
    ----------
    values : sequence of float
        One for each seed.

    Returns
    -------
    mean : float
    deviation : float or None

    Examples
    --------
    >>> from keras_resnet.experiments.trainings import mean_and_deviation
    >>> mean_and_deviation([1.0, 3.0]), mean_and_deviation([1.0])
    ((2.0, 1.4142135623730951), (1.0, None))
    """
    mean = statistics.mean(values)
    return mean, statistics.stdev(values) if len(values) > 1 else None
