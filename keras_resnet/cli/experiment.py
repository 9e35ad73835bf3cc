"""`keras-resnet experiment`."""

import click

from keras_resnet import names
from keras_resnet.cli import options
from keras_resnet.cli.console import Mistake, answer, say
from keras_resnet.experiments.table import EXPERIMENTS
from keras_resnet.files import json_text


def _listed():
    """The experiments, a line each."""
    return "\n".join(f"  {name:12} {claim}" for name, claim in EXPERIMENTS.items())


@click.command(epilog=f"\b\nExperiments:\n{_listed()}")
@click.argument("name", required=False)
@click.option(
    "--data",
    "source",
    help="Images of classes, as for `train`. The papers' are CIFAR-10: tfds:cifar10.",
)
@click.option(
    "--epochs",
    type=options.AT_LEAST_1,
    help="Epochs of each training.  [default: the experiment's]",
)
@click.option("--seeds", type=options.AT_LEAST_1, help="Repetitions.  [default: the experiment's]")
@click.option("--full", is_flag=True, help="Begin with the paper's settings, for a GPU.")
@options.assignments(
    "FIELD=VALUE",
    "Another setting, such as depths=[20,56] or images=10000; may be given several times.",
)
@options.on_error
@options.output("Folder for the page, its figures and tables, and all results.", required=False)
@options.as_json
def experiment(name, output, as_json, epochs, seeds, changes, **given):
    """Do an experiment of the ResNet and ResNeXt papers and write its page.

    Without a NAME, lists the experiments. The same command continues what was interrupted; given
    twice at the same time, the two share the work. Writes DIR/report.html and report.md, the same
    in Chinese (report.zh.*), figures, and tables as CSV.
    """
    if name is None:
        say(json_text({"experiments": EXPERIMENTS}, indent=None) if as_json else _listed())
        return
    try:
        name = names.find("experiment", name, EXPERIMENTS)
    except ValueError:
        click.echo(_listed(), err=True)
        raise
    if output is None:
        raise Mistake(f"Missing option '--output': a folder for what {name} finds.")
    for key, value in {"epochs": epochs, "seeds": seeds}.items():
        if value is not None:
            changes[key] = value
    with answer(as_json, "training") as found:
        from keras_resnet import runs

        record = runs.experiment(name, output, verbose=2, settings=changes, **given)
        found.update(record.to_json())
        _show(record)


def _show(record):
    """Print what was found, and where the page is."""
    if record.missing:
        say(f"Other processes are still at work on {', '.join(record.missing)}.")
        return
    for key, value in record.values.items():
        if isinstance(value, (int, float, str)):
            say(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    say(f"{record.output}: report.html, report.md, report.zh.html, report.zh.md")
