"""A trained model on labelled images."""

import os
from dataclasses import dataclass
from typing import Literal

import keras

from keras_resnet import analysis, data
from keras_resnet.runs.guards import damaged_images_named
from keras_resnet.runs.models import input_of, load_model


@dataclass(frozen=True)
class EvaluateRecord:
    """What `evaluate` has found.

    Parameters
    ----------
    model : keras.Model
        The model.
    source : Source
        The data.
    split : str
        The split that was looked at.
    evaluation : Evaluation
        How the model does on its images.
    """

    model: keras.Model
    source: data.Source
    split: str
    evaluation: analysis.Evaluation

    def to_json(self) -> dict:
        """What `keras-resnet evaluate --json` prints."""
        return {
            "model": self.model.name,
            "data": self.source.name,
            "split": self.split,
            "images": len(self.source.splits[self.split]),
            "accuracy": self.evaluation.accuracy,
            "per_class": self.evaluation.per_class(),
        }


def evaluate(
    model: str | os.PathLike,
    source: str | os.PathLike,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    weights: str | os.PathLike | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> EvaluateRecord:
    """Test a trained model on labelled images, as `keras-resnet evaluate` does.

    Parameters
    ----------
    model : str or path
        A .keras file of a model that takes raw images, a folder with a model.keras, or the name of
        a builder.
    source : str or path
        The data, as `keras_resnet.data.load` takes it; "pets:validation" is a split of it.
    split : {"train", "validation", "test"}, optional
        The split to look at. Default: what `source` says, or "test".
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.

    Returns
    -------
    EvaluateRecord

    Raises
    ------
    ValueError
        For a model or data that cannot be read, or classes that are not the model's.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = runs.train("digits", folder, model="CIFARResNet8", epochs=1)
    ...     record = runs.evaluate(folder, "digits", split="validation")
    >>> record.to_json()["images"]
    216
    """
    source = os.fspath(source)
    if split is None:
        name, _, split = source.rpartition(":")
        source, split = (name, split) if split in data.SPLITS else (source, "test")
    elif split not in data.SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(map(repr, data.SPLITS))}.")
    net, labels = load_model(model, weights)
    images = data.load(source, on_error=on_error)
    if list(images.class_names) != labels:
        raise ValueError(
            f"data {source!r} has the classes {', '.join(images.class_names)}; the model knows "
            f"{', '.join(labels)}."
        )
    some = images.splits[split]
    with damaged_images_named(some):
        batches = data.batches(some, **input_of(net, images))
        quality = analysis.evaluate(net, batches, images.class_names)
    return EvaluateRecord(net, images, split, quality)
