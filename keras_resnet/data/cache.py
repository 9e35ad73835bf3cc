"""Decoded images, kept for the next epoch or the next run."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import tensorflow as tf

from keras_resnet.data.readers import Reader, by_index
from keras_resnet.data.source import Split
from keras_resnet.files import digest, written_beside
from keras_resnet.progress import tracked

_PIXELS, _SHAPES = "pixels.bin", "shapes.npy"


def cached(
    reader: Reader,
    split: Split,
    view: Callable,
    made_how: tuple,
    cache: str | os.PathLike,
) -> Reader:
    """Decode all images once, and read them from memory or a file from then on.

    Parameters
    ----------
    reader : Reader
        Access to the images.
    split : Split
        The split that they belong to.
    view : callable
        Turns an element of the reader into the uint8 image that is kept.
    made_how : tuple
        What `view` depends on. Other images, or other values here, make another cache.
    cache : "memory" or path
        Where to keep them: in memory, or in a folder of this folder.

    Returns
    -------
    Reader

    Raises
    ------
    ValueError
        If the cache cannot be written, of which nothing is left behind; or is damaged.
    """
    images = reader.elements().map(
        lambda element, label: view(element), num_parallel_calls=tf.data.AUTOTUNE
    )
    if cache == "memory":
        kept = list(_decoded(images, len(split)))
        shapes = np.array([image.shape for image in kept])
        pixels = np.concatenate([image.ravel() for image in kept])
        del kept  # or memory would hold three copies for a moment
        with tf.device("CPU:0"):  # where the pipeline runs: they may not fit on an accelerator
            pixels = tf.constant(pixels)
    else:
        parts = (repr(made_how), np.ascontiguousarray(split.labels), *split.image_set.state())
        folder = Path(cache) / digest(parts, length=24)
        if not folder.exists():
            _write(folder, images, len(split))
        try:
            pixels = np.memmap(folder / _PIXELS, "uint8", "r")
            shapes = np.load(folder / _SHAPES)
            if len(pixels) != shapes.prod(axis=1).sum():
                raise ValueError(f"{_PIXELS} has {len(pixels):,} bytes")
        except (ValueError, EOFError) as error:
            raise ValueError(
                f"cache {str(folder)!r} is cut off or damaged: {error}. Remove it."
            ) from error
    sizes = shapes.prod(axis=1)
    starts = np.cumsum(sizes) - sizes
    places = tf.constant(np.stack((starts, sizes), axis=1))
    all_shapes = tf.constant(shapes)

    def from_file(index):
        part = pixels[starts[index] : starts[index] + sizes[index]]
        return np.array(part.reshape(shapes[index]))

    def read(index):
        if cache == "memory":
            # In the graph: Python would read one image at a time, between training steps.
            start, size = tf.unstack(tf.gather(places, index))
            part = tf.slice(pixels, [start], [size])
            image = tf.reshape(part, tf.gather(all_shapes, index))
        else:
            image = tf.numpy_function(from_file, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(image, (None, None, int(shapes[0, 2])))

    return by_index(split.labels, read)


def _decoded(images, count):
    """The pixels of all images, one after the other."""
    return tracked(images.as_numpy_iterator(), "Decoding", count)


def _write(folder, images, count):
    """Write a cache, or wait for another process that is writing it."""
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            if folder.exists():
                return
            with written_beside(folder) as partial:
                partial.mkdir()
                shapes = []
                with (partial / _PIXELS).open("wb") as file:
                    for image in _decoded(images, count):
                        shapes.append(image.shape)
                        file.write(image.tobytes())
                np.save(partial / _SHAPES, np.array(shapes))
    except OSError as error:
        if folder.exists():  # another process was faster, with the same images
            return
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or error
        raise ValueError(
            f"cache {str(folder.parent)!r} cannot be written: {reason}. Nothing was kept; choose "
            "another folder, or train without a cache."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
