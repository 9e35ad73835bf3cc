"""Single files for other runtimes: LiteRT (.tflite) and ONNX."""

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_choice
from keras_resnet.export.card import Exported, model_card
from keras_resnet.export.disk import full_disk_named
from keras_resnet.export.folding import fold_batch_norm, in_precision
from keras_resnet.export.kinds import kind_of
from keras_resnet.export.runtimes import check_installed
from keras_resnet.export.verify import verify_export
from keras_resnet.files import written_beside
from keras_resnet.graphs import plain
from keras_resnet.resnet import deep_graphs

LiteRTPrecision = Literal["float32", "float16", "dynamic", "int8"]
LITERT_PRECISIONS = get_args(LiteRTPrecision)
_NAMES = {"litert": "a LiteRT file", "onnx": "an ONNX file"}
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
        "int8" those of `calibrate`, otherwise made-up ones, for which outputs are compared but no
        classes.
    agreement : float, default 0.95
        Fraction of `images` for which the exported model has to give the same answer. Verified on
        `calibrate`, which has few images, it may be two standard errors less.
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
    interface = _interface(model, "litert", labels, batch_size, image_size)
    path = _new_file(path, ".tflite")
    check_choice(LITERT_PRECISIONS, precision=precision)
    if precision == "int8":
        check_calibration(calibrate, model)
        if images is None and calibrate is not None:
            images, agreement = calibrate, agreement - by_chance(agreement, len(calibrate))
    model = plain(model)
    folded = in_precision(fold_batch_norm(model), "float32")
    with written_beside(path) as partial:
        contents = converted(
            lambda images: {interface.output: folded(images, training=False)},
            tf.TensorSpec((interface.batch_size, *folded.inputs[0].shape[1:]), "float32", "images"),
            precision,
            calibrate,
        )
        partial.write_bytes(contents)
        verification = None
        if verified:
            verification = verify_export(partial, model, interface, precision, images, agreement)
    exported = Exported(path, model_card(model, interface, precision, verification), verification)
    if verbose:
        print(exported)
    return exported


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
    interface = _interface(model, "onnx", labels, batch_size, image_size)
    path = _new_file(path, ".onnx")
    check_installed("onnx", "tf2onnx", *(["onnxruntime"] if verified else []))
    model = plain(model)
    folded = in_precision(fold_batch_norm(model), "float32")
    named = keras.Model(folded.inputs[0], {interface.output: folded.outputs[0]})
    _, *shape = folded.inputs[0].shape
    spec = tf.TensorSpec((batch_size, *shape), folded.inputs[0].dtype, "images")
    with written_beside(path) as partial:
        with warnings.catch_warnings():
            # Keras asks NumPy for what tf2onnx misses there.
            warnings.filterwarnings("ignore", "In the future `np.object` will be", FutureWarning)
            named.export(partial, format="onnx", input_signature=[spec], verbose=False)
        verification = None
        if verified:
            verification = verify_export(partial, model, interface, "float32", images, agreement)
    exported = Exported(path, model_card(model, interface, "float32", verification), verification)
    if verbose:
        print(exported)
    return exported


def _interface(model, format, labels, batch_size, image_size):
    kind = kind_of(model)
    if format not in kind.formats:
        raise ValueError(
            f"model {model.name!r} is a {kind.name}, which cannot be written as {_NAMES[format]}: "
            "write a SavedModel, export.saved_model (--format saved_model)."
        )
    nothing_else = dict.fromkeys(("preprocessing", "crop"))
    return kind.interface(
        model,
        labels=labels,
        batch_size=batch_size,
        image_size=image_size,
        image_dtype="float32",
        resize=False,
        top=1,
        **nothing_else,
    )


def _new_file(path, suffix):
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"path {str(path)!r} must end in {suffix}.")
    if path.exists():
        raise ValueError(f"path {str(path)!r} is there already: choose another name or folder.")
    return path


def by_chance(fraction: float, count: int) -> float:
    """Two standard errors of a fraction, found on so many images."""
    return 2 * math.sqrt(max(fraction * (1 - fraction), 0.0) / count)


def check_calibration(images: np.ndarray | None, model: keras.Model) -> None:
    """Raise ValueError for what a model cannot be calibrated with."""
    if images is None or not len(images):
        raise ValueError(
            "calibrate: precision='int8' needs images, as the model takes them, to find the ranges "
            "of its feature maps; a hundred of the training split are plenty."
        )
    expected = model.inputs[0].shape
    if not tf.TensorShape(expected).is_compatible_with(np.shape(images)):
        raise ValueError(f"calibrate has the shape {np.shape(images)}; the model takes {expected}.")
    if not np.isfinite(images).all():
        raise ValueError("calibrate holds NaN or infinite values: leave these images out.")


def converted(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    spec: tf.TensorSpec,
    precision: LiteRTPrecision,
    calibrate: np.ndarray | None,
) -> bytes:
    """The contents of a LiteRT file of a function, whose signature is "serving_default"."""
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", function, [spec])
        with full_disk_named(folder):
            archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision != "int8":
            return converter.convert()

        def examples():
            return ([np.asarray(image, spec.dtype.as_numpy_dtype)[None]] for image in calibrate)

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
