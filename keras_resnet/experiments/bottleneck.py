"""Basic against bottleneck blocks at equal cost: He et al. 2016, section 4.1, figure 5, table 3."""

import statistics
from dataclasses import dataclass, replace
from functools import partial

import keras

from keras_resnet import blocks, zoo
from keras_resnet.analysis import complexity, planned, total
from keras_resnet.experiments import trainings
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.figures import bars, published, spread
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.pages import COLOURS, figure

KINDS = ("basic", "bottleneck")

# Billions of multiply-adds (table 1 and figure 3), and top-1 errors on ImageNet in percent with ten
# crops (tables 2 and 3: ResNet-18 with shortcuts A, the others with B).
PUBLISHED = {
    "VGG-19": (19.6, None),
    "ResNet-18": (1.8, 27.88),
    "ResNet-34": (3.6, 24.52),
    "ResNet-50": (3.8, 22.85),
    "ResNet-101": (7.6, 21.75),
    "ResNet-152": (11.3, 21.43),
}


@dataclass(frozen=True, kw_only=True)
class BottleneckSettings(TrainingSettings):
    """What can be chosen: what `TrainingSettings` have, and the depths.

    Parameters
    ----------
    depths : tuple of int, default (8, 14)
        Layers of the models with basic blocks, 6n + 2. Each has a partner with as many bottleneck
        blocks, 9n + 2 layers.
    """

    depths: tuple[int, ...] = (8, 14)
    epochs: int = 8
    images: int | None = 4000
    test_images: int | None = 2000

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depths(depths=self.depths)


def pair(depth: int) -> dict[str, dict]:
    """Two CIFAR models of equal cost and as many blocks.

    Parameters
    ----------
    depth : int
        Layers of the one with basic blocks.

    Returns
    -------
    dict
        Of each kind of blocks, what `zoo.CIFARResNet` is to be told. The width of the 3x3
        convolutions in the bottlenecks is the one whose multiply-adds are nearest.

    Examples
    --------
    >>> from keras_resnet.experiments.bottleneck import pair
    >>> pair(20)["bottleneck"]
    {'depth': 29, 'block': 'bottleneck', 'shortcut': 'B', 'base_width': 56}
    """
    basic = replace(zoo.architecture(f"CIFARResNet{depth}"), shortcut="B")
    cost = total(planned(basic, classes=10)).macs
    # 64 channels of a 3x3 convolution for 64 filters; 4 are one for the 16 of the first stage.
    width = min(
        range(4, 129, 4),
        key=lambda width: abs(
            total(planned(replace(basic, block="bottleneck", base_width=width), classes=10)).macs
            - cost
        ),
    )
    return {
        "basic": {"depth": depth, "block": "basic", "shortcut": "B"},
        "bottleneck": {
            "depth": depth // 2 * 3 - 1,
            "block": "bottleneck",
            "shortcut": "B",
            "base_width": width,
        },
    }


def _trials(settings):
    return [
        Trial("arithmetic", _arithmetic),
        *(
            Trial(f"{kind}-{depth}-{seed}", partial(_trained, settings, kind, depth, seed))
            for seed in range(settings.seeds)
            for depth in settings.depths
            for kind in KINDS
        ),
    ]


def _trained(settings, kind, depth, seed, context):
    """The curve of one model, and its cost."""
    model = trainings.classifier(
        context.images,
        seed,
        zoo.CIFARResNet,
        **pair(depth)[kind],
    )
    whole = total(complexity(model))
    return {
        "layers": whole.layers,
        "macs": whole.macs,
        **trainings.train(model, settings, seed, context),
    }


def _arithmetic(context):
    """Sizes of blocks and of models of ImageNet."""
    wide = blocks.basic_plan(256, 256, name="wide").residual
    narrow = blocks.basic_plan(64, 64, name="narrow").residual
    bottleneck = blocks.bottleneck_plan(256, 64, name="bottleneck").residual
    found = {"VGG-19": complexity(keras.applications.VGG19(weights=None))}
    for name in PUBLISHED:
        if name not in found:
            architecture = zoo.architecture(name.replace("-", ""))
            if architecture.block == "bottleneck":  # with the stride where the paper has it
                architecture = replace(architecture, stride_in="1x1")
            found[name] = planned(architecture)
    of_3x3 = zoo.architecture("ResNet50")
    without_projections = replace(zoo.architecture("ResNet34"), shortcut="A")
    return {
        "blocks": {
            name: [
                sum(each.weights for each in plan),
                sum(each.multiply_adds(56, 56) for each in plan),
            ]
            for name, plan in {"bottleneck": bottleneck, "wide": wide, "narrow": narrow}.items()
        },
        "resnet50_with_its_stride_in_3x3": total(planned(of_3x3)).macs,
        "resnet34_without_projections": total(planned(without_projections)).macs,
        "models": {
            name: [each.layers, each.parameters, each.macs]
            for name, each in zip(found, map(total, found.values()), strict=True)
        },
    }


def _report(settings, results):
    curves = {
        (depth, kind): [results[f"{kind}-{depth}-{seed}"] for seed in range(settings.seeds)]
        for depth in settings.depths
        for kind in KINDS
    }
    arithmetic = results["arithmetic"]
    sizes = {name: weights for name, (weights, _) in arithmetic["blocks"].items()}
    macs = {name: macs for name, (_, _, macs) in arithmetic["models"].items()}
    costs = {place: runs[0]["macs"] for place, runs in curves.items()}
    verdicts = [_verdict(settings, curves, depth) for depth in settings.depths]
    values = {
        "bottleneck_weights": sizes["bottleneck"],
        "wide_weights": sizes["wide"],
        "narrow_weights": sizes["narrow"],
        "wide_to_bottleneck": sizes["wide"] / sizes["bottleneck"],
        "vgg19_macs": macs["VGG-19"],
        "resnet34_macs": macs["ResNet-34"],
        "resnet34_macs_without_projections": arithmetic["resnet34_without_projections"],
        "resnet34_to_vgg19": macs["ResNet-34"] / macs["VGG-19"],
        "resnet50_macs": macs["ResNet-50"],
        "resnet50_macs_with_its_stride_in_3x3": arithmetic["resnet50_with_its_stride_in_3x3"],
        "resnet152_to_vgg19": macs["ResNet-152"] / macs["VGG-19"],
        "largest_difference_of_cost": max(
            abs(costs[depth, "bottleneck"] / costs[depth, "basic"] - 1) for depth in settings.depths
        ),
        "pairs": len(settings.depths),
        **_narrowest(settings),
        **{f"{word}_pairs": verdicts.count(word) for word in ("basic", "bottleneck", "alike")},
    }
    return Report(
        values,
        {"blocks": _blocks(arithmetic), "models": _models(arithmetic), "errors": _errors(curves)},
        {"costs": _costs(settings, curves, macs), "curves": _curves(settings, curves)},
    )


def _narrowest(settings):
    """Channels of the 3x3 convolutions in the first stage, by kind of blocks."""
    filters = zoo.architecture("CIFARResNet20").filters[0]
    widths = [pair(depth)["bottleneck"]["base_width"] for depth in sorted(settings.depths)]
    return {
        "narrowest_basic": filters,
        "narrowest_bottlenecks": [
            blocks.bottleneck_width(filters, cardinality=1, base_width=width) for width in widths
        ],
    }


def _verdict(settings, curves, depth):
    """Which model of a pair has the lower test error, if by more than the spread of both."""
    errors = {kind: [run["test_error"][-1] for run in curves[depth, kind]] for kind in KINDS}
    if settings.seeds == 1:
        return "alike"
    spread = sum(map(statistics.stdev, errors.values()))
    better, worse = sorted(KINDS, key=lambda kind: statistics.mean(errors[kind]))
    apart = statistics.mean(errors[worse]) - statistics.mean(errors[better])
    return better if apart > spread else "alike"


def _blocks(arithmetic):
    """Blocks and their sizes."""
    layers = {
        "bottleneck": "1x1x256x64 + 3x3x64x64 + 1x1x64x256",
        "wide": "3x3x256x256 x 2",
        "narrow": "3x3x64x64 x 2",
    }
    smallest = arithmetic["blocks"]["bottleneck"][0]
    rows = [
        [layers[name], weights, weights / smallest, macs / 1e9]
        for name, (weights, macs) in arithmetic["blocks"].items()
    ]
    return Table(("layers", "parameters", "to_bottleneck", "billion_macs"), rows)


def _models(arithmetic):
    """Models of ImageNet and their sizes, beside what is published."""
    vgg = arithmetic["models"]["VGG-19"][-1]
    rows = [
        [
            *(name, layers, parameters, macs / 1e9, PUBLISHED[name][0], macs / vgg),
            PUBLISHED[name][1] and PUBLISHED[name][1] / 100,
        ]
        for name, (layers, parameters, macs) in arithmetic["models"].items()
    ]
    columns = ("model", "layers", "parameters", "billion_macs", "published_billion_macs")
    percent = ("to_vgg19", "published_error")
    return Table((*columns, *percent), rows, percent)


def _errors(curves):
    """The trained models and their errors."""
    rows = [
        [
            *(kind, runs[0]["layers"], runs[0]["parameters"], runs[0]["macs"] / 1e6),
            *trainings.mean_and_deviation([run["error"][-1] for run in runs]),
            *trainings.mean_and_deviation([run["test_error"][-1] for run in runs]),
        ]
        for (_, kind), runs in curves.items()
    ]
    percent = ("error", "error_sd", "test_error", "test_error_sd")
    return Table(("blocks", "layers", "parameters", "million_macs", *percent), rows, percent)


def _costs(settings, curves, macs):
    """Test errors by multiply-adds: ours of small models, and the published ones of ImageNet."""
    marks = {
        "basic": ("ResNet-18", "ResNet-34"),
        "bottleneck": ("ResNet-50", "ResNet-101", "ResNet-152"),
    }
    with figure(2) as (drawn, (ours, theirs)):
        for kind, colour in zip(KINDS, COLOURS, strict=False):
            models = [curves[depth, kind] for depth in sorted(settings.depths)]
            runs = [
                [100 * model[seed]["test_error"][-1] for model in models]
                for seed in range(settings.seeds)
            ]
            bars(ours, [model[0]["macs"] / 1e6 for model in models], runs, kind, color=colour)
            errors = [PUBLISHED[name][1] for name in marks[kind]]
            billions = [macs[name] / 1e9 for name in marks[kind]]
            published(theirs, billions, errors, f"{kind}, published", color=colour)
            for name, x, y in zip(marks[kind], billions, errors, strict=True):
                theirs.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
        ours.set_xlabel("million multiply-adds")
        ours.set_ylabel("test error, %")
        theirs.set_xlabel("billion multiply-adds")
        theirs.set_ylabel("top-1 error on ImageNet, %")
        theirs.set_xlim(0, 1.25 * max(macs[name] for name in marks["bottleneck"]) / 1e9)
        for axis in (ours, theirs):
            axis.legend()
    return drawn


def _curves(settings, curves):
    """Errors by epoch, pair by pair."""
    epochs = range(1, settings.epochs + 1)
    depths = sorted(settings.depths)
    with figure(len(depths), sharey=True, squeeze=False) as (drawn, (axes,)):
        for axis, depth in zip(axes, depths, strict=True):
            for kind, colour in zip(KINDS, COLOURS, strict=False):
                runs = curves[depth, kind]
                label = f"{kind}, {runs[0]['layers']} layers"
                for key, name, line in (("error", label, "-"), ("test_error", "_", "--")):
                    percent = [[100 * value for value in run[key]] for run in runs]
                    spread(axis, epochs, percent, name, color=colour, linestyle=line)
            axis.set_xlabel("epoch")
            axis.legend()
        axes[0].set_ylabel("error, %")
    return drawn


EXPERIMENT = Experiment(
    "bottleneck",
    BottleneckSettings,
    _trials,
    _report,
    full={**trainings.FULL, "depths": (20, 32, 56)},
)
