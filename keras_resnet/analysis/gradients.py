"""Gradients with respect to inputs along a line, and of the loss layer by layer."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np

from keras_resnet import checks, graphs

Statistics = Literal["moving", "batch", "total"]

_CHECK = "Check its weights and the inputs."


@dataclass(frozen=True, eq=False)
class GradientCorrelation:
    """How much the gradients at several inputs are alike.

    Parameters
    ----------
    gradients : array of shape (inputs, ...)
        The gradient at each input, in the order of a line.

    Examples
    --------
    >>> from keras_resnet.analysis import GradientCorrelation, brown_noise
    >>> noise = GradientCorrelation(brown_noise(256, seed=0))
    >>> noise.covariance.shape
    (256, 256)
    >>> bool(noise.autocorrelation(5)[5] > 0.7)
    True
    """

    gradients: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Products of the gradients at two inputs, of shape (inputs, inputs).

        Means over the coordinates of the input. Nothing is subtracted: over fresh weights, the
        expectation of a gradient is 0, and so the mean of this matrix over models is an estimate of
        the covariance.
        """
        flat = np.asarray(self.gradients, "float64").reshape(len(self.gradients), -1)
        return flat @ flat.T / flat.shape[1]

    @property
    def correlation(self) -> np.ndarray:
        """Cosines between the gradients at two inputs; NaN where a gradient is 0."""
        return correlation_of(self.covariance)

    def autocorrelation(self, lags: int = 15) -> np.ndarray:
        """Autocorrelation along the line: see `autocorrelation`."""
        return autocorrelation(self.gradients, lags)


def gradient_correlation(
    model: keras.Model,
    inputs: Any,
    *,
    output: int | None = None,
    statistics: Statistics = "moving",
    batch_size: int = 32,
) -> GradientCorrelation:
    """Measure how a model's gradient with respect to its input changes along a line of inputs.

    Parameters
    ----------
    model : keras.Model
        Any model of one input tensor, of real numbers, and one output tensor.
    inputs : array of shape (n, ...)
        At least two inputs, in the order of the line: `numpy.linspace(-2, 2, 256)[:, None]` for a
        model of one number, `path(first, second, n)` for images.
    output : int, optional
        Which output to differentiate, such as the index of a class. What it is (a logit or a
        probability) is what the model returns. Default: the sum of all outputs. (The probabilities
        of a softmax sum to 1, which has no gradient.)
    statistics : {"moving", "batch", "total"}, default "moving"
        What BatchNormalization does.

        "moving": it normalizes by its moving averages, as in inference.
        "batch": it normalizes by mean and variance of these inputs, as in training, and both are
        held fixed. The gradient at an input is that of its own output, as in the theorems of
        Balduzzi et al.
        "total": it normalizes in the same way, and the gradient is that of the sum over all inputs,
        through mean and variance, as backpropagation computes it. It includes what an input does to
        the outputs of the others. If BatchNormalization follows the first linear layer, adding the
        same number to all inputs changes nothing, so that these gradients sum to 0.
    batch_size : int, default 32
        How many gradients are computed at a time. With "total" it is all of them, and for the
        statistics of "batch" all inputs pass the model at once.

    Returns
    -------
    GradientCorrelation

    Raises
    ------
    ValueError
        For a model whose input or output is not a single tensor of real numbers or whose output
        does not depend on the input, fewer than two inputs, gradients that are NaN or infinite, or
        an argument out of its range.

    Notes
    -----
    The model is left as it was: moving averages and the states of random layers are put back. With
    "total", and while the statistics of "batch" are taken, layers such as Dropout do what they do
    in training.

    References
    ----------
    Balduzzi et al., The Shattered Gradients Problem: If resnets are the answer, then what is the
    question? ICML 2017.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from keras_resnet import analysis
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> line = np.linspace(-2, 2, 5)[:, None]
    >>> found = analysis.gradient_correlation(model, line)
    >>> found.correlation.round(3).tolist()[0]  # of a linear model
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    checks.check_choice(get_args(Statistics), statistics=statistics)
    checks.check_positive(batch_size=batch_size)
    inputs = _inputs(model, inputs)
    if len(inputs) < 2:
        raise ValueError(f"inputs: {len(inputs)} given; a correlation needs at least two.")
    with _as_it_was(model):
        if statistics == "total":
            return GradientCorrelation(_gradients(model, inputs, output, training=True))
        if statistics == "batch":
            _take_statistics(model, inputs)
        parts = [
            _gradients(model, inputs[start : start + batch_size], output, training=False)
            for start in range(0, len(inputs), batch_size)
        ]
    return GradientCorrelation(np.concatenate(parts))


def _inputs(model, inputs):
    """The inputs as an array of the type that the model takes."""
    wanted = getattr(model, "inputs", None) or []
    if len(wanted) > 1:
        raise ValueError(f"model {model.name!r} has {len(wanted)} inputs; it must have one.")
    inputs = np.asarray(inputs)
    dtype = keras.backend.standardize_dtype(wanted[0].dtype) if wanted else keras.config.floatx()
    if "float" not in dtype:
        raise ValueError(
            f"model {model.name!r} takes {dtype}; only with respect to real numbers there are "
            "gradients. Leave out the layer that takes whole numbers."
        )
    if inputs.dtype.kind not in "biuf":
        raise ValueError(f"inputs are of type {inputs.dtype}; they must be numbers.")
    shape = tuple(wanted[0].shape) if wanted else (None, *inputs.shape[1:])
    if len(shape) != inputs.ndim or any(
        size is not None and size != given for size, given in zip(shape, inputs.shape, strict=True)
    ):
        raise ValueError(f"inputs have the shape {inputs.shape}; {model.name!r} takes {shape}.")
    if not np.isfinite(inputs).all():  # a ReLU may make 0 of NaN
        raise ValueError("inputs hold NaN or infinity.")
    return inputs.astype(dtype)


def _gradients(model, inputs, output, training):
    """Gradients of the sum over inputs of what is asked for."""
    import tensorflow as tf

    inputs = tf.convert_to_tensor(inputs)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        outputs = model(inputs, training=training)
        if not tf.is_tensor(outputs):
            raise ValueError(f"model {model.name!r} has several outputs; it must have one.")
        outputs = tf.reshape(outputs, (len(inputs), -1))
        if output is not None:
            _check_output(output, outputs.shape[1])
            outputs = outputs[:, output]
    gradients = tape.gradient(outputs, inputs)
    if gradients is None:
        raise ValueError(
            f"model {model.name!r}: its output does not depend on its input in a differentiable "
            "way, so there is no gradient."
        )
    gradients = np.asarray(gradients)
    if not np.isfinite(gradients).all():
        raise ValueError(f"model {model.name!r}: its gradients are NaN or infinite. {_CHECK}")
    return gradients


def _check_output(output, count):
    if not checks.is_within("index", output) or output >= count:
        raise ValueError(f"output={output!r} must be None or a whole number from 0 to {count - 1}.")


@contextlib.contextmanager
def _as_it_was(model) -> Iterator[None]:
    """Put everything back afterwards that a model changes while it is called."""
    variables = model.non_trainable_variables
    former = [keras.ops.convert_to_numpy(each) for each in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, former, strict=True):
            variable.assign(value)


def _take_statistics(model, inputs):
    """Let every BatchNormalization have the mean and the variance of these inputs."""
    layers = [
        each
        for each in graphs.flat_layers(model)
        if isinstance(each, keras.layers.BatchNormalization)
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        model(keras.ops.convert_to_tensor(inputs), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def correlation_of(covariance: np.ndarray) -> np.ndarray:
    """Turn a covariance matrix into the correlation matrix; NaN where a variance is 0.

    Parameters
    ----------
    covariance : array of shape (n, n)
        Such as the mean of several `GradientCorrelation.covariance`.

    Returns
    -------
    array of shape (n, n)

    Examples
    --------
    >>> from keras_resnet.analysis import correlation_of
    >>> correlation_of([[4.0, 1.0], [1.0, 1.0]]).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    covariance = np.asarray(covariance, "float64")
    deviation = np.sqrt(np.diagonal(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        return covariance / np.outer(deviation, deviation)


def autocorrelation(values: Any, lags: int = 15) -> np.ndarray:
    r"""Compute the autocorrelation of a sequence by lag.

    For lag k it is :math:`\sum_i (v_i - m)(v_{i+k} - m) / \sum_i (v_i - m)^2`, where m is the mean,
    the usual estimate for a time series. Vectors have a mean for each coordinate, and both sums run
    over the coordinates, too.

    Parameters
    ----------
    values : array of shape (n, ...)
        The sequence.
    lags : int, default 15
        The longest lag, below n.

    Returns
    -------
    array of shape (lags + 1,)
        From lag 0, which is 1, to `lags`; NaN if nothing changes along the sequence.

    Raises
    ------
    ValueError
        For a lag that is longer than the sequence.

    Examples
    --------
    >>> from keras_resnet.analysis import autocorrelation
    >>> autocorrelation([1.0, 2.0, 3.0, 4.0], lags=2).tolist()
    [1.0, 0.25, -0.3]
    """
    values = np.asarray(values, "float64")
    checks.check_positive(lags=lags)
    if lags >= len(values):
        raise ValueError(f"lags={lags} must be below the number of inputs, which is {len(values)}.")
    flat = values.reshape(len(values), -1)
    around = flat - flat.mean(0)
    total = np.sum(around**2)
    # A sequence of equal numbers leaves rounding errors.
    if total <= flat.size * (np.finfo("float32").eps * np.abs(flat).max()) ** 2:
        return np.full(lags + 1, np.nan)
    products = [np.sum(around[lag:] * around[: len(flat) - lag]) for lag in range(lags + 1)]
    return np.array(products) / total


def white_noise(count: int, seed: int) -> np.ndarray:
    """Draw white noise: independent numbers, whose autocorrelation is 0 from lag 1 on.

    Parameters
    ----------
    count : int
        How many numbers.
    seed : int
        Seed.

    Returns
    -------
    array of shape (count,)
        Of variance 1.

    Examples
    --------
    >>> from keras_resnet.analysis import white_noise
    >>> white_noise(256, seed=0).shape
    (256,)
    """
    checks.check_positive(count=count)
    return np.random.default_rng(seed).normal(size=count)


def brown_noise(count: int, seed: int) -> np.ndarray:
    """Draw brown noise: a random walk, the running sum of `white_noise`.

    Its covariance between the places i and j, counted from 1, is min(i, j), and its correlation the
    square root of min(i, j) / max(i, j).

    Parameters
    ----------
    count : int
        How many numbers.
    seed : int
        Seed.

    Returns
    -------
    array of shape (count,)

    Examples
    --------
    >>> from keras_resnet.analysis import brown_noise
    >>> brown_noise(256, seed=0).shape
    (256,)
    """
    return np.cumsum(white_noise(count, seed))


def path(first: Any, second: Any, steps: int) -> np.ndarray:
    """Blend one input into another one, in equal steps.

    Parameters
    ----------
    first, second : array of the same shape
        Such as two photographs.
    steps : int
        How many inputs, both ends included; at least 2.

    Returns
    -------
    array of shape (steps, ...)

    Raises
    ------
    ValueError
        For inputs of different shapes or fewer than two steps.

    Examples
    --------
    >>> from keras_resnet.analysis import path
    >>> path([0.0, 1.0], [1.0, 1.0], 3).tolist()
    [[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]]
    """
    first, second = np.asarray(first, "float64"), np.asarray(second, "float64")
    if first.shape != second.shape:
        raise ValueError(
            f"first has the shape {first.shape}, second {second.shape}; they must be the same."
        )
    if not checks.is_count(steps) or steps < 2:
        raise ValueError(f"steps={steps!r} must be a whole number of at least 2.")
    return np.linspace(first, second, steps)


class GradientNorm(NamedTuple):
    """The gradient of the loss at one layer.

    Parameters
    ----------
    name : str
        Of the layer.
    gradient : float
        Euclidean norm of the gradient of the loss with respect to the layer's kernel.
    kernel : float
        Euclidean norm of the kernel itself.
    """

    name: str
    gradient: float
    kernel: float


def gradient_norms(
    model: keras.Model,
    images: Any,
    labels: Any,
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    training: bool = True,
) -> list[GradientNorm]:
    """Measure the gradient of the loss at every layer with a kernel, in the order of data flow.

    Parameters
    ----------
    model : keras.Model
        A functional model; models among its layers are looked into.
    images : array of shape (n, ...)
        A batch of inputs.
    labels : array of shape (n, ...)
        What `loss` compares outputs to: class indices, unless `loss` is given.
    loss : callable, optional
        Takes labels and outputs and returns the losses, whose mean is differentiated. Default: the
        cross-entropy of a classifier, of logits or of probabilities.
    training : bool, default True
        Whether BatchNormalization normalizes by the statistics of `images`, through which the
        gradient goes, as in training; otherwise by its moving averages.

    Returns
    -------
    list of GradientNorm
        One for each layer whose weights are matrices or kernels of convolutions, in the order in
        which an image passes them. Vectors, such as biases and the scales of BatchNormalization,
        do not count.

    Raises
    ------
    ValueError
        For a model that is not functional, no images, labels that do not fit, a loss that is NaN or
        infinite, or outputs that are not those of a classifier when there is no `loss`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from keras_resnet import analysis
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> norms = analysis.gradient_norms(model, np.eye(4), [0, 1, 1, 0])
    >>> [each.name == layer.name for each, layer in zip(norms, model.layers)]
    [True, True]
    """
    import tensorflow as tf

    graphs.check_functional(model)
    images, labels = _inputs(model, images), np.asarray(labels)
    if not len(images):
        raise ValueError("images: there are none.")
    loss = loss or _cross_entropy(model, labels, len(images))
    kernels = {
        layer: kernels
        for layer in graphs.flat_layers(model)
        if (kernels := [each for each in layer.trainable_variables if len(each.shape) > 1])
    }
    with _as_it_was(model), tf.GradientTape() as tape:
        outputs = model(tf.convert_to_tensor(images), training=training)
        mean = tf.reduce_mean(loss(labels, outputs))
    gradients = tape.gradient(mean, list(kernels.values()))
    if not np.isfinite(mean):
        raise ValueError(f"model {model.name!r}: the loss is {float(mean)}. {_CHECK}")
    return [
        GradientNorm(layer.name, _norm(found), _norm(kernels[layer]))
        for layer, found in zip(kernels, gradients, strict=True)
    ]


def _norm(tensors):
    """The Euclidean norm of all numbers in some tensors, None being zeros."""
    there = [keras.ops.convert_to_numpy(each) for each in tensors if each is not None]
    return float(np.sqrt(sum(np.sum(np.square(each, dtype="float64")) for each in there)))


def _cross_entropy(model, labels, count):
    """The loss of a classifier."""
    answer = graphs.answer_of(graphs.head_of(model), "classification")
    if answer is None:
        raise ValueError(
            f"model {model.name!r}: its outputs are not those of a classifier; give a loss."
        )
    classes = 2 if answer.both else model.output_shape[-1]
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ValueError(
            f"labels of type {labels.dtype} and shape {labels.shape} must be whole numbers, one "
            f"for each of the {count} images."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} must be from 0 to {classes - 1}."
        )
    logits = answer.activation == "softmax"

    def loss(labels, outputs):
        outputs = outputs if logits else answer(outputs)
        return keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=logits)

    return loss
