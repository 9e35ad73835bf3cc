"""The learning rate to train with."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_resnet import analysis, data, training, transfer
from keras_resnet.machine import computing_in
from keras_resnet.runs.guards import (
    check_files,
    check_writable,
    damaged_images_named,
    job,
    policy_of,
)
from keras_resnet.runs.kinds import kind_of
from keras_resnet.runs.training import as_train, settled

TABLE, PLOT = "learning_rate.csv", "learning_rate.png"


@dataclass(frozen=True)
class LearningRateRecord:
    """What `find_learning_rate` has found.

    Parameters
    ----------
    model : keras.Model
        The model, as it was before.
    source : Source
        The data.
    found : LearningRates
        The loss at each rate, and the suggestion.
    output : pathlib.Path
        The folder that holds learning_rate.csv and learning_rate.png.
    """

    model: keras.Model
    source: data.Source
    found: training.LearningRates
    output: Path

    def to_json(self) -> dict:
        """What `keras-resnet train --find-learning-rate --json` prints."""
        return {
            "model": self.model.name,
            "data": self.source.name,
            "task": self.source.task,
            "learning_rate": self.found.suggestion,
            "lowest_loss_at": self.found.lowest,
            "diverged": self.found.diverged,
            "steps": len(self.found.losses),
            "output": str(self.output),
        }


@job
def find_learning_rate(
    source: str | os.PathLike, output: str | os.PathLike, **options: Any
) -> LearningRateRecord | None:
    """Find the learning rate to train with, as `keras-resnet train --find-learning-rate` does.

    Trains a copy of the model for 100 steps while the rate rises from 1e-5 to 10, as
    `keras_resnet.training.find_learning_rate` does, and writes learning_rate.csv and
    learning_rate.png into `output`. With weights to fine-tune, it is the head's rate, from which
    those of the other stages follow.

    Parameters
    ----------
    source, output, **options
        As `train` takes them. What comes with its own rate, such as `learning_rate` and `epochs`,
        has no effect.

    Returns
    -------
    LearningRateRecord or None
        None in a worker that is not the chief.

    Raises
    ------
    ValueError
        As `train` does.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.find_learning_rate("digits", folder, model="CIFARResNet8")
    >>> 0.01 < record.to_json()["learning_rate"] < 10
    True
    """
    asked = as_train(options)
    output = Path(output)
    if asked.is_chief:
        check_writable(output)
        check_files(output, (TABLE, PLOT))
    images = asked.images(source)
    asked, kind = settled(asked, images), kind_of(images)
    order = asked.order
    plan, learns = kind.planned(order)
    assert asked.precision is not None  # settled chose one
    with computing_in(policy_of(asked.precision)):
        keras.utils.set_random_seed(asked.execution.seed)
        net = kind.built(order, images, asked.execution.image_size)
        execution = kind.executed(asked.execution, images)
        if order.balanced:
            execution = replace(execution, class_weight=images.class_weight())
        recipe = plan
        if learns is transfer.fine_tune:
            transfer.freeze(net)
            recipe = plan[0].recipe
        with damaged_images_named(images.train):
            found = training.find_learning_rate(
                net, images, recipe, asked.strategy, execution=execution
            )
    if not asked.is_chief:
        return None
    found.save(output / TABLE)
    analysis.learning_rate_curve(output / PLOT, found)
    return LearningRateRecord(net, images, found, output)
