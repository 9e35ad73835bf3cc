"""From images to a tested, exported model."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

from keras_resnet import data, names, training, transfer, zoo
from keras_resnet.runs.guards import (
    check_backend,
    check_writable,
    computing_in,
    damaged_images_named,
    policy_of,
)
from keras_resnet.runs.results import TrainRecord, write_results
from keras_resnet.training.checkpoints import bind

__all__ = ["TrainRecord", "train"]

log = logging.getLogger(__name__)

SHORTCUTS = ("A", "B", "C", "none")

_RECIPE = [each.name for each in fields(training.Recipe)]
_DATA = {"on_error": "raise", "validation": 0.15}
_EXECUTION = {
    "image_size": None,
    "crop": None,
    "seed": 0,
    "cache": None,
    "synchronized": None,
    "steps_per_execution": 1,
    "save_every": None,
    "callbacks": (),
    "verbose": 0,
}


def train(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    model: str = "ResNet50",
    weights: str | os.PathLike | None = None,
    shortcut: Literal["A", "B", "C", "none"] | None = None,
    dropout: float = 0.0,
    recipe: training.Recipe | str | None = None,
    balanced: bool = False,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    strategy: tf.distribute.Strategy | str = "auto",
    hosts: Sequence[str] | None = None,
    timeout: float = 600.0,
    profile: bool = False,
    exports: str | os.PathLike | None = None,
    **options,
) -> TrainRecord | None:
    """Train a model on images, test it and export it, as `keras-resnet train` does.

    With weights, the model is fine-tuned in stages: first its head, on features computed once, then
    the last stage, then all layers. Without, it is trained from scratch. An interrupted run
    continues where it was when it is started again with the same arguments.

    Writes into `output`: model.keras, labels.txt, history.csv, metrics.json, curves.png,
    predictions.png, confusion.csv, and logs for TensorBoard.

    Parameters
    ----------
    source : str or path
        The data, as `keras_resnet.data.load` takes it.
    output : path
        The folder of the run.
    model : str, default "ResNet50"
        Name of a builder; case, "-" and "_" do not matter.
    weights : str or path, optional
        Weights to fine-tune: a tag of `keras_resnet.list_weights`, or a file.
    shortcut : {"A", "B", "C", "none"}, optional
        Shortcuts of the model; "none" is the plain network. Default: the builder's.
    dropout : float, default 0.0
        Fraction of the features to drop.
    recipe : Recipe or str, optional
        How to train, or a key of `keras_resnet.training.RECIPES`. Default: "finetune" with weights,
        otherwise `Recipe()`.
    balanced : bool, default False
        Weight classes equally, however many images each has.
    precision : {"float32", "bfloat16", "float16"}, default "float32"
        What feature maps are computed in.
    strategy : tf.distribute.Strategy or str, default "auto"
        The devices, as `keras_resnet.training.strategy` takes them.
    hosts : sequence of str, optional
        For "multiworker": the machines, the same everywhere.
    timeout : float, default 600.0
        For "multiworker": seconds to wait for a worker that does not come or answer.
    profile : bool, default False
        Write a trace of steps 10 to 20 into output/profile.
    exports : path, optional
        Folder of the SavedModel's versions. Default: output/saved_model.
    **options
        Fields of `keras_resnet.training.Recipe`, such as `epochs` and `learning_rate`; arguments of
        `keras_resnet.training.train`: `image_size`, `crop`, `seed`, `cache`, `synchronized`,
        `steps_per_execution`, `save_every`, `callbacks` and `verbose` (default 0); and of
        `keras_resnet.data.load`: `on_error` and `validation`.

    Returns
    -------
    TrainRecord or None
        None in a worker that is not the chief.

    Raises
    ------
    ValueError
        For an argument that is unknown or out of range, data that cannot be read, a folder that
        holds another run or cannot be written to, or a loss that becomes NaN.
    keras_resnet.training.Interrupted
        On SIGTERM, after the state has been saved.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.train("digits", folder, model="CIFARResNet8", epochs=1)
    >>> record.to_json()["test_images"]
    359
    """
    check_backend()
    policy = policy_of(precision)
    changes, execution, of_data = _sorted(options)
    plan, learn = _plan(weights, recipe, changes)
    build = zoo.builder(model)
    if shortcut is not None:
        shortcut = names.find("shortcut", shortcut, SHORTCUTS)
    output = Path(output)
    exports = output / "saved_model" if exports is None else Path(exports)
    # Before TensorFlow computes anything, which ends the choice of devices.
    if isinstance(strategy, str):
        strategy = training.strategy(strategy, hosts=hosts, timeout=timeout)
    chief = training.collectives.workers(strategy)[1] == 0
    if chief:
        check_writable(output, exports)
    images = data.load(source, **of_data)
    size = execution["image_size"] = execution["image_size"] or images.image_size
    crop = execution.pop("crop")
    with computing_in(policy):
        keras.utils.set_random_seed(execution["seed"])
        shape = dict(input_shape=(size, size, images.channels), include_preprocessing=True)
        if shortcut is not None:
            shape["shortcut"] = None if shortcut == "none" else shortcut
        if weights or dropout:
            backbone = build(weights=weights, include_top=False, **shape)
            net = transfer.classifier(backbone, len(images.class_names), dropout)
        else:
            net = build(weights=None, classes=len(images.class_names), **shape)
        if crop is not None:
            net.get_layer("preprocessing").crop = crop  # saved with the model
        if chief:
            _announce(images, net, balanced)
        checkpoints, callbacks = output / "checkpoints", [*execution.pop("callbacks")]
        if chief:
            # What the stages cannot know of each other: an interrupted run must not continue as
            # another.
            settings = {
                "data": os.fspath(source),
                "model": model,
                "weights": weights and os.fspath(weights),
                "precision": precision,
                "dropout": dropout,
                "on_error": of_data["on_error"],
            }
            bind(checkpoints, settings)
            callbacks.append(training.TensorBoardLog(output / "logs"))
            if profile:
                callbacks.append(training.Profile(output / "profile"))
        with damaged_images_named(images.train, images.validation, images.test):
            result = learn(
                net,
                images,
                plan,
                strategy,
                class_weight=images.class_weight() if balanced else None,
                checkpoints=checkpoints if learn is transfer.fine_tune else checkpoints / "scratch",
                callbacks=callbacks,
                **execution,
            )
            if not chief:
                return None
            record = write_results(net, images, result, output, exports, precision)
    shutil.rmtree(checkpoints)
    return record


def _sorted(options):
    """Options by what they are for: the recipe's changes, the execution, the data."""
    known = {**dict.fromkeys(_RECIPE), **_EXECUTION, **_DATA}
    given = {names.find("option", name, known): value for name, value in options.items()}
    return (
        {name: value for name, value in given.items() if name in _RECIPE},
        {name: given.get(name, default) for name, default in _EXECUTION.items()},
        {name: given.get(name, default) for name, default in _DATA.items()},
    )


def _plan(weights, recipe, changes: Mapping):
    """How to train, and the function that does."""
    if changes.get("augmentation") is not None:
        found = names.find("augmentation", changes["augmentation"], data.AUGMENTATIONS)
        changes = {**changes, "augmentation": found}
    if isinstance(recipe, str):
        recipe = names.find("recipe", recipe, training.RECIPES)
        recipe = None if weights and recipe == "finetune" else training.RECIPES[recipe]
    if weights and recipe is None:
        return transfer.stages(**changes), transfer.fine_tune
    return (recipe or training.Recipe()).changed(**changes), training.train


def _announce(images, net, balanced):
    log.info(
        "%s: %d classes, %d training, %d validation and %d test images. %s: %s parameters.",
        images.name,
        len(images.class_names),
        *map(len, images.splits.values()),
        net.name,
        f"{net.count_params():,}",
    )
    if images.imbalance > 1.5:
        remedy = "they are weighted equally" if balanced else "balanced weights them equally"
        log.info(
            "The largest class has %.1f times as many images as the smallest: %s.",
            images.imbalance,
            remedy,
        )
