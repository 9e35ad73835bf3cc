"""A LiteRT file in a SavedModel's folder, which TensorFlow Serving may serve in its place.

`tensorflow_model_server --prefer_tflite_model` (experimental) serves the `model.tflite` of a
version if there is one. It makes the signature "serving_default" from the names, types and shapes
of that file's input and output; there are no other signatures.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tensorflow.lite.tools import flatbuffer_utils

from keras_resnet.checks import check_choice
from keras_resnet.export.calibration import calibration_of, check_calibration
from keras_resnet.export.comparison import Verification
from keras_resnet.export.folding import in_precision
from keras_resnet.export.formats import LITERT_PRECISIONS, LiteRTPrecision, converted
from keras_resnet.export.kinds import kind_of
from keras_resnet.export.verify import verify_export

FILE = "model.tflite"
"""Where TensorFlow Serving looks for it in a version's folder."""

SIGNATURE = "serving_default"
"""The only signature that it has."""

_AGREEMENT = 0.95  # as for other LiteRT files


def check_served(
    model: keras.Model, precision: str, calibrate: np.ndarray | None, resize: bool, alone: bool
) -> None:
    """Raise ValueError unless a model can be written as a LiteRT file that is served.

    Parameters
    ----------
    model : keras.Model
        The model.
    precision : str
        What the file is to compute in.
    calibrate : array, optional
        Images to find the ranges of its feature maps with.
    resize : bool
        Whether clients may send images of any size.
    alone : bool
        Whether some of the images that calibrate have to verify it, too.
    """
    check_choice(LITERT_PRECISIONS, with_litert=precision)
    kind = kind_of(model)
    if "litert" not in kind.formats:
        raise ValueError(
            f"with_litert={precision!r}: model {model.name!r} is a {kind.name}, which cannot be "
            "written as a LiteRT file. Leave it out."
        )
    if resize:
        raise ValueError(
            f"with_litert={precision!r}: a LiteRT file takes only images of the model's size. "
            "Leave out resize, or with_litert."
        )
    if precision == "int8":
        check_calibration(calibrate, model, alone)


def write_served(
    folder: Path,
    model: keras.Model,
    folded: keras.Model,
    interface: Any,
    precision: LiteRTPrecision,
    *,
    calibrate: np.ndarray | None,
    images: Any,
    agreement: float,
    verified: bool,
) -> tuple[Verification | None, dict]:
    """Write the file, and verify it as the server runs it: in one thread.

    Parameters
    ----------
    folder : path
        The SavedModel's folder.
    model : keras.Model
        The original.
    folded : keras.Model
        The same, with its normalizations folded.
    interface : Interface
        How clients call it.
    precision : {"float32", "float16", "dynamic", "int8"}
        What the file computes in.
    calibrate, images : array, optional
        Images as the signature takes them, for "int8" and to verify with.
    agreement : float
        Fraction of the images for which the SavedModel has to give the same answer as the original;
        for the file, 0.95 is enough.
    verified : bool
        Whether to verify it.

    Returns
    -------
    verification : Verification or None
    card : dict
        What the model card says about it.

    Raises
    ------
    ValueError
        If it disagrees with the original.
    """
    signatures = kind_of(model).signatures(in_precision(folded, "float32"), interface)
    function, spec = signatures[SIGNATURE]
    agreement, facts = min(agreement, _AGREEMENT), {}
    if precision == "int8" and calibrate is not None:
        calibration = calibration_of(calibrate, images, agreement, verified)
        calibrate, images = calibration.calibrate, calibration.images
        agreement, facts = calibration.agreement, {"quantization": calibration.to_json()}
    contents = converted(function, spec, precision, calibrate)
    (folder / FILE).write_bytes(
        _named(contents, {spec.name: "inputs", interface.output: "outputs"})
    )
    verification = None
    if verified:
        try:
            verification = verify_export(
                folder / FILE, model, interface, precision, images, agreement, threads=1
            )
        except ValueError as error:
            raise ValueError(f"with_litert={precision!r}: {error}") from error
    compared = verification and asdict(verification)
    return verification, {"file": FILE, "precision": precision, **facts, "verification": compared}


def _named(contents, ends):
    """The same file, with these names for its one input and one output.

    The server uses the names of the tensors themselves; converters name these after the operations
    that made them, and keep the names of a signature elsewhere.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(contents)
    (graph, *_) = model.subgraphs
    taken = {name.encode() for name in ends}
    for index, tensor in enumerate(graph.tensors):
        if tensor.name in taken:
            tensor.name = b"%s/%d" % (tensor.name, index)
    for name, end in ends.items():
        (index,) = getattr(graph, end)
        graph.tensors[index].name = name.encode()
    return flatbuffer_utils.convert_object_to_bytearray(model)
