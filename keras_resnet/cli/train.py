"""`keras-resnet train`, and `demo`, which trains on the digits of the installation."""

import dataclasses
from pathlib import Path

import click

from keras_resnet.cli import options
from keras_resnet.cli.console import Mistake, answer, say, table
from keras_resnet.cli.quality import show_training
from keras_resnet.runs.choices import LOSSES, OPTIMIZERS, RECIPES, THRESHOLDS


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder to write runs/digits and saved_models/digits into.  [default: this one]",
)
@options.epochs
@options.seed
@options.as_json
def demo(output, epochs, seed, as_json):
    """Train, test and export a model on the handwritten digits that come with the installation.

    Trains a CIFARResNet20 on 1,222 real images, reports its accuracy on 359 others, exports a
    SavedModel, compares that with the model in memory and saves a sheet of predictions.
    """
    _run(
        as_json,
        "digits",
        output / "runs" / "digits",
        exports=output / "saved_models" / "digits",
        model="CIFARResNet20",
        precision="float32",  # on images this small, bfloat16 gains nothing
        # Of five tried, the best on the validation images, over four seeds.
        learning_rate=0.4,
        weight_decay=5e-4,
        label_smoothing=0.1,
        ema=0.95,
        seed=seed,
        epochs=epochs,
    )


@click.command()
@options.data
@options.task
@click.option(
    "--model",
    default="ResNet50",
    show_default=True,
    help="A builder's name. For boxes, that is the backbone of a Faster R-CNN with a feature "
    "pyramid; or a detector's name, such as FasterRCNN_ResNet50_C4.",
)
@options.weights_to_tune("Weights to fine-tune")
@click.option(
    "--shortcut",
    type=click.Choice(["A", "B", "C", "none"], case_sensitive=False),
    help="Shortcuts of the model; none is the plain network.  [default: the model's]",
)
@click.option(
    "--recipe",
    type=click.Choice([*RECIPES], case_sensitive=False),
    help='How to train; a1, a2 and a3 are those of "ResNet strikes back".  [default: finetune '
    "with weights, detection for boxes, otherwise Recipe's own defaults]",
)
@options.assignments(
    "FIELD=VALUE",
    "Set a field of the recipe, such as ema=0.99; may be given several times.",
)
@options.epochs
@options.batch_size
@click.option(
    "--optimizer",
    type=click.Choice([*OPTIMIZERS], case_sensitive=False),
    help="The optimizer; one other than the recipe's has its own default learning rate and weight "
    "decay.  [default: the recipe's]",
)
@click.option(
    "--learning-rate",
    type=float,
    help="Highest learning rate, for a batch of 256 images.  [default: the recipe's, or its "
    "optimizer's]",
)
@click.option(
    "--layer-decay",
    type=float,
    help="Factor of the learning rate from each residual block to the one before, such as 0.75.  "
    "[default: 1]",
)
@click.option(
    "--drop-path",
    type=float,
    help="Fraction of the images for which the last residual block is left out in training; less "
    "for the others.  [default: the recipe's]",
)
@options.image_size(
    "the data's; for photographs, with weights, the size at which these are most accurate, such as "
    "288; for boxes, 800x1333",
    options.FOR_DETECTORS,
)
@options.crop(
    " in tests, and in training if the augmentation does not crop.  [default: all; with an "
    "--image-size and an augmentation that crops, what the weights were tested with]"
)
@options.fast_precision
@click.option(
    "--dropout",
    type=float,
    default=0.0,
    show_default=True,
    help="Fraction of the features to drop.",
)
@click.option(
    "--loss",
    type=click.Choice([*LOSSES], case_sensitive=False),
    help="The loss function; each is for certain tasks.  [default: the task's]",
)
@click.option(
    "--thresholds",
    type=options.RuleOrNumber(THRESHOLDS),
    help="For several labels: the probability from which a label is predicted; a number, or the "
    "metric to maximize on the validation images.  [default: 0.5]",
)
@click.option("--augmentation", help="How to vary training images, such as strong or randaugment.")
@click.option("--balanced", is_flag=True, help="Weight classes equally.")
@options.cache
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.15,
    show_default=True,
    help="Fraction of the training images to validate on, if the data has no validation images; 0 "
    "to train on all of them and keep the last epoch's weights.",
)
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    metavar="auto|mirrored|multiworker|cpu:N|tpu",
    help="The devices: all GPUs of this machine or its CPU, or several machines.",
)
@click.option("--hosts", help="For multiworker: all machines, the same everywhere: name[:port],...")
@click.option(
    "--timeout",
    **options.timeout,
    default=600.0,
    help="For multiworker: seconds to wait for a worker that does not start or respond.",
)
@click.option(
    "--sync-bn/--no-sync-bn",
    "synchronized",
    default=None,
    help="BatchNormalization over all devices.  [default: below 16 images per device]",
)
@click.option(
    "--steps-per-execution",
    type=options.AT_LEAST_1,
    default=1,
    show_default=True,
    help="Steps per call of the compiled training function.",
)
@click.option(
    "--save-every", type=options.AT_LEAST_1, help="Also save the state every so many steps."
)
@click.option(
    "--find-learning-rate",
    "finds_rate",
    is_flag=True,
    help="Do not train, but try 100 steps with a rising learning rate, and suggest one.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Cross-validation: train this many models, each tested on a different part of the images.",
)
@click.option("--profile", is_flag=True, help="Write a trace of steps 10 to 20 to DIR/profile.")
@options.on_error
@options.seed
@options.output("Folder for the model, its SavedModel, history and pictures.")
@options.as_json
def train(source, output, as_json, hosts, changes, finds_rate, **given):
    """Train a model on images, test it and export it: a classifier, or a detector where there are
    boxes.

    With weights, the model is fine-tuned in stages: its head on features computed once, then the
    last stage, then all layers. Unless --epochs is given, a stage ends once it no longer improves
    the model, and is skipped if it cannot. Without weights, the model is trained from scratch. A
    detector is trained all at once; its weights may be a detector's, or a classifier's for the
    backbone. Defaults are those of `keras_resnet.transfer.stages` or
    `keras_resnet.training.Recipe`. The same command continues an interrupted run.

    Writes DIR/report.html, the page of the run; model.keras, labels.txt,
    history.csv, images.csv, metrics.json, curves.png, predictions.png, confusion.csv, run.json (the
    settings), answers.npz, logs for TensorBoard, and a SavedModel in DIR/saved_model/1 (the next
    number if there is one). For boxes: per_class.csv, precision_recall.png, errors.png,
    detections.json and truths.json instead of confusion.csv.

    With --find-learning-rate, writes only DIR/learning_rate.png and learning_rate.csv. With
    --folds, writes all of that for each model into DIR/fold-1 and so on, and
    DIR/cross_validation.json, report.html and out_of_fold.csv.
    """
    hosts = hosts and hosts.split(",")
    if finds_rate and given["folds"]:
        raise Mistake("--folds does not go with --find-learning-rate: give one of them.")
    job = "find_learning_rate" if finds_rate else "cross_validate" if given["folds"] else "train"
    _run(as_json, source, output, job, hosts=hosts, changes=changes, **given)


def _run(as_json, source, output, job="train", changes=(), **given):
    with answer(as_json) as found:
        from keras_resnet import names, runs, training

        fields = [each.name for each in dataclasses.fields(training.Recipe)]
        # What is not given keeps the recipe's value.
        given = {name: given[name] for name in given if given[name] is not None}
        for name in changes:
            given[names.find("field of a recipe", name, fields)] = changes[name]
        record = getattr(runs, job)(source, output, verbose=2, **given)
        if record:
            found.update(record.to_json())
            _SHOWN[job](record)


def _show_rate(record):
    """Print a learning rate, and where it comes from."""
    found, data, network = record.found, record.source.name, record.model.name
    tried = f"{len(found.losses)} steps from {found.rates[0]:g} to {found.rates[-1]:g}"
    if found.suggestion is None:
        say(f"{data}, {network}: the loss did not fall in {tried}: no learning rate is suggested.")
    else:
        say(f"{data}, {network}: the loss was lowest at {found.lowest:.2g}, in {tried}.")
        say(f"Suggested: --learning-rate {found.suggestion:.2g}")
    say(f"{record.output}: learning_rate.png, learning_rate.csv")


def _show_folds(record):
    """Print the metrics of every fold, their mean and spread, and what was written."""
    found = record.metrics()
    columns = [each["values"] for each in found.values()]
    rows = [
        [number, *map(_decimals, row)] for number, row in enumerate(zip(*columns, strict=True), 1)
    ]
    for name in ("mean", "spread"):
        rows.append([name, *(_decimals(each[name]) for each in found.values())])
    title = f"{record.source.name}, {record.model}: {len(record.folds)} folds"
    table(title, ["fold", *found], rows)
    answer = record.to_json()
    written = f"{record.output}: cross_validation.json, fold-1 to fold-{len(record.folds)}"
    say(f"{written}, out_of_fold.csv" if answer["predictions"] else written)


def _decimals(value):
    return f"{value:.4g}"


_SHOWN = {
    "train": show_training,
    "find_learning_rate": _show_rate,
    "cross_validate": _show_folds,
}
