"""Images that a CSV file lists, with classes, several labels each, or numbers."""

import csv
import io
import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet import names
from keras_resnet.data.labels import BETWEEN, MISSING, Task
from keras_resnet.data.source import SPLIT_OF, Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes

_logger = logging.getLogger(__name__)

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# What the columns may be called, in any case.
_COLUMNS = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "filepaths", "file_path"),
        *("image", "image_path", "image_name"),
    ),
    "label": ("label", "labels", "class", "class_name"),
    "value": ("value",),
    "split": ("split",),
}
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
        The file, with commas, semicolons or tabs between its cells. A path in it is relative to the
        file's own folder; a split is "train", "validation" or "test". Columns may have other names
        that are common, such as filename and class; `Source.notes` then tells which were taken.
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
        reason = "a folder, not a CSV file" if path.is_dir() else "there is no such file"
        raise ValueError(f"data {str(path)!r}: {reason}.")
    where, notes = f"data {str(path)!r}", []
    rows, column = _rows(path, where, task, notes)
    if task is None:
        task = _task_of(rows, column, where, notes)
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
    return source_of_files(path, path.stem, class_names, splits, policy, task, notes=notes)


class _Row(NamedTuple):
    """A line of the file."""

    line: int
    file: str
    label: str
    split: str


def _rows(path, where, task, notes):
    """The lines of the file, and what its column of labels is: "label" or "value"."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in UTF-8: {error}.") from error
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}.") from error
    header = [column.strip().lower() for column in lines[0][1]] if lines else []
    place, column = _columns(header, task, where, notes)
    if "split" not in place and (named := _column_of_splits(header, lines[1:], place, where)):
        place["split"] = header.index(named)
        notes.append(f"The column {named!r} is taken for 'split'.")
    rows = []
    for number, cells in lines[1:]:
        if any(map(str.strip, cells[len(header) :])):
            raise ValueError(
                f"{where}, line {number}: more cells than the first line has columns. Quote a cell "
                f"that has a {_DELIMITERS[delimiter]} in it."
            )
        cells += [""] * (len(header) - len(cells))
        split = cells[place["split"]].strip() if "split" in place else ""
        if split and split.lower() not in SPLIT_OF:
            raise ValueError(
                f"{where}, line {number}: split {split!r} must be one of {', '.join(SPLIT_OF)}."
            )
        rows.append(
            _Row(
                number,
                cells[place["path"]],
                names.label(cells[place[column]]),
                SPLIT_OF[split.lower() or "train"],
            )
        )
    several = task == "multilabel" or (task is None and any(BETWEEN in row.label for row in rows))
    for row in rows:
        if not row.file.strip() or not (row.label or several):
            empty = "path" if several else f"path or {column}"
            raise ValueError(f"{where}, line {row.line}: {empty} is empty.")
    return rows, column


def _delimiter(text):
    """What is between the cells: what gives the first line columns that are known, or most."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def known(delimiter):
        cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter))]
        return sum(cell in names for names in _COLUMNS.values() for cell in cells), len(cells)

    return max(_DELIMITERS, key=known) if first else ","


def _columns(header, task, where, notes):
    """Where the columns are, and which of them has the labels."""
    place, taken = {}, {}
    for column, known in _COLUMNS.items():
        found = [name for name in header if name in known]
        # The name that is ours goes before others.
        found = [name for name in found if name == column] or found
        if len(found) > 1:
            twice = len({*found}) == 1
            raise ValueError(
                f"{where}: two columns {found[0]!r} in its first line."
                if twice
                else f"{where}: {' and '.join(map(repr, found))} may both be the column "
                f"{column!r}. Call one so."
            )
        if found:
            place[column] = header.index(found[0])
            if found[0] != column:
                taken[column] = found[0]
    preferred = ("value", "label") if task == "regression" else ("label", "value")
    allowed = ("label",) if task in ("classification", "multilabel") else preferred
    labels = next((each for each in allowed if each in place), "label")
    missing = [each for each in ("path", labels) if each not in place]
    if missing:
        raise ValueError(
            f"{where}: no column {missing[0]!r} in its first line, {','.join(header)!r}. Expected "
            "path,label or path,label,split; numbers may be in a column value."
        )
    for column, name in taken.items():
        if column in ("path", labels):
            notes.append(f"The column {name!r} is taken for {column!r}.")
    return place, labels


def _column_of_splits(header, lines, place, where):
    """The name of a column that is not called split, but has the names of splits; or None."""
    found = []
    for index, name in enumerate(header):
        cells = {cells[index].strip().lower() for _, cells in lines if len(cells) > index}
        several = len(cells) > 1 and "train" in map(SPLIT_OF.get, cells)
        if several and index not in place.values() and all(map(SPLIT_OF.get, cells)):
            found.append(name)
    if len(found) > 1:
        raise ValueError(
            f"{where}: {' and '.join(map(repr, found))} may both be the column 'split'. Call one "
            "so."
        )
    return found[0] if found else None


def _task_of(rows, column, where, notes):
    """The task that the labels are for."""
    if column == "value":
        return "regression"
    if any(BETWEEN in row.label for row in rows):
        return "multilabel"
    missing = [row for row in rows if row.label in MISSING]
    numbers = [row for row in rows if _NUMBER.fullmatch(row.label)]
    if numbers and len(numbers) + len(missing) == len(rows):
        if missing:
            raise ValueError(
                f"{where}, line {missing[0].line}: label {missing[0].label!r} is not a number, as "
                f"all others are, such as {numbers[0].label} in line {numbers[0].line}. Leave the "
                "line out, or take all labels for names: task='classification'."
            )
        if not all(_WHOLE.fullmatch(row.label) for row in rows):
            if all(float(row.label).is_integer() for row in rows):
                notes.append(
                    f"Labels such as {numbers[0].label} are taken for numbers to predict. If they "
                    "are names of classes, say task='classification'."
                )
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
        found = [name.strip() for name in row.label.split(BETWEEN)] if row.label else []
        if not all(found):
            raise ValueError(
                f"{where}, line {row.line}: label {row.label!r} has nothing beside a "
                f"{BETWEEN!r}. Expected names with one {BETWEEN!r} between them, "
                "or nothing."
            )
        sets.append(set(found))
    class_names = tuple(sorted(set().union(*sets)))
    if not class_names:
        raise ValueError(f"{where}: no image has a label.")
    index_of = {name: index for index, name in enumerate(class_names)}
    labels = np.zeros((len(rows), len(class_names)), "float32")
    for row, found in zip(labels, sets, strict=True):
        row[[index_of[name] for name in found]] = 1
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
