"""`keras-resnet predict`."""

from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.cli.quality import show_skipped
from keras_resnet.runs.choices import COMPUTED_IN, RUNTIMES


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=options.AT_LEAST_1,
    help="Classes or labels to show per image.  [default: 5; of several labels, those predicted]",
)
@click.option(
    "--csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write id,label of every image: Kaggle's file; several labels as 3|7, values as id,value.",
)
@click.option("--positive", metavar="CLASS", help="With --csv: label is 1 for CLASS, 0 for others.")
@click.option("--probability", is_flag=True, help="With --positive: label is CLASS' probability.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="For a detector: write copies of the images with boxes, and detections.json in COCO's "
    "format, into this folder.",
)
@click.option(
    "--score",
    type=options.FRACTION,
    help="For a detector: the lowest score of an object; 0 for all.  [default: 0.5]",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    help="What runs the model; auto is the fastest that is installed.  [default: TensorFlow]",
)
@click.option(
    "--precision",
    type=click.Choice(COMPUTED_IN),
    help="The precision to compute in; bfloat16 is about twice as fast on processors that support "
    "it.  [default: the model's]",
)
@options.task
@options.shown
@options.tta
@options.weights
@options.on_error
@options.as_json
def predict(model, images, as_json, **given):
    """Run a trained MODEL on images: files, or folders of them.

    MODEL is a model.keras that takes raw images, as `train` writes it, the folder that holds it,
    or the name of a builder or a detector, such as ResNet50 or FasterRCNN_ResNet50_FPN. In a CSV
    file, the id of 7.jpg is 7 (a/7 where there is another 7.jpg), and lines are in the order of
    numbers where all ids are numbers.
    """
    with answer(as_json, "inference") as found:
        from keras_resnet import runs

        record = runs.predict(model, images, **given)
        found.update(record.to_json())
        if record.csv:
            count = len(record.files)
            say(f"{record.csv}: {count} {'line' if count == 1 else 'lines'}")
            show_skipped(record)
            return
        columns, rows = _TABLES[record.task]
        table("", columns, [row for each in found["predictions"] for row in rows(each)], left=2)
        if record.output:
            count = len(record.files)
            say(f"{record.output}: {count} {'image' if count == 1 else 'images'}, detections.json")
        show_skipped(record)


def _classes(prediction):
    """A row per class; the image is named in the first."""
    rows = [(guess["class"], f"{guess['probability']:.4f}") for guess in prediction["classes"]]
    return [["" if rank else prediction["image"], *row] for rank, row in enumerate(rows)]


def _labels(prediction):
    """A row per label, or one that says that there is none."""
    return _classes(prediction) or [[prediction["image"], "none", ""]]


def _values(prediction):
    """A row per value."""
    values = prediction.get("values") or {"value": prediction["value"]}
    return [
        ["" if rank else prediction["image"], name, f"{value:.6g}"]
        for rank, (name, value) in enumerate(values.items())
    ]


def _objects(prediction):
    """A row per object, up to `_SHOWN` of them: what, how sure, and where."""
    rows = [
        [each["class"], f"{each['score']:.4f}", *(f"{side:.1f}" for side in each["box"])]
        for each in prediction["objects"][:_SHOWN]
    ] or [["none", *[""] * 5]]
    if (more := len(prediction["objects"]) - _SHOWN) > 0:
        rows.append(["...", f"{more} more", *[""] * 4])
    return [["" if index else prediction["image"], *row] for index, row in enumerate(rows)]


def _outputs(prediction):
    """A row per number that came out, up to `_SHOWN` of them."""
    numbers = list(_flat(prediction["output"]))
    rows = [(f"{index}", f"{number:.6g}") for index, number in enumerate(numbers[:_SHOWN])]
    if len(numbers) > _SHOWN:
        rows.append(("...", f"{len(numbers) - _SHOWN} more"))
    return [["" if index else prediction["image"], *row] for index, row in enumerate(rows)]


def _flat(numbers):
    for each in numbers:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


_SHOWN = 10
_TABLES = {
    "classification": (["image", "class", "probability"], _classes),
    "multilabel": (["image", "label", "probability"], _labels),
    "regression": (["image", "name", "value"], _values),
    "detection": (["image", "object", "score", "x1", "y1", "x2", "y2"], _objects),
    None: (["image", "index", "output"], _outputs),
}
