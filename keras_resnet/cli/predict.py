"""`keras-resnet predict`."""

from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=options.AT_LEAST_1,
    default=5,
    show_default=True,
    help="Classes to show for every image.",
)
@click.option(
    "--csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write id,label of every image: Kaggle's file.",
)
@click.option("--positive", metavar="CLASS", help="With --csv: label is 1 for CLASS, 0 for others.")
@click.option("--probability", is_flag=True, help="With --positive: label is CLASS' probability.")
@options.weights
@options.as_json
def predict(model, images, as_json, **given):
    """Classify images: files, or folders of them, with a trained MODEL.

    MODEL is a model.keras that takes raw images, as `train` writes it, the folder that holds it,
    or a builder's name, such as ResNet50. In a CSV file, the id of 7.jpg is 7, and lines are in the
    order of numbers where all names are numbers.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        record = runs.predict(model, images, **given)
        found.update(record.to_json())
        if record.csv:
            say(f"{record.csv}: {len(record.files)} lines")
            return
        table(
            "",
            ["image", "class", "probability"],
            [
                ["" if rank else prediction["image"], guess["class"], f"{guess['probability']:.4f}"]
                for prediction in found["predictions"]
                for rank, guess in enumerate(prediction["classes"])
            ],
            left=2,
        )
