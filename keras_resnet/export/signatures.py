"""What a served model answers to: functions of tensors, in TensorFlow's own operations alone."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_resnet.data.headers import (
    BEGINNINGS,
    begins_as,
    bits_of_bmp,
    orientation,
    pixels,
)
from keras_resnet.data.images import decode
from keras_resnet.data.pipeline import middle
from keras_resnet.export.interface import Interface
from keras_resnet.graphs import output_name
from keras_resnet.layers import NORMALIZATIONS, Preprocessing
from keras_resnet.transfer import features_of

# A small file must not fill a server's memory.
LARGEST_IMAGE = 100_000_000
"""Pixels of an image file above which it is refused."""


def signatures(
    model: keras.Model, interface: Interface
) -> dict[str, tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]]:
    """The functions by which a model is asked.

    Parameters
    ----------
    model : keras.Model
        The model.
    interface : Interface
        How it is asked.

    Returns
    -------
    dict of str to (function, tf.TensorSpec)
        "serving_default" and "features", of images; and of image files "classify_bytes", where the
        model gives classes, and it is known what raw images need.
    """
    _, *sides, channels = model.inputs[0].shape
    dtype, size = model.inputs[0].dtype, interface.image_size
    output = output_name(model)
    features = features_of(model)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
    embedding = keras.Model(model.input, features)
    normalize = tf.identity
    if interface.preprocessing in NORMALIZATIONS:
        normalize = Preprocessing(interface.preprocessing)

    def ask(net, images):
        images = _some(images)
        if interface.resize:
            images = middle(images, interface.crop, size)
        # The server does not compare what comes with what the signature promises.
        images = tf.ensure_shape(images, (interface.batch_size, *sides, channels))
        if interface.image_dtype == "uint8":
            images = normalize(tf.cast(images, "float32"))
        return tf.cast(net(tf.cast(images, dtype), training=False), "float32")

    def classify_bytes(files):
        files = tf.ensure_shape(_some(files), (interface.batch_size,))
        images = tf.map_fn(
            lambda each: middle(_decoded(*each, channels), interface.crop, size),
            (files, tf.range(tf.size(files))),
            fn_output_signature=tf.TensorSpec((size, size, channels)),
        )
        answers = tf.cast(model(tf.cast(normalize(images), dtype), training=False), "float32")
        if output == "logits":
            answers = tf.nn.softmax(answers)
        classes = answers.shape[-1]
        labels = tf.constant([str(label) for label in interface.labels or range(classes)])
        best = tf.math.top_k(answers, min(interface.top, classes))
        return {"labels": tf.gather(labels, best.indices), "probabilities": best.values}

    shape = (interface.batch_size, *((None, None) if interface.resize else sides), channels)
    images = tf.TensorSpec(shape, interface.image_dtype, "images")
    files = tf.TensorSpec((interface.batch_size,), "string", "image_bytes")
    named = {
        "serving_default": (lambda images: {output: ask(model, images)}, images),
        "features": (lambda images: {"features": ask(embedding, images)}, images),
    }
    if output != "features" and interface.preprocessing and size and channels in (1, 3):
        named["classify_bytes"] = (classify_bytes, files)
    return named


def _some(images):
    """The same images, after making sure that there are any."""
    return _checked(images, tf.shape(images)[0] > 0, "no images were sent: send at least one.")


def _decoded(contents, number, channels):
    """An image of a request, upright."""
    known = tf.reduce_any([begins_as(kind, contents) for kind in BEGINNINGS])
    size = tf.strings.length(contents)
    formats = ", ".join(BEGINNINGS)
    contents = _checked(
        contents, known, "image", number, f"is none of {formats}: it has", size, "bytes."
    )
    plain = ~begins_as("BMP", contents) | (bits_of_bmp(contents) >= 24)
    contents = _checked(contents, plain, "image", number, "is a BMP file with a palette.")
    count = pixels(contents)
    allowed = f"pixels, {LARGEST_IMAGE} are allowed."
    contents = _checked(contents, count <= LARGEST_IMAGE, "image", number, "has", count, allowed)
    return decode(contents, orientation(contents), channels=channels)


def _checked(tensor, condition, *reason):
    """The same tensor, if a condition is met; otherwise the client is told the reason."""
    with tf.control_dependencies([tf.debugging.Assert(condition, reason)]):
        return tf.identity(tensor)
