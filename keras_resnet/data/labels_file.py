"""`labels.txt`: the names of classes beside a model, one per line."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_resnet.checks import check_unicode
from keras_resnet.files import read_text, write_text
from keras_resnet.names import label as spelled

LABELS_FILE = "labels.txt"
"""Its name."""


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
        As `check_labels` does.
    """
    check_labels(labels)
    write_text(Path(folder) / LABELS_FILE, "".join(f"{label}\n" for label in labels))


def check_labels(labels: Sequence[str]) -> None:
    """Check that a labels.txt can hold the names of classes.

    Parameters
    ----------
    labels : sequence of str
        The names.

    Raises
    ------
    ValueError
        For a name that is empty or contains a line break, or one of a file whose name is not UTF-8.
    """
    for label in labels:
        if label.splitlines() != [label]:
            raise ValueError(f"label {label!r} must be one line of text.")
        check_unicode(label=label)


def read_labels(file: str | os.PathLike) -> list[str]:
    """Read the names of classes from a `labels.txt`.

    Parameters
    ----------
    file : path
        A text file in UTF-8, a name on each line. A byte-order mark, blanks around names and blank
        lines at the end are ignored.

    Returns
    -------
    list of str
        The names, in Unicode's composed form.

    Raises
    ------
    ValueError
        For a file that is not text in UTF-8, and for a blank line between names.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet.data.labels_file import read_labels, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder, ["cat", "dog"])
    ...     read_labels(os.path.join(folder, "labels.txt"))
    ['cat', 'dog']
    """
    labels = [spelled(line) for line in read_text(file).rstrip().splitlines()]
    if "" in labels:
        line = labels.index("") + 1
        raise ValueError(f"{os.fspath(file)!r}, line {line}: blank, where a name should be.")
    return labels
