"""The rule that makes the parameters and the input of the golden fixtures.

Every array follows from its name and its shape, so the fixtures store results only, not the two
gigabytes of parameters behind them. Names and layouts are those of a PyTorch state dict. NumPy is
all that this module needs: the tests repeat the rule without PyTorch.

The numbers come from ``numpy.random.RandomState``, whose stream NumPy's compatibility policy
freezes. The stream of ``numpy.random.Generator`` may change between releases.
"""

import math
import zlib

import numpy as np


def parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw one parameter.

    ====================================  ====================================================
    Kind                                  Values, uniform between
    ====================================  ====================================================
    ``weight`` of rank 4, a convolution   ± sqrt(6 / fan-in), the standard deviation of He et al.
    ``weight`` of rank 2, a linear layer  ± 1 / sqrt(fan-in)
    ``weight`` of rank 3, over channels   ± 1 / sqrt(fan-in)
    ``weight`` of rank 1, a BatchNorm     0.05 and 0.15 for a ``bn3``, else 0.5 and 1
    ``bias``                              ± 0.1
    ``running_mean``                      ± 0.1
    ``running_var``                       0.5 and 1.5
    ====================================  ====================================================

    Uniform numbers are drawn more than twice as fast as normal ones, which counts in a net of 127
    million parameters.

    The scales of BatchNorm lie below one because moving statistics that are drawn do not
    normalise: each residual block adds to the activations, and scales around one would let those
    of the CIFAR nets, of up to 27 blocks, reach tens of thousands in inference. ``bn3``, the last
    BatchNorm of a bottleneck, is smaller still. With the scales of the others there, every
    bottleneck would amplify the rounding errors of those before it in training mode, and the
    logits of ResNet-152 in float32 would be known to three digits only.

    Parameters
    ----------
    name : str
        Name in the state dict, such as ``layer1.0.bn2.running_var``. It seeds the draw, and its
        last component tells the kind of parameter.
    shape : tuple of int
        Shape in PyTorch's layout: (output, input / groups, height, width) for a convolution,
        (output, input) for a linear layer.

    Returns
    -------
    numpy.ndarray
        float32 array of the given shape.

    Raises
    ------
    ValueError
        If the name and the rank belong to none of the kinds above.
    """
    match name.rpartition(".")[2], len(shape):
        case "weight", 4:
            high = math.sqrt(6 / math.prod(shape[1:]))
            low = -high
        case "weight", 2 | 3:
            high = 1 / math.sqrt(math.prod(shape[1:]))
            low = -high
        case "weight", 1:
            low, high = (0.05, 0.15) if name.endswith("bn3.weight") else (0.5, 1.0)
        case "bias" | "running_mean", 1:
            low, high = -0.1, 0.1
        case "running_var", 1:
            low, high = 0.5, 1.5
        case _:
            raise ValueError(f"no rule for a parameter {name!r} of shape {shape}")
    return _random_state(name).uniform(low, high, shape).astype(np.float32)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draw all parameters and moving statistics of a net.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Shape of every entry of the state dict, by name.

    Returns
    -------
    dict of str to numpy.ndarray
        float32 arrays by name. The counters ``num_batches_tracked`` are left out: they are not
        drawn, and no result depends on them.
    """
    return {
        name: parameter(name, shape)
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }


def image(shape: tuple[int, ...]) -> np.ndarray:
    """Draw the input from the standard normal distribution, under the name ``input``.

    Parameters
    ----------
    shape : tuple of int
        Shape of the batch: (images, height, width, channels).

    Returns
    -------
    numpy.ndarray
        float32 array of the given shape.
    """
    return _random_state("input").standard_normal(shape).astype(np.float32)


def _random_state(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))
