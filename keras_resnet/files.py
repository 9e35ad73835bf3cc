"""Files that appear whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


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
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        raise
