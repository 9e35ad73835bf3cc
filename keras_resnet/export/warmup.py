"""Requests that TensorFlow Serving sends to itself before it answers others."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from keras_resnet.layers.view import sides

FILE = Path("assets.extra", "tf_serving_warmup_requests")
"""Where TensorFlow Serving looks for them in a SavedModel."""

BATCH_SIZES = (1, 4, 16, 32)
"""Images of the requests: one at a time, and what the batching of `examples/serving` makes."""


def write_requests(
    path: str | os.PathLike,
    image_size: int | tuple[int, int],
    batch_sizes: Sequence[int] = BATCH_SIZES,
    only: Collection[str] | None = None,
) -> None:
    """Write requests for every signature of a SavedModel.

    The first request to a signature, and of each batch size, takes longer than the others: no
    client should have to wait for that.

    Parameters
    ----------
    path : path
        The SavedModel's folder.
    image_size : int or tuple of (int, int)
        Height and width of the images, where a signature does not say.
    batch_sizes : sequence of int
        Images per request, where a signature does not say.
    only : collection of str, optional
        The signatures that requests are for. Default: all.

    References
    ----------
    TensorFlow Serving, "SavedModel Warmup".
    """
    file = Path(path) / FILE
    file.parent.mkdir()
    with tf.io.TFRecordWriter(os.fspath(file)) as writer:
        for name, signature in signature_defs(path).items():
            if only is not None and name not in only:
                continue
            ((argument, tensor),) = signature.inputs.items()
            fixed = tensor.tensor_shape.dim[0].size
            for batch_size in batch_sizes if fixed < 0 else (fixed,):
                images = _filled(tensor, batch_size, sides(image_size))
                writer.write(_log(Path(path).absolute().parent.name, name, argument, images))


def signature_defs(path: str | os.PathLike) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures of a SavedModel, as its file says.

    Parameters
    ----------
    path : path
        The SavedModel's folder.

    Returns
    -------
    dict of str to SignatureDef
    """
    contents = (Path(path) / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(contents).meta_graphs
    return {name: signature for name, signature in graph.signature_def.items() if signature.inputs}


def _log(model, signature, argument, images):
    """A `tensorflow.serving.PredictionLog` of one request.

    The numbers are those of the fields in TensorFlow Serving's `apis/*.proto`. Written out, they
    save users a package of some hundred modules that export needs for nothing else.
    """
    model_spec = _field(1, model.encode()) + _field(3, signature.encode())
    entry = _field(1, argument.encode()) + _field(2, images.SerializeToString())
    request = _field(1, model_spec) + _field(2, entry)
    return _field(6, _field(1, request))  # predict_log


def _field(number, contents):
    """A field of bytes as protocol buffers encode it: number and kind, length, contents."""
    length, encoded = len(contents), bytearray([number << 3 | 2])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*encoded, length]) + contents


def _filled(tensor, batch_size, image_size):
    """A batch of black images, or of files of them."""
    _, *sizes = (dimension.size for dimension in tensor.tensor_shape.dim)
    known = zip(sizes, (*image_size, 0), strict=False)  # files have no sizes
    sizes = [its if size < 0 else size for size, its in known]
    shape = tf.TensorShape([batch_size, *sizes]).as_proto()
    filled = tensor_pb2.TensorProto(dtype=tensor.dtype, tensor_shape=shape)
    # One value stands for all of them, which keeps the file small.
    if tensor.dtype == types_pb2.DT_STRING:
        black = tf.zeros((*image_size, 3), "uint8")
        filled.string_val.append(tf.io.encode_jpeg(black).numpy())
    elif tensor.dtype == types_pb2.DT_FLOAT:
        filled.float_val.append(0.0)
    else:
        filled.int_val.append(0)
    return filled
