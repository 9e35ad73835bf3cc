"""`keras-resnet report`."""

from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import Mistake, answer, say
from keras_resnet.cli.quality import show_calibration


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html in the folder of the run]",
)
@options.as_json
def report(runs, output, as_json):
    """Draw the page of a RUN again: what was asked, and what came of it.

    `train` writes it at its end, as RUN/report.html, one file that needs no other. Of a run of an
    earlier version, the page has what there is, and says what it lacks.
    """
    if len(runs) > 1:
        raise Mistake("report takes one run.")
    with answer(as_json) as found:
        from keras_resnet.runs import report as draw

        record = draw(runs[0], output)
        found.update(record.to_json())
        show_calibration(found["calibration"])
        for line in record.lacks:
            say(line)
        say(f"{record.page}: {found['bytes'] / 1000:,.0f} kB")
