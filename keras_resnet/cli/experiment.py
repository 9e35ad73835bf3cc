"""`keras-resnet experiment`."""

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, verbosity


@click.command()
@click.argument("name")
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
@options.output("Folder for the page, its figures and tables, and all results.")
@options.as_json
def experiment(name, output, as_json, epochs, seeds, changes, **given):
    """Do an experiment of the ResNet and ResNeXt papers and write its page.

    NAME is degradation, responses, gradients, shortcuts, cardinality, bottleneck, batch-norm or
    one-by-one. The same command continues what was interrupted; given twice at the same time, the
    two share the work. Writes DIR/report.html and report.md, the same in Chinese (report.zh.*),
    figures, and tables as CSV.
    """
    with answer(as_json) as found:
        from keras_resnet import runs, training

        for key, value in {"epochs": epochs, "seeds": seeds}.items():
            if value is not None:
                changes[key] = value
        try:
            record = runs.experiment(name, output, verbose=verbosity(), settings=changes, **given)
        except training.Interrupted as interruption:
            say(interruption)
            found["interrupted"] = str(interruption)
            raise
        found.update(record.to_json())
        if record.missing:
            say(f"Other processes are still at work on {', '.join(record.missing)}.")
            return
        for key, value in record.values.items():
            if isinstance(value, (int, float, str)):
                say(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
        say(f"{record.output}: report.html, report.md, report.zh.html, report.zh.md")
