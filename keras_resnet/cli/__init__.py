"""The command line, `keras-resnet COMMAND`: options in, a record rendered."""

import importlib

import click

import keras_resnet
from keras_resnet.cli.console import mistakes_in_a_line

# A command's file is read when somebody asks for it, and what the command needs when it runs.
COMMANDS = {
    "bench": "export:bench",
    "data": "look:data",
    "demo": "train:demo",
    "evaluate": "evaluate:evaluate",
    "experiment": "experiment:experiment",
    "explain": "explain:explain",
    "export": "export:export",
    "launch": "launch:launch",
    "predict": "predict:predict",
    "report": "report:report",
    "soup": "soup:soup",
    "summary": "look:summary",
    "train": "train:train",
    "tune": "tune:tune",
    "weights": "look:weights",
}
"""The file and the function of every command."""


class _Commands(click.Group):
    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            return None
        file, function = COMMANDS[name].split(":")
        return getattr(importlib.import_module(f"keras_resnet.cli.{file}"), function)

    def invoke(self, context):
        with mistakes_in_a_line():
            return super().invoke(context)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keras_resnet.__version__)
def main():
    """Train, inspect and use models of the ResNet and ResNeXt family."""
