"""Two detectors compared by the objects that they find: an exported one and the original."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.comparison import Verification, blurred_noise, check_images, timed
from keras_resnet.export.detectors import DetectorInterface
from keras_resnet.export.runtimes import Loaded

SURE = 0.5
"""Lowest score of an object that counts; if there is none, half of the best."""

SAME_IOU = 0.75
"""IoU from which two boxes of a class are the same object."""

_MADE_UP = 2  # images
_AGREEMENT = {True: 0.9, False: 0.5}  # on them, by whether both models compute nearly the same


@dataclass(frozen=True)
class DetectorVerification(Verification):
    """How an exported detector compares with the original.

    An object that one of them finds with a score of at least 0.5 (or, if no score is that high,
    half of the highest) agrees if the other finds it too, with any score: a box of the same class
    with an IoU of at least 0.75.

    Parameters
    ----------
    agreement : float
        Fraction of the objects that agree.
    largest_difference : float
        Largest difference of the two scores of an object.
    box_difference : float
        Largest difference of a side of its two boxes, in pixels.
    objects : int
        Objects that the original finds.
    """

    box_difference: float = dataclasses.field(default=0.0, kw_only=True)
    objects: int = dataclasses.field(default=0, kw_only=True)

    @property
    def compared(self) -> str:
        """What there is one answer for each of."""
        return f"{self.objects} objects in {self.images} images"

    def cells(self) -> dict[str, str]:
        """The columns of its table, by their names."""
        named = {}
        for name, cell in super().cells().items():
            named[name] = cell
            if name == "images":
                named["objects"] = str(self.objects)
            elif name == "difference":
                named["boxes"] = f"{self.box_difference:.1e} px"
        return named


def compare_objects(
    loaded: Loaded,
    ask: Callable[[np.ndarray], dict[str, np.ndarray]],
    images: np.ndarray | Sequence[np.ndarray],
    kind: Any = "objects",
    tolerance: float | None = None,
) -> DetectorVerification:
    """Compare what an exported detector and the original find in the same images.

    Parameters
    ----------
    loaded : Loaded
        The exported detector.
    ask : callable
        The original, a function from a batch of images to its outputs.
    images : array of shape (images, height, width, 3) or sequence of arrays
        Raw images, also of different sizes.
    kind : {"objects"}
        What comes out of them.
    tolerance : float, optional
        For made-up images: of their scores. Default: the images are real.

    Returns
    -------
    DetectorVerification

    Raises
    ------
    ValueError
        If there are no images, or what comes out cannot be compared.
    """
    if not len(images):
        raise ValueError("images: at least one is needed to compare with.")
    batch_size = loaded.image_shape[0] or 1
    batches = [np.repeat(np.asarray(image)[None], batch_size, 0) for image in images]
    for batch in batches:
        check_images(batch, loaded)
    originals, exported = ([_first(each(batch)) for batch in batches] for each in (ask, loaded))
    for name, found in (("model", originals), ("the exported model", exported)):
        if not all(np.isfinite(each[key]).all() for each in found for key in ("boxes", "scores")):
            raise ValueError(f"{name}: what it finds in these images is NaN or infinite.")
    best = max((each["scores"].max(initial=0.0) for each in originals), default=0.0)
    sure = SURE if best >= SURE else best / 2
    same = [_same(*pair, sure) for pair in zip(exported, originals, strict=True)]
    hits, objects, scores, boxes = map(np.concatenate, zip(*same, strict=True))
    return DetectorVerification(
        runtime=loaded.runtime,
        images=len(images),
        made_up=tolerance is not None,
        largest_difference=float(scores.max(initial=0.0)),
        agreement=float(hits.sum() / objects.sum()) if objects.sum() else 1.0,
        milliseconds=timed(loaded, batches[0], (batch_size,)),
        mebibytes=loaded.mebibytes,
        answer="objects",
        alike=tolerance is not None and not objects.sum(),
        box_difference=float(boxes.max(initial=0.0)),
        objects=int(sum((each["scores"] >= sure).sum() for each in originals)),
    )


def made_up_images(
    spec: tf.TensorSpec, interface: DetectorInterface, exact: bool
) -> tuple[np.ndarray, float]:
    """Make raw images up for a detector, as `comparison.made_up_images` does.

    Objects in them mean nothing, but two detectors that compute the same find the same ones.
    """
    images = blurred_noise(_MADE_UP, interface.image_size, spec.shape[-1])
    return images.astype(spec.dtype.as_numpy_dtype), _AGREEMENT[exact]


def _first(found):
    """What was found in the first image of a batch, without padding."""
    count = found["count"][0]
    return {name: found[name][0][:count] for name in ("boxes", "scores", "labels")}


def _same(exported, original, sure):
    """For an image: objects found by both and by either, and differences of scores and boxes.

    Objects that both find with a high score are counted twice, once for each.
    """
    pairs = _pairs(exported, original)
    scores = np.stack([exported["scores"][pairs[:, 0]], original["scores"][pairs[:, 1]]], -1)
    counted = scores >= sure
    of_either = [(each["scores"] >= sure).sum() for each in (exported, original)]
    pairs, scores = pairs[counted.any(-1)], scores[counted.any(-1)]
    boxes = exported["boxes"][pairs[:, 0]] - original["boxes"][pairs[:, 1]]
    return counted.sum(0), of_either, np.abs(np.diff(scores)).ravel(), np.abs(boxes).ravel()


def _pairs(exported, original):
    """Indices of boxes of one object: the likeliest first, each with the nearest that is left."""
    overlaps = keras.utils.bounding_boxes.compute_iou(
        exported["boxes"], original["boxes"], bounding_box_format="xyxy"
    )
    overlaps = np.where(
        exported["labels"][:, None] == original["labels"][None], np.asarray(overlaps), 0.0
    )
    pairs = []
    for index in range(overlaps.shape[1]):
        nearest = overlaps[:, index].argmax() if len(overlaps) else 0
        if len(overlaps) and overlaps[nearest, index] >= SAME_IOU:
            pairs.append((nearest, index))
            overlaps[nearest] = 0.0
    return np.array(pairs, int).reshape(-1, 2)
