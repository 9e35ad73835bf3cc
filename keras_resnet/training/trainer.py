"""The training loop: a recipe applied to a model and a source."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.checks import check_positive
from keras_resnet.data import Source, batches
from keras_resnet.data.pipeline import policy_of
from keras_resnet.graphs import architecture_digest, crop_of, preprocessing_layer
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find
from keras_resnet.training.result import Interrupted, Result
from keras_resnet.training.run import Run, Termination


def train(
    model: keras.Model,
    source: Source,
    recipe: Recipe | str | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    image_size: int | None = None,
    crop: float | None = None,
    seed: int = 0,
    class_weight: Mapping[int, float] | None = None,
    cache: str | os.PathLike | None = None,
    synchronized: bool | None = None,
    steps_per_execution: int = 1,
    checkpoints: str | os.PathLike | None = None,
    keep: int = 3,
    save_every: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on a source's training images, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier of the source's classes that takes raw images, as the builders make it with
        `include_preprocessing=True`. It is compiled here. It need not have been made in the scope
        of a strategy.
    source : Source
        The data; its test images are not touched. Where it has no validation images, the weights of
        the last epoch are kept.
    recipe : Recipe or str, optional
        How to train, or a key of `RECIPES`. Default: `Recipe()`.
    strategy : tf.distribute.Strategy or str, optional
        The devices, or what `keras_resnet.training.strategy` makes them of; "multiworker" and
        "cpu:N" have to be made before the model. Each takes an equal part of every batch. Default:
        the one in whose scope the model was made.
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
    synchronized : bool, optional
        Whether BatchNormalization takes its statistics from the images of all devices. Default:
        where a device has fewer than 16 images of a batch. Without, each device has its own, and
        the moving ones are averaged at the end of every epoch.
    steps_per_execution : int, default 1
        Steps that TensorFlow takes at once, without Python in between.
    checkpoints : path, optional
        A folder for the state of the run: a run that was interrupted and is started again goes on
        from there, with as many devices as it has then. On SIGTERM the state is saved, and the
        program ends with code 0. Of several processes only the chief, the first, needs the folder.
        Default: none.
    keep : int, default 3
        States to keep.
    save_every : int, optional
        Save the state after so many steps, as well as after every epoch.
    callbacks : sequence of keras.callbacks.Callback, optional
        More of them. `model` is, for them, the one that is being trained, with its own weights
        rather than their average. The learning rate is the recipe's, not theirs to set.
    verbose : {0, 1, 2}, default 1
        Nothing, a progress bar, or a line an epoch.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the model's classes are not as many as the source's, if it does not end in a softmax, if
        it wants images normalized and does not do that itself, if all of its layers are frozen, if
        a batch cannot be divided among the devices, if other processes do something else, if
        `checkpoints` holds a run of other settings, or if the loss stops being a number.
    OSError
        If there is no space for the checkpoints.
    LostWorkerError
        If another process of the run goes away.
    Interrupted
        On SIGTERM.

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
    recipe = as_recipe(recipe)
    classes = len(source.class_names)
    check_classifier(model, source)
    size = image_size or model.input_shape[1] or source.image_size
    crop = crop_of(model) if crop is None else crop
    policy = policy_of(recipe.augmentation or source.augmentation).with_mixup(recipe.mixup)
    options = dict(image_size=size, channels=source.channels, cache=cache)

    def training(epochs, **share):
        return batches(
            source.train,
            augmentation=policy,
            seed=seed,
            epochs=epochs,
            classes=classes,
            **options,
            **share,
        )

    return fit(
        model,
        training,
        (lambda **share: batches(source.validation, crop=crop, **options, **share))
        if len(source.validation)
        else None,
        recipe,
        strategy,
        classes=classes,
        mixed=bool(policy.mixes()),
        settings={
            "data": source.name,
            "images": [len(split) for split in source.splits.values()],
            "fingerprint": source.fingerprint(),
            "image_size": size,
            "crop": crop,
            "seed": seed,
            "class_weight": class_weight and {f"{i}": float(w) for i, w in class_weight.items()},
        },
        class_weight=class_weight,
        synchronized=synchronized,
        steps_per_execution=steps_per_execution,
        checkpoints=checkpoints,
        keep=keep,
        save_every=save_every,
        callbacks=callbacks,
        verbose=verbose,
    )


def fit(
    model: keras.Model,
    training: Callable[..., tf.data.Dataset],
    validation: Callable[..., tf.data.Dataset] | None,
    recipe: Recipe,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    classes: int,
    mixed: bool = False,
    settings: Mapping | None = None,
    class_weight: Mapping[int, float] | None = None,
    synchronized: bool | None = None,
    steps_per_execution: int = 1,
    checkpoints: str | os.PathLike | None = None,
    keep: int = 3,
    save_every: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on batches of any kind, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier that ends in a softmax. It is compiled here.
    training : callable
        Makes the batches of (inputs, labels) of a range of epochs, one epoch after the other. It is
        given that range, and as keywords what this process has to do of it: `batch_size`,
        `first_step`, `shard`, `replicas` and `at_least`, as `data.batches` takes them.
    validation : callable or None
        Makes the batches to choose the best epoch on, given the same keywords; None keeps the last.
    recipe : Recipe
        How to train.
    strategy
        As in `train`.
    classes : int
        Classes there are.
    mixed : bool, default False
        Whether the labels in training are probabilities of all classes.
    settings : mapping of str to JSON value, optional
        What else makes the run what it is, for `checkpoints`.
    class_weight, synchronized, steps_per_execution, checkpoints, keep, save_every, callbacks
        As in `train`.
    verbose
        As in `train`.

    Returns
    -------
    Result

    Raises
    ------
    ValueError, OSError, LostWorkerError, Interrupted
        As `train` does.
    """
    check_positive(steps_per_execution=steps_per_execution, keep=keep)
    if unknown := set(class_weight or ()) - set(range(classes)):
        raise ValueError(
            f"class_weight has {sorted(unknown, key=str)!r}: classes are the numbers from 0 to "
            f"{classes - 1}."
        )
    if save_every is not None:
        check_positive(save_every=save_every)
    if not model.trainable_variables:
        raise ValueError(f"{model.name} has nothing to train: all of its layers are frozen.")
    run = Run(model, recipe, strategy, synchronized)
    run.settings = {
        "model": model.name,
        "parameters": model.count_params(),
        "variables": len(model.trainable_variables),
        "layers": architecture_digest(model),
        "precision": ", ".join(sorted({each.compute_dtype for each in model._flatten_layers()})),
        "recipe": dataclasses.asdict(recipe),
        **(settings or {}),
    }
    soft = mixed or recipe.label_smoothing > 0

    def with_soft_labels(dataset, mixed=False):
        if not soft or mixed:
            return dataset
        return dataset.map(lambda inputs, labels: (inputs, tf.one_hot(labels, classes)))

    with run.lost_workers_named():
        run.prepare(
            lambda *epochs, **share: with_soft_labels(training(*epochs, **share), mixed),
            validation and (lambda **share: with_soft_labels(validation(**share))),
            keras.losses.CategoricalCrossentropy(
                label_smoothing=recipe.label_smoothing, reduction=None
            )
            if soft
            else keras.losses.SparseCategoricalCrossentropy(reduction=None),
            class_weight,
        )
        run.restore(checkpoints, keep)
        with Termination(active=checkpoints is not None) as termination:
            run.train(callbacks, steps_per_execution, save_every, verbose, termination)
        if termination.requested:  # too late to be noticed there
            raise Interrupted("Asked to end: the training was over, and its state is saved.")
        run.give_best()
    state = run.state
    return Result(
        state.history,
        state.best_epoch,
        state.seconds,
        run.progress.images_per_second,
        checkpoints=None if checkpoints is None else Path(checkpoints),
    )


def as_recipe(recipe: Recipe | str | None) -> Recipe:
    """Turn what stands for a recipe into one.

    Parameters
    ----------
    recipe : Recipe or str, optional
        A recipe, or a key of `RECIPES`.

    Returns
    -------
    Recipe
    """
    return find(recipe) if isinstance(recipe, str) else recipe or Recipe()


def check_classifier(model: keras.Model, source: Source) -> None:
    """Make sure that a model gives probabilities of a source's classes, and takes raw images.

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
    # Served, it would be given normalized images, as its backbone's weights want them.
    wanted = getattr(model, "preprocessing", None)
    if wanted and not preprocessing_layer(model):
        raise ValueError(
            f"{model.name} takes images that are normalized as {wanted!r}, and a source's are raw: "
            "build it, or its backbone, with include_preprocessing=True."
        )
