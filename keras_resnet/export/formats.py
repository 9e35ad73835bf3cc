"""Single files for other runtimes: LiteRT (.tflite), ONNX and OpenVINO (.xml), one row each."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.card import Exported
from keras_resnet.export.openvino import check_bfloat16, write_openvino, write_openvino_accurately
from keras_resnet.export.single_files import Asked, Format, archived, asking, written
from keras_resnet.progress import task, tracked
from keras_resnet.resnet import deep_graphs

LiteRTPrecision = Literal["float32", "float16", "dynamic", "int8"]
LITERT_PRECISIONS = get_args(LiteRTPrecision)
OpenVINOPrecision = Literal["float32", "bfloat16", "int8"]
_HEAD_OPERATIONS = ["FULLY_CONNECTED", "SOFTMAX", "LOGISTIC"]


@deep_graphs()
def litert(
    model: keras.Model,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
    *,
    precision: LiteRTPrecision = "float32",
    calibrate: np.ndarray | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    images: np.ndarray | None = None,
    agreement: float = 0.95,
    verified: bool = True,
    verbose: bool = True,
) -> Exported:
    """Write a model as a LiteRT (TensorFlow Lite) file, and verify it in LiteRT's interpreter.

    Normalizations are folded, and only LiteRT's own operations are used. Images enter and outputs
    leave as float32, whatever is computed in between. The output is called as that of
    `saved_model`: "probabilities", "logits", "values" and so on.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, of this package or any other.
    path : path
        The new file, *.tflite.
    labels : sequence of str, optional
        Names of the classes, labels or values, for the model card. Default: numbers.
    precision : {"float32", "float16", "dynamic", "int8"}, default "float32"
        "float16": weights take half the space; "dynamic": weights are 8-bit numbers, and feature
        maps are turned into 8-bit numbers as they come; "int8": the feature maps are 8-bit numbers,
        too, on scales that are fixed beforehand, which is fastest. The head then computes in
        float32: 8 bits would make many classes equally likely.
    calibrate : array of shape (images, height, width, channels), optional
        For "int8": images as the model takes them, to find the ranges of the feature maps. A
        hundred from the training split are plenty.
    batch_size : int, optional
        Images per request. Default: any number.
    image_size : int or tuple of (int, int), optional
        As in `saved_model`: the made-up images have this size.
    images : array of shape (images, height, width, channels), optional
        What to verify with, as the model takes them; best those of a test split. Default: for
        "int8" every fifth of `calibrate`, which is then not used to calibrate; otherwise all of
        `calibrate`, or made-up images, for which outputs are compared but not classes.
    agreement : float, default 0.95
        Fraction of `images` for which the exported model has to give the same answer. For "int8"
        without `images`, it may be two standard errors less, as there are so few.
    verified : bool, default True
        Whether to run the exported model and compare it with `model`.
    verbose : bool, default True
        Print the result of that.

    Returns
    -------
    Exported
        The path, and a model card.

    Raises
    ------
    ValueError
        For a model that is not functional or not one of images, a file that exists already or has
        another suffix, an unknown precision, "int8" without images to calibrate with, or an
        exported model that disagrees with the original.

    References
    ----------
    LiteRT, "Post-training quantization".

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "cifar.tflite")
    ...     new = keras_resnet.export.litert(net, file, precision="float16", verbose=False)
    ...     os.path.getsize(new) < 3 * net.count_params()
    True
    """
    return written(
        FORMATS["litert"],
        model,
        path,
        labels,
        precision=precision,
        calibrate=calibrate,
        batch_size=batch_size,
        image_size=image_size,
        images=images,
        agreement=agreement,
        verified=verified,
        verbose=verbose,
    )


@deep_graphs()
def onnx(
    model: keras.Model,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
    *,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    images: np.ndarray | None = None,
    agreement: float = 0.99,
    verified: bool = True,
    verbose: bool = True,
) -> Exported:
    """Write a model as an ONNX file in float32, and verify it in ONNX Runtime.

    Normalizations are folded. Needs `pip install keras_resnet[onnx]`.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, of this package or any other.
    path : path
        The new file, *.onnx.
    labels, batch_size, image_size, images, agreement, verified, verbose
        As in `litert`.

    Returns
    -------
    Exported
        The path, and a model card.

    Raises
    ------
    ValueError
        For a model that is not functional or not one of images, a file that exists already or has
        another suffix, or an exported model that disagrees with the original.
    ImportError
        If the converter is not installed, or, to verify, ONNX Runtime.
    """
    return written(
        FORMATS["onnx"],
        model,
        path,
        labels,
        batch_size=batch_size,
        image_size=image_size,
        images=images,
        agreement=agreement,
        verified=verified,
        verbose=verbose,
    )


@deep_graphs()
def openvino(
    model: keras.Model,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
    *,
    precision: OpenVINOPrecision = "float32",
    calibrate: np.ndarray | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    images: np.ndarray | None = None,
    agreement: float = 0.95,
    verified: bool = True,
    verbose: bool = True,
) -> Exported:
    """Write a model as an OpenVINO file, and verify it in OpenVINO.

    Normalizations are folded. The file records the precision that it was verified in, and `load`
    uses that; other programs have to ask for it with "INFERENCE_PRECISION_HINT". Images and outputs
    are float32. OpenVINO Model Server serves the file from a folder of versions, as
    `examples/serving` shows. Needs `pip install keras_resnet[openvino]`.

    Parameters
    ----------
    model : keras.Model
        A functional model of images, of this package or any other.
    path : path
        The new file, *.xml. Its weights become *.bin beside it.
    labels : sequence of str, optional
        Names of the classes, labels or values, for the model card. Default: numbers.
    precision : {"float32", "bfloat16", "int8"}, default "float32"
        "bfloat16": faster where the processor has instructions for it (AVX512-BF16, AMX); the
        weights are stored as float16. "int8": convolutions compute in 8 bits with scales that are
        fixed beforehand, which is fastest; the head computes in float32. If this changes more
        answers than `agreement` allows, the layers that change most of them stay in float32;
        finding them takes minutes.
    calibrate, batch_size, image_size, images, agreement, verified, verbose
        As in `litert`.

    Returns
    -------
    Exported
        The path, and a model card.

    Raises
    ------
    ValueError
        For a model that is not functional or not one of images, a file that exists already or has
        another suffix, an unknown precision, "bfloat16" to be verified on a processor without it,
        "int8" without images to calibrate with, or an exported model that disagrees with the
        original.
    ImportError
        If OpenVINO is not installed, or, for "int8", NNCF.

    References
    ----------
    NNCF, "Post-training quantization" and "Quantizing with accuracy control".

    Examples
    --------
    >>> from keras_resnet import CIFARResNet, export
    >>> file = export.openvino(CIFARResNet(8), "cifar.xml", verbose=False)  # doctest: +SKIP
    >>> export.load(file).runtime  # doctest: +SKIP
    'OpenVINO'
    """
    return written(
        FORMATS["openvino"],
        model,
        path,
        labels,
        precision=precision,
        calibrate=calibrate,
        batch_size=batch_size,
        image_size=image_size,
        images=images,
        agreement=agreement,
        verified=verified,
        verbose=verbose,
    )


@task("Converting")
def converted(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    spec: tf.TensorSpec,
    precision: LiteRTPrecision,
    calibrate: Any,
) -> bytes:
    """The contents of a LiteRT file of a function, whose signature is "serving_default"."""
    with archived(function, spec) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision != "int8":
            return converter.convert()

        def examples():
            images = tracked(calibrate, "Calibrating")
            return ([np.asarray(image, spec.dtype.as_numpy_dtype)[None]] for image in images)

        converter.representative_dataset = examples
        # Logits in steps of an eighth would make many classes equally likely.
        head = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_HEAD_OPERATIONS)
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
        return tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=examples, debug_options=head
        ).get_nondebug_quantized_model()


def _write_litert(asked: Asked, path: Path) -> dict:
    function, spec = asking(asked, asked.interface.batch_size)
    path.write_bytes(converted(function, spec, asked.precision, asked.calibrate))
    return {}


@task("Converting")
def _write_onnx(asked: Asked, path: Path) -> dict:
    model, interface = asked.model, asked.interface
    named = keras.Model(model.inputs[0], {interface.output: model.outputs[0]})
    _, *shape = model.inputs[0].shape
    spec = tf.TensorSpec((interface.batch_size, *shape), model.inputs[0].dtype, "images")
    with warnings.catch_warnings():
        # Keras asks NumPy for what tf2onnx misses there.
        warnings.filterwarnings("ignore", "In the future `np.object` will be", FutureWarning)
        named.export(path, format="onnx", input_signature=[spec], verbose=False)
    return {}


FORMATS = {
    format.key: format
    for format in (
        Format(
            key="litert",
            name="a LiteRT file",
            suffix=".tflite",
            precisions=LITERT_PRECISIONS,
            writers=(_write_litert,),
        ),
        Format(
            key="onnx",
            name="an ONNX file",
            suffix=".onnx",
            precisions=("float32",),
            writers=(_write_onnx,),
            extra="onnx",
            writes=("onnx", "tf2onnx"),
            runs=("onnxruntime",),
        ),
        Format(
            key="openvino",
            name="an OpenVINO file",
            suffix=".xml",
            precisions=get_args(OpenVINOPrecision),
            writers=(write_openvino, write_openvino_accurately),
            weights=".bin",
            extra="openvino",
            writes=("openvino",),
            quantizes=("nncf",),
            runs=("openvino",),
            machine={"bfloat16": check_bfloat16},
        ),
    )
}
"""What can be written as a single file."""
