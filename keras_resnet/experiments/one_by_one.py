"""What a 1x1 convolution is: a dense layer applied to every pixel. Lin et al. 2014."""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import PIL.Image

from keras_resnet import checks
from keras_resnet.analysis import complexity
from keras_resnet.experiments.experiment import Experiment, Report, Settings, Table, Trial
from keras_resnet.pages import figure

# Rows are what comes out, columns what goes in: red, green, blue.
MIXTURES = {
    # Rec. 601, as Pillow and JPEG files have it.
    "grey": [[0.299, 0.587, 0.114]],
    "sepia": [[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]],
    "red and blue swapped": [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    "red - green": [[1, -1, 0]],
    "blue - yellow": [[-0.5, -0.5, 1]],
}


# Side of the kernel, channels that come in and go out.
BOTTLENECK = {
    "1x1, 256 to 64": (1, 256, 64),
    "3x3, 64 to 64": (3, 64, 64),
    "1x1, 64 to 256": (1, 64, 256),
}
WIDE = "3x3, 256 to 256"
LAYERS = {**BOTTLENECK, WIDE: (3, 256, 256)}


@dataclass(frozen=True, kw_only=True)
class OneByOneSettings(Settings):
    """What can be chosen.

    Parameters
    ----------
    seeds
        As in `Settings`: of the random maps and kernels.
    size : int, default 28
        Height and width of the maps, at least 4.
    inputs, outputs : int, default 256 and 64
        Channels.
    batch_size : int, default 16
        Maps whose convolution is timed.
    repetitions : int, default 15
        How often each way is timed, in turn with the others.
    """

    size: int = 28
    inputs: int = 256
    outputs: int = 64
    batch_size: int = 16
    repetitions: int = 15

    def __post_init__(self):
        super().__post_init__()
        checks.check_positive(
            size=self.size,
            inputs=self.inputs,
            outputs=self.outputs,
            batch_size=self.batch_size,
            repetitions=self.repetitions,
        )
        if self.size < 4:
            raise ValueError(f"size={self.size}: maps must have at least 4x4 pixels.")


def _trials(settings):
    return [
        *(
            Trial(f"equality-{seed}", functools.partial(_equality, settings, seed))
            for seed in range(settings.seeds)
        ),
        Trial("photograph", _photograph_differences),
        Trial("blocks", _blocks),
        Trial("speed", functools.partial(_speed, settings)),
    ]


# The three ways, of a map and a kernel of shape (inputs, outputs), without bias.


def _convolution(x, kernel, strides=1, padding="valid"):
    return keras.ops.conv(x, kernel[None, None], strides, padding, data_format="channels_last")


def _dense(x, kernel):
    return _layer(*kernel.shape, x.dtype.name).stateless_call([kernel], [], x)[0]


@functools.cache
def _layer(inputs, outputs, dtype):
    """A dense layer, whose own kernel is not used."""
    layer = keras.layers.Dense(outputs, use_bias=False, dtype=dtype)
    layer.build((None, inputs))
    return layer


def _product(x, kernel):
    """Pixels as the rows of a matrix."""
    rows = keras.ops.reshape(x, (-1, x.shape[-1]))
    return keras.ops.reshape(keras.ops.matmul(rows, kernel), (*x.shape[:-1], kernel.shape[1]))


WAYS: dict[str, Callable] = {
    "convolution": _convolution,
    "dense layer": _dense,
    "matrix product": _product,
}


def _equality(settings, seed, context):
    """How far the ways are apart in float64: the largest difference, over the largest number."""
    x, kernel, weights = _drawn(settings, seed)
    found = {name: _with_gradients(way, x, kernel, weights) for name, way in WAYS.items()}
    found["NumPy"] = _by_hand(x, kernel, weights)
    differences = {}
    for name in ("dense layer", "matrix product", "NumPy"):
        pairs = zip(found["convolution"], found[name], strict=True)
        differences[name] = [_difference(first, second) for first, second in pairs]
    strided = _with_gradients(
        functools.partial(_convolution, strides=2), x, kernel, weights[:, ::2, ::2]
    )
    subsampled = _with_gradients(
        lambda x, kernel: _dense(x[:, ::2, ::2], kernel), x, kernel, weights[:, ::2, ::2]
    )
    differences["stride 2"] = [
        _difference(first, second) for first, second in zip(strided, subsampled, strict=True)
    ]
    differences["padding"] = [
        _difference(
            _convolution(x, kernel, strides, "same"), _convolution(x, kernel, strides, "valid")
        )
        for strides in (1, 2, 3)
    ]
    return {
        "differences": differences,
        "pixels_without_gradient": float((strided[1] == 0).all(-1).mean()),
        "outputs_of_a_pixel": [_outputs_of_a_pixel(side) for side in (1, 3)],
    }


def _drawn(settings, seed, dtype="float64", batch_size=2):
    """A map, a kernel, and weights of the outputs, the gradient of whose sum is looked at."""
    random = np.random.default_rng(seed)
    size, inputs, outputs = settings.size, settings.inputs, settings.outputs
    shapes = [
        (batch_size, size, size, inputs),
        (inputs, outputs),
        (batch_size, size, size, outputs),
    ]
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def _with_gradients(way, x, kernel, weights):
    """Outputs, and the gradients of their weighted sum with respect to map and kernel."""
    import tensorflow as tf

    x, kernel = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        outputs = way(x, kernel)
        total = keras.ops.sum(outputs * weights)
    return [np.asarray(each) for each in (outputs, *tape.gradient(total, [x, kernel]))]


def _by_hand(x, kernel, weights):
    """The same in NumPy, with the gradients that are in every textbook."""
    rows, weights_of_rows = x.reshape(-1, x.shape[-1]), weights.reshape(-1, weights.shape[-1])
    outputs = (rows @ kernel).reshape(weights.shape)
    return [outputs, (weights_of_rows @ kernel.T).reshape(x.shape), rows.T @ weights_of_rows]


def _difference(first, second):
    """The largest difference, for the largest number."""
    first, second = np.asarray(first), np.asarray(second)
    return float(abs(first - second).max() / abs(second).max())


def _outputs_of_a_pixel(side):
    """Pixels of the output that change with one of the input, for a kernel of that side."""
    x = np.zeros((1, 9, 9, 1))
    x[0, 4, 4] = 1
    kernel = np.ones((side, side, 1, 1))
    outputs = keras.ops.conv(x, kernel, 1, "same", data_format="channels_last")
    return int(np.count_nonzero(outputs))


def photograph() -> np.ndarray:
    """A photograph that comes with scikit-learn, at a third of its size.

    Returns
    -------
    uint8 array of shape (142, 213, 3)

    Examples
    --------
    >>> from keras_resnet.experiments.one_by_one import photograph
    >>> photograph().shape
    (142, 213, 3)
    """
    from sklearn.datasets import load_sample_image

    blocks_of_pixels = load_sample_image("china.jpg")[:426, :639].reshape(142, 3, 213, 3, 3)
    return blocks_of_pixels.mean((1, 3)).round().astype("uint8")


def mixed(image: np.ndarray, mixture: list[list[float]]) -> np.ndarray:
    """Mix the channels of an image by a 1x1 convolution.

    Parameters
    ----------
    image : array of shape (height, width, inputs)
        The image.
    mixture : sequence of shape (outputs, inputs)
        The kernel, as a matrix.

    Returns
    -------
    float32 array of shape (height, width, outputs)

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.one_by_one import mixed
    >>> mixed(np.full((1, 1, 3), [10, 20, 30]), [[0, 0, 1], [1, 1, 0]]).tolist()
    [[[30.0, 30.0]]]
    """
    kernel = np.transpose(np.asarray(mixture, "float32"))
    return np.asarray(_convolution(np.asarray(image, "float32")[None], kernel))[0]


def _photograph_differences(context):
    """How far the mixtures are from Pillow's, in levels of 255."""
    image = photograph()
    picture = PIL.Image.fromarray(image)
    found = {}
    for name in ("grey", "sepia", "red and blue swapped"):
        mixture = MIXTURES[name]
        matrix = tuple(number for row in mixture for number in (*row, 0))
        theirs = picture.convert("L" if len(mixture) == 1 else "RGB", matrix)
        levels = np.clip(mixed(image, mixture), 0, 255)
        theirs = np.asarray(theirs, float).reshape(levels.shape)
        found[name] = float(abs(levels - theirs).max())
    return {"levels": found}


def _blocks(context):
    """Parameters and multiply-adds of a bottleneck's layers: by formula, and as Keras counts."""
    found = {}
    for name, (side, inputs, outputs) in LAYERS.items():
        layer = keras.layers.Conv2D(outputs, side, padding="same", use_bias=False)
        formula = side * side * inputs * outputs
        (stage,) = complexity(keras.Sequential([keras.Input((56, 56, inputs)), layer]))
        found[name] = [formula, layer.count_params(), stage.macs]
    return {"layers": found}


def _speed(settings, context):
    """Milliseconds that each way takes, in turn."""
    import tensorflow as tf

    x, kernel, _ = map(tf.constant, _drawn(settings, 0, "float32", settings.batch_size))
    for way in WAYS.values():
        way(x, kernel)  # layers are built outside of functions
    compiled = {name: tf.function(way) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for repetition in range(settings.repetitions + 2):
        for name, way in compiled.items():
            start = time.perf_counter()
            way(x, kernel).numpy()
            if repetition >= 2:  # the first ones trace and warm up
                times[name].append(1000 * (time.perf_counter() - start))
    return {"milliseconds": times}


def _report(settings, results):
    equality = [results[f"equality-{seed}"] for seed in range(settings.seeds)]
    worst = {
        name: [*map(max, zip(*(each["differences"][name] for each in equality), strict=True))]
        for name in equality[0]["differences"]
    }
    layers = results["blocks"]["layers"]
    bottleneck = [*map(sum, zip(*(layers[name] for name in BOTTLENECK), strict=True))]
    wide = [2 * number for number in layers[WIDE]]
    medians = {
        name: statistics.median(times) for name, times in results["speed"]["milliseconds"].items()
    }
    of_one, of_nine = equality[0]["outputs_of_a_pixel"]
    values = {
        "largest_difference": max(worst["dense layer"] + worst["matrix product"] + worst["NumPy"]),
        "are_identical": not any(worst["dense layer"] + worst["matrix product"]),
        "largest_difference_of_stride": max(worst["stride 2"]),
        "largest_difference_of_padding": max(worst["padding"]),
        "pixels_without_gradient": equality[0]["pixels_without_gradient"],
        "outputs_of_a_pixel": of_one,
        "outputs_of_a_pixel_3x3": of_nine,
        "largest_difference_from_pillow": max(results["photograph"]["levels"].values()),
        "formula_is_what_keras_counts": all(
            formula == counted for formula, counted, _ in layers.values()
        ),
        "bottleneck_weights": bottleneck[0],
        "wide_weights": wide[0],
        "wide_to_bottleneck": wide[0] / bottleneck[0],
        "fastest": min(medians, key=medians.__getitem__),
        "milliseconds": medians,
        "machine": results["speed"]["machine"],
    }
    return Report(
        values,
        {
            "equality": _equalities(worst),
            "mixtures": _mixtures(),
            "layers": _layers(layers, bottleneck, wide),
            "speed": _speeds(results["speed"]["milliseconds"]),
        },
        {"photograph": _photograph()},
    )


def _equalities(worst):
    """The largest differences over the seeds."""
    names = {
        "convolution = dense layer": worst["dense layer"],
        "convolution = matrix product": worst["matrix product"],
        "convolution = matrix products in NumPy": worst["NumPy"],
        "convolution of stride 2 = dense layer on every other pixel": worst["stride 2"],
    }
    columns = ("what", "outputs", "gradient_of_the_map", "gradient_of_the_kernel")
    return Table(columns, [[name, *numbers] for name, numbers in names.items()])


def _mixtures():
    """The kernels of the pictures."""
    rows = [
        [name if index == 0 else "", *map(float, row)]
        for name, mixture in MIXTURES.items()
        for index, row in enumerate(mixture)
    ]
    return Table(("mixture", "red", "green", "blue"), rows)


def _layers(layers, bottleneck, wide):
    """Sizes of layers, and their sums."""
    sums = {"bottleneck": bottleneck, f"{WIDE}, twice": wide}
    rows = [[name, *numbers] for name, numbers in {**layers, **sums}.items()]
    return Table(("layer", "by_formula", "by_keras", "multiply_adds"), rows)


def _speeds(times):
    """Times of each way."""
    rows = [[name, statistics.median(each), min(each), max(each)] for name, each in times.items()]
    return Table(("way", "median_ms", "fastest_ms", "slowest_ms"), rows)


def _photograph():
    """A photograph, and some mixtures of its channels."""
    image = photograph()
    with figure(3, 2, width=2.4, height=1.8) as (drawn, axes):
        for axis, (name, mixture) in zip(
            axes.flat, {"photograph": np.eye(3), **MIXTURES}.items(), strict=True
        ):
            levels = mixed(image, mixture)
            if levels.shape[2] == 3:
                axis.imshow(np.clip(levels, 0, 255).round().astype("uint8"))
            else:
                # Differences have both signs: mid-grey is 0.
                largest = abs(levels).max()
                lowest, highest = (-largest, largest) if levels.min() < 0 else (0, 255)
                axis.imshow(levels[..., 0], cmap="gray", vmin=lowest, vmax=highest)
            axis.grid(False)
            axis.spines[:].set_visible(False)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(name)
    return drawn


EXPERIMENT = Experiment(
    "one-by-one",
    OneByOneSettings,
    _trials,
    _report,
    full={"seeds": 5, "size": 56, "batch_size": 64, "repetitions": 50},
    takes_data=False,
)
