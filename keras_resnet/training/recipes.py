"""How to train: hyperparameters that belong together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import keras

from keras_resnet import graphs, names
from keras_resnet.checks import check_choice, check_range, is_within
from keras_resnet.data.augmentation import AUGMENTATIONS
from keras_resnet.optimizers import (
    LayerwiseAdamW,
    LayerwiseLamb,
    LayerwiseSGD,
    StepDecay,
    name_of_rate,
)
from keras_resnet.training.losses import LOSSES

_RANGES = {
    "epochs": "count",
    "batch_size": "count",
    "learning_rate": "positive",
    "momentum": "decay",
    "weight_decay": "nonnegative",
    "warm_up": "decay",
    "label_smoothing": "decay",
    "mixup": "nonnegative",
    "cutmix": "nonnegative",
    "mix_probability": "fraction",
    "switch_probability": "fraction",
    "erasing": "fraction",
    "repeats": "count",
    "ema": "decay",
    "clip_norm": "positive",
    "accumulation": "count",
    "patience": "count",
    "layer_decay": "factor",
    "drop_path": "dropout",
    "target_threshold": "milestone",
}
_OPTIONAL = ("clip_norm", "patience", "drop_path", "target_threshold")
_OF_OPTIMIZER = ("learning_rate", "weight_decay")  # what suits one does not suit another

VARIATION = ("mixup", "cutmix", "mix_probability", "switch_probability", "erasing", "repeats")
"""Fields of `Recipe` that vary training images on top of their augmentation."""

POLICIES: dict[str, Mapping] = {"images": AUGMENTATIONS}
"""Tables of named policies of augmentation, by what they are for. `detection` adds its own."""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer for recipes.

    Parameters
    ----------
    make : callable
        The class.
    options : callable
        Its options beside the learning rate, `global_clipnorm` and `rates`, given a recipe.
    learning_rate, weight_decay : float
        What a recipe has that gives none.
    scaling : float
        The power of the batch size that the learning rate is in proportion to.
    """

    make: Callable[..., keras.optimizers.Optimizer]
    options: Callable[["Recipe"], dict[str, Any]]
    learning_rate: float
    weight_decay: float
    scaling: float


OPTIMIZERS = {
    "sgd": Optimizer(
        LayerwiseSGD,
        lambda recipe: dict(
            momentum=recipe.momentum, nesterov=recipe.nesterov, l2=recipe.weight_decay
        ),
        learning_rate=0.1,
        weight_decay=5e-5,
        scaling=1.0,
    ),
    # With PyTorch's epsilon.
    "adamw": Optimizer(
        LayerwiseAdamW,
        lambda recipe: dict(beta_1=recipe.momentum, epsilon=1e-8, weight_decay=recipe.weight_decay),
        learning_rate=1e-3,
        weight_decay=0.05,
        scaling=0.5,
    ),
    # With timm's.
    "lamb": Optimizer(
        LayerwiseLamb,
        lambda recipe: dict(beta_1=recipe.momentum, epsilon=1e-6, weight_decay=recipe.weight_decay),
        learning_rate=2e-3,
        weight_decay=0.02,
        scaling=0.5,
    ),
}
"""Optimizers by name."""


@dataclass(frozen=True)
class Recipe:
    """How to train: an optimizer, its learning rate with warm-up and decay, and regularization.

    Parameters
    ----------
    epochs : int, default 20
        Passes over the training images.
    batch_size : int, default 64
        Images per step, on all devices of all machines together.
    learning_rate : float, optional
        Peak learning rate for a batch of 256; scaled in proportion to `batch_size`, of "adamw" and
        "lamb" to its square root. Default: 0.1 of "sgd", 0.001 of "adamw", 0.002 of "lamb".
    momentum : float, default 0.9
        Momentum; of "adamw" and "lamb", their beta 1.
    nesterov : bool, default True
        Whether to use Nesterov momentum; "sgd" alone has it.
    weight_decay : float, optional
        Of "sgd" an L2 penalty: this times a kernel is added to its gradient, as in the papers and
        in PyTorch. "adamw" takes this times the learning rate off a kernel, "lamb" makes it a part
        of its update. Biases and normalization are left out. Default: 5e-5 of "sgd", 0.05 of
        "adamw", 0.02 of "lamb".
    warm_up : float, default 0.1
        Fraction of the steps during which the learning rate rises from 0.
    milestones : tuple of float, default ()
        Fractions of the steps after which the learning rate is divided by 10. Default: cosine
        decay to 0.
    label_smoothing : float, default 0.0
        Fraction of the probability that is spread evenly over all classes; for several labels, over
        yes and no. Regression ignores it.
    mixup : float, default 0.0
        Mix pairs of images and their labels, with weights drawn from Beta(mixup, mixup).
    cutmix : float, default 0.0
        Paste rectangles of other images into images, and mix their labels by area; the fraction
        that stays is drawn from Beta(cutmix, cutmix), before what is outside of the image is cut
        off.
    mix_probability : float, default 1.0
        Fraction of the batches that are mixed at all.
    switch_probability : float, default 0.5
        Fraction of them that CutMix mixes rather than MixUp, where there are both.
    erasing : float, default 0.0
        Fraction of the images in which a random rectangle becomes noise.
    repeats : int, default 1
        Variations of an image within an epoch, which shows as many times fewer images: repeated
        augmentation.
    ema : float, default 0.0
        Validate and keep an exponential moving average of the weights and of BatchNormalization's
        statistics, with this weight, such as 0.999, of the former average at every step. 0 for
        none.
    clip_norm : float, optional
        Largest norm of the gradient of all weights together.
    accumulation : int, default 1
        Parts in which a device takes its images of a batch, one after the other, if its memory is
        too small for all at once. Each part has its own BatchNormalization statistics.
    patience : int, optional
        Stop after this many epochs without a lower validation loss. Default: after `epochs`.
    augmentation : str, optional
        A key of `keras_resnet.data.AUGMENTATIONS`, or, for images with boxes, of
        `keras_resnet.detection.AUGMENTATIONS`. Default: the one that suits the images.
    rates : mapping of str to float, optional
        Discriminative learning rates: factors for layers, by the beginnings of their names, such as
        "conv4", or, of a detector, "fpn", "rpn" and "box".
    loss : str, optional
        What a mistake costs: for classes "cross_entropy", "focal", or "binary_cross_entropy" of
        each class against all others, after which a model still answers with a softmax; for several
        labels "binary_cross_entropy", "focal" or "asymmetric"; for numbers "squared_error",
        "absolute_error" or "huber". Default: the first of these.
    target_threshold : float, optional
        With "binary_cross_entropy" of classes: what is above it in mixed and smoothed labels is 1,
        all else 0, so that an image that is mixed of two is one of both. Default: labels as they
        are.
    optimizer : {"sgd", "adamw", "lamb"}, default "sgd"
        A key of `OPTIMIZERS`.
    layer_decay : float, default 1.0
        Factor of the learning rate from each residual block to the one before it; the head learns
        at the full rate. Of other models, blocks are what lies between two points that every way
        through the model passes.
    drop_path : float, optional
        Fraction of the images for which the last residual block is left out, as the model was
        built; earlier blocks less often. `runs.train` builds it so. Default: the model's own.

    References
    ----------
    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021.
    Goyal et al., Accurate, Large Minibatch SGD, 2017: linear scaling and warm-up.
    Loshchilov and Hutter, SGDR, ICLR 2017: cosine decay.
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019: AdamW.
    You et al., Large Batch Optimization for Deep Learning, ICLR 2020: LAMB, square root scaling.
    Huang et al., Deep Networks with Stochastic Depth, ECCV 2016: drop path.
    Bao et al., BEiT, ICLR 2022: layer-wise decay.
    Yun et al., CutMix, ICCV 2019; Zhong et al., Random Erasing, AAAI 2020; Hoffer et al., Augment
    Your Batch, CVPR 2020: repeated augmentation.

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
    learning_rate: float = None  # type: ignore[assignment]  # its optimizer's
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = None  # type: ignore[assignment]  # its optimizer's
    warm_up: float = 0.1
    milestones: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = field(default=0.0, kw_only=True)
    mix_probability: float = field(default=1.0, kw_only=True)
    switch_probability: float = field(default=0.5, kw_only=True)
    erasing: float = field(default=0.0, kw_only=True)
    repeats: int = field(default=1, kw_only=True)
    ema: float = 0.0
    clip_norm: float | None = None
    accumulation: int = 1
    patience: int | None = None
    augmentation: str | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    loss: str | None = field(default=None, kw_only=True)
    target_threshold: float | None = field(default=None, kw_only=True)
    optimizer: str = field(default="sgd", kw_only=True)
    layer_decay: float = field(default=1.0, kw_only=True)
    drop_path: float | None = field(default=None, kw_only=True)

    def __post_init__(self):
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        for name in _OF_OPTIMIZER:
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(OPTIMIZERS[self.optimizer], name))
        for name, kind in _RANGES.items():
            check_range(kind, optional=name in _OPTIONAL, **{name: getattr(self, name)})
        if self.augmentation is None or isinstance(self.augmentation, str):
            known = dict.fromkeys(name for table in POLICIES.values() for name in table)
            check_choice((None, *known), augmentation=self.augmentation)
        check_choice((None, *LOSSES), loss=self.loss)
        if self.target_threshold is not None and self.loss != "binary_cross_entropy":
            raise ValueError(
                f"target_threshold={self.target_threshold!r} is for loss='binary_cross_entropy', "
                f"not for loss={self.loss!r}."
            )
        if not isinstance(self.nesterov, bool):
            raise ValueError(f"nesterov={self.nesterov!r} must be true or false.")
        if not isinstance(self.milestones, tuple | list) or not _are("number", self.milestones):
            raise ValueError(f"milestones={self.milestones!r} must be a list of numbers.")
        if not _are("milestone", self.milestones):
            raise ValueError(f"milestones={self.milestones!r} must lie between 0 and 1.")
        if not isinstance(self.rates, Mapping) or not _are("number", self.rates.values()):
            raise ValueError(f"rates={self.rates!r} must map names to numbers.")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation={self.accumulation} must divide batch_size={self.batch_size}."
            )

    def changed(self, **changes) -> "Recipe":
        """Copy the recipe with some fields changed.

        Parameters
        ----------
        **changes
            Values of fields. With another optimizer, its own learning rate and weight decay, unless
            they are given too.

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
        if found.get("optimizer", self.optimizer) != self.optimizer:
            found = {**dict.fromkeys(_OF_OPTIMIZER), **found}
        return replace(self, **found)

    @property
    def _peak(self):
        """The highest learning rate."""
        scaling = OPTIMIZERS[self.optimizer].scaling
        return self.learning_rate * (self.batch_size / 256) ** scaling

    def schedule(self, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """Make the learning rate schedule.

        Parameters
        ----------
        steps_per_epoch : int
            Batches per pass over the training images.

        Returns
        -------
        keras.optimizers.schedules.LearningRateSchedule
        """
        steps = self.epochs * steps_per_epoch
        warm_up_steps = min(round(self.warm_up * steps), steps - 1)
        peak = self._peak
        if self.milestones:
            boundaries = [round(fraction * steps) for fraction in self.milestones]
            return StepDecay(peak, boundaries, warm_up_steps)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warm_up_steps else peak,
            steps - warm_up_steps,
            warmup_target=peak if warm_up_steps else None,
            warmup_steps=warm_up_steps,
        )

    def make_optimizer(
        self, steps_per_epoch: int | None = None, model: keras.Model | None = None
    ) -> keras.optimizers.Optimizer:
        """Make the optimizer for a run of `epochs * steps_per_epoch` steps.

        Parameters
        ----------
        steps_per_epoch : int, optional
            Batches per pass over the training images. Default: for a run of any length, which
            stays at the highest learning rate.
        model : keras.Model, optional
            The model, whose blocks `layer_decay` needs.

        Returns
        -------
        keras.optimizers.Optimizer

        Raises
        ------
        ValueError
            If there is a `layer_decay`, and no model or one that does not show its layers.
        """
        kind = OPTIMIZERS[self.optimizer]
        return kind.make(
            self.schedule(steps_per_epoch) if steps_per_epoch else self._peak,
            global_clipnorm=self.clip_norm,
            rates=self._rates_in(model),
            **kind.options(self),
        )

    def _rates_in(self, model):
        """Factors of the learning rate, by the names of layers."""
        if self.layer_decay == 1.0:
            return self.rates
        if model is None:
            raise ValueError(
                f"layer_decay={self.layer_decay!r} depends on the model's layers: pass model=."
            )

        def own(layer):
            name = name_of_rate(self.rates, layer.weights[0].path)
            return 1.0 if name is None else self.rates[name]

        return {
            layer.name: self.layer_decay**blocks_behind * own(layer)
            for blocks_behind, group in enumerate(reversed(graphs.blocks_of(model)))
            for layer in group
        }


def _are(kind, numbers):
    return all(is_within(kind, number) for number in numbers)


_STRIKES_BACK = Recipe(
    epochs=300,
    batch_size=2048,
    optimizer="lamb",
    learning_rate=5e-3 / 8**0.5,
    weight_decay=0.02,
    warm_up=5 / 300,
    mixup=0.1,
    cutmix=1.0,
    repeats=3,
    augmentation="randaugment 7",
    clip_norm=1.0,
    loss="binary_cross_entropy",
    target_threshold=0.2,
    drop_path=0.05,
)
RECIPES = {
    # He et al. 2016: 64,000 steps on CIFAR-10 with milestones at 32,000 and 48,000; on ImageNet,
    # a tenth whenever the error plateaued.
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
    # Wightman, Touvron and Jégou, ResNet strikes back, 2021 (arXiv 2110.00476), table 2: A1, A2 and
    # A3, trained on windows of 224, 224 and 160 pixels and tested with a crop of 0.95. The rates
    # are theirs for batches of 2,048. The threshold is timm's, whose LAMB clips at a norm of 1.
    "a1": replace(
        _STRIKES_BACK,
        epochs=600,
        weight_decay=0.01,
        warm_up=5 / 600,
        target_threshold=None,  # which would undo the smoothing
        label_smoothing=0.1,
        mixup=0.2,
    ),
    "a2": _STRIKES_BACK,
    "a3": replace(
        _STRIKES_BACK,
        epochs=100,
        learning_rate=8e-3 / 8**0.5,
        warm_up=5 / 100,
        repeats=1,
        augmentation="randaugment 6",
        drop_path=None,
    ),
    # The basis of `transfer.stages`.
    "finetune": Recipe(
        epochs=6, batch_size=32, weight_decay=1e-5, warm_up=0.2, label_smoothing=0.1
    ),
    # torchvision's for COCO: 26 epochs, 0.02 at 16 images per step, which is 0.32 at 256.
    "detection": Recipe(
        epochs=26,
        batch_size=2,
        learning_rate=0.32,
        nesterov=False,
        weight_decay=1e-4,
        warm_up=0.05,
        clip_norm=10.0,
    ),
}
"""Recipes by name."""


def recipe(name: str, **changes) -> Recipe:
    """Look up a recipe by name.

    Parameters
    ----------
    name : {"paper", "modern", "a1", "a2", "a3", "finetune", "detection"}
        A key of `RECIPES`.
    **changes
        Fields of `Recipe` to change.

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
