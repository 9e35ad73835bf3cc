"""The three forms of a ResNeXt block, of Xie et al. 2017, figure 3: one is built, two follow."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_resnet import blocks, machine


def random_block(
    cardinality: int, base_width: int, filters: int = 64, *, seed: int = 0
) -> tuple[keras.Model, np.ndarray]:
    """A bottleneck block with random weights, and features to show it, all in float64.

    Parameters
    ----------
    cardinality, base_width, filters : int
        As for `blocks.bottleneck_block`.
    seed : int, default 0
        Seed of everything, the statistics of its normalizations included.

    Returns
    -------
    model : keras.Model
        The block as the package builds it: with a grouped convolution, the form (c) of figure 3.
    features : array of shape (2, 8, 8, 4 * filters)

    Examples
    --------
    >>> from keras_resnet.experiments.forms import random_block
    >>> block, features = random_block(4, 24)
    >>> block(features).shape, features.dtype
    (TensorShape([2, 8, 8, 256]), dtype('float64'))
    """
    random = np.random.default_rng(seed)
    features = random.normal(size=(2, 8, 8, blocks.EXPANSION * filters))
    with machine.computing_in("float64"):
        inputs = keras.Input(features.shape[1:], dtype="float64")
        outputs = blocks.bottleneck_block(
            inputs, filters, cardinality=cardinality, base_width=base_width, name="block"
        )
        model = keras.Model(inputs, outputs)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, each.shape) for each in layer.weights])
        elif layer.weights:
            (kernel,) = layer.weights
            scale = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
            layer.set_weights([random.normal(scale=scale, size=kernel.shape)])
    return model, features


def split_transform_merge(block: keras.Model, features: np.ndarray) -> np.ndarray:
    """Form (a) of figure 3: every path is a bottleneck of its own, and all are summed.

    Parameters
    ----------
    block : keras.Model
        What `random_block` makes: the weights are its own.
    features : array of shape (batch, height, width, channels)
        Its inputs.

    Returns
    -------
    array
        Its outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.forms import random_block, split_transform_merge
    >>> block, features = random_block(4, 24)
    >>> np.allclose(split_transform_merge(block, features), block(features), rtol=0, atol=1e-12)
    True
    """
    kernel = block.get_layer("block_3_conv").kernel
    paths = [
        _convolved(hidden, ops.take(kernel, channels, axis=2))
        for hidden, channels in _paths(block, features)
    ]
    return _added(block, features, sum(paths[1:], paths[0]))


def early_concatenation(block: keras.Model, features: np.ndarray) -> np.ndarray:
    """Form (b) of figure 3: paths are concatenated before a last 1x1 convolution of all.

    Parameters
    ----------
    block, features
        As for `split_transform_merge`.

    Returns
    -------
    array
        Its outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.experiments.forms import early_concatenation, random_block
    >>> block, features = random_block(4, 24)
    >>> np.allclose(early_concatenation(block, features), block(features), rtol=0, atol=1e-12)
    True
    """
    joined = ops.concatenate([hidden for hidden, _ in _paths(block, features)], axis=-1)
    return _added(block, features, _convolved(joined, block.get_layer("block_3_conv").kernel))


def _paths(block: keras.Model, features) -> Iterator[tuple[Any, np.ndarray]]:
    """The two convolutions of each path, with ordinary convolutions, and the path's channels."""
    first, second = (block.get_layer(f"block_{index}_conv") for index in (1, 2))
    for channels in np.split(np.arange(second.filters), second.groups):
        hidden = features
        for index, layer in enumerate((first, second), start=1):
            hidden = _convolved(hidden, ops.take(layer.kernel, channels, axis=3))
            normalization = block.get_layer(f"block_{index}_bn")
            hidden = ops.relu(_normalized(hidden, normalization, channels))
        yield hidden, channels


def _convolved(inputs, kernel):
    return ops.conv(inputs, kernel, padding="same")


def _normalized(inputs, layer, channels):
    """What a normalization makes of some of its channels."""
    gamma, beta, mean, variance = (
        ops.take(each, channels)
        for each in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    return (inputs - mean) / ops.sqrt(variance + layer.epsilon) * gamma + beta


def _added(block, features, residual):
    """What closes the block: normalization, the shortcut, ReLU."""
    layer = block.get_layer("block_3_bn")
    residual = _normalized(residual, layer, np.arange(residual.shape[-1]))
    return ops.convert_to_numpy(ops.relu(features + residual))
