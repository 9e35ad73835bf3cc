"""What a served model answers to: functions of tensors, in TensorFlow's own operations alone."""

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_resnet.data.formats import BEGINNINGS
from keras_resnet.data.headers import begins_as, orientation, pixels, quick
from keras_resnet.data.images import decode
from keras_resnet.data.pipeline import middle
from keras_resnet.export.interface import Interface
from keras_resnet.graphs import features_of, input_of, plain
from keras_resnet.layers import NORMALIZATIONS, Preprocessing

LARGEST_IMAGE = 100_000_000
"""Pixels above which a server refuses an image file: many may come at once."""


def signatures(
    model: keras.Model, interface: Interface
) -> dict[str, tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]]:
    """The functions that clients can call.

    Parameters
    ----------
    model : keras.Model
        The model.
    interface : Interface
        How they call it.

    Returns
    -------
    dict of str to (function, tf.TensorSpec)
        "serving_default" and "features", of images. Of image files, where it is known what raw
        images need: "classify_bytes" for a model of classes or labels, "predict_bytes" for one of
        values.
    """
    model = plain(model)
    _, *sides, channels = model.inputs[0].shape
    dtype = model.inputs[0].dtype
    features = features_of(model)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
    embedding = keras.Model(input_of(model), features)
    normalize: Callable = tf.identity
    if interface.preprocessing in NORMALIZATIONS:
        normalize = Preprocessing(interface.preprocessing)

    def shown(images):
        return middle(images, interface.crop, interface.image_size, interface.interpolation)

    def resized(images):
        """Images of another size; bicubic ones stay between black and white, as in evaluations."""
        images = shown(images)
        overshoots = interface.interpolation == "bicubic" and interface.image_dtype == "float32"
        if not (overshoots and interface.preprocessing):
            return images
        black, white = (normalize(tf.fill((1, 1, 1, channels), shade)) for shade in (0.0, 255.0))
        return tf.clip_by_value(images, black, white)

    def ask(part, images):
        images = some(images)
        if interface.resize:
            images = resized(images)
        # The server does not compare what comes with what the signature promises.
        images = tf.ensure_shape(images, (interface.batch_size, *sides, channels))
        if interface.image_dtype == "uint8":
            images = normalize(tf.cast(images, "float32"))
        return tf.cast(part(tf.cast(images, dtype), training=False), "float32")

    def ask_of_files(files):
        files = tf.ensure_shape(some(files), (interface.batch_size,))
        images = tf.map_fn(
            lambda each: shown(decoded(each[0], each[1], channels)),
            (files, tf.range(tf.size(files))),
            fn_output_signature=tf.TensorSpec((*interface.image_size, channels)),
        )
        return tf.cast(model(tf.cast(normalize(images), dtype), training=False), "float32")

    def classify_bytes(files):
        answers = probabilities(ask_of_files(files), interface)
        labels = interface.labels or range(answers.shape[-1])
        best = tf.math.top_k(answers, min(interface.top, answers.shape[-1]))
        named = tf.gather(tf.constant([str(label) for label in labels]), best.indices)
        answer = {"labels": named, "probabilities": best.values}
        if interface.thresholds:
            answer["thresholds"] = tf.gather(tf.constant(interface.thresholds), best.indices)
        return answer

    def predict_bytes(files):
        return {"values": ask_of_files(files)}

    shape = (interface.batch_size, *((None, None) if interface.resize else sides), channels)
    images = tf.TensorSpec(shape, interface.image_dtype, "images")
    files = tf.TensorSpec((interface.batch_size,), "string", "image_bytes")
    named: dict[str, tuple[Callable, tf.TensorSpec]] = {
        "serving_default": (lambda images: {interface.output: ask(model, images)}, images),
        "features": (lambda images: {"features": ask(embedding, images)}, images),
    }
    if interface.preprocessing and channels in (1, 3):
        if interface.kind in ("probabilities", "multilabel", "logits"):
            named["classify_bytes"] = (classify_bytes, files)
        elif interface.kind == "number":
            named["predict_bytes"] = (predict_bytes, files)
    return named


def probabilities(outputs: tf.Tensor, interface: Interface) -> tf.Tensor:
    """The probabilities of all classes or labels.

    Parameters
    ----------
    outputs : tensor of shape (images, units)
        Outputs of a model of classes or labels.
    interface : Interface
        What they are.

    Returns
    -------
    tensor of shape (images, classes)
        Of one unit that decides between two classes, for both of them.
    """
    single = outputs.shape[-1] == 1
    if interface.kind == "logits":
        outputs = tf.sigmoid(outputs) if single else tf.nn.softmax(outputs)
    of_two = interface.labels is None or len(interface.labels) == 2
    if single and of_two and not interface.thresholds:
        outputs = tf.concat([1 - outputs, outputs], -1)
    return outputs


def some(images: tf.Tensor) -> tf.Tensor:
    """The same images, after making sure that there are any."""
    return checked(images, tf.shape(images)[0] > 0, "no images were sent: send at least one.")


def decoded(contents: tf.Tensor, number: tf.Tensor, channels: int) -> tf.Tensor:
    """An image of a request, upright; the client is told what is wrong with a file."""
    known = tf.reduce_any([begins_as(kind, contents) for kind in BEGINNINGS])
    size = tf.strings.length(contents)
    formats = ", ".join(BEGINNINGS)
    contents = checked(
        contents, known, "image", number, f"is none of {formats}: it has", size, "bytes."
    )
    reason = "is a BMP file whose pixels are not 24 or 32 plain bits."
    contents = checked(contents, quick(contents), "image", number, reason)
    count = pixels(contents)
    allowed = f"pixels, {LARGEST_IMAGE} are allowed."
    contents = checked(contents, count <= LARGEST_IMAGE, "image", number, "has", count, allowed)
    return decode(contents, orientation(contents), channels=channels)


def checked(tensor: tf.Tensor, condition: tf.Tensor, *reason: str | tf.Tensor) -> tf.Tensor:
    """The same tensor, if a condition is met; otherwise the client is told the reason."""
    with tf.control_dependencies([tf.debugging.Assert(condition, reason)]):
        return tf.identity(tensor)
