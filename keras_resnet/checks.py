r"""Checks of arguments. A ValueError names the argument, what came and what is allowed.

=======================================  ==========================================================
`check_range("crop", crop=1.5)`          crop=1.5 must be above 0 and at most 1.
`check_range("count", keep=0)`           keep=0 must be a whole number of at least 1.
`check_range("dropout", dropout="low")`  dropout='low' must be a number of at least 0 and below 1.
`check_choice(("avg", "max"), pool="")`  pool='' must be one of 'avg', 'max'.
`check_positive(epochs=0)`               epochs=0 must be a whole number of at least 1.
`is_within("crop", 0.9)`                 True: for callers that word the error themselves.
`check_unicode(path="caf\udce9")`         path='caf\udce9' is not text in UTF-8: rename it.
`check_installed("onnx", "tf2onnx")`     tf2onnx is not installed: pip install 'keras_resnet[onnx]'.
=======================================  ==========================================================

All of them take several arguments at once and raise for the first that is wrong. With
`optional=True`, None passes. `RANGES` lists the ranges: a new one is a new row there.
"""

import importlib.util
import math
import operator
from collections.abc import Collection
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

_HOLDS = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
    "below": operator.lt,
}


@dataclass(frozen=True)
class Range:
    """Numbers within bounds.

    Parameters
    ----------
    lower, upper : tuple of (str, number), optional
        A bound, such as ("at least", 0), ("above", 0), ("at most", 1) or ("below", 1).
    whole : bool, default False
        Whether only whole numbers are allowed.
    infinite : bool, default False
        Whether infinity is allowed.
    """

    lower: tuple[str, float] | None = None
    upper: tuple[str, float] | None = None
    whole: bool = False
    infinite: bool = False

    def __contains__(self, number: Any) -> bool:
        if isinstance(number, bool) or not isinstance(number, Integral if self.whole else Real):
            return False
        if math.isnan(number) or (math.isinf(number) and not self.infinite):
            return False
        return all(_HOLDS[word](number, bound) for word, bound in filter(None, self._ends))

    def wording(self, number: Any) -> str:
        """What `number`, which is not in this range, must be."""
        kind = "a whole number" if self.whole else "a number"
        bounds = " and ".join(f"{word} {bound}" for word, bound in filter(None, self._ends))
        if not bounds:
            return kind
        if self.whole:
            return f"{kind} of {bounds}"
        if isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number):
            return bounds
        return f"{kind} of {bounds}" if bounds.startswith("at") else f"{kind} {bounds}"

    @property
    def _ends(self):
        return self.lower, self.upper


_FRACTION = Range(("at least", 0), ("at most", 1))
_BELOW_1 = Range(("at least", 0), ("below", 1))

RANGES = {
    "number": Range(),
    # Whole numbers.
    "count": Range(("at least", 1), whole=True),
    "index": Range(("at least", 0), whole=True),
    # Amounts.
    "positive": Range(("above", 0)),  # a learning rate, a norm, a width
    "nonnegative": Range(("at least", 0)),  # weight decay, MixUp's alpha
    "percentage": Range(("at least", 0), ("at most", 100)),
    "limit": Range(("above", 0), infinite=True),  # a timeout, a budget
    # Fractions.
    "fraction": _FRACTION,
    "agreement": _FRACTION,  # of predictions that must stay the same
    "crop": Range(("above", 0), ("at most", 1)),  # of an image's shorter side
    "area": Range(("above", 0), ("at most", 1)),  # of an image
    "factor": Range(("above", 0), ("at most", 1)),  # of a learning rate, from layer to layer
    "dropout": _BELOW_1,
    "validation": _BELOW_1,  # of the training images that is held out
    "decay": _BELOW_1,  # momentum, averages, label smoothing, warm-up
    "milestone": Range(("above", 0), ("below", 1)),  # of a training run
}
"""The ranges of arguments, by the name that `check_range` and `is_within` take."""


def check_range(kind: str, /, *, optional: bool = False, **numbers: Any) -> None:
    """Raise ValueError for the first number outside of a range.

    Parameters
    ----------
    kind : str
        A key of `RANGES`.
    optional : bool, default False
        Whether None passes.
    **numbers
        The arguments, by name.

    Raises
    ------
    ValueError
        Such as "crop=1.5 must be above 0 and at most 1."

    Examples
    --------
    >>> from keras_resnet.checks import check_range
    >>> check_range("crop", crop=1.5)
    Traceback (most recent call last):
        ...
    ValueError: crop=1.5 must be above 0 and at most 1.
    >>> check_range("count", optional=True, patience=None, keep=2)
    """
    allowed = RANGES[kind]
    for name, number in numbers.items():
        if number not in allowed and not (optional and number is None):
            raise ValueError(f"{name}={number!r} must be {allowed.wording(number)}.")


def is_within(kind: str, number: Any) -> bool:
    """Whether something is a number in a range of `RANGES`."""
    return number in RANGES[kind]


def is_count(number: Any) -> bool:
    """Whether something is a whole number of at least 1, of Python's or NumPy's."""
    return is_within("count", number)


def check_positive(**numbers: Any) -> None:
    """Raise ValueError for the first argument that is not a whole number of at least 1."""
    check_range("count", **numbers)


def check_choice(choices: Collection, /, **values: Any) -> None:
    """Raise ValueError for the first argument that is not among the choices.

    Parameters
    ----------
    choices : collection
        The allowed values, None among them where it is one.
    **values
        The arguments, by name.

    Raises
    ------
    ValueError
        Such as "pooling='min' must be one of 'avg', 'max'."

    Examples
    --------
    >>> from keras_resnet.checks import check_choice
    >>> check_choice((None, "avg", "max"), pooling="min")
    Traceback (most recent call last):
        ...
    ValueError: pooling='min' must be one of None, 'avg', 'max'.
    """
    for name, value in values.items():
        # Comparing an array with a choice would give an array.
        if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
            raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")


def check_unicode(**texts: str) -> None:
    """Raise ValueError for the first text with bytes of a file's name that is not in UTF-8."""
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}={text!r} is not text in UTF-8: rename it.") from error


def check_installed(extra: str, *modules: str) -> None:
    """Raise ImportError for modules that are missing, and say what installs them.

    Parameters
    ----------
    extra : str
        The extra of this package that installs them, such as "tune".
    *modules
        Names of top-level modules.

    Raises
    ------
    ImportError
        Such as "tf2onnx is not installed: pip install 'keras_resnet[onnx]'."

    Examples
    --------
    >>> from keras_resnet.checks import check_installed
    >>> check_installed("onnx", "numpy", "no_such_module")
    Traceback (most recent call last):
        ...
    ImportError: no_such_module is not installed: pip install 'keras_resnet[onnx]'.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ImportError(
            f"{' and '.join(missing)} {verb} not installed: pip install 'keras_resnet[{extra}]'."
        )


def check_data_format() -> None:
    """Raise ValueError if Keras is set to channels first."""
    import keras  # `launch` checks its arguments without it

    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "image_data_format='channels_first' is not supported: call "
            "keras.config.set_image_data_format('channels_last')."
        )


def check_activation(classifier_activation: Any) -> None:
    """Raise ValueError for anything but an activation of Keras, a callable or None."""
    import keras

    try:
        keras.activations.get(classifier_activation)
    except ValueError as error:
        raise ValueError(
            f"classifier_activation={classifier_activation!r} must be None, a callable, or the "
            "name of a Keras activation such as 'softmax'."
        ) from error
