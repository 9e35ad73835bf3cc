"""What commands say: answers, tables, notices and mistakes."""

import contextlib
import io
import logging
import os
import sys
import warnings

import click

from keras_resnet import interrupts, machine, progress
from keras_resnet.files import json_text

CONFUSION_SHOWN = 12
"""Classes up to which a confusion matrix fits on a screen."""

ROWS_SHOWN = 32
"""Classes that tables and sheets show, however many there are."""

_JOBS = ("keras_resnet.runs", "keras_resnet.experiments")


class Mistake(click.ClickException):
    """A mistake that the user can fix: one line, exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def mistakes_in_a_line():
    """Answer an error with one line: exit code 2 for a mistake, 1 for what the system refuses."""
    try:
        yield
    except ValueError as error:
        raise Mistake(" ".join(str(error).split())) from error
    except (OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError):  # as with `| head`: click ends without a word
            raise
        raise click.ClickException(" ".join(str(error).split())) from error
    except KeyboardInterrupt:  # before the command has begun
        click.echo("Interrupted.", err=True)
        raise SystemExit(130) from None
    except Exception as error:
        # The second is TensorFlow's, which may not be imported.
        if not (isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"):
            raise
        reason = next(iter(str(error).splitlines()), "")
        raise click.ClickException(
            f"There is not enough memory for batches or images of this size. {reason}".strip()
        ) from error


@contextlib.contextmanager
def answer(as_json, work=None):
    """Run a command: with --json, only its answer goes to standard output.

    TensorFlow is to be fast at `work`, as `machine.prepare` takes it.
    """
    found = {}
    sys.stdout = sys.stdout or io.StringIO()  # it may be closed
    for stream in (sys.stdout, sys.stderr):  # names of files and classes are data
        if isinstance(stream, io.TextIOWrapper):  # notebooks have others
            stream.reconfigure(errors="backslashreplace")
    try:
        with (
            contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
            progress.shown(),
            _notices_in_a_line(),
            _interruption_said(found),
        ):
            _import_tensorflow(work)
            yield found
    finally:  # also of a run that was asked to stop
        if as_json and found:  # workers other than the chief have none
            click.echo(json_text(found, indent=None))


@contextlib.contextmanager
def _interruption_said(found):
    """Say in a line how far a command got that was asked to stop, and add it to the answer."""
    try:
        with interrupts.ends_command():
            yield
    except interrupts.Interrupted as interruption:
        say(interruption)
        found["interrupted"] = str(interruption)
        raise


class _Notices(logging.Handler):
    """What jobs report goes where tables go; warnings and other notices go to standard error."""

    def emit(self, record):
        job = record.name.startswith(_JOBS) and record.levelno == logging.INFO
        click.echo(self.format(record), file=sys.stdout if job else sys.stderr)


@contextlib.contextmanager
def _notices_in_a_line():
    """Show the package's notices and warnings as plain lines."""
    logger, handler = logging.getLogger("keras_resnet"), _Notices()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # libraries give the root a handler, which would say it again
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: click.echo(f"Warning: {message}", err=True)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates


def _import_tensorflow(work):
    """Import TensorFlow without what it prints before its log level takes effect."""
    if work is not None:
        machine.prepare(work)
    from keras_resnet.runs.guards import check_backend, silenced_libraries

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced_libraries():
        check_backend()
        import tensorflow  # noqa: F401


def say(text):
    """Print a line."""
    click.echo(text, file=sys.stdout)


def table(title, columns, rows, left=1):
    """Print a table whose first `left` columns are aligned to the left."""
    import rich.box
    import rich.console
    import rich.table

    grid = rich.table.Table(box=rich.box.SIMPLE)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index < left else "right")
    for row in rows:
        grid.add_row(*map(str, row))
    # In a file or a pipe, a row is one line, however long.
    width = None if sys.stdout.isatty() else 10_000
    # Names are data: what looks like markup in them is not.
    console = rich.console.Console(
        file=sys.stdout, width=width, markup=False, emoji=False, highlight=False
    )
    if title:  # a table's own would be broken to its width
        console.print(title)
    console.print(grid)


def extremes(title, values, highest, lowest):
    """The title of a table and the rows it shows: all, or those of the highest and lowest values.

    `highest` and `lowest` say in the title which rows these are, such as "the most images" and
    "the fewest".
    """
    rows, half = range(len(values)), ROWS_SHOWN // 2
    if len(values) <= ROWS_SHOWN:
        return title, [*rows]
    ascending = sorted(rows, key=values.__getitem__)
    title += f": the {half} with {highest} and the {half} with {lowest}"
    return title, sorted([*ascending[:half], *ascending[-half:]])


def size(shape):
    """A shape as people write it: 224x224x3."""
    return "x".join(map(str, shape))


def macs(count):
    """Multiply-adds in millions or billions."""
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"
