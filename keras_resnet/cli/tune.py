"""`keras-resnet tune`."""

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.cli.quality import show_training


@click.command()
@options.data
@options.task
@click.option(
    "--budget", help="What models may cost at most: params=N,macs=N,ms=N, or one of them."
)
@click.option(
    "--trials", type=options.AT_LEAST_1, default=30, show_default=True, help="Models to train."
)
@click.option(
    "--epochs",
    type=options.AT_LEAST_1,
    default=27,
    show_default=True,
    help="Epochs of each, at most.",
)
@click.option(
    "--algorithm",
    default="hyperband",
    show_default=True,
    metavar="hyperband|random|bayesian",
    help="How to choose.",
)
@click.option(
    "--objective", help="What to choose by.  [default: val_accuracy, or what suits the task]"
)
@options.weights_to_tune("Search for the best way to fine-tune these")
@options.assignments(
    "NAME=VALUES",
    "Other values for a choice: width=[0.5,1], or a single value to fix it; may be given several "
    'times. A range is learning_rate={"min_value":0.1,"max_value":1.0}.',
)
@click.option(
    "--patience",
    type=options.AT_LEAST_1,
    help="End a trial after this many epochs without improvement.",
)
@options.batch_size
@options.image_size("the data's")
@options.precision
@options.cache
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Fraction of the training images to compare models on, where the data has none for that.",
)
@click.option("--strategy", default="auto", show_default=True, help="Devices, as in `train`.")
@click.option(
    "--timeout",
    **options.timeout,
    default=120.0,
    help="For several processes: seconds until one that is not heard of is given up.",
)
@click.option(
    "--steps-per-execution",
    type=options.AT_LEAST_1,
    default=16,
    show_default=True,
    help="Steps that TensorFlow takes at once.",
)
@click.option(
    "--retrain-epochs",
    type=int,
    help="Epochs of the best model at the end; 0 for none.  [default: as long as the longest "
    "trials]",
)
@options.on_error
@options.seed
@options.output("Folder for the search, its report, and the best model.")
@options.as_json
def tune(source, output, as_json, changes, **given):
    """Search for the model, and its training, that suit images and a budget best.

    An interrupted search continues with the same command; with more trials, so does one that has
    ended. Writes DIR/report.html, pareto.png, trials.csv, and, of the best model, trained on all
    but the test images, what `train` writes to DIR/best.
    """
    with answer(as_json, "training") as found:
        from keras_resnet import runs
        from keras_resnet.tuning import report

        record = runs.tune(source, output, space=changes, verbose=2, **given)
        if record is None:
            return
        found.update(record.to_json())
        title = f"Best of {len(record.search.trials)} trials"
        table(title, *report.table(record.search), left=2)
        say(report.summary(record.search))
        if record.trained:
            show_training(record.trained)
