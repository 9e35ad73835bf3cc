"""How fast exported models are, side by side."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_resnet.checks import check_positive
from keras_resnet.export.comparison import check_images
from keras_resnet.export.kinds import kind_of_loaded
from keras_resnet.export.runtimes import load
from keras_resnet.layers.view import sides
from keras_resnet.progress import tracked

_TURN = 0.2  # seconds, at least, of a model's turn
_WARM_UP = 3  # calls that do not count


@dataclass(frozen=True)
class Latency:
    """How long an exported model takes for a batch.

    Parameters
    ----------
    path : pathlib.Path
        The exported model.
    runtime : str
        What runs it.
    mebibytes : float
        Its size on disk, in MiB.
    batch_size : int
        Images per batch.
    calls : int
        Number of measurements.
    p50, p95, p99 : float
        Percentiles of the time per batch, in milliseconds.
    images_per_second : float
        Images of all calls divided by their time.
    """

    path: Path
    runtime: str
    mebibytes: float
    batch_size: int
    calls: int
    p50: float
    p95: float
    p99: float
    images_per_second: float


def latencies(
    exported: Sequence[str | os.PathLike],
    images: np.ndarray | None = None,
    batch_sizes: Sequence[int] | None = None,
    seconds: float = 5.0,
    *,
    image_size: int | tuple[int, int] | None = None,
) -> list[Latency]:
    """Time exported models in turns, so that they share what disturbs the machine.

    Parameters
    ----------
    exported : sequence of path
        SavedModels, .tflite, .onnx and .xml files.
    images : array of shape (images, height, width, channels), optional
        Images as the models take them, repeated if there are too few. Default: noise.
    batch_sizes : sequence of int, optional
        Images per batch, for models that take any number. Default: 1 and 16; with a detector among
        the models, 1.
    seconds : float, default 5.0
        Time for each model and batch size.
    image_size : int or tuple of (int, int), optional
        Height and width of the noise, for models that take any size. Default: 224x224; for a
        detector 600x800.

    Returns
    -------
    list of Latency
        One for each model and batch size.

    Raises
    ------
    ValueError
        For what is not an exported model, no models, numbers that are not positive, or images that
        one of the models does not take.

    Examples
    --------
    >>> import tempfile
    >>> import keras_resnet
    >>> from keras_resnet import export
    >>> net = keras_resnet.CIFARResNet(8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export.saved_model(net, folder, verbose=False)
    ...     latency, *_ = export.latencies([path], seconds=0.1)
    >>> latency.p50 <= latency.p95
    True
    """
    if isinstance(exported, str | os.PathLike):
        exported = [exported]
    for batch_size in batch_sizes or ():
        check_positive(batch_size=batch_size)
    if image_size is not None:
        image_size = sides(image_size)
        if images is not None:
            raise ValueError(f"image_size={image_size!r} is for noise: images have their own size.")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds!r} must be above 0.")
    if not exported:
        raise ValueError("exported: name at least one model.")
    models = [load(path) for path in exported]
    for model in models:
        if images is not None:
            check_images(images, model)
    if batch_sizes is None:
        batch_sizes = min((kind_of_loaded(model).measured for model in models), key=max)
    results = []
    for batch_size in tracked(batch_sizes, "Measuring", unit="batch sizes"):
        batches = [_batch(model, images, batch_size, image_size) for model in models]
        taken = _measured(models, batches, seconds)
        for model, times in zip(models, taken, strict=True):
            size = model.image_shape[0] or batch_size
            p50, p95, p99 = np.multiply(1000, np.percentile(times, (50, 95, 99))).tolist()
            results.append(
                Latency(
                    path=model.path,
                    runtime=model.runtime,
                    mebibytes=model.mebibytes,
                    batch_size=size,
                    calls=len(times),
                    p50=p50,
                    p95=p95,
                    p99=p99,
                    images_per_second=size * len(times) / sum(times),
                )
            )
    return results


def _measured(models, batches, seconds):
    """The times of all calls of each model."""
    for model, batch in zip(models, batches, strict=True):
        for _ in range(_WARM_UP):
            model(batch)
    taken = [[] for _ in models]
    while sum(taken[0]) < seconds:
        for model, batch, times in zip(models, batches, taken, strict=True):
            end = time.perf_counter() + _TURN
            while time.perf_counter() < end:
                start = time.perf_counter()
                model(batch)
                times.append(time.perf_counter() - start)
    return taken


def _batch(model, images, batch_size, image_size):
    count, *own, channels = model.image_shape
    size = image_size or kind_of_loaded(model).image_size
    shape = (count or batch_size, *(a or b for a, b in zip(own, size, strict=True)), channels)
    if images is None:
        images = np.random.default_rng(0).uniform(0, 255, shape)
    return np.resize(images, (shape[0], *np.shape(images)[1:])).astype(model.image_dtype)
