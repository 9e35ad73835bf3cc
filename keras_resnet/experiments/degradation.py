"""Plain models against residual ones, by depth: He et al. 2016, section 4.2 and figure 6."""

import itertools
import statistics
from dataclasses import dataclass
from functools import partial

from keras_resnet import zoo
from keras_resnet.experiments import trainings
from keras_resnet.experiments.comparing import least_difference
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.figures import bars, published, spread
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.pages import COLOURS, figure

KINDS = {"plain": None, "residual": "A"}
"""The shortcut of each kind."""

# Test errors in percent on CIFAR-10 after 64,000 steps, by depth: He et al. 2016, table 6; those of
# plain models, of which the paper only has curves, from a public reproduction.
PUBLISHED = {
    "residual": {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43},
    "plain": {20: 9.63, 32: 9.92, 44: 10.36, 56: 14.22},
}


@dataclass(frozen=True, kw_only=True)
class DegradationSettings(TrainingSettings):
    """What can be chosen: what `TrainingSettings` have, and the depths.

    Parameters
    ----------
    depths : tuple of int, default (20, 56)
        Layers of the models, 6n + 2.
    """

    depths: tuple[int, ...] = (20, 56)
    images: int | None = 4000
    test_images: int | None = 1000

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depths(depths=self.depths)
        if len(self.depths) < 2:
            raise ValueError(f"depths={self.depths!r} must be at least two, to compare.")


def _trials(settings):
    return [
        Trial(f"{kind}-{depth}-{seed}", partial(_trained, settings, kind, depth, seed))
        for seed in range(settings.seeds)
        for depth in settings.depths
        for kind in KINDS
    ]


def _trained(settings, kind, depth, seed, context):
    """The curve of one model."""
    model = trainings.classifier(
        context.images,
        seed,
        zoo.CIFARResNet,
        depth,
        shortcut=KINDS[kind],
    )
    return trainings.train(model, settings, seed, context)


def _report(settings, results):
    curves = {
        (kind, depth): [results[f"{kind}-{depth}-{seed}"] for seed in range(settings.seeds)]
        for kind in KINDS
        for depth in settings.depths
    }
    rows = [
        [
            *(kind, depth),
            *trainings.mean_and_deviation([run["error"][-1] for run in runs]),
            *trainings.mean_and_deviation([run["test_error"][-1] for run in runs]),
            PUBLISHED[kind][depth] / 100 if depth in PUBLISHED[kind] else None,
        ]
        for (kind, depth), runs in curves.items()
    ]
    shallow, deep = min(settings.depths), max(settings.depths)
    ends = {place: [run["error"][-1] for run in runs] for place, runs in curves.items()}
    error = {place: statistics.mean(runs) for place, runs in ends.items()}
    rise = {kind: error[kind, deep] - error[kind, shallow] for kind in KINDS}
    least = {kind: least_difference([ends[kind, shallow], ends[kind, deep]]) for kind in KINDS}
    values = {
        "shallow": shallow,
        "deep": deep,
        **{f"{kind}_shallow": error[kind, shallow] for kind in KINDS},
        **{f"{kind}_deep": error[kind, deep] for kind in KINDS},
        **{f"{kind}_rise": rise[kind] for kind in KINDS},
        # Whether it is more than the spread over seeds, which one seed does not have.
        **{
            f"{kind}_rise_is_clear": None if each is None else abs(rise[kind]) > each
            for kind, each in least.items()
        },
        **{
            f"{kind}_rises_at_every_step": all(
                error[kind, former] < error[kind, depth]
                for former, depth in itertools.pairwise(sorted(settings.depths))
            )
            for kind in KINDS
        },
    }
    errors = ("error", "error_sd", "test_error", "test_error_sd", "published")
    return Report(
        values,
        {"errors": Table(("kind", "depth", *errors), rows, errors)},
        {"curves": _curves(settings, curves), "depths": _depths(settings, curves)},
    )


def _curves(settings, curves):
    """Errors by epoch, as in figure 6."""
    epochs = range(1, settings.epochs + 1)
    with figure(2, sharey=True) as (drawn, axes):
        for axis, kind in zip(axes, KINDS, strict=True):
            for depth, colour in zip(sorted(settings.depths), COLOURS, strict=False):
                runs = curves[kind, depth]
                spread(axis, epochs, _percent(runs, "error"), f"{kind}-{depth}", color=colour)
                spread(
                    *(axis, epochs, _percent(runs, "test_error"), "_"),
                    color=colour,
                    linestyle="--",
                )
            axis.set_xlabel("epoch")
            axis.legend()
        axes[0].set_ylabel("error, %\n(solid: training, dashed: test)")
    return drawn


def _depths(settings, curves):
    """Errors at the end, by depth, beside the published ones."""
    depths = sorted(settings.depths)
    with figure(2) as (drawn, axes):
        for axis, key, title in zip(
            axes, ("error", "test_error"), ("training error, %", "test error, %"), strict=True
        ):
            for kind, colour in zip(KINDS, COLOURS, strict=False):
                runs = [
                    [100 * curves[kind, depth][seed][key][-1] for depth in depths]
                    for seed in range(settings.seeds)
                ]
                bars(axis, depths, runs, kind, color=colour)
                if key == "test_error":
                    known = {each: its for each, its in PUBLISHED[kind].items() if each in depths}
                    published(axis, [*known], [*known.values()], f"{kind}, published", color=colour)
            axis.set_xticks(depths)
            axis.set_xlabel("layers")
            axis.set_ylabel(title)
            axis.legend()
    return drawn


def _percent(runs, key):
    return [[100 * value for value in run[key]] for run in runs]


EXPERIMENT = Experiment(
    "degradation",
    DegradationSettings,
    _trials,
    _report,
    full={**trainings.FULL, "depths": (20, 32, 44, 56)},
)
