"""The page of a comparison."""

from pathlib import Path
from statistics import mean, stdev

from keras_resnet import pages
from keras_resnet.data.labels import LABELS
from keras_resnet.runs.comparison import ComparisonRecord, are_folds
from keras_resnet.runs.finished import each_shown

_SHOWN, _LISTED, _SIDE = 24, 500, 160  # changed images, lines of them, pixels
_CURVES = 10  # runs up to which each has a name in the plot
_LETTERS = 24  # of a name in a plot

# The table of each class: what metrics.json calls it, the column, how the table is headed.
_EACH = {
    "classification": ("per_class", "f1-score", "F1 score of each class"),
    "multilabel": ("per_label", "average_precision", "Average precision of each label"),
    "regression": ("per_value", "mean_absolute_error", "Mean absolute error of each value"),
    "detection": ("per_class", "AP", "AP of each class"),
}
_SIDES = {
    "regression": ("Images that one run is nearer to", "is nearer to the truth on"),
    "detection": ("Images that changed sides", "alone makes no error on"),
}
_SIDE_OF_OTHERS = ("Images that changed sides", "alone is right on")


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
    names, folds = list(record.names), are_folds(record.runs)
    what = "Folds of a cross-validation" if folds else "Comparison of runs"
    if len(names) == 2 and not folds:
        what = f"{names[0]} and {names[1]}"
    several = len(record.pairs) > 1
    pairs = [_pair_row(record, each) for each in record.pairs] if several else []
    return pages.rendered(
        "comparison.html",
        title=what,
        names=names,
        facts=_facts(record),
        sentences=[] if several else [_verdict(record, each) for each in record.pairs],
        notes=record.notes,
        settings=[[name, *map(_value, values)] for name, values in record.settings.items()],
        same=[[name, _value(value)] for name, value in record.same.items()],
        known=any(run.asked for run in record.runs),
        metrics=[*_metric_tables(record, folds)],
        curves=_curves(record),
        each=_each(record),
        pairs=pairs,
        pair_columns=_PAIR_COLUMNS,
        changed=_changed(record) if record.images else None,
    )


def _facts(record):
    first, noun = record.runs[0], LABELS[record.task].noun
    nouns = {"class": "Classes", "label": "Labels", "number": "Numbers"}[noun]
    names = first.class_names
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return [
        ("Task", record.task),
        (nouns, shown),
        *zip(record.names, map(_trained, record.runs), strict=True),
        ("Test images in common", record.images),
    ]


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


def _value(value):
    """A setting as people read it."""
    if value is None:
        return pages.number(None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return value


def _verdict(record, pair):
    """Which of two runs is better, and whether that may be chance."""
    (one, other), (first, second) = (record.names[each] for each in pair.runs), pair.better
    _, does = _SIDES.get(record.task, _SIDE_OF_OTHERS)
    return (
        f"Of {record.images:,} test images in common, {one} {does} {first:,}, {other} on "
        f"{second:,}. If chance alone decided such images, a difference at least as large would "
        f"come up with a probability of {pair.p:.2g} ({_TEST[record.task == 'regression']}). "
        "Another seed may change more than that: the test is about these two models."
    )


_TEST = {False: "McNemar's exact test", True: "sign test"}
_PAIR_COLUMNS = ["one", "other", "only one is better", "only the other", "alike", "probability"]


def _pair_row(record, pair):
    names = (record.names[each] for each in pair.runs)
    return [*names, *pair.better, pair.alike, pages.Cell(f"{pair.p:.2g}", pair.p)]


def _metric_tables(record, folds):
    """The metrics on the images of each run and, if they differ, on those in common."""
    own = "On the test images" if _same_images(record) else "On its own test images"
    yield own, *_with_difference("metric", record.metrics, record, folds)
    if record.common and not _same_images(record):
        heading = f"On the {record.images:,} images in common"
        yield heading, *_with_difference("metric", record.common, record, False)


def _same_images(record):
    return all(len(run.images.rows["test"]) == record.images for run in record.runs)


def _with_difference(what, found, record, folds=False):
    """A table with a column for each run and, of two, what the second has more; of folds, means."""
    columns, rows = [what, *record.names], []
    two = len(record.names) == 2 and not folds
    columns += ["difference"] if two else ["mean", "spread"] if folds else []
    for name, values in found.items():
        there = [value for value in values if value is not None]
        more = []
        if folds:
            more = [mean(there), stdev(there)] if len(there) > 1 else [None, None]
        elif two:
            more = [_difference(values)]
        rows.append([name, *values, *more])
    return columns, rows


def _difference(values):
    if None in values:
        return None
    difference = values[1] - values[0]
    return pages.Cell(f"{difference:+.4g}", difference)


def _each(record):
    """The score of each class, label or value, side by side."""
    key, score, heading = _EACH[record.task]
    scores = [run.metrics.get(key) or {} for run in record.runs]
    names = [name for name in record.runs[0].class_names if all(name in each for each in scores)]
    if not names:
        return None
    found = {name: tuple(each[name].get(score) for each in scores) for name in names}
    columns, rows = _with_difference(LABELS[record.task].noun, found, record)
    own = "" if _same_images(record) else ", each run on its own test images"
    return {
        "heading": heading,
        "what": f"A click on the head of a column sorts by it{own}.",
        "columns": columns,
        "rows": rows,
    }


def _curves(record):
    """Losses and the first metric of all runs over the epochs; None without any history."""
    histories = [run.history for run in record.runs]
    named = [name.removeprefix("val_") for history in histories for name in history]
    shown = ["loss", *(name for name in dict.fromkeys(named) if name.split("_")[-1] != "loss")][:2]
    shown = [name for name in shown if name in named]
    if not shown:
        return None
    few = len(record.runs) <= _CURVES
    with pages.figure(len(shown), squeeze=False) as (drawn, ((*axes,),)):
        for axis, name in zip(axes, shown, strict=True):
            for index, (run, label) in enumerate(zip(record.runs, record.names, strict=True)):
                _curve(axis, run, name, label if few else None, pages.COLOURS[index % 6])
            axis.set(xlabel="epoch", ylabel=name.replace("_", " "))
            axis.xaxis.get_major_locator().set_params(integer=True)
        if few:
            legend = drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
            for text in legend.get_texts():
                text.set_parse_math(False)  # names are data
    return pages.svg(drawn, "Losses and metrics of all runs over the epochs", "curves")


def _curve(axis, run, name, label, colour):
    label = label and (
        label if len(label) <= _LETTERS else f"\N{HORIZONTAL ELLIPSIS}{label[-_LETTERS:]}"
    )
    train, held_out = run.history.get(name), run.history.get(f"val_{name}")
    main = held_out or train
    if not main:
        return
    epochs = range(1, len(main) + 1)
    axis.plot(epochs, main, color=colour, label=label)
    if held_out and train:
        axis.plot(epochs, train, color=colour, linestyle=":", linewidth=1)
    best = run.metrics.get("best_epoch")
    if isinstance(best, int) and 1 <= best <= len(main):
        axis.plot(best, main[best - 1], "D", color=colour, markersize=5)


def _changed(record):
    """The images that the runs do not agree on: some as pictures, most as lines."""
    heading, does = _SIDES.get(record.task, _SIDE_OF_OTHERS)
    count = len(record.changed)
    shown, listed = record.changed[:_SHOWN], record.changed[:_LISTED]
    pictures = _pictures(record, shown)
    tiles = [(pictures[each.digest], _caption(record, each)) for each in shown
             if each.digest in pictures]  # fmt: skip
    counts = " ".join(
        f"{record.names[a]} {does} {first:,}, {record.names[b]} on {second:,}."
        for (a, b), (first, second) in ((each.runs, each.better) for each in record.pairs[:1])
        if len(record.pairs) == 1
    )
    lines = [
        [Path(each.image).name, *([] if record.task == "detection" else [each.label]),
         *(_said(each, index) for index in range(len(record.names)))]
        for each in listed
    ]  # fmt: skip
    truth = [] if record.task == "detection" else ["label"]
    return {
        "heading": heading,
        "count": count,
        "what": f"{counts} First those that the runs differ on the most.".strip(),
        "tiles": tiles,
        "missing": "" if len(tiles) == len(shown) else _gone(len(shown) - len(tiles)),
        "listed": f"The first {len(listed):,} of {count:,}"
        if len(listed) < count
        else "All of them",
        "columns": ["image", *truth, *record.names],
        "rows": lines,
    }


def _gone(count):
    one = count == 1
    return (
        f"{count} {'image is' if one else 'images are'} not shown: changed since, or not to be "
        "found any more."
    )


def _pictures(record, changed):
    """Some of the images, by digest, from the first run that still has them."""
    rows = {row.digest: row for row in record.tests[0].rows}
    alt = {each.digest: f"{Path(each.image).name}, is {each.label}" for each in changed}
    wanted = [rows[each.digest] for each in changed]
    return each_shown(record.runs[0], wanted, _SIDE, alt)


def _caption(record, each):
    """What each run said of an image."""
    from markupsafe import Markup

    lines = [Markup("{}").format(Path(each.image).name)]
    if record.task != "detection":
        lines.append(Markup("is <bdi>{}</bdi>").format(each.label))
    for index, name in enumerate(record.names):
        mark = {True: "good", False: "bad", None: "quiet"}[each.right[index]]
        lines.append(
            Markup('<span class="{}">{}: {}</span>').format(mark, name, _said(each, index))
        )
    return Markup("<br>").join(lines)


def _said(each, index):
    """An answer, how certain it was, and a sign of whether it is right."""
    from markupsafe import Markup

    certainty = each.certainties[index]
    sure = "" if certainty is None else f" {certainty:.0%}"
    mark = {True: "\u2713 ", False: "\u2717 ", None: ""}[each.right[index]]
    # Names that are written from right to left leave their surroundings as they are.
    return Markup("{}<bdi>{}</bdi>{}").format(mark, each.answers[index], sure)
