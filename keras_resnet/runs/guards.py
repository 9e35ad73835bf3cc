"""What is made sure of before hours of work, and what is said when they fail."""

import contextlib
import functools
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from keras_resnet import names
from keras_resnet.files import as_python
from keras_resnet.machine import PRECISIONS
from keras_resnet.runs.choices import RUN_FILES, RUN_FOLDERS

if TYPE_CHECKING:
    import keras

    from keras_resnet.data import Split

Job = TypeVar("Job", bound=Callable)

# What would be a new folder of that name: ~ is the shell's, and gs://x is gs:/x as a path.
_ELSEWHERE = re.compile(r"~|\w{2,}:/")
_COPIES = 3  # of a model's weights: model.keras, the SavedModel, and room to write them


def check_backend() -> None:
    """Raise ValueError unless Keras computes with TensorFlow."""
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if chosen == "tensorflow":
        try:
            import keras

            chosen = keras.backend.backend()
        except (ImportError, ValueError) as error:  # for another one, which a keras.json names
            raise ValueError(
                f"Keras cannot be imported ({error}): this needs KERAS_BACKEND=tensorflow."
            ) from error
    if chosen != "tensorflow":
        raise ValueError(f"KERAS_BACKEND={chosen}: this needs KERAS_BACKEND=tensorflow.")


def job(function: Job) -> Job:
    """Make a job of a function: the backend is checked, and NumPy's numbers become Python's."""

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        check_backend()
        return function(*map(as_python, arguments), **as_python(options))

    return cast(Job, checked)


def check_run(output: Path, exports: Path) -> None:
    """Raise ValueError unless all that training writes can be written to a folder."""
    from keras_resnet.export.saved_model import place_of

    check_writable(output, exports, *(output / each for each in RUN_FOLDERS))
    check_files(output, RUN_FILES)
    place_of(exports)


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raise ValueError if a file that is to be written is a folder."""
    for name in names:
        if (folder / name).is_dir():
            raise ValueError(
                f"output {str(folder)!r}: {name}, which is to be written, is a folder: remove it, "
                "or choose another output."
            )


def check_space(model: "keras.Model", *folders: Path) -> None:
    """Raise OSError for folders on disks without space for the files of a model."""
    needed = _COPIES * 4 * sum(math.prod(each.shape) for each in model.weights)
    for folder in folders:
        if (free := shutil.disk_usage(_existing(folder)).free) < needed:
            raise OSError(
                f"output {str(folder)!r}: a model needs {needed / 2**20:,.0f} MiB, only "
                f"{free / 2**20:,.0f} MiB are free. Make room, or choose another disk."
            )


def _existing(folder):
    """The folder, or the nearest above it that exists."""
    return next(path for path in [folder, *folder.absolute().parents] if path.exists())


def check_writable(*folders: Path) -> None:
    """Raise ValueError for folders that nothing can be written to."""
    for folder in folders:
        if _ELSEWHERE.match(str(folder)):
            raise ValueError(
                f"output {str(folder)!r} must be a folder on this machine, not an address such as "
                "gs://, nor begin with ~."
            )
        existing = _existing(folder)
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
def damaged_images_named(*splits: "Split", may_skip: bool = True) -> Iterator[None]:
    """TensorFlow does not say which file it could not decode: find it."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError):
        for split in splits:
            check_whole(split, may_skip)
        raise


def check_whole(split: "Split", may_skip: bool = True) -> None:
    """Raise ValueError for the first image that cannot be decoded to its end."""
    reason = next(iter(split.errors().values()), None)
    if reason is not None:
        remedy = " on_error='skip' (--on-error skip) leaves it out." if may_skip else ""
        raise ValueError(f"{reason}{remedy}")


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
