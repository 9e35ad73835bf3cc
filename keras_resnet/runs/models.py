"""Models by what names them: a file, the folder of a run, or a builder."""

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_resnet
from keras_resnet import data, detection, graphs, zoo
from keras_resnet.data.labels import Task
from keras_resnet.data.labels_file import LABELS_FILE, read_labels
from keras_resnet.layers import NORMALIZATIONS, Preprocessing
from keras_resnet.pretrained import load
from keras_resnet.resnet import deep_graphs
from keras_resnet.runs import objects
from keras_resnet.runs.choices import MODEL_FILE

log = logging.getLogger(__name__)

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


def check_name(name: str) -> None:
    """Raise ValueError for a name that is neither a builder's nor a detector's."""
    if objects.architecture(name) is None:
        zoo.builder(name)


def load_model(
    model: str | os.PathLike,
    weights: str | os.PathLike | None,
    task: Task | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Answering:
    """Load a model, and find out what it takes and gives; `image_size` is for detectors by name."""
    path = Path(model)
    if weights is None and (path.exists() or path.suffix or len(path.parts) > 1):
        net, labels = _load_file(path)
        graphs.check_weights(net)
        if image_size is not None and detection.is_detector(net):
            size = detection.parts_of(net).options
            raise ValueError(
                f"image_size={image_size!r}: {net.name!r} was built to resize images to a shorter "
                f"side of {size.min_size} and {size.max_size} at most: leave it out."
            )
        return answering(net, labels, task)
    name = os.fspath(model)
    if objects.architecture(name):
        net, labels = objects.pretrained(name, weights, image_size)
        graphs.check_weights(net)
        return answering(net, labels, task)
    build = zoo.builder(name)
    weights = weights or keras_resnet.list_weights(name)[0].tag
    source = load.find(weights, name)
    labels, size = load.class_names(source), source.view.get("image_size")
    shape: dict[str, Any] = {"input_shape": (*size, 3)} if size else {}
    net = build(weights=weights, classes=len(labels), include_preprocessing=True, **shape)
    graphs.check_weights(net)
    return answering(net, labels, task)


def _load_file(path):
    """The model in a file or in the folder of a run, and the names beside it, if there are any."""
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"model {str(path)!r}: there is no file {str(file)!r}.")
    with file.open("rb") as opened:  # or say that it may not be read
        if not zipfile.is_zipfile(opened):
            raise ValueError(f"model {str(file)!r} is not a .keras file, or not a whole one.")
    try:
        with deep_graphs():
            model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras, HDF5 and ZIP have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"model {str(file)!r} cannot be loaded: {reason}") from error
    labels_file = file.with_name(LABELS_FILE)
    if not labels_file.is_file():
        return model, None
    labels = read_labels(labels_file)
    outputs = _outputs(model, labels)
    if len(labels) != outputs:
        raise ValueError(
            f"{str(labels_file)!r} names {len(labels)} outputs, the model has {outputs}."
        )
    return model, labels


def _outputs(model, labels):
    """How many names there are to be for the outputs of a model."""
    if detection.is_detector(model):
        return detection.parts_of(model).classes
    head = graphs.head_of(model)
    of_two_classes = len(labels) == 2 and graphs.task_of_outputs(head, 2) == "classification"
    return 2 if head.units == 1 and of_two_classes else head.units


def answering(model: keras.Model, labels: Sequence[str] | None, task: Task | None) -> Answering:
    """Find out what a model takes and gives; `labels` and `task` are what somebody knows of it."""
    if detection.is_detector(model):
        return _detecting(model, labels, task)
    if task == "detection":
        raise ValueError(f"task={task!r}: model {model.name!r} is not a detector.")
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(
            f"model {model.name!r} must take one batch of images (batch, height, width, channels)."
        )
    head, normalization = graphs.head_of(model), graphs.wants_of(model).normalization
    known: Any = graphs.task_of_outputs(head, None if labels is None else len(labels))
    answer = graphs.answer_of(head, task or known) if task or known else None
    if head.output == "unknown" and not head.layers:
        answer = None  # these may be features
    if answer is None:
        if task:
            is_for = f"is for {known}" if known else _NO_ANSWERS[head.output]
            raise ValueError(f"task={task!r}: model {model.name!r} {is_for}.")
        known = None
    else:
        known = task or known
        if head.output == "unknown" or (head.linear and known != "classification"):
            # What is made of the model is to know it, too.
            model = _ended(model, answer)
            answer = graphs.answer_of(graphs.head_of(model), known)
    units = 2 if answer and answer.both else head.units
    if labels is not None and len(labels) != units:
        raise ValueError(
            f"task={known!r}: {len(labels)} names came for the {units} outputs of {model.name!r}."
        )
    return Answering(
        model,
        _completed(model, normalization, answer),
        known,
        tuple(labels or _numbered(known, units)),
        labels is not None,
    )


def _detecting(model, labels, task):
    """What a detector gives: it says all of that itself."""
    if task not in (None, "detection"):
        raise ValueError(f"task={task!r}: model {model.name!r} is for detection.")
    names = labels or _numbered("detection", detection.parts_of(model).classes)
    return Answering(model, model, "detection", tuple(names), labels is not None)


def _numbered(task, units):
    """Names for what nobody has named."""
    return ["value"] if task == "regression" and units == 1 else map(str, range(units or 0))


@deep_graphs()
def _ended(model, answer):
    """A model with a last layer that says what its outputs are."""
    inputs, outputs = model.inputs[0], model.outputs[0]
    layer = (
        keras.layers.Activation(answer.activation, dtype="float32")
        if answer.activation
        else keras.layers.Rescaling(1.0, dtype="float32", name="predictions")
    )
    if layer.name in {each.name for each in model.layers}:  # names of one model differ
        inputs = keras.Input(batch_shape=inputs.shape, dtype=inputs.dtype)
        outputs = model(inputs)
    ended = keras.Model(inputs, layer(outputs), name=model.name)
    if hasattr(model, "preprocessing"):
        ended.preprocessing = model.preprocessing
    return ended


@deep_graphs()
def _completed(model, normalization, answer):
    """A model with a normalization before it, and answers as its outputs."""
    nothing = graphs.Answer()
    if normalization not in NORMALIZATIONS and answer in (None, nothing):
        return model
    images = keras.Input(batch_shape=model.inputs[0].shape)
    x = Preprocessing(normalization)(images) if normalization in NORMALIZATIONS else images
    return keras.Model(images, (answer or nothing)(model(x)), name=model.name)


def warn_of_unknowns(found: Answering) -> None:
    """Say what a model leaves open about the images it takes and the outputs it gives."""
    if found.task != "detection" and graphs.wants_of(found.model).normalization is None:
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
    if not len(split):
        raise ValueError("there are no images to take some from: the split is empty.")
    some = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return np.concatenate([images for images, _ in data.batches(split.take(some), **options)])


def normalized(images: np.ndarray, model: keras.Model) -> np.ndarray:
    """Images as a model itself takes them."""
    normalization = graphs.wants_of(model).normalization
    if normalization not in NORMALIZATIONS:
        return images
    return np.asarray(Preprocessing(normalization)(images))
