"""`keras-resnet launch`."""

import itertools
import sys

import click

from keras_resnet.cli import options


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--workers", type=options.AT_LEAST_1, required=True, help="Processes to start.")
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many times to start all again after one has failed, except by a mistake (code 2).",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def launch(workers, restarts, command):
    """Run COMMAND, train or tune, in several processes on this machine.

    Each gets an equal part of the GPUs, or of the CPU's cores: keras-resnet launch --workers 2 --
    train --data digits --output runs/digits. With train, they train one model together; with tune,
    each trains models of its own, and one more process chooses them.
    """
    from keras_resnet.launch import launch as start

    if command[0] not in ("train", "tune"):
        raise ValueError(
            f"launch: {command[0]!r} would run {workers} times over; only train and tune share "
            "their work. Run it without launch."
        )
    search = command[0] == "tune"
    strategy = _strategy(command)
    if not search and strategy is None:
        command = (*command, "--strategy", "multiworker")
    elif not search and strategy != "multiworker" and workers > 1:
        raise ValueError(
            f"launch: with --strategy {strategy}, {workers} processes would train a model each, "
            "all in one folder. Leave --strategy out, for multiworker, or train without launch."
        )
    command = [sys.executable, "-m", "keras_resnet.cli", *command]
    sys.exit(start(command, workers, restarts, search=search))


def _strategy(command):
    """The last strategy of a command, which is the one that counts; None if it has none."""
    found = None
    for name, value in itertools.zip_longest(command, command[1:]):
        if name == "--strategy":
            found = value
        elif name.startswith("--strategy="):
            found = name.partition("=")[2]
    return found
