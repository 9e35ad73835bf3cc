"""`keras-resnet export`, and `bench`, which measures what it has written."""

import itertools
from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import answer, say, table
from keras_resnet.runs.choices import EXPORTS


@click.command()
@click.argument("model")
@click.option(
    "--format",
    type=click.Choice([*EXPORTS]),
    default="saved_model",
    show_default=True,
    help="What to write.",
)
@click.option(
    "--precision",
    type=click.Choice([*dict.fromkeys(itertools.chain(*EXPORTS.values()))]),
    default="float32",
    show_default=True,
    help="bfloat16: saved_model, openvino; int8: litert, openvino; float16, dynamic: litert.",
)
@click.option(
    "--calibrate",
    help="Images, as for --data: the training split calibrates int8, the test split verifies.",
)
@click.option("--batch-size", type=options.AT_LEAST_1, help="Images per request.  [default: any]")
@click.option(
    "--image-dtype",
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    show_default=True,
    help="saved_model: the type of input images.",
)
@click.option("--resize", is_flag=True, help="saved_model: take images of any size.")
@click.option(
    "--top",
    type=options.AT_LEAST_1,
    default=5,
    show_default=True,
    help="saved_model: how many classes to return for an image file.",
)
@click.option(
    "--with-litert",
    type=click.Choice(EXPORTS["litert"]),
    metavar="PRECISION",
    help="saved_model: also write a LiteRT file of this precision (float32, float16, dynamic or "
    "int8), which TensorFlow Serving serves with --prefer_tflite_model.",
)
@click.option(
    "--agreement",
    type=options.FRACTION,
    help="Fraction of the test images whose class must stay the same, or of the objects that must "
    "still be found.  [default: 0.99; litert and openvino 0.95]",
)
@options.task
@options.shown
@options.weights
@options.output("Folder: of all versions of a SavedModel, or of the file.")
@options.as_json
def export(model, output, as_json, **given):
    """Export MODEL for other programs, and verify the export there.

    MODEL is a model.keras, the folder that holds it, or a builder's name. Writes the next version
    into DIR as a SavedModel for TensorFlow Serving; or DIR/NAME.tflite, DIR/NAME.onnx or
    DIR/NAME.xml (OpenVINO), with its model card (.json) and labels.txt. Detectors are exported as
    SavedModels only.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        record = runs.export(model, output, **given)
        found.update(record.to_json())
        say(record.exported)
        for name, reason in record.exported.card["not_folded"].items():
            say(f"{name} is not folded: {reason}.")


@click.command()
@click.argument("exported", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--images", help="Images to measure with, as for --data.  [default: noise]")
@options.task
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=options.AT_LEAST_1,
    help="May be given several times.  [default: 1 and 16; with a detector 1]",
)
@options.image_size("224, for a detector 600x800")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="For each model and batch size.",
)
@options.as_json
def bench(exported, as_json, **given):
    """Measure exported models side by side: latency and throughput.

    EXPORTED are SavedModels (or folders of their versions), .tflite, .onnx and .xml files. They
    take turns, so that all run under the same conditions.
    """
    with answer(as_json) as found:
        from keras_resnet import runs

        given["batch_sizes"] = given["batch_sizes"] or None
        record = runs.bench(exported, **given)
        found.update(record.to_json())
        table(
            "",
            ["model", "runtime", "MiB", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s"],
            [
                [
                    each.path,
                    each.runtime,
                    f"{each.mebibytes:.1f}",
                    each.batch_size,
                    *(f"{milliseconds:.1f}" for milliseconds in (each.p50, each.p95, each.p99)),
                    f"{each.images_per_second:.1f}",
                ]
                for each in record.results
            ],
            left=2,
        )
