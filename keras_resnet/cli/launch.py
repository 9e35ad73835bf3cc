"""`keras-resnet launch`."""

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

    search = command[0] == "tune"
    if command[0] == "train" and not any(each.startswith("--strategy") for each in command):
        command = (*command, "--strategy", "multiworker")
    command = [sys.executable, "-m", "keras_resnet.cli", *command]
    sys.exit(start(command, workers, restarts, search=search))
