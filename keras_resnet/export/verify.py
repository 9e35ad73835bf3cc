"""Exported models, in their own runtimes, compared with what they were made of."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export.interface import Interface
from keras_resnet.export.runtimes import Loaded, load
from keras_resnet.export.signatures import signatures
from keras_resnet.layers import Preprocessing

LATENCY_BATCHES = (1, 16)

TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.2, "dynamic": 0.5, "int8": 0.5}
"""Largest differences that the outputs for made up images may have in these precisions."""

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
        Images compared.
    made_up : bool
        Whether they show nothing that the model knows, so that classes mean little.
    largest_difference : float
        Largest difference of an output, as a part of the largest output of the original.
    agreement : float
        Part of the images for which both choose the same class.
    milliseconds : dict of int to float
        For a batch of so many images, the median time of the exported model.
    mebibytes : float
        Its size on the disk, in MiB.
    """

    runtime: str
    images: int
    made_up: bool
    largest_difference: float
    agreement: float
    milliseconds: dict[int, float]
    mebibytes: float

    def __str__(self):
        cells = {
            "runtime": self.runtime,
            "images": f"{self.images}{' made up' * self.made_up}",
            "same class": f"{self.agreement:.1%}",
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
    """Run an exported model in its own runtime and compare it with the one that it was made of.

    Parameters
    ----------
    exported : path
        A SavedModel's folder (its signature "serving_default" is asked), a .tflite file
        (by TensorFlow's LiteRT interpreter) or an .onnx file (by ONNX Runtime).
    model : keras.Model or callable
        The model that it was made of, or a function from images to its outputs.
    images : array of shape (images, height, width, channels)
        Images as both of them take them; best those of a test split.
    agreement : float, default 0.99
        Part of the images for which both have to choose the same class.
    tolerance : float, optional
        Largest difference of an output, as a part of the largest output. Default: any.
    verbose : bool, default True
        Print the result as a table.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they agree on fewer images, differ by more, or the images are none or of a shape that
        the exported model does not take.

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
    images = np.asarray(images)
    if not len(images):
        raise ValueError("images: at least one is needed to compare with.")
    loaded = load(exported)
    check_images(images, loaded)
    batch_size = loaded.image_shape[0]
    original = _in_batches(asking(model), images, batch_size or _BATCH_SIZE)
    if not np.isfinite(original).all():
        raise ValueError("model: its outputs for these images are not numbers; train it first.")
    output = _in_batches(loaded, images, batch_size or _BATCH_SIZE)
    if output.shape != original.shape:
        raise ValueError(
            f"the exported model gives outputs of shape {output.shape}, the original "
            f"{original.shape}."
        )
    result = Verification(
        runtime=loaded.runtime,
        images=len(images),
        made_up=False,
        largest_difference=float(np.abs(output - original).max() / (np.abs(original).max() or 1)),
        agreement=float(np.mean(_classes(output, original) == _classes(original, original))),
        milliseconds={
            size: 1000 * statistics.median(seconds(loaded, _of_length(images, size)))
            for size in ((batch_size,) if batch_size else LATENCY_BATCHES)
        },
        mebibytes=loaded.mebibytes,
    )
    if verbose:
        print(f"{loaded.path}\n{result}")
    if result.agreement < agreement:
        raise ValueError(
            f"the exported model chooses the same class as the original for "
            f"{result.agreement:.1%} of {len(images)} images only, agreement={agreement:.1%}."
        )
    if tolerance is not None and not result.largest_difference <= tolerance:
        raise ValueError(
            f"the exported model differs from the original by {result.largest_difference:.2g} of "
            f"the largest output, tolerance={tolerance:.2g}."
        )
    return result


def verify_export(
    path: str | os.PathLike,
    model: keras.Model,
    interface: Interface,
    precision: str,
    images: np.ndarray | None,
    agreement: float,
) -> Verification:
    """Verify an export that was just made: with images, their classes; without, made up outputs.

    Parameters
    ----------
    path : path
        The exported model.
    model : keras.Model
        The model that it was made of.
    interface : Interface
        How it is asked.
    precision : str
        What it computes in.
    images : array, optional
        Images as it takes them.
    agreement : float
        Part of the images for which both have to choose the same class.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If they disagree.
    """
    function, spec = signatures(model, interface)["serving_default"]
    tolerance = None
    if images is None:
        # What is on these images is nothing that the model knows, and its choice among the classes
        # is as good as any.
        images, agreement = _made_up(spec, interface), 0.0
        computed_in = {layer.compute_dtype for layer in model.layers}
        tolerance = max(TOLERANCES[each] for each in {precision, *computed_in} & {*TOLERANCES})
    original = _traced(lambda images: next(iter(function(images).values())), spec)
    result = verify(path, original, images, agreement, tolerance, verbose=False)
    return dataclasses.replace(result, made_up=tolerance is not None)


def _made_up(spec, interface):
    """Blurred noise, which is nearer to photographs than noise."""
    count, *sides, channels = spec.shape
    sides = [side or 2 * interface.image_size for side in sides]
    points = np.random.default_rng(0).integers(0, 256, (count or _BATCH_SIZE, 8, 8, channels))
    images = tf.image.resize(points, sides)
    if spec.dtype != "uint8" and interface.preprocessing != "raw":
        images = Preprocessing(interface.preprocessing or "tf")(images)
    return images.numpy().astype(spec.dtype.as_numpy_dtype)


def check_images(images: np.ndarray, loaded: Loaded) -> None:
    """Raise ValueError for images that an exported model does not take."""
    _, *sizes = loaded.image_shape
    if not tf.TensorShape((None, *sizes)).is_compatible_with(images.shape):
        raise ValueError(
            f"images have the shape {images.shape}; the exported model takes {loaded.image_shape}."
        )


def _classes(outputs, original):
    """The chosen classes; of one output a class, it is chosen if it is likelier than not."""
    if outputs.shape[-1] > 1:
        return outputs.argmax(-1)
    is_probability = original.min() >= 0 and original.max() <= 1
    return outputs > (0.5 if is_probability else 0.0)


def asking(model: keras.Model | Callable) -> Callable[[np.ndarray], np.ndarray]:
    """A model as a function of arrays, without XLA; a function as it is."""
    if not isinstance(model, keras.Model):
        return model
    return _traced(lambda images: model(images, training=False), model.inputs[0])


def _traced(function, spec):
    """A function of tensors as one of arrays; traced once, for batches of any size."""
    spec = tf.TensorSpec((None, *spec.shape[1:]), spec.dtype)
    ask = tf.function(function).get_concrete_function(spec)
    return lambda images: ask(tf.constant(images.astype(spec.dtype.as_numpy_dtype))).numpy()


def seconds(ask: Callable, images: np.ndarray) -> list[float]:
    """How long a model takes for a batch, after two calls that do not count."""
    taken = []
    for _ in range(2 + _CALLS):
        start = time.perf_counter()
        ask(images)
        taken.append(time.perf_counter() - start)
        if len(taken) > 2 and sum(taken) > _SECONDS:
            break
    return taken[2:]


def _in_batches(ask, images, batch_size):
    """Outputs for all images; the last batch, too, is a whole one."""
    starts = range(0, len(images), batch_size)
    outputs = [ask(_of_length(images[start:], batch_size)) for start in starts]
    return np.concatenate(outputs)[: len(images)].astype("float32")


def _of_length(images, length):
    return np.resize(images[:length], (length, *images.shape[1:]))
