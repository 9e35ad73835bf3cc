"""A trained model on labelled images."""

import contextlib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras

from keras_resnet import analysis, data, names
from keras_resnet.checks import check_choice
from keras_resnet.data.image_sets import Arrays
from keras_resnet.data.labels import Task
from keras_resnet.data.source import SPLIT_OF, joined
from keras_resnet.runs.choices import IMAGES_FILE
from keras_resnet.runs.guards import damaged_images_named, job
from keras_resnet.runs.images import images_of
from keras_resnet.runs.kinds import Quality, kind_of
from keras_resnet.runs.models import answering, load_model, warn_of_unknowns
from keras_resnet.training import task_of

_MISSING = {"changed": "have changed since training", "gone": "are gone"}
_FEW = 10  # names that an error lists
_PARTS = {**{name: (name,) for name in data.SPLITS}, "all": tuple(data.SPLITS)}


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
        The split that was looked at; "all" for all images of the data.
    evaluation : Evaluation, MultiLabelEvaluation, RegressionEvaluation or DetectionEvaluation
        How the model does on its images.
    trained_on : int, optional
        How many of these images the model was trained on; None if that is not known.
    changed, gone : int
        Of the run's own images, how many have changed since training, and how many are gone. These
        are left out.
    notes : tuple of str
        What to know about the images, one line each.
    tta : str, optional
        The views of each image whose answers were averaged.
    """

    model: keras.Model
    source: data.Source
    split: str
    evaluation: Quality
    trained_on: int | None = None
    changed: int = 0
    gone: int = 0
    notes: tuple[str, ...] = ()
    tta: str | None = None

    def to_json(self) -> dict:
        """What `keras-resnet evaluate --json` prints."""
        return {
            "model": self.model.name,
            "data": self.source.name,
            "task": self.source.task,
            "split": self.split,
            "images": sum(len(self.source.splits[name]) for name in _PARTS[self.split]),
            "trained_on": self.trained_on,
            "changed": self.changed,
            "gone": self.gone,
            **({"tta": self.tta} if self.tta else {}),
            **self.evaluation.metrics(),
            **(details := self.evaluation.details()),
            "notes": [*self.source.notes, *self.notes, *details.get("notes", ())],
        }


@job
def evaluate(
    model: str | os.PathLike,
    source: str | os.PathLike | None = None,
    *,
    split: Literal["train", "validation", "test", "all"] | None = None,
    task: Task | None = None,
    weights: str | os.PathLike | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    tta: str | None = None,
) -> EvaluateRecord:
    """Test a trained model on labelled images, as `keras-resnet evaluate` does.

    Parameters
    ----------
    model : str or path
        A .keras file of a model that takes raw images, a folder with a model.keras, or the name of
        a builder.
    source : str or path, optional
        The data, as `keras_resnet.data.load` takes it; "pets:validation" is a split of it,
        "pets:all" all of its images. Default: the images of the run, if `model` is one; those that
        have changed since are left out.
    split : {"train", "validation", "test", "all"}, optional
        The split to look at. Default: what `source` says, or "test".
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the model is for and the labels are. Default: what the model says, and the labels
        suggest where it does not.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels that images are shown with, if the model takes any size; for the
        name of a detector, as in `train`. Default: the model's.
    crop : float, optional
        Fraction of an image that is shown, as in `keras_resnet.data.batches`. Default: the model's.
    tta : {"flip", "five_crops", "ten_crops"}, optional
        Test-time augmentation: average the answers to several views of each image, as
        `keras_resnet.analysis.over_views` does. Default: one view.

    Returns
    -------
    EvaluateRecord

    Raises
    ------
    ValueError
        For a model or data that cannot be read, data of another task or other classes than the
        model's, or no data for a model that is not in the folder of a run.

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
    tta = tta and analysis.find_views(tta)
    source, asked = _split_of(source, split)
    own = None if weights else images_of(model)
    if source is None and own is None:
        raise ValueError(
            f"model {os.fspath(model)!r} has no {IMAGES_FILE} beside it that lists its images: "
            "give the images to test on, --data (source=)."
        )
    found = load_model(model, weights, task, image_size)
    part, missing = asked or "test", {}
    if own and source is None:
        images, missing = own.find(_PARTS[part], found.names, found.task or task)
    else:
        images = _images(source, on_error, task, found.task, _held_out(part, own))
    if found.task is None:
        found = answering(found.model, found.names if found.named else None, images.task)
    _check_same(found, images, os.fspath(model) if source is None else source)
    kind = kind_of(images)
    kind.check(crop=crop, tta=tta)
    view, predictor = kind.viewed(found.model, image_size, crop), found.predictor
    if tta and view:
        predictor, view = analysis.over_views(predictor, tta, view)
    warn_of_unknowns(found)
    some = joined(images.splits[name] for name in _PARTS[part])
    if not len(some):
        held_out = ": the run held out none" if own and part == "validation" else ""
        raise ValueError(f"data {source!r} has no {part} images{held_out}.")
    with damaged_images_named(some):
        quality = kind.evaluated(predictor, some, images, view, found.names, trained=True)
    trained_on, chosen_on = _seen(own, some)
    return EvaluateRecord(
        found.model,
        images,
        part,
        quality,
        trained_on,
        **missing,
        notes=(
            *_on_others(images, missing, None if asked else source),
            *_on_those_seen(part, some, trained_on, chosen_on),
            *_on_other_classes(found, images),
        ),
        tta=tta,
    )


def _split_of(source, split):
    """What "pets:validation" means: the data, and the split if any is asked for."""
    if split is not None:
        check_choice(tuple(_PARTS), split=split)
        return source, split
    name, colon, last = os.fspath(source or "").rpartition(":")
    alias = SPLIT_OF.get(last, last)
    if not colon or alias not in _PARTS:
        return source, None
    return (name if isinstance(source, str) else Path(name)), alias


def _held_out(part, own):
    """The fractions that data without splits is divided by: those of the run; none for all."""
    if part == "all":
        return {"validation": 0.0, "test": 0.0}
    return {"validation": own.validation} if own else {}


def _seen(own, some):
    """How many images a run was trained on and chose its best epoch on, if that is known."""
    if own is None or own.in_memory != (some.image_set.kind == Arrays.kind):
        return None, None
    digests = some.digests()
    return own.among(digests, "train"), own.among(digests, "validation")


def _on_others(images, missing, source):
    """Lines about images that are left out."""
    for what, count in missing.items():
        if count:
            yield f"Left out: {count} of the run's images {_MISSING[what]}."
    count, total = len(images.test), sum(map(len, images.splits.values()))
    if source is not None and count < total:
        yield f"These are the {count} test images of {total}. {source}:all tests on all of them."


def _on_those_seen(part, some, trained_on, chosen_on):
    """A line about images that the model has seen, where they should be new to it."""
    if (trained_on and part != "train") or (chosen_on and part not in ("train", "validation")):
        yield (
            f"Of these {len(some)} images, {trained_on} were used to train the model, and "
            f"{chosen_on} to choose its best epoch."
        )


def _on_other_classes(found, images):
    """A line about classes that the model knows and the data has not."""
    if images.task != "regression" and len(images.class_names) < len(found.names):
        yield (
            f"The data has {len(images.class_names)} of the {len(found.names)} classes that the "
            "model knows: what it finds of the others is left out."
        )


def _images(source, on_error, task, known, fractions):
    """The data; whole numbers and single labels look like classes, but a model may know better."""
    load = functools.partial(data.load, source, on_error=on_error, **fractions)
    if task is None and known == "regression":
        with contextlib.suppress(ValueError):
            return load(task=known)
    may_be_labels = task is None and known == "multilabel"
    try:
        images = load(task=task)
    except ValueError:  # such as one label only, or none
        if not may_be_labels:
            raise
        return load(task=known)
    if may_be_labels and images.task == "classification":
        return load(task=known)
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
    elif kind_of(images).some_classes and {*images.class_names} <= {*found.names}:
        return
    elif images.class_names != found.names:
        theirs, known = images.class_names, found.names
        raise ValueError(
            f"data {source!r} has the {task_of(images).labels} {_unlike(theirs, known)}; the model "
            f"knows {_unlike(known, theirs)}."
        )


def _unlike(some, others):
    """Some names, of many those that are not among the others."""
    different = [name for name in some if name not in {*others}]
    return names.some(different if different and len(some) > _FEW else some, _FEW)
