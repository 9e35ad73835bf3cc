"""The images that a model wants to be shown."""

from dataclasses import dataclass
from typing import Any, Literal

import keras

from keras_resnet.checks import check_choice
from keras_resnet.graphs.structure import PASSING, flat_operations
from keras_resnet.layers import NORMALIZATIONS, Conv2D, Preprocessing
from keras_resnet.layers.view import checked_view, view_config

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


@dataclass(frozen=True)
class Wants:
    """The images that a model wants to be shown.

    Parameters
    ----------
    normalization : {"raw", "torch", "caffe", "tf"} or None
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

    normalization: Literal["raw", "torch", "caffe", "tf"] | None
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
    try:
        _, *size, channels = model.inputs[0].shape
    except (AttributeError, IndexError, TypeError, ValueError):  # not built, or not of images
        size, channels = [], None
    image_size = tuple(size) if len(size) == 2 and None not in size else None
    return Wants(
        normalization,
        image_size or getattr(holder, "image_size", None),
        getattr(holder, "crop", 1.0),
        getattr(holder, "interpolation", "bilinear"),
        channels,
    )


def remember(
    model: keras.Model,
    *,
    normalization: Literal["torch", "caffe", "tf"] | None = None,
    image_size: tuple[int, int] | None = None,
    crop: float | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> bool:
    """Change what a model says about the images it wants; it is saved with the model.

    Parameters
    ----------
    model : keras.Model
        The model, which is changed.
    normalization : {"torch", "caffe", "tf"}, optional
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


def _holder(model) -> Any:
    """The layer that says what a model wants; None if there is none.

    A first convolution speaks of what enters it. Where something before it changes the images, that
    is not what enters the model.
    """
    operations = list(flat_operations(model))
    for operation in operations:
        if isinstance(operation, Preprocessing):
            return operation
    for operation in operations:
        if isinstance(operation, Conv2D):
            return operation if operation.normalization else None
        if not isinstance(operation, _BEFORE_NORMALIZED) and type(operation).__name__ != "Cast":
            return None
    return None
