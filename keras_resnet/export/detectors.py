"""The interface and signatures of exported detectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_choice, check_range
from keras_resnet.detection import Options, parts_of
from keras_resnet.export.comparison import traced
from keras_resnet.export.interface import TOP, check_exportable, check_names
from keras_resnet.export.signatures import checked, decoded, some

OUTPUTS = ("boxes", "count", "labels", "scores")
"""What comes out of a detector."""

# Options without effect on a detector: the value if it was not given, and why.
_OTHERS = {
    "preprocessing": (None, "it normalizes raw images itself"),
    "crop": (None, "it sees whole images"),
    "image_size": (None, "it takes images of any size, and its own min_size and max_size resize"),
    "resize": (False, "it takes images of any size, and resizes them itself"),
    "top": (TOP, "its own box_detections_per_img says how many objects it finds"),
}
_USUAL = 4 / 3  # a photograph's longer side, divided by its shorter one


@dataclass(frozen=True)
class DetectorInterface:
    """How clients call a detector.

    Parameters
    ----------
    labels : sequence of str or None
        Names of the classes; None for their numbers.
    image_dtype : {"float32", "uint8"}
        What raw images come as.
    batch_size : int or None
        Images per request; None for any number.
    image_size : tuple of (int, int)
        Height and width of images that are made up: those of a photograph once it is resized.
    options : Options
        The options of the detector.
    kind : {"objects"}
        What comes out.
    """

    labels: Sequence[str] | None
    image_dtype: Literal["float32", "uint8"]
    batch_size: int | None
    image_size: tuple[int, int]
    options: Options
    kind: Literal["objects"] = "objects"

    @property
    def output(self) -> str:
        """The name of the first output."""
        return OUTPUTS[0]


def interface_of(model: keras.Model, **asked) -> DetectorInterface:
    """Combine what was asked for with what the detector itself says.

    Parameters
    ----------
    model : keras.Model
        A detector.
    **asked
        As for a model of images; most of it has no effect here.

    Returns
    -------
    DetectorInterface

    Raises
    ------
    ValueError
        If the detector has weights that are NaN, or does not fit what was asked for.
    """
    check_exportable(model)
    for name, (default, reason) in _OTHERS.items():
        if asked[name] != default:
            raise ValueError(
                f"{name}={asked[name]!r} has no effect on detector {model.name!r}: {reason}. "
                "Leave it out."
            )
    parts = parts_of(model)
    labels = None if asked["labels"] is None else [*asked["labels"]]
    if labels is not None:
        if len(labels) != parts.classes:
            raise ValueError(
                f"labels: {len(labels)} names came for the {parts.classes} classes of {model.name}."
            )
        check_names(labels)
    check_choice(("float32", "uint8"), image_dtype=asked["image_dtype"])
    check_range("count", optional=True, batch_size=asked["batch_size"])
    shorter = parts.options.min_size
    return DetectorInterface(
        labels=labels,
        image_dtype=asked["image_dtype"],
        batch_size=asked["batch_size"],
        image_size=(shorter, min(parts.options.max_size, round(_USUAL * shorter))),
        options=parts.options,
    )


def signatures(
    model: keras.Model, interface: DetectorInterface
) -> dict[str, tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]]:
    """The functions that clients can call.

    Parameters
    ----------
    model : keras.Model
        The detector.
    interface : DetectorInterface
        How they call it.

    Returns
    -------
    dict of str to (function, tf.TensorSpec)
        "serving_default", of images of one size, and "detect_bytes", of image files of any.
    """
    most, channels = interface.options.box_detections_per_img, model.inputs[0].shape[-1]
    labels = interface.labels or range(parts_of(model).classes)
    names = [*map(str, labels), ""]  # the last is for padding

    def detect(images):
        images = tf.ensure_shape(some(images), (interface.batch_size, None, None, channels))
        sides = tf.shape(images)[1:3]
        images = checked(images, tf.reduce_all(sides > 0), "images have no pixels:", sides)
        return _found(model, images)

    def detect_bytes(files):
        def of_file(each):
            found = _found(model, decoded(each[0], each[1], channels)[None])
            found["labels"] = tf.gather(names, found["labels"] % len(names))
            return {name: values[0] for name, values in found.items()}

        # One after the other: files of different sizes need no padding, whose borders would show in
        # the answers, and memory does not grow with their number.
        files = tf.ensure_shape(some(files), (interface.batch_size,))
        return tf.map_fn(
            of_file,
            (files, tf.range(tf.size(files))),
            parallel_iterations=1,
            fn_output_signature={
                "boxes": tf.TensorSpec((most, 4), "float32"),
                "scores": tf.TensorSpec((most,), "float32"),
                "labels": tf.TensorSpec((most,), "string"),
                "count": tf.TensorSpec((), "int32"),
            },
        )

    images = tf.TensorSpec(
        (interface.batch_size, None, None, channels), interface.image_dtype, "images"
    )
    files = tf.TensorSpec((interface.batch_size,), "string", "image_bytes")
    named: dict[str, tuple[Callable, tf.TensorSpec]] = {"serving_default": (detect, images)}
    if channels in (1, 3):
        named["detect_bytes"] = (detect_bytes, files)
    return named


def asking(model: keras.Model) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A detector as a function of arrays, without XLA."""
    spec = tf.TensorSpec((None, None, None, model.inputs[0].shape[-1]), "float32")
    return traced(lambda images: _found(model, images), spec)


def _found(model, images) -> dict[str, Any]:
    """What a detector finds in images of one size."""
    shape = tf.shape(images)
    sizes = tf.tile(shape[None, 1:3], (shape[0], 1))
    found = model({"images": tf.cast(images, "float32"), "sizes": sizes}, training=False)
    kinds = {"boxes": "float32", "scores": "float32", "labels": "int32", "count": "int32"}
    return {name: tf.cast(found[name], kind) for name, kind in kinds.items()}
