"""Two models of images compared by their answers: an exported one and the original."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.interface import Interface
from keras_resnet.export.runtimes import Loaded
from keras_resnet.graphs import Output, present
from keras_resnet.layers import Preprocessing

LATENCY_BATCHES = (1, 16)

TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2, "dynamic": 0.5, "int8": 0.5}
"""Largest differences of the outputs for made-up images, by precision."""

Answer = Literal["class", "labels", "values", "objects"]

_ANSWERS: dict[Output | None, Answer] = {
    "probabilities": "class",
    "logits": "class",
    "multilabel": "labels",
    "number": "values",
    "features": "values",
    "unknown": "values",
    None: "class",  # of a function
}
COARSE = 0.01
"""A tolerance from which on a precision is not exact."""

_SAME_VALUE = 0.1  # of the range of the original's values

_BATCH_SIZE = 16
_CALLS, _SECONDS = 10, 2.0  # of timing: so many calls of a batch, or as many as this allows


@dataclass(frozen=True)
class Verification:
    """How an exported model compares with the original.

    Parameters
    ----------
    runtime : str
        What ran the exported model.
    images : int
        Number of images compared.
    made_up : bool
        Whether they show nothing that the model knows, so that classes mean little.
    largest_difference : float
        Largest difference of an output, as a fraction of the original's largest output.
    agreement : float
        Fraction of the images for which both give the same answer.
    milliseconds : dict of int to float
        For batches of this many images, the median time of the exported model.
    mebibytes : float
        Its size on disk, in MiB.
    answer : {"class", "labels", "values", "objects"}, default "class"
        What an answer is: the likeliest class, all labels with a probability above their
        thresholds, or 0.5, values within a tenth of the range that the original's have, or the
        objects that were found.
    alike : bool, default False
        Whether the original's outputs for made-up images are too much alike to tell a right export
        from a wrong one.
    """

    runtime: str
    images: int
    made_up: bool
    largest_difference: float
    agreement: float
    milliseconds: dict[int, float]
    mebibytes: float
    answer: Answer = "class"
    alike: bool = field(default=False, kw_only=True)

    @property
    def compared(self) -> str:
        """What there is one answer for each of."""
        return f"{self.images} images"

    def cells(self) -> dict[str, str]:
        """The columns of its table, by their names."""
        return {
            "runtime": self.runtime,
            "images": f"{self.images}{' made up' * self.made_up}{', alike' * self.alike}",
            f"same {self.answer}": f"{self.agreement:.1%}",
            "difference": f"{self.largest_difference:.1e}",
            **{
                f"{size} image{'s' * (size > 1)}": f"{milliseconds:.1f} ms"
                for size, milliseconds in self.milliseconds.items()
            },
            "size": f"{self.mebibytes:.1f} MiB",
        }

    def __str__(self):
        cells = self.cells()
        widths = {name: max(len(name), len(cell)) for name, cell in cells.items()}
        lines = ({name: name for name in cells}, cells)
        return "\n".join(
            "  ".join(f"{line[name]:>{width}}" for name, width in widths.items()) for line in lines
        )


def compare_answers(
    loaded: Loaded,
    ask: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    kind: Output | None,
    tolerance: float | None = None,
    *,
    thresholds: Sequence[float] | None = None,
) -> Verification:
    """Compare the answers of both for the same images.

    Parameters
    ----------
    loaded : Loaded
        The exported model.
    ask : callable
        The original, a function from images to its outputs.
    images : array of shape (images, height, width, channels)
        Images as both of them take them.
    kind : str or None
        What comes out of them, as in `graphs.Head`; None if that is not known.
    tolerance : float, optional
        For made-up images: outputs that differ by no more are alike. Default: the images are real.
    thresholds : sequence of float, optional
        What the probability of each label must exceed. Default: 0.5.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If there are no images, or what comes out cannot be compared.
    """
    images = np.asarray(images)
    if not len(images):
        raise ValueError("images: at least one is needed to compare with.")
    check_images(images, loaded)
    batch_size = loaded.image_shape[0]
    original = _in_batches(ask, images, batch_size or _BATCH_SIZE)
    if not np.isfinite(original).all():
        raise ValueError("model: its outputs for these images are NaN or infinite; train it first.")
    output = _in_batches(loaded, images, batch_size or _BATCH_SIZE)
    if not np.isfinite(output).all():
        raise ValueError("the exported model gives NaN or infinity for images that it was given.")
    if output.shape != original.shape:
        raise ValueError(
            f"the exported model gives outputs of shape {output.shape}, the original "
            f"{original.shape}."
        )
    largest = np.abs(original).max()
    return Verification(
        runtime=loaded.runtime,
        images=len(images),
        made_up=tolerance is not None,
        largest_difference=float(np.abs(output - original).max() / (largest or 1)),
        agreement=float(np.mean(same(output, original, kind, thresholds))),
        milliseconds=timed(loaded, images, (batch_size,) if batch_size else LATENCY_BATCHES),
        mebibytes=loaded.mebibytes,
        answer=_ANSWERS[kind],
        alike=tolerance is not None and bool(np.ptp(original, axis=0).max() <= tolerance * largest),
    )


def same(
    output: np.ndarray,
    original: np.ndarray,
    kind: Output | None,
    thresholds: Sequence[float] | None = None,
) -> Any:
    """For each image, whether both outputs give the same answer.

    Parameters
    ----------
    output, original : array of shape (images, ...)
        The outputs for the same images.
    kind, thresholds
        As in `compare_answers`.

    Returns
    -------
    bool array of shape (images,)
    """
    answer = _ANSWERS[kind]
    if answer == "values":
        spread = np.ptp(original, axis=0) if len(original) > 1 else np.abs(original[0])
        near = np.abs(output - original) <= _SAME_VALUE * np.where(spread > 0, spread, 1)
        return near.reshape(len(near), -1).all(-1)
    if answer == "class" and output.shape[-1] > 1:
        return output.argmax(-1) == original.argmax(-1)
    if thresholds is not None:
        return (present(output, thresholds) == present(original, thresholds)).all(-1)
    is_probability = original.min() >= 0 and original.max() <= 1
    threshold = 0.5 if is_probability and kind != "logits" else 0.0
    return ((output > threshold) == (original > threshold)).all(-1)


def blurred_noise(count: int, image_size: tuple[int, int], channels: int) -> np.ndarray:
    """Images of random colours from 0 to 255: more like photographs than plain noise."""
    points = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels))
    return tf.image.resize(points, image_size).numpy()


def made_up_images(
    spec: tf.TensorSpec, interface: Interface, exact: bool
) -> tuple[np.ndarray, float]:
    """Make images up for a model.

    If the model does not say how it wants images normalized, half of them are raw: normalized ones
    may be all but black to it. Not unless the precision is exact, though: outputs for raw images
    may be large, and differ by more than the tolerance where the export is right.

    Parameters
    ----------
    spec : tf.TensorSpec
        What the signature takes.
    interface : Interface
        How clients call it.
    exact : bool
        Whether both models have to compute nearly the same.

    Returns
    -------
    images : array of shape (images, height, width, channels)
    agreement : float
        Fraction of them whose answers have to be the same: 0, as the choice of a class means
        nothing.
    """
    count, *sides, channels = spec.shape
    count = -(-_BATCH_SIZE // count) * count if count else _BATCH_SIZE
    height, width = (
        side or 2 * shown for side, shown in zip(sides, interface.image_size, strict=True)
    )
    images = blurred_noise(count, (height, width), channels)
    dtype = spec.dtype.as_numpy_dtype
    if dtype != np.uint8 and interface.preprocessing != "raw":
        normalized = Preprocessing(interface.preprocessing or "tf")(images)
        raw = np.arange(count) % 2 == 0 if exact and interface.preprocessing is None else False
        images = np.where(np.reshape(raw, (-1, 1, 1, 1)), images, normalized)
    return images.astype(dtype), 0.0


def check_images(images: np.ndarray, loaded: Loaded) -> None:
    """Raise ValueError for images of a shape that an exported model does not take."""
    _, *sizes = loaded.image_shape
    if not tf.TensorShape((None, *sizes)).is_compatible_with(images.shape):
        raise ValueError(
            f"images have the shape {images.shape}; the exported model takes {loaded.image_shape}."
        )


def asking(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A model as a function of arrays, without XLA."""
    return traced(lambda images: model(images, training=False), model.inputs[0])


def traced(function: Callable, spec: Any) -> Callable[[np.ndarray], Any]:
    """A function of tensors as a function of arrays, traced once for batches of any size."""
    spec = tf.TensorSpec((None, *spec.shape[1:]), spec.dtype)
    ask = tf.function(function).get_concrete_function(spec)

    def of_arrays(images):
        outputs = ask(tf.constant(images.astype(spec.dtype.as_numpy_dtype)))
        return tf.nest.map_structure(lambda each: each.numpy(), outputs)

    return of_arrays


def timed(ask: Callable, images: np.ndarray, sizes: Iterable[int]) -> dict[int, float]:
    """The median time, in milliseconds, of batches of some sizes."""
    return {
        size: 1000 * statistics.median(_seconds(ask, _of_length(images, size))) for size in sizes
    }


def _seconds(ask, images):
    """Times of calls with a batch, after two calls to warm up."""
    taken = []
    for _ in range(2 + _CALLS):
        start = time.perf_counter()
        ask(images)
        taken.append(time.perf_counter() - start)
        if len(taken) > 2 and sum(taken) > _SECONDS:
            break
    return taken[2:]


def _in_batches(ask, images, batch_size):
    """Outputs for all images, in batches that are all whole."""
    starts = range(0, len(images), batch_size)
    outputs = [ask(_of_length(images[start:], batch_size)) for start in starts]
    return np.concatenate(outputs)[: len(images)].astype("float32")


def _of_length(images, length):
    return np.resize(images[:length], (length, *images.shape[1:]))
