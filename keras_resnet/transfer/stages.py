"""Fine-tuning in stages."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data import Source
from keras_resnet.graphs import crop_of, last_stage, named_layers
from keras_resnet.training import collectives, strategies
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find
from keras_resnet.training.result import Result
from keras_resnet.training.tasks import task_of
from keras_resnet.training.trainer import train
from keras_resnet.transfer.features import train_head
from keras_resnet.transfer.freezing import freeze, unfreeze


@dataclass(frozen=True)
class Stage:
    """A part of fine-tuning.

    Parameters
    ----------
    back_to : str
        Where learning begins: "head", a stage of the net such as "conv5", "last" for the last of
        them, or "all".
    recipe : Recipe
        How to train.
    views : int, default 0
        For the head alone: instead of running every image through the frozen layers in every epoch,
        run so many variations of it through them once, and train on the features.
    normalization : bool, default False
        As in `unfreeze`.
    """

    back_to: str
    recipe: Recipe
    views: int = 0
    normalization: bool = False


def stages(**changes) -> tuple[Stage, ...]:
    """The three stages of fine-tuning: the head, then the last stage with it, then all layers.

    Parameters
    ----------
    **changes
        Fields of `Recipe` that are to be other than in the recipe "finetune". The learning rate is
        the head's, the others' are slower; `epochs` are those of the second and the third stage
        together, a third of them the third's.

    Returns
    -------
    tuple of Stage

    Examples
    --------
    >>> from keras_resnet import transfer
    >>> [(stage.back_to, stage.recipe.epochs) for stage in transfer.stages(epochs=3)]
    [('head', 20), ('last', 2), ('all', 1)]
    """
    recipe = find("finetune", **changes)
    of_all = recipe.epochs // 3
    slow, slower = (
        replace(recipe, learning_rate=part * recipe.learning_rate) for part in (0.3, 0.1)
    )
    found = [
        Stage("head", replace(recipe, epochs=20, patience=5), views=2),
        Stage("last", replace(slow, epochs=recipe.epochs - of_all)),
        Stage("all", replace(slower, epochs=max(of_all, 1), rates=DISCRIMINATIVE)),
    ]
    return tuple(found if of_all else found[:2])


# The earlier a stage, the more general what it has learned, and the slower it learns.
DISCRIMINATIVE = {"conv1": 0.05, "conv2": 0.1, "conv3": 0.2, "conv4": 0.4, "conv5": 0.7}


def fine_tune(
    model: keras.Model,
    source: Source,
    plan: Sequence[Stage] | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    image_size: int | None = None,
    crop: float | None = None,
    checkpoints: str | os.PathLike | None = None,
    features_folder: str | os.PathLike | None = None,
    **options,
) -> Result:
    """Fine-tune a pretrained classifier in stages, and keep the best weights of them all.

    Parameters
    ----------
    model : keras.Model
        A classifier of the source's classes on a pretrained backbone, which takes raw images.
    source : Source
        The data; its test images are not touched.
    plan : sequence of Stage, optional
        What learns, and how, one after the other. Default: `stages()`.
    strategy : tf.distribute.Strategy or str, optional
        As in `keras_resnet.training.train`. Several processes train the head as they do all else,
        not on features computed once.
    features_folder : path, optional
        A folder to keep the features of frozen layers in, for other runs that need the same ones.
        Default: with the checkpoints.
    image_size, crop, checkpoints, **options
        As in `keras_resnet.training.train`. An interrupted run goes on in the stage that it was in.

    Returns
    -------
    Result
        The epochs of all stages one after the other. Afterwards all layers may learn again.

    Raises
    ------
    ValueError
        As `train` does, and for a stage that the model lacks.

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
    task_of(source).check(model, source)
    plan = stages() if plan is None else plan
    if not plan:
        raise ValueError(f"plan={plan!r} must have a stage at least; left out, it is stages().")
    if isinstance(strategy, str):
        strategy = strategies.strategy(strategy)
    strategy = strategy or model.distribute_strategy
    if collectives.workers(strategy)[0] > 1 or tf.distribute.has_strategy():
        plan = [replace(stage, views=0) for stage in plan]
    last = last_stage(model)
    plan = [replace(stage, back_to=last) if stage.back_to == "last" else stage for stage in plan]
    for stage in plan:
        if stage.back_to not in ("head", "all"):
            named_layers(model, stage.back_to, "back_to")
    size = image_size or model.input_shape[1] or source.image_size
    crop = crop_of(model) if crop is None else crop
    results, best_loss = {}, np.inf
    try:
        for number, stage in enumerate(plan, start=1):
            unfreeze(model)
            freeze(model)
            if stage.back_to != "head":
                back_to = None if stage.back_to == "all" else stage.back_to
                unfreeze(model, back_to, normalization=stage.normalization)
            former = model.get_weights() if results else None
            if stage.views:
                learn = functools.partial(train_head, features_folder=features_folder)
            else:
                learn = _train_layers
            result = learn(
                model,
                source,
                stage,
                strategy,
                image_size=size,
                crop=crop,
                checkpoints=checkpoints and Path(checkpoints) / f"{number}-{stage.back_to}",
                **options,
            )
            name = f"{number}-{stage.back_to}" if stage.back_to in results else stage.back_to
            results[name] = result
            loss = _loss(result)
            if loss <= best_loss:
                best_loss = loss
            else:
                model.set_weights(former)
    finally:
        unfreeze(model)
    return _joined(results)


def _train_layers(model, source, stage, strategy, **options):
    return train(model, source, stage.recipe, strategy, **options)


def _loss(result):
    """What stages are compared by; where nothing was validated, the later one is the better."""
    if "val_loss" not in result.history:
        return -np.inf
    return result.history["val_loss"][result.best_epoch - 1]


def _joined(results):
    """One result of several stages."""
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
    )
