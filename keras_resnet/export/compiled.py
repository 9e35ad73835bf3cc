"""A model in this process, run by the fastest runtime that is installed."""

import importlib.util
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import machine
from keras_resnet.checks import check_choice
from keras_resnet.export.calibration import by_chance, calibration_of, check_calibration
from keras_resnet.export.comparison import Verification
from keras_resnet.export.formats import litert, onnx, openvino
from keras_resnet.export.freezing import frozen
from keras_resnet.export.interface import Interface, check_exportable
from keras_resnet.export.kinds import kind_of
from keras_resnet.export.runtimes import Loaded, load
from keras_resnet.export.verify import verify_loaded
from keras_resnet.resnet import deep_graphs

RuntimeName = Literal["auto", "openvino", "tensorflow", "litert", "onnxruntime"]
CompiledPrecision = Literal["float32", "bfloat16", "int8"]

_logger = logging.getLogger("keras_resnet")

_LARGEST = 32
"""Images that go through a model at a time: more take more memory, and are no faster."""

_TURNS, _FEWEST_TURNS, _SECONDS = 20, 3, 1.0  # of timing, which ends early after so many seconds
_AGREEMENT = {"float32": 0.99, "bfloat16": 0.99, "int8": 0.95}


@dataclass(frozen=True)
class Runtime:
    """What runs models in this process.

    Parameters
    ----------
    name : str
        What messages call it.
    precisions : tuple of str
        The precisions that it computes in.
    made : callable
        Takes a model, its interface, a precision and images to calibrate with; returns a function
        of batches of any number of images.
    modules : tuple of str, default ()
        The modules that it needs.
    install : str, optional
        The command that installs them.
    """

    name: str
    precisions: tuple[str, ...]
    made: Callable[[keras.Model, Interface, str, Any], Callable[[np.ndarray], np.ndarray]]
    modules: tuple[str, ...] = ()
    install: str = ""

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [each for each in self.modules if importlib.util.find_spec(each) is None]


def _tensorflow(model, interface, precision, calibrate):
    graph, dtype = frozen(model, precision), model.inputs[0].dtype

    def ask(images):
        return graph(tf.constant(images.astype(dtype, copy=False))).numpy()

    return ask


def _of_a_file(write, suffix):
    """What `Runtime.made` is for a runtime that reads files."""

    def made(model, interface, precision, calibrate):
        options = {} if write is onnx else dict(precision=precision, calibrate=calibrate)
        options["image_size"] = interface.image_size
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # it may be open
            path = Path(folder) / f"model{suffix}"
            write(model, path, verified=False, verbose=False, **options)
            loaded = load(path)
        turn = threading.Lock()  # an interpreter does one thing at a time, with all cores

        def ask(images):
            with turn:
                return loaded(images)

        return ask

    return made


RUNTIMES: dict[str, Runtime] = {
    "openvino": Runtime(
        *("OpenVINO", ("float32", "bfloat16", "int8"), _of_a_file(openvino, ".xml")),
        *(("openvino",), "pip install 'keras_resnet[openvino]'"),
    ),
    "tensorflow": Runtime("TensorFlow", ("float32", "bfloat16"), _tensorflow),
    "litert": Runtime("LiteRT", ("float32", "int8"), _of_a_file(litert, ".tflite")),
    "onnxruntime": Runtime(
        *("ONNX Runtime", ("float32",), _of_a_file(onnx, ".onnx")),
        *(("onnx", "onnxruntime", "tf2onnx"), "pip install 'keras_resnet[onnx]'"),
    ),
}
"""All runtimes, the fastest in `benchmarks.inference` first."""

_COMPARED = 2  # of those that are installed


@dataclass(frozen=True)
class Compiled:
    """A model in a runtime, as a function from images to outputs.

    Parameters
    ----------
    runtime : str
        What runs it: a key of `compiled.RUNTIMES`.
    precision : str
        What it computes in.
    image_shape : tuple
        Shape of the batches of images that it takes; None for any size.
    image_dtype : str
        Type that images are converted to.
    reason : str
        Why this runtime.
    verification : Verification or None
        How it compares with the model; None if it was not verified.
    """

    runtime: str
    precision: str
    image_shape: tuple[int | None, ...]
    image_dtype: str
    reason: str
    verification: Verification | None
    ask: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs for a batch of images.

        Parameters
        ----------
        images : array of shape (images, height, width, channels)
            Any number of images as the model takes them. More than 32 are run in batches of 32.

        Returns
        -------
        array
            The outputs, float32.

        Raises
        ------
        ValueError
            For images of a shape that the model does not take.
        """
        images = np.asarray(images, self.image_dtype)
        _check_shape(images, self.image_shape)
        if not len(images):
            _, *sides = (side or 1 for side in (1, *images.shape[1:]))
            return self.ask(np.zeros((1, *sides), self.image_dtype))[:0]
        parts = range(0, len(images), _LARGEST)
        outputs = [self.ask(images[start : start + _LARGEST]) for start in parts]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def __str__(self):
        return f"{RUNTIMES[self.runtime].name}, {self.precision}: {self.reason}\n" + str(
            self.verification or "not verified"
        )


@deep_graphs()
def compiled(
    model: keras.Model,
    runtime: RuntimeName = "auto",
    images: np.ndarray | None = None,
    *,
    precision: CompiledPrecision = "float32",
    calibrate: np.ndarray | None = None,
    agreement: float | None = None,
    verified: bool = True,
    verbose: bool = True,
) -> Compiled:
    """Turn a model into a fast function from images to outputs.

    Normalizations are folded, and the weights become constants in the runtime: if the model is
    trained further or loads other weights, the function does not change. It takes what the model
    takes, may be called from several threads, and uses all cores.

    Parameters
    ----------
    model : keras.Model
        A functional model of images with one output, of this package or any other.
    runtime : {"auto", "openvino", "tensorflow", "litert", "onnxruntime"}, default "auto"
        What runs the model. "auto" takes the first two of OpenVINO, TensorFlow, LiteRT and ONNX
        Runtime that are installed and compute in `precision`, and of these, the one that takes less
        time for a batch of `images`.
    images : array of shape (images, height, width, channels), optional
        What to verify with, and to time as one batch: pass as many as you will at a time, at best
        photographs of the kind that the model knows. Default: made-up ones, timed one at a time.
    precision : {"float32", "bfloat16", "int8"}, default "float32"
        What feature maps are computed in. "bfloat16" is for processors that have instructions for
        it (AVX512-BF16, AMX). "int8" needs `calibrate`.
    calibrate : array of shape (images, height, width, channels), optional
        For "int8": images as the model takes them, as in `litert`. Without `images`, every fifth of
        them is held out to verify.
    agreement : float, optional
        Fraction of `images` for which the function has to give the same answer as the model.
        Default: 0.99, for "int8" 0.95, less two standard errors for that many images.
    verified : bool, default True
        Whether to compare the function with the model.
    verbose : bool, default True
        Print what was chosen and why, and the comparison.

    Returns
    -------
    Compiled
        The function.

    Raises
    ------
    ValueError
        For an unknown runtime or precision, a runtime that does not compute in it or cannot run the
        model, a detector, a processor without bfloat16, images of a shape that the model does not
        take, or outputs that disagree with the model's.
    ImportError
        If the runtime is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> ask = keras_resnet.export.compiled(net, "tensorflow", verbose=False)
    >>> ask(np.zeros((3, 32, 32, 3))).shape
    (3, 10)
    """
    names = candidates(runtime, precision)
    kind = kind_of(model)
    if "litert" not in kind.formats:
        raise ValueError(
            f"model {model.name!r} is a {kind.name}, which cannot be compiled: "
            "keras_resnet.detection.detect runs it."
        )
    check_exportable(model)
    image_shape, size = (None, *model.inputs[0].shape[1:]), None
    if images is not None:
        images = np.asarray(images)
        _check_shape(images, image_shape)
        size = images.shape[1:3]
    interface = kind.interface(
        model,
        **dict(labels=None, preprocessing=None, crop=None, image_dtype="float32"),
        **dict(image_size=size, resize=False, batch_size=None, top=1),
    )
    if agreement is None:
        agreement = _AGREEMENT[precision]
        if images is not None and len(images):
            agreement -= by_chance(agreement, len(images))
    verifying = images
    if precision == "int8":
        check_calibration(calibrate, model, verified and images is None)
        split = calibration_of(np.asarray(calibrate), images, agreement, verified)
        calibrate, verifying, agreement = split.calibrate, split.images, split.agreement
    found = {}
    for name in names:
        try:
            ask = RUNTIMES[name].made(model, interface, precision, calibrate)
            loaded = _as_loaded(name, model, precision, ask)
            options = (loaded, model, interface, precision, verifying, agreement)
            found[name] = loaded, verify_loaded(*options) if verified else None
        except Exception as error:  # every runtime has its own
            reason = " ".join(str(error).split())
            refusal = f"runtime={name!r} cannot run model {model.name!r}: {reason}"
            if len(names) > 1:
                _logger.warning(refusal)
            elif isinstance(error, ImportError):
                raise
            else:
                raise ValueError(refusal) from error
    if not found:
        raise ValueError(f"runtime={runtime!r}: none of {', '.join(names)} can run the model.")
    name, reason = _fastest(found, images, interface, image_shape, runtime)
    loaded, checked = found[name]
    made = Compiled(name, precision, image_shape, loaded.image_dtype, reason, checked, loaded.ask)
    _logger.debug("%s: %s", model.name, made)
    if verbose:
        print(made)
    return made


def candidates(runtime: str, precision: str) -> list[str]:
    """Find the runtimes to try, before anything is done.

    Parameters
    ----------
    runtime, precision : str
        As `compiled` takes them.

    Returns
    -------
    list of str
        Keys of `RUNTIMES`.

    Raises
    ------
    ValueError
        For an unknown runtime or precision, a runtime that does not compute in it, or a processor
        without bfloat16.
    ImportError
        If the runtime is not installed.
    """
    check_choice(get_args(RuntimeName), runtime=runtime)
    check_choice(get_args(CompiledPrecision), precision=precision)
    able = [name for name, each in RUNTIMES.items() if precision in each.precisions]
    if runtime not in ("auto", *able):
        raise ValueError(
            f"runtime={runtime!r} computes in {', '.join(RUNTIMES[runtime].precisions)}; "
            f"precision={precision!r} is for {', '.join(able)}."
        )
    cpu = machine.cpu()
    if precision == "bfloat16" and cpu.flags and not cpu.bfloat16:
        raise ValueError(
            f"precision='bfloat16': {cpu.model} has no instructions for it (AVX512-BF16 or AMX), "
            "and would be slower than in 'float32'."
        )
    if runtime == "auto":
        return [name for name in able if not RUNTIMES[name].missing][:_COMPARED]
    if missing := RUNTIMES[runtime].missing:
        raise ImportError(
            f"runtime={runtime!r} needs {' and '.join(missing)}, not installed here: "
            f"{RUNTIMES[runtime].install}."
        )
    return [runtime]


def _check_shape(images, image_shape):
    if not tf.TensorShape(image_shape).is_compatible_with(images.shape):
        raise ValueError(f"images have the shape {images.shape}; the model takes {image_shape}.")


def _as_loaded(name, model, precision, ask):
    """A function as a `Loaded`, which comparisons take; its size is that of the weights."""
    each = {"float32": 4, "bfloat16": 2, "int8": 1}[precision]
    mebibytes = model.count_params() * each / 2**20
    shape, dtype = (None, *model.inputs[0].shape[1:]), model.inputs[0].dtype
    return Loaded(Path(), RUNTIMES[name].name, shape, dtype, mebibytes, ask, ("outputs",))


def _fastest(found, images, interface, image_shape, runtime):
    """The runtime to take, and why."""
    (name, *others) = found
    if not others:
        asked = runtime == name
        return name, "as asked" if asked else "no other runtime here can run the model"
    if images is None:
        _, *sides, channels = image_shape
        sides = (side or shown for side, shown in zip(sides, interface.image_size, strict=True))
        images = np.random.default_rng(0).uniform(0, 255, (1, *sides, channels))
    batch = np.asarray(images[:_LARGEST], "float32")
    taken = {name: [] for name in found}
    for turn in range(1 + _TURNS):
        for name, (loaded, _) in found.items():
            start = time.perf_counter()
            loaded(batch)
            if turn:  # the first one warms up
                taken[name].append(time.perf_counter() - start)
        if turn >= _FEWEST_TURNS and sum(map(sum, taken.values())) > _SECONDS:
            break
    medians = {name: 1000 * statistics.median(times) for name, times in taken.items()}
    shown = ", ".join(f"{RUNTIMES[name].name} {ms:.1f} ms" for name, ms in medians.items())
    count = f"{len(batch)} image{'s' * (len(batch) > 1)}"
    return min(medians, key=medians.__getitem__), f"for {count}, {shown}"
