"""Checks of arguments: a ValueError names the argument, what came and what is allowed."""

from numbers import Integral

import keras


def is_count(number: object) -> bool:
    """Whether something is a whole number of at least 1, of Python's or NumPy's."""
    return isinstance(number, Integral) and not isinstance(number, bool) and number >= 1


def check_positive(**numbers: object) -> None:
    """Raise ValueError for the first argument that is not a whole number of at least 1."""
    for name, number in numbers.items():
        if not is_count(number):
            raise ValueError(f"{name}={number!r} must be a whole number of at least 1.")


def check_data_format() -> None:
    """Raise ValueError where Keras is set to put channels before pixels."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "image_data_format='channels_first' is not supported: call "
            "keras.config.set_image_data_format('channels_last')."
        )


def check_activation(classifier_activation: object) -> None:
    """Raise ValueError for what is no activation of a classifier."""
    try:
        keras.activations.get(classifier_activation)
    except ValueError as error:
        raise ValueError(
            f"classifier_activation={classifier_activation!r} must be None, a callable, or the "
            "name of a Keras activation such as 'softmax'."
        ) from error
