"""Warnings that point to who has to know."""

import sys
import warnings


def warn(message: str) -> None:
    """Warn of the nearest line outside of this package.

    Parameters
    ----------
    message : str
        What is wrong.

    Warns
    -----
    RuntimeWarning
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].startswith("keras_resnet"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
