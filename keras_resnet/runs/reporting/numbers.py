"""How far predicted numbers are from the true ones."""

from typing import Any

import numpy as np

from keras_resnet import pages
from keras_resnet.pages import Section, parts
from keras_resnet.runs.reporting.facts import Run
from keras_resnet.runs.reporting.labels import short

_PANELS = 6  # values that are drawn
_MANY = 2000  # more points than these are drawn as pixels, or the page would be too large


def predicted_values(run: Run) -> Section | None:
    """Predicted against true values, and the distribution of the errors."""
    if run.test is None:
        return None
    true = np.asarray(run.test.labels, "float64").reshape(len(run.test.labels), -1)
    residuals, count = run.test.residuals, min(len(run.names), _PANELS)
    with pages.figure(count, 2, width=3.4, height=2.8, squeeze=False) as (figure, axes):
        for column, name in enumerate(run.names[:count]):
            _against(axes[0, column], true[:, column], run.test.predictions[:, column], name)
            _distribution(axes[1, column], residuals[:, column])
    picture = pages.svg(figure, "Predicted against true values, and residuals", "values")
    caption = (
        "Top: the test images; on the line, the prediction is exact. Bottom: the distribution of "
        "the errors, predicted minus true; the dashed line is their mean."
    )
    if count < len(run.names):
        caption += f" Only the first {count} of {len(run.names)} values are drawn."
    found: list[Any] = [parts.shown(picture, caption), _scores(run, residuals)]
    return Section("Predicted and true values", found)


def _against(axis, true, predicted, name):
    axis.scatter(
        true, predicted, s=9, alpha=0.5, linewidths=0, color=pages.COLOURS[0],
        rasterized=len(true) > _MANY,
    )  # fmt: skip
    both = np.concatenate([true, predicted])
    ends = [both.min(), both.max()]
    axis.plot(ends, ends, color="#8a8a8a", linewidth=1)
    axis.set_title(short(name), fontsize=9, parse_math=False)
    axis.set(xlabel="true", ylabel="predicted")


def _distribution(axis, residuals):
    axis.hist(residuals, bins="auto" if len(residuals) < _MANY else 60, color=pages.COLOURS[5])
    axis.axvline(residuals.mean(), color="#8a8a8a", linestyle="--", linewidth=1)
    axis.set(xlabel="predicted minus true", ylabel="test images")


def _scores(run, residuals):
    """The metrics of each value, and the distribution of its errors."""
    scores = run.test.per_value()
    rows = []
    for name, column in zip(run.names, residuals.T, strict=True):
        found = scores[name]
        rows.append([
            name,
            found.get("r2"),
            found["mean_absolute_error"],
            found["root_mean_squared_error"],
            float(column.mean()),
            float(np.quantile(np.abs(column), 0.9)),
        ])  # fmt: skip
    columns = [
        *("value", "R\N{SUPERSCRIPT TWO}", "mean absolute error", "root mean squared error"),
        *("mean error", "90% of absolute errors below"),
    ]
    return parts.table(columns, rows)
