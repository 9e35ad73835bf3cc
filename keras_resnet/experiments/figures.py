"""Figures in one style, small enough for a column of a paper."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    "svg.fonttype": "path",  # it looks alike wherever it is read and printed
    "svg.hashsalt": "keras_resnet",
}


@contextlib.contextmanager
def figure(
    columns: int = 1, rows: int = 1, *, width: float = 3.6, height: float = 2.7, **options: Any
) -> Iterator[tuple["Figure", Any]]:
    """Begin a figure in the style of all, whatever the user's settings are; they stay.

    Parameters
    ----------
    columns, rows : int, default 1
        Its panels.
    width, height : float, default 3.6 and 2.7
        Inches of each.
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


def spread(
    axis: "Axes", x: Sequence[float], runs: Sequence[Sequence[float]], label: str, **options: Any
) -> None:
    """Draw the mean of several runs, and a band of one standard deviation around it.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where.
    x : sequence of number, of length n
        What is varied.
    runs : sequence of sequence of number, of shape (seeds, n)
        What each run found. A single run has no band.
    label : str
        For the legend.
    **options
        For Matplotlib's `plot`, such as `color`.
    """
    values = np.asarray(runs, float)
    mean = values.mean(0)
    (line,) = axis.plot(x, mean, label=label, **options)
    if len(values) > 1:
        deviation = values.std(0, ddof=1)
        axis.fill_between(
            x, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.18, linewidth=0
        )


def bars(
    axis: "Axes", x: Sequence[float], runs: Sequence[Sequence[float]], label: str, **options: Any
) -> None:
    """Draw the mean of several runs as points, with error bars of one standard deviation.

    Parameters
    ----------
    axis, x, runs, label
        As for `spread`.
    **options
        For Matplotlib's `errorbar`.
    """
    values = np.asarray(runs, float)
    deviation = values.std(0, ddof=1) if len(values) > 1 else None
    options = {"fmt": "o-", "markersize": 4, "capsize": 2.5, **options}
    axis.errorbar(x, values.mean(0), deviation, label=label, **options)


def published(
    axis: "Axes", x: Sequence[float], y: Sequence[float], label: str, **options: Any
) -> None:
    """Mark published numbers.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where.
    x, y : sequence of number
        The numbers.
    label : str
        For the legend: who published them.
    **options
        For Matplotlib's `plot`, such as `color`.
    """
    options = {"color": "#000000", "markersize": 6, **options}
    axis.plot(x, y, linestyle="none", marker="D", fillstyle="none", label=label, **options)


def svg(drawn: "Figure") -> str:
    """A figure as SVG: the same text for the same numbers.

    Parameters
    ----------
    drawn : matplotlib.figure.Figure
        The figure.

    Returns
    -------
    str
    """
    from matplotlib import style

    file = io.StringIO()
    with style.context(["default", _STYLE]):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    return text[text.index("<svg") :]
