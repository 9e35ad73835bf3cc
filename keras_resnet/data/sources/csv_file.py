"""Images that a CSV file lists, with classes, several labels each, numbers, or boxes."""

import logging
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet import names
from keras_resnet.data.labels import BETWEEN, LABELS, MISSING, Task, labels_in
from keras_resnet.data.source import Source, Split
from keras_resnet.data.sources.csv_boxes import has_boxes, read_boxes
from keras_resnet.data.sources.csv_table import (
    find_columns,
    note_columns,
    read_table,
    splits_of_lines,
)
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes

_logger = logging.getLogger(__name__)

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

        Images that have the same text in a column group, such as a patient's number, stay together:
        in one split, and in one fold of a cross-validation.

        With columns xmin, ymin, xmax and ymax, a line is a box, in pixels from the edge of the
        image, and label is its class. An image with several has several lines, and one without any
        has a line with nothing but its path.
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
    table = read_table(path)
    if task == "detection" or (task is None and has_boxes(table)):
        return read_boxes(path, table, policy)
    where, notes = table.where, table.notes
    place, column = _columns(table, task)
    rows = [
        _Row(number, cells[place["path"]], names.label(cells[place[column]]), split, cells)
        for (number, cells), split in zip(table.lines, splits_of_lines(table, place), strict=True)
    ]
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
    groups = _groups(rows, place, notes)
    splits = {
        split: Split(
            [path.parent / rows[index].file for index in indices],
            labels[indices],
            groups=None if groups is None else groups[indices],
        )
        for split, indices in listed.items()
    }
    return source_of_files(path, path.stem, class_names, splits, policy, task, notes=notes)


class _Row(NamedTuple):
    """A line of the file."""

    line: int
    file: str
    label: str
    split: str
    cells: list[str]


def _groups(rows, place, notes):
    """What each line belongs to, if there is a column for that; else itself."""
    if "group" not in place:
        return None
    notes.append("Images of one 'group' stay in one split.")
    groups = [names.label(row.cells[place["group"]]) for row in rows]
    # A path cannot be the name of a group as well: names have no line breaks.
    return np.array([group or f"\n{row.file}" for group, row in zip(groups, rows, strict=True)])


def _check_filled(rows, column, task, where):
    """Raise ValueError for a line without a path, or without a label where it needs one."""
    several = task == "multilabel" or (task is None and any(BETWEEN in row.label for row in rows))
    for row in rows:
        if not row.file.strip() or not (row.label or several):
            empty = "path" if several else f"path or {column}"
            raise ValueError(f"{where}, line {row.line}: {empty} is empty.")


def _columns(table, task):
    """Where the columns are, and which of them has the labels."""
    place = find_columns(table, ("path", "label", "value", "split", "group"))
    preferred = ("value", "label") if task == "regression" else ("label", "value")
    allowed = ("label",) if task in ("classification", "multilabel") else preferred
    labels = next((each for each in allowed if each in place), "label")
    for column in ("path", labels):
        if column not in place:
            raise ValueError(
                f"{table.where}: no column {column!r} in its first line, "
                f"{','.join(table.header)!r}. Expected path,label or path,label,split; numbers may "
                "be in a column value, and boxes are path,xmin,ymin,xmax,ymax,label."
            )
    note_columns(table, place, ("path", labels))
    return place, labels


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
