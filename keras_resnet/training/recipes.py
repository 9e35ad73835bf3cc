"""How to train: the choices that belong together, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras

from keras_resnet.blocks import check_positive
from keras_resnet.training.optimizers import LayerwiseSGD


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with warm-up and cosine decay.

    Parameters
    ----------
    epochs : int, default 20
        Passes over the training images.
    batch_size : int, default 64
        Images a step.
    learning_rate : float, default 0.1
        Highest learning rate, for a batch of 256; scaled in proportion to `batch_size`.
    momentum : float, default 0.9
        Nesterov momentum.
    weight_decay : float, default 5e-4
        Decay of the kernels; biases and BatchNormalization are left alone.
    warm_up : float, default 0.1
        Fraction of the steps in which the learning rate rises from 0.
    label_smoothing : float, default 0.0
        Part of the probability of 1 that all classes share.
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
    weight_decay: float = 5e-4
    warm_up: float = 0.1
    label_smoothing: float = 0.0
    patience: int | None = None
    augmentation: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        check_positive(epochs=self.epochs, batch_size=self.batch_size)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r} must be above 0.")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay!r} must be at least 0.")
        if self.patience is not None:
            check_positive(patience=self.patience)
        for name in ("momentum", "warm_up", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1.")

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
        warm_up_steps = round(self.warm_up * steps)
        highest = self.learning_rate * self.batch_size / 256
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
        optimizer = LayerwiseSGD(
            self.schedule(steps_per_epoch),
            momentum=self.momentum,
            nesterov=True,
            weight_decay=self.weight_decay,
            rates=self.rates,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
