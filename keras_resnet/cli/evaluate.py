"""`keras-resnet evaluate`."""

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say
from keras_resnet.cli.quality import show_quality, show_skipped


@click.command()
@click.argument("model")
@click.option(
    "--data",
    "source",
    help="Data, as for `train`; pets:validation is a split of it, pets:all all of it.  [default: "
    "the run's own images]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="The images to look at.  [default: test]",
)
@options.task
@options.weights
@options.shown
@options.tta
@options.on_error
@options.as_json
def evaluate(model, source, as_json, **given):
    """Test a trained MODEL on labelled images, the test images of its run or others.

    MODEL is a model.keras that takes raw images, the folder that holds it, or the name of a builder
    or detector. A run knows its own images; anything else needs --data.
    """
    with answer(as_json, "inference") as found:
        from keras_resnet import runs

        record = runs.evaluate(model, source, **given)
        found.update(record.to_json())
        views = f", mean of {record.tta} views" if record.tta else ""
        title = f"{record.source.name}, {record.split} images{views}"
        show_quality(title, record.evaluation, record.source.task)
        for note in record.notes:
            say(note)
        show_skipped(record.source)
