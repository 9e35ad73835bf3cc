"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

LABELS_FILE = "labels.txt"
"""Names of a model's classes, one a line, beside the model."""


@contextlib.contextmanager
def written_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or a folder beside its place, and rename it into place when all is well.

    Parameters
    ----------
    path : path
        Where the result goes; its folder is made where it is missing. A file that is there is
        replaced, a folder is not.

    Yields
    ------
    pathlib.Path
        Where to write, with the same suffixes; hidden, on the same disk. Removed if the block
        raises.

    Raises
    ------
    FileExistsError
        If a folder's place has been taken.

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
            raise FileExistsError(f"{str(path)!r} was written by somebody else in the meantime.")
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
        The file; replaced if it is there.
    text : str
        Its content.
    """
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_labels(folder: str | os.PathLike, labels: Sequence[str]) -> None:
    """Write the names of classes to `labels.txt` in a folder.

    Parameters
    ----------
    folder : path
        The folder; made where it is missing.
    labels : sequence of str
        The names.

    Raises
    ------
    ValueError
        For a name with a line break.
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
