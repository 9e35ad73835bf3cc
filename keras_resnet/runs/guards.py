"""What is made sure of before hours of work, and what is said when they fail."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_resnet import names
from keras_resnet.runs.choices import PRECISIONS

if TYPE_CHECKING:
    from keras_resnet.data import Split


def check_backend() -> None:
    """Raise ValueError unless Keras computes with TensorFlow."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND={keras.backend.backend()}: training and export need "
            "KERAS_BACKEND=tensorflow."
        )


def check_writable(*folders: Path) -> None:
    """Raise ValueError for folders that nothing can be written to."""
    for folder in folders:
        existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        try:
            # Permissions alone do not tell, least of all root's.
            with tempfile.TemporaryDirectory(dir=existing):
                pass
        except OSError as error:
            raise ValueError(
                f"output {str(folder)!r}: nothing can be written to {str(existing)!r}."
            ) from error


def policy_of(precision: str) -> str:
    """What Keras calls a precision."""
    return PRECISIONS[names.find("precision", precision, PRECISIONS)]


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Build and train models under a policy; afterwards, Keras has its own again."""
    import keras

    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


@contextlib.contextmanager
def damaged_images_named(*splits: "Split", may_skip: bool = True) -> Iterator[None]:
    """TensorFlow does not say which file it could not decode: find it."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        for split in splits:
            for reason in split.errors().values():
                remedy = " on_error='skip' (--on-error skip) leaves it out." if may_skip else ""
                raise ValueError(f"{reason}{remedy}") from error
        raise


@contextlib.contextmanager
def silenced_libraries() -> Iterator[None]:
    """Drop what libraries write to standard error past Python; errors are raised all the same."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
