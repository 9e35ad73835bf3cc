"""Maps drawn over images."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_choice, check_range

_STRENGTH = 0.6  # how much of an image the hottest colour hides


def overlay(
    images: Any, maps: np.ndarray, *, colours: str = "turbo", strength: float = _STRENGTH
) -> np.ndarray:
    """Draw maps over images as heat, scaled to the maximum of each map.

    Where a map is 0, the image stays as it is.

    Parameters
    ----------
    images : array of shape (images, height, width, 1 or 3)
        Images of 0 to 255.
    maps : array of shape (images, rows, columns)
        A map for each, of any size. Negative values are shown as 0.
    colours : str, default "turbo"
        A colour map of Matplotlib.
    strength : float, default 0.6
        How much the colour hides of the image where the map is highest, from 0 to 1.

    Returns
    -------
    uint8 array of shape (images, height, width, 3)

    Raises
    ------
    ValueError
        For images or maps of other shapes, an unknown colour map, and a strength out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import explain
    >>> explain.overlay(np.zeros((2, 64, 64, 3), "uint8"), np.ones((2, 7, 7))).shape
    (2, 64, 64, 3)
    """
    from matplotlib import colormaps

    images, maps = np.asarray(images), np.asarray(maps, "float32")
    check_range("fraction", strength=strength)
    check_choice([*colormaps], colours=colours)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or maps.ndim != 3 or not maps.size:
        raise ValueError(
            f"images of shape {images.shape} and maps of shape {maps.shape} must be of shape "
            "(images, height, width, 1 or 3) and (images, rows, columns)."
        )
    if len(images) != len(maps):
        raise ValueError(f"{len(maps)} maps came for {len(images)} images.")
    if not (np.isfinite(images).all() and np.isfinite(maps).all()):
        raise ValueError("images and maps must be finite: there is NaN or infinity among them.")
    maps = np.maximum(tf.image.resize(maps[..., None], images.shape[1:3]).numpy(), 0)
    highest = maps.max(axis=(1, 2, 3), keepdims=True)
    heat = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    hidden = strength * heat
    shown = (1 - hidden) * np.clip(images, 0, 255)
    return np.round(shown + 255 * hidden * colormaps[colours](heat[..., 0])[..., :3]).astype(
        "uint8"
    )
