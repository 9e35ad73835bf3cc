"""Around a model: images as it expects them, and what its probabilities mean."""

import functools
from importlib import resources
from typing import Any, Literal

import keras
import numpy as np

from keras_resnet.checks import is_count
from keras_resnet.graphs import wants_of
from keras_resnet.layers import NORMALIZATIONS, Preprocessing


def preprocess_input(
    x: Any, mode: Literal["torch", "caffe", "detectron2", "tf"] | keras.Model = "torch"
) -> Any:
    """Normalize raw images for a model built without `include_preprocessing`.

    Parameters
    ----------
    x : array or tensor of shape (..., height, width, channels)
        RGB images with values from 0 to 255, of any dtype.
    mode : {"torch", "caffe", "detectron2", "tf"} or keras.Model, default "torch"
        How the images were normalized in training: "torch" subtracts the ImageNet mean and divides
        by the standard deviation; "caffe" turns RGB into BGR and subtracts the mean, "detectron2"
        the mean of "torch"; "tf" scales to -1 ... 1. Or the model that is to get the images: its
        own mode is used, for any number of channels, and images for a model that normalizes them
        itself stay as they are.

    Returns
    -------
    tensor of the shape of `x`, float32

    Raises
    ------
    ValueError
        For an unknown mode, a model that does not say what it wants or takes other channels, or
        images that are not RGB without a model that takes them.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import preprocess_input
    >>> white = preprocess_input(np.full((1, 1, 1, 3), 255))
    >>> [f"{channel:.3f}" for channel in np.ravel(white)]
    ['2.249', '2.429', '2.640']
    """
    shape = tuple(np.shape(x))
    if isinstance(mode, keras.Model):
        model: Any = mode
        wants = wants_of(model)
        mode = wants.normalization
        if wants.channels and shape[-1:] != (wants.channels,):
            raise ValueError(
                f"x of shape {shape}: model {model.name!r} takes images of {wants.channels} "
                "channels, which come last."
            )
        if mode == "raw":
            return keras.ops.cast(x, "float32")
        if mode is None:
            raise ValueError(
                f"mode: model {model.name!r} does not say how its images are normalized. Say it "
                "with mode='torch', 'caffe' or 'tf'."
            )
    elif mode != "tf" and mode in NORMALIZATIONS and shape[-1:] != (3,):
        raise ValueError(
            f"mode={mode!r} needs RGB images with channels last; x has the shape {shape}. For a "
            "model of other images, pass the model as mode."
        )
    return Preprocessing(mode)(x)


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the likeliest ImageNet classes, as `keras.applications` does.

    Parameters
    ----------
    preds : array of shape (images, 1000)
        Probabilities, or logits.
    top : int, default 5
        Number of classes per image, 1 to 1000.

    Returns
    -------
    list of list of (WordNet id, name, score)
        The classes of each image, the likeliest first.

    Raises
    ------
    ValueError
        For predictions of another shape, or `top` out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import decode_predictions
    >>> decode_predictions(np.eye(1000)[[281]], top=1)
    [[('n02123045', 'tabby', 1.0)]]
    """
    preds = np.asarray(preds)
    classes = imagenet_classes()
    if preds.ndim != 2 or preds.shape[1] != len(classes):
        raise ValueError(
            f"preds of shape {preds.shape} must have the shape (images, {len(classes)}): only the "
            "classes of ImageNet have names here."
        )
    if not is_count(top) or top > len(classes):
        raise ValueError(f"top={top!r} must be 1 to {len(classes)}.")
    return [
        [
            (classes[index][0], classes[index][1].replace(" ", "_"), float(row[index]))
            for index in np.argsort(-row, kind="stable")[:top]
        ]
        for row in preds
    ]


CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The 1,000 classes of ImageNet (ILSVRC 2012), in the order of a model's outputs.

    Returns
    -------
    tuple of (WordNet id, name)

    Examples
    --------
    >>> from keras_resnet.preprocessing import imagenet_classes
    >>> imagenet_classes()[207]
    ('n02099601', 'golden retriever')
    """
    text = resources.files("keras_resnet").joinpath("imagenet_classes.txt").read_text("utf-8")
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return tuple((identifier, name) for identifier, name in pairs)
