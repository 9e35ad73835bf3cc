"""The first kernel: weights for RGB images in models of images with other channels."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_resnet.pretrained import finding

# Names of the first kernel, in all namings.
_FIRST_KERNEL = re.compile(
    r"conv1(\.0)?\.weight|stem\.conv1?\.weight|conv1(_1)?_conv/kernel|conv1/kernel"
    r"|layers/(standardized_)?conv2d/vars/0"
)


def channels_of(tensors: Mapping[str, Any]) -> int | None:
    """Return the number of channels of the images that tensors are for.

    Parameters
    ----------
    tensors : mapping of str to array
        As in `load_tensors`.

    Returns
    -------
    int or None
        The number of channels; None if there is no first kernel.
    """
    for name, tensor in finding.plain_names(tensors).items():
        if _FIRST_KERNEL.fullmatch(name) and len(tensor.shape) == 4:
            return int(tensor.shape[2 if "/" in name else 1])
    return None


def adapted_kernel(kernel: np.ndarray, channels: int, axis: int = 2) -> np.ndarray:
    """Adapt a convolution's kernel for RGB images to images of another number of channels.

    A single channel gets the sum of the colors' weights: it excites the filters as three equal
    channels did. More channels get the weights of red, green and blue in turn, times three divided
    by their number, so that the sums that leave the convolution stay about as large.

    Parameters
    ----------
    kernel : array
        With three channels in `axis`.
    channels : int
        Channels of the images.
    axis : int, default 2
        The axis of the kernel's incoming channels.

    Returns
    -------
    numpy.ndarray
        Of the same dtype, with `channels` in `axis`.

    References
    ----------
    timm, `timm.models.adapt_input_conv`, Apache-2.0: the same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.pretrained.first_kernel import adapted_kernel
    >>> kernel = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> adapted_kernel(kernel, 1).ravel().tolist(), adapted_kernel(kernel, 4).ravel().tolist()
    ([7.0], [0.75, 1.5, 3.0, 0.75])
    """
    wide = np.asarray(kernel, np.result_type(kernel.dtype, "float32"))
    if channels == 1:
        adapted = wide.sum(axis, keepdims=True)
    else:
        adapted = wide.take(np.arange(channels) % 3, axis) * (3 / channels)
    return adapted.astype(kernel.dtype)
