"""Detection on images of any sizes."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import checks, graphs
from keras_resnet.detection.faster_rcnn import parts_of


def detect(
    model: keras.Model,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 1,
    score: float | None = None,
) -> list[dict[str, np.ndarray]]:
    """Find the objects in images.

    Parameters
    ----------
    model : keras.Model
        A detector.
    images : sequence of array of shape (height, width, channels)
        Raw images of 0 to 255, each of any size.
    batch_size : int, default 1
        Images at once. They are padded to one size, which changes the features near their borders
        a little; with 1, an answer does not depend on the other images.
    score : float, optional
        Lowest score of a detection. Default: the model's `box_score_thresh`.

    Returns
    -------
    list of dict of str to array
        For each image `boxes`, float32 of shape (detections, 4): x1, y1, x2, y2 in pixels of the
        image; `scores`, float32 of shape (detections,), the highest first; and `labels`, int32 of
        shape (detections,): the classes, from 0.

    Raises
    ------
    ValueError
        For a model that is not a detector, or has weights of NaN; an array that is not an image; or
        pixels on another scale, such as 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> from keras_resnet import detection
    >>> backbone = keras_resnet.ResNet18(weights=None, include_top=False)
    >>> detector = detection.FasterRCNN(backbone, classes=3, min_size=64)
    >>> found = detection.detect(detector, [np.zeros((50, 60, 3), "uint8")])
    >>> sorted(found[0])
    ['boxes', 'labels', 'scores']
    """
    parts_of(model)
    checks.check_positive(batch_size=batch_size)
    checks.check_range("fraction", optional=True, score=score)
    images = [checked(image, index, model) for index, image in enumerate(images)]
    answers = []
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        sizes = np.array([image.shape[:2] for image in batch], "int32")
        padded = np.zeros((len(batch), *sizes.max(0), batch[0].shape[2]), "float32")
        for place, image in zip(padded, batch, strict=True):
            place[: image.shape[0], : image.shape[1]] = image
        answers += answers_of(function_of(model)(padded, sizes), score)
    return answers


def function_of(model: keras.Model) -> Callable:
    """Compile a detector once, for any number of images of any size.

    Parameters
    ----------
    model : keras.Model
        A detector.

    Returns
    -------
    callable
        From images and their sizes, as the model takes them, to its outputs.
    """
    found = getattr(model, "_answer", None)
    if found is None:
        graphs.check_weights(model)  # of NaN, there would be no objects, and no word
        pixels = tf.TensorSpec((None, None, None, model.inputs[0].shape[-1]), "float32")

        @tf.function(input_signature=[pixels, tf.TensorSpec((None, 2), "int32")], autograph=False)
        def found(images, sizes):
            return model({"images": images, "sizes": sizes}, training=False)

        model._answer = found  # which goes when the model goes
    return found


def answers_of(
    found: dict[str, np.ndarray], score: float | None = None
) -> list[dict[str, np.ndarray]]:
    """Split the outputs of a detector into one answer per image.

    Parameters
    ----------
    found : dict of str to array
        The outputs of a detector for a batch.
    score : float, optional
        As in `detect`.

    Returns
    -------
    list of dict of str to array
        As `detect` returns it.

    Raises
    ------
    ValueError
        If the detector computed NaN.
    """
    arrays = {name: np.asarray(value) for name, value in found.items()}
    if np.isnan(arrays["scores"]).any():
        raise ValueError(
            "the detector computes NaN for an image, so that nothing can be said of its objects: "
            "numbers overflow in half precision, or the weights are not those of a trained model."
        )
    answers = []
    for index, count in enumerate(arrays.pop("count")):
        if score is not None:
            count = int((arrays["scores"][index, :count] >= score).sum())
        answers.append({name: value[index, :count] for name, value in arrays.items()})
    return answers


def checked(image, index, model):
    """An image as an array; ValueError for anything else."""
    image = np.asarray(image)
    channels = model.inputs[0].shape[-1]
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        raise ValueError(
            f"images[{index}] of shape {image.shape} must be an image of shape (height, width, "
            f"{channels}) with pixels of 0 to 255."
        )
    if image.dtype.kind not in "uif" or not np.isfinite(image).all():
        raise ValueError(f"images[{index}] of type {image.dtype} must hold finite numbers.")
    low, high = image.min(), image.max()
    if low < 0 or high > 255 or (0 < high <= 1 and (image % 1).any()):
        raise ValueError(
            f"images[{index}] has pixels from {low:g} to {high:g}; they must be raw, from 0 to "
            f"255: {'multiply them by 255' if low >= 0 and high <= 1 else 'undo their scaling'}."
        )
    return image
