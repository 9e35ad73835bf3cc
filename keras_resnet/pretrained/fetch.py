"""Weights files: from the user's folder, from Keras' cache, or downloaded."""

import contextlib
import hashlib
import logging
import mmap
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import filelock
import keras

from keras_resnet.pretrained.notices import warn
from keras_resnet.pretrained.registry import File, Weights

FOLDER_VARIABLE = "KERAS_RESNET_WEIGHTS"
"""Environment variable with the path of a folder of weights, for machines without a network."""

logger = logging.getLogger("keras_resnet")

# In seconds; a server that is silent for this long will not answer.
_SILENCE = 60.0

_one_at_a_time = threading.Lock()


def fetch(weights: Weights, *, top: bool = True) -> Path:
    """Find a file of pretrained weights, and download it if it is not on this machine.

    Looks in the folder that $KERAS_RESNET_WEIGHTS names, then in Keras' cache (`models/` in
    $KERAS_HOME or ~/.keras). Downloads go into the cache.

    Parameters
    ----------
    weights : Weights
        A row of the registry.
    top : bool, default True
        Whether the classifier is needed.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If $KERAS_RESNET_WEIGHTS is not a folder, if no classifier is published, or if a download
        does not have the published checksum. The download is then removed.
    OSError
        If the file cannot be downloaded. The message says where to put it instead.

    Warns
    -----
    RuntimeWarning
        If a file in the folder does not have the published checksum. It is used anyway.
    """
    files = [file for file in weights.files if file.top or not top]
    if not files:
        raise ValueError(
            "these weights have no classifier. Use include_top=False, or another number of classes "
            "in the builder for a new one."
        )
    # Prefer the smaller file if the classifier is not needed.
    files.sort(key=lambda file: file.top)
    return _in_folder(files) or _in_cache(files) or _download(files[0])


def row_of(path: str | os.PathLike, rows: Iterable[Weights]) -> Weights | None:
    """Find the row of the registry that a file is of by its checksum, whatever its name.

    Parameters
    ----------
    path : path
        The file.
    rows : iterable of Weights
        Rows of the registry.

    Returns
    -------
    Weights or None
        None if no row has a file with this checksum.
    """
    digests = {}
    for row in rows:
        for file in row.files:
            if file.algorithm not in digests:
                digests[file.algorithm] = _digest(Path(path), file.algorithm)
            if file.checksum and digests[file.algorithm].startswith(file.checksum):
                return row
    return None


def _in_folder(files: Sequence[File]) -> Path | None:
    """Find one of these files in the user's folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    folder = _from_home(named)
    if not folder.is_dir():
        raise ValueError(
            f"{FOLDER_VARIABLE}={named!r} is not a folder; set it to a folder of weights files."
        )
    for file in files:
        path = folder / file.name
        if path.is_file():
            if wrong := _mismatch(path, file):
                warn(f"{wrong} Using it anyway.")
            return path
    return None


def _in_cache(files: Sequence[File]) -> Path | None:
    """Find one of these files in Keras' cache, and remove files with a wrong checksum."""
    for file in files:
        path = _cache() / file.name
        if path.is_file():
            wrong = _mismatch(path, file)
            if not wrong:
                return path
            logger.warning("%s Removing it.", wrong)
            # If removing it fails, replacing it will fail, too, and report why. Another process may
            # have replaced it in the meantime, so check again.
            with contextlib.suppress(OSError), _lock(path):
                if _mismatch(path, file):
                    path.unlink()
    return None


def _download(file: File) -> Path:
    """Download a file into Keras' cache."""
    path = _cache() / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # If several processes need the file, one downloads it and the others wait.
        with _lock(path):
            if path.is_file() and not _mismatch(path, file):
                return path
            # The name is fixed, so that the remains of a killed process are overwritten.
            with _patience():
                partial = Path(
                    keras.utils.get_file(
                        f".{file.name}.partial",
                        file.address,
                        # If cache_dir is not writable, Keras uses /tmp/.keras.
                        cache_dir=path.parent,
                        cache_subdir="",
                        force_download=True,
                    )
                )
            wrong = _mismatch(partial, file)
            if wrong:
                partial.unlink()
            else:
                os.replace(partial, path)
    except Exception as error:  # Keras raises nothing more specific.
        reason = " ".join(str(error).split())
        raise OSError(
            f"{file.name} could not be downloaded: {reason}. Download {file.address} on a machine "
            f"with a network and save it as {path}, or in the folder that {FOLDER_VARIABLE} names."
        ) from error
    if wrong:
        raise ValueError(
            f"removed the download from {file.address}: {wrong} Try again. If it keeps failing, "
            "something on the network, such as a proxy, may be altering the file."
        )
    return path


def _lock(path: Path) -> filelock.FileLock:
    """Return the lock that guards a file in the cache."""
    return filelock.FileLock(path.with_name(f".{path.name}.lock"))


def _cache() -> Path:
    """Return the folder in which keras.applications keeps its weights."""
    return _from_home(os.environ.get("KERAS_HOME") or "~/.keras") / "models"


def _from_home(folder: str) -> Path:
    """A folder, whose name may begin with that of a home directory, "~"."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{folder!r}: this user has no home directory. Set {FOLDER_VARIABLE} to a folder of "
            "weights files, or KERAS_HOME to one for downloads."
        ) from error


def _mismatch(path: Path, file: File) -> str:
    """Describe a wrong checksum; return "" if it is right or unknown."""
    if not file.checksum:
        return ""
    digest = _digest(path, file.algorithm)
    if digest.startswith(file.checksum):
        return ""
    return f"{path} has {file.algorithm.upper()} {digest}, but {file.checksum} is published."


def _digest(path: Path, algorithm: str) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return hashlib.new(algorithm, usedforsecurity=False).hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server, for which Keras would wait forever."""
    # One thread at a time: otherwise, the last could restore the timeout that the first one set.
    with _one_at_a_time:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(before or _SILENCE)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)
