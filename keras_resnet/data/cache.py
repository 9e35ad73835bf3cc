"""Decoded images kept for the next epoch, or the next run."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import tensorflow as tf

from keras_resnet.data.readers import Reader, by_index
from keras_resnet.data.sources import Split
from keras_resnet.files import written_beside

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
        What it gives access to.
    view : callable
        Makes of a reader's element the uint8 image that is kept.
    made_how : tuple
        What `view` depends on: other images, or others of these, are another cache.
    cache : "memory" or path
        Where to keep them: in memory, or in a folder of this folder.

    Returns
    -------
    Reader

    Raises
    ------
    ValueError
        If they cannot be written; nothing of them is left behind.
    """
    images = reader.elements().map(
        lambda element, label: view(element), num_parallel_calls=tf.data.AUTOTUNE
    )
    if cache == "memory":
        kept = list(images.as_numpy_iterator())
        shapes = np.array([image.shape for image in kept])
        pixels = np.concatenate([image.ravel() for image in kept])
        del kept  # or there would be three of every image for a moment
        with tf.device("CPU:0"):  # where the pipeline reads; an accelerator has no room for them
            pixels = tf.constant(pixels)
    else:
        folder = Path(cache) / _fingerprint(split, made_how)
        if not folder.exists():
            _write(folder, images)
        pixels = np.memmap(folder / _PIXELS, "uint8", "r")
        shapes = np.load(folder / _SHAPES)
    sizes = shapes.prod(axis=1)
    starts = np.cumsum(sizes) - sizes
    places = tf.constant(np.stack((starts, sizes), axis=1))
    all_shapes = tf.constant(shapes)

    def from_file(index):
        part = pixels[starts[index] : starts[index] + sizes[index]]
        return np.array(part.reshape(shapes[index]))

    def read(index):
        if cache == "memory":
            # Without Python, which would read one image at a time, between the trainer's steps.
            start, size = tf.unstack(tf.gather(places, index))
            part = tf.slice(pixels, [start], [size])
            image = tf.reshape(part, tf.gather(all_shapes, index))
        else:
            image = tf.numpy_function(from_file, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(image, (None, None, int(shapes[0, 2])))

    return by_index(split.labels, read)


def _write(folder, images):
    """Write a cache, unless another process is at it: then wait, and find it."""
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            if folder.exists():
                return
            for stray in folder.parent.glob(f".*-{folder.name}"):  # of a process that was killed
                shutil.rmtree(stray, ignore_errors=True)
            with written_beside(folder) as partial:
                partial.mkdir()
                shapes = []
                with (partial / _PIXELS).open("wb") as file:
                    for image in images.as_numpy_iterator():
                        shapes.append(image.shape)
                        file.write(image.tobytes())
                np.save(partial / _SHAPES, np.array(shapes))
    except OSError as error:
        if folder.exists():  # another process was quicker, with the same images
            return
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or error
        raise ValueError(
            f"cache {str(folder.parent)!r} cannot be written: {reason}. Nothing of it was kept; "
            "choose another folder, or leave the cache out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


def _fingerprint(split, made_how):
    """A name for the images of a split as they are now, and how they are decoded."""
    digest = hashlib.blake2b(repr(made_how).encode(), digest_size=12)
    digest.update(np.ascontiguousarray(split.labels).tobytes())
    if isinstance(split.images, np.ndarray):
        digest.update(repr(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).tobytes())
    elif isinstance(split.images, tf.data.Dataset):
        for contents in split.images.as_numpy_iterator():
            digest.update(hashlib.blake2b(contents).digest())
    else:
        for file in split.images:
            status = os.stat(file)
            known = (os.path.abspath(file), status.st_size, status.st_mtime_ns)
            digest.update(repr(known).encode())
    return digest.hexdigest()
