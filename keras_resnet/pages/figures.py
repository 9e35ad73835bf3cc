"""Figures in one style, small enough for a column of a paper."""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a8a")
"""Colours that people with any kind of colour vision can tell apart (Okabe and Ito, 2008)."""

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "svg.fonttype": "path",  # looks the same wherever it is read and printed
    "svg.hashsalt": "keras_resnet",
}


@contextlib.contextmanager
def figure(
    columns: int = 1, rows: int = 1, *, width: float = 3.6, height: float = 2.7, **options: Any
) -> Iterator[tuple["Figure", Any]]:
    """Begin a figure in the common style, without touching the user's settings of Matplotlib.

    Parameters
    ----------
    columns, rows : int, default 1
        Its panels.
    width, height : float, default 3.6 and 2.7
        The size of each panel, in inches.
    **options
        For Matplotlib's `subplots`, such as `sharey=True`.

    Yields
    ------
    figure : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes or array of them
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        drawn = Figure(figsize=(columns * width, rows * height), layout="constrained")
        yield drawn, drawn.subplots(rows, columns, **options)


def svg_file(drawn: "Figure", **options: Any) -> str:
    """A figure as the text of an SVG file: the same text for the same numbers.

    Parameters
    ----------
    drawn : matplotlib.figure.Figure
        The figure.
    **options
        For Matplotlib's `savefig`, such as `transparent=True`.

    Returns
    -------
    str
    """
    from matplotlib import style

    file = io.StringIO()
    with style.context(["default", _STYLE]):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(file, format="svg", metadata=nothing, **options)
    text = file.getvalue()
    return text[text.index("<svg") :]


def svg(drawn: "Figure", label: str, name: str) -> "Markup":
    """A figure as an element of a page; what is black takes the colour of the page's text.

    Parameters
    ----------
    drawn : matplotlib.figure.Figure
        The figure.
    label : str
        What it shows, for those who cannot see it.
    name : str
        A prefix for its ids, so that they do not clash with those of other figures on the page:
        letters, digits, "-" and "_".

    Returns
    -------
    markupsafe.Markup
    """
    from markupsafe import Markup, escape

    picture = svg_file(drawn, transparent=True)
    picture = re.sub(r' xmlns(:xlink)?="[^"]*"', "", picture, count=2)
    picture = re.sub(r'(\bid="|url\(#)', rf"\g<1>{name}-", picture)
    picture = picture.replace('xlink:href="#', f'href="#{name}-')
    picture = re.sub(r"\b(fill|stroke): #000000", r"\1: currentColor", picture)
    # Matplotlib leaves out the fill of what is black.
    shown = f'<svg role="img" fill="currentColor" aria-label="{escape(label)}"'
    return Markup(picture.replace("<svg", shown, 1))
