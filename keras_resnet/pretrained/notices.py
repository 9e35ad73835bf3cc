"""Warnings that point at the caller's code."""

import sys
import warnings


def warn(message: str) -> None:
    """Emit a warning that points at the nearest caller outside this package.

    Parameters
    ----------
    message : str
        What is wrong.

    Warns
    -----
    RuntimeWarning
        Always.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].startswith("keras_resnet"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
