"""A trained model on labelled images."""

import contextlib
import os
from dataclasses import dataclass
from typing import Literal

import keras

from keras_resnet import analysis, data, graphs
from keras_resnet.runs.guards import damaged_images_named, job
from keras_resnet.runs.models import answering, load_model, warn_of_unknowns
from keras_resnet.runs.results import Quality
from keras_resnet.training import task_of


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
    evaluation : Evaluation, MultiLabelEvaluation or RegressionEvaluation
        How the model does on its images.
    """

    model: keras.Model
    source: data.Source
    split: str
    evaluation: Quality

    def to_json(self) -> dict:
        """What `keras-resnet evaluate --json` prints."""
        return {
            "model": self.model.name,
            "data": self.source.name,
            "task": self.source.task,
            "split": self.split,
            "images": len(self.source.splits[self.split]),
            **self.evaluation.metrics(),
            **self.evaluation.details(),
        }


@job
def evaluate(
    model: str | os.PathLike,
    source: str | os.PathLike,
    *,
    split: Literal["train", "validation", "test"] | None = None,
    task: Literal["classification", "multilabel", "regression"] | None = None,
    weights: str | os.PathLike | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
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
    task : {"classification", "multilabel", "regression"}, optional
        What the model is for and the labels are. Default: what the model says, and the labels
        suggest where it does not.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels that images are shown with, if the model takes any size. Default:
        the model's.
    crop : float, optional
        Fraction of an image that is shown, as in `keras_resnet.data.batches`. Default: the model's.

    Returns
    -------
    EvaluateRecord

    Raises
    ------
    ValueError
        For a model or data that cannot be read, or data of another task or other classes than the
        model's.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "digits.keras")
    ...     shape = (8, 8, 1)
    ...     keras_resnet.CIFARResNet(8, input_shape=shape, include_preprocessing=True).save(file)
    ...     record = runs.evaluate(file, "digits", split="validation")
    >>> record.to_json()["images"]
    216
    """
    source = os.fspath(source)
    if split is None:
        name, _, last = source.rpartition(":")
        source, part = (name, last) if last in data.SPLITS else (source, "test")
    else:
        part = split
    if part not in data.SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(map(repr, data.SPLITS))}.")
    found = load_model(model, weights, task)
    view = graphs.view_of(found.model, image_size=image_size, crop=crop)
    images = _images(source, on_error, task, found.task)
    if found.task is None:
        found = answering(found.model, found.names if found.named else None, images.task)
    _check_same(found, images, source)
    warn_of_unknowns(found)
    some = images.splits[part]
    with damaged_images_named(some):
        batches = data.batches(some, **vars(view))
        quality = analysis.evaluate(found.predictor, batches, images.class_names, images.task)
    return EvaluateRecord(found.model, images, part, quality)


def _images(source, on_error, task, known):
    """The data; whole numbers and single labels look like classes, but a model may know better."""
    if task is None and known == "regression":
        with contextlib.suppress(ValueError):
            return data.load(source, on_error=on_error, task=known)
    may_be_labels = task is None and known == "multilabel"
    try:
        images = data.load(source, on_error=on_error, task=task)
    except ValueError:  # such as one label only, or none
        if not may_be_labels:
            raise
        return data.load(source, on_error=on_error, task=known)
    if may_be_labels and images.task == "classification":
        return data.load(source, on_error=on_error, task=known)
    return images


def _check_same(found, images, source):
    """Make sure that a model answers what the labels of a source say."""
    if found.task != images.task:
        raise ValueError(f"data {source!r} is for {images.task}; the model is for {found.task}.")
    if images.task == "regression":
        if len(images.class_names) != len(found.names):
            raise ValueError(
                f"data {source!r} has {len(images.class_names)} values per image; the model gives "
                f"{len(found.names)}."
            )
    elif images.class_names != found.names:
        raise ValueError(
            f"data {source!r} has the {task_of(images).labels} {', '.join(images.class_names)}; "
            f"the model knows {', '.join(found.names)}."
        )
