"""The serving interface of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import keras

from keras_resnet.checks import check_positive
from keras_resnet.graphs import check_functional, crop_of, preprocessing_of
from keras_resnet.layers import NORMALIZATIONS


@dataclass(frozen=True)
class Interface:
    """How a model is asked: the arguments of `saved_model` that say so, and what the model says.

    Parameters
    ----------
    labels : sequence of str or None
        Names of the classes; None for their numbers.
    preprocessing : {"torch", "caffe", "tf", "raw"} or None
        What raw images need before they enter the model; None if that is not known.
    image_dtype : {"float32", "uint8"}
        Images as the model takes them, or raw ones.
    resize : bool
        Whether images of any size are taken.
    image_size : int or None
        Height and width of what the model is shown; None where they differ.
    crop : float
        Part of an image's shorter side that is left when it is resized.
    batch_size : int or None
        Images of a request; None for any number.
    top : int
        Classes of an answer to image files.
    """

    labels: Sequence[str] | None
    preprocessing: Literal["torch", "caffe", "tf", "raw"] | None
    image_dtype: Literal["float32", "uint8"]
    resize: bool
    image_size: int | None
    crop: float
    batch_size: int | None
    top: int


def interface_of(model: keras.Model, **asked) -> Interface:
    """Complete what was asked for by what a model says of itself.

    Parameters
    ----------
    model : keras.Model
        A functional model of images.
    **asked
        The fields of `Interface`; None is for what the model says.

    Returns
    -------
    Interface

    Raises
    ------
    ValueError
        If the model is no functional one of images, or cannot be asked so.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND={keras.backend.backend()}: export needs KERAS_BACKEND=tensorflow."
        )
    check_functional(model)
    if len(model.inputs) > 1 or len(model.outputs) > 1 or len(model.inputs[0].shape) != 4:
        raise ValueError(
            f"model {model.name!r} must take one batch of images (batch, height, width, channels) "
            f"and give one output; it takes {[each.shape for each in model.inputs]} and gives "
            f"{[each.shape for each in model.outputs]}."
        )
    height, width = model.inputs[0].shape[1:3]
    outputs = model.outputs[0].shape[-1]
    image_size = asked["image_size"]
    if image_size is None and (height == width or None in (height, width)):
        image_size = height or width or 224
    interface = Interface(
        **{
            **asked,
            "preprocessing": asked["preprocessing"] or preprocessing_of(model),
            "labels": None if asked["labels"] is None else [*asked["labels"]],
            "image_size": image_size,
            "crop": crop_of(model) if asked["crop"] is None else asked["crop"],
        }
    )
    conventions = (*NORMALIZATIONS, "raw")
    if interface.preprocessing not in (*conventions, None):
        raise ValueError(
            f"preprocessing={interface.preprocessing!r} must be one of "
            f"{', '.join(map(repr, conventions))}, or None for what the model says."
        )
    if preprocessing_of(model) == "raw" != interface.preprocessing:
        raise ValueError(
            f"preprocessing={interface.preprocessing!r}: model {model.name!r} normalizes raw "
            "images itself. Leave it out."
        )
    if interface.image_dtype not in ("float32", "uint8"):
        raise ValueError(f"image_dtype={interface.image_dtype!r} must be 'float32' or 'uint8'.")
    if interface.image_dtype == "uint8" and interface.preprocessing is None:
        raise ValueError(
            f"image_dtype='uint8' is for raw images: say with preprocessing= how model "
            f"{model.name!r} wants them normalized, 'raw' if it does that itself."
        )
    check_positive(top=interface.top)
    if image_size is None and interface.resize:
        raise ValueError(
            f"resize=True needs a model of square images; {model.name!r} takes {height}x{width}."
        )
    if image_size is not None:
        check_positive(image_size=image_size)
    if image_size is not None and {height, width} - {None, image_size}:
        raise ValueError(
            f"image_size={image_size}: model {model.name!r} takes images of "
            f"{height}x{width} pixels (None: any)."
        )
    if not (isinstance(interface.crop, Real) and 0 < interface.crop <= 1):
        raise ValueError(f"crop={interface.crop!r} must be above 0 and at most 1.")
    labels = interface.labels or []
    if interface.labels is not None and len(labels) != outputs:
        raise ValueError(
            f"labels: {len(labels)} names came for the {outputs} outputs of {model.name}."
        )
    for label in labels:
        if not isinstance(label, str):
            raise ValueError(f"labels: {label!r} must be a str.")
    if interface.batch_size is not None:
        check_positive(batch_size=interface.batch_size)
    return interface
