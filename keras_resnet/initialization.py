"""How kernels are drawn, several times faster than Keras draws them."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator

import keras
import numpy as np


def draw_he_normal(shape, dtype, seed):
    """Draw from the distribution of `VarianceScaling`, several times faster than Keras does.

    Box and Muller's way from uniform to normal, in pieces that stay in the processor's cache.
    Drawing is otherwise half of the time that it takes to build a ResNet-152.
    """
    uniform = functools.partial(np.random.default_rng(seed).random, dtype="float32")
    variance = 2 / math.prod((*shape[:2], shape[-1]))
    kernel = np.empty(math.prod(shape), "float32")
    for start in range(0, kernel.size, 1 << 16):
        first, second = np.array_split(kernel[start : start + (1 << 16)], 2)
        # 1 - uniform, because it may be 0 but never 1.
        radius = np.sqrt(-2 * variance * np.log(1 - uniform(first.size)))
        angle = 2 * math.pi * uniform(first.size)
        first[:] = radius * np.cos(angle)
        second[:] = (radius * np.sin(angle))[: second.size]
    return keras.ops.convert_to_tensor(kernel.reshape(shape), dtype)


_kernels_to_be_loaded = contextvars.ContextVar("kernels_to_be_loaded", default=False)


@contextlib.contextmanager
def kernels_to_be_loaded() -> Iterator[None]:
    """Build convolutions whose weights come from a file: no random numbers are drawn for them.

    Drawing them takes a fifth of the time that it takes to build a ResNet-152.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet import blocks, initialization
    >>> with initialization.kernels_to_be_loaded():
    ...     x = blocks.convolution(keras.Input((8, 8, 3)), 16, 3, name="conv1")
    """
    token = _kernels_to_be_loaded.set(True)
    try:
        yield
    finally:
        _kernels_to_be_loaded.reset(token)
