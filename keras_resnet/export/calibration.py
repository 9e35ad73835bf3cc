"""Images that int8 is calibrated on, and others that verify the result."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

HELD_OUT = 5
"""If no other images verify, one in this many calibration images is held out to do it."""


@dataclass(frozen=True)
class Calibration:
    """Which images calibrate a model, and which verify it.

    Parameters
    ----------
    calibrate : array of shape (images, height, width, channels)
        Images to find the ranges of the feature maps on.
    images : array or None
        Images to verify with.
    agreement : float
        Fraction of these for which the exported model has to give the same answer.
    held_out : int
        How many of them were held out of the images to calibrate with.
    """

    calibrate: np.ndarray
    images: Any
    agreement: float
    held_out: int

    def to_json(self) -> dict:
        """What a model card says about it."""
        return {"calibrated_on": len(self.calibrate), "held_out": self.held_out}


def calibration_of(
    calibrate: np.ndarray, images: Any, agreement: float, verified: bool
) -> Calibration:
    """Hold out some of the images that calibrate, if no others verify.

    They are evenly spaced, so that of images sorted by class, some of each class are held out. The
    required agreement is lowered by two standard errors, as so few may miss it by chance.

    Parameters
    ----------
    calibrate : array of shape (images, height, width, channels)
        Images to calibrate with.
    images : array, optional
        Images to verify with.
    agreement : float
        Fraction for which answers have to be the same.
    verified : bool
        Whether anything is to be verified.

    Returns
    -------
    Calibration
    """
    calibrate = np.asarray(calibrate)
    if images is not None or not verified:
        return Calibration(calibrate, images, agreement, 0)
    verifying = np.arange(len(calibrate)) % HELD_OUT == HELD_OUT // 2
    verifying[-1] |= not verifying.any()
    count = int(verifying.sum())
    agreement -= by_chance(agreement, count)
    return Calibration(calibrate[~verifying], calibrate[verifying], agreement, count)


def by_chance(fraction: float, count: int) -> float:
    """Two standard errors of a fraction, measured on so many images."""
    return 2 * math.sqrt(max(fraction * (1 - fraction), 0.0) / count)


def check_calibration(images: np.ndarray | None, model: keras.Model, alone: bool) -> None:
    """Raise ValueError for images that a model cannot be calibrated with.

    Parameters
    ----------
    images : array, optional
        Images to calibrate with.
    model : keras.Model
        The model.
    alone : bool
        Whether some of them have to verify it, too.
    """
    if images is None or not len(images):
        raise ValueError(
            "calibrate: precision='int8' needs images, as the model takes them, to find the ranges "
            "of its feature maps; a hundred from the training split are plenty."
        )
    check_shape(model, calibrate=images)
    if not np.isfinite(images).all():
        raise ValueError("calibrate holds NaN or infinite values: leave these images out.")
    if alone and len(images) < 2:
        raise ValueError(
            "calibrate has 1 image; it needs at least two, as one in five is held out to verify: a "
            "hundred from the training split are plenty. Or pass others to verify with, images=."
        )


def check_shape(model: keras.Model, **images: np.ndarray) -> None:
    """Raise ValueError for images, by the name of their argument, that a model does not take."""
    expected = model.inputs[0].shape
    for name, each in images.items():
        if not tf.TensorShape(expected).is_compatible_with(np.shape(each)):
            raise ValueError(f"{name} has the shape {np.shape(each)}; the model takes {expected}.")
