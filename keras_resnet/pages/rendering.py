"""Templates of pages, and the cells of their tables."""

import functools
import math
import re
from typing import Any, NamedTuple

UNKNOWN = "\N{EN DASH}"

_BREAKS = re.compile(r"(?<=[_/.,=-])(?=\w)")


class Cell(NamedTuple):
    """A cell of a table.

    Parameters
    ----------
    shown : str or markupsafe.Markup
        What is shown.
    key : int, float or str
        What rows are sorted by; numbers are right-aligned.
    share : float, optional
        Fraction of the cell that is filled with a bar, from 0 to 1.
    """

    shown: Any
    key: float | str
    share: float | None = None


def percent(fraction: float | None, digits: int = 1, *, bar: bool = False) -> Cell:
    """A fraction as a cell of a table, a percentage that sorts as a number.

    Parameters
    ----------
    fraction : float or None
        The fraction; None or NaN if there is none.
    digits : int, default 1
        Digits after the point.
    bar : bool, default False
        Whether to draw it as a bar, too.

    Returns
    -------
    Cell
    """
    if fraction is None or math.isnan(fraction):
        return Cell(UNKNOWN, -math.inf)
    return Cell(f"{fraction:.{digits}%}", float(fraction), float(fraction) if bar else None)


def rendered(template: str, **values: Any) -> str:
    """A page.

    Parameters
    ----------
    template : str
        A file in `keras_resnet/pages/templates` that extends base.html: see there for the macros
        and the blocks to fill.
    **values
        The variables of the template. Text is escaped and shown as it is; `markupsafe.Markup` is
        inserted as HTML.

    Returns
    -------
    str

    Raises
    ------
    jinja2.UndefinedError
        If the template uses a variable that is not among the values.
    """
    return _environment().get_template(template).render(values)


def macros() -> Any:
    """The parts of pages: the macros of macros.html, each a function that returns Markup."""
    return _environment().get_template("macros.html").module


@functools.cache
def _environment():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_resnet.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, breakable=_breakable, cell=_cell, key=_key)
    return environment


def number(value: Any) -> Any:
    """A number as people write it; None and NaN as a dash, anything else as it is.

    Parameters
    ----------
    value : object
        What to show.

    Returns
    -------
    str or object
    """
    if value is None or value != value:
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    whole = isinstance(value, int) or math.inf > abs(value) >= 1000
    return f"{value:,.0f}" if whole else f"{value:.4g}"


def _breakable(text):
    """Text in which a line may break after the punctuation of names."""
    import markupsafe

    parts = map(markupsafe.escape, _BREAKS.split(str(text)))
    return markupsafe.Markup("<wbr>").join(parts)


def _cell(value):
    """A value as a cell; None for text, which is sorted as it is."""
    if isinstance(value, Cell):
        return value
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        key = -math.inf if value is None or value != value else value
        return Cell(number(value), key)
    return None


def _key(value):
    """A key as JavaScript reads it."""
    return ("-" * (value < 0) + "Infinity") if value in (math.inf, -math.inf) else value
