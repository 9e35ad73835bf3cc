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
from keras_resnet.data.labels import BETWEEN, LABELS, MISSING, Task, labels_in
from keras_resnet.data.source import SPLIT_OF, Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes
from keras_resnet.files import read_text

_logger = logging.getLogger(__name__)

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# Names of the columns, in any case; our own comes first.
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
_COMMA = re.compile(r"[+-]?\d+,\d+")
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
        file's own folder; a split is "train", "validation" or "test". Columns may have other common
        names, such as filename and class; `Source.notes` then says which were used.
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
    where, notes = f"data {str(path)!r}", []
    if not path.is_file():
        reason = "a folder, not a CSV file" if path.is_dir() else "there is no such file"
        raise ValueError(f"{where}: {reason}.")
    delimiter, header, lines = _table(path, where)
    place, column = _columns(header, task, where, notes)
    if "split" not in place and (named := _column_of_splits(header, lines, place, where, notes)):
        place["split"] = header.index(named)
        notes.append(f"The column {named!r} is used as 'split'.")
    rows = _rows(lines, delimiter, header, place, column, where, notes)
    _check_filled(rows, column, task, where)
    if task is None:
        task = _task_of(rows, column, where, notes)
    class_names = _NAMES[task](rows, where)
    if task == "classification":
        check_classes(path, class_names, "a line for every image, path,label")
    labels = LABELS[task].read([row.label for row in rows], class_names)
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


def _table(path, where):
    """The delimiter of the file, the names of its columns, and its other lines, numbered."""
    text = read_text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}.") from error
    header = [column.strip().lower() for column in lines[0][1]] if lines else []
    return delimiter, header, lines[1:]


def _rows(lines, delimiter, header, place, column, where, notes):
    """The images of the lines."""
    rows, blank = [], 0
    for number, cells in lines:
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
        label, split = names.label(cells[place[column]]), SPLIT_OF[split.lower() or "train"]
        rows.append(_Row(number, cells[place["path"]], label, split))
        blank += "split" in place and not cells[place["split"]].strip()
    if blank:
        notes.append(f"{blank:,} lines name no split; they are for training.")
    return rows


def _check_filled(rows, column, task, where):
    """Raise ValueError for a line without a path, or without a label where it needs one."""
    several = task == "multilabel" or (task is None and any(BETWEEN in row.label for row in rows))
    for row in rows:
        if not row.file.strip() or not (row.label or several):
            empty = "path" if several else f"path or {column}"
            raise ValueError(f"{where}, line {row.line}: {empty} is empty.")


def _delimiter(text):
    """What separates the cells: what gives the first line most known columns, or most at all."""
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
        found = [name for name in found if name == column] or found
        _check_one(column, found, where)
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
            notes.append(f"The column {name!r} is used as {column!r}.")
    return place, labels


def _check_one(column, found, where):
    """Raise ValueError if several columns could be one."""
    if len(found) > 1:
        twice = len({*found}) == 1
        raise ValueError(
            f"{where}: two columns {found[0]!r} in its first line."
            if twice
            else f"{where}: {' and '.join(map(repr, found))} may both be the column {column!r}. "
            f"Rename the right one to {column!r}."
        )


def _column_of_splits(header, lines, place, where, notes):
    """The name of a column that holds names of splits under another name; or None."""
    found = []
    for index, name in enumerate(header):
        cells = {cells[index].strip().lower() for _, cells in lines if len(cells) > index} - {""}
        if index in place.values() or len(cells) < 2 or "train" not in map(SPLIT_OF.get, cells):
            continue
        splits = cells & {*SPLIT_OF}
        if splits == cells:
            found.append(name)
        elif len(splits) > 1:
            notes.append(
                f"The column {name!r} is not used: it has {' and '.join(sorted(splits))}, but also "
                f"{min(cells - splits)!r}, which is no split. To use it, rename it to 'split'."
            )
    _check_one("split", found, where)
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
                "line out, or read all labels as names of classes: task='classification'."
            )
        if not all(_WHOLE.fullmatch(row.label) for row in rows):
            if all(float(row.label).is_integer() for row in rows):
                notes.append(
                    f"Labels such as {numbers[0].label} are read as numbers to predict. If they "
                    "are names of classes, say task='classification'."
                )
            return "regression"
        _logger.info(
            "%s: labels that are whole numbers are read as names of classes. "
            "task='regression' reads them as numbers to predict.",
            where,
        )
    commas = [row for row in rows if _COMMA.fullmatch(row.label)]
    if commas and all(_WHOLE.fullmatch(row.label.replace(",", "", 1)) for row in rows):
        notes.append(
            f"Labels such as {commas[0].label!r} are read as names of classes. Numbers to "
            "predict have a decimal point."
        )
    return "classification"


def _classes(rows, where):
    """Names of classes."""
    return tuple(sorted({row.label for row in rows}))


def _several(rows, where):
    """Names of labels, of which an image has any number."""
    class_names = set()
    for row in rows:
        found = labels_in(row.label)
        if not all(found):
            raise ValueError(
                f"{where}, line {row.line}: label {row.label!r} has nothing beside a "
                f"{BETWEEN!r}. Expected names with one {BETWEEN!r} between them, "
                "or nothing."
            )
        class_names |= {*found}
    if not class_names:
        raise ValueError(f"{where}: no image has a label.")
    return tuple(sorted(class_names))


def _numbers(rows, where):
    """What the numbers are called, all of which a label can be."""
    for row in rows:
        if not _NUMBER.fullmatch(row.label) or abs(float(row.label)) > _LARGEST:
            raise ValueError(
                f"{where}, line {row.line}: {row.label!r} is not a number such as 3, -0.5 or 1e-3."
            )
    return ("value",)


_NAMES = {"classification": _classes, "multilabel": _several, "regression": _numbers}
