"""Exported models, each in the runtime that it is made for."""

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.checks import check_installed

_logger = logging.getLogger("keras_resnet")


@dataclass(frozen=True)
class Loaded:
    """An exported model, ready to be called.

    Parameters
    ----------
    path : pathlib.Path
        Where it is.
    runtime : str
        What runs it.
    image_shape : tuple
        Shape of the batches of images that it takes; None for any size.
    image_dtype : str
        Type of the images.
    mebibytes : float
        Its size on disk, in MiB.
    ask : callable
        From a batch of images to the output, both arrays; of several outputs, a dict of them.
    outputs : tuple of str
        Names of the outputs, in alphabetical order.
    """

    path: Path
    runtime: str
    image_shape: tuple[int | None, ...]
    image_dtype: str
    mebibytes: float
    ask: Callable[[np.ndarray], Any]
    outputs: tuple[str, ...]

    def __call__(self, images: np.ndarray) -> Any:
        """Its outputs for images of any type."""
        return self.ask(np.asarray(images, self.image_dtype))


def load(path: str | os.PathLike, threads: int | None = None) -> Loaded:
    """Load an exported model.

    Parameters
    ----------
    path : path
        A SavedModel's folder, a .tflite, .onnx or .xml file, a folder with one of these, or a
        folder of numbered versions, of which the highest is taken. Files of `export.openvino` run
        in the precision that they were verified in.
    threads : int, optional
        Threads of LiteRT, ONNX Runtime and OpenVINO. Default: one for each core that this process
        may use.

    Returns
    -------
    Loaded

    Raises
    ------
    ValueError
        If it is none of these, or cannot be loaded.
    ImportError
        For an .onnx file if ONNX Runtime is not installed, for an .xml file if OpenVINO is not.

    Examples
    --------
    >>> from keras_resnet.export import runtimes
    >>> runtimes.load("pets.pth")
    Traceback (most recent call last):
        ...
    ValueError: 'pets.pth' is not an exported model: it has no saved_model.pb and is not a ...
    """
    path = _found(Path(path))
    threads = threads or _cores()
    read = _READERS[path.suffix] if path.is_file() else _read_saved_model
    weights = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    files = [path, *weights] if path.is_file() else path.rglob("*")
    mebibytes = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
    try:
        runtime, shape, dtype, ask, outputs = read(str(path), threads)
    except ImportError:
        raise
    except Exception as error:  # every runtime has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{str(path)!r} cannot be loaded: {reason}") from error
    shape = tuple(None if size is None or size < 0 else int(size) for size in shape)
    return Loaded(path, runtime, shape, dtype, mebibytes, ask, outputs)


def _found(path):
    """The SavedModel or the file that a path refers to."""
    if path.is_dir() and not (path / "saved_model.pb").exists():
        path = max(versions(path), key=lambda each: int(each.name), default=path)
    if (path / "saved_model.pb").exists() or (path.is_file() and path.suffix in _READERS):
        return path
    files = [each for each in path.glob("[!.]*") if each.suffix in _READERS and each.is_file()]
    if len(files) == 1:
        return files[0]
    if files:
        raise ValueError(
            f"{str(path)!r} holds {len(files)} exported models: name one, such as "
            f"{min(files).name}."
        )
    *others, last = _READERS
    raise ValueError(
        f"{str(path)!r} is not an exported model: it has no saved_model.pb and is not a "
        f"{', '.join(others)} or {last} file."
    )


def versions(folder: str | os.PathLike) -> list[Path]:
    """The numbered versions in a model's folder.

    Parameters
    ----------
    folder : path
        The folder, which need not exist.

    Returns
    -------
    list of pathlib.Path
        In no particular order.
    """
    return [path for path in Path(folder).glob("*") if is_version(path) and path.is_dir()]


def is_version(path: Path) -> bool:
    """Whether a folder has the name of a version: a number, in digits that a server reads."""
    return path.name.isascii() and path.name.isdecimal()


def alone(outputs: dict[str, Any]) -> Any:
    """An output that has no others beside it, or all of them as they are."""
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _read_saved_model(path, threads):
    import tensorflow as tf

    model = tf.saved_model.load(path)
    serve = model.signatures["serving_default"]
    ((argument, spec),) = serve.structured_input_signature[1].items()

    def ask(images):
        outputs = serve(**{argument: tf.constant(images)})
        return alone({name: output.numpy() for name, output in outputs.items()})

    outputs = tuple(sorted(serve.structured_outputs))
    return "TensorFlow", spec.shape.as_list(), spec.dtype.name, ask, outputs


def _read_litert(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter  # noqa: N806, it is a class
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        interpreter = Interpreter(path, num_threads=threads)
    (given,), (taken,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.allocate_tensors()
    shapes = [tuple(given["shape"])]

    def ask(images):
        if images.shape != shapes[-1]:
            interpreter.resize_tensor_input(given["index"], images.shape)
            interpreter.allocate_tensors()
            shapes[:] = [images.shape]
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(taken["index"])

    dtype = np.dtype(given["dtype"]).name
    return "LiteRT", given["shape_signature"], dtype, ask, (taken["name"],)


def _read_onnx(path, threads):
    check_installed("onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else None for size in given.shape]
    dtype = {"tensor(uint8)": "uint8"}.get(given.type, "float32")

    def ask(images):
        return session.run(None, {given.name: images})[0]

    return "ONNX Runtime", shape, dtype, ask, (session.get_outputs()[0].name,)


PRECISION_OF = ["keras_resnet", "precision"]
"""Where an .xml file says what it was verified in."""

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8: for what stays in float


def _read_openvino(path, threads):
    check_installed("openvino", "openvino")
    import openvino

    weights = Path(path).with_suffix(".bin")
    if not weights.exists():
        raise ValueError(f"its weights, {weights.name}, are not beside it.")
    core = openvino.Core()
    # One request at a time gets all threads.
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    try:
        model = core.read_model(path)
        if model.has_rt_info(PRECISION_OF):
            precision = model.get_rt_info(PRECISION_OF).value
            options["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
            if precision == "bfloat16" and not computes_bfloat16():
                _logger.warning(_IN_FLOAT32, path)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:  # its first lines are locations in OpenVINO's sources
        raise ValueError(str(error).strip().splitlines()[-1]) from error
    (given,), (taken,) = model.inputs, model.outputs
    shape = [None if size.is_dynamic else size.get_length() for size in given.partial_shape]
    dtype = np.dtype(given.element_type.to_dtype()).name
    return "OpenVINO", shape, dtype, lambda images: compiled(images)[0], (taken.any_name,)


def computes_bfloat16() -> bool:
    """Whether OpenVINO finds instructions for bfloat16 in this CPU; otherwise it uses float32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


_IN_FLOAT32 = "%s: this CPU has no instructions for bfloat16: OpenVINO computes in float32."

_READERS = {".tflite": _read_litert, ".onnx": _read_onnx, ".xml": _read_openvino}
"""What loads a file, by its suffix."""
