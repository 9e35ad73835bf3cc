"""How to train: the choices that belong together, as data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real

import keras

from keras_resnet import names
from keras_resnet.checks import check_positive
from keras_resnet.data.pipeline import policy_of
from keras_resnet.optimizers import LayerwiseSGD, StepDecay

_NUMBERS = (
    *("learning_rate", "momentum", "weight_decay", "warm_up", "label_smoothing", "mixup", "ema"),
    "clip_norm",
)


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with warm-up and decay.

    Parameters
    ----------
    epochs : int, default 20
        Passes over the training images.
    batch_size : int, default 64
        Images a step, on all devices of all machines together.
    learning_rate : float, default 0.1
        Highest learning rate, for a batch of 256; scaled in proportion to `batch_size`.
    momentum : float, default 0.9
        Momentum.
    nesterov : bool, default True
        Whether it looks ahead.
    weight_decay : float, default 5e-5
        This times a kernel is added to its gradient, as in the papers and in PyTorch; biases and
        BatchNormalization are left alone.
    warm_up : float, default 0.1
        Fraction of the steps in which the learning rate rises from 0.
    milestones : tuple of float, default ()
        Fractions of the steps after which the learning rate is a tenth of what it was. Default: it
        decays to 0 as the cosine does.
    label_smoothing : float, default 0.0
        Part of the probability of 1 that all classes share.
    mixup : float, default 0.0
        Mix pairs of images and labels, in shares drawn from Beta(mixup, mixup).
    ema : float, default 0.0
        Validate and keep an exponential moving average of the weights and of BatchNormalization's
        statistics, which has so much of the former average in it after a step, such as 0.999. 0 for
        none.
    clip_norm : float, optional
        The gradient of all weights together is made no longer than this.
    accumulation : int, default 1
        Parts that a device takes its images of a batch in, one after the other, for batches that
        its memory is too small for. Each part has its own BatchNormalization statistics.
    patience : int, optional
        End after so many epochs without a lower validation loss. Default: after `epochs`.
    augmentation : str, optional
        A key of `keras_resnet.data.AUGMENTATIONS`. Default: the one that suits the images.
    rates : mapping of str to float, optional
        Discriminative learning rates: factors by what the names of layers begin with.

    References
    ----------
    Goyal et al., Accurate, Large Minibatch SGD, 2017: linear scaling and warm-up.
    Loshchilov and Hutter, SGDR, ICLR 2017: cosine decay.

    Examples
    --------
    >>> from keras_resnet.training import Recipe
    >>> recipe = Recipe(epochs=2, batch_size=256, warm_up=0.5)
    >>> schedule = recipe.schedule(steps_per_epoch=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 20)]
    [0.0, 0.1, 0.0]
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-5
    warm_up: float = 0.1
    milestones: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    clip_norm: float | None = None
    accumulation: int = 1
    patience: int | None = None
    augmentation: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        check_positive(
            epochs=self.epochs, batch_size=self.batch_size, accumulation=self.accumulation
        )
        if self.patience is not None:
            check_positive(patience=self.patience)
        for name in _NUMBERS:
            value = getattr(self, name)
            if name == "clip_norm" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r} must be a number.")
        policy_of(self.augmentation)
        if not isinstance(self.nesterov, bool):
            raise ValueError(f"nesterov={self.nesterov!r} must be true or false.")
        if not isinstance(self.milestones, tuple | list) or not _are_numbers(self.milestones):
            raise ValueError(f"milestones={self.milestones!r} must be a list of numbers.")
        if not isinstance(self.rates, Mapping) or not _are_numbers(self.rates.values()):
            raise ValueError(f"rates={self.rates!r} must be numbers by names.")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r} must be above 0.")
        for name in ("weight_decay", "mixup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0.")
        for name in ("momentum", "warm_up", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1.")
        if not all(0 < each < 1 for each in self.milestones):
            raise ValueError(f"milestones={self.milestones!r} must lie between 0 and 1.")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation={self.accumulation} must divide batch_size={self.batch_size}."
            )

    def changed(self, **changes) -> "Recipe":
        """The same recipe but for some fields.

        Parameters
        ----------
        **changes
            Values of fields.

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            For an unknown field, or a value out of its range.
        """
        known = [each.name for each in fields(self)]
        found = {names.find("field of a recipe", key, known): changes[key] for key in changes}
        return replace(self, **found)

    def schedule(self, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """Learning rate of every step.

        Parameters
        ----------
        steps_per_epoch : int
            Batches in one pass over the training images.

        Returns
        -------
        keras.optimizers.schedules.LearningRateSchedule
        """
        steps = self.epochs * steps_per_epoch
        warm_up_steps = min(round(self.warm_up * steps), steps - 1)
        highest = self.learning_rate * self.batch_size / 256
        if self.milestones:
            boundaries = [round(part * steps) for part in self.milestones]
            return StepDecay(highest, boundaries, warm_up_steps)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warm_up_steps else highest,
            steps - warm_up_steps,
            warmup_target=highest if warm_up_steps else None,
            warmup_steps=warm_up_steps,
        )

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Make the optimizer for a run of `epochs` times `steps_per_epoch` steps.

        Parameters
        ----------
        steps_per_epoch : int
            Batches in one pass over the training images.

        Returns
        -------
        keras.optimizers.Optimizer
        """
        return LayerwiseSGD(
            self.schedule(steps_per_epoch),
            momentum=self.momentum,
            nesterov=self.nesterov,
            l2=self.weight_decay,
            global_clipnorm=self.clip_norm,
            rates=self.rates,
        )


def _are_numbers(values):
    return all(isinstance(each, Real) and math.isfinite(each) for each in values)


RECIPES = {
    # He et al. 2016: 64,000 steps on CIFAR-10 with milestones at 32,000 and 48,000; on ImageNet,
    # a tenth whenever the error stood still.
    "paper": Recipe(
        epochs=120,
        batch_size=256,
        nesterov=False,
        weight_decay=1e-4,
        warm_up=0.0,
        milestones=(0.5, 0.75),
    ),
    "modern": Recipe(
        epochs=100,
        batch_size=256,
        weight_decay=1e-4,
        warm_up=0.05,
        label_smoothing=0.1,
        mixup=0.2,
        ema=0.999,
    ),
    # What `transfer.stages` is made of.
    "finetune": Recipe(
        epochs=6, batch_size=32, weight_decay=1e-5, warm_up=0.2, label_smoothing=0.1
    ),
}
"""Ready-made recipes by name."""


def recipe(name: str, **changes) -> Recipe:
    """Look a ready-made recipe up.

    Parameters
    ----------
    name : {"paper", "modern", "finetune"}
        Its name.
    **changes
        Fields of `Recipe` that are to be different.

    Returns
    -------
    Recipe

    Raises
    ------
    ValueError
        For an unknown name or field, or a value out of its range.

    Examples
    --------
    >>> from keras_resnet import training
    >>> training.recipe("paper", epochs=90).milestones
    (0.5, 0.75)
    """
    return RECIPES[names.find("recipe", name, RECIPES)].changed(**changes)


def as_recipe(found: Recipe | str | None) -> Recipe:
    """Turn the argument of a function into a recipe.

    Parameters
    ----------
    found : Recipe or str, optional
        A recipe, or a key of `RECIPES`.

    Returns
    -------
    Recipe
    """
    return recipe(found) if isinstance(found, str) else found or Recipe()
