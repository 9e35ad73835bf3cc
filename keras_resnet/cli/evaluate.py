"""`keras-resnet evaluate`."""

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer
from keras_resnet.cli.quality import show_quality, show_skipped


@click.command()
@click.argument("model")
@click.option(
    "--data",
    "source",
    required=True,
    help='Data, as for `train`; after a colon, the split, if not "test".',
)
@options.task
@options.weights
@options.shown
@options.on_error
@options.as_json
def evaluate(model, source, as_json, **given):
    """Test a trained MODEL on labelled images, such as pets or pets:validation.

    MODEL is a model.keras that takes raw images, the folder that holds it, or a builder's name.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        record = runs.evaluate(model, source, **given)
        found.update(record.to_json())
        title = f"{record.source.name}, {record.split} images"
        show_quality(title, record.evaluation, record.source.task)
        show_skipped(record.source)
