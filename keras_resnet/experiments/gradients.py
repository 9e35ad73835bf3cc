"""Gradients along a line of inputs, by depth: Balduzzi et al. 2017, the shattered gradients."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import keras
import numpy as np

from keras_resnet import checks, zoo
from keras_resnet.analysis import (
    autocorrelation,
    brown_noise,
    gradient_correlation,
    path,
    white_noise,
)
from keras_resnet.experiments import trainings
from keras_resnet.experiments.experiment import Experiment, Report, Settings, Table, Trial
from keras_resnet.experiments.figures import bars, published, spread
from keras_resnet.pages import COLOURS, figure

LAGS = 15
LAG = 5
"""The lag of which there are published numbers."""


class Kind(NamedTuple):
    """How the models of a kind are built.

    Parameters
    ----------
    label : str
        For figures.
    beta : float, optional
        Weight of the residual branches; None for plain models.
    normalization : {"batch", "layer"}, optional
        What comes before every rectifier.
    """

    label: str
    beta: float | None = None
    normalization: Literal["batch", "layer"] | None = None


KINDS = {
    "plain": Kind("plain"),
    "plain-batch": Kind("plain, BN", None, "batch"),
    "plain-layer": Kind("plain, LN", None, "layer"),
    "residual": Kind("residual", 1.0),
    "residual-batch": Kind("residual, BN", 1.0, "batch"),
    "residual-batch-0.1": Kind("residual, BN, \N{GREEK SMALL LETTER BETA} = 0.1", 0.1, "batch"),
    "residual-layer": Kind("residual, LN", 1.0, "layer"),
    "residual-layer-0.1": Kind("residual, LN, \N{GREEK SMALL LETTER BETA} = 0.1", 0.1, "layer"),
}
"""With BatchNormalization (BN), LayerNormalization (LN), or neither."""

# Autocorrelation at lag 5 and depth 50 of a public reproduction, with LayerNormalization.
PUBLISHED_DEPTH = 50
PUBLISHED = {"plain-layer": -0.054, "residual-layer": 0.605, "residual-layer-0.1": 0.840}

PHOTOGRAPHED = {"plain": None, "residual": "A"}
"""The shortcut of each kind of image model."""


@dataclass(frozen=True, kw_only=True)
class GradientSettings(Settings):
    """What can be chosen: the paper's set-up, and two depths more.

    Parameters
    ----------
    seeds : int, default 20
        Models of each kind and depth.
    depths : tuple of int, default (2, 4, 6, 8, 10, 24, 50)
        Layers of `width` units; a linear output comes on top. Two at least.
    width : int, default 200
        Units of a layer.
    inputs : int, default 256
        Inputs along the line, more than the 15 lags.
    photograph_seeds : int, default 5
        Image models of each kind and depth.
    photograph_depths : tuple of int, default (20, 56)
        Their layers, 6n + 2.
    photograph_steps : int, default 64
        Images along the path between two photographs, more than the 15 lags.
    """

    seeds: int = 20
    depths: tuple[int, ...] = (2, 4, 6, 8, 10, 24, 50)
    width: int = 200
    inputs: int = 256
    photograph_seeds: int = 5
    photograph_depths: tuple[int, ...] = (20, 56)
    photograph_steps: int = 64
    least_seeds: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        checks.check_positive(width=self.width, photograph_seeds=self.photograph_seeds)
        several = self.depths if isinstance(self.depths, tuple) else ()
        for depth in several:
            checks.check_positive(depths=depth)
        if len({*several}) < max(2, len(several)):
            raise ValueError(
                f"depths={self.depths!r} must be at least two different ones, such as [2, 10, 50]."
            )
        for name in ("inputs", "photograph_steps"):
            count = getattr(self, name)
            checks.check_positive(**{name: count})
            if count <= LAGS:
                raise ValueError(f"{name}={count} must be above {LAGS}, the longest lag.")
        trainings.check_depths(photograph_depths=self.photograph_depths)


def fresh_model(kind: str, depth: int, width: int = 200, dimensions: int = 1) -> keras.Model:
    """Build a model of one output, with fresh weights of variance 2 / fan-in (He et al.).

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    depth : int
        Layers of `width` units. In a plain model a rectifier follows each; in a residual one, all
        but the first are residual branches: normalization, rectifier, linear layer, times beta.
    width : int, default 200
        Units of a layer.
    dimensions : int, default 1
        Numbers that the model takes. Biases are 0, except those of the first layer if it takes one
        number: they are drawn between -1 and 1, for otherwise all of its rectifiers switch at 0.

    Returns
    -------
    keras.Model

    Examples
    --------
    >>> from keras_resnet.experiments.gradients import fresh_model
    >>> fresh_model("residual-batch", 4, width=10).output_shape
    (None, 1)
    """
    _, beta, normalization = KINDS[kind]
    he = partial(keras.initializers.VarianceScaling, 2.0, "fan_in", "untruncated_normal")
    kinks = keras.initializers.RandomUniform(-1, 1) if dimensions == 1 else "zeros"

    def rectified(x):
        if normalization:
            x = _NORMALIZATIONS[normalization]()(x)
        return keras.layers.ReLU()(x)

    inputs = keras.Input((dimensions,))
    x = keras.layers.Dense(width, kernel_initializer=he(), bias_initializer=kinks)(inputs)
    for _ in range(depth - 1):
        branch = keras.layers.Dense(width, kernel_initializer=he())(rectified(x))
        x = (
            branch
            if beta is None
            else keras.layers.Add()([x, keras.layers.Rescaling(beta)(branch)])
        )
    x = rectified(x) if beta is None else x
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer=he())(x))


_NORMALIZATIONS = {
    "batch": partial(keras.layers.BatchNormalization, scale=False, center=False, epsilon=1e-5),
    "layer": partial(keras.layers.LayerNormalization, scale=False, center=False, epsilon=1e-5),
}


def _trials(settings):
    lines = [
        Trial(f"lines-{seed}", partial(_along_lines, settings, seed))
        for seed in range(settings.seeds)
    ]
    photographs = [
        Trial(f"photographs-{seed}", partial(_between_photographs, settings, seed))
        for seed in range(settings.photograph_seeds)
    ]
    return [*lines, *photographs]


def _along_lines(settings, seed, context):
    """The gradients of one model of each kind and depth, on the line and at separate inputs."""
    line = np.linspace(-2, 2, settings.inputs)[:, None]
    separate = np.random.default_rng(seed).normal(size=(settings.inputs, settings.width))
    found = {}
    for depth in settings.depths:
        deepest = depth == max(settings.depths)
        for kind in KINDS:
            model = _drawn(seed, kind, depth, settings.width, 1)
            found[_place(kind, depth)] = _on_the_line(model, kind, line, deepest)
            if kind in THEORY:
                model = _drawn(seed, kind, depth, settings.width, settings.width)
                found[_place(kind, depth)] |= _at_separate_inputs(model, separate, deepest)
    return found


def _place(kind, depth):
    return f"{kind}-{depth}"


_model = functools.cache(fresh_model)


def _drawn(seed, kind, depth, width, dimensions):
    """A model with fresh weights: drawing them takes less than building the model again."""
    model = _model(kind, depth, width, dimensions)
    keras.utils.set_random_seed(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            # A clone draws anew; the initializer itself gives what it has given before.
            layer.kernel.assign(layer.kernel_initializer.clone()(layer.kernel.shape))
            layer.bias.assign(layer.bias_initializer.clone()(layer.bias.shape))
    return model


def _on_the_line(model, kind, line, deepest):
    """Gradients with the statistics held fixed; the lag of those that go through them, too."""
    measured = partial(gradient_correlation, model, line, batch_size=len(line))
    gradients = _rounded(measured(statistics="batch").gradients[:, 0])
    # A text of one line: lists of numbers would have a line for each.
    found: dict[str, Any] = {"gradients": " ".join(map(str, gradients))}
    if deepest:
        found["line_coactive"] = coactive(model, line)
    if deepest and KINDS[kind].normalization == "batch":
        total = measured(statistics="total").autocorrelation(LAG)
        found["total_lag"] = round(float(total[LAG]), 5)
    return found


def _at_separate_inputs(model, inputs, deepest):
    """Means over pairs of inputs that have nothing in common."""
    found = gradient_correlation(model, inputs, statistics="batch", batch_size=len(inputs))
    variance, covariance = _rounded(moments(found.covariance))
    result = {"variance": variance, "covariance": covariance}
    return result | ({"coactive": coactive(model, inputs)} if deepest else {})


def _rounded(numbers):
    """As many digits as mean something, so that results stay small."""
    return [float(f"{number:.4g}") for number in numbers]


def coactive(model: keras.Model, inputs: np.ndarray) -> float:
    """The fraction of pairs of inputs at which a rectifier is active, over all of a model.

    Parameters
    ----------
    model : keras.Model
        One of `fresh_model`, whose moving averages change.
    inputs : array of shape (n, dimensions)
        The inputs.

    Returns
    -------
    float
        A quarter, if half of the inputs activate a rectifier, independently of each other.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.gradients import coactive, fresh_model
    >>> inputs = np.random.default_rng(0).normal(size=(256, 100))
    >>> round(coactive(fresh_model("plain-batch", 3, 100, 100), inputs), 2)
    0.25
    """
    rectified = [layer.output for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    outputs = keras.Model(model.input, rectified)(inputs.astype("float32"), training=True)
    active = np.array([(np.asarray(each) > 0).sum(0) for each in keras.tree.flatten(outputs)])
    return round(float(np.mean(active * (active - 1)) / len(inputs) / (len(inputs) - 1)), 5)


def moments(covariance: np.ndarray) -> tuple[float, float]:
    """The mean of a covariance matrix on its diagonal, and of all that is beside it.

    Parameters
    ----------
    covariance : array of shape (n, n)
        The matrix.

    Returns
    -------
    variance, covariance : float

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.gradients import moments
    >>> moments(np.array([[2.0, 1.0], [1.0, 4.0]]))
    (3.0, 1.0)
    """
    count, variance = len(covariance), float(np.trace(covariance)) / len(covariance)
    return variance, (float(covariance.sum()) / count - variance) / (count - 1)


def _between_photographs(settings, seed, context):
    """Autocorrelation of the gradients of fresh CIFAR models, along a path between two images."""
    first, second = _photographs()
    inputs = path(first, second, settings.photograph_steps)
    found = {}
    for kind, shortcut in PHOTOGRAPHED.items():
        for depth in settings.photograph_depths:
            model = trainings.built(
                seed, zoo.CIFARResNet, depth, shortcut=shortcut, classifier_activation=None
            )
            result = gradient_correlation(model, inputs, output=0, statistics="batch")
            found[_place(kind, depth)] = {
                "autocorrelation": result.autocorrelation(LAGS).round(5).tolist(),
                "ends": round(float(result.correlation[0, -1]), 5),
            }
    return found


def _photographs():
    """Two photographs that scikit-learn comes with, of 32 x 32 pixels, normalized."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    images = []
    for photograph in load_sample_images().images:
        size = min(photograph.shape[:2])
        top, left = ((length - size) // 2 for length in photograph.shape[:2])
        square = Image.fromarray(photograph[top : top + size, left : left + size])
        small = np.asarray(square.resize((32, 32), Image.Resampling.BOX), "float64")
        images.append((small - small.mean()) / small.std())
    return images


# What the theorems say. Going back by one layer multiplies the variance of a gradient, and its
# covariance between two inputs. He's initialization makes the former 1: half of the rectifiers are
# active, and weights have twice the variance. For the latter, a rectifier counts that is active at
# both inputs: a quarter of them, if the inputs have nothing in common.


def plain_correlation(depth: int) -> float:
    """The correlation of theorem 1: a factor of 2 * 1/4 per layer."""
    return 0.5**depth


def residual_moments(
    depth: int, beta: float = 1.0, *, start: float = 1.0, growth: float = 1.0
) -> tuple[float, float]:
    """Variance and covariance of gradients as in theorem 3, where they are 1 without branches.

    Normalization divides what enters a branch by its standard deviation.

    Parameters
    ----------
    depth : int
        Layers: one, and depth - 1 branches.
    beta : float, default 1
        Weight of the branches.
    start : float, default 1
        The variance of what leaves the first layer.
    growth : float, default 1
        The variance that a branch adds, divided by beta^2. BatchNormalization takes the mean away,
        which leaves 1 - 1 / pi.

    Returns
    -------
    variance, covariance : float

    Examples
    --------
    >>> from keras_resnet.experiments.gradients import residual_moments
    >>> variance, covariance = residual_moments(50)
    >>> round(variance, 6), round(covariance, 2)
    (50.0, 7.96)
    """
    received = beta**2 / (start + growth * beta**2 * np.arange(depth - 1))
    return float(np.prod(1 + received)), float(np.prod(1 + received / 2))


def kernel_correlation(depth: int, residual: bool = False) -> float:
    """The correlation without normalization, of wide models, at two inputs at a right angle.

    The outputs of rectifiers are not negative, which draws the two inputs together from layer to
    layer: more than a quarter of the rectifiers are active at both (Cho and Saul, 2009).

    Parameters
    ----------
    depth : int
        Layers.
    residual : bool, default False
        Whether all layers but the first are residual branches.

    Returns
    -------
    float

    Examples
    --------
    >>> from keras_resnet.experiments.gradients import kernel_correlation
    >>> round(kernel_correlation(1), 6), round(kernel_correlation(2), 3)
    (0.5, 0.302)
    >>> round(kernel_correlation(2, residual=True), 6)
    0.75
    """
    correlation, cosine = 1.0, 0.0
    for _ in range(depth - 1 if residual else depth):
        angle = math.acos(min(cosine, 1.0))
        both = 1 - angle / math.pi
        kernel = math.sin(angle) / math.pi + both * cosine
        correlation *= (1 + both) / 2 if residual else both
        cosine = (cosine + kernel) / 2 if residual else kernel
    return correlation


THEORY: dict[str, Callable[[int], float]] = {
    "plain": kernel_correlation,
    "plain-batch": plain_correlation,
    "residual": partial(kernel_correlation, residual=True),
    "residual-batch": lambda depth: _ratio(*residual_moments(depth)),
    "residual-batch-0.1": lambda depth: _ratio(*residual_moments(depth, 0.1)),
}
"""The correlation that is expected at inputs that have nothing in common, by depth."""


def _ratio(variance, covariance):
    return covariance / variance


def _centred(depth, kind="residual-batch", *, start=2.0):
    """What is expected where BatchNormalization takes means away; the first layer is He's, too."""
    beta = KINDS[kind].beta or 1.0
    return _ratio(*residual_moments(depth, beta, start=start, growth=1 - 1 / math.pi))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of a straight line through points, by least squares."""
    return float(np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)[0])


def with_error(estimate: Callable[[np.ndarray], float], runs: np.ndarray) -> tuple[float, float]:
    """An estimate from several runs, and its standard error by leaving out one run at a time.

    Parameters
    ----------
    estimate : callable
        Takes an array of runs, of shape (runs, ...).
    runs : array of shape (runs, ...)
        Two at least.

    Returns
    -------
    estimate, error : float

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.gradients import with_error
    >>> with_error(np.mean, np.array([1.0, 3.0]))  # as the standard deviation / sqrt(2)
    (2.0, 1.0)
    """
    left_out = [estimate(np.delete(runs, run, 0)) for run in range(len(runs))]
    return float(estimate(runs)), float(np.sqrt((len(runs) - 1) * np.var(left_out)))


def _report(settings, results):
    depths = sorted(settings.depths)
    runs = [results[f"lines-{seed}"] for seed in range(settings.seeds)]
    photographs = [results[f"photographs-{seed}"] for seed in range(settings.photograph_seeds)]

    def collected(key, kinds, depths=depths):
        """What was found under a key, an array of shape (seeds, depths, ...) for each kind."""
        return {
            kind: np.array([[run[_place(kind, depth)][key] for depth in depths] for run in runs])
            for kind in kinds
        }

    variance = collected("variance", THEORY)
    gradients = {
        kind: np.array([[text.split() for text in run] for run in found], float)
        for kind, found in collected("gradients", KINDS).items()
    }
    separate = {
        kind: covariance / variance[kind]
        for kind, covariance in collected("covariance", THEORY).items()
    }
    lags = {
        kind: np.apply_along_axis(autocorrelation, -1, found, LAGS)
        for kind, found in gradients.items()
    }
    deepest = {
        "lag": {kind: found[:, -1, LAG] for kind, found in lags.items()},
        "total_lag": collected("total_lag", _OF_BATCHES, depths[-1:]),
        "line_coactive": collected("line_coactive", KINDS, depths[-1:]),
        "coactive": collected("coactive", THEORY, depths[-1:]),
    }
    fits = _fits(np.array(depths), separate, variance["residual-batch"])
    return Report(
        {
            "depths": depths,
            "deep": depths[-1],
            **fits,
            "line_plain_base": _base_on_line(np.array(depths), gradients["plain-batch"]),
            **_values(deepest),
            **_photograph_values(settings, photographs),
        },
        {
            "correlations": _correlation_table(depths, separate),
            "lags": _lag_table(settings, depths, deepest),
            "photographs": _photograph_table(settings, photographs),
        },
        {
            "line": _line_figure(settings, depths, gradients),
            "covariance": _covariance_figure(settings, depths, gradients),
            "autocorrelation": _autocorrelation_figure(settings, depths, lags),
            "correlations": _correlation_figure(depths, separate, fits["plain_depths"]),
            "photographs": _photograph_figure(settings, photographs),
        },
    )


_OF_BATCHES = [kind for kind in KINDS if KINDS[kind].normalization == "batch"]


def _fits(depths, separate, variance):
    """How correlations fall with depth at separate inputs, and what the theorems give there."""
    plain, residual = separate["plain-batch"], separate["residual-batch"]
    measurable = _measurable(plain)
    base = base_error = None
    if measurable.sum() > 1:
        base, base_error = with_error(lambda runs: _base(depths, runs.mean(0), measurable), plain)

    def exponent(numbers, some=slice(None)):
        return slope(np.log(depths[some]), np.log(numbers[some]))

    measured, error = with_error(lambda runs: exponent(runs.mean(0)), residual)
    theorem = np.array([THEORY["residual-batch"](depth) for depth in depths])
    centred = np.array([_centred(depth) for depth in depths])
    from_one = np.array([_centred(depth, start=1.0) for depth in depths])
    last = slice(-2, None)
    latest, latest_error = with_error(lambda runs: exponent(runs.mean(0), last), residual)
    return {
        "plain_base": base,
        "plain_base_error": base_error,
        "plain_depths": depths[measurable].tolist(),
        "residual_exponent": measured,
        "residual_exponent_error": error,
        "residual_exponent_theorem": exponent(theorem),
        "residual_exponent_centred": exponent(centred),
        "residual_exponent_from_one": exponent(from_one),
        "residual_exponent_last": latest,
        "residual_exponent_last_error": latest_error,
        "residual_exponent_last_centred": exponent(centred, last),
        "residual_against_variance": slope(np.log(variance.mean(0)), np.log(residual.mean(0))),
        "variance_exponent_last": exponent(variance.mean(0), last),
        "weak_correlation": _mean(separate["residual-batch-0.1"][:, -1]),
        "weak_correlation_theorem": THEORY["residual-batch-0.1"](int(depths[-1])),
        "weak_correlation_limit": 10 / math.sqrt(depths[-1]),
    }


def _measurable(runs):
    """The depths down to which a mean over seeds is above three times its standard error."""
    above = runs.mean(0) > 3 * runs.std(0, ddof=1) / math.sqrt(len(runs))
    # Beyond the first that is not, a mean of noise may be, by chance.
    return np.logical_and.accumulate(above)


def _base(depths, correlations, some):
    """The base of a power that falls with depth."""
    # Without one of the seeds, a mean may be below 0.
    return math.exp(slope(depths[some], np.log(np.maximum(correlations[some], 1e-6))))


def _base_on_line(depths, gradients):
    """The same from the mean over all pairs of inputs on the line, as long as it is above 0."""
    products = [[moments(np.outer(each, each)) for each in run] for run in gradients]
    variance, covariance = np.mean(products, 0).T
    above = np.logical_and.accumulate(covariance > 0)
    return _base(depths, covariance / variance, above) if above.sum() > 1 else None


def _values(deepest):
    """Means over seeds at the deepest models, by what was measured and kind."""
    values = {}
    for key, kinds in deepest.items():
        for kind, found in kinds.items():
            name = f"{key}_{kind}".replace("-", "_").replace(".", "_")
            values[name] = _mean(found)
            values[f"{name}_sd"] = float(np.nanstd(found, ddof=1))
    return values


def _photograph_values(settings, photographs):
    """Autocorrelation at lag 1 of the deepest image models."""
    deep = max(settings.photograph_depths)
    values = {"photograph_deep": deep}
    for kind in PHOTOGRAPHED:
        found = [run[_place(kind, deep)]["autocorrelation"][1] for run in photographs]
        mean, deviation = trainings.mean_and_deviation(found)
        values |= {f"photograph_{kind}": mean, f"photograph_{kind}_sd": deviation}
    return values


def _correlation_table(depths, separate):
    rows = [
        [
            *(KINDS[kind].label, depth),
            *trainings.mean_and_deviation(found[:, place].tolist()),
            THEORY[kind](depth),
            _centred(depth, kind) if kind.startswith("residual-batch") else None,
        ]
        for kind, found in separate.items()
        for place, depth in enumerate(depths)
    ]
    columns = ("kind", "depth", "correlation", "correlation_sd", "expected", "centred")
    return Table(columns, rows)


def _lag_table(settings, depths, deepest):
    def mean_of(key, kind):
        return _mean(deepest[key][kind]) if kind in deepest[key] else None

    rows = [
        [
            kind.label,
            *trainings.mean_and_deviation(deepest["lag"][name].tolist()),
            PUBLISHED.get(name) if depths[-1] == PUBLISHED_DEPTH else None,
            mean_of("total_lag", name),
            mean_of("line_coactive", name),
        ]
        for name, kind in KINDS.items()
    ]
    for name, noise in NOISES.items():
        found = [autocorrelation(run, LAG)[LAG] for run in _noise(noise, settings)]
        rows.append([name, *trainings.mean_and_deviation(found), None, None, None])
    return Table(("kind", "lag", "lag_sd", "published", "through_statistics", "coactive"), rows)


def _photograph_table(settings, photographs):
    rows = []
    for kind in PHOTOGRAPHED:
        for depth in sorted(settings.photograph_depths):
            found = [run[_place(kind, depth)] for run in photographs]
            row = [kind, depth]
            for lag in (1, LAG):
                at = [each["autocorrelation"][lag] for each in found]
                row += trainings.mean_and_deviation(at)
            ends, ends_sd = trainings.mean_and_deviation([each["ends"] for each in found])
            # They have five decimals: what is left far below is rounding of their sum.
            rows.append([*row, round(ends, 8) + 0.0, ends_sd])
    columns = ("kind", "depth", "lag_1", "lag_1_sd", "lag_5", "lag_5_sd", "ends", "ends_sd")
    return Table(columns, rows)


NOISES = {"brown noise": brown_noise, "white noise": white_noise}


def _noise(draw, settings):
    return np.array([draw(settings.inputs, seed) for seed in range(settings.seeds)])


_PANEL = {"width": 2.4, "height": 2.0}


def _line_figure(settings, depths, gradients):
    """The gradients of the first models along the line, beside noise."""
    line = np.linspace(-2, 2, settings.inputs)
    shown = [("plain-batch", 0), ("plain-batch", -1), ("residual-batch", -1)]
    panels = {
        f"{KINDS[kind].label}, {depths[place]} layers": gradients[kind][0, place]
        for kind, place in [*shown, ("residual-batch-0.1", -1)]
    } | {name: _noise(noise, settings)[0] for name, noise in NOISES.items()}
    with figure(3, 2, **_PANEL, sharex=True) as (drawn, axes):
        for axis, (name, values), colour in zip(axes.flat, panels.items(), COLOURS, strict=False):
            axis.plot(line, values / np.std(values), color=colour, linewidth=0.9)
            axis.set_title(name, fontsize=8, loc="left")
        for axis in axes[-1]:
            axis.set_xlabel("input x")
        for axis in axes[:, 0]:
            axis.set_ylabel("df/dx, in sd")
    return drawn


def _covariance_figure(settings, depths, gradients):
    """Mean products of gradients at two inputs, beside those of noise."""
    kinds = ("plain-batch", "residual-batch", "residual-batch-0.1", "residual-layer")
    with figure(len(kinds) + 1, 2, width=1.9, height=1.9, sharex=True, sharey=True) as (
        drawn,
        axes,
    ):
        for row, (place, (name, noise)) in enumerate(zip((-2, -1), NOISES.items(), strict=True)):
            panels = {
                f"{KINDS[kind].label}\n{depths[place]} layers": gradients[kind][:, place]
                for kind in kinds
            } | {name: _noise(noise, settings)}
            for axis, (title, runs) in zip(axes[row], panels.items(), strict=True):
                products = runs.T @ runs / len(runs)
                image = axis.imshow(
                    products / np.trace(products) * len(products),
                    **{"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "origin": "lower"},
                    **{"extent": (-2, 2, -2, 2), "interpolation": "nearest"},
                )
                axis.set_title(title, fontsize=8, loc="left")
                axis.grid(visible=False)
        for axis in axes[-1]:
            axis.set_xlabel("input x")
        for axis in axes[:, 0]:
            axis.set_ylabel("input x")
        drawn.colorbar(image, ax=axes, label="covariance / mean variance", shrink=0.7)
    return drawn


def _autocorrelation_figure(settings, depths, lags):
    """Autocorrelation by lag, for each kind and depth, beside noise and published numbers."""
    steps = range(LAGS + 1)
    noises = {
        name: np.mean([autocorrelation(run, LAGS) for run in _noise(noise, settings)], 0)
        for name, noise in NOISES.items()
    }
    with figure(4, 2, **_PANEL, sharex=True, sharey=True) as (drawn, axes):
        for axis, (name, kind) in zip(axes.flat, KINDS.items(), strict=True):
            for noise, style in zip(noises, ("--", ":"), strict=True):
                axis.plot(steps, noises[noise], style, color="#555555", label=noise, linewidth=1)
            for place, depth in enumerate(depths):
                found = lags[name][:, place]
                colour = COLOURS[place % len(COLOURS)]
                spread(axis, steps, found, f"{depth} layers", color=colour)
            if name in PUBLISHED and depths[-1] == PUBLISHED_DEPTH:
                colour = COLOURS[(len(depths) - 1) % len(COLOURS)]
                published(axis, [LAG], [PUBLISHED[name]], "published", color=colour)
            axis.set_title(kind.label, fontsize=8, loc="left")
            axis.set_ylim(-0.35, 1.02)
        for axis in axes[-1]:
            axis.set_xlabel("lag, in inputs")
        for axis in axes[:, 0]:
            axis.set_ylabel("autocorrelation")
        handles = {
            label: handle
            for axis in axes.flat
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        drawn.legend(handles.values(), handles, loc="outside right center")
    return drawn


def _correlation_figure(depths, separate, measurable):
    """Correlation at separate inputs by depth, and what is expected."""
    panels = [("plain", "plain-batch"), ("residual", "residual-batch", "residual-batch-0.1")]
    every = np.unique(np.geomspace(depths[0], depths[-1], 60).round().astype(int))
    with figure(2) as (drawn, axes):
        for axis, kinds in zip(axes, panels, strict=True):
            for kind, colour in zip(kinds, COLOURS, strict=False):
                kept = [
                    place
                    for place, depth in enumerate(depths)
                    if kind != "plain-batch" or depth in measurable
                ]
                there = [depths[place] for place in kept]
                label, color = KINDS[kind].label, {"color": colour}
                if kept:
                    bars(axis, there, separate[kind][:, kept], label, fmt="o", **color)
                lines = every[every <= max(there, default=0)]
                axis.plot(lines, [THEORY[kind](depth) for depth in lines], **color, linewidth=1)
                if kind.startswith("residual-batch"):
                    centred = [_centred(depth, kind) for depth in lines]
                    axis.plot(lines, centred, ":", **color, linewidth=1)
            axis.set_xlabel("layers")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(depths, [str(depth) for depth in depths])
            axis.minorticks_off()
            axis.legend(loc="lower left")
        axes[0].set_ylabel("correlation of gradients")
    return drawn


def _photograph_figure(settings, photographs):
    """Autocorrelation along the path between two photographs."""
    with figure() as (drawn, axis):
        for kind, style in zip(PHOTOGRAPHED, ("--", "-"), strict=True):
            for depth, colour in zip(sorted(settings.photograph_depths), COLOURS, strict=False):
                found = [run[_place(kind, depth)]["autocorrelation"] for run in photographs]
                label = f"{kind}-{depth}"
                spread(axis, range(LAGS + 1), found, label, color=colour, linestyle=style)
        axis.set_xlabel(
            f"lag, in steps (of {settings.photograph_steps - 1} between the photographs)"
        )
        axis.set_ylabel("autocorrelation")
        axis.legend()
    return drawn


def _mean(values):
    return float(np.nanmean(values))


EXPERIMENT = Experiment(
    "gradients",
    GradientSettings,
    _trials,
    _report,
    full={
        "seeds": 100,
        "depths": (2, 3, 4, 6, 8, 10, 12, 16, 24, 34, 50, 100),
        "photograph_seeds": 20,
        "photograph_depths": (20, 32, 44, 56, 110),
    },
    takes_data=False,
)
