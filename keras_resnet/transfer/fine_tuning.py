"""Fine-tuning in stages."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import Source
from keras_resnet.progress import tracked
from keras_resnet.training import collectives, strategies
from keras_resnet.training.callbacks import direct
from keras_resnet.training.execution import Execution, execution_of
from keras_resnet.training.prepare import compile_for_more
from keras_resnet.training.result import Result
from keras_resnet.training.stopping import Stopping
from keras_resnet.training.tasks import task_of
from keras_resnet.training.trainer import check_drop_path, train_on
from keras_resnet.transfer.cached_features import train_head
from keras_resnet.transfer.freezing import freeze, unfreeze
from keras_resnet.transfer.plans import Stage, plan_for, stages

logger = logging.getLogger("keras_resnet")


def fine_tune(
    model: keras.Model,
    source: Source,
    plan: Sequence[Stage] | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    features_folder: str | os.PathLike | None = None,
    execution: Execution | None = None,
    **options: Any,
) -> Result:
    """Fine-tune a pretrained model in stages, and keep the best weights of all of them.

    Parameters
    ----------
    model : keras.Model
        A model for the source's task on a pretrained backbone, which takes raw images.
    source : Source
        The data. Its test images are not used.
    plan : sequence of Stage, optional
        What learns, and how, one stage after the other. Default: `stages()`.
    strategy : tf.distribute.Strategy or str, optional
        As in `keras_resnet.training.train`. Several processes train the head like everything else,
        not on features computed once.
    features_folder : path, optional
        A folder for the features of frozen layers, for other runs that need the same ones.
        Default: with the checkpoints.
    execution : Execution, optional
        As in `keras_resnet.training.train`. An interrupted run continues in the stage that it was
        in.
    **options
        Fields of `Execution`, instead of one.

    Returns
    -------
    Result
        The epochs of all stages that were not skipped, one after the other. Afterwards all layers
        are trainable.

    Raises
    ------
    ValueError
        As `train` does, and for a stage that the model does not have.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, training, transfer
    >>> digits = data.load("digits")
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> recipe = training.Recipe(epochs=2)
    >>> plan = [transfer.Stage("head", recipe, views=1), transfer.Stage("conv4", recipe)]
    >>> transfer.fine_tune(model, digits, plan, verbose=0).stages
    {'head': 2, 'conv4': 2}
    """
    execution, task = execution_of(execution, options), task_of(source)
    if not task.in_stages:
        raise ValueError(
            f"data {source.name!r} is for {task.name}, whose models are not trained in stages: "
            "call keras_resnet.training.train."
        )
    task.check(model, source)
    direct(execution.callbacks, ("loss", *task.metrics), validated=len(source.validation) > 0)
    plan = stages() if plan is None else plan
    if not plan:
        raise ValueError(f"plan={plan!r} needs at least one stage. Left out, it is stages().")
    if isinstance(strategy, str):
        strategy = strategies.strategy(strategy)
    strategy = strategy or model.distribute_strategy
    if collectives.workers(strategy)[0] > 1 or tf.distribute.has_strategy():
        plan = [replace(stage, views=0) for stage in plan]
    plan = plan_for(model, plan)
    for stage in plan:
        check_drop_path(stage.recipe, model)
    # One view for all stages: that of the last one, which the model ends up with.
    view = task.view(model, source, plan[-1].recipe, execution)
    task.remember(model, view)
    results, best_loss, best, gained = {}, np.inf, None, True
    try:
        for number, stage in enumerate(tracked(plan, "Fine-tuning", unit="stages"), start=1):
            if best and stage.optional and (reason := _nothing_to_gain(source, best, gained)):
                logger.info("Stage %r is skipped: %s.", stage.back_to, reason)
                continue
            _let_learn(model, stage)
            former = model.get_weights() if results else None
            folder = execution.checkpoints
            here = replace(
                execution, checkpoints=folder and Path(folder) / f"{number}-{stage.back_to}"
            )
            # If an earlier version began, stages go on being compared by what it measured.
            smoothed = any(result.smoothed for result in results.values())
            stopping = None
            if stage.patience and len(source.validation):
                stopping = Stopping(best_loss, stage.patience, stage.min_gain)
            if stage.views:
                result = train_head(
                    view, model, source, stage, here, features_folder,
                    smoothed=smoothed, stopping=stopping, keep=stage.keep,
                )  # fmt: skip
            else:
                result = train_on(
                    view, model, source, stage.recipe, strategy, here,
                    smoothed=smoothed, stopping=stopping, keep=stage.keep,
                )  # fmt: skip
            if stopping and len(result.history["loss"]) < stage.recipe.epochs:
                logger.info("Stage %r ended early: it gained nothing more.", stage.back_to)
            name = f"{number}-{stage.back_to}" if stage.back_to in results else stage.back_to
            results[name] = result
            loss = _loss(result)
            # The first stage has none before it to compare with.
            gained = best is None or Stopping(best_loss, 1, stage.min_gain).is_gain(loss)
            if loss <= best_loss:
                best_loss, best = loss, result
            else:
                model.set_weights(former)
    finally:
        unfreeze(model)
    compile_for_more(model, plan[-1].recipe, task.compiled)
    return _joined(results)


# With fewer mistakes, on at least so many images, no gain can be told from chance: see `Stage`.
_TELLING_MISTAKES, _TELLING_IMAGES = 5, 200


def _nothing_to_gain(source, best, gained):
    """Why an optional stage cannot gain anything; None if it can."""
    if not len(source.validation):
        return None
    if not gained:
        return "the stage before it gained nothing"
    images, accuracies = len(source.validation), best.history.get("val_accuracy")
    if source.task != "classification" or not accuracies or images < _TELLING_IMAGES:
        return None
    mistakes = round((1.0 - accuracies[best.best_epoch - 1]) * images)
    if mistakes >= _TELLING_MISTAKES:
        return None
    return f"{mistakes} of {images} validation images are wrong, too few to tell a gain from chance"


def _let_learn(model, stage):
    """Make the layers of a stage trainable, and no others."""
    unfreeze(model)
    freeze(model)
    if stage.back_to != "head":
        back_to = None if stage.back_to == "all" else stage.back_to
        unfreeze(model, back_to, normalization=stage.normalization)


def _loss(result):
    """What stages are compared by; without validation, later ones are better."""
    if "val_loss" not in result.history:
        return -np.inf
    return result.history["val_loss"][result.best_epoch - 1]


def _joined(results):
    """The results of all stages as one."""
    first = next(iter(results.values()))
    before, best_epoch, best_loss = 0, 0, np.inf
    for result in results.values():
        loss = _loss(result)
        if loss <= best_loss:
            best_epoch, best_loss = before + result.best_epoch, loss
        before += len(result.history["loss"])
    return Result(
        {name: [v for r in results.values() for v in r.history[name]] for name in first.history},
        best_epoch,
        sum(result.seconds for result in results.values()),
        list(results.values())[-1].images_per_second,
        {name: len(result.history["loss"]) for name, result in results.items()},
        smoothed=any(result.smoothed for result in results.values()),
    )
