"""`keras-resnet explain`."""

from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.cli.quality import show_skipped
from keras_resnet.names import some


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.output("Folder for the pictures.")
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The class, label or value to explain.  [default: the most probable one of each image; "
    "for a detector, objects of all classes]",
)
@click.option(
    "--layer",
    metavar="NAME",
    help="The layer whose feature map is used, or a stage such as conv4.  [default: the last map; "
    "for a detector, the one that the object was found in]",
)
@click.option(
    "--method",
    metavar="grad-cam|grad-cam++|cam|hirescam",
    help="How channels are weighted; cam is for models that end in average pooling and one Dense "
    "layer.  [default: grad-cam; for a detector, hirescam]",
)
@click.option(
    "--top",
    type=options.AT_LEAST_1,
    help="For a detector: how many objects per image, highest scores first.  [default: 5]",
)
@click.option(
    "--score",
    type=options.FRACTION,
    help="For a detector: the lowest score of an object.  [default: 0.5]",
)
@options.task
@options.shown
@options.weights
@options.on_error
@options.as_json
def explain(model, images, as_json, **given):
    """Draw where a trained MODEL looks in images: files, or folders of them.

    MODEL is as for `predict`. Writes a picture of each image, as the model is shown it, with the
    regions that speak for the class in colour, from blue to red; and sheet.png, images beside their
    maps. For a detector, writes a picture of each object.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        record = runs.explain(model, images, **given)
        found.update(record.to_json())
        rows = [
            [image, name, f"{number:.4f}", Path(file).name]
            for image, name, number, file, *_ in map(dict.values, found["maps"])
        ]
        table("", [*found["maps"][0]][:4], rows, left=2)
        count = len(record.maps)
        say(
            f"{record.output}: {count} {'picture' if count == 1 else 'pictures'}, sheet.png; "
            f"{record.method} of {record.layer}"
        )
        if record.empty:
            say(f"no objects found: {some([str(each) for each in record.empty], 10)}")
        show_skipped(record)
