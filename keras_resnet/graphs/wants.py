"""How images are shown to a model: what it wants, and what it gets."""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_resnet.checks import check_choice, check_range
from keras_resnet.graphs.structure import PASSING, flat_operations
from keras_resnet.layers import NORMALIZATIONS, Conv2D, Preprocessing
from keras_resnet.layers.view import checked_view, sides, view_config

_logger = logging.getLogger("keras_resnet")

# Layers between a model's input and its first convolution that leave normalized images normalized.
_BEFORE_NORMALIZED = (
    *PASSING,
    keras.layers.CenterCrop,
    keras.layers.InputLayer,
    keras.layers.RandomContrast,
    keras.layers.RandomCrop,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.Resizing,
    keras.layers.ZeroPadding2D,
)


# Layers that make other numbers of images. (Functions do, but those that only move pixels.)
_OTHER_NUMBERS = (keras.layers.Lambda, keras.layers.Normalization, keras.layers.Rescaling)
_SAME_NUMBERS = ("Cast", "Pad", "Resize")


@dataclass(frozen=True)
class Wants:
    """The images that a model wants to be shown.

    Parameters
    ----------
    normalization : {"raw", "torch", "caffe", "detectron2", "tf"} or None
        What happens to raw images before they enter: nothing ("raw", the model normalizes them),
        or as `preprocess_input` does. None if the model does not say.
    image_size : tuple of int or None
        Height and width; None for any.
    crop : float
        Fraction of the shorter side that is kept, in the middle, when an image is resized.
    interpolation : {"bilinear", "bicubic"}
        How images are resized.
    channels : int or None
        Channels of an image; None if that is not known.
    """

    normalization: Literal["raw", "torch", "caffe", "detectron2", "tf"] | None
    image_size: tuple[int, int] | None
    crop: float
    interpolation: Literal["bilinear", "bicubic"]
    channels: int | None


def wants_of(model: keras.Model) -> Wants:
    """Find out which images a model wants to be shown.

    Its `Preprocessing` layer says that, or its first convolution, so that it holds for saved,
    cloned and nested models, too.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    Wants
        Of a model that says nothing, what its input has, and the whole image.

    Raises
    ------
    ValueError
        If the model's attribute `preprocessing` contradicts what its layers say.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> wants = graphs.wants_of(keras_resnet.ResNet18(weights=None))
    >>> wants.normalization, wants.image_size, wants.crop
    ('torch', (224, 224), 0.875)
    """
    holder = _holder(model)
    said = getattr(model, "preprocessing", None)
    if isinstance(holder, Preprocessing):
        normalization = "raw"
    else:
        held = None if holder is None else holder.normalization
        if holder is not None and held and said and said != held:
            raise ValueError(
                f"{model.name}: its attribute preprocessing={said!r} contradicts {held!r}, which "
                f"its layer {holder.name} says: call graphs.remember(model, normalization={said!r})"
                " to change both."
            )
        normalization = held or said
    height, width, channels = _input_shape(model)
    return Wants(
        normalization,
        (height, width) if height and width else getattr(holder, "image_size", None),
        getattr(holder, "crop", 1.0),
        getattr(holder, "interpolation", "bilinear"),
        channels,
    )


@dataclass(frozen=True)
class View:
    """How images are shown to a model: `data.batches(split, **vars(view))` makes them.

    Parameters
    ----------
    image_size : tuple of (int, int)
        Height and width.
    crop : float
        Fraction of an image that is shown, as in `data.batches`.
    interpolation : {"bilinear", "bicubic"}
        How images are resized.
    channels : int
        Channels of an image.
    """

    image_size: tuple[int, int]
    crop: float
    interpolation: Literal["bilinear", "bicubic"]
    channels: int

    def __str__(self):
        return "{}x{} pixels, crop {:.4g}".format(*self.image_size, self.crop)


def view_of(
    model: keras.Model,
    *,
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
) -> View:
    """Decide how images are shown to a model: the same in training, tests and serving.

    Parameters
    ----------
    model : keras.Model
        Any model of images.
    image_size : int or tuple of (int, int), optional
        Height and width, one number for both. Default: that of the model's input, or what the model
        remembers.
    crop : float, optional
        As in `data.batches`. Default: what the model remembers, or the whole image.

    Returns
    -------
    View

    Raises
    ------
    ValueError
        For an argument out of its range, a size that the model does not take, or a model of any
        size that remembers none, if none is given.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> graphs.view_of(keras_resnet.ResNet18(weights=None), crop=1.0)
    View(image_size=(224, 224), crop=1.0, interpolation='bilinear', channels=3)
    """
    check_range("crop", optional=True, crop=crop)
    wants, fixed = wants_of(model), _input_shape(model)[:2]
    known = wants.image_size if image_size is None else sides(image_size)
    fits = known and all(side in (None, its) for side, its in zip(fixed, known, strict=True))
    if not known or not fits:
        takes = f"{fixed[0] or 'any'}x{fixed[1] or 'any'} pixels" if any(fixed) else "any size"
        if image_size is not None:
            raise ValueError(
                f"image_size={image_size!r}: model {model.name!r} takes images of {takes}."
            )
        raise ValueError(
            f"model {model.name!r} takes images of {takes}, and does not say which size it was "
            "made for: give image_size."
        )
    return View(
        known,
        wants.crop if crop is None else float(crop),
        wants.interpolation,
        wants.channels or 3,
    )


def remember_view(model: keras.Model, view: View) -> None:
    """Make a model remember how images are shown to it, and warn if it cannot.

    Parameters
    ----------
    model : keras.Model
        The model, which is changed.
    view : View
        What it is trained with.
    """
    wants = wants_of(model)
    asked = {name: getattr(view, name) for name in ("image_size", "crop", "interpolation")}
    changes = {name: value for name, value in asked.items() if value != getattr(wants, name)}
    # A size that the input has anyway is in no file of weights, unless the layer says it.
    if not remember(model, **asked) and changes:
        _logger.warning(
            "%s has no layer that remembers how images are shown to it. It is trained with %s: "
            "give evaluate, predict and export the same image_size and crop.",
            model.name,
            view,
        )


def remember(
    model: keras.Model,
    *,
    normalization: Literal["torch", "caffe", "detectron2", "tf"] | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> bool:
    """Change what a model says about the images it wants; it is saved with the model.

    Parameters
    ----------
    model : keras.Model
        The model, which is changed.
    normalization : {"torch", "caffe", "detectron2", "tf"}, optional
        As in `preprocess_input`, for a model that does not normalize images itself. Also sets its
        attribute `preprocessing`.
    image_size, crop, interpolation
        As in `Wants`. Default: as it was.

    Returns
    -------
    bool
        Whether the model has a layer that holds this, and thus saves it: models that this package
        did not build have none.

    Raises
    ------
    ValueError
        For an argument out of its range.
    """
    check_choice((None, *NORMALIZATIONS), normalization=normalization)
    holder = _holder(model)
    if holder is not None:
        asked = {"crop": crop, "image_size": image_size, "interpolation": interpolation}
        asked = {name: value for name, value in asked.items() if value is not None}
        for name, value in checked_view(**{**view_config(holder), **asked}).items():
            setattr(holder, name, value)
    if normalization and not isinstance(holder, Preprocessing):
        model.preprocessing = normalization
        if holder is not None:
            holder.normalization = normalization
    return holder is not None


def _input_shape(model):
    """Height, width and channels of a model's input; None for each that is not fixed."""
    try:
        _, height, width, channels = model.inputs[0].shape
    except (AttributeError, IndexError, TypeError, ValueError):  # not built, or not of images
        return None, None, None
    return height, width, channels


def _holder(model) -> Any:
    """The layer that says what a model wants; None if there is none.

    They speak of what enters them. Where something before them changes the images, that is not what
    enters the model.
    """
    operations = list(flat_operations(model))
    for operation in operations:
        if isinstance(operation, Preprocessing):
            return operation
        is_function = not isinstance(operation, keras.Layer)
        if is_function and type(operation).__name__ not in _SAME_NUMBERS:
            break
        if isinstance(operation, _OTHER_NUMBERS):
            break
    for operation in operations:
        if isinstance(operation, Conv2D):
            return operation if operation.normalization else None
        if not isinstance(operation, _BEFORE_NORMALIZED) and type(operation).__name__ != "Cast":
            return None
    return None
