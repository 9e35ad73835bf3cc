"""What the figures of experiments are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
