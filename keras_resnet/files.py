"""Files that appear whole or not at all."""

import contextlib
import errno
import fnmatch
import functools
import glob
import hashlib
import json
import logging
import math
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

_logger = logging.getLogger(__name__)


_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_DAY = 24 * 3600.0
_being_written = set()  # by this process
# A file that is not complete yet names its writer: `.1f2e3d4c-901-5b6a7f-labels.txt` is being
# written by process 901 of machine 5b6a7f. Earlier versions did not name it.
_PARTIAL = re.compile(r"\.[0-9a-f]{8}-(\d+)-([0-9a-f]{6})-.+", re.DOTALL)
_FORMER_PARTIAL = re.compile(r"\.[0-9a-f]{8}-(.+)", re.DOTALL)


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or folder next to its destination, and rename it once it is complete.

    What killed processes left there is removed first.

    Parameters
    ----------
    path : path
        The destination; missing parent folders are created. An existing file is replaced, an
        existing folder is not. A link stays, and what it names is replaced.

    Yields
    ------
    pathlib.Path
        Where to write: hidden, on the same disk, with the same suffixes. Removed if the block
        raises.

    Raises
    ------
    FileExistsError
        If the destination is a device, or that of a folder exists by the time it is complete.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_resnet.files import written_beside
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_beside(Path(folder) / "labels.txt") as partial:
    ...         _ = partial.write_text("cat")
    ...     [file.name for file in Path(folder).iterdir()]
    ['labels.txt']
    """
    path = Path(os.path.realpath(path))  # a link stays
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(f"{str(path)!r} is a device or a pipe, which no file can replace.")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, glob.escape(path.name))
    name = f".{uuid.uuid4().hex[:8]}-{os.getpid()}-{_machine()}-{path.name}"
    partial = path.with_name(name)
    _being_written.add(name)
    try:
        yield partial
        if partial.is_dir() and os.path.lexists(path):
            raise FileExistsError(f"{str(path)!r} was written by another process in the meantime.")
        os.replace(partial, path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = os.fspath(path)  # such as "No space left on device" has none
        raise
    finally:
        _being_written.discard(name)


def remove_leftovers(
    folder: str | os.PathLike, names: str | None = None, *, alone: bool = False
) -> None:
    """Remove what processes that were killed in `written_beside` left in a folder.

    Whether a process of this machine is gone can be told. What one of another machine left is
    removed after a day.

    Parameters
    ----------
    folder : path
        The folder; it need not exist.
    names : str, optional
        A pattern of destinations, such as "after-*": what earlier versions left of these is removed
        too.
    alone : bool, default False
        Whether no other process writes there, because the caller holds a lock: nothing is waited
        for.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_resnet.files import remove_leftovers, written_beside
    >>> with tempfile.TemporaryDirectory() as folder, written_beside(Path(folder) / "1") as partial:
    ...     partial.mkdir()
    ...     remove_leftovers(folder)
    ...     partial.exists()  # this process is still writing it
    True
    """
    try:
        found = [Path(entry) for entry in os.scandir(folder) if entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in found:
        former = _FORMER_PARTIAL.fullmatch(path.name)
        if written_by := _PARTIAL.fullmatch(path.name):
            left = alone or _writer_is_gone(path, int(written_by[1]), written_by[2])
        elif former and names and fnmatch.fnmatchcase(former[1], names):
            left = alone or _is_old(path)
        else:
            continue
        if left and path.name not in _being_written:
            _remove(path)


def _writer_is_gone(path, process, machine):
    """Whether the process that was writing a file or folder has ended."""
    if machine != _machine() or os.name == "nt":  # on Windows, os.kill would end it
        return _is_old(path)
    if process == os.getpid():  # an earlier one of the same number
        return True
    try:
        os.kill(process, 0)
    except OSError as error:  # another user's may not be signalled, but is there
        return isinstance(error, ProcessLookupError)
    return False


def _is_old(path):
    """Whether nothing has been written to a file, or a folder and what is in it, for a day."""
    with contextlib.suppress(FileNotFoundError):
        within = path.iterdir() if path.is_dir() else ()
        return time.time() - max(each.stat().st_mtime for each in (path, *within)) > _DAY
    return False


def _remove(path):
    """Remove a file or folder that may be gone already."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
        path.unlink()


@functools.cache
def _machine():
    """What tells machines, and containers on one of them, apart."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        namespace = ""
    return digest([socket.gethostname(), namespace], 6)


class LockedError(ValueError):
    """Another process holds a folder."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder, so that no other process writes into it at the same time.

    Parameters
    ----------
    folder : path
        The folder; made where it is missing, and removed again if nothing is written there.

    Raises
    ------
    LockedError
        At once, if another process holds it. A process that is killed lets go.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.files import locked
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with locked(folder), locked(folder):
    ...         pass
    Traceback (most recent call last):
        ...
    keras_resnet.files.LockedError: '...' is in use...
    """
    folder = Path(folder).absolute()
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise LockedError(
            f"{str(folder)!r} is in use: another process is writing to it. Wait until that ends, "
            "or choose another folder."
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _logger.warning("%s: its disk has no locks. Run only one process at a time there.", folder)
    try:
        yield
    finally:
        # Before the release: afterwards the file might be another process's.
        with contextlib.suppress(OSError):
            (folder / _LOCK).unlink()
        lock.release()
        with contextlib.suppress(OSError):  # folders that are not empty stay
            for each in made:
                each.rmdir()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    text : str
        Its contents.
    """
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(file: str | os.PathLike) -> str:
    """Read a text file in UTF-8.

    Parameters
    ----------
    file : path
        The file.

    Returns
    -------
    str
        Its contents, with line breaks as they are and without a byte-order mark.

    Raises
    ------
    ValueError
        For a file that is not text in UTF-8.
    """
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(file)!r} is not text in UTF-8: {error}.") from error


def read_object(
    file: str | os.PathLike, remedy: str = "Remove it, or put a copy in its place."
) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    file : path
        The file.
    remedy : str, optional
        What to do if it cannot be read, for the error.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    ValueError
        For a file that is cut off or damaged, or holds anything else.
    FileNotFoundError
        If there is none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_resnet.files import read_object, write_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(Path(folder) / "run.json", '{"seed": 1}')
    ...     read_object(Path(folder) / "run.json")
    {'seed': 1}
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        reason = f"is cut off or damaged: {error}"
        raise ValueError(f"{os.fspath(file)!r} {reason}. {remedy}") from error
    if not isinstance(found, dict):
        kind = "list" if isinstance(found, list) else "single value"
        raise ValueError(f"{os.fspath(file)!r} holds a {kind}, not an object. {remedy}")
    return found


def as_python(value: Any) -> Any:
    """Turn NumPy's numbers, also in lists, tuples and dictionaries, into Python's own.

    Parameters
    ----------
    value : object
        A value; anything else stays as it is.

    Returns
    -------
    object

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.files import as_python
    >>> as_python({"epochs": np.int64(3), "milestones": np.array([0.5, 0.75])})
    {'epochs': 3, 'milestones': [0.5, 0.75]}
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(as_python, value))
    if isinstance(value, Mapping):
        return {as_python(key): as_python(each) for key, each in value.items()}
    return value


def json_text(value: Any, indent: int | None = 2) -> str:
    """Write a record as JSON, which has no NaN and no infinity: they become null.

    Parameters
    ----------
    value : object
        Dictionaries, lists, strings and numbers, Python's or NumPy's.
    indent : int, default 2
        Blanks that a line is indented by; None for a single line.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.files import json_text
    >>> json_text({"images": np.int64(3), "r2": float("nan")}, indent=None)
    '{"images": 3, "r2": null}'
    """
    return json.dumps(_finite(as_python(value)), indent=indent, allow_nan=False)


def _finite(value):
    """A value with None for what is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [*map(_finite, value)]
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value


def digest(parts: Iterable, length: int = 16) -> str:
    """Hash data for comparison or as a name: the same parts in the same order, the same digest.

    Parameters
    ----------
    parts : iterable of str, bytes or contiguous array
        The data, hashed one part after the other as if they were joined.
    length : int, default 16
        Hexadecimal digits of the result.

    Returns
    -------
    str
        The beginning of their SHA-256.

    Examples
    --------
    >>> from keras_resnet.files import digest
    >>> digest(["cat", b"dog"]) == digest([b"catdog"])
    True
    """
    hashed = hashlib.sha256()
    for part in parts:
        # Names of files need not be text in UTF-8.
        hashed.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part)
    return hashed.hexdigest()[:length]
