"""Images that a CSV file lists, with classes, several labels each, or numbers."""

import csv
import io
import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet.data.labels import BETWEEN, Task
from keras_resnet.data.source import SPLIT_OF, Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes

_logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")
_LARGEST = float(np.finfo("float32").max)


def csv_file(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
    *,
    task: Task | None = None,
) -> Source:
    """Load images that a CSV file lists: columns path and label, and split if there is one.

    Parameters
    ----------
    path : path
        The file. A path in it is relative to the file's own folder; a split is "train",
        "validation" or "test".
    seed : int, default 0
        Seed of the split, for what the file does not split.
    on_error, validation, task
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        As `load` does; and for a missing column, an unknown split, or a label that does not suit
        the task.
    """
    return read_csv(path, SplitPolicy(seed, on_error, validation), task)


def read_csv(path: str | os.PathLike, policy: SplitPolicy, task: Task | None = None) -> Source:
    """Do what `csv_file` does, with a policy."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data {str(path)!r}: there is no such file.")
    where = f"data {str(path)!r}"
    rows, column = _rows(path, where, task)
    if task is None:
        task = _task_of(rows, column, where)
    class_names, labels = _READ[task](rows, where)
    if task == "classification":
        check_classes(path, class_names, "a line for every image, path,label")
    listed = {}
    for index, row in enumerate(rows):
        listed.setdefault(row.split, []).append(index)
    if "train" not in listed:
        raise ValueError(f"{where}: no line has the split 'train'.")
    splits = {
        split: Split([path.parent / rows[index].file for index in indices], labels[indices])
        for split, indices in listed.items()
    }
    # A window of an image may miss some of what it is labelled with.
    augmentation = "photograph" if task == "classification" else "mirrored"
    return source_of_files(path, path.stem, class_names, splits, policy, task, augmentation)


class _Row(NamedTuple):
    """A line of the file."""

    line: int
    file: str
    label: str
    split: str


def _rows(path, where, task):
    """The lines of the file, and the name of the column of their labels."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in UTF-8: {error}.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [column.strip().lower() for column in reader.fieldnames or []]
    reader.fieldnames = columns
    preferred = ("value", "label") if task == "regression" else ("label", "value")
    allowed = ("label",) if task in ("classification", "multilabel") else preferred
    column = next((each for each in allowed if each in columns), "label")
    missing = [each for each in ("path", column) if each not in columns]
    if missing:
        raise ValueError(
            f"{where}: no column {missing[0]!r} in its first line, {','.join(columns)!r}. Expected "
            "path,label or path,label,split; numbers may be in a column value."
        )
    twice = [each for each in ("path", column, "split") if columns.count(each) > 1]
    if twice:
        raise ValueError(f"{where}: two columns {twice[0]!r} in its first line.")
    try:
        cells = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}.") from error
    rows = []
    for number, row in cells:
        if any(map(str.strip, row.get(None) or ())):
            raise ValueError(
                f"{where}, line {number}: more cells than the first line has columns. Quote a cell "
                "that has a comma in it."
            )
        split = (row.get("split") or "").strip() or "train"
        if split not in SPLIT_OF:
            raise ValueError(
                f"{where}, line {number}: split {split!r} must be one of {', '.join(SPLIT_OF)}."
            )
        label = (row[column] or "").strip()
        rows.append(_Row(number, row["path"] or "", label, SPLIT_OF[split]))
    several = task == "multilabel" or (task is None and any(BETWEEN in row.label for row in rows))
    for row in rows:
        if not row.file or not (row.label or several):
            empty = "path" if several else f"path or {column}"
            raise ValueError(f"{where}, line {row.line}: {empty} is empty.")
    return rows, column


def _task_of(rows, column, where):
    """The task that the labels are for."""
    if column == "value":
        return "regression"
    if any(BETWEEN in row.label for row in rows):
        return "multilabel"
    if rows and all(_NUMBER.fullmatch(row.label) for row in rows):
        if not all(_WHOLE.fullmatch(row.label) for row in rows):
            return "regression"
        _logger.info(
            "%s: whole numbers as labels are names of classes. task='regression' takes them as "
            "numbers to predict.",
            where,
        )
    return "classification"


def _classes(rows, where):
    """Names of classes, and the class of every row."""
    class_names = tuple(sorted({row.label for row in rows}))
    index_of = {name: index for index, name in enumerate(class_names)}
    return class_names, np.array([index_of[row.label] for row in rows], int)


def _several(rows, where):
    """Names of labels, and which of them every row has."""
    sets = []
    for row in rows:
        names = [name.strip() for name in row.label.split(BETWEEN)] if row.label else []
        if not all(names):
            raise ValueError(
                f"{where}, line {row.line}: label {row.label!r} has nothing beside a "
                f"{BETWEEN!r}. Expected names with one {BETWEEN!r} between them, "
                "or nothing."
            )
        sets.append(set(names))
    class_names = tuple(sorted(set().union(*sets)))
    if not class_names:
        raise ValueError(f"{where}: no image has a label.")
    index_of = {name: index for index, name in enumerate(class_names)}
    labels = np.zeros((len(rows), len(class_names)), "float32")
    for row, names in zip(labels, sets, strict=True):
        row[[index_of[name] for name in names]] = 1
    return class_names, labels


def _numbers(rows, where):
    """The number of every row."""
    for row in rows:
        if not _NUMBER.fullmatch(row.label) or abs(float(row.label)) > _LARGEST:
            raise ValueError(
                f"{where}, line {row.line}: {row.label!r} is not a number such as 3, -0.5 or 1e-3."
            )
    return ("value",), np.array([float(row.label) for row in rows], "float32")


_READ = {"classification": _classes, "multilabel": _several, "regression": _numbers}
