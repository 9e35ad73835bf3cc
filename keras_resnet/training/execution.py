"""How a recipe is carried out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_resnet.checks import check_choice, check_range
from keras_resnet.layers.view import sides
from keras_resnet.training.callbacks import check_callbacks


@dataclass(frozen=True)
class Execution:
    """How a recipe is carried out.

    Parameters
    ----------
    image_size : int or tuple of (int, int), optional
        Height and width in pixels to train with, one number for both. Default: the model's, or the
        source's where the model takes any.
    crop : float, optional
        Fraction of an image to show in validation, as in `data.batches`, and in training if the
        augmentation cuts no windows. Default: what the model remembers; without windows, all of it.
    seed : int, default 0
        Seed for the order and augmentation of the images.
    cache : "memory" or path, optional
        Where to keep decoded images, as in `data.batches`.
    class_weight : mapping of int to float, optional
        Weight of each class in the loss, such as `source.class_weight()`; with several labels per
        image, of each label in the images that have it. Default: 1 for all.
    synchronized : bool, optional
        Whether BatchNormalization takes its statistics from the images of all devices. Default:
        where a device has fewer than 16 images of a batch. Otherwise each device has its own
        statistics, and the moving ones are averaged at the end of every epoch.
    steps_per_execution : int, default 1
        Steps that TensorFlow takes at once, without Python in between.
    checkpoints : path, optional
        A folder for the state of the run. If an interrupted run is started again, it continues
        from there, on any number of devices. One run at a time can have it. On SIGTERM and Ctrl-C
        the state is saved, and the program ends with exit code 0 or 130. Of several processes only
        the first, the chief, needs the folder. Default: none.
    keep : int, default 3
        Checkpoints to keep.
    save_every : int, optional
        Save the state after this many steps, as well as after every epoch.
    callbacks : sequence of keras.callbacks.Callback, optional
        Callbacks. Their `model` is the one that is being trained, with its own weights rather than
        their average. They cannot set the learning rate, which is the recipe's. They watch what
        the run measures: "loss", the task's metrics, and the same with "val_" in front.
    verbose : {0, 1, 2}, default 1
        Show nothing, a progress bar, or one line per epoch.

    Raises
    ------
    ValueError
        For an option out of its range, or a callback whose work is the recipe's.

    Examples
    --------
    >>> from keras_resnet.training import Execution
    >>> Execution(seed=1, save_every=500).keep
    3
    """

    image_size: int | tuple[int, int] | None = None
    crop: float | None = None
    seed: int = 0
    cache: str | os.PathLike | None = None
    class_weight: Mapping[int, float] | None = None
    synchronized: bool | None = None
    steps_per_execution: int = 1
    checkpoints: str | os.PathLike | None = None
    keep: int = 3
    save_every: int | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    verbose: int = 1

    def __post_init__(self):
        check_range("count", steps_per_execution=self.steps_per_execution, keep=self.keep)
        check_range("count", optional=True, save_every=self.save_every)
        if self.image_size is not None:
            sides(self.image_size)
        check_range("crop", optional=True, crop=self.crop)
        check_choice((0, 1, 2), verbose=self.verbose)
        check_callbacks(self.callbacks)


def execution_of(execution: Execution | None, options: Mapping[str, Any]) -> Execution:
    """Make one of the options that a function was given, together or one by one.

    Parameters
    ----------
    execution : Execution or None
        All of them together.
    options : mapping of str to value
        Fields of `Execution`.

    Returns
    -------
    Execution

    Raises
    ------
    ValueError
        If there are both.
    TypeError
        For an unknown field.
    """
    if execution is None:
        return Execution(**options)
    if options:
        name, value = next(iter(options.items()))
        raise ValueError(
            f"{name}={value!r} cannot be combined with execution: set it there, as in "
            f"Execution({name}={value!r})."
        )
    return execution
