"""Keras' callbacks in runs of this package: which ones work, and what they can watch."""

from collections.abc import Iterable, Sequence

import keras

from keras_resnet.training.tasks import DIRECTIONS

_OF_THE_RECIPE = "the learning rate is the recipe's: give it milestones, or patience"
_REFUSED = {
    "ReduceLROnPlateau": _OF_THE_RECIPE,
    "LearningRateScheduler": _OF_THE_RECIPE,
    "BackupAndRestore": "give checkpoints, a folder that an interrupted run continues from",
    "SwapEMAWeights": "give the recipe ema",
}


def check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse callbacks that would fail, or not do what they say, in the middle of a run.

    Parameters
    ----------
    callbacks : sequence of keras.callbacks.Callback
        The callbacks.

    Raises
    ------
    ValueError
        For something other than a callback, or one whose work is the recipe's.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.training.callbacks import check_callbacks
    >>> check_callbacks([keras.callbacks.CSVLogger("history.csv")])
    """
    if not isinstance(callbacks, Sequence):  # an iterator would be used up by looking at it
        raise ValueError(f"callbacks={callbacks!r} must be a list of Keras callbacks.")
    for callback in callbacks:
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(f"callbacks: {callback!r} must be a Keras callback.")
        for refused, remedy in _REFUSED.items():
            if isinstance(callback, getattr(keras.callbacks, refused)):
                raise ValueError(f"callbacks: {name} cannot be used here; {remedy}.")
        monitor = getattr(callback, "monitor", "val_loss")
        if getattr(callback, "restore_best_weights", False) and monitor != "val_loss":
            raise ValueError(
                f"callbacks: {name}(monitor={monitor!r}, restore_best_weights=True) cannot be "
                "used here; a run keeps the weights of the lowest val_loss, or else the last ones."
            )


def direct(
    callbacks: Iterable[keras.callbacks.Callback], metrics: Sequence[str], validated: bool
) -> None:
    """Tell callbacks whether more of what they watch is better, or refuse them.

    With `mode="auto"`, Keras can find out only in a training of its own.

    Parameters
    ----------
    callbacks : iterable of keras.callbacks.Callback
        The callbacks.
    metrics : sequence of str
        What the run measures, such as "loss" and "accuracy".
    validated : bool
        Whether it measures the same on validation images, such as "val_accuracy".

    Raises
    ------
    ValueError
        For a callback that watches something else.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.training.callbacks import direct
    >>> stopping = keras.callbacks.EarlyStopping("val_accuracy")
    >>> direct([stopping], ["loss", "accuracy"], validated=True)
    >>> stopping.mode
    'max'
    """
    measured = [*metrics, *(f"val_{name}" for name in metrics if validated)]
    for callback in callbacks:
        monitor, mode = (getattr(callback, each, None) for each in ("monitor", "mode"))
        if monitor is None or mode is None:
            continue
        call = f"callbacks: {type(callback).__name__}(monitor={monitor!r})"
        chooses = getattr(callback, "save_best_only", True)
        if chooses and monitor not in measured:
            raise ValueError(f"{call} must watch what the run measures: {', '.join(measured)}.")
        if mode == "auto":
            direction = DIRECTIONS.get(monitor.removeprefix("val_"))
            if chooses and direction is None:
                raise ValueError(f"{call} needs mode='min' or mode='max'.")
            callback.mode = direction or "min"
