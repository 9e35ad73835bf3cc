"""The kinds of models that are exported, and what differs between them: a row of `KINDS` each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.detection import is_detector
from keras_resnet.export import comparison, detectors, interface, objects, signatures
from keras_resnet.export.comparison import Verification
from keras_resnet.export.runtimes import Loaded
from keras_resnet.export.warmup import BATCH_SIZES
from keras_resnet.graphs import head_of

Signatures = dict[str, tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]]


@dataclass(frozen=True)
class Kind:
    """What exporting knows of a kind of model.

    Parameters
    ----------
    name : str
        What messages call it.
    holds : callable
        Whether a model is of this kind.
    outputs : tuple of str or None
        Names of what the signature "serving_default" gives; None for one of any name.
    formats : tuple of str
        What it can be written as.
    interface : callable
        From a model and what was asked for to how clients call it.
    signatures : callable
        From a model and its interface to the functions that clients can call.
    made_up : callable
        Images to verify with, and the fraction of answers that have to be the same; from the input
        of "serving_default", the interface, and whether both models compute nearly the same.
    asking : callable
        From a model to a function of arrays.
    output_of : callable
        From a model to what comes out of it, as `compare` takes it.
    compare : callable
        Compares an exported model with a function of arrays, as `comparison.compare_answers` does.
    says_nothing : str
        The warning about made-up images that show nothing.
    batch_sizes : tuple of int
        Images of the requests that warm a server up.
    measured : tuple of int
        Images of the batches that are measured.
    image_size : tuple of (int, int)
        Height and width of the images that are measured, where a model takes any size.
    """

    name: str
    holds: Callable[[keras.Model], bool]
    outputs: tuple[str, ...] | None
    formats: tuple[str, ...]
    interface: Callable[..., Any]
    signatures: Callable[[keras.Model, Any], Signatures]
    made_up: Callable[[tf.TensorSpec, Any, bool], tuple[np.ndarray, float]]
    asking: Callable[[keras.Model], Callable]
    output_of: Callable[[keras.Model], Any]
    compare: Callable[..., Verification]
    says_nothing: str
    batch_sizes: tuple[int, ...]
    measured: tuple[int, ...]
    image_size: tuple[int, int]


KINDS = (
    Kind(
        name="detector",
        holds=is_detector,
        outputs=detectors.OUTPUTS,
        formats=("saved_model",),
        interface=detectors.interface_of,
        signatures=detectors.signatures,
        made_up=objects.made_up_images,
        asking=detectors.asking,
        output_of=lambda model: "objects",
        compare=objects.compare_objects,
        says_nothing="%s finds nothing in made-up images, which cannot show whether the export is "
        "right: verify it with images of your own, images=.",
        batch_sizes=(1,),  # whole photographs, which are answered one after the other
        measured=(1,),
        image_size=(600, 800),
    ),
    Kind(
        name="model of images",
        holds=lambda model: True,
        outputs=None,
        formats=("saved_model", "litert", "onnx", "openvino"),
        interface=interface.interface_of,
        signatures=signatures.signatures,
        made_up=comparison.made_up_images,
        asking=comparison.asking,
        output_of=lambda model: head_of(model).output,
        compare=comparison.compare_answers,
        says_nothing="%s gives nearly the same outputs for all made-up images, which cannot show "
        "whether the export is right: verify it with images of your own, images=.",
        batch_sizes=BATCH_SIZES,
        measured=comparison.LATENCY_BATCHES,
        image_size=(224, 224),
    ),
)
"""All kinds; the first that holds a model is its own."""


def kind_of(model: keras.Model) -> Kind:
    """The kind of a model."""
    return next(kind for kind in KINDS if kind.holds(model))


def kind_of_loaded(loaded: Loaded) -> Kind:
    """The kind of an exported model."""
    return next(kind for kind in KINDS if kind.outputs in (None, loaded.outputs))
