"""Exported models, in their own runtimes, compared with the originals."""

import dataclasses
import logging
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.interface import Interface
from keras_resnet.export.runtimes import Loaded, load
from keras_resnet.export.signatures import signatures
from keras_resnet.graphs import Output, head_of, is_functional
from keras_resnet.layers import Preprocessing

_logger = logging.getLogger("keras_resnet")

LATENCY_BATCHES = (1, 16)

TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2, "dynamic": 0.5, "int8": 0.5}
"""Largest differences of the outputs for made-up images, by precision."""

Answer = Literal["class", "labels", "values"]

_ANSWERS: dict[Output, Answer] = {
    "probabilities": "class",
    "logits": "class",
    "multilabel": "labels",
    "number": "values",
    "features": "values",
    "unknown": "values",
}
_COARSE = 0.01  # a tolerance from which on a precision is not exact
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
    answer : {"class", "labels", "values"}, default "class"
        What an answer is: the likeliest class, all labels with a probability above 0.5, or values
        within a tenth of the range that the original's have.
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

    def __str__(self):
        cells = {
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
        widths = {name: max(len(name), len(cell)) for name, cell in cells.items()}
        lines = ({name: name for name in cells}, cells)
        return "\n".join(
            "  ".join(f"{line[name]:>{width}}" for name, width in widths.items()) for line in lines
        )


def verify(
    exported: str | os.PathLike,
    model: keras.Model | Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    agreement: float = 0.99,
    tolerance: float | None = None,
    verbose: bool = True,
) -> Verification:
    """Run an exported model in its own runtime and compare it with the original.

    Parameters
    ----------
    exported : path
        A SavedModel's folder (its signature "serving_default" is called), a .tflite file (run by
        TensorFlow's LiteRT interpreter) or an .onnx file (run by ONNX Runtime).
    model : keras.Model or callable
        The original, or a function from images to its outputs.
    images : array of shape (images, height, width, channels)
        Images as both of them take them; best those of a test split.
    agreement : float, default 0.99
        Fraction of the images for which both have to give the same answer: the same class, the same
        labels, or nearly the same values, whatever the model gives. A function gives classes, or
        with one output, the decision between two.
    tolerance : float, optional
        Largest difference of an output, as a fraction of the largest output. Default: any.
    verbose : bool, default True
        Print the result as a table.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they agree on fewer images or differ by more, or if there are no images or the exported
        model does not take images of their shape.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import keras_resnet
    >>> net = keras_resnet.CIFARResNet(8)
    >>> images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keras_resnet.export.saved_model(net, os.path.join(folder, "1"), verbose=False)
    ...     keras_resnet.export.verify(path, net, images, verbose=False).agreement
    1.0
    """
    loaded = load(exported)
    kind = head_of(model).output if is_functional(model) else None
    result = _compared(loaded, asking(model), images, kind)
    if verbose:
        print(f"{loaded.path}\n{result}")
    _check_agreement(result, agreement, tolerance)
    return result


def _compared(loaded, ask, images, kind):
    """Both models compared; `kind` is what comes out of them, None if that is not known."""
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
    return Verification(
        runtime=loaded.runtime,
        images=len(images),
        made_up=False,
        largest_difference=float(np.abs(output - original).max() / (np.abs(original).max() or 1)),
        agreement=float(np.mean(_same(output, original, kind))),
        milliseconds={
            size: 1000 * statistics.median(seconds(loaded, _of_length(images, size)))
            for size in ((batch_size,) if batch_size else LATENCY_BATCHES)
        },
        mebibytes=loaded.mebibytes,
        answer=_ANSWERS.get(kind, "class"),
    )


def _check_agreement(result, agreement, tolerance):
    if not result.agreement >= agreement:
        verb = "chooses" if result.answer == "class" else "gives"
        raise ValueError(
            f"the exported model {verb} the same {result.answer} as the original for only "
            f"{result.agreement:.1%} of {result.images} images, agreement={agreement:.1%}."
        )
    if tolerance is not None and not result.largest_difference <= tolerance:
        raise ValueError(
            f"the exported model differs from the original by {result.largest_difference:.2g} of "
            f"the largest output, tolerance={tolerance:.2g}."
        )


def verify_export(
    path: str | os.PathLike,
    model: keras.Model,
    interface: Interface,
    precision: str,
    images: np.ndarray | None,
    agreement: float,
) -> Verification:
    """Verify a new export: by its answers for images, or by its outputs for made-up ones.

    Parameters
    ----------
    path : path
        The exported model.
    model : keras.Model
        The original.
    interface : Interface
        How clients call it.
    precision : str
        The precision that it computes in.
    images : array, optional
        Images as it takes them.
    agreement : float
        Fraction of the images for which both have to give the same answer.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they disagree.
    """
    function, spec = signatures(model, interface)["serving_default"]
    tolerance, alike = None, False
    if images is None:
        # They show nothing that the model knows, and its choice of a class means nothing.
        computed_in = {layer.compute_dtype for layer in model.layers}
        tolerance = max(TOLERANCES[each] for each in {precision, *computed_in} & {*TOLERANCES})
        images, agreement = _made_up(spec, interface, exact=tolerance < _COARSE), 0.0
    original = _traced(lambda images: next(iter(function(images).values())), spec)
    result = _compared(load(path), original, images, interface.kind)
    _check_agreement(result, agreement, tolerance)
    if tolerance is not None:
        outputs = _in_batches(original, images, spec.shape[0] or _BATCH_SIZE)
        alike = bool(np.ptp(outputs, axis=0).max() <= tolerance * np.abs(outputs).max())
    if alike:
        _logger.warning(
            "%s gives nearly the same outputs for all made-up images, which cannot show whether "
            "the export is right: verify it with images of your own, images=.",
            model.name,
        )
    return dataclasses.replace(result, made_up=tolerance is not None, alike=alike)


def _made_up(spec, interface, exact):
    """Blurred noise, which is more like photographs than plain noise.

    If the model does not say how it wants images normalized, half of them are raw: normalized ones
    may be all but black to it. Not unless the precision is `exact`, though: outputs for raw images
    may be large, and differ by more than the tolerance where the export is right.
    """
    count, *sides, channels = spec.shape
    count = -(-_BATCH_SIZE // count) * count if count else _BATCH_SIZE
    sides = [side or 2 * shown for side, shown in zip(sides, interface.image_size, strict=True)]
    points = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels))
    images = tf.image.resize(points, sides)
    dtype = spec.dtype.as_numpy_dtype
    if dtype != np.uint8 and interface.preprocessing != "raw":
        normalized = Preprocessing(interface.preprocessing or "tf")(images)
        raw = np.arange(count) % 2 == 0 if exact and interface.preprocessing is None else False
        images = tf.where(np.reshape(raw, (-1, 1, 1, 1)), tf.cast(images, "float32"), normalized)
    return images.numpy().astype(dtype)


def check_images(images: np.ndarray, loaded: Loaded) -> None:
    """Raise ValueError for images of a shape that an exported model does not take."""
    _, *sizes = loaded.image_shape
    if not tf.TensorShape((None, *sizes)).is_compatible_with(images.shape):
        raise ValueError(
            f"images have the shape {images.shape}; the exported model takes {loaded.image_shape}."
        )


def _same(output, original, kind):
    """For each image, whether the answers are the same."""
    answer = _ANSWERS.get(kind, "class")
    if answer == "values":
        spread = np.ptp(original, axis=0) if len(original) > 1 else np.abs(original[0])
        near = np.abs(output - original) <= _SAME_VALUE * np.where(spread > 0, spread, 1)
        return near.reshape(len(near), -1).all(-1)
    if answer == "class" and output.shape[-1] > 1:
        return output.argmax(-1) == original.argmax(-1)
    is_probability = original.min() >= 0 and original.max() <= 1
    threshold = 0.5 if is_probability and kind != "logits" else 0.0
    return ((output > threshold) == (original > threshold)).all(-1)


def asking(model: keras.Model | Callable) -> Callable[[np.ndarray], np.ndarray]:
    """A model as a function of arrays, without XLA; a function stays as it is."""
    if not isinstance(model, keras.Model):
        return model
    return _traced(lambda images: model(images, training=False), model.inputs[0])


def _traced(function, spec):
    """A function of tensors as a function of arrays, traced once for batches of any size."""
    spec = tf.TensorSpec((None, *spec.shape[1:]), spec.dtype)
    ask = tf.function(function).get_concrete_function(spec)
    return lambda images: ask(tf.constant(images.astype(spec.dtype.as_numpy_dtype))).numpy()


def seconds(ask: Callable, images: np.ndarray) -> list[float]:
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
