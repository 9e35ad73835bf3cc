"""Features computed once, and a head trained on them."""

import contextlib
import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import graphs, progress
from keras_resnet.data import Source
from keras_resnet.data.readers import by_index
from keras_resnet.files import as_python, digest, written_beside
from keras_resnet.graphs import extractor_of
from keras_resnet.resnet import deep_graphs
from keras_resnet.training.execution import Execution
from keras_resnet.training.recipes import VARIATION, Recipe
from keras_resnet.training.result import Result
from keras_resnet.training.stopping import Stopping
from keras_resnet.training.tasks import task_of
from keras_resnet.training.trainer import fit
from keras_resnet.transfer.plans import Stage


def features(model: keras.Model, images: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Run images through everything but a model's head.

    Parameters
    ----------
    model : keras.Model
        A functional model with a head, such as `classifier` makes it, or without.
    images : tf.data.Dataset
        Batches of (images, labels), as `data.batches` makes them: for one epoch, or for several
        with different views of each image.

    Returns
    -------
    tuple of (features, labels)
        Arrays of shape (images, channels), float32, and (images,) or (images, classes).

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, transfer
    >>> net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1))
    >>> digits = data.load("digits").test
    >>> found, labels = transfer.features(net, data.batches(digits, image_size=8, channels=1))
    >>> found.shape, labels.shape
    ((359, 64), (359,))
    """
    return _extracted(extractor_of(model), images)


@deep_graphs()
def train_head(
    view: graphs.View,
    model: keras.Model,
    source: Source,
    stage: Stage,
    execution: Execution,
    features_folder: str | os.PathLike | None = None,
    *,
    smoothed: bool = False,
    stopping: Stopping | None = None,
    keep: Literal["best", "last"] = "best",
) -> Result:
    """Train a model's head on features that are computed once; one device is enough for that.

    Parameters
    ----------
    view : View
        How images are shown to the model.
    model : keras.Model
        A model for the source's task.
    source : Source
        The data.
    stage : Stage
        What to train, and how: `views` of every training image.
    execution : Execution
        How to carry the recipe out.
    features_folder : path, optional
        Where to keep the features. Default: with the checkpoints.
    smoothed, stopping, keep
        As in `training.trainer.fit`.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the stage is not the head's, and as `train` does.
    """
    if stage.back_to != "head":
        raise ValueError(f"views={stage.views} is for the head alone, not for {stage.back_to!r}.")
    recipe, task, extractor = stage.recipe, task_of(source), extractor_of(model)
    policy = task.policy(source, recipe)
    shown = {**vars(view), "batch_size": recipe.batch_size, "cache": execution.cache}

    def compute():
        varied = task.batches(
            source.train,
            augmentation=policy,
            seed=execution.seed,
            epochs=range(stage.views),
            classes=len(source.class_names),
            **shown,
        )
        if not len(source.validation):
            return _extracted(extractor, varied)
        plain = task.batches(source.validation, **shown)
        return *_extracted(extractor, varied), *_extracted(extractor, plain)

    settings = {
        "data": source.name,
        "images": [len(split) for split in source.splits.values()],
        "fingerprint": source.fingerprint(),
        **task.settings(view, policy),
        "views": stage.views,
        "augmentation": recipe.augmentation or source.augmentation,
        "mixup": recipe.mixup,
        # Earlier versions had no others.
        **{
            name: getattr(recipe, name)
            for name in VARIATION
            if name != "mixup" and getattr(recipe, name) != getattr(Recipe, name)
        },
        "layers": graphs.digest(extractor),
        "weights": digest(np.ascontiguousarray(each) for each in extractor.get_weights()),
        "seed": execution.seed,
    }
    made_how, folder = json.dumps(as_python(settings)), execution.checkpoints
    path = None if folder is None else Path(folder) / "features.npz"
    if features_folder is not None:
        path = Path(features_folder) / f"{digest([made_how])}.npz"
    inputs, labels, *validation = _kept(path, made_how, compute)
    rows = by_index(np.arange(len(labels)), lambda index: index)

    def training(epochs, batch_size, first_step=0, **_):
        def epoch(number):
            order = rows.elements(execution.seed + 1 + number).map(lambda index, _: index)
            return order.batch(batch_size).map(
                lambda chosen: (tf.gather(inputs, chosen), tf.gather(labels, chosen))
            )

        steps = -(-len(labels) // batch_size) * len(epochs)
        dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)
        return dataset.skip(first_step)

    return fit(
        graphs.head_model_of(model),
        training,
        (lambda **_: tf.data.Dataset.from_tensor_slices(tuple(validation)).batch(256))
        if validation
        else None,
        recipe,
        objective=task.objective(source, recipe, execution.class_weight, mixed=task.mixes(policy)),
        settings=settings,
        execution=dataclasses.replace(execution, synchronized=None),
        smoothed=smoothed,
        stopping=stopping,
        keep=keep,
    )


def _extracted(extractor, images):
    """Features and labels of batches of images."""
    found, labels = [], []
    for batch, its in progress.batches(images, "Features"):
        found.append(extractor.predict_on_batch(batch))
        labels.append(its)
    return np.concatenate(found).astype("float32"), np.concatenate(labels)


def _kept(path, made_how, compute):
    """Arrays from a file; computed and written there if it is missing, damaged or another run's."""
    if path is None:
        return compute()
    if path.exists():
        damage = (OSError, ValueError, EOFError, zipfile.BadZipFile)
        with contextlib.suppress(*damage), path.open("rb") as file, np.load(file) as arrays:
            former, *found = (arrays[name] for name in arrays.files)
            if former == made_how:
                return found
    found = compute()
    with written_beside(path) as partial:
        np.savez(partial, made_how, *found)
    return found
