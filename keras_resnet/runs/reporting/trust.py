"""Whether a model's confidence matches its accuracy."""

from typing import Any

import numpy as np

from keras_resnet import analysis, pages
from keras_resnet.pages import Section, parts
from keras_resnet.runs.answers import calibrated as measured
from keras_resnet.runs.answers import cooled
from keras_resnet.runs.reporting.facts import Run

_BINS = 15


def calibration_of(run: Run) -> dict[str, Any] | None:
    """The calibration in metrics.json, or else as computed from the answers."""
    if found := run.metrics.get("calibration"):
        return found
    return measured(run.test, run.quality.get("validation")) if run.test else None


def calibration_facts(run: Run) -> list[tuple[str, Any]]:
    """The expected calibration error before and after temperature scaling, as a fact."""
    found = calibration_of(run)
    if not found:
        return []
    text = f"{found['expected_error']:.2%}"
    if found.get("temperature") is not None:
        after, temperature = found["expected_error_at_temperature"], found["temperature"]
        text += f"; {after:.2%} at temperature {temperature:.3g}"
    return [("Expected calibration error", text)]


def calibrated(run: Run) -> Section | None:
    """The reliability diagram, and the temperature."""
    found, test = calibration_of(run), run.test
    if not found or test is None:
        return None
    temperature = found.get("temperature")
    panels = [("as trained", test.probabilities)]
    if temperature is not None:
        panels.append((f"at temperature {temperature:.3g}", cooled(test, temperature)))
    drawn = []
    for title, probabilities in panels:
        with pages.figure(1, 2, height=1.5, sharex=True, gridspec_kw={"height_ratios": [3, 1]}) as (
            figure,
            axes,
        ):
            _draw(axes, title, analysis.calibration(test.labels, probabilities, _BINS))
        label = f"Reliability diagram, {title}"
        drawn.append(pages.svg(figure, label, f"reliability-{len(drawn)}"))
    several = np.ndim(test.labels) == 2
    what = "labels" if several else "predictions"
    caption = (
        f"The {what} on the test images in {_BINS} bins of confidence: the fraction that is right "
        "against the mean confidence. On the dashed line, the two are equal; below it, the model "
        "is overconfident. Bottom: how many there are in each bin."
    )
    return Section(
        "Calibration",
        [parts.text(_sentence(found, several)), parts.row(*drawn), parts.text(caption, quiet=True)],
    )


def _sentence(found, several):
    """What the numbers mean."""
    before = f"The expected calibration error on the test images is {found['expected_error']:.2%}"
    if "temperature" not in found:
        return f"{before}. There are no validation images to fit a temperature on."
    if found["temperature"] is None:
        return (
            f"{before}. The validation images have no best temperature, as happens when the model "
            "is right about all of them, or wrong about most."
        )
    after = found["expected_error_at_temperature"]
    same = "labels where the threshold is 0.5" if several else "classes"
    return (
        f"{before}, and {after:.2%} with the logits divided by {found['temperature']:.3g}, the "
        "temperature that fits the validation images best. The model itself is not changed; at "
        f"any temperature, it predicts the same {same}. The temperature is in the model card of "
        "the export."
    )


def _draw(axes, title, found):
    """Draw a reliability diagram, and below it the counts of its bins."""
    above, below = axes
    widths, middles = np.diff(found.edges), (found.edges[1:] + found.edges[:-1]) / 2
    there = found.counts > 0
    above.bar(
        middles[there], found.accuracy[there], 0.92 * widths[there], color=pages.COLOURS[5],
        label="right",
    )  # fmt: skip
    above.plot(
        found.certainty[there], found.accuracy[there], ".-", color=pages.COLOURS[0], linewidth=1
    )
    above.plot((0, 1), (0, 1), linestyle="--", color="#8a8a8a", linewidth=1)
    above.set_ylim(0, 1.02)
    above.set_title(f"{title}: error {found.expected_error:.2%}", fontsize=9)
    above.set_ylabel("fraction right")
    below.bar(middles, found.counts, 0.92 * widths, color="#8a8a8a")
    below.set_xlim(0, 1)
    below.set_xlabel("confidence")
    below.set_ylabel("count")
