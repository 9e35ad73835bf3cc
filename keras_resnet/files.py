"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

LABELS_FILE = "labels.txt"
"""The file beside a model that names its classes, one per line."""


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or folder next to its destination, and rename it once it is complete.

    Parameters
    ----------
    path : path
        The destination; missing parent folders are created. An existing file is replaced, an
        existing folder is not.

    Yields
    ------
    pathlib.Path
        Where to write: hidden, on the same disk, with the same suffixes. Removed if the block
        raises.

    Raises
    ------
    FileExistsError
        If the destination of a folder exists by then.

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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield partial
        if partial.is_dir() and os.path.lexists(path):
            raise FileExistsError(f"{str(path)!r} was written by another process in the meantime.")
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        raise


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


def write_labels(folder: str | os.PathLike, labels: Sequence[str]) -> None:
    """Write the names of classes to `labels.txt` in a folder.

    Parameters
    ----------
    folder : path
        The folder; created if missing.
    labels : sequence of str
        The names, one per class.

    Raises
    ------
    ValueError
        For a name that contains a line break.
    """
    for label in labels:
        if label.splitlines() != [label]:
            raise ValueError(f"label {label!r} must be one line of text.")
    write_text(Path(folder) / LABELS_FILE, "".join(f"{label}\n" for label in labels))


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
        hashed.update(part.encode() if isinstance(part, str) else part)
    return hashed.hexdigest()[:length]
