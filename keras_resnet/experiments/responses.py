"""How strongly layers respond, in plain and residual models: He et al. 2016, figure 7."""

import re
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_resnet import analysis, data, graphs, names, zoo
from keras_resnet.experiments import trainings
from keras_resnet.experiments.experiment import Experiment, Report, Table, Trial
from keras_resnet.experiments.figures import spread
from keras_resnet.experiments.trainings import LoadingSettings
from keras_resnet.pages import COLOURS, figure

KINDS = {"plain": None, "residual": "A"}
"""The shortcut of each kind."""

MOST = 0.9
"""An order holds if it does for the mean and for this fraction of the sorted layers."""


# How lines are drawn, by kind and whether the weights were loaded.
_STYLES: dict[tuple[str, bool], dict[str, Any]] = {
    ("plain", False): {"linestyle": "--"},
    ("plain", True): {"linestyle": "--", "marker": "o", "markersize": 2.5},
    ("residual", False): {"linestyle": "-"},
    ("residual", True): {"linestyle": "-", "marker": "o", "markersize": 2.5},
}

# Files of the public reproduction whose training the page describes, and their tag.
_OF_THE_ZOO = re.compile(r"resnet\d+-[0-9a-f]{8}\.th|cifar10")


@dataclass(frozen=True, kw_only=True)
class ResponsesSettings(LoadingSettings):
    """What can be chosen: what `LoadingSettings` have, the depths, and weights to load.

    Parameters
    ----------
    depths : tuple of int, default (20, 56)
        Layers of the models, 6n + 2.
    weights : mapping of str to str or path, default {}
        Trained models to measure besides those that are trained here, such as {"residual-20":
        "resnet20.th"}: a kind and one of the depths, and what builders take as `weights`.

    Raises
    ------
    ValueError
        As `LoadingSettings` does, and for other names.
    """

    depths: tuple[int, ...] = (20, 56)
    seeds: int = 1
    images: int | None = 4000
    test_images: int | None = 1000
    batch_size: int = 32

    def __post_init__(self):
        super().__post_init__()
        trainings.check_depths(depths=self.depths)
        for name in self.weights:
            names.find("weights: model", name, map(str, _models(self.depths)))


class _Model(NamedTuple):
    """A model: of a kind and depth, trained here or before."""

    kind: str
    depth: int
    loaded: bool = False

    def __str__(self):
        return f"{self.kind}-{self.depth}{'-loaded' * self.loaded}"


def _models(depths):
    return [_Model(kind, depth) for depth in sorted(depths) for kind in KINDS]


def _loaded(settings):
    """The models that are loaded, with what they are loaded from."""
    known = {str(each): each for each in _models(settings.depths)}
    given = {
        known[names.find("model", name, known)]: file for name, file in settings.weights.items()
    }
    return {each._replace(loaded=True): given[each] for each in known.values() if each in given}


def _trials(settings):
    # What is loaded first, as a file that is not there should not be found out after an hour.
    loaded = [
        Trial(str(model), partial(_measured_of_file, model, file))
        for model, file in _loaded(settings).items()
    ]
    trained = [
        Trial(f"{model}-{seed}", partial(_trained, settings, model, seed))
        for seed in range(settings.seeds)
        for model in _models(settings.depths)
    ]
    return loaded + trained


def _built(model, images, seed=0, **options):
    return trainings.classifier(
        images,
        seed,
        zoo.CIFARResNet,
        model.depth,
        shortcut=KINDS[model.kind],
        **options,
    )


def _measured_of_file(model, file, context):
    return _measured(_built(model, context.images, weights=file), context.images)


def _trained(settings, model, seed, context):
    built = _built(model, context.images, seed)
    # The paper begins gently with 110 layers and more, for 400 of 64,000 steps.
    gently: dict[str, Any] = (
        {"warm_up": 1 / 160} if model.depth >= 110 and settings.milestones else {}
    )
    curve = trainings.train(built, settings, seed, context, **gently)
    return {**curve, **_measured(built, context.images)}


def _measured(model, images):
    """Responses on the test images; how many of these the model gets wrong; its gammas."""
    batches = data.batches(
        images.test, image_size=images.image_size, channels=images.channels, batch_size=100
    )
    found = analysis.layer_responses(model, batches)
    gammas = [
        np.abs(keras.ops.convert_to_numpy(layer.gamma))
        for layer in graphs.flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    quality = analysis.evaluate(model, batches, images.class_names)
    return {
        "layers": list(found.names),
        "responses": list(found.deviations),
        "gamma": float(np.concatenate(gammas).mean()),
        "measured_error": 1 - quality.metrics()["accuracy"],
    }


def fraction_below(responses, others):
    """Compare two models layer by layer, both sorted by magnitude.

    Parameters
    ----------
    responses, others : sequence of float
        Responses of each model's layers. If one has fewer, its sorted curve is interpolated at the
        relative positions of the first one's layers: the strongest is at 0, the weakest at 1.

    Returns
    -------
    float
        The fraction of the first model's layers that respond less.

    Examples
    --------
    >>> from keras_resnet.experiments.responses import fraction_below
    >>> fraction_below([1.0, 5.0, 2.0, 2.0], [4.0, 1.5])
    0.75
    """
    first, second = (np.sort(each)[::-1] for each in (responses, others))
    places, known = (np.linspace(0, 1, len(each)) for each in (first, second))
    return float(np.mean(first < np.interp(places, known, second)))


class _Order(NamedTuple):
    """How one model responds beside another, for each seed."""

    below: _Model
    above: _Model
    ratios: list[float]
    fractions: list[float]

    @property
    def holds(self):
        return max(self.ratios) < 1 and min(self.fractions) >= MOST


def _orders(runs):
    """What responds less than what, says the paper, of all models that are there."""
    found = {}
    for model in runs:
        if model.kind == "residual":
            plain = _Model("plain", model.depth, model.loaded)
            found["residual_below_plain", model] = (
                plain if plain in runs else plain._replace(loaded=False)
            )
            shallower = [
                each for each in runs if each == model._replace(depth=each.depth) and each < model
            ]
            if shallower:
                found["deeper_below_shallower", model] = max(shallower)
    return {
        claim: [_order(below, above, runs) for (its, below), above in found.items() if its == claim]
        for claim in ("residual_below_plain", "deeper_below_shallower")
    }


def _order(below, above, runs):
    # What is loaded is the same for all seeds.
    count = max(len(runs[below]), len(runs[above]))
    one, other = (runs[each] * (count // len(runs[each])) for each in (below, above))
    pairs = list(zip(one, other, strict=True))
    return _Order(
        *(below, above),
        [statistics.mean(first) / statistics.mean(second) for first, second in pairs],
        [fraction_below(first, second) for first, second in pairs],
    )


def _report(settings, results):
    found = {
        model: [results[str(model)]]
        if model.loaded
        else [results[f"{model}-{seed}"] for seed in range(settings.seeds)]
        for model in [*_models(settings.depths), *_loaded(settings)]
    }
    runs = {model: [each["responses"] for each in its] for model, its in found.items()}
    orders = _orders(runs)
    files = {model: Path(file).name for model, file in _loaded(settings).items()}
    columns = ("mean", "mean_sd", "gamma", "test_error")
    models = [
        [
            *(model.kind, model.depth, files.get(model)),
            *trainings.mean_and_deviation([statistics.mean(each) for each in runs[model]]),
            *(statistics.mean(each[key] for each in its) for key in ("gamma", "measured_error")),
        ]
        for model, its in found.items()
    ]
    compared = [
        [str(each.below), str(each.above), statistics.mean(each.ratios), min(each.fractions),
         "yes" if each.holds else "no"]
        for its in orders.values()
        for each in its
    ]  # fmt: skip
    layers = [
        [str(model), seed, number, name, response]
        for model, its in found.items()
        for seed, each in enumerate(its)
        for number, (name, response) in enumerate(
            zip(each["layers"], each["responses"], strict=True), start=1
        )
    ]
    return Report(
        {**_values(runs, orders, files), "beside_gamma": _beside_gamma(found)},
        {
            "models": Table(("kind", "depth", "weights", *columns), models, ("test_error",)),
            "orders": Table(
                ("below", "above", "ratio", "fraction", "holds"), compared, ("fraction",)
            ),
            "layers": Table(("model", "seed", "layer", "name", "response"), layers),
        },
        {"responses": _curves(runs)},
    )


def _values(runs, orders, files):
    """The numbers of the page. A claim of which there is no case is neither true nor false."""
    means = {str(model): statistics.mean(map(statistics.mean, its)) for model, its in runs.items()}
    compared = {}
    for claim, its in orders.items():
        for origin, loaded in {"loaded": True, "trained": False}.items():
            cases = [each for each in its if each.below.loaded is loaded]
            compared[f"{claim}_{origin}"] = all(each.holds for each in cases) if cases else None
    return {
        "means": means,
        **compared,
        "least_fractions": {
            f"{each.below} below {each.above}": min(each.fractions)
            for its in orders.values()
            for each in its
        },
        "loaded": list(map(str, files)),
        "of_the_zoo": any(map(_OF_THE_ZOO.fullmatch, files.values())),
    }


def _beside_gamma(found):
    """How far a model's mean response is from its mean |gamma| at most, as a fraction of that."""
    return max(
        abs(statistics.mean(each["responses"]) / each["gamma"] - 1)
        for its in found.values()
        for each in its
    )


def _curves(runs):
    """Layers in their order, and by magnitude: figure 7."""
    colours = dict(zip(sorted({model.depth for model in runs}), COLOURS, strict=False))
    with figure(2, sharey=True) as (drawn, axes):
        for model, its in runs.items():
            style = dict(_STYLES[model.kind, model.loaded], color=colours[model.depth])
            numbers = range(1, len(its[0]) + 1)
            spread(axes[0], numbers, its, str(model), **style)
            spread(axes[1], numbers, (-np.sort(-np.array(its))).tolist(), "_", **style)
        axes[0].set_ylabel("standard deviation")
        axes[0].set_xlabel("layer, in order")
        axes[1].set_xlabel("layer, strongest first")
        axes[0].set_ylim(bottom=0)
        drawn.legend(loc="outside lower center", ncols=min(3, len(runs)))
    return drawn


EXPERIMENT = Experiment(
    "responses",
    ResponsesSettings,
    _trials,
    _report,
    full={**trainings.FULL, "depths": (20, 56, 110)},
)
