"""Options that several commands share."""

import contextlib
import json
import re
from pathlib import Path

import click

from keras_resnet.cli.console import Mistake
from keras_resnet.machine import PRECISIONS
from keras_resnet.runs.choices import TASKS

AT_LEAST_1 = click.IntRange(min=1)
"""A count."""

FRACTION = click.FloatRange(0, 1)
"""A fraction."""


class ImageSize(click.ParamType):
    """Height and width in pixels: one number for both, or HxW."""

    name = "size"

    def convert(self, value, param, ctx):  # noqa: D102
        if not re.fullmatch(r"0*[1-9]\d*(x0*[1-9]\d*)?", value):
            self.fail(f"{value!r} must be 224, or height x width, such as 96x160.", param, ctx)
        pair = tuple(map(int, value.split("x")))
        return pair if len(pair) == 2 else pair[0]


class RuleOrNumber(click.ParamType):
    """One of some names, or a number."""

    name = "rule or number"

    def __init__(self, names):
        self.names = names

    def get_metavar(self, param, ctx):  # noqa: D102
        return "|".join((*self.names, "X"))

    def convert(self, value, param, ctx):  # noqa: D102
        with contextlib.suppress(ValueError):
            return float(value)
        return value


as_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object on standard output, and nothing else.",
)
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of weights, order and augmentation; splits do not depend on it.",
)
data = click.option(
    "--data",
    "source",
    required=True,
    help='"digits", a folder of class/image, a CSV file, "tfds:NAME", or TFRecord files; with '
    "boxes, a folder like Pascal VOC's, COCO's JSON, or a CSV file.",
)
task = click.option(
    "--task",
    type=click.Choice(["auto", *TASKS]),
    default="auto",
    show_default=True,
    callback=lambda context, parameter, value: None if value == "auto" else value,
    help="The task; auto is that of the model or the data.",
)
on_error = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about damaged files.",
)
epochs = click.option(
    "--epochs", type=AT_LEAST_1, help="Passes over the training images.  [default: the recipe's]"
)
batch_size = click.option("--batch-size", type=AT_LEAST_1, help="Images per step.")
_PRECISION = click.Choice(list(PRECISIONS))
_COMPUTED = "The precision of feature maps."
precision = click.option(
    "--precision", type=_PRECISION, default="float32", show_default=True, help=_COMPUTED
)
fast_precision = click.option(
    "--precision",
    type=_PRECISION,
    help=f"{_COMPUTED}  [default: bfloat16 where the CPU or GPU is fast at it, otherwise float32]",
)
cache = click.option("--cache", help='Keep decoded images: "memory", or a folder.')
timeout = {"type": click.FloatRange(0, min_open=True), "show_default": True}


def _or_none(context, parameter, value):
    """What people type for no weights."""
    return None if value and value.lower() == "none" else value


def _trained(context, parameter, value):
    """Weights that have learned something."""
    if value and _or_none(context, parameter, value) is None:
        raise Mistake(
            f"--weights {value}: a model without weights knows nothing. Leave --weights out for "
            "the builder's first."
        )
    return value


weights = click.option(
    "--weights",
    callback=_trained,
    help="For a builder's name: a tag of `weights`, or a file.  [default: its first]",
)


FOR_DETECTORS = " For detectors: the shorter side, or that and the limit of the longer one."
"""What an image size means to them."""


def image_size(default, more=""):
    """The size of images."""
    text = f"Height and width in pixels.{more}  [default: {default}]"
    return click.option("--image-size", type=ImageSize(), metavar="N|HxW", help=text)


def crop(text):
    """How much of an image is shown."""
    text = f"Fraction of an image's shorter side to show{text}"
    return click.option("--crop", type=click.FloatRange(0, 1, min_open=True), help=text)


def shown(command):
    """How images are shown to a trained model."""
    return image_size("the model's", FOR_DETECTORS)(crop(".  [default: the model's]")(command))


tta = click.option(
    "--tta",
    metavar="flip|five-crops|ten-crops",
    help="Average the answers to several views of each image.  [default: one view]",
)


def weights_to_tune(text):
    """Weights to begin with, if there are any."""
    help = f"{text}: a tag of `weights`, or a file.  [default: none, from scratch]"
    return click.option("--weights", callback=_or_none, help=help)


def output(text, required=True):
    """Where results go."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--output", required=required, type=kind, help=text)


def assignments(metavar, text):
    """NAME=VALUE, any number of times, as a dictionary."""
    return click.option(
        "--set", "changes", multiple=True, metavar=metavar, help=text, callback=_assigned
    )


def _assigned(context, parameter, given):
    changes = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise Mistake(f"--set {assignment!r} must be FIELD=VALUE, such as ema=0.99.")
        with contextlib.suppress(json.JSONDecodeError):  # or a word
            value = json.loads(value)
        changes[name] = tuple(value) if isinstance(value, list) else value
    return changes
