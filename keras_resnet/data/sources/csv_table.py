"""What tables that list images have in common: cells, columns, splits."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keras_resnet.data.source import SPLIT_OF
from keras_resnet.files import read_text

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
COLUMNS = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "filepaths", "file_path"),
        *("image", "image_path", "image_name"),
    ),
    "label": ("label", "labels", "class", "class_name"),
    "value": ("value",),
    "split": ("split",),
    "group": ("group",),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
}
"""Names of the columns, in any case; our own comes first."""


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Parameters
    ----------
    where : str
        What errors call it.
    delimiter : str
        What separates its cells.
    header : list of str
        The names of its columns, in lower case.
    lines : list of (int, list of str)
        The other lines: their numbers in the file, and as many cells as there are columns.
    notes : list of str
        What one should know about the table; more is added as it is read.
    """

    where: str
    delimiter: str
    header: list[str]
    lines: list[tuple[int, list[str]]]
    notes: list[str] = field(default_factory=list)


def read_table(path: str | os.PathLike) -> Table:
    """Read a table.

    Parameters
    ----------
    path : path
        A file with commas, semicolons or tabs between its cells.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        For a file that is no such table, or a line with more cells than the first.
    """
    where, text = f"data {os.fspath(path)!r}", read_text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}.") from error
    header = [column.strip().lower() for column in lines[0][1]] if lines else []
    for number, cells in lines[1:]:
        if any(map(str.strip, cells[len(header) :])):
            raise ValueError(
                f"{where}, line {number}: more cells than the first line has columns. Quote a cell "
                f"that has a {DELIMITERS[delimiter]} in it."
            )
        cells += [""] * (len(header) - len(cells))
    return Table(where, delimiter, header, lines[1:])


def _delimiter(text):
    """What separates the cells: what gives the first line most known columns, or most at all."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def known(delimiter):
        cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter))]
        return sum(cell in names for names in COLUMNS.values() for cell in cells), len(cells)

    return max(DELIMITERS, key=known) if first else ","


def find_columns(table: Table, wanted: Sequence[str]) -> dict[str, int]:
    """Find the columns of a table that are there.

    Parameters
    ----------
    table : Table
        The table.
    wanted : sequence of str
        Keys of `COLUMNS`.

    Returns
    -------
    dict of str to int
        The places of those that are there.

    Raises
    ------
    ValueError
        If several columns could be one.
    """
    place = {}
    for column in wanted:
        found = [name for name in table.header if name in COLUMNS[column]]
        found = [name for name in found if name == column] or found
        _check_one(table, column, found)
        if found:
            place[column] = table.header.index(found[0])
    return place


def note_columns(table: Table, place: Mapping[str, int], wanted: Sequence[str]) -> None:
    """Note which columns were taken for those of other names.

    Parameters
    ----------
    table : Table
        The table.
    place : mapping of str to int
        As `find_columns` returns it.
    wanted : sequence of str
        The columns that are used.
    """
    for column in wanted:
        name = table.header[place[column]]
        if name != column:
            table.notes.append(f"The column {name!r} is used as {column!r}.")


def _check_one(table, column, found):
    """Raise ValueError if several columns could be one."""
    if len(found) > 1:
        twice = len({*found}) == 1
        raise ValueError(
            f"{table.where}: two columns {found[0]!r} in its first line."
            if twice
            else f"{table.where}: {' and '.join(map(repr, found))} may both be the column "
            f"{column!r}. Rename the right one to {column!r}."
        )


def splits_of_lines(table: Table, place: Mapping[str, int]) -> list[str]:
    """Find the split of every line.

    Parameters
    ----------
    table : Table
        The table.
    place : mapping of str to int
        Where its columns are. The one with the splits may have another name, if it holds nothing
        else.

    Returns
    -------
    list of str
        A split for each line: "train" where the table has none.

    Raises
    ------
    ValueError
        For an unknown split.
    """
    column = place.get("split")
    if column is None and (named := _column_of_splits(table, place)):
        column = table.header.index(named)
        table.notes.append(f"The column {named!r} is used as 'split'.")
    if column is None:
        return ["train"] * len(table.lines)
    splits, blank = [], 0
    for number, cells in table.lines:
        split = cells[column].strip()
        if split and split.lower() not in SPLIT_OF:
            raise ValueError(
                f"{table.where}, line {number}: split {split!r} must be one of "
                f"{', '.join(SPLIT_OF)}."
            )
        splits.append(SPLIT_OF[split.lower() or "train"])
        blank += not split
    if blank:
        table.notes.append(f"{blank:,} lines name no split; they are for training.")
    return splits


def _column_of_splits(table, place):
    """The name of a column that holds names of splits under another name; or None."""
    found = []
    for index, name in enumerate(table.header):
        cells = {cells[index].strip().lower() for _, cells in table.lines} - {""}
        if index in place.values() or len(cells) < 2 or "train" not in map(SPLIT_OF.get, cells):
            continue
        splits = cells & {*SPLIT_OF}
        if splits == cells:
            found.append(name)
        elif len(splits) > 1:
            table.notes.append(
                f"The column {name!r} is not used: it has {' and '.join(sorted(splits))}, but also "
                f"{min(cells - splits)!r}, which is no split. To use it, rename it to 'split'."
            )
    _check_one(table, "split", found)
    return found[0] if found else None
