"""Disks that TensorFlow cannot write to."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def full_disk_named(path: str | os.PathLike) -> Iterator[None]:
    """Raise OSError, with the path that the user knows, where TensorFlow cannot write.

    Parameters
    ----------
    path : path
        What is being written.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
        raise OSError(f"{os.fspath(path)!r} cannot be written: {reason}.") from error
