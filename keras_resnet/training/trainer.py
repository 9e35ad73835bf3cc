"""Training: a recipe applied to a model and a source."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_resnet.data import Source
from keras_resnet.files import locked
from keras_resnet.graphs import digest, drop_path_of
from keras_resnet.interrupts import Interrupted, Termination
from keras_resnet.optimizers import check_rates
from keras_resnet.training.callbacks import direct
from keras_resnet.training.execution import Execution, execution_of
from keras_resnet.training.prepare import devices_of, prepare, validated_as_before
from keras_resnet.training.recipes import Recipe, as_recipe
from keras_resnet.training.result import Result
from keras_resnet.training.run import State, give_best, lost_workers_named, restored
from keras_resnet.training.run import run as take_epochs
from keras_resnet.training.stopping import Stopping
from keras_resnet.training.tasks import Objective, task_of


def train(
    model: keras.Model,
    source: Source,
    recipe: Recipe | str | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    execution: Execution | None = None,
    **options: Any,
) -> Result:
    """Train a model on a source's training images, and keep the best epoch's weights.

    The model remembers the size and the crop of the images for tests and serving. Afterwards it is
    compiled with the recipe's optimizer, at its highest learning rate.

    Parameters
    ----------
    model : keras.Model
        A model for the source's task that takes raw images, as the builders make it with
        `include_preprocessing=True`. It is compiled here. It need not have been made in the scope
        of a strategy.
    source : Source
        The data. Its test images are not used. If it has no validation images, the weights of the
        last epoch are kept.
    recipe : Recipe or str, optional
        How to train, or a key of `RECIPES`. Default: `Recipe()`, for detectors "detection". If its
        augmentation cuts no windows, training and tests show the same: the whole image, unless a
        crop is given.
    strategy : tf.distribute.Strategy or str, optional
        The devices, or an argument for `keras_resnet.training.strategy`; "multiworker" and "cpu:N"
        have to be chosen before the model is made. Each device takes an equal part of every batch.
        Default: the strategy in whose scope the model was made.
    execution : Execution, optional
        How to carry the recipe out: image size, seed, checkpoints, callbacks and so on.
    **options
        Fields of `Execution`, instead of one: `train(model, source, seed=1, verbose=0)`.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the model does not have an output for every class, label or value of the source, or
        outputs of another kind, if it wants normalized images and does not normalize them itself,
        if all of its layers are frozen, if `rates` name layers that it lacks, if it was built with
        another `drop_path`, if a batch cannot be divided among the devices, if other processes do
        something else, if `checkpoints` holds a run of other settings or is in use, if a callback
        watches what is not measured, or if the loss becomes NaN or infinite (`DivergedError`).
    OSError
        If there is no space for the checkpoints.
    LostWorkerError
        If another process of the run goes away.
    Interrupted
        On SIGTERM, SIGHUP and Ctrl-C, if there are checkpoints.

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
    execution, task = execution_of(execution, options), task_of(source)
    recipe = as_recipe(recipe or task.recipe)
    task.check(model, source)
    check_rates(recipe.rates, model)
    check_drop_path(recipe, model)
    view = task.view(model, source, recipe, execution)
    task.remember(model, view)
    return train_on(view, model, source, recipe, strategy, execution)


def check_drop_path(recipe: Recipe, model: keras.Model) -> None:
    """Make sure that a model leaves out as many blocks as a recipe says.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    model : keras.Model
        The model.

    Raises
    ------
    ValueError
        If it does not: that is up to its layers.
    """
    if recipe.drop_path is None:
        return
    found = drop_path_of(model)
    if not math.isclose(recipe.drop_path, found, abs_tol=1e-9):
        raise ValueError(
            f"drop_path={recipe.drop_path!r}: {model.name} was built with drop_path={found:g}: "
            "build it with the recipe's, or leave it out of the recipe."
        )


def train_on(
    view: Any,
    model: keras.Model,
    source: Source,
    recipe: Recipe,
    strategy: tf.distribute.Strategy | str | None,
    execution: Execution,
    *,
    smoothed: bool = False,
    stopping: Stopping | None = None,
    keep: Literal["best", "last"] = "best",
) -> Result:
    """Train a model as `train` does, once it is decided how images are shown.

    Parameters
    ----------
    view : View
        How images are shown, in training and in validation, as `Task.view` returns it.
    model, source, recipe, strategy, execution
        As in `train`.
    smoothed, stopping, keep
        As in `fit`.

    Returns
    -------
    Result
    """
    task = task_of(source)
    policy = task.policy(source, recipe)
    training, objective = learning_of(view, source, recipe, execution)

    def validation(**share):
        return task.batches(source.validation, **vars(view), cache=execution.cache, **share)

    weights = execution.class_weight
    return fit(
        model,
        training,
        validation if len(source.validation) else None,
        recipe,
        strategy,
        objective=objective,
        settings={
            "data": source.name,
            "images": [len(split) for split in source.splits.values()],
            "fingerprint": source.fingerprint(),
            **task.settings(view, policy),
            "seed": execution.seed,
            "class_weight": weights and {f"{i}": float(w) for i, w in weights.items()},
            # Runs of before there were others do not say so.
            **({} if task.name == "classification" else {"task": task.name}),
        },
        execution=execution,
        smoothed=smoothed,
        stopping=stopping,
        keep=keep,
    )


def learning_of(
    view: Any, source: Source, recipe: Recipe, execution: Execution
) -> tuple[Callable[..., tf.data.Dataset], Objective]:
    """Decide what a model sees of a source in training, and what a step computes.

    Parameters
    ----------
    view : View
        How images are shown.
    source, recipe, execution
        As in `train`.

    Returns
    -------
    training : callable
        Makes the training batches, as in `fit`.
    objective : Objective
        The loss and metrics.
    """
    task = task_of(source)
    policy = task.policy(source, recipe)

    def training(epochs, **share):
        return task.batches(
            source.train,
            augmentation=policy,
            seed=execution.seed,
            epochs=epochs,
            classes=len(source.class_names),
            cache=execution.cache,
            **vars(view),
            **share,
        )

    mixed = task.mixes(policy)
    return training, task.objective(source, recipe, execution.class_weight, mixed=mixed)


def fit(
    model: keras.Model,
    training: Callable[..., tf.data.Dataset],
    validation: Callable[..., tf.data.Dataset] | None,
    recipe: Recipe,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    objective: Objective,
    settings: Mapping | None = None,
    execution: Execution | None = None,
    smoothed: bool = False,
    stopping: Stopping | None = None,
    keep: Literal["best", "last"] = "best",
) -> Result:
    """Train a model on batches of any kind, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A model with the outputs that the objective takes. It is compiled here.
    training : callable
        Makes the batches of (inputs, labels) for a range of epochs, one epoch after the other. It
        is given that range, and as keywords this process' share of every batch: `batch_size`,
        `first_step`, `shard`, `replicas` and `at_least`, as `data.batches` takes them.
    validation : callable or None
        Makes the batches to choose the best epoch on, given the same keywords; None keeps the last
        epoch.
    recipe : Recipe
        How to train.
    strategy
        As in `train`.
    objective : Objective
        The loss and metrics, such as `task_of(source).objective(source, recipe)`.
    settings : mapping of str to JSON value, optional
        What else distinguishes the run from others, for its checkpoints.
    execution : Execution, optional
        As in `train`. What concerns images and classes is up to `training`, `validation` and
        `objective`.
    smoothed : bool, default False
        Whether the validation loss is to be of smooth labels, as in an earlier stage that an
        earlier version began.
    stopping : Stopping, optional
        When to end before the last epoch, in addition to the recipe's patience. Default: never.
    keep : {"best", "last"}, default "best"
        Whether the best epoch's weights are kept, or those of the last epoch. For "last", the
        recipe's patience does not count.

    Returns
    -------
    Result

    Raises
    ------
    ValueError, OSError, LostWorkerError, Interrupted
        As `train` does.
    """
    execution = execution or Execution()
    if not model.trainable_variables:
        raise ValueError(f"{model.name} has nothing to train: all of its layers are frozen.")
    settings = {
        "model": model.name,
        "parameters": model.count_params(),
        "variables": len(model.trainable_variables),
        "layers": digest(model),
        "precision": ", ".join(sorted({each.compute_dtype for each in model._flatten_layers()})),
        "recipe": dataclasses.asdict(recipe),
        **(settings or {}),
    }
    direct(execution.callbacks, objective.totals[:-1], validated=validation is not None)
    devices = devices_of(strategy, model, recipe, execution.synchronized)
    folder, state, store = execution.checkpoints, State(), None
    with (
        lost_workers_named(devices, lambda: (state, store)),
        locked(folder) if folder and devices.is_chief else contextlib.nullcontext(),
    ):
        prepared = prepare(
            model, training, validation, recipe, objective, devices, settings, execution
        )
        prepared = dataclasses.replace(prepared, stopping=stopping, keeps_last=keep == "last")
        store = prepared.store
        state = restored(prepared, smoothed)
        if state.smoothed:
            prepared = validated_as_before(prepared)
        with Termination(active=folder is not None) as termination:
            speed = take_epochs(prepared, state, execution, termination)
        if termination.requested:  # too late to be noticed within the run
            message = "Interrupted: the training was over, and its state is saved."
            raise Interrupted(message, termination.code)
        give_best(prepared)
    return Result(
        state.history,
        state.best_epoch,
        state.seconds,
        speed,
        checkpoints=None if folder is None else Path(folder),
        smoothed=state.smoothed,
    )
