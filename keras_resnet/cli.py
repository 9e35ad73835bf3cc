"""The command line: `keras-resnet COMMAND`. Every command is thin; the work is in the package."""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import click

# Nothing heavy is imported up here: `keras-resnet --help` answers at once.
import keras_resnet
from keras_resnet import names
from keras_resnet.files import LABELS_FILE, write_labels, write_text, written_beside

MODEL_FILE = "model.keras"
_CONFUSION_SHOWN = 12  # classes up to which a confusion matrix fits on a screen
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
# What `export` writes, in which precisions.
_EXPORTS = {
    "saved_model": ("float32", "bfloat16"),
    "litert": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32",),
}
_CALIBRATED, _VERIFIED = 100, 500  # images
_RECIPES = ("paper", "modern", "finetune")


class _Mistake(click.ClickException):
    """A mistake that the user can mend: one line, exit code 2."""

    exit_code = 2


class _Commands(click.Group):
    def invoke(self, context):
        try:
            return super().invoke(context)
        except ValueError as error:
            raise _Mistake(" ".join(str(error).split())) from error
        except (OSError, ImportError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(keras_resnet.__version__)
def main():
    """The ResNet and ResNeXt family: train, look at and use its nets."""


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else."
)
_at_least_1 = click.IntRange(min=1)
_seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of weights, order and variation; the splits do not depend on it.",
)


_data_option = click.option(
    "--data",
    "source",
    required=True,
    help='"digits", a folder of class/image, a CSV file, "tfds:NAME", or TFRecord files.',
)
_on_error_option = click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="What to do about damaged files.",
)

_batch_size_option = click.option("--batch-size", type=_at_least_1, help="Images a step.")
_image_size_option = click.option("--image-size", type=_at_least_1, help="Pixels a side.")
_precision_option = click.option(
    "--precision", type=click.Choice(list(PRECISIONS)), default="float32"
)
_cache_option = click.option("--cache", help='Keep decoded images: "memory", or a folder.')


@main.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder to write runs/digits and saved_models/digits into.  [default: this one]",
)
@_seed_option
@_json_option
def demo(output, seed, as_json):
    """The whole way on the handwritten digits that come with the installation.

    Trains a CIFARResNet20 on 1,222 real images, reports its accuracy on 359 others, exports a
    SavedModel, compares that with the model in memory and saves a sheet of predictions.
    """
    with _answer(as_json) as answer:
        answer.update(
            _train_and_export(
                source="digits",
                name="CIFARResNet20",
                output=output / "runs" / "digits",
                exports=output / "saved_models" / "digits",
                # Of five tried, the best on the validation images, over four seeds.
                recipe={
                    "learning_rate": 0.4,
                    "weight_decay": 5e-4,
                    "label_smoothing": 0.1,
                    "ema": 0.95,
                },
                seed=seed,
            )
        )


@main.command()
@_data_option
@click.option("--model", "name", default="ResNet50", show_default=True, help="A builder's name.")
@click.option("--weights", help="Weights to fine-tune: a tag of `weights`, or a file.")
@click.option(
    "--shortcut",
    type=click.Choice(["A", "B", "C", "none"], case_sensitive=False),
    help="Shortcuts of the net; none is the plain net.  [default: the model's]",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(_RECIPES),
    help="How to train.  [default: finetune with weights, else Recipe's own defaults]",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Another value for a field of the recipe, such as ema=0.99; may be given several times.",
)
@click.option("--epochs", type=_at_least_1, help="Passes over the training images.")
@_batch_size_option
@click.option("--learning-rate", type=float, help="The highest, for a batch of 256 images.")
@_image_size_option
@click.option(
    "--crop",
    type=click.FloatRange(0, 1, min_open=True),
    help="Part of an image's shorter side to look at when it does not learn.  [default: that of "
    "the weights]",
)
@_precision_option
@click.option("--dropout", type=float, default=0.0, help="Part of the features that is dropped.")
@click.option("--augmentation", help="How training images are varied, such as strong.")
@click.option("--balanced", is_flag=True, help="All classes count alike, however many images.")
@_cache_option
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.15,
    show_default=True,
    help="Part of the training images to validate on, where the data has none for that; 0 to train "
    "on all of them, and keep the last epoch's weights.",
)
@click.option(
    "--strategy",
    "strategy_name",
    default="auto",
    show_default=True,
    metavar="auto|mirrored|multiworker|cpu:N|tpu",
    help="The devices: all GPUs of this machine or its CPU, or several machines.",
)
@click.option("--hosts", help="For multiworker: all machines, the same everywhere: name[:port],...")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="For multiworker: seconds to wait for a worker that does not come or answer.",
)
@click.option(
    "--sync-bn/--no-sync-bn",
    "synchronized",
    default=None,
    help="BatchNormalization over all devices.  [default: below 16 images a device]",
)
@click.option("--steps-per-execution", type=_at_least_1, default=1, show_default=True)
@click.option("--save-every", type=_at_least_1, help="Save the state after so many steps, too.")
@click.option("--profile", is_flag=True, help="Write a trace of steps 10 to 20 to DIR/profile.")
@_on_error_option
@_seed_option
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the model, its SavedModel, history and pictures.",
)
@_json_option
def train(source, name, output, as_json, epochs, batch_size, learning_rate, changes, **options):
    """Train a net on images, test it and export it.

    With weights, the net is fine-tuned in stages: its head on features computed once, then the
    last stage, then all layers; without, it is trained from scratch. What is not said is that of
    `keras_resnet.transfer.stages` or `keras_resnet.training.Recipe`, and of the data for the image
    size. A run that was interrupted goes on where it was when the same command is given again.

    Writes DIR/model.keras, labels.txt, history.csv, metrics.json, curves.png, predictions.png,
    confusion.csv, logs for TensorBoard, and a SavedModel in DIR/saved_model/1 (the next number if
    there is one).
    """
    with _answer(as_json) as answer:
        recipe = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        recipe.update(_changes(changes))
        exports = output / "saved_model"
        answer.update(_train_and_export(source, name, output, exports, recipe=recipe, **options))


@main.command()
@_data_option
@click.option("--budget", help="What nets may cost at most: params=N,macs=N,ms=N, or one of them.")
@click.option("--trials", type=_at_least_1, default=30, show_default=True, help="Nets to train.")
@click.option(
    "--epochs", type=_at_least_1, default=27, show_default=True, help="For each, at most."
)
@click.option(
    "--algorithm",
    default="hyperband",
    show_default=True,
    metavar="hyperband|random|bayesian",
    help="How to choose.",
)
@click.option("--objective", default="val_accuracy", show_default=True, help="What to choose by.")
@click.option(
    "--weights", help="Search for the best way to fine-tune them: a tag of `weights`, or a file."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUES",
    help="Other values for a choice: width=[0.5,1], or one value, which is none; may be given "
    'several times. A range is learning_rate={"min_value":0.1,"max_value":1.0}.',
)
@click.option("--patience", type=_at_least_1, help="End a trial after so many epochs in vain.")
@_batch_size_option
@_image_size_option
@_precision_option
@_cache_option
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Part of the training images to compare nets on, where the data has none for that.",
)
@click.option("--strategy", default="auto", show_default=True, help="Devices, as in `train`.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="For several processes: seconds until one that is not heard of is given up.",
)
@click.option("--steps-per-execution", type=_at_least_1, default=16, show_default=True)
@click.option(
    "--retrain-epochs", type=int, help="Epochs of the best net at the end; 0 for none.  [--epochs]"
)
@_on_error_option
@_seed_option
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the search, its report, and the best net.",
)
@_json_option
def tune(source, output, as_json, **options):
    """Search for the net, and its training, that suit images and a budget best.

    A search that was interrupted goes on with the same command; with more trials, one that has
    ended. Writes DIR/report.html, pareto.png, trials.csv, and, of the best net, trained on all but
    the test images, what `train` writes to DIR/best.
    """
    with _answer(as_json) as answer:
        answer.update(_tune(source, output, **options))


def _tune(
    source,
    output,
    *,
    weights,
    budget,
    changes,
    patience,
    batch_size,
    image_size,
    precision,
    validation,
    on_error,
    seed,
    retrain_epochs,
    **options,
):
    import keras

    from keras_resnet import data, training, tuning
    from keras_resnet.tuning import records, report

    # Before TensorFlow computes anything, which ends the choice of devices.
    options["strategy"] = training.strategy(options["strategy"])
    images = data.load(source, on_error=on_error, validation=validation)
    size = image_size or images.image_size
    _check_writable(output)
    keras.config.set_dtype_policy(PRECISIONS[precision])
    kind, recipe = tuning.ResNetHyperModel, training.Recipe()
    if weights:
        kind = functools.partial(tuning.TransferHyperModel, weights=weights)
        recipe = training.recipe("finetune")
    given = {"batch_size": batch_size, "patience": patience}
    hypermodel = kind(
        (size, size, images.channels),
        len(images.class_names),
        _changes(changes),
        budget,
        recipe=recipe.changed(**{name: value for name, value in given.items() if value}),
    )
    _say(
        f"{images.name}: {len(images.class_names)} classes, {len(images.train)} training and "
        f"{len(images.validation)} validation images."
    )
    with _damaged_images_named(images.train, images.validation):
        try:
            tuner = tuning.search(
                hypermodel, images, seed=seed, directory=output / "search", **options
            )
            if tuner is None or tuner.is_worker:
                return {}
            record = tuner.record()
            report.write_report(output, record)
            _table(f"Best of {len(record.trials)} trials", *report.table(record), left=2)
            _say(report.summary(record))
            _say(f"{output}: report.html, pareto.png, trials.csv")
            best = records.best(record)
            found = {
                "trials": len(record.trials),
                "failed": sum(trial.status == "failed" for trial in record.trials),
                "declined": record.declined,
                "seconds": record.seconds,
                "best": dataclasses.asdict(best[0]) if best else None,
                "output": str(output),
            }
            if retrain_epochs == 0:
                return found
            model, result = tuning.retrain(
                tuner,
                images,
                epochs=retrain_epochs,
                seed=seed,
                checkpoints=output / "best" / "checkpoints",
                **{name: options[name] for name in ("strategy", "cache", "steps_per_execution")},
                verbose=1 if sys.stdout.isatty() else 2,
            )
        except training.Interrupted as interruption:
            _say(interruption)
            return {"interrupted": str(interruption)}
        folder = output / "best"
        metrics = _write_results(model, images, result, folder, folder / "saved_model", precision)
    shutil.rmtree(folder / "checkpoints")
    return {**found, "test_accuracy": metrics["test_accuracy"]}


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--workers", type=_at_least_1, required=True, help="Processes to start.")
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many times to start all again after one has failed, but for a mistake (code 2).",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def launch(workers, restarts, command):
    """Run COMMAND, train or tune, in several processes on this machine.

    Each gets an equal part of the GPUs, or of the CPU's cores: keras-resnet launch --workers 2 --
    train --data digits --output runs/digits. With train they learn one net together; with tune
    each trains nets of its own, and one more process chooses them.
    """
    from keras_resnet.launch import launch as start

    search = command[0] == "tune"
    if command[0] == "train" and not any(each.startswith("--strategy") for each in command):
        command = (*command, "--strategy", "multiworker")
    command = [sys.executable, "-m", "keras_resnet.cli", *command]
    sys.exit(start(command, workers, restarts, search=search))


_weights_option = click.option(
    "--weights", help="For a builder's name: a tag of `weights`, or a file.  [default: its first]"
)


@main.command()
@click.argument("model")
@click.option(
    "--data", "source", required=True, help='"digits" or a folder; behind a colon, the split.'
)
@_weights_option
@_on_error_option
@_json_option
def evaluate(model, source, weights, on_error, as_json):
    """Test a trained MODEL on labelled images, such as pets or pets:validation.

    MODEL is a model.keras that takes raw images, the folder that holds it, or a builder's name.
    """
    with _answer(as_json) as answer:
        from keras_resnet import analysis, data

        name, _, split_name = source.rpartition(":")
        if split_name not in data.SPLITS:
            name, split_name = source, "test"
        net, labels = _load_model(model, weights)
        images = data.load(name, on_error=on_error)
        if list(images.class_names) != labels:
            raise ValueError(
                f"data {name!r} has the classes {', '.join(images.class_names)}; MODEL knows "
                f"{', '.join(labels)}."
            )
        split = getattr(images, split_name)
        with _damaged_images_named(split):
            batches = data.batches(split, **_input_of(net, images))
            quality = analysis.evaluate(net, batches, images.class_names)
        answer.update(
            model=net.name,
            data=images.name,
            split=split_name,
            images=len(split),
            accuracy=quality.accuracy,
            per_class=quality.per_class(),
        )
        _show_quality(f"{images.name}, {split_name} images", quality)
        _show_skipped(images)


@main.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--top", type=_at_least_1, default=5, show_default=True, help="Classes to show for every image."
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write id,label of every image: Kaggle's file.",
)
@click.option("--positive", metavar="CLASS", help="With --csv: label is 1 for CLASS, 0 for others.")
@click.option("--probability", is_flag=True, help="With --positive: label is CLASS' probability.")
@_weights_option
@_json_option
def predict(model, images, top, csv_file, positive, probability, weights, as_json):
    """Classify images: files, or folders of them, with a trained MODEL.

    MODEL is a model.keras that takes raw images, as `train` writes it, the folder that holds it,
    or a builder's name, such as ResNet50. In a CSV file, the id of 7.jpg is 7, and lines are in the
    order of numbers where all names are numbers.
    """
    with _answer(as_json) as answer:
        import numpy as np

        from keras_resnet import analysis, data

        if (positive and not csv_file) or (probability and not positive):
            raise ValueError("--positive goes with --csv, and --probability with --positive.")
        files = data.image_files(images)
        if not files:
            raise ValueError(f"no images in {', '.join(map(str, images))}.")
        data.check_images(files, whole=True)
        net, labels = _load_model(model, weights)
        if positive and positive not in labels:
            raise ValueError(f"--positive {positive!r}: MODEL knows {', '.join(labels)}.")
        split = data.Split(files, np.zeros(len(files), int))
        with _damaged_images_named(split):
            probabilities = net.predict(data.batches(split, **_input_of(net)), verbose=0)
        answer["predictions"] = [
            {
                "image": str(file),
                "classes": [
                    {"class": labels[index], "probability": float(row[index])}
                    for index in np.argsort(-row)[:top]
                ],
            }
            for file, row in zip(files, probabilities, strict=True)
        ]
        if csv_file:
            lines = analysis.submission(
                csv_file, files, probabilities, labels, positive, probability=probability
            )
            answer["csv"] = str(csv_file)
            _say(f"{csv_file}: {lines} lines")
            return
        _table(
            "",
            ["image", "class", "probability"],
            [
                ["" if rank else prediction["image"], guess["class"], f"{guess['probability']:.4f}"]
                for prediction in answer["predictions"]
                for rank, guess in enumerate(prediction["classes"])
            ],
            left=2,
        )


@main.command("export")
@click.argument("model")
@click.option(
    "--format",
    "target",
    type=click.Choice([*_EXPORTS]),
    default="saved_model",
    show_default=True,
)
@click.option(
    "--precision",
    type=click.Choice([*dict.fromkeys(itertools.chain(*_EXPORTS.values()))]),
    default="float32",
    show_default=True,
    help="bfloat16 is for saved_model; float16, dynamic and int8 are for litert.",
)
@click.option(
    "--calibrate",
    "source",
    help="Images, as for --data: the training split calibrates int8, the test split verifies.",
)
@click.option("--batch-size", type=_at_least_1, help="Images of every request.  [default: any]")
@click.option(
    "--image-dtype",
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    show_default=True,
    help="saved_model: what images come as.",
)
@click.option("--resize", is_flag=True, help="saved_model: take images of any size.")
@click.option(
    "--top", type=_at_least_1, default=5, show_default=True, help="saved_model: classes told."
)
@click.option(
    "--agreement",
    type=click.FloatRange(0, 1),
    help="Part of the test images whose class must not change.  [default: 0.99, litert 0.95]",
)
@_weights_option
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder: of all versions of a SavedModel, or of the file.",
)
@_json_option
def export_model(
    model,
    target,
    precision,
    source,
    batch_size,
    image_dtype,
    resize,
    top,
    agreement,
    weights,
    output,
    as_json,
):
    """Write MODEL as other programs load it, and verify it there.

    MODEL is a model.keras, the folder that holds it, or a builder's name. Writes the next version
    into DIR as a SavedModel for TensorFlow Serving; or DIR/NAME.tflite or DIR/NAME.onnx, beside it
    its model card, .json, and labels.txt.
    """
    with _answer(as_json) as answer:
        from keras_resnet import data, export

        if precision not in _EXPORTS[target]:
            raise ValueError(
                f"--precision {precision}: --format {target} knows {', '.join(_EXPORTS[target])}."
            )
        if precision == "int8" and not source:
            raise ValueError("--precision int8 needs --calibrate SOURCE.")
        if target != "saved_model" and (resize or image_dtype != "float32"):
            raise ValueError("--resize and --image-dtype are for --format saved_model.")
        net, labels = _load_model(model, weights)
        options = dict(labels=labels, batch_size=batch_size, verbose=False)
        if agreement is not None:
            options["agreement"] = agreement
        if source:
            images = data.load(source)
            options["images"] = _some_images(images.test, _input_of(net), _VERIFIED)
        with _silenced_libraries():
            if target == "saved_model":
                options.update(image_dtype=image_dtype, resize=resize, top=top)
                exported = export.saved_model(net, output, precision=precision, **options)
            elif target == "onnx":
                exported = export.onnx(net, output / f"{net.name}.onnx", **options)
            else:
                if source:
                    options["calibrate"] = _some_images(images.train, _input_of(net), _CALIBRATED)
                file = output / f"{net.name}.tflite"
                exported = export.litert(net, file, precision=precision, **options)
        if target != "saved_model":
            write_labels(output, labels)
            write_text(f"{exported.path}.json", json.dumps(exported.card, indent=2) + "\n")
        answer.update(output=str(exported.path), format=target, precision=precision)
        answer.update(dataclasses.asdict(exported.verification))
        _say(exported)
        for name, reason in exported.card["not_folded"].items():
            _say(f"{name} is not folded: {reason}.")


@main.command()
@click.argument("exported", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--images", "source", help="Images to measure with, as for --data.  [default: noise]")
@click.option(
    "--batch-size",
    "batch_sizes",
    multiple=True,
    type=_at_least_1,
    default=(1, 16),
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="For each model and batch size.",
)
@_json_option
def bench(exported, source, batch_sizes, seconds, as_json):
    """Measure exported models side by side: latency and throughput.

    EXPORTED are SavedModels (or folders of their versions), .tflite and .onnx files. They take
    turns, so that all see the same machine.
    """
    with _answer(as_json) as answer:
        from keras_resnet import data, export

        images = None
        if source:
            shape = export.load(exported[0]).image_shape
            options = {"image_size": shape[1] or 224, "channels": shape[3]}
            images = _some_images(data.load(source).test, options, max(batch_sizes))
        results = export.latencies(exported, images, batch_sizes, seconds)
        answer["results"] = [
            {**dataclasses.asdict(result), "path": str(result.path)} for result in results
        ]
        _table(
            "",
            ["model", "runtime", "MiB", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s"],
            [
                [
                    result.path,
                    result.runtime,
                    f"{result.mebibytes:.1f}",
                    result.batch_size,
                    f"{result.p50:.1f}",
                    f"{result.p95:.1f}",
                    f"{result.p99:.1f}",
                    f"{result.images_per_second:.1f}",
                ]
                for result in results
            ],
            left=2,
        )


@main.command("data")
@click.argument("source")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write some images of every class, a PNG file.",
)
@_json_option
def look(source, sheet, as_json):
    """Look a data set over: classes, counts, sizes, damaged files, duplicates across splits.

    SOURCE is what `train --data` takes.
    """
    with _answer(as_json) as answer:
        from keras_resnet import analysis, data

        images = data.load(source, on_error="skip")
        overview = analysis.overview(images)
        answer.update(dataclasses.asdict(overview))
        _table(
            f"{images.name}, {len(images.class_names)} classes",
            ["class", *overview.counts],
            [
                [name, *(f"{counts[i]:,}" for counts in overview.counts.values())]
                for i, name in enumerate(overview.class_names)
            ]
            + [["all", *(f"{sum(counts):,}" for counts in overview.counts.values())]],
        )
        _say(f"The largest class has {overview.imbalance:.1f} times the images of the smallest.")
        _say(
            f"Pixels: {_size(overview.smallest)} to {_size(overview.largest)}, median "
            f"{_size(overview.median)}."
        )
        _say(f"{len(overview.damaged)} images cannot be read.")
        for reason in overview.damaged:
            _say(f"  {reason}")
        _say(f"{len(overview.duplicates)} images are in more than one split.")
        for group in overview.duplicates:
            _say(f"  the same: {', '.join(group)}")
        if sheet:
            analysis.class_sheet(sheet, images)
            _say(f"{sheet}: some images of every class")


@main.command()
@click.argument("name", required=False)
@_json_option
def weights(name, as_json):
    """The pretrained weights there are, for all nets or those of NAME.

    Looked for in the folder that KERAS_RESNET_WEIGHTS names, then in Keras' cache, then downloaded.
    """
    with _answer(as_json) as answer:
        table = keras_resnet.list_weights(name)
        answer["weights"] = [dataclasses.asdict(row) for row in table]
        _table("", table.columns, table.cells(), left=2)


@main.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="One line a net, CIFAR nets to 110.")
@click.option(
    "--image-size", type=_at_least_1, help="Pixels a side.  [default: 224, CIFAR nets 32]"
)
@_json_option
def summary(name, everything, image_size, as_json):
    """Layers, output shapes, parameters and multiply-adds of a net, stage by stage."""
    if everything == bool(name):
        raise _Mistake("give the NAME of a net, or --all.")
    with _answer(as_json) as answer:
        from keras_resnet import zoo

        options = {"input_shape": (image_size, image_size, 3)} if image_size else {}
        if name:
            answer.update(_summarize(name, options))
            _table(
                f"{answer['model']}, {_size(answer['input_shape'])}",
                ["stage", "output", "layers", "parameters", "multiply-adds"],
                [
                    [
                        stage["name"],
                        _size(stage["output_shape"]),
                        stage["layers"],
                        f"{stage['parameters']:,}",
                        _macs(stage["macs"]),
                    ]
                    for stage in answer["stages"]
                ]
                + [
                    [
                        "total",
                        "",
                        answer["layers"],
                        f"{answer['parameters']:,}",
                        _macs(answer["macs"]),
                    ]
                ],
            )
            return
        # Depth 1202 takes as long to build as all the others, and says nothing that 110 does not.
        names = [
            *zoo.MODELS,
            *(f"CIFARResNet{depth}" for depth in zoo.CIFAR_DEPTHS if depth < 1202),
        ]
        answer["models"] = [_summarize(name, options) for name in names]
        _table(
            "The family",
            ["net", "image", "layers", "parameters", "multiply-adds"],
            [
                [
                    name,
                    _size(model["input_shape"]),
                    model["layers"],
                    f"{model['parameters']:,}",
                    _macs(model["macs"]),
                ]
                for name, model in zip(names, answer["models"], strict=True)
            ],
        )


def _train_and_export(
    source,
    name,
    output,
    exports,
    *,
    recipe,
    weights=None,
    image_size=None,
    crop=None,
    precision="float32",
    dropout=0.0,
    augmentation=None,
    balanced=False,
    cache=None,
    on_error="raise",
    validation=0.15,
    shortcut=None,
    recipe_name=None,
    strategy_name="auto",
    hosts=None,
    timeout=600.0,
    profile=False,
    seed=0,
    **options,
):
    """From images to a tested, exported model; returns what is worth knowing."""
    import keras

    from keras_resnet import data, training, transfer, zoo
    from keras_resnet.training.checkpoints import Checkpoints

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"KERAS_BACKEND={keras.backend.backend()}: training and export need "
            "KERAS_BACKEND=tensorflow."
        )
    # Before TensorFlow computes anything, which ends the choice of devices.
    strategy = training.strategy(strategy_name, hosts=hosts and hosts.split(","), timeout=timeout)
    chief = training.collectives.workers(strategy)[1] == 0
    say = _say if chief else lambda _: None
    changes = {key: value for key, value in recipe.items() if value is not None}
    if augmentation is not None:
        found = names.find("augmentation", augmentation, data.AUGMENTATIONS)
        changes["augmentation"] = found
    in_stages = weights and recipe_name in (None, "finetune")
    if in_stages:
        plan, learn = transfer.stages(**changes), transfer.fine_tune
    else:
        base = training.RECIPES[recipe_name] if recipe_name else training.Recipe()
        plan, learn = base.changed(**changes), training.train
    images = data.load(source, on_error=on_error, validation=validation)
    size = image_size or images.image_size
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(PRECISIONS[precision])
    shape = dict(input_shape=(size, size, images.channels), include_preprocessing=True)
    if shortcut is not None:
        shape["shortcut"] = None if shortcut == "none" else shortcut
    build = zoo.builder(name)
    if weights or dropout:
        backbone = build(weights=weights, include_top=False, **shape)
        model = transfer.classifier(backbone, len(images.class_names), dropout)
    else:
        model = build(weights=None, classes=len(images.class_names), **shape)
    if crop is not None:
        model.get_layer("preprocessing").crop = crop  # saved with the model
    if chief:
        _check_writable(output, exports)
    say(
        f"{images.name}: {len(images.class_names)} classes, {len(images.train)} training, "
        f"{len(images.validation)} validation and {len(images.test)} test images. "
        f"{model.name}: {model.count_params():,} parameters."
    )
    if images.imbalance > 1.5:
        remedy = "they count alike" if balanced else "--balanced makes them count alike"
        say(f"The largest class has {images.imbalance:.1f} times the smallest's images: {remedy}.")
    checkpoints, callbacks = output / "checkpoints", []
    if chief:
        # What the stages cannot know of each other: an interrupted run must not go on as another.
        settings = {"data": source, "model": name, "weights": weights, "precision": precision}
        Checkpoints(checkpoints, {**settings, "dropout": dropout, "on_error": on_error})
        callbacks.append(training.TensorBoardLog(output / "logs"))
        if profile:
            callbacks.append(training.Profile(output / "profile"))
    with _damaged_images_named(images.train, images.validation, images.test):
        try:
            result = learn(
                model,
                images,
                plan,
                strategy,
                image_size=size,
                seed=seed,
                class_weight=images.class_weight() if balanced else None,
                cache=cache,
                checkpoints=checkpoints if in_stages else checkpoints / "scratch",
                callbacks=callbacks,
                # A bar in a file or a pipe would be a thousand lines: there, one an epoch.
                verbose=1 if sys.stdout.isatty() else 2,
                **options,
            )
        except training.Interrupted as interruption:
            say(interruption)
            return {"interrupted": str(interruption)}
        if not chief:
            return {}
        metrics = _write_results(model, images, result, output, exports, precision)
    shutil.rmtree(checkpoints)
    return metrics


def _write_results(model, images, result, output, exports, precision):
    """Test a trained model, write what there is of it, and export it."""
    from keras_resnet import analysis, data, export

    test = data.batches(images.test, **_input_of(model, images))
    quality = analysis.evaluate(model, test, images.class_names)
    with written_beside(output / MODEL_FILE) as partial:
        model.save(partial)
    write_labels(output, images.class_names)
    result.save(output / "history.csv")
    quality.save_confusion(output / "confusion.csv")
    analysis.training_curves(output / "curves.png", result.history, result.stages)
    analysis.prediction_sheet(output / "predictions.png", test, quality)
    exported = export.saved_model(
        model,
        exports,
        images.class_names,
        images=next(iter(test))[0].numpy(),
        agreement=1.0 if precision == "float32" else 0.9,
        verbose=False,
    )
    same = exported.verification
    metrics = {
        "model": model.name,
        "data": images.name,
        "test_accuracy": quality.accuracy,
        "test_images": len(images.test),
        "per_class": quality.per_class(),
        "confusion": quality.confusion().tolist(),
        "best_epoch": result.best_epoch,
        "stages": result.stages,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "skipped": list(images.skipped),
        "output": str(output),
        "saved_model": str(exported.path),
        "saved_model_difference": same.largest_difference,
    }
    write_text(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")

    _show_quality("Test images", quality)
    epochs = len(result.history["loss"])
    _say(f"Best epoch {result.best_epoch} of {epochs}, {result.seconds:.0f} s of training.")
    _show_skipped(images)
    _say(f"{output}: {MODEL_FILE}, {LABELS_FILE}, history.csv, metrics.json, curves.png")
    _say(
        f"{exported.path}: SavedModel, loaded back and compared on {same.images} images: largest "
        f"difference {same.largest_difference:.1e}, same class {same.agreement:.0%}"
    )
    _say(f"{output / 'predictions.png'}: predictions on test images, mistakes first")
    return metrics


def _changes(assignments):
    """FIELD=VALUE as people type it."""
    changes = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r} must be FIELD=VALUE, such as ema=0.99.")
        with contextlib.suppress(json.JSONDecodeError):  # or a word
            value = json.loads(value)
        changes[name] = tuple(value) if isinstance(value, list) else value
    return changes


def _check_writable(*folders):
    """Make sure, before hours of training, that the results can be written."""
    for folder in folders:
        existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        try:
            # Permissions alone do not tell, least of all root's.
            with tempfile.TemporaryDirectory(dir=existing):
                pass
        except OSError as error:
            raise ValueError(
                f"output {str(folder)!r}: nothing can be written to {str(existing)!r}."
            ) from error


@contextlib.contextmanager
def _damaged_images_named(*splits):
    """TensorFlow does not say which file it could not decode: find it."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        for split in splits:
            for reason in split.errors().values():
                raise ValueError(f"{reason} --on-error skip leaves it out.") from error
        raise


def _show_quality(title, quality):
    _table(
        f"{title}, {quality.accuracy:.2%} right",
        ["class", "precision", "recall", "F1", "images"],
        [
            [
                label,
                *(f"{scores[score]:.3f}" for score in ("precision", "recall", "f1-score")),
                int(scores["support"]),
            ]
            for label, scores in quality.per_class().items()
        ],
    )
    if len(quality.class_names) <= _CONFUSION_SHOWN:
        _table(
            "Confusion, true classes downwards",
            ["", *quality.class_names],
            [
                [name, *row]
                for name, row in zip(quality.class_names, quality.confusion().tolist(), strict=True)
            ],
        )


def _show_skipped(images):
    if images.skipped:
        _say(f"{len(images.skipped)} files were skipped:")
        for reason in images.skipped:
            _say(f"  {reason}")


def _load_model(model, weights):
    """A model that takes raw images, and the names of its classes."""
    path = Path(model)
    if weights is None and (path.exists() or path.suffix or len(path.parts) > 1):
        return _load_file(path)

    from keras_resnet import zoo
    from keras_resnet.pretrained import load

    build = zoo.builder(model)
    weights = weights or keras_resnet.list_weights(model)[0].tag
    source = load.find(weights, model)
    labels = load.class_names(source)
    return build(weights=weights, classes=len(labels), include_preprocessing=True), labels


def _load_file(path):
    import keras

    from keras_resnet.resnet import deep_graphs

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"MODEL {str(path)!r}: there is no file {str(file)!r}.")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"MODEL {str(file)!r} is no .keras file, or not a whole one.")
    try:
        with deep_graphs():
            model = keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"MODEL {str(file)!r} cannot be loaded: {reason}") from error
    labels_file = file.with_name(LABELS_FILE)
    if labels_file.is_file():
        labels = labels_file.read_text(encoding="utf-8").splitlines()
    else:
        labels = [str(index) for index in range(model.output_shape[-1])]
    if len(labels) != model.output_shape[-1]:
        raise ValueError(
            f"{str(labels_file)!r} names {len(labels)} classes, the model has "
            f"{model.output_shape[-1]}."
        )
    return model, labels


def _some_images(split, options, count):
    """Images from all over a split, as `data.batches` makes them."""
    import numpy as np

    from keras_resnet import data

    some = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return np.concatenate([images for images, _ in data.batches(split.take(some), **options)])


def _input_of(net, images=None):
    """What `data.batches` must make for a net; a net of any size takes what suits the images."""
    from keras_resnet.graphs import crop_of

    height, _, channels = net.input_shape[1:]
    size = height or (images.image_size if images else 224)
    return {"image_size": size, "channels": channels, "crop": crop_of(net)}


def _summarize(name, options):
    from keras_resnet import analysis, zoo

    model = zoo.builder(name)(weights=None, **options)
    stages = analysis.complexity(model)
    return {
        "model": model.name,
        "input_shape": list(model.input_shape[1:]),
        "layers": sum(stage.layers for stage in stages),
        "parameters": sum(stage.parameters for stage in stages),
        "macs": sum(stage.macs for stage in stages),
        "stages": [vars(stage) for stage in stages],
    }


@contextlib.contextmanager
def _answer(as_json):
    """Run a command: with --json, its answer alone goes to standard output, as JSON."""
    answer = {}
    with (
        contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(),
        _notices_in_a_line(),
    ):
        _import_tensorflow()
        yield answer
    if as_json and answer:  # workers that are not the chief have none
        click.echo(json.dumps(answer))


@contextlib.contextmanager
def _notices_in_a_line():
    """What the package logs and warns of, on standard error, without line numbers."""
    logger, handler = logging.getLogger("keras_resnet"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: click.echo(f"Warning: {message}", err=True)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def _import_tensorflow():
    """Import TensorFlow without the lines that it writes before its log level counts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silenced_libraries():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _silenced_libraries():
    """Keep what libraries write past Python off standard error; errors are raised all the same."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def _say(text):
    click.echo(text, file=sys.stdout)


def _table(title, columns, rows, left=1):
    import rich.box
    import rich.console
    import rich.table

    table = rich.table.Table(title=title or None, box=rich.box.SIMPLE, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    for row in rows:
        table.add_row(*map(str, row))
    # In a file or a pipe, a row is a line however long it is.
    width = None if sys.stdout.isatty() else 10_000
    # Names are data: what looks like markup in them is none.
    console = rich.console.Console(
        file=sys.stdout, width=width, markup=False, emoji=False, highlight=False
    )
    console.print(table)


def _size(shape):
    return "x".join(map(str, shape))


def _macs(count):
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"


if __name__ == "__main__":
    main()
