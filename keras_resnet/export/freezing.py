"""Models as graphs whose weights are constants."""

from collections.abc import Callable

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_resnet.export.folding import Precision, fold_batch_norm, in_precision
from keras_resnet.graphs import plain
from keras_resnet.resnet import deep_graphs


@deep_graphs()
def frozen(model: keras.Model, precision: Precision = "float32") -> Callable:
    """Freeze a model: fold its normalizations, and turn its weights into constants.

    oneDNN keeps constants in its own layout, but reorders variables at every call. Unlike
    `TF_ONEDNN_ASSUME_FROZEN_WEIGHTS`, which keeps whatever an operation saw first, that is correct
    for any number of models in a process, even those that are still being trained.

    Parameters
    ----------
    model : keras.Model
        A functional model of one input and one output.
    precision : {"float32", "bfloat16"}, default "float32"
        What feature maps are computed in.

    Returns
    -------
    callable
        Takes a tensor of images, a batch of any size; returns the outputs, a float32 tensor.
    """
    folded = in_precision(fold_batch_norm(plain(model)), precision)
    given = folded.inputs[0]
    spec = tf.TensorSpec((None, *given.shape[1:]), given.dtype, "images")

    def answers(images):
        return tf.cast(folded(images, training=False), "float32")

    graph = convert_variables_to_constants_v2(tf.function(answers).get_concrete_function(spec))
    return lambda images: graph(images)[0]
