"""The serving interface of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import keras

from keras_resnet.checks import check_choice, check_positive, check_range
from keras_resnet.graphs import (
    Output,
    check_functional,
    check_weights,
    head_of,
    thresholds_of,
    view_of,
    wants_of,
)
from keras_resnet.layers import NORMALIZATIONS

OUTPUT_NAMES: dict[Output, str] = {
    "probabilities": "probabilities",
    "multilabel": "probabilities",
    "logits": "logits",
    "number": "values",
    "features": "features",
    "unknown": "outputs",
}
"""What the output of an exported model is called, by what comes out of it."""

TOP = 5
"""Number of labels in the answer to an image file."""


@dataclass(frozen=True)
class Interface:
    """How clients call a model: what was asked for, completed by what the model says.

    Parameters
    ----------
    kind : {"probabilities", "multilabel", "logits", "number", "features", "unknown"}
        What comes out of the model, as in `graphs.Head`. "unknown" becomes "logits" where labels
        say so.
    labels : sequence of str or None
        Names of the classes, labels or values; None for their numbers.
    preprocessing : {"torch", "caffe", "detectron2", "tf", "raw"} or None
        What raw images need before they enter the model; None if that is not known.
    image_dtype : {"float32", "uint8"}
        Images as the model takes them, or raw ones.
    resize : bool
        Whether images of any size are taken.
    image_size : tuple of (int, int)
        Height and width of the images that the model gets.
    crop : float
        Fraction of an image that is kept when it is resized, as in `data.batches`.
    interpolation : {"bilinear", "bicubic"}
        How it is resized.
    batch_size : int or None
        Images per request; None for any number.
    top : int
        Number of labels in the answer to an image file.
    thresholds : tuple of float or None
        What the probability of each label exceeds in images that have it; None if the model does
        not say.
    """

    kind: Output
    labels: Sequence[str] | None
    preprocessing: Literal["torch", "caffe", "detectron2", "tf", "raw"] | None
    image_dtype: Literal["float32", "uint8"]
    resize: bool
    image_size: tuple[int, int]
    crop: float
    interpolation: Literal["bilinear", "bicubic"]
    batch_size: int | None
    top: int
    thresholds: tuple[float, ...] | None = None

    @property
    def output(self) -> str:
        """The name of the output."""
        return OUTPUT_NAMES[self.kind]


def interface_of(model: keras.Model, **asked) -> Interface:
    """Complete what was asked for by what a model says of itself.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.
    **asked
        The fields of `Interface` but `kind`, `interpolation` and `thresholds`; None for what the
        model says.

    Returns
    -------
    Interface

    Raises
    ------
    ValueError
        If the model is not a functional model of images, has weights that are NaN, or does not fit
        what was asked for.
    """
    check_exportable(model)
    if len(model.inputs) > 1 or len(model.outputs) > 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(
            f"model {model.name!r} must take one batch of images (batch, height, width, channels) "
            f"and give one output; it takes {[each.shape for each in model.inputs]} and gives "
            f"{[each.shape for each in model.outputs]}."
        )
    wants, labels = wants_of(model), asked["labels"]
    view = view_of(model, image_size=asked["image_size"], crop=asked["crop"])
    labels = None if labels is None else [*labels]
    interface = Interface(
        **{
            **asked,
            "kind": _kind_of(model, labels),
            "preprocessing": asked["preprocessing"] or wants.normalization,
            "labels": labels,
            "image_size": view.image_size,
            "crop": view.crop,
            "interpolation": view.interpolation,
            "thresholds": thresholds_of(model),
        }
    )
    check_choice((*NORMALIZATIONS, "raw", None), preprocessing=interface.preprocessing)
    check_choice(("float32", "uint8"), image_dtype=interface.image_dtype)
    check_positive(top=interface.top)
    check_range("count", optional=True, batch_size=interface.batch_size)
    if wants.normalization == "raw" != interface.preprocessing:
        raise ValueError(
            f"preprocessing={interface.preprocessing!r}: model {model.name!r} normalizes raw "
            "images itself. Leave it out."
        )
    if interface.image_dtype == "uint8" and interface.preprocessing is None:
        raise ValueError(
            f"image_dtype='uint8' is for raw images: say with preprocessing= how model "
            f"{model.name!r} wants them normalized, 'raw' if it does that itself."
        )
    _check_labels(model, interface)
    return interface


def check_exportable(model: keras.Model) -> None:
    """Raise ValueError for a backend or a model that nothing can be exported of."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND={keras.backend.backend()}: export needs KERAS_BACKEND=tensorflow."
        )
    check_functional(model)
    check_weights(model)


def check_names(labels: Sequence[str]) -> None:
    """Raise ValueError for names that are no strings."""
    for label in labels:
        if not isinstance(label, str):
            raise ValueError(f"labels: {label!r} must be a str.")


def _kind_of(model, labels):
    """What comes out of a model, as far as it, or the names of its outputs, tell."""
    head = head_of(model)
    of_classes = labels is not None and len(labels) > 1 and len(labels) in _counts(head.units)
    # Names for all outputs of a projection without activation: scores of classes.
    if head.output == "unknown" and head.linear and head.layers and of_classes:
        return "logits"
    return head.output


def _counts(units):
    """How many labels a head of so many units may have; one unit decides between two classes."""
    return (1, 2) if units == 1 else (units,)


def _check_labels(model, interface):
    if interface.labels is None:
        return
    units, count = model.outputs[0].shape[-1], len(interface.labels)
    binary = interface.kind in ("multilabel", "logits") and not interface.thresholds
    if count != units and not (binary and count in _counts(units)):
        raise ValueError(f"labels: {count} names came for the {units} outputs of {model.name}.")
    check_names(interface.labels)
