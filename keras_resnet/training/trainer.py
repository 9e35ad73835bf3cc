"""The training loop: a recipe applied to a model and a source."""

import csv
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import AUGMENTATIONS, Source, batches
from keras_resnet.files import written_beside
from keras_resnet.layers import gains_from_xla
from keras_resnet.preprocessing import crop_of
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.recipes import Recipe


@dataclass(frozen=True)
class Result:
    """What a training run has led to.

    Parameters
    ----------
    history : dict of str to list of float
        "loss", "accuracy", "val_loss", "val_accuracy" of every epoch.
    best_epoch : int
        The epoch, from 1, whose weights the model has now: the one of the lowest validation loss.
    seconds : float
        Duration of the training, without interruptions.
    stages : dict of str to int
        For training in stages, the epochs of each.
    """

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float
    stages: dict[str, int] = field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Write the history as a CSV file of one line an epoch.

        Parameters
        ----------
        path : path
            The file.
        """
        stages = [name for name, epochs in self.stages.items() for _ in range(epochs)]
        columns = {"stage": stages, **self.history} if stages else self.history
        with written_beside(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *columns])
            for epoch, values in enumerate(zip(*columns.values(), strict=True), start=1):
                writer.writerow([epoch, *values])


def train(
    model: keras.Model,
    source: Source,
    recipe: Recipe | None = None,
    *,
    image_size: int | None = None,
    crop: float | None = None,
    seed: int = 0,
    class_weight: Mapping[int, float] | None = None,
    cache: str | os.PathLike | None = None,
    checkpoints: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on a source's training images, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier of the source's classes that takes raw images, as the builders make it with
        `include_preprocessing=True`. It is compiled here.
    source : Source
        The data; its test images are not touched.
    recipe : Recipe, optional
        How to train. Default: `Recipe()`.
    image_size : int, optional
        Height and width in pixels to train with. Default: the model's, or the source's where the
        model takes any.
    crop : float, optional
        Part of the images that is looked at in validation, as in `data.batches`. Default: what the
        model remembers.
    seed : int, default 0
        Seed of the order and variation of the images.
    class_weight : mapping of int to float, optional
        How much each class counts, such as `source.class_weight()`. Default: all images alike.
    cache : "memory" or path, optional
        Where to keep decoded images, as in `data.batches`.
    checkpoints : path, optional
        A folder for the state of the run after every epoch: an interrupted run that is started
        again goes on with the next one. Default: none.
    callbacks : sequence of keras.callbacks.Callback, optional
        More of them.
    verbose : {0, 1, 2}, default 1
        Nothing, a progress bar, or a line an epoch.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the model's classes are not as many as the source's, if it does not end in a softmax, if
        `checkpoints` holds a run of other settings, or if the loss stops being a number.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, training
    >>> digits = data.load("digits")
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> recipe = training.Recipe(epochs=1, batch_size=128)
    >>> result = training.train(model, digits, recipe, image_size=8, verbose=0)
    >>> result.best_epoch
    1
    """
    recipe = recipe or Recipe()
    classes = len(source.class_names)
    check_classifier(model, source)
    size = image_size or model.input_shape[1] or source.image_size
    crop = crop_of(model) if crop is None else crop
    augmentation = recipe.augmentation or source.augmentation
    options = dict(
        image_size=size, channels=source.channels, batch_size=recipe.batch_size, cache=cache
    )

    def training(epochs):
        return batches(
            source.train,
            augmentation=augmentation,
            seed=seed,
            epochs=epochs,
            classes=classes,
            **options,
        )

    return fit(
        model,
        training,
        batches(source.validation, crop=crop, **options),
        recipe,
        classes=classes,
        mixed=bool(AUGMENTATIONS[augmentation].mixes()),
        settings={
            "data": source.name,
            "images": [len(split) for split in source.splits.values()],
            "image_size": size,
            "crop": crop,
            "seed": seed,
            "class_weight": class_weight and {str(key): class_weight[key] for key in class_weight},
        },
        class_weight=class_weight,
        checkpoints=checkpoints,
        callbacks=callbacks,
        verbose=verbose,
    )


def fit(
    model: keras.Model,
    training: Callable[[range], tf.data.Dataset],
    validation: tf.data.Dataset,
    recipe: Recipe,
    *,
    classes: int,
    mixed: bool = False,
    settings: Mapping | None = None,
    class_weight: Mapping[int, float] | None = None,
    checkpoints: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on batches of any kind, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier that ends in a softmax. It is compiled here.
    training : callable
        Makes the batches of (inputs, labels) of a range of epochs, one epoch after the other.
    validation : tf.data.Dataset
        Batches to choose the best epoch on.
    recipe : Recipe
        How to train.
    classes : int
        Classes there are.
    mixed : bool, default False
        Whether the labels in training are probabilities of all classes.
    settings : mapping of str to JSON value, optional
        What else makes the run what it is, for `checkpoints`.
    class_weight, checkpoints, callbacks, verbose
        As in `train`.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        As `train` does.
    """
    steps = len(training(range(1)))
    soft = mixed or recipe.label_smoothing > 0

    def with_soft_labels(dataset, mixed=False):
        if not soft or mixed:
            return dataset
        return dataset.map(lambda inputs, labels: (inputs, tf.one_hot(labels, classes)))

    model.compile(
        recipe.optimizer(steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        if soft
        else "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile="auto" if gains_from_xla() else False,
    )
    if checkpoints is not None:
        trained = [variable.path for variable in model.trainable_variables]
        checkpoints = Checkpoints(
            checkpoints,
            {
                "model": model.name,
                "variables": len(trained),
                "recipe": dataclasses.asdict(recipe),
                **(settings or {}),
            },
        )
    keeper = _Keeper(recipe.patience or recipe.epochs, checkpoints)
    first = keeper.restore(model)
    if not keeper.finished and first < recipe.epochs:
        model.fit(
            with_soft_labels(training(range(first, recipe.epochs)), mixed),
            validation_data=with_soft_labels(validation),
            initial_epoch=first,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            class_weight=class_weight and dict(class_weight),
            callbacks=[keeper, *callbacks, keras.callbacks.TerminateOnNaN()],
            verbose=verbose,
            shuffle=False,  # the pipeline does
        )
    if not np.isfinite(keeper.history.get("loss", [np.nan])).all():
        raise ValueError(
            f"learning_rate={recipe.learning_rate}: the loss is not a number any more in epoch "
            f"{len(keeper.history.get('loss', ())) or 1}. Use a lower learning rate."
        )
    keeper.restore_best(model)
    return Result(keeper.history, keeper.best_epoch, keeper.seconds)


def check_classifier(model: keras.Model, source: Source) -> None:
    """Make sure that a model gives probabilities of a source's classes.

    Parameters
    ----------
    model : keras.Model
        The model.
    source : Source
        The data.

    Raises
    ------
    ValueError
        If it does not.
    """
    classes = len(source.class_names)
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"{model.name} has {model.output_shape[-1]} outputs, {source.name} has {classes} "
            f"classes: build the model with classes={classes}."
        )
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Softmax):
        activation = getattr(last, "activation", None)
        if activation is not keras.activations.softmax:
            raise ValueError(
                f"{model.name} gives no probabilities: build it with "
                "classifier_activation='softmax'."
            )


class _Keeper(keras.callbacks.Callback):
    """Keeps the history, the best weights, and what a run needs to go on after an interruption."""

    def __init__(self, patience, checkpoints):
        super().__init__()
        self.history, self.best_epoch, self.seconds, self.finished = {}, 0, 0.0, False
        self._patience, self._checkpoints = patience, checkpoints
        self._best_weights, self._start = None, None

    def restore(self, model):
        """Go back to the newest checkpoint; returns the epoch to go on with."""
        progress = self._checkpoints.restore(model) if self._checkpoints else None
        if progress is None:
            return 0
        for name, value in progress.items():
            setattr(self, name, value)
        return len(self.history["loss"])

    def restore_best(self, model):
        if self._checkpoints:
            self._checkpoints.restore_best(model)
        else:
            model.set_weights(self._best_weights)

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter() - self.seconds

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        *former, loss = self.history["val_loss"]
        if loss < min(former, default=np.inf):
            self.best_epoch = epoch + 1
            if self._checkpoints:
                self._checkpoints.save_best(self.model)
            else:
                self._best_weights = self.model.get_weights()
        self.seconds = time.perf_counter() - self._start
        self.finished = epoch + 1 - self.best_epoch >= self._patience
        if self.finished:
            self.model.stop_training = True
        if self._checkpoints and np.isfinite(self.history["loss"][-1]):
            names = ("history", "best_epoch", "seconds", "finished")
            self._checkpoints.save(self.model, {name: getattr(self, name) for name in names})
