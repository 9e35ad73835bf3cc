"""Models by what names them: a file, the folder of a run, or a builder."""

import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import keras_resnet
from keras_resnet import data, graphs, zoo
from keras_resnet.data.labels import Task
from keras_resnet.files import LABELS_FILE
from keras_resnet.layers import NORMALIZATIONS, Preprocessing
from keras_resnet.pretrained import load
from keras_resnet.resnet import deep_graphs
from keras_resnet.runs.choices import MODEL_FILE

log = logging.getLogger(__name__)

# What models of a task give, and what makes answers of that.
_ANSWERS: dict[Task, dict[str, Callable | None]] = {
    "classification": {"probabilities": None, "logits": keras.ops.softmax},
    "multilabel": {"multilabel": None},
    "regression": {"number": None},
}
# What is missing behind a linear layer, if somebody knows what it is for.
_LAST: dict[str, Callable[[], keras.Layer]] = {
    "classification": lambda: keras.layers.Softmax(dtype="float32"),
    "multilabel": lambda: keras.layers.Activation("sigmoid", dtype="float32"),
    "regression": lambda: keras.layers.Rescaling(1.0, dtype="float32", name="predictions"),
}
_NO_ANSWERS = {
    "features": "gives features",
    "unknown": "gives outputs whose meaning is not known",
}


@dataclass(frozen=True)
class Answering:
    """A model that takes raw images and gives answers.

    Parameters
    ----------
    model : keras.Model
        The model as it was saved.
    predictor : keras.Model
        The same with what is missing: normalization before it, a softmax behind it.
    task : str or None
        What it is for; None if that is not known, and its outputs are given as they are.
    names : tuple of str
        Names of the classes, labels or numbers.
    named : bool
        Whether somebody has named them.
    """

    model: keras.Model
    predictor: keras.Model
    task: Task | None
    names: tuple[str, ...]
    named: bool


def load_model(
    model: str | os.PathLike, weights: str | os.PathLike | None, task: Task | None = None
) -> Answering:
    """Load a model, and find out what it takes and gives."""
    path = Path(model)
    if weights is None and (path.exists() or path.suffix or len(path.parts) > 1):
        return answering(*_load_file(path), task)
    name = os.fspath(model)
    build = zoo.builder(name)
    weights = weights or keras_resnet.list_weights(name)[0].tag
    labels = load.class_names(load.find(weights, name))
    net = build(weights=weights, classes=len(labels), include_preprocessing=True)
    return answering(net, labels, task)


def _load_file(path):
    """The model in a file or in the folder of a run, and the names beside it, if there are any."""
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"model {str(path)!r}: there is no file {str(file)!r}.")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"model {str(file)!r} is not a .keras file, or not a whole one.")
    try:
        with deep_graphs():
            model = keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model {str(file)!r} cannot be loaded: {reason}") from error
    labels_file = file.with_name(LABELS_FILE)
    if not labels_file.is_file():
        return model, None
    labels = labels_file.read_text(encoding="utf-8").splitlines()
    head = graphs.head_of(model)
    if len(labels) != head.units and not (_is_yes_or_no(head) and len(labels) == 2):
        raise ValueError(
            f"{str(labels_file)!r} names {len(labels)} outputs, the model has {head.units}."
        )
    return model, labels


def _is_yes_or_no(head):
    """Whether a model gives the probability of the second of two classes."""
    return head.output == "multilabel" and head.units == 1


def answering(model: keras.Model, labels: Sequence[str] | None, task: Task | None) -> Answering:
    """Find out what a model takes and gives; `labels` and `task` are what somebody knows of it."""
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(
            f"model {model.name!r} must take one batch of images (batch, height, width, channels)."
        )
    head, finish = graphs.head_of(model), None
    # Names of several outputs are those of classes.
    supposed = task or ("classification" if labels and len(labels) > 1 else None)
    # Any numbers may be values, if somebody says so; logits have no activation.
    may_be = head.linear or (task == "regression" and head.output == "unknown" and head.layers)
    if may_be and supposed and (head.output == "unknown" or task not in (None, "classification")):
        model = _ended(model, _LAST[supposed]())
        head = graphs.head_of(model)
    known: Task | None = next((each for each in _ANSWERS if head.output in _ANSWERS[each]), None)
    if known:
        finish = _ANSWERS[known][head.output]
    if _is_yes_or_no(head) and task != "multilabel" and (labels is None or len(labels) == 2):
        known, finish = "classification", _of_two_classes
    if task not in (None, known):
        is_for = f"is for {known}" if known else _NO_ANSWERS[head.output]
        raise ValueError(f"task={task!r}: model {model.name!r} {is_for}.")
    return Answering(
        model,
        _completed(model, graphs.wants_of(model).normalization, finish),
        known,
        tuple(labels or _numbered(known, head)),
        labels is not None,
    )


def _of_two_classes(probability):
    return keras.ops.concatenate([1 - probability, probability], axis=-1)


def _numbered(task, head):
    """Names for what nobody has named."""
    if task == "regression" and head.units == 1:
        return ["value"]
    return map(str, range(2 if task == "classification" and head.units == 1 else head.units or 0))


@deep_graphs()
def _ended(model, layer):
    """A model with another layer behind its last one."""
    inputs, outputs = model.inputs[0], model.outputs[0]
    if layer.name in {each.name for each in model.layers}:  # names of one model differ
        inputs = keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype)
        outputs = model(inputs)
    ended = keras.Model(inputs, layer(outputs), name=model.name)
    if hasattr(model, "preprocessing"):
        ended.preprocessing = model.preprocessing
    return ended


@deep_graphs()
def _completed(model, normalization, finish):
    """A model with a normalization before it and a function behind it."""
    if normalization not in NORMALIZATIONS and finish is None:
        return model
    images = keras.Input(batch_shape=model.inputs[0].shape)
    x = Preprocessing(normalization)(images) if normalization in NORMALIZATIONS else images
    x = model(x)
    return keras.Model(images, x if finish is None else finish(x), name=model.name)


def warn_of_unknowns(found: Answering) -> None:
    """Say what a model leaves open about the images it takes and the outputs it gives."""
    if graphs.wants_of(found.model).normalization is None:
        log.warning(
            "%s does not say how it wants images normalized: it is shown pixels from 0 to 255.",
            found.model.name,
        )
    if found.task is None:
        log.warning(
            "What the outputs of %s mean is not known: they are shown as they are. "
            "task='classification' takes them as logits, task='regression' as values.",
            found.model.name,
        )


def some_images(split: data.Split, options: Mapping, count: int) -> np.ndarray:
    """Images from all over a split, as `data.batches` makes them."""
    some = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return np.concatenate([images for images, _ in data.batches(split.take(some), **options)])


def normalized(images: np.ndarray, model: keras.Model) -> np.ndarray:
    """Images as a model itself takes them."""
    normalization = graphs.wants_of(model).normalization
    if normalization not in NORMALIZATIONS:
        return images
    return np.asarray(Preprocessing(normalization)(images))
