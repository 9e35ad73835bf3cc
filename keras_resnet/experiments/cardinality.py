"""More groups of fewer channels at equal cost: Xie et al. 2017, tables 2 to 4 and figure 3."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from keras_resnet import analysis, blocks, checks, zoo
from keras_resnet.experiments import comparing, forms, trainings
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.resnet import Architecture, resnet

# Top-1 errors on ImageNet in percent: Xie et al. 2017, tables 3 and 4.
PUBLISHED = {
    "50 layers": {"1x64d": 23.9, "2x40d": 23.0, "4x24d": 22.6, "8x14d": 22.3, "32x4d": 22.2},
    "101 layers": {"1x64d": 22.0, "2x40d": 21.7, "4x24d": 21.4, "8x14d": 21.3, "32x4d": 21.2},
}
# Cost once and twice: what differs from ResNet-101, and the error.
LARGER: dict[str, tuple[dict[str, Any], float]] = {
    "ResNet-101 1x64d": ({}, 22.0),
    "ResNeXt-101 32x4d": ({"cardinality": 32, "base_width": 4}, 21.2),
    "ResNet-200 1x64d": ({"block_counts": (3, 24, 36, 3)}, 21.7),
    "ResNet-101 1x100d": ({"base_width": 100}, 21.3),
    "ResNeXt-101 2x64d": ({"cardinality": 2}, 20.7),
    "ResNeXt-101 64x4d": ({"cardinality": 64, "base_width": 4}, 20.4),
}
# With shortcuts, and without: section 5.1.
WITHOUT = {"ResNet-50 1x64d": (23.9, 31.2), "ResNeXt-50 32x4d": (22.2, 26.1)}


@dataclass(frozen=True, kw_only=True)
class CardinalitySettings(TrainingSettings):
    """What can be chosen: what `TrainingSettings` have, the pairs and the size of the models.

    Parameters
    ----------
    cardinalities : tuple of str, default all
        At least two keys of `blocks.CARDINALITIES`.
    width : int, default 32
        Filters of the first stage; it doubles with every stage.
    block_counts : tuple of int, default (1, 1, 1)
        Bottleneck blocks in each of the stages.
    """

    cardinalities: tuple[str, ...] = tuple(blocks.CARDINALITIES)
    width: int = 32
    block_counts: tuple[int, ...] = (1, 1, 1)
    images: int | None = 2000
    test_images: int | None = 1000
    epochs: int = 5
    batch_size: int = 32

    def __post_init__(self):
        super().__post_init__()
        comparing.check_compared(blocks.CARDINALITIES, cardinalities=self.cardinalities)
        checks.check_positive(width=self.width)
        if not isinstance(self.block_counts, tuple) or not self.block_counts:
            raise ValueError(
                f"block_counts={self.block_counts!r} must be one number of blocks for each stage, "
                "such as [1, 1, 1]."
            )
        for pair in self.cardinalities:
            self.architecture(pair)

    def architecture(self, pair: str) -> Architecture:
        """The model of a pair of cardinality and width.

        Parameters
        ----------
        pair : str
            A key of `blocks.CARDINALITIES`.

        Returns
        -------
        Architecture

        Raises
        ------
        ValueError
            If its groups would not have whole channels.
        """
        cardinality, base_width = blocks.CARDINALITIES[pair]
        if self.width * base_width % 64:
            raise ValueError(
                f"width={self.width}: {pair} needs a multiple of 32, so that groups have whole "
                "channels."
            )
        return Architecture(
            self.block_counts,
            "bottleneck",
            [self.width * 2**stage for stage in range(len(self.block_counts))],
            stem="cifar",
            cardinality=cardinality,
            base_width=base_width,
        )


def _trials(settings):
    return [
        Trial("forms", partial(_forms, settings)),
        *(
            Trial(f"{pair}-{seed}", partial(_trained, settings, pair, seed))
            for seed in range(settings.seeds)
            for pair in settings.cardinalities
        ),
    ]


def _trained(settings, pair, seed, context):
    """The curve of one model."""
    architecture = settings.architecture(pair)
    model = trainings.classifier(
        context.images,
        seed,
        resnet,
        architecture.block_counts,
        architecture.block,
        architecture.filters,
        stem=architecture.stem,
        cardinality=architecture.cardinality,
        base_width=architecture.base_width,
    )
    return trainings.train(model, settings, seed, context)


def _forms(settings, context):
    """How far the outputs of the forms are apart, as a fraction of the largest output."""
    found = {"split": [], "concatenated": []}
    for pair in settings.cardinalities:
        block, features = forms.random_block(*blocks.CARDINALITIES[pair])
        grouped = np.asarray(block(features))
        for name, outputs in (
            ("split", forms.split_transform_merge(block, features)),
            ("concatenated", forms.early_concatenation(block, features)),
        ):
            found[name].append(float(np.abs(outputs - grouped).max() / np.abs(grouped).max()))
    return found


def _report(settings, results):
    curves = {
        pair: [results[f"{pair}-{seed}"] for seed in range(settings.seeds)]
        for pair in settings.cardinalities
    }
    ends = comparing.ends(curves)
    different = [results["forms"][form] for form in ("split", "concatenated")]
    sizes = {pair: _size(settings.architecture(pair), 10) for pair in settings.cardinalities}
    depth = 3 * sum(settings.block_counts) + 2
    errors = ("error", "error_sd", "test_error", "test_error_sd")
    return Report(
        {
            "depth": depth,
            "filters": [*settings.architecture(settings.cardinalities[0]).filters],
            **_values(settings, sizes),
            "forms_difference": np.max(different).item(),
            **comparing.values(ends),
            "error_falls_at_every_step": _falls(ends["error"]),
        },
        {
            "errors": Table(
                ("pair", "parameters", "macs", *errors),
                [[pair, *sizes[pair], *row] for pair, *row in comparing.rows(ends)],
                errors,
            ),
            "forms": Table(
                ("pair", "split", "concatenated"),
                [*zip(settings.cardinalities, *different, strict=True)],
            ),
            "published": _published(settings),
            "larger": _larger(),
        },
        {
            "curves": comparing.by_epoch(settings.epochs, curves, "cardinality x width"),
            "ends": comparing.by_kind(
                ends,
                {f"Xie et al. 2017, {layers}": each for layers, each in PUBLISHED.items()},
                kinds="cardinality x width",
                ours=f"error with {depth} layers, %",
                theirs="top-1 error on ImageNet, %",
            ),
        },
    )


def _falls(runs):
    """Whether the mean error is lower with every step of cardinality."""
    means = [np.mean(runs[pair]) for pair in blocks.CARDINALITIES if pair in runs]
    return bool(np.all(np.diff(means) < 0))


def _values(settings, sizes):
    """How far the models are apart in size, and the published errors."""
    weights = [block_weights(pair) for pair in settings.cardinalities]
    parameters, macs = np.transpose([*sizes.values()])
    return {
        "least_weights": min(weights),
        "most_weights": max(weights),
        "parameters_apart": float(parameters.max() / parameters.min() - 1),
        "macs_apart": float(macs.max() / macs.min() - 1),
        "published_range": [
            (max(errors.values()) - min(errors.values())) / 100 for errors in PUBLISHED.values()
        ],
        "without_shortcuts": {
            model: [error / 100 for error in errors] for model, errors in WITHOUT.items()
        },
    }


def block_weights(pair: str) -> int:
    """Weights of the convolutions of a block that 256 channels enter and leave.

    Parameters
    ----------
    pair : str
        A key of `blocks.CARDINALITIES`.

    Returns
    -------
    int
        C (256 d + 9 d^2 + 256 d) for C groups of d channels.

    Examples
    --------
    >>> from keras_resnet.experiments.cardinality import block_weights
    >>> block_weights("1x64d"), block_weights("32x4d")
    (69632, 70144)
    """
    cardinality, base_width = blocks.CARDINALITIES[pair]
    plan = blocks.bottleneck_plan(
        256, 64, cardinality=cardinality, base_width=base_width, name="block"
    )
    return sum(each.weights for each in plan.residual)


def _size(architecture, classes):
    """Parameters and multiply-adds of a model."""
    stages = analysis.planned(architecture, classes=classes)
    return sum(stage.parameters for stage in stages), sum(stage.macs for stage in stages)


def _published(settings):
    """The block and the 50-layer model of each pair, and what errors were published."""
    rows = []
    for pair in settings.cardinalities:
        cardinality, base_width = blocks.CARDINALITIES[pair]
        model = replace(
            zoo.architecture("ResNet50"), cardinality=cardinality, base_width=base_width
        )
        errors = [errors[pair] / 100 for errors in PUBLISHED.values()]
        rows.append([pair, block_weights(pair), *_size(model, 1000), *errors])
    errors = ("error_50_layers", "error_101_layers")
    return Table(("pair", "block_weights", "parameters", "macs", *errors), rows, errors)


def _larger():
    """What twice the cost of ResNet-101 gains, spent in four ways."""
    usual = zoo.architecture("ResNet101")
    rows = [
        [name, *_size(replace(usual, **changes), 1000), error / 100]
        for name, (changes, error) in LARGER.items()
    ]
    once = rows[0][2]
    rows = [[name, parameters, macs, macs / once, error] for name, parameters, macs, error in rows]
    return Table(("model", "parameters", "macs", "times", "error"), rows, ("error",))


EXPERIMENT = Experiment(
    "cardinality",
    CardinalitySettings,
    _trials,
    _report,
    # That of CIFAR-10, as the authors' repository has it: their pairs were for ImageNet.
    full={
        **trainings.FULL,
        "epochs": 300,
        "weight_decay": 5e-4,
        "width": 64,
        "block_counts": (3, 3, 3),
    },
)
