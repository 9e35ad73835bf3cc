"""Exported models as clients call them, and files to send them."""

import io
import os

import PIL.Image
import tensorflow as tf

from keras_resnet import export


def signatures(model, folder, **options):
    """The signatures of an exported model, as functions from arrays to dicts of arrays."""
    path = export.saved_model(model, folder, verified=False, verbose=False, **options)
    loaded = tf.saved_model.load(os.fspath(path))

    def asking(signature):
        ((argument, spec),) = signature.structured_input_signature[1].items()

        def ask(values):
            values = tf.constant(values, spec.dtype)
            return {name: value.numpy() for name, value in signature(**{argument: values}).items()}

        return ask

    return {name: asking(signature) for name, signature in loaded.signatures.items()}


def encoded(image, kind, **options):
    """The contents of an image file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()
