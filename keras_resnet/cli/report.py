"""`keras-resnet report`."""

from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.cli.quality import show_calibration


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html in the folder of the run; for several, comparison.html]",
)
@options.as_json
def report(runs, output, as_json):
    """Draw the page of a RUN again, with its settings and results; or compare several runs.

    `train` writes the page when it finishes: RUN/report.html, a self-contained file. A run of an
    earlier version recorded less, and its page says what is missing.

    Several runs with the same task and classes are shown side by side: the settings that differ,
    the metrics, and the test images that only some of them get right.
    """
    with answer(as_json) as found:
        if len(runs) > 1:
            _compare(runs, output, found)
        else:
            _draw(runs[0], output, found)


def _draw(run, output, found):
    """Draw the page of a run."""
    from keras_resnet.runs import report as draw

    record = draw(run, output)
    found.update(record.to_json())
    show_calibration(found["calibration"])
    for line in record.lacks:
        say(line)
    say(f"{record.page}: {found['bytes'] / 1000:,.0f} kB")


def _compare(runs, output, found):
    """Draw the page of several runs, and print a summary of what differs."""
    from keras_resnet.runs import compare
    from keras_resnet.runs.comparison import COMPARISON_FILE

    record = compare(runs, output or COMPARISON_FILE)
    found.update(record.to_json())
    if record.settings:
        rows = [[name, *map(_shown, values)] for name, values in record.settings.items()]
        table("Settings that differ", ["setting", *record.names], rows)
    rows = [[name, *map(_shown, values)] for name, values in record.metrics.items()]
    table("On each run's own test images", ["metric", *record.names], rows)
    if record.common != {name: record.metrics.get(name) for name in record.common}:
        rows = [[name, *map(_shown, values)] for name, values in record.common.items()]
        table(f"On the {record.images} images in common", ["metric", *record.names], rows)
    for pair in record.pairs:
        one, other = (record.names[run] for run in pair.runs)
        first, second = pair.better
        say(
            f"Of the {record.images} test images in common, {one} does better on {first}, {other} "
            f"on {second}; the probability of such a difference by chance is {pair.p:.2g}."
        )
    for note in record.notes:
        say(note)
    say(f"{record.output}: the page; open it in a browser")


def _shown(value):
    """A setting or a metric."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else value
