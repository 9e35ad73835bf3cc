"""Models of the family as keras-tuner searches them."""

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from keras_resnet import names, transfer, zoo
from keras_resnet.analysis import complexity
from keras_resnet.checks import check_positive
from keras_resnet.data import Source
from keras_resnet.files import read_object, write_text
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.pretrained import load
from keras_resnet.pretrained.notices import warn
from keras_resnet.training import TASKS, Recipe, Result, task_of, train
from keras_resnet.training.recipes import as_recipe
from keras_resnet.training.tasks import DIRECTIONS
from keras_resnet.tuning import space as spaces
from keras_resnet.tuning.budget import Budget, cost, milliseconds


def objectives(source: Source | None = None) -> dict[str, str]:
    """List what a search can choose by.

    Parameters
    ----------
    source : Source, optional
        The data. Default: images of classes.

    Returns
    -------
    dict of str to {"max", "min"}
        The names, the most obvious objective first, and whether more is better.

    Examples
    --------
    >>> from keras_resnet.tuning.hypermodel import objectives
    >>> objectives()
    {'val_accuracy': 'max', 'val_loss': 'min', 'accuracy': 'max', 'loss': 'min'}
    """
    measured = [*_task(source).metrics, "loss"]
    return {f"{split}{name}": DIRECTIONS[name] for split in ("val_", "") for name in measured}


def _task(source):
    """The task of a source; without one, classification."""
    return task_of(source) if source else TASKS["classification"]


class _HyperModel(keras_tuner.HyperModel):
    """What both kinds of search share.

    A subclass adds `cost`, `make` and `train`, and
    `_make_untrained(values)`, a model whose weights nobody looks at, and
    `_architecture(values)`, those of the values that the speed of a model depends on.
    """

    def __init__(self, space, conditions, budget, input_shape, classes, recipe, source, name):
        self.space, self.conditions = space, conditions
        self.budget = Budget.parse(budget) if isinstance(budget, str) else budget or Budget()
        self.input_shape, self.classes, self.recipe = tuple(input_shape), classes, recipe
        self.source = source  # `search` sets it, too
        self.folder: Path | None = None  # where the trials of a search share what they compute
        self._milliseconds = {}
        super().__init__(name)
        check_positive(classes=classes)
        declared = keras_tuner.HyperParameters()
        self.declare_hyperparameters(declared)
        if not declared.space:
            raise ValueError(f"space={space!r} leaves nothing to choose.")

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Declare all choices, those with conditions as such.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            Where to declare them.

        Returns
        -------
        dict of str to value
            The chosen and the fixed values.
        """
        return spaces.declare(hp, self.space, self.conditions)

    def values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the values of a trial with the fixed ones.

        Parameters
        ----------
        chosen : mapping of str to value
            Values of a trial.

        Returns
        -------
        dict of str to value
        """
        hp = keras_tuner.HyperParameters()
        hp.values = dict(chosen)
        return self.declare_hyperparameters(hp)

    def _drop_path(self, values):
        """What a model is built with, to be trained as chosen."""
        return spaces.recipe_of(values, self.recipe).drop_path or 0.0

    def declined(self, chosen: Mapping[str, Any], measured: bool = True) -> str | None:
        """Say why a configuration should not be trained.

        Parameters
        ----------
        chosen : mapping of str to value
            Values of a trial.
        measured : bool, default True
            Whether to measure how long a prediction takes, if the budget limits that and the model
            is within its other limits.

        Returns
        -------
        str or None
            None if there are such a model and recipe, and the model is within the budget.
        """
        values = self.values(chosen)
        try:
            spaces.recipe_of(values, self.recipe)
        except ValueError as error:
            return str(error).rstrip(".")
        return self._over_budget(values, measured)

    def _over_budget(self, values, measured=True):
        """Say why a model should not be trained, whatever the recipe."""
        try:
            params, macs = self.cost(values)
        except ValueError as error:
            return str(error).rstrip(".")
        reason = self.budget.exceeded(params, macs)
        if reason is None and self.budget.ms is not None and measured:
            reason = self.budget.exceeded(params, macs, self.milliseconds(values))
        return reason

    def _prune(self, *choices):
        """Remove values with which even the smallest model is over the budget."""
        smallest = {name: spaces.smallest(choice) for name, choice in self.space.items()}
        kept, declined = [], []
        for values in itertools.product(*(spaces.options_of(self.space[name]) for name in choices)):
            found = {**smallest, **dict(zip(choices, values, strict=True))}
            over = self._over_budget(self.values(found), measured=False)
            (declined if over else kept).append(found)

        def multiply_adds(found):
            try:
                return self.cost(self.values(found))[1]
            except ValueError:  # there is no such model
                return math.inf

        smallest = self.values(min(kept or declined, key=multiply_adds))
        if reason := self._over_budget(smallest):
            raise ValueError(
                f"budget={str(self.budget)!r}: no model of the space is within it. For one of the "
                f"smallest, {reason}. Raise the budget, or allow smaller models."
            )
        for name in choices:
            if isinstance(self.space[name], list | tuple):
                allowed = [found[name] for found in kept]
                self.space[name] = [each for each in self.space[name] if each in allowed]

    def milliseconds(self, values: Mapping[str, Any]) -> float:
        """Measure how long a prediction for one image takes, once per architecture.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        float
        """
        key = json.dumps(self._architecture(values), sort_keys=True)
        file = self.folder and self.folder / "milliseconds.json"
        if key not in self._milliseconds and file and file.exists():
            self._milliseconds.update(read_object(file))
        if key not in self._milliseconds:
            self._milliseconds[key] = milliseconds(self._make_untrained(values))
            if file:
                write_text(file, json.dumps(self._milliseconds))
        return self._milliseconds[key]

    def _with_head(self, backbone, dropout=0.0):
        """A backbone with a head for the data; for classes, if they are not known yet."""
        if self.source is None:
            return transfer.classifier(backbone, self.classes, dropout)
        return transfer.model_for(backbone, self.source, dropout)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build the model of a trial.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            What has been chosen.

        Returns
        -------
        keras.Model
            A model of raw images of 0 to 255, compiled so that keras-tuner's own tuners can load
            it.

        Raises
        ------
        keras_tuner.errors.FailedTrialError
            For a model that does not exist or is over the budget.
        """
        values = self.declare_hyperparameters(hp)
        if reason := self.declined(hp.values):
            raise keras_tuner.errors.FailedTrialError(f"Declined: {reason}.")
        model = self.make(values)
        loss, *metrics = _task(self.source).compiled or (None,)
        model.compile("sgd", loss, metrics=metrics)
        return model

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        source: Source,
        *,
        epochs: int | None = None,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **options: Any,
    ) -> dict[str, float]:
        """Train a model that `build` has made; keras-tuner's tuners call this.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            What has been chosen.
        model : keras.Model
            The model.
        source : Source
            The data.
        epochs : int, optional
            Epochs in total. Default: the recipe's.
        initial_epoch : int, default 0
            Epochs that the model has been trained for already. The learning rate restarts and
            decays over those that are left.
        callbacks, **options
            As in `keras_resnet.training.train`.

        Returns
        -------
        dict of str to float
            `objectives` at the epoch whose weights were kept, and "seconds" of training.

        References
        ----------
        Loshchilov and Hutter, SGDR, ICLR 2017: warm restarts.
        """
        options.setdefault("verbose", 0)
        result = self.train(
            model,
            source,
            self.values(hp.values),
            epochs or self.recipe.epochs,
            initial_epoch=initial_epoch,
            callbacks=callbacks,
            **options,
        )
        best = {name: result.history[name][result.best_epoch - 1] for name in objectives(source)}
        return {**best, "seconds": result.seconds}


class ResNetHyperModel(_HyperModel):
    """Models of the family for keras-tuner to choose from, and how they are trained.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Number of classes, labels or values.
    space : mapping of str to list, dict or value, optional
        Choices that replace those of `default_space`. A single value fixes a choice.
    budget : Budget or str, optional
        What a model may cost at most, such as "params=3e5". Models over the budget are never
        trained.
    recipe : Recipe or str, optional
        How to train, where that is not chosen. Default: `Recipe()`.
    source : Source, optional
        The data, which the model's head depends on. Default: what `search` is given, or images of
        classes.

    Raises
    ------
    ValueError
        For an unknown choice, one without a value, a space with nothing to choose, or a budget
        that no model of the space is within.

    Examples
    --------
    >>> from keras_resnet.tuning import ResNetHyperModel
    >>> choices = {"block": "basic", "width": [0.5, 1.0]}
    >>> hypermodel = ResNetHyperModel((32, 32, 3), 10, choices, budget="params=1e5")
    >>> import keras_tuner
    >>> choices = keras_tuner.HyperParameters()
    >>> hypermodel.declare_hyperparameters(choices)["width"]
    0.5
    >>> hypermodel.declined({"conv2_blocks": 1, "conv3_blocks": 1, "conv4_blocks": 8})
    'params=149,138 is over 100,000'
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        space: Mapping[str, Any] | None = None,
        budget: Budget | str | None = None,
        *,
        recipe: Recipe | str | None = None,
        source: Source | None = None,
    ):
        recipe = as_recipe(recipe)
        space = spaces.changed(spaces.default_space(input_shape), space, recipe.optimizer)
        super().__init__(
            space, spaces.CONDITIONS, budget, input_shape, classes, recipe, source, "resnet"
        )
        self._prune("stem", "block", "cardinality", "shortcut", "width")

    def cost(self, values: Mapping[str, Any]) -> tuple[int, int]:
        """Count parameters and multiply-adds of a model without building it.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        tuple of (parameters, multiply-adds)

        Raises
        ------
        ValueError
            If there is no such model.
        """
        return cost(self._architecture(values), self.input_shape, self.classes)

    def _architecture(self, values):
        return spaces.net_of(values, self.input_shape)

    def _make_untrained(self, values):
        with kernels_to_be_loaded():
            return self.make(values)

    def make(self, values: Mapping[str, Any]) -> keras.Model:
        """Build a model with random weights.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        keras.Model
            A model of raw images of 0 to 255.
        """
        backbone = zoo.ResNet(
            **self._architecture(values),
            input_shape=self.input_shape,
            include_top=False,
            include_preprocessing=True,
            drop_path=self._drop_path(values),
        )
        return self._with_head(backbone)

    def train(
        self,
        model: keras.Model,
        source: Source,
        values: Mapping[str, Any],
        epochs: int,
        *,
        initial_epoch: int = 0,
        **options: Any,
    ) -> Result:
        """Train a model as chosen.

        Parameters
        ----------
        model : keras.Model
            The model.
        source : Source
            The data.
        values : mapping of str to value
            As `values` returns them.
        epochs : int
            Epochs in total.
        initial_epoch : int, default 0
            Epochs that the model has been trained for already.
        **options
            As in `keras_resnet.training.train`.

        Returns
        -------
        Result
        """
        recipe = spaces.recipe_of(values, self.recipe).changed(epochs=epochs - initial_epoch)
        return train(model, source, recipe, image_size=self.input_shape[:2], **options)


class TransferHyperModel(_HyperModel):
    """Pretrained models for keras-tuner to choose from, and how they are fine-tuned.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Number of classes, labels or values.
    space : mapping of str to list, dict or value, optional
        Choices that replace these: "backbone", names of builders; "back_to", the layer that
        learning goes back to, the layers before it being frozen, as in
        `keras_resnet.transfer.Stage`; "slower", the learning rate below the head relative to the
        head's, where more than the head learns; "dropout"; and "augmentation_strength" and fields
        of `Recipe`, as in `default_space`.
    budget : Budget or str, optional
        What a model may cost at most.
    weights : str, path or mapping of str to str or path, default "imagenet"
        The backbones' weights: a tag, a file, or one of these for each builder's name.
    recipe : Recipe or str, default "finetune"
        How to train, where that is not chosen.
    source : Source, optional
        As in `ResNetHyperModel`.

    Raises
    ------
    ValueError
        As for `ResNetHyperModel`.

    Examples
    --------
    >>> from keras_resnet.tuning import TransferHyperModel
    >>> hypermodel = TransferHyperModel((64, 64, 3), 2, {"backbone": "ResNet18"}, weights=None)
    >>> sorted(hypermodel.space)[:3]
    ['augmentation_strength', 'back_to', 'backbone']
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        space: Mapping[str, Any] | None = None,
        budget: Budget | str | None = None,
        *,
        weights: str | os.PathLike | Mapping[str, str | os.PathLike] | None = "imagenet",
        recipe: Recipe | str = "finetune",
        source: Source | None = None,
    ):
        recipe = as_recipe(recipe)
        space = spaces.changed(spaces.TRANSFER, space, recipe.optimizer)
        below = [each for each in spaces.options_of(space["back_to"]) if each != "head"]
        conditions = {"slower": ("back_to", below)}
        super().__init__(
            space, conditions, budget, input_shape, classes, recipe, source, "transfer"
        )
        self.weights, self._costs = weights, {}
        self._check_backbones(optional=space["backbone"] == spaces.TRANSFER["backbone"])
        self._prune("backbone")

    def _check_backbones(self, optional):
        """Make sure that every backbone has the weights and the layers that trials will need."""
        stages = set(spaces.options_of(self.space["back_to"])) - {"head", "last", "all"}
        found, errors = [], []
        for name in spaces.options_of(self.space["backbone"]):
            values = {"backbone": name, "dropout": 0.0}
            try:
                weights = self._weights_of(name)
                row = load.find(weights, name).row if weights else None
                # A tag is known to be this model's; a file has to be read to find out.
                if weights and not (row and names.plain(row.model) == names.plain(name)):
                    self.make(values)
            except ValueError as error:
                errors.append(error)
                continue
            found.append(name)
            if stages:
                model = self._make_untrained(values)
                for stage in sorted(stages):
                    transfer.unfreeze(model, stage)
        if errors and not (found and optional):
            raise errors[0]
        if errors:
            warn(f"Only {' and '.join(found)} can be chosen as backbone: {errors[0]}")
            self.space["backbone"] = found

    def _weights_of(self, name):
        zoo.builder(name)
        if not isinstance(self.weights, Mapping):
            return self.weights
        if name not in self.weights:
            raise ValueError(f"weights={self.weights!r} has none for {name}.")
        return self.weights[name]

    def cost(self, values: Mapping[str, Any]) -> tuple[int, int]:
        """Count parameters, including frozen ones, and multiply-adds of a model.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        tuple of (parameters, multiply-adds)
        """
        name = values["backbone"]
        if name not in self._costs:
            stages = complexity(self._make_untrained(values))
            self._costs[name] = tuple(
                sum(getattr(stage, what) for stage in stages) for what in ("parameters", "macs")
            )
        return self._costs[name]

    def _architecture(self, values):
        return {"backbone": values["backbone"]}

    def _make_untrained(self, values):
        with kernels_to_be_loaded():
            return self._make(values, None)

    def make(self, values: Mapping[str, Any]) -> keras.Model:
        """Build a model with a pretrained backbone.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        keras.Model
            A model of raw images of 0 to 255.
        """
        return self._make(values, self._weights_of(values["backbone"]))

    def _make(self, values, weights):
        backbone = zoo.builder(values["backbone"])(
            weights=weights,
            include_top=False,
            input_shape=self.input_shape,
            include_preprocessing=True,
            drop_path=self._drop_path(values),
        )
        return self._with_head(backbone, values["dropout"])

    def train(
        self,
        model: keras.Model,
        source: Source,
        values: Mapping[str, Any],
        epochs: int,
        *,
        initial_epoch: int = 0,
        **options: Any,
    ) -> Result:
        """Fine-tune a model as chosen: first its head, on features that are computed once.

        Parameters
        ----------
        model, source, values, epochs, initial_epoch, **options
            As in `ResNetHyperModel.train`; `epochs` are those of the last stage.

        Returns
        -------
        Result
        """
        epochs -= initial_epoch
        recipe = spaces.recipe_of(values, self.recipe)
        head = transfer.Stage("head", recipe, views=2)
        if values["back_to"] == "head":
            plan = [replace(head, recipe=recipe.changed(epochs=epochs))]
        else:
            slow = recipe.changed(
                epochs=epochs, learning_rate=values["slower"] * recipe.learning_rate
            )
            plan = [] if initial_epoch else [head]
            plan.append(transfer.Stage(values["back_to"], slow))
        return transfer.fine_tune(
            model,
            source,
            plan,
            image_size=self.input_shape[:2],
            features_folder=self.folder and self.folder / "features",
            **options,
        )
