"""`keras-resnet soup`."""

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.cli.quality import show_quality


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--data",
    "source",
    help="Data, as for `train`, to choose and test on.  [default: the runs' own images]",
)
@click.option(
    "--greedy",
    is_flag=True,
    help="Add one model after the other, the best first, as long as the validation images say so.",
)
@options.task
@options.output("Folder for the model and how it does.")
@options.as_json
def soup(models, output, as_json, **given):
    """Average the weights of several MODELS, runs of one architecture that began alike.

    MODELS are folders of runs, or model.keras files. Writes DIR/model.keras, labels.txt,
    images.csv, metrics.json and predictions.png.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        record = runs.soup(models, output, **given)
        found.update(record.to_json())
        for metric, values in record.validation.items():
            rows = [
                [model, f"{value:.4f}", "" if model == "soup" else _YES[model in found["soup"]]]
                for model, value in values.items()
            ]
            table("Validation images", ["model", metric, "taken"], rows)
        if record.evaluation is not None:
            show_quality("Test images", record.evaluation, found["task"])
        say(
            f"{record.output}: model.keras of {len(found['soup'])} models, labels.txt, metrics.json"
        )
        say(f"BatchNormalization statistics: {_STATISTICS[record.statistics]}")


_YES = {True: "yes", False: "no"}
_STATISTICS = {
    "same": "the models' own",
    "measured": "measured anew on the training images",
    "averaged": "the mean of the models', for want of images to measure them on",
}
