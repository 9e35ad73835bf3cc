"""The page of a comparison."""

from pathlib import Path
from statistics import mean, stdev

import numpy as np

from keras_resnet import pages
from keras_resnet.data.labels import LABELS
from keras_resnet.pages import Section, parts
from keras_resnet.runs.comparison import ComparisonRecord, are_folds, rows_of
from keras_resnet.runs.reporting.labels import short

_SHOWN, _LISTED, _SIDE = 24, 500, 160  # pictures of changed images, rows of them, pixels
_NAMED = 10  # runs up to which the plot has a legend

# The scores of every class: what metrics.json calls them, the one that is shown, and its heading.
_EACH = {
    "classification": ("per_class", "f1-score", "F1 score of each class"),
    "multilabel": ("per_label", "average_precision", "Average precision of each label"),
    "regression": ("per_value", "mean_absolute_error", "Mean absolute error of each value"),
    "detection": ("per_class", "AP", "AP of each class"),
}
_ALONE = {
    "classification": "alone is right on",
    "multilabel": "alone has all labels right on",
    "regression": "is closer to the true values on",
    "detection": "alone makes no errors on",
}
"""What it means to do better on an image than another run."""


def page(record: ComparisonRecord) -> str:
    """The page of a comparison.

    Parameters
    ----------
    record : ComparisonRecord
        The comparison.

    Returns
    -------
    str
    """
    folds, two = are_folds(record.runs), len(record.names) == 2
    title = " and ".join(record.names) if two else f"{len(record.names)} runs"
    lead = [parts.facts(_facts(record))]
    if two and record.pairs:
        lead.append(parts.text(_verdict(record)))
    found = [
        _settings(record),
        *_metrics(record, folds),
        _training(record),
        _each(record),
        None if two else _pairs(record),
        _changed(record),
    ]
    return pages.rendered(
        "sections.html",
        title=f"Cross-validation, {len(record.names)} folds" if folds else title,
        lead=[*lead, *map(parts.note, record.notes)],
        sections=[section for section in found if section],
    )


def _facts(record):
    names, noun = record.runs[0].names, LABELS[record.task].noun
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return [
        ("Task", record.task),
        ("Classes" if noun == "class" else f"{noun.capitalize()}s", ", ".join(names[:12]) + more),
        *zip(record.names, map(_trained, record.runs), strict=True),
        ("Test images in common", record.images),
    ]  # fmt: skip


def _trained(run):
    """The model of a run, and how long it took."""
    model, source = (run.metrics.get(name, "unknown") for name in ("model", "data"))
    return f"{model}, trained on {source} in {_duration(run.metrics.get('seconds'))}"


def _duration(seconds):
    if seconds is None:
        return "an unknown time"
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _verdict(record):
    """Which of two runs is better, and whether that may be chance."""
    (found,) = record.pairs
    test = "sign test" if record.task == "regression" else "McNemar's exact test"
    return (
        f"Of the {record.images:,} test images in common, {_better(record)} If the two were "
        "equally good, a difference at least this large would arise by chance with a probability "
        f"of {found.p:.2g} ({test}). This compares these two models only: another seed may change "
        "more."
    )


def _better(record):
    """How many images each of two runs does better on, in words."""
    ((first, second),) = (each.better for each in record.pairs)
    one, other = record.names
    return f"{one} {_ALONE[record.task]} {first:,}, {other} on {second:,}."


def _settings(record):
    """The settings that differ and, folded away, the others."""
    differ = [[name, *map(_value, values)] for name, values in record.settings.items()]
    if differ:
        shown = [parts.table(["setting", *record.names], differ)]
    elif any(run.asked for run in record.runs):
        shown = [parts.text("None.")]
    else:
        shown = [parts.text("Unknown: these runs did not record their settings.")]
    same = [[name, _value(value)] for name, value in record.same.items()]
    if same:
        listed = parts.table(["setting", "value"], same)
        shown.append(parts.details(f"Settings in common: {len(same)}", listed))
    return Section("Settings that differ", shown)


def _value(value):
    """A setting as text."""
    if value is None:
        return pages.number(None)
    return f"{value:,}" if type(value) is int else str(value)


def _metrics(record, folds):
    """The metrics on the images of each run and, if they differ, on those in common."""
    same = _same_images(record)
    own = _with_difference("metric", record.metrics, record, folds)
    yield Section("On the test images" if same else "On each run's own test images", [own])
    if record.common and not same:
        common = _with_difference("metric", record.common, record)
        yield Section(f"On the {record.images:,} images in common", [common])


def _same_images(record):
    return all(len(rows_of(run)) == record.images for run in record.runs)


def _with_difference(what, found, record, folds=False):
    """A column for each run; for two runs, also their difference, for folds, mean and deviation."""
    two = len(record.names) == 2 and not folds
    more = ["difference"] if two else ["mean", "standard deviation"] if folds else []
    rows = []
    for name, values in found.items():
        there = [value for value in values if value is not None]
        if folds:
            values = (*values, *((mean(there), stdev(there)) if len(there) > 1 else (None, None)))
        elif two:
            values = (*values, _difference(*values))
        rows.append([name, *values])
    return parts.table([what, *record.names, *more], rows)


def _difference(one, other):
    if one is None or other is None:
        return None
    return pages.Cell(f"{other - one:+.4g}", other - one)


def _each(record):
    """The score of each class, label or value, side by side."""
    key, score, heading = _EACH[record.task]
    scores = [run.metrics.get(key) or {} for run in record.runs]
    names = [name for name in record.runs[0].names if all(name in each for each in scores)]
    if not names:
        return None
    found = {name: tuple(each[name].get(score) for each in scores) for name in names}
    where = parts.text("Each run on its own test images.", quiet=True)
    shown = [] if _same_images(record) else [where]
    return Section(heading, [*shown, _with_difference(LABELS[record.task].noun, found, record)])


def _training(record):
    """Losses and the first metric of all runs over the epochs; None without any history."""
    named = [name.removeprefix("val_") for run in record.runs for name in run.history]
    named = [name for name in named if name != "stage"]
    metrics = [name for name in dict.fromkeys(named) if not name.endswith("loss")]
    shown = [*(["loss"] if "loss" in named else []), *metrics[:1]]
    if not shown:
        return None
    few = len(record.runs) <= _NAMED
    with pages.figure(len(shown), squeeze=False) as (drawn, ((*axes,),)):
        for axis, name in zip(axes, shown, strict=True):
            for index, (run, label) in enumerate(zip(record.runs, record.names, strict=True)):
                _curve(axis, run, name, label, pages.COLOURS[index % 6])
            axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axis.xaxis.get_major_locator().set_params(integer=True)
        if few:
            legend = drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
            for text in legend.get_texts():
                text.set_parse_math(False)  # names are data
    picture = pages.svg(drawn, "Losses and metrics of all runs over the epochs", "training")
    return Section("Training", [parts.shown(picture, _CAPTION)])


_CAPTION = (
    "Solid: validation images, or training images where none were held out. Dotted: training "
    "images. Diamond: the best epoch, whose weights the model has."
)


def _curve(axis, run, name, label, colour):
    train, held_out = run.history.get(name), run.history.get(f"val_{name}")
    main = held_out or train
    if not main:
        return
    epochs = range(1, len(main) + 1)
    axis.plot(epochs, main, color=colour, label=short(label))
    if held_out and train:
        axis.plot(epochs, train, color=colour, linestyle=":", linewidth=1)
    best = run.metrics.get("best_epoch")
    if isinstance(best, int) and 1 <= best <= len(main):
        axis.plot(best, main[best - 1], "D", color=colour, markersize=5)


def _pairs(record):
    """All pairs of several runs."""
    if not record.pairs:
        return None
    rows = [
        [*(record.names[run] for run in each.runs), *each.better, each.alike,
         pages.Cell(f"{each.p:.2g}", each.p)]
        for each in record.pairs
    ]  # fmt: skip
    what = (
        f"On the {record.images:,} test images in common. The probability is that of a difference "
        "at least this large arising by chance if the two were equally good. It is not corrected "
        "for the number of pairs."
    )
    columns = ["first", "second", "first is better", "second is better", "equal", "probability"]
    return Section("Pairs of runs", [parts.text(what, quiet=True), parts.table(columns, rows)])


def _changed(record):
    """The images that only some runs get right: some as pictures, more as rows of a table."""
    if not record.images:
        return None
    numbers = record.task == "regression"
    heading = "Images with different errors" if numbers else "Images that only some runs get right"
    changed, shown = record.changed[:_LISTED], record.changed[:_SHOWN]
    if not changed:
        return Section(heading, [parts.text("None.")])
    pictures = _pictures(record, shown)
    tiles = [
        (pictures[each.digest], _caption(record, each)) for each in shown if each.digest in pictures
    ]
    counts = _better(record) if len(record.pairs) == 1 else ""
    found = [parts.text(counts, "The largest differences come first.", quiet=True)]
    found += [parts.tiles(tiles)] if tiles else []
    if missing := len(shown) - len(tiles):
        found.append(parts.text(_gone(missing), quiet=True))
    total = f"{len(record.changed):,}"
    listed = f"{_LISTED} of {total}" if len(changed) < len(record.changed) else f"All {total}"
    table = parts.table(["image", *_truth(record), *record.names], _lines(record, changed))
    return Section(heading, [*found, parts.heading(listed), table])


def _gone(count):
    one = count == 1
    return (
        f"{count} {'image is' if one else 'images are'} not shown: changed or removed since the "
        "run."
    )


def _truth(record):
    """The column of true labels; for boxes, which would not fit, there is none."""
    return [] if record.task == "detection" else ["label"]


def _lines(record, changed):
    runs = range(len(record.names))
    return [
        [
            Path(each.image).name,
            *(each.label for _ in _truth(record)),
            *(_said(each, run) for run in runs),
        ]
        for each in changed
    ]


def _pictures(record, changed):
    """Some of the images, by digest, from the first run, as far as they are unchanged."""
    run, test = record.runs[0], record.tests[0]
    wanted, rows = {each.digest for each in changed}, rows_of(run)
    places = {row.digest: place for place, row in zip(test.places, test.rows, strict=True)}
    try:
        split, there = run.some("test", np.array([places[digest] for digest in wanted], int))
    except (ValueError, OSError, ImportError):  # the data can no longer be loaded
        return {}
    if not len(there):
        return {}
    *_, channels = split.image_set.shape or (3,)
    reader = split.image_set.reader(split.labels, channels)
    images = reader.elements().map(lambda element, _: reader.whole(element))
    return {
        rows[place].digest: pages.picture(
            image, Path(rows[place].image).name, side=_SIDE, shown=_SIDE
        )
        for place, image in zip(there.tolist(), images.as_numpy_iterator(), strict=True)
    }


def _caption(record, each):
    """The true label of an image, and each run's answer."""
    from markupsafe import Markup

    lines = [Markup("{}").format(Path(each.image).name)]
    lines += [Markup("label: <bdi>{}</bdi>").format(each.label) for _ in _truth(record)]
    for run, name in enumerate(record.names):
        mark = {True: "good", False: "bad", None: "quiet"}[each.right[run]]
        lines.append(Markup('<span class="{}">{}: {}</span>').format(mark, name, _said(each, run)))
    return Markup("<br>").join(lines)


def _said(each, run):
    """A run's answer, its probability, and a mark for right or wrong."""
    from markupsafe import Markup

    certainty = each.certainties[run]
    sure = "" if certainty is None else f" {certainty:.0%}"
    mark = {True: "\N{CHECK MARK} ", False: "\N{BALLOT X} ", None: ""}[each.right[run]]
    # bdi: a name written from right to left must not reorder the text around it.
    return Markup("{}<bdi>{}</bdi>{}").format(mark, each.answers[run], sure)
