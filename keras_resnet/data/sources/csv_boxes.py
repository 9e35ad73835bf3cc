"""Boxes that a CSV file lists, a line each."""

from pathlib import Path

from keras_resnet.data.source import SPLITS, Source
from keras_resnet.data.sources.csv_table import (
    Table,
    find_columns,
    note_columns,
    splits_of_lines,
)
from keras_resnet.data.sources.listed_boxes import Box, Listed, source_of_boxes
from keras_resnet.data.splitting import SplitPolicy
from keras_resnet.names import label

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NEEDED = ("path", *_CORNERS, "label")


def has_boxes(table: Table) -> bool:
    """Whether a table lists boxes, by its columns.

    Parameters
    ----------
    table : Table
        The table.

    Returns
    -------
    bool
    """
    return {*_CORNERS} <= {*find_columns(table, _NEEDED)}


def read_boxes(path: Path, table: Table, policy: SplitPolicy) -> Source:
    """Make a source of a table of boxes.

    Parameters
    ----------
    path : pathlib.Path
        Its file.
    table : Table
        What is in it.
    policy : SplitPolicy
        How it is split, and what happens to files that cannot be read.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        For a missing column, a box that is no four numbers, an image of two splits; and as
        `source_of_boxes` does.
    """
    place = find_columns(table, (*_NEEDED, "split"))
    for column in _NEEDED:
        if column not in place:
            raise ValueError(
                f"{table.where}: no column {column!r} in its first line, "
                f"{','.join(table.header)!r}. Expected {','.join(_NEEDED)}, and split if there is "
                "one."
            )
    note_columns(table, place, _NEEDED)
    split_of, listed, index_of = {}, {}, {}
    for (number, cells), split in zip(table.lines, splits_of_lines(table, place), strict=True):
        file, *corners, name = (cells[place[column]].strip() for column in _NEEDED)
        line = f"{table.where}, line {number}"
        if not file:
            raise ValueError(f"{line}: path is empty.")
        if split_of.setdefault(file, (split, number))[0] != split:
            former, first = split_of[file]
            raise ValueError(f"{line}: {file!r} is for {split}, but for {former} in line {first}.")
        images = listed.setdefault(split, Listed([], []))
        if file not in index_of:
            index_of[file] = len(images.files)
            images.files.append(path.parent / file)
        if not any((*corners, name)):
            continue
        if not name:
            raise ValueError(f"{line}: label is empty. A line without a box has only a path.")
        numbers, kind, where = _numbers(corners, line), label(name), f"line {number}"
        images.boxes.append(Box(index_of[file], numbers, kind, 0, path, where))
    if "train" not in listed:
        missing = "no line has the split 'train'" if listed else "no lines but the first"
        raise ValueError(f"{table.where}: {missing}.")
    boxes = [box for images in listed.values() for box in images.boxes]
    return source_of_boxes(
        path,
        path.stem,
        sorted({box.name for box in boxes}),
        {split: listed[split] for split in SPLITS if split in listed},
        policy,
        notes=table.notes,
    )


def _numbers(cells, line):
    """The corners of a box."""
    numbers = []
    for column, cell in zip(_CORNERS, cells, strict=True):
        try:
            numbers.append(float(cell))
        except ValueError as error:
            raise ValueError(
                f"{line}: {column} {cell!r} is not a number such as 12 or 12.5."
            ) from error
    return numbers
