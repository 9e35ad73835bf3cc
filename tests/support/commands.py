"""Commands run in this process, and what they answer."""

import csv

import click.testing

from keras_resnet.cli import main


def run(*arguments):
    """The result of a command."""
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result):
    """The one line that a mistake is answered with."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def table_of(path):
    """The first line of a CSV file, and the others."""
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    return head, rows
