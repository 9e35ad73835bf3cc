"""`keras-resnet data`, `weights` and `summary`: what there is, before anything is trained."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

import keras_resnet
from keras_resnet.cli import options
from keras_resnet.cli.console import (
    ROWS_SHOWN,
    Mistake,
    answer,
    extremes,
    macs,
    say,
    size,
    table,
)

_SHOWN = 10  # groups of identical images, and images of a group


@click.command()
@click.argument("source")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write some images of every class, a PNG file.",
)
@options.task
@options.as_json
def data(source, sheet, task, as_json):
    """Look over a data set: classes, counts, sizes, damaged files, duplicates across splits.

    SOURCE is what `train --data` takes.
    """
    with answer(as_json) as found:
        from keras_resnet import analysis
        from keras_resnet import data as sources
        from keras_resnet.data.skipped import is_damaged, summary
        from keras_resnet.runs.guards import check_writable

        if sheet:
            check_writable(sheet.parent)
        images = sources.load(source, on_error="skip", task=task)
        overview = analysis.overview(images)
        found.update(dataclasses.asdict(overview))
        kind = _KINDS[images.task]
        kind.show(images, overview)
        smallest, largest, median = map(
            size, (overview.smallest, overview.largest, overview.median)
        )
        say(f"Pixels: {smallest} to {largest}, median {median}.")
        say(f"Images that cannot be read: {len(overview.damaged)}.")
        for reason in summary(overview.damaged):
            say(f"  {reason}")
        others = [line for line in overview.skipped if not is_damaged(line)]
        if others:
            say(f"{kind.left_out}: {len(others)}.")
            for reason in summary(others):
                say(f"  {reason}")
        say(f"Images that are in more than one split: {len(overview.duplicates)}.")
        for group in overview.duplicates[:_SHOWN]:
            more = f" and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
            say(f"  the same: {', '.join(group[:_SHOWN])}{more}")
        if len(overview.duplicates) > _SHOWN:
            say(f"  and {len(overview.duplicates) - _SHOWN} more")
        if sheet:
            getattr(analysis, kind.sheet)(sheet, images, classes=kind.rows)
            are_all = len(images.class_names) <= kind.rows
            of = "every class" if are_all else f"{kind.rows} classes"
            say(f"{sheet}: some images of {of}")


def _show_classes(images, overview):
    """Images of every class, by split."""
    _show_counts(images, overview, "class", "classes")
    say(f"The largest class has {overview.imbalance:.1f} times as many images as the smallest.")


def _show_labels(images, overview):
    """Images with every label, by split, and those with none."""
    without = ["without a label", *(f"{count:,}" for count in overview.unlabelled.values())]
    _show_counts(images, overview, "label", "labels", without)
    say(
        f"The most frequent label is on {overview.imbalance:.1f} times as many images as the "
        "rarest."
    )


def _show_counts(images, overview, noun, nouns, *others):
    count = len(images.class_names)
    title, shown = extremes(
        f"{images.name}, {count:,} {noun if count == 1 else nouns}",
        overview.counts["train"],
        "the most training images",
        "the fewest",
    )
    rows = [
        [
            overview.class_names[index],
            *(f"{counts[index]:,}" for counts in overview.counts.values()),
        ]
        for index in shown
    ]
    everything = ["all", *(f"{len(split):,}" for split in images.splits.values())]
    table(title, [noun, *overview.counts], [*rows, *others, everything])


def _show_values(images, overview):
    """The range of values, by split."""
    rows = [
        [
            split,
            name,
            f"{len(images.splits[split]):,}",
            *(f"{each:.4g}" for each in (found.smallest, found.mean, found.largest)),
        ]
        for split, ranges in overview.values.items()
        for name, found in zip(overview.class_names, ranges, strict=True)
    ]
    title = f"{images.name}, numbers to predict"
    table(title, ["split", "", "images", "smallest", "mean", "largest"], rows, left=2)


def _show_boxes(images, overview):
    """Boxes of every class, by split and by size, and images without any."""
    count, found = len(images.class_names), overview.boxes
    title, shown = extremes(
        f"{images.name}, {count:,} {'class' if count == 1 else 'classes'} of boxes",
        overview.counts["train"],
        "the most training boxes",
        "the fewest",
    )
    columns = dict(overview.counts)
    for name in ("small", "medium", "large"):
        of_splits = [getattr(each, name) for each in found.values()]
        columns[name] = [*map(sum, zip(*of_splits, strict=True))]
    rows = [[overview.class_names[row], *(each[row] for each in columns.values())] for row in shown]
    rows += [
        ["all boxes", *map(sum, columns.values())],
        ["most in an image", *(each.most for each in found.values())],
        ["to ignore", *(each.ignored for each in found.values())],
        ["images", *map(len, images.splits.values())],
        ["without a box", *overview.unlabelled.values()],
    ]
    texts = [[name, *(f"{number:,}" for number in numbers)] for name, *numbers in rows]
    table(title, ["class", *columns], texts)
    say("Small boxes are of less than 32x32 pixels, large ones of 96x96 or more.")
    say(f"The most frequent class has {overview.imbalance:.1f} times as many boxes as the rarest.")


class _Kind(NamedTuple):
    """How data of a task is shown."""

    show: Callable
    sheet: str = "class_sheet"  # of `analysis`
    rows: int = ROWS_SHOWN  # of the sheet
    left_out: str = "Files and folders that are not used"


_KINDS = {
    "classification": _Kind(_show_classes),
    "multilabel": _Kind(_show_labels),
    "regression": _Kind(_show_values),
    "detection": _Kind(
        _show_boxes,
        "box_sheet",
        8,
        "Files, folders and boxes that are left out or cut",
    ),
}


@click.command()
@click.argument("model", required=False)
@click.option("--name", help='Only models or tags like this: "resnet50*", "*.a1_in1k", "50d".')
@click.option("--data", help="Only for the classes of this data, such as ImageNet or COCO.")
@click.option(
    "--licence", multiple=True, help="Only under this licence, such as Apache-2.0; may be repeated."
)
@click.option(
    "--commercial/--no-commercial",
    default=None,
    help="Only for commercial use, or only what is not.",
)
@click.option("--min-top1", type=float, help="Only with at least this accuracy, in percent.")
@click.option("--max-parameters", type=float, help="Only with at most so many, such as 30e6.")
@options.as_json
def weights(model, as_json, licence, **filters):
    """List the pretrained weights of all models, or of MODEL.

    They are looked for in the folder that KERAS_RESNET_WEIGHTS names, then in Keras' cache, then
    downloaded. "pixels" and "crop" are those of the published accuracy.
    """
    with answer(as_json) as found:
        rows = keras_resnet.list_weights(model, licence=licence or None, **filters)
        found["weights"] = [dataclasses.asdict(row) for row in rows]
        if rows:
            table("", rows.columns, rows.cells(), left=2)
        else:
            say("No weights are like this.")


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="One line per model.")
@options.image_size("224, CIFAR models 32, detectors 800x1333", options.FOR_DETECTORS)
@click.option(
    "--against",
    help="A classifier to put beside it, of this package or of keras.applications, such as VGG19.",
)
@options.as_json
def summary(name, everything, image_size, against, as_json):
    """Show layers, output shapes, parameters and multiply-adds of a model, stage by stage.

    Of a detector, multiply-adds are those of an image with all of its proposals.
    """
    if everything == bool(name):
        raise Mistake("give the NAME of a model, or --all.")
    if against is not None and everything:
        raise Mistake("--against goes with the NAME of a model, not with --all.")
    with answer(as_json) as found:
        from keras_resnet import detection, zoo

        if name:
            found.update(_summary(name, image_size))
            if against is not None:
                found["against"] = _against(found, against)
            _show_stages(found)
            if against is not None:
                _show_against(found)
            return
        cifar = [f"CIFARResNet{depth}" for depth in zoo.CIFAR_DEPTHS]
        cifar += [f"CIFARResNetV2_{depth}" for depth in (110, 164, 1001)]
        models = [*zoo.MODELS, *cifar, *detection.DETECTORS]
        found["models"] = [_summary(each, image_size, built=False) for each in models]
        table(
            "The family",
            ["model", "image", "layers", "parameters", "multiply-adds"],
            [
                [each, size(model["input_shape"]), *_totals(model)]
                for each, model in zip(models, found["models"], strict=True)
            ],
        )


def _summary(name, image_size, *, built=True):
    """A model in numbers."""
    from keras_resnet.runs import objects

    of_classes = _classifier if built else _planned
    summarize = _detector if objects.architecture(name) else of_classes
    found, stages = summarize(name, image_size)
    return {
        **found,
        "layers": sum(stage.layers for stage in stages),
        "parameters": sum(stage.parameters for stage in stages),
        "macs": sum(stage.macs for stage in stages),
        "stages": [vars(stage) for stage in stages],
    }


def _classifier(name, image_size):
    """A classifier, and its stages."""
    from keras_resnet import analysis, zoo
    from keras_resnet.layers.view import sides

    given = {"input_shape": (*sides(image_size), 3)} if image_size else {}
    model = zoo.builder(name)(weights=None, **given)
    shape = list(model.input_shape[1:])
    return {"model": model.name, "input_shape": shape}, analysis.complexity(model)


def _planned(name, image_size):
    """A classifier, and its stages by its plan: many take long to build, or much memory."""
    from keras_resnet import analysis, zoo
    from keras_resnet.layers.view import sides
    from keras_resnet.resnet import STEMS

    architecture = zoo.architecture(name)
    default = STEMS[architecture.stem].image_size
    height, width = sides(image_size) if image_size else (default, default)
    stages = analysis.planned(
        architecture, (height, width), 10 if name.startswith("CIFAR") else 1000
    )
    return {"model": zoo.default_name(name), "input_shape": [height, width, 3]}, stages


def _detector(name, image_size):
    """A detector with its proposals, and its stages."""
    from keras_resnet import detection
    from keras_resnet.runs import objects

    model = objects.detector(name, 90, **objects.resized(image_size))
    seen = detection.parts_of(model).options
    found = {
        "model": model.name,
        "input_shape": [seen.min_size, seen.max_size, 3],
        "proposals": seen.rpn_post_nms_top_n_test,
    }
    return found, detection.complexity(model)


def _against(model, name):
    """Another model, to put beside a classifier."""
    import keras

    from keras_resnet import analysis, names, zoo

    if "proposals" in model:
        raise Mistake("--against compares classifiers, not detectors.")
    height, width, _ = model["input_shape"]
    theirs = [each for each in dir(keras.applications) if each[0].isupper()]
    cifar = [f"CIFARResNet{depth}" for depth in zoo.CIFAR_DEPTHS]
    name = names.find("against", name, [*theirs, *zoo.MODELS, *cifar])
    if name in zoo.MODELS or name in cifar:
        classes = 10 if name in cifar else 1000
        stages = analysis.planned(zoo.architecture(name), (height, width), classes)
    else:
        build = getattr(keras.applications, name)
        stages = analysis.complexity(build(weights=None, input_shape=(height, width, 3)))
    all_of_it = analysis.total(stages)
    return {
        "model": name,
        "layers": all_of_it.layers,
        "parameters": all_of_it.parameters,
        "macs": all_of_it.macs,
        "fraction": model["macs"] / all_of_it.macs,
        "stages": [vars(stage) for stage in stages],
    }


def _show_against(model):
    """Two models side by side."""
    from keras_resnet import analysis

    other = model["against"]
    rows = analysis.compare(
        *(
            [analysis.StageComplexity(**stage) for stage in each["stages"]]
            for each in (model, other)
        )
    )
    table(
        f"{model['model']} against {other['model']}, multiply-adds",
        ["map", "stage", "", "its stage", "", "fraction"],
        [
            [
                size(row.output_size) or "none",
                *(text for each in (row.stage, row.other) for text in _stage_and_macs(each)),
                "" if row.fraction is None else f"{row.fraction:.1%}",
            ]
            for row in rows
        ],
    )
    say(
        f"{model['model']} has {other['fraction']:.1%} of the multiply-adds of {other['model']}, "
        f"and {model['parameters'] / other['parameters']:.1%} of its parameters."
    )


def _stage_and_macs(stage):
    return ["", ""] if stage is None else [stage.name, macs(stage.macs)]


def _totals(model):
    return [model["layers"], f"{model['parameters']:,}", macs(model["macs"])]


def _show_stages(model):
    proposals = f", {model['proposals']:,} proposals" if "proposals" in model else ""
    table(
        f"{model['model']}, {size(model['input_shape'])}{proposals}",
        ["stage", "output", "layers", "parameters", "multiply-adds"],
        [
            *(
                [stage["name"], size(stage["output_shape"]), *_totals(stage)]
                for stage in model["stages"]
            ),
            ["total", "", *_totals(model)],
        ],
    )
