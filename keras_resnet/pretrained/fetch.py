"""Files of weights: from a folder of the user's, from Keras' cache, or from the network."""

import contextlib
import hashlib
import logging
import mmap
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import keras

from keras_resnet.pretrained.notices import warn
from keras_resnet.pretrained.registry import File, Weights

FOLDER_VARIABLE = "KERAS_RESNET_WEIGHTS"
"""The environment variable that names a folder of weights, for machines without a network."""

logger = logging.getLogger("keras_resnet")

# A server that says nothing for so long will say nothing more.
_SILENCE = 60.0

_one_at_a_time = threading.Lock()


def fetch(weights: Weights, *, top: bool = True) -> Path:
    """Find the file of pretrained weights, and download it where it is not on this machine yet.

    Looked for in the folder that $KERAS_RESNET_WEIGHTS names, then in Keras' cache ($KERAS_HOME or
    ~/.keras, in `models/`), which is where a download goes.

    Parameters
    ----------
    weights : Weights
        A row of the registry.
    top : bool, default True
        Whether the classifier is needed.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ValueError
        If $KERAS_RESNET_WEIGHTS is no folder, or if a download has another checksum than its
        source publishes; the bad file is removed.
    OSError
        If the file cannot be downloaded, saying where to put it instead.

    Warns
    -----
    RuntimeWarning
        If a file in the folder has another checksum than published; it is used all the same.
    """
    files = [file for file in weights.files if file.top or not top]
    # The smaller one first where the classifier is not needed.
    files.sort(key=lambda file: file.top)
    return _in_folder(files) or _in_cache(files) or _download(files[0])


def _in_folder(files: Sequence[File]) -> Path | None:
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"{FOLDER_VARIABLE}={folder!r} is no folder.")
    for file in files:
        path = Path(folder).expanduser() / file.name
        if path.is_file():
            if wrong := _mismatch(path, file):
                warn(f"{wrong} It is used as it is.")
            return path
    return None


def _in_cache(files: Sequence[File]) -> Path | None:
    for file in files:
        path = _cache() / file.name
        if path.is_file():
            wrong = _mismatch(path, file)
            if not wrong:
                return path
            logger.warning("%s It is removed.", wrong)
            # What may not be removed here is said where it cannot be replaced either. Another
            # process may have replaced it in the meantime.
            with contextlib.suppress(OSError), _lock(path):
                if _mismatch(path, file):
                    path.unlink()
    return None


def _download(file: File) -> Path:
    path = _cache() / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that need the same file: one downloads it, the other waits and finds it.
        with _lock(path):
            if path.is_file() and not _mismatch(path, file):
                return path
            # Always of the same name: what a killed process has left is overwritten.
            with _patience():
                partial = Path(
                    keras.utils.get_file(
                        f".{file.name}.partial",
                        file.address,
                        # Where cache_dir may not be written to, Keras turns to /tmp/.keras.
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
    except Exception as error:  # Keras raises nothing narrower.
        reason = " ".join(str(error).split())
        raise OSError(
            f"{file.name} could not be downloaded: {reason}. Fetch {file.address} on a machine "
            f"with a network and put it here as {path}, or into a folder that {FOLDER_VARIABLE} "
            "names."
        ) from error
    if wrong:
        raise ValueError(
            f"the download from {file.address} has been removed: {wrong} Try again; if that does "
            "not help, something between here and there changes it."
        )
    return path


def _lock(path: Path) -> filelock.FileLock:
    return filelock.FileLock(path.with_name(f".{path.name}.lock"))


def _cache() -> Path:
    """The folder that keras.applications keeps its weights in."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def _mismatch(path: Path, file: File) -> str:
    """What is wrong with the checksum of a file; nothing if it is right or none is known."""
    if not file.checksum:
        return ""
    digest = _digest(path, file.algorithm)
    if digest.startswith(file.checksum):
        return ""
    return f"{path} has the {file.algorithm.upper()} {digest}, {file.checksum} is published."


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return hashlib.new(algorithm, usedforsecurity=False).hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server: Keras would wait for ever."""
    # One thread after the other, or the last one would restore what the first one has set.
    with _one_at_a_time:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(before or _SILENCE)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)
