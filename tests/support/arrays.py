"""Numbers to compute with, and how far off a result may be."""

import numpy as np

# The size of rounding errors, as a fraction of the largest number.
ROUNDING = {"float64": 1e-12, "float32": 2e-5, "float16": 5e-3, "bfloat16": 3e-2}


def numbers(shape, seed=0):
    """Normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def error(actual, expected):
    """Largest difference, as a fraction of the largest expected number."""
    import tensorflow as tf

    actual, expected = (np.array(tf.cast(tensor, "float64")) for tensor in (actual, expected))
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()
