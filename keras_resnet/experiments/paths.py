"""Models with blocks left out or swapped: Veit, Wilber and Belongie 2016."""

import itertools
import re
import statistics
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_resnet import analysis, checks, data, zoo
from keras_resnet.experiments import trainings
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.figures import bars
from keras_resnet.experiments.trainings import LoadingSettings
from keras_resnet.pages import COLOURS, figure

KINDS = {"plain": None, "residual": "A"}
"""The shortcut of each kind."""

_COLOUR = dict(zip(KINDS, COLOURS, strict=False))


@dataclass(frozen=True, kw_only=True)
class PathsSettings(LoadingSettings):
    """What can be chosen: what `LoadingSettings` have, and the models.

    Parameters
    ----------
    residual_depth, plain_depth : int, default 20
        Layers of the models that are trained here, 6n + 2.
    weights : mapping of str to str or path, default {}
        Trained models in place of these, such as {"residual-56": "resnet56.th"}: a kind and a
        depth, and what builders take as `weights`.
    draws : int, default 5
        Random choices of several blocks, for each number of them.

    Raises
    ------
    ValueError
        As `LoadingSettings` does, and for models that are not there.
    """

    seeds: int = 1
    test_images: int | None = 1000
    residual_depth: int = 20
    plain_depth: int = 20
    draws: int = 5

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depth(residual_depth=self.residual_depth, plain_depth=self.plain_depth)
        checks.check_range("count", draws=self.draws)
        names = [re.fullmatch(f"({'|'.join(KINDS)})-([0-9]+)", name) for name in self.weights]
        if not all(names) or len({name[1] for name in names if name}) < len(names):
            raise ValueError(
                f"weights={self.weights!r} must be at most one file for a plain model and one for "
                'a residual one, such as {"residual-56": "resnet56.th"}.'
            )
        for name in self.weights:
            trainings.check_depth(weights=int(name.partition("-")[2]))


class _Model(NamedTuple):
    """A model: of a kind and depth, with weights from somewhere or those that it learns here."""

    kind: str
    depth: int
    weights: Any = None

    def __str__(self):
        return f"{self.kind}-{self.depth}"

    def trials(self, seeds):
        """The names of its trials: weights from a file do not depend on a seed."""
        return [f"{self}-loaded"] if self.weights else [f"{self}-{seed}" for seed in range(seeds)]


def _models(settings):
    """The model of each kind."""
    given = {name.partition("-")[0]: name for name in settings.weights}
    return {
        kind: _Model(kind, int(given[kind].partition("-")[2]), settings.weights[given[kind]])
        if kind in given
        else _Model(kind, getattr(settings, f"{kind}_depth"))
        for kind in KINDS
    }


def _trials(settings):
    return [
        Trial(name, partial(_found, settings, model, seed))
        # Files first: one that is not there should not be found out after an hour.
        for model in sorted(_models(settings).values(), key=lambda model: not model.weights)
        for seed, name in enumerate(model.trials(settings.seeds))
    ]


def _found(settings, model, seed, context):
    """What one model does with blocks left out or swapped."""
    images = context.images
    built = trainings.classifier(
        images,
        seed,
        zoo.CIFARResNet,
        model.depth,
        shortcut=KINDS[model.kind],
        weights=model.weights,
    )
    # The paper of ResNets begins gently with 110 layers, for 400 of 64,000 steps.
    gently: Any = {"warm_up": 1 / 160} if model.depth >= 110 and settings.milestones else {}
    curve = {} if model.weights else trainings.train(built, settings, seed, context, **gently)
    found = analysis.effective_paths(
        built,
        data.batches(
            images.test, image_size=images.image_size, channels=images.channels, batch_size=100
        ),
        draws=settings.draws,
        seed=seed,
    )
    return {
        **curve,
        "whole": _error(found.accuracy),
        "chance": _error(found.chance),
        "measured_on": found.images,
        "names": [block.name for block in found.blocks],
        "sizes": [block.shapes[1][0] for block in found.blocks],
        "changes": [int(block.changes_shape) for block in found.blocks],
        "without": [_error(block.accuracy) for block in found.blocks],
        "counts": [*found.several],
        "several": [[*map(_error, each)] for each in found.several.values()],
        "swaps": [[first, second, _error(accuracy)] for first, second, accuracy in found.swaps],
        "orders": [
            [swaps, round(correlation, 6), _error(accuracy)]
            for swaps, correlation, accuracy in found.orders
        ],
    }


def _error(accuracy):
    """The fraction of mistakes, to six digits; None where nothing was measured."""
    return None if accuracy is None else round(1 - accuracy, 6)


def _report(settings, results):
    models = _models(settings)
    runs = {
        kind: [results[name] for name in model.trials(settings.seeds)]
        for kind, model in models.items()
    }
    values = {"all_loaded": all(model.weights for model in models.values())}
    for kind, model in models.items():
        file = settings.recorded()["weights"].get(str(model))
        facts = {"depth": model.depth, "file": file, **_summary(runs[kind])}
        values |= {f"{kind}_{name}": value for name, value in facts.items()}
    values |= _lengths(values["residual_blocks"])
    # Two standard errors of an error near one half: smaller differences may be chance.
    values["margin"] = runs["residual"][0]["measured_on"] ** -0.5
    return Report(
        values,
        _tables(models, runs, values),
        {
            "without_one": _without_one(models, runs),
            "without_several": _without_several(models, runs),
            "swaps": _swaps(models, runs),
        },
    )


def _summary(runs):
    """What one kind of model did, as means over seeds."""
    first = runs[0]
    without = np.array([run["without"] for run in runs], float).mean(0)  # NaN where there is none
    there = ~np.isnan(without)
    changes = np.array(first["changes"], bool)
    whole, worst = statistics.mean(run["whole"] for run in runs), int(np.nanargmax(without))
    several = np.array([run["several"] for run in runs]).mean((0, 2)).tolist()
    half = min(first["counts"], key=lambda count: abs(count - there.sum() / 2))
    swapped = [error for run in runs for *_, error in run["swaps"]]
    orders = np.array([order for run in runs for order in run["orders"]]).reshape(-1, 3)
    return {
        "blocks": int(there.sum()),
        "fixed": int((~there).sum()),
        "error": whole,
        "chance": first["chance"],
        "learned": whole < _below_chance(first),
        "without_mean": float(without[there].mean()),
        "without_median": float(np.median(without[there])),
        "without_worst": float(without[worst]),
        "worst": first["names"][worst],
        "worst_changes_shape": bool(changes[worst]),
        "without_keeping": _mean(without[there & ~changes]),
        "without_changing": _mean(without[there & changes]),
        "lost": float(np.mean(without[there] >= _below_chance(first))),
        "half": half,
        "without_half": several[first["counts"].index(half)],
        "rises_with_every_count": all(a < b for a, b in itertools.pairwise([whole, *several])),
        "rises": several[-1] > several[0],
        "swapped_mean": _mean(swapped),
        "swapped_worst": max(swapped, default=None),
        "order_and_error": _correlation(orders[:, 1], orders[:, 2]),
    }


def _below_chance(run):
    """The error below which a model is better than chance, by more than two standard errors."""
    chance = run["chance"]
    return chance - 2 * (chance * (1 - chance) / run["measured_on"]) ** 0.5


def _mean(values):
    """The mean of some numbers; None if there are none."""
    return float(np.mean(values)) if len(values) else None


def _correlation(first, second):
    """Pearson's correlation of two lists of numbers; None if one of them does not vary."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _lengths(blocks):
    """Between which numbers of blocks at least 95 % of the paths pass through."""
    fractions = analysis.path_lengths(blocks)
    for reach in range(blocks + 1):
        low, high = max(0, blocks // 2 - reach), min(blocks, -(-blocks // 2) + reach)
        if fractions[low : high + 1].sum() >= 0.95:
            break
    return {"paths": 2**blocks, "shortest": low, "longest": high}


def _tables(models, runs, values):
    names = ("error", "without_mean", "without_worst", "without_half", "swapped_mean")
    models_there = [
        [str(model), values[f"{kind}_blocks"], *(values[f"{kind}_{name}"] for name in names)]
        for kind, model in models.items()
    ]
    blocks = [
        [str(model), name, size, bool(changes), *_over([run["without"][at] for run in runs[kind]])]
        for kind, model in models.items()
        for at, (name, size, changes) in enumerate(
            zip(*(runs[kind][0][key] for key in ("names", "sizes", "changes")), strict=True)
        )
    ]
    several = [
        [str(model), count, *_over([error for run in runs[kind] for error in run["several"][at]])]
        for kind, model in models.items()
        for at, count in enumerate(runs[kind][0]["counts"])
    ]
    swaps = [
        [str(model), *(runs[kind][0]["names"][at] for at in (first, second)), *_over(errors)]
        for kind, model in models.items()
        for (first, second, _), errors in zip(
            runs[kind][0]["swaps"],
            zip(*([error for *_, error in run["swaps"]] for run in runs[kind]), strict=True),
            strict=True,
        )
    ]
    orders = [
        [str(models[kind]), seed, *order]
        for kind in KINDS
        for seed, run in enumerate(runs[kind])
        for order in run["orders"]
    ]
    error = ("error", "error_sd")
    return {
        "models": Table(("model", "blocks", *names), models_there, names),
        "blocks": Table(("model", "block", "size", "changes_shape", *error), blocks, error),
        "several": Table(("model", "left_out", *error), several, error),
        "swapped": Table(("model", "first", "second", *error), swaps, error),
        "orders": Table(("model", "seed", "swaps", "kendall", "error"), orders, ("error",)),
    }


def _over(errors):
    """The mean and the standard deviation of some errors; None twice if there are none."""
    if None in errors:
        return (None, None)
    return trainings.mean_and_deviation([*errors])


def _without_one(models, runs):
    """Errors without each block; stages are divided, blocks that change shapes are hollow."""
    with figure(2, sharey=True) as (drawn, axes):
        for axis, kind in zip(axes, reversed(KINDS), strict=True):
            first, colour = runs[kind][0], _COLOUR[kind]
            errors = 100 * np.array([run["without"] for run in runs[kind]], float)
            places = np.arange(1, errors.shape[1] + 1)
            there = ~np.isnan(errors).any(0)
            bars(axis, places[there], errors[:, there].tolist(), str(models[kind]), color=colour)
            hollow = there & np.array(first["changes"], bool)
            axis.plot(
                *(places[hollow], errors.mean(0)[hollow], "o"),
                **dict(color=colour, markerfacecolor="white", markersize=6, zorder=3),
            )
            for place, (before, after) in enumerate(itertools.pairwise(first["sizes"]), start=1):
                if before != after:
                    axis.axvline(place + 0.5, color="#8a8a8a", linewidth=0.8)
            axis.axhline(
                100 * statistics.mean(run["whole"] for run in runs[kind]),
                **dict(color="#000000", linestyle="--", linewidth=1, label="whole model"),
            )
            _chance(axis, runs[kind])
            axis.set_xlabel({"plain": "layer left out", "residual": "block left out"}[kind])
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel("test error, %")
        axes[0].set_ylim(0, 102)
        _legend(drawn, axes)
    return drawn


def _chance(axis, runs):
    """A line at the error of a model that always gives the same answer."""
    chance = 100 * runs[0]["chance"]
    axis.axhline(chance, color="#000000", linestyle=":", linewidth=1, label="chance")


def _legend(drawn, axes):
    """One legend above all panels."""
    handles = [axis.get_legend_handles_labels() for axis in axes]
    by_label = {label: handle for found in handles for handle, label in zip(*found, strict=True)}
    drawn.legend(by_label.values(), by_label, loc="outside upper center", ncols=len(by_label))


def _without_several(models, runs):
    """Errors by the number of blocks left out."""
    with figure(width=5.0) as (drawn, axis):
        for kind in KINDS:
            counts = [0, *runs[kind][0]["counts"]]
            errors = [
                [100 * run["whole"], *(100 * each[draw] for each in run["several"])]
                for run in runs[kind]
                for draw in range(len(run["several"][0]))
            ]
            label = f"{models[kind]} ({'blocks' if kind == 'residual' else 'layers'})"
            bars(axis, counts, errors, label, color=_COLOUR[kind])
        _chance(axis, runs["residual"])
        axis.set_xlabel("left out at random")
        axis.set_ylabel("test error, %")
        axis.set_ylim(0, 102)
        _legend(drawn, [axis])
    return drawn


def _swaps(models, runs):
    """Errors by the distance of two swapped blocks, and by how much order is left."""
    with figure(2, sharey=True) as (drawn, axes):
        for kind in KINDS:
            by_distance = {}
            for run in runs[kind]:
                for first, second, error in run["swaps"]:
                    by_distance.setdefault(second - first, []).append(100 * error)
            distances = sorted(by_distance)
            errors = [by_distance[each] for each in distances]
            deviations = [statistics.stdev(each) if len(each) > 1 else 0 for each in errors]
            axes[0].errorbar(
                *(distances, [*map(statistics.mean, errors)], deviations),
                **dict(fmt="o-", markersize=4, capsize=2.5, color=_COLOUR[kind]),
                label=str(models[kind]),
            )
            orders = [(order[1], 100 * order[2]) for run in runs[kind] for order in run["orders"]]
            axes[1].plot(
                *(zip(*orders, strict=True) if orders else ([], [])),
                **dict(linestyle="none", marker="o", markersize=4, alpha=0.6, color=_COLOUR[kind]),
            )
        axes[0].set_xlabel("distance of two swapped blocks or layers")
        axes[1].set_xlabel("Kendall correlation of the order")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
        axes[1].invert_xaxis()
        axes[0].set_ylabel("test error, %")
        axes[0].set_ylim(0, 102)
        _legend(drawn, axes)
    return drawn


EXPERIMENT = Experiment(
    "paths",
    PathsSettings,
    _trials,
    _report,
    full={**trainings.FULL, "residual_depth": 110, "draws": 10},
)
