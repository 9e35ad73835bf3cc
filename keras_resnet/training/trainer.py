"""The training loop: a recipe applied to a model and a source."""

import csv
import os
import time
from dataclasses import dataclass

import keras
import numpy as np

from keras_resnet.data import Source, batches
from keras_resnet.files import written_beside
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
        Duration of the training.
    """

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float

    def save(self, path: str | os.PathLike) -> None:
        """Write the history as a CSV file of one line an epoch.

        Parameters
        ----------
        path : path
            The file.
        """
        with written_beside(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *self.history])
            for epoch, values in enumerate(zip(*self.history.values(), strict=True), start=1):
                writer.writerow([epoch, *values])


def train(
    model: keras.Model,
    source: Source,
    recipe: Recipe | None = None,
    *,
    image_size: int | None = None,
    seed: int = 0,
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
    seed : int, default 0
        Seed of the order and variation of the images.
    verbose : {0, 1, 2}, default 1
        Nothing, a progress bar, or a line an epoch.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the model's classes are not as many as the source's, if it does not end in a softmax, or
        if the loss stops being a number.

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
    options = dict(
        image_size=image_size or model.input_shape[1] or source.image_size,
        channels=source.channels,
        batch_size=recipe.batch_size,
    )
    training = batches(source.train, augmentation=source.augmentation, seed=seed, **options)
    validation = batches(source.validation, **options)
    model.compile(
        recipe.optimizer(len(training)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # Never stops early; it is Keras' way to come back to the best weights.
    best = keras.callbacks.EarlyStopping(
        "val_loss", patience=recipe.epochs, restore_best_weights=True
    )
    start = time.perf_counter()
    history = model.fit(
        training,
        validation_data=validation,
        epochs=recipe.epochs,
        callbacks=[best, keras.callbacks.TerminateOnNaN()],
        verbose=verbose,
        shuffle=False,  # the pipeline does
    ).history
    if not np.isfinite(history["loss"]).all():
        raise ValueError(
            f"learning_rate={recipe.learning_rate}: the loss is not a number any more in epoch "
            f"{len(history['loss'])}. Use a lower learning rate."
        )
    return Result(history, best.best_epoch + 1, time.perf_counter() - start)
