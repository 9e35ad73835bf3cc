"""No shortcut, or one of the kinds A, B and C: He et al. 2016, section 4.1 and table 3."""

from dataclasses import dataclass, replace
from functools import partial

from keras_resnet import analysis, blocks, zoo
from keras_resnet.experiments import comparing, trainings
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.pages import figure

KINDS = {"none": None, "A": "A", "B": "B", "C": "C", "D": "D"}
"""The shortcuts, and what `zoo.CIFARResNet` takes for them."""

# 10-crop top-1 errors on ImageNet in percent, with 34 layers: He et al. 2016, tables 2 and 3.
PUBLISHED = {"none": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}
_STAGES = ("conv2", "conv3", "conv4", "conv5")
_FIRST, _LATER = 16, 32  # filters of the first two stages


@dataclass(frozen=True, kw_only=True)
class ShortcutsSettings(TrainingSettings):
    """What can be chosen: what `TrainingSettings` have, the depth and the shortcuts.

    Parameters
    ----------
    depth : int, default 32
        Layers of the models, 6n + 2.
    shortcuts : tuple of str, default ("none", "A", "B", "C")
        At least two keys of `KINDS`; "D" is that of ResNet-D, which is later than the paper.
    """

    depth: int = 32
    shortcuts: tuple[str, ...] = ("none", "A", "B", "C")
    images: int | None = 3000
    test_images: int | None = 1000

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depth(depth=self.depth)
        comparing.check_compared(KINDS, shortcuts=self.shortcuts)


def _trials(settings):
    return [
        Trial(f"{kind.lower()}-{seed}", partial(_trained, settings, kind, seed))
        for seed in range(settings.seeds)
        for kind in settings.shortcuts
    ]


def _trained(settings, kind, seed, context):
    """The curve of one model."""
    model = trainings.classifier(
        context.images,
        seed,
        zoo.CIFARResNet,
        settings.depth,
        shortcut=KINDS[kind],
    )
    return trainings.train(model, settings, seed, context)


def _report(settings, results):
    curves = {
        kind: [results[f"{kind.lower()}-{seed}"] for seed in range(settings.seeds)]
        for kind in settings.shortcuts
    }
    ends = comparing.ends(curves)
    known = {kind: error / 100 for kind, error in PUBLISHED.items()}
    rows = [[*row, known.get(row[0])] for row in comparing.rows(ends)]
    errors = ("error", "error_sd", "test_error", "test_error_sd", "published")
    return Report(
        {
            "depth": settings.depth,
            "published": known,
            "published_best": min(known, key=known.__getitem__),
            **comparing.values(ends, without="none"),
        },
        {"errors": Table(("shortcut", *errors), rows, errors), "costs": _costs(settings)},
        {
            "blocks": _blocks(settings),
            "curves": comparing.by_epoch(settings.epochs, curves, "shortcut"),
            "ends": comparing.by_kind(
                ends,
                {"He et al. 2016": PUBLISHED},
                kinds="shortcut",
                ours=f"error with {settings.depth} layers, %",
                theirs="top-1 error on ImageNet, %",
            ),
        },
    )


def _costs(settings):
    """Where projections stand and what they cost, in our models and in those of the paper."""
    rows = []
    for model in (f"CIFARResNet{settings.depth}", "ResNet34"):
        for kind in settings.shortcuts:
            architecture = replace(zoo.architecture(model), shortcut=KINDS[kind])
            projections = [
                each.name.partition("_")[0]
                for each in architecture.convolutions()
                if each.name.endswith("_0")
            ]
            counted = analysis.planned(architecture, classes=1000 if model == "ResNet34" else 10)
            stages = {stage.name for stage in counted}
            rows.append(
                [
                    *(model, kind),
                    *(projections.count(each) if each in stages else None for each in _STAGES),
                    sum(stage.parameters for stage in counted),
                    sum(stage.macs for stage in counted),
                ]
            )
    return Table(("model", "shortcut", *_STAGES, "parameters", "macs"), rows)


def _blocks(settings):
    """What each shortcut is, where a block keeps its shape and where it changes it."""
    kinds = settings.shortcuts
    with figure(len(kinds), 2, width=1.6, height=2.3) as (drawn, axes):
        for row, (inputs, strides) in zip(axes, ((_LATER, 1), (_FIRST, 2)), strict=True):
            for axis, kind in zip(row, kinds, strict=True):
                plan = blocks.basic_plan(
                    inputs, _LATER, strides, shortcut=KINDS[kind], name="block"
                )
                _draw_block(axis, plan, None if kind == "none" else _words(plan, strides))
        for axis, kind in zip(axes[0], kinds, strict=True):
            axis.set_title("no shortcut" if kind == "none" else f"shortcut {kind}", fontsize=9)
    return drawn


def _words(plan, strides):
    """What a shortcut does, in a few words."""
    inputs, outputs = plan.residual[0].inputs, plan.residual[-1].outputs
    if plan.projection:
        pooling = f"{plan.pooling}x{plan.pooling} mean\n" if plan.pooling else ""
        stride = f"\nstride {plan.projection.strides}" if plan.projection.strides > 1 else ""
        return f"{pooling}1x1\n{inputs} → {outputs}{stride}"
    padding = f"stride {strides}\n+ {outputs - inputs} zeros" if inputs != outputs else ""
    return padding or "identity"


def _draw_block(axis, plan, shortcut):
    """Draw a block: its convolutions downwards, and the shortcut beside them."""
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.axis("off")
    box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": "#59636e"}
    line = {"color": "#59636e", "linewidth": 1.0}
    texts = [
        f"{each.kernel_size}x{each.kernel_size}\n{each.inputs} → {each.outputs}"
        + (f"\nstride {each.strides}" if each.strides > 1 else "")
        for each in plan.residual
    ]
    axis.annotate("", (0.28, 0.0), (0.28, 1.0), arrowprops={"arrowstyle": "->", **line})
    for height, text in zip((0.74, 0.4), texts, strict=True):
        axis.text(0.28, height, text, ha="center", va="center", fontsize=7, bbox=box)
    if shortcut:
        axis.plot((0.28, 0.8, 0.8, 0.28), (0.95, 0.95, 0.14, 0.14), **line)
        axis.text(0.8, 0.57, shortcut, ha="center", va="center", fontsize=7, bbox=box)
        axis.text(
            *(0.28, 0.14, "+"),
            **{"ha": "center", "va": "center", "fontsize": 8},
            bbox={**box, "boxstyle": "circle,pad=0.15"},
        )


EXPERIMENT = Experiment(
    "shortcuts",
    ShortcutsSettings,
    _trials,
    _report,
    full={**trainings.FULL, "shortcuts": tuple(KINDS)},
)
