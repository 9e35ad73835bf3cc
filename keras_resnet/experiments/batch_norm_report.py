"""The report of `batch_norm`: numbers, tables and figures."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_resnet import blocks, zoo
from keras_resnet.experiments.batch_norm_trials import (
    GROUPS,
    MOMENTUM,
    PASSES,
    PRECISIONS,
    TUNED,
    BatchNormSettings,
    reference_run,
    runs_by_momentum,
    runs_by_rate,
    runs_by_size,
)
from keras_resnet.experiments.experiment import Report, Results, Table
from keras_resnet.experiments.figures import bars, published, spread
from keras_resnet.experiments.trainings import mean_and_deviation
from keras_resnet.pages import COLOURS, figure

# ResNet-50 on ImageNet, top-1 error in percent, by images per GPU, whose statistics are taken
# separately: Wu and He 2018, table 2.
PUBLISHED = {
    "batch": {2: 34.7, 4: 27.3, 8: 24.8, 16: 23.7, 32: 23.6},
    "group": {2: 24.1, 4: 24.2, 8: 24.0, 16: 24.2, 32: 24.1},
}


class Section(NamedTuple):
    """A part of the page: its numbers, and a table and a figure of the same name."""

    name: str
    values: dict[str, Any]
    table: Table
    figure: Any


def report(settings: BatchNormSettings, results: Results) -> Report:
    """What the trials of some settings found."""

    def of(run):
        return [results[run.trial(seed)] for seed in range(settings.seeds)]

    reference = of(reference_run(settings))
    guessing = 1 - 1 / reference[0]["classes"]
    sections = (
        _of_rates(settings, of, guessing),
        _of_sizes(settings, of, guessing),
        _of_neighbours(settings, reference),
        _of_momenta(settings, of),
        _of_tuning(settings, reference),
        _of_biases([results[f"bias-{seed}"] for seed in range(settings.seeds)]),
    )
    values = {"depth": settings.depth, "guessing": guessing, "groups": GROUPS}
    for section in sections:
        values |= section.values
    return Report(
        values,
        {section.name: section.table for section in sections},
        {section.name: section.figure for section in sections},
    )


def _ends(found, key="moving"):
    """The last numbers of the trainings that did not diverge."""
    kept = [each[key] for each in found if not _has_diverged(each)]
    return [each[-1] if isinstance(each, list) else each for each in kept]


def _summary(values: Sequence[float]):
    return mean_and_deviation(values) if values else (None, None)


def _has_diverged(result):
    return result.get("diverged", False)


def _lost(found):
    return sum(map(_has_diverged, found))


def compared(some: Sequence[float], others: Sequence[float]) -> str:
    """Say whether some numbers are higher or lower than others by more than both scatter.

    Parameters
    ----------
    some, others : sequence of float
        One for each seed.

    Returns
    -------
    {"higher", "lower", "alike", "unknown"}
        "unknown" without two of each, which have no scatter.

    Examples
    --------
    >>> from keras_resnet.experiments.batch_norm_report import compared
    >>> compared([0.9, 0.8], [0.1, 0.2]), compared([0.1, 0.5], [0.3, 0.4]), compared([1.0], [0.0])
    ('higher', 'alike', 'unknown')
    """
    if min(len(some), len(others)) < 2:
        return "unknown"
    difference = statistics.mean(some) - statistics.mean(others)
    if abs(difference) <= math.hypot(statistics.stdev(some), statistics.stdev(others)):
        return "alike"
    return "higher" if difference > 0 else "lower"


def _of_rates(settings, of, guessing):
    """Errors by learning rate, with and without BatchNormalization."""
    found = {
        kind: {run.learning_rate: of(run) for run in runs_by_rate(settings, kind)}
        for kind in ("batch", "none")
    }
    rows, best = [], {}
    values: dict[str, Any] = {"rates_tried": sorted(settings.learning_rates)}
    for kind, runs in found.items():
        for rate, its in runs.items():
            errors = (_summary(_ends(its, key)) for key in ("error", "test_error"))
            rows.append([kind, rate, *itertools.chain(*errors), _lost(its)])
        whole = {rate: _ends(its, "test_error") for rate, its in runs.items() if not _lost(its)}
        highest = max((rate for rate in whole if _learned(runs[rate], guessing)), default=None)
        rate = min(whole, key=lambda rate: statistics.mean(whole[rate]), default=None)
        best[kind] = [] if rate is None else whole[rate]
        values |= {
            f"{kind}_highest_rate": highest,
            f"{kind}_highest_error": highest and _summary(whole[highest])[0],
            f"{kind}_best_rate": rate,
            f"{kind}_best_error": _summary(best[kind])[0],
            f"{kind}_diverged": [rate for rate, its in runs.items() if _lost(its)],
        }
    values["best_verdict"] = compared(best["none"], best["batch"])
    errors = ("error", "error_sd", "test_error", "test_error_sd")
    table = Table(("kind", "learning_rate", *errors, "diverged"), rows, errors)
    return Section("rates", values, table, _rates_figure(found, guessing))


def _learned(its, guessing):
    """Whether the training loss ends at least 5 % below that of guessing, with every seed."""
    return not _lost(its) and max(_ends(its, "loss")) < 0.95 * -math.log(1 - guessing)


def _legend(drawn, *axes, columns=2):
    """A legend above all panels, where it hides nothing."""
    found = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    drawn.legend([*found.values()], [*found], loc="outside upper center", ncols=columns)


LABELS = {"batch": "BatchNormalization", "none": "no normalization", "group": "GroupNormalization"}


def _rates_figure(found, guessing):
    with figure(2, sharey=True) as (drawn, axes):
        for axis, key, title in zip(
            axes, ("error", "test_error"), ("training", "test"), strict=True
        ):
            for number, (kind, runs) in enumerate(found.items()):
                colour = COLOURS[number]
                whole = [rate for rate, its in runs.items() if not _lost(its)]
                if whole:
                    ends = [[100 * end for end in _ends(runs[rate], key)] for rate in whole]
                    bars(axis, whole, list(zip(*ends, strict=True)), LABELS[kind], color=colour)
                if lost := [rate for rate in runs if rate not in whole]:
                    height = [100 * guessing + 2 + 3 * number] * len(lost)
                    axis.plot(*(lost, height, "x"), color=colour, label=f"{LABELS[kind]}: diverged")
            axis.axhline(100 * guessing, color="#8a8a8a", linestyle=":", label="guessing")
            axis.set_xscale("log")
            axis.set_xlabel("learning rate")
            axis.set_ylabel(f"{title} error, %")
            axis.yaxis.set_tick_params(labelleft=True)
        _legend(drawn, *axes, columns=3)
    return drawn


def _of_sizes(settings, of, guessing):
    """Errors by batch size, with BatchNormalization and GroupNormalization."""
    found = {
        kind: {run: of(run) for run in runs_by_size(settings, kind)} for kind in ("batch", "group")
    }
    rows = [
        [
            *(kind, run.batch_size, run.learning_rate),
            *_summary(_ends(its, "error")),
            *_summary(_ends(its)),
            *(_summary(_ends(its, "batch")) if kind == "batch" else (None, None)),
        ]
        for kind, runs in found.items()
        for run, its in runs.items()
    ]
    ends = {
        kind: {run.batch_size: _ends(its) for run, its in runs.items()}
        for kind, runs in found.items()
    }
    small, large = min(settings.batch_sizes), max(settings.batch_sizes)
    values: dict[str, Any] = {"smallest": small, "largest": large}
    for kind in found:
        values |= {
            f"{kind}_smallest_error": _summary(ends[kind][small])[0],
            f"{kind}_largest_error": _summary(ends[kind][large])[0],
            f"{kind}_verdict": compared(ends[kind][small], ends[kind][large]),
            f"{kind}_sizes_not_learned": [
                run.batch_size for run, its in found[kind].items() if not _learned(its, guessing)
            ],
        }
    for name, size in {"smallest": small, "largest": large}.items():
        values[f"{name}_verdict"] = compared(ends["batch"][size], ends["group"][size])
    modes = {run.batch_size: its for run, its in found["batch"].items()}[small]
    values |= {
        "smallest_training_mode": _summary(_ends(modes, "batch"))[0],
        "modes_verdict": compared(_ends(modes), _ends(modes, "batch")),
    }
    errors = (
        *("error", "error_sd", "test_error", "test_error_sd"),
        *("test_error_training_mode", "test_error_training_mode_sd"),
    )
    table = Table(("kind", "batch_size", "learning_rate", *errors), rows, errors)
    return Section("sizes", values, table, _sizes_figure(found))


def _sizes_figure(found):
    lines = (
        ("batch", "moving", "BatchNormalization", {}),
        ("batch", "batch", "BatchNormalization, training mode", {"fmt": "s--"}),
        ("group", "moving", "GroupNormalization", {}),
    )
    colours = {"batch": COLOURS[0], "group": COLOURS[2]}
    with figure(2) as (drawn, (ours, theirs)):
        for kind, key, label, options in lines:
            runs = {run.batch_size: its for run, its in found[kind].items() if not _lost(its)}
            if runs:
                ends = [[100 * end for end in _ends(its, key)] for its in runs.values()]
                runs = [*runs], list(zip(*ends, strict=True))
                bars(ours, *runs, label, color=colours[kind], **options)
        for kind, errors in PUBLISHED.items():
            label = f"{LABELS[kind]}, published"
            published(theirs, [*errors], [*errors.values()], label, color=colours[kind])
        for axis, title in ((ours, "test error, %"), (theirs, "error on ImageNet, %")):
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set_ylabel(title)
        _legend(drawn, ours, theirs)
        ours.set_xlabel("images per step")
        theirs.set_xlabel("images per GPU")
    return drawn


def _of_neighbours(settings, reference):
    """Errors in training mode by the images that are shown together."""
    sizes = settings.test_batch_sizes
    at = {
        size: {key: [its[key][index] for its in reference] for key in _NEIGHBOURS}
        for index, size in enumerate(sizes)
    }
    rows = [[size, *itertools.chain(*map(_summary, at[size].values()))] for size in sizes]
    small, large = min(sizes), max(sizes)
    changing = max(sizes, key=lambda size: statistics.mean(at[size]["changed"]))
    right, never = _ends(reference), _ends(reference, "never")
    values = {
        **{"inference_error": statistics.mean(right), "never_error": statistics.mean(never)},
        "never_verdict": compared(never, right),
        **{"test_smallest": small, "test_largest": large, "changed_most_size": changing},
        "changed_most": statistics.mean(at[changing]["changed"]),
        "alone_error": statistics.mean(at[small]["shuffled"]),
        "alone_verdict": compared(at[small]["shuffled"], right),
        "together_error": statistics.mean(at[large]["shuffled"]),
        "together_verdict": compared(at[large]["shuffled"], right),
        "sorted_error": statistics.mean(at[large]["sorted"]),
        "sorted_verdict": compared(at[large]["sorted"], at[large]["shuffled"]),
        "folded_change": max(its["folded_change"] for its in reference),
        "folded_left": max(its["folded_left"] for its in reference),
        "folded_same_error": all(its["folded_error"] == its["moving"] for its in reference),
    }
    columns = [column for key in _NEIGHBOURS for column in (key, f"{key}_sd")]
    table = Table(("test_batch_size", *columns), rows, columns)
    return Section("neighbours", values, table, _neighbours_figure(sizes, reference))


_NEIGHBOURS = {
    "shuffled": "batch statistics, shuffled",
    "sorted": "batch statistics, one class after the other",
    "changed": "answers that change with the neighbours",
}
"""What is measured in training mode, and what it is called in a figure."""


def _neighbours_figure(sizes, reference):
    order = np.argsort(sizes).tolist()
    shown = [sizes[index] for index in order]
    with figure(height=3.4) as (drawn, axis):
        for (key, label), colour in zip(_NEIGHBOURS.items(), COLOURS[1:], strict=False):
            runs = [[100 * its[key][index] for index in order] for its in reference]
            style = {"fmt": "^:"} if key == "changed" else {}
            bars(axis, shown, runs, label, color=colour, **style)
        runs = [[100 * its["moving"]] * len(sizes) for its in reference]
        spread(axis, shown, runs, "moving statistics", color=COLOURS[0])
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("test images per batch")
        axis.set_ylabel("test images, %")
        axis.set_ylim(0, 100)
        _legend(drawn, axis, columns=1)
    return drawn


def _of_momenta(settings, of):
    """Errors by epoch, for moving statistics of several momenta."""
    found = {run.momentum: of(run) for run in runs_by_momentum(settings)}
    reference = of(reference_run(settings))
    steps = settings.images and settings.epochs * math.ceil(settings.images / settings.batch_size)
    rows = [
        [
            *(momentum, steps and momentum**steps),
            *_summary(_ends(its, "error")),
            *_summary(_ends(its, "test_error")),
        ]
        for momentum, its in found.items()
    ]
    usual = _ends(reference, "test_error")
    default = keras.layers.BatchNormalization().momentum
    with_default = _ends(found.get(default, ()), "test_error")
    low, high = (_ends(found[each], "test_error") for each in (min(found), max(found)))
    losses = [
        abs(one["loss"][-1] - other["loss"][-1])
        for its in found.values()
        for one, other in zip(its, reference, strict=True)
        if not (_has_diverged(one) or _has_diverged(other))
    ]
    values = {
        **{"momentum": MOMENTUM, "momentum_error": _summary(usual)[0], "steps": steps},
        **{"momentum_low": min(found), "momentum_high": max(found)},
        **{"momentum_low_error": _summary(low)[0], "momentum_high_error": _summary(high)[0]},
        "momentum_low_verdict": compared(low, usual),
        "momentum_high_verdict": compared(high, usual),
        **{"momentum_default": default, "momentum_default_error": _summary(with_default)[0]},
        "momentum_default_verdict": compared(with_default, usual),
        "momentum_high_left": steps and max(found) ** steps,
        "loss_difference": max(losses, default=None),
    }
    percent = ("left", "error", "error_sd", "test_error", "test_error_sd")
    table = Table(("momentum", *percent), rows, percent)
    return Section("momenta", values, table, _momenta_figure(settings, found))


def _momenta_figure(settings, found):
    epochs = range(1, settings.epochs + 1)
    with figure(height=3.0) as (drawn, axis):
        for (momentum, its), colour in zip(sorted(found.items()), itertools.cycle(COLOURS)):
            runs = [[100 * error for error in each["test_error"]] for each in its if "loss" in each]
            if runs:
                spread(axis, epochs, runs, f"momentum {momentum:g}", color=colour, marker=".")
        axis.set_xlabel("epoch")
        axis.set_ylabel("test error, %")
        axis.xaxis.get_major_locator().set_params(integer=True)
        _legend(drawn, axis)
    return drawn


MODES = {"moving": "inference mode", "batch": "training mode"}
"""What BatchNormalization is left in during fine-tuning."""


def _of_tuning(settings, reference):
    """Errors while a head, or everything, is fine-tuned in small batches."""
    found = {
        (part, mode): np.array([its[f"{part}_{mode}"] for its in reference])
        for part in TUNED
        for mode in MODES
    }
    last, first = (np.argmax(settings.tuning_steps), np.argmin(settings.tuning_steps))
    rows = [
        [
            *place,
            float(errors[:, first].mean()),
            float(errors.mean(0).max()),
            *_summary(errors[:, last].tolist()),
        ]
        for place, errors in found.items()
    ]
    values: dict[str, Any] = {
        **{"tuning_rates": TUNED, "tuning_last": max(settings.tuning_steps)},
        **{f"{part}_{mode}_error": row[4] for (part, mode), row in zip(found, rows, strict=True)},
        **{f"{part}_{mode}_worst": row[3] for (part, mode), row in zip(found, rows, strict=True)},
        **{
            f"{part}_tuning_verdict": compared(
                *(found[part, mode][:, last].tolist() for mode in ("batch", "moving"))
            )
            for part in TUNED
        },
    }
    percent = ("first", "worst", "last", "last_sd")
    table = Table(("learns", "mode", *percent), rows, percent)
    return Section("tuning", values, table, _tuning_figure(settings, found))


def _tuning_figure(settings, found):
    order = np.argsort(settings.tuning_steps).tolist()
    steps = [settings.tuning_steps[index] for index in order]
    titles = {"head": "frozen backbone, new head", "all": "everything learns"}
    with figure(2) as (drawn, axes):
        for axis, (part, title) in zip(axes, titles.items(), strict=True):
            for (mode, label), colour in zip(MODES.items(), COLOURS, strict=False):
                runs = 100 * found[part, mode][:, order]
                spread(axis, steps, runs, f"BN in {label}", color=colour, marker=".")
            axis.set_xlabel(f"steps, {title}")
            axis.set_ylabel("test error, %")
        _legend(drawn, axes[0])
    return drawn


def _of_biases(found):
    """What biases before a normalization change."""
    measures = ("training", "gradient", "shifted")
    rows = [
        [
            precision,
            *(max(its[f"{precision}_{name}"] for its in found) for name in measures),
            *(max(its[f"{precision}_inference"][place] for its in found) for place in (0, -1)),
        ]
        for precision in PRECISIONS
    ]
    plan = [
        each
        for each in zoo.architecture("ResNet50").convolutions()
        if isinstance(each, blocks.Convolution) and each.normalized != 0
    ]
    values = {
        "passes": PASSES,
        **{
            f"bias_{name}_{row[0]}": value
            for row in rows
            for name, value in zip((*measures, "before", "after"), row[1:], strict=True)
        },
        "bias_gap": max(its["float64_gap"][-1] for its in found),
        "bias_gap_expected": MOMENTUM**PASSES,
        "resnet50_biases": sum(each.outputs for each in plan),
        "resnet50_parameters": sum(each.parameters for each in plan),
    }
    table = Table(("precision", *measures, "inference_before", "inference_after"), rows)
    return Section("biases", values, table, _biases_figure(found))


def _biases_figure(found):
    passes = np.arange(PASSES + 1)
    with figure(height=3.2) as (drawn, axis):
        for key, label, colour in (
            ("inference", "largest change of an answer", COLOURS[1]),
            ("gap", "what the moving means lack of the bias", COLOURS[0]),
        ):
            runs = [its[f"float64_{key}"] for its in found]
            axis.plot(passes, np.mean(runs, 0), label=label, color=colour)
        axis.plot(
            *(passes, MOMENTUM**passes, ":"),
            label=f"{MOMENTUM:g} to the power of the passes",
            color="#000000",
            linewidth=2.5,
        )
        axis.set_yscale("log")
        axis.set_xlabel("passes in training mode")
        axis.set_ylabel("in inference mode")
        _legend(drawn, axis, columns=1)
    return drawn
