"""A trained model as a function of batches, made fast for many images."""

import logging
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import export
from keras_resnet.export.compiled import RUNTIMES, CompiledPrecision, RuntimeName
from keras_resnet.export.freezing import frozen

log = logging.getLogger(__name__)

WORTH_FREEZING = 256
"""Number of images from which freezing a model saves more time than it takes."""


def asking(
    model: keras.Model,
    batches: tf.data.Dataset,
    images: int,
    runtime: RuntimeName | None = None,
    precision: CompiledPrecision | None = None,
) -> Callable[[tf.Tensor], np.ndarray]:
    """Turn a model whose training is over into a function of batches of images.

    Parameters
    ----------
    model : keras.Model
        The model.
    batches : tf.data.Dataset
        Batches of (images, labels); the first may be used to measure speed.
    images : int
        How many images there are.
    runtime, precision : str, optional
        As `export.compiled` takes them. Default: TensorFlow, in the model's precision.

    Returns
    -------
    callable
    """
    if runtime or precision:
        first, _ = next(iter(batches))
        precision, shown = precision or "float32", first.numpy()
        runtime = runtime or "tensorflow"
        made = export.compiled(model, runtime, shown, precision=precision, verbose=False)
        log.info("%s, %s: %s.", RUNTIMES[made.runtime].name, made.precision, made.reason)
        return lambda images: made(images.numpy())
    policies = {each.dtype_policy.name for each in model._flatten_layers()}
    if images >= WORTH_FREEZING and policies == {"float32"}:
        try:
            graph = frozen(model)
        except Exception as error:  # custom layers may refuse to be copied
            log.debug("%s is not frozen: %s", model.name, error)
        else:
            return lambda images: graph(images).numpy()
    return model.predict_on_batch
