"""Nets of the family as keras-tuner searches them."""

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import keras_tuner

from keras_resnet import names, transfer, zoo
from keras_resnet.analysis import complexity
from keras_resnet.checks import check_positive
from keras_resnet.data import Source
from keras_resnet.files import write_text
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.pretrained import load
from keras_resnet.pretrained.notices import warn
from keras_resnet.training import Recipe, Result, train
from keras_resnet.training.recipes import as_recipe
from keras_resnet.tuning import space as spaces
from keras_resnet.tuning.budget import Budget, cost, milliseconds

METRICS = {"val_accuracy": "max", "val_loss": "min", "accuracy": "max", "loss": "min"}
"""What a trial tells of a net, and whether more of it is better."""


class _HyperModel(keras_tuner.HyperModel):
    """What both kinds of search have in common."""

    def __init__(self, space, conditions, budget, input_shape, classes, recipe, name):
        self.space, self.conditions = space, conditions
        self.budget = Budget.parse(budget) if isinstance(budget, str) else budget or Budget()
        self.input_shape, self.classes, self.recipe = tuple(input_shape), classes, recipe
        self._milliseconds = {}
        self.measurements = None  # a file that keeps them for other processes, and for later
        super().__init__(name)
        check_positive(classes=classes)
        declared = keras_tuner.HyperParameters()
        self.declare_hyperparameters(declared)
        if not declared.space:
            raise ValueError(f"space={space!r} leaves nothing to choose.")

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Declare what can be chosen, the dependent choices as such.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            Where to declare it.

        Returns
        -------
        dict of str to value
            What has been chosen, and what there was only one value of.
        """
        return spaces.declare(hp, self.space, self.conditions)

    def values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What has been chosen, and what there was only one value of.

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

    def declined(self, chosen: Mapping[str, Any], measured: bool = True) -> str | None:
        """Say why a configuration is not to be trained.

        Parameters
        ----------
        chosen : mapping of str to value
            Values of a trial.
        measured : bool, default True
            Whether to measure how long a prediction takes, if the budget asks for it and the net is
            within its other bounds.

        Returns
        -------
        str or None
            None for one that may be: a net that there is, within the budget.
        """
        values = self.values(chosen)
        try:
            params, macs = self.cost(values)
        except ValueError as error:
            return str(error)
        reason = self.budget.exceeded(params, macs)
        if reason is None and self.budget.ms is not None and measured:
            reason = self.budget.exceeded(params, macs, self.milliseconds(values))
        return reason

    def _prune(self, *choices):
        """Take out of the space what no net within the budget has, smallest as it may be."""
        smallest = {name: spaces.smallest(choice) for name, choice in self.space.items()}
        kept, declined = [], []
        for values in itertools.product(*(spaces.options_of(self.space[name]) for name in choices)):
            found = {**smallest, **dict(zip(choices, values, strict=True))}
            (declined if self.declined(found, measured=False) else kept).append(found)

        def multiply_adds(found):
            try:
                return self.cost(self.values(found))[1]
            except ValueError:  # a net that there is not
                return math.inf

        if reason := self.declined(min(kept or declined, key=multiply_adds)):
            raise ValueError(
                f"budget={str(self.budget)!r}: no net of the space is within it. One of the "
                f"smallest: {reason}. Raise the budget, or allow smaller nets."
            )
        for name in choices:
            if isinstance(self.space[name], list | tuple):
                allowed = [found[name] for found in kept]
                self.space[name] = [each for each in self.space[name] if each in allowed]

    def milliseconds(self, values: Mapping[str, Any]) -> float:
        """Measure what the prediction for one image takes, once for every net.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.

        Returns
        -------
        float
        """
        key, file = json.dumps(self._net(values), sort_keys=True), self.measurements
        if key not in self._milliseconds and file and file.exists():
            self._milliseconds.update(json.loads(file.read_text(encoding="utf-8")))
        if key not in self._milliseconds:
            with kernels_to_be_loaded():
                self._milliseconds[key] = milliseconds(self.make(values, pretrained=False))
            if file:
                write_text(file, json.dumps(self._milliseconds))
        return self._milliseconds[key]

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Build a net, with fresh weights or pretrained ones.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            What has been chosen.

        Returns
        -------
        keras.Model
            Of raw images of 0 to 255; compiled, so that keras-tuner's own tuners can load it.

        Raises
        ------
        keras_tuner.errors.FailedTrialError
            For a net that is over the budget, or that there is not.
        """
        values = self.declare_hyperparameters(hp)
        if reason := self.declined(hp.values):
            raise keras_tuner.errors.FailedTrialError(f"Declined: {reason}.")
        model = self.make(values)
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
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
        **options,
    ) -> dict[str, float]:
        """Train a net that `build` has made; keras-tuner's tuners call it.

        Parameters
        ----------
        hp : keras_tuner.HyperParameters
            What has been chosen.
        model : keras.Model
            The net.
        source : Source
            The data.
        epochs : int, optional
            Epochs in all. Default: the recipe's.
        initial_epoch : int, default 0
            Epochs that the net has behind it. The learning rate then starts anew and decays over
            those that are left.
        callbacks, **options
            As in `keras_resnet.training.train`.

        Returns
        -------
        dict of str to float
            `METRICS` of the epoch whose weights were kept, and "seconds" of training.

        References
        ----------
        Loshchilov and Hutter, SGDR, ICLR 2017: warm restarts.
        """
        values = self.values(hp.values)
        epochs = (epochs or self.recipe.epochs) - initial_epoch
        options.setdefault("verbose", 0)
        result = self.train(
            model, source, values, epochs, begun=initial_epoch > 0, callbacks=callbacks, **options
        )
        best = {name: result.history[name][result.best_epoch - 1] for name in METRICS}
        return {**best, "seconds": result.seconds}


class ResNetHyperModel(_HyperModel):
    """Nets of the family between which keras-tuner chooses, and how they are trained.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Outputs of the classifier.
    space : mapping of str to list, dict or value, optional
        Choices in place of those of `default_space`, which see. One value is no choice.
    budget : Budget or str, optional
        What the nets may cost, such as "params=3e5". A configuration over it is never trained.
    recipe : Recipe or str, optional
        How to train, but for what is chosen of it. Default: `Recipe()`.

    Raises
    ------
    ValueError
        For an unknown choice, one without a value, a space with nothing to choose, or a budget
        that no net of the space is within.

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
    ):
        space = spaces.changed(spaces.default_space(input_shape), space)
        super().__init__(
            space, spaces.CONDITIONS, budget, input_shape, classes, as_recipe(recipe), "resnet"
        )
        self._prune("stem", "block", "cardinality", "shortcut", "width")

    def cost(self, values: Mapping[str, Any]) -> tuple[int, int]:
        """Parameters and multiply-adds of a net, without building it.

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
            If there is no such net.
        """
        return cost(self._net(values), self.input_shape, self.classes)

    def _net(self, values):
        return spaces.net_of(values, self.input_shape)

    def make(self, values: Mapping[str, Any], pretrained: bool = False) -> keras.Model:
        """Build a net with fresh weights.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.
        pretrained : bool, default False
            There are no weights for any net.

        Returns
        -------
        keras.Model
            Of raw images of 0 to 255.
        """
        return zoo.ResNet(
            **self._net(values),
            input_shape=self.input_shape,
            classes=self.classes,
            include_preprocessing=True,
        )

    def train(
        self,
        model: keras.Model,
        source: Source,
        values: Mapping[str, Any],
        epochs: int,
        *,
        begun: bool = False,
        features_folder: str | os.PathLike | None = None,
        **options,
    ) -> Result:
        """Train a net as it was chosen.

        Parameters
        ----------
        model : keras.Model
            The net.
        source : Source
            The data.
        values : mapping of str to value
            As `values` returns them.
        epochs : int
            How long.
        begun : bool, default False
            Whether the net has been trained before.
        features_folder : path, optional
            Where trials share what frozen layers have computed.
        **options
            As in `keras_resnet.training.train`.

        Returns
        -------
        Result
        """
        recipe = spaces.recipe_of(values, self.recipe).changed(epochs=epochs)
        del begun, features_folder  # all of a net learns, always
        return train(model, source, recipe, image_size=self.input_shape[0], **options)


class TransferHyperModel(_HyperModel):
    """Pretrained nets between which keras-tuner chooses, and how far and how they are fine-tuned.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.
    classes : int
        Outputs of the new head.
    space : mapping of str to list, dict or value, optional
        Choices in place of these: "backbone", names of builders; "back_to", where learning begins,
        the layers before it being frozen, as in `keras_resnet.transfer.Stage`; "slower", the
        learning rate below the head in times of the head's, where more than the head learns;
        "dropout"; and fields of `Recipe` and "augmentation_strength", as in `default_space`.
    budget : Budget or str, optional
        What the nets may cost.
    weights : str, path or mapping of str to str or path, default "imagenet"
        The backbones' weights: a tag, a file, or one of these for each builder's name.
    recipe : Recipe or str, default "finetune"
        How to train, but for what is chosen of it.

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
    ):
        space = spaces.changed(spaces.TRANSFER, space)
        below = [each for each in spaces.options_of(space["back_to"]) if each != "head"]
        conditions = {"slower": ("back_to", below)}
        super().__init__(
            space, conditions, budget, input_shape, classes, as_recipe(recipe), "transfer"
        )
        self.weights, self._costs = weights, {}
        self._check_backbones(optional=space["backbone"] == spaces.TRANSFER["backbone"])
        self._prune("backbone")

    def _check_backbones(self, optional):
        """See to it that every backbone has the weights and the layers that trials will need."""
        stages = set(spaces.options_of(self.space["back_to"])) - {"head", "last", "all"}
        found, errors = [], []
        for name in spaces.options_of(self.space["backbone"]):
            values = {"backbone": name, "dropout": 0.0}
            try:
                weights = self._weights_of(name)
                row = weights and load.find(weights, name).row
                # A tag is of this net, then; what is in a file, only the net can tell.
                if weights and not (row and names.plain(row.model) == names.plain(name)):
                    self.make(values)
            except ValueError as error:
                errors.append(error)
                continue
            found.append(name)
            if stages:
                with kernels_to_be_loaded():
                    model = self.make(values, pretrained=False)
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
        """Parameters, frozen ones too, and multiply-adds of a net.

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
            with kernels_to_be_loaded():
                stages = complexity(self.make(values, pretrained=False))
            self._costs[name] = tuple(
                sum(getattr(stage, what) for stage in stages) for what in ("parameters", "macs")
            )
        return self._costs[name]

    def _net(self, values):
        return {"backbone": values["backbone"]}

    def make(self, values: Mapping[str, Any], pretrained: bool = True) -> keras.Model:
        """Build a classifier.

        Parameters
        ----------
        values : mapping of str to value
            As `values` returns them.
        pretrained : bool, default True
            Whether its backbone has its weights.

        Returns
        -------
        keras.Model
            Of raw images of 0 to 255.
        """
        name = values["backbone"]
        backbone = zoo.builder(name)(
            weights=self._weights_of(name) if pretrained else None,
            include_top=False,
            input_shape=self.input_shape,
            include_preprocessing=True,
        )
        return transfer.classifier(backbone, self.classes, values["dropout"])

    def train(
        self,
        model: keras.Model,
        source: Source,
        values: Mapping[str, Any],
        epochs: int,
        *,
        begun: bool = False,
        features_folder: str | os.PathLike | None = None,
        **options,
    ) -> Result:
        """Fine-tune a net as it was chosen: the head first, on features that are computed once.

        Parameters
        ----------
        model, source, values, epochs, begun, features_folder, **options
            As for `ResNetHyperModel.train`; `epochs` are those of the last stage.

        Returns
        -------
        Result
        """
        recipe = spaces.recipe_of(values, self.recipe)
        head = transfer.Stage("head", recipe, views=2)
        if values["back_to"] == "head":
            plan = [replace(head, recipe=recipe.changed(epochs=epochs))]
        else:
            slow = recipe.changed(
                epochs=epochs, learning_rate=values["slower"] * recipe.learning_rate
            )
            plan = [] if begun else [head]
            plan.append(transfer.Stage(values["back_to"], slow))
        return transfer.fine_tune(
            model,
            source,
            plan,
            image_size=self.input_shape[0],
            features_folder=features_folder,
            **options,
        )
