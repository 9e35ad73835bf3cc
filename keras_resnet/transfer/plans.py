"""Plans of fine-tuning: what learns, and how, one stage after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras

from keras_resnet import graphs
from keras_resnet.checks import check_choice, check_range
from keras_resnet.optimizers import check_rates, name_of_rate
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find


@dataclass(frozen=True)
class Stage:
    """A stage of fine-tuning: what learns, and how.

    Parameters
    ----------
    back_to : str
        The first layers that learn: "head", a stage of the model such as "conv5", "last" for its
        last stage (of any model, what is behind the last stride), or "all".
    recipe : Recipe
        How to train. Its `rates` name layers or stages of the model; `DISCRIMINATIVE`, which names
        those of this package's models, gives the stages of others the same rates, the last one
        first.
    views : int, default 0
        For the head alone. Instead of running every image through the frozen layers in every epoch,
        run this many augmented views of it through them once, and train on the features.
    normalization : bool, default False
        As in `unfreeze`.
    patience : int, optional
        End the stage after this many epochs in a row in which the validation loss has not fallen
        by the fraction `min_gain` below the lowest so far, including earlier stages. The recipe's
        own patience looks at one stage only. Default: train all epochs.
    min_gain : float, default 0.01
        See `patience`. Whatever the gain, the best weights are kept.
    optional : bool, default False
        Whether to skip the stage when it cannot gain anything: if fewer than five of at least 200
        validation images are still misclassified, or if the stage before it, unless that is the
        first, gained nothing. Without validation images, no stage is skipped.
    keep : {"best", "last"}, default "best"
        Which weights of the stage are kept: those of the epoch with the lowest validation loss, or
        those of the last epoch, at the end of the learning rate's decay. For "last", all epochs are
        trained, whatever the recipe's patience.

    Raises
    ------
    ValueError
        For an option out of its range.

    Notes
    -----
    Stages are compared on the validation images. If only four of them are wrong, no further
    training can be shown to help: even getting them all right and nothing else wrong happens by
    chance with a probability of 1 / 2**4, more than 5 % (sign test).
    """

    back_to: str
    recipe: Recipe
    views: int = 0
    normalization: bool = False
    patience: int | None = None
    min_gain: float = 0.01
    optional: bool = False
    keep: Literal["best", "last"] = "best"

    def __post_init__(self):
        check_choice(("best", "last"), keep=self.keep)
        check_range("count", optional=True, patience=self.patience)
        check_range("decay", min_gain=self.min_gain)


def stages(**changes) -> tuple[Stage, ...]:
    """The three stages of fine-tuning: the head, then the last stage too, then all layers.

    Unless `epochs` is given, the second and third stages are optional and end after two epochs
    without a gain, as described in `Stage`, and the head keeps its last weights, not the best ones:
    which of 20 quick epochs has the lowest loss on a few hundred validation images is a matter of
    chance, and it comes before the learning rate has decayed. With `epochs`, all are trained.

    Parameters
    ----------
    **changes
        Fields of `Recipe` to change in the recipe "finetune". The learning rate is the head's; the
        other stages learn more slowly. `epochs` is for the second and the third stage together; a
        third of them is the third stage's.

    Returns
    -------
    tuple of Stage

    Examples
    --------
    >>> from keras_resnet import transfer
    >>> [(stage.back_to, stage.recipe.epochs) for stage in transfer.stages(epochs=3)]
    [('head', 20), ('last', 2), ('all', 1)]
    >>> [stage.optional for stage in transfer.stages()]
    [False, True, True]
    """
    recipe = find("finetune", **changes)
    thrift: dict[str, Any] = {} if "epochs" in changes else {"patience": 2, "optional": True}
    of_all = recipe.epochs // 3
    slow, slower = (
        replace(recipe, learning_rate=factor * recipe.learning_rate) for factor in (0.3, 0.1)
    )
    # Either of them says that early layers learn more slowly.
    rates = DISCRIMINATIVE if recipe.layer_decay == 1.0 else {}
    found = [
        Stage(
            "head",
            replace(recipe, epochs=20, patience=5),
            views=2,
            keep="last" if thrift else "best",
        ),
        Stage("last", replace(slow, epochs=recipe.epochs - of_all), **thrift),
        Stage("all", replace(slower, epochs=max(of_all, 1), rates=rates), **thrift),
    ]
    return tuple(found if of_all else found[:2])


# What early stages have learned is more general, so they learn more slowly.
DISCRIMINATIVE = {"conv1": 0.05, "conv2": 0.1, "conv3": 0.2, "conv4": 0.4, "conv5": 0.7}


def plan_for(model: keras.Model, plan: Sequence[Stage]) -> list[Stage]:
    """Find what the stages of a plan are in a model.

    Parameters
    ----------
    model : keras.Model
        The model.
    plan : sequence of Stage
        The plan.

    Returns
    -------
    list of Stage
        "last" becomes the name of that stage, if it has one, and `DISCRIMINATIVE` rates name
        layers, if the model's stages are not named as in this package.

    Raises
    ------
    ValueError
        For a stage or a learning rate for layers that the model does not have.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet.transfer.plans import Stage, plan_for
    >>> from keras_resnet.training import Recipe
    >>> (stage,) = plan_for(keras_resnet.CIFARResNet(8), [Stage("last", Recipe())])
    >>> stage.back_to
    'conv4'
    """
    found = []
    for stage in plan:
        if stage.back_to == "last":
            stage = replace(stage, back_to=_name_of_last(model))
        elif stage.back_to not in ("head", "all"):
            graphs.named_layers(model, stage.back_to, "back_to")
        if stage.recipe.rates:
            rates = _rates_for(model, stage.recipe.rates)
            stage = replace(stage, recipe=replace(stage.recipe, rates=rates))
        found.append(stage)
    return found


def _name_of_last(model):
    """The beginning of the names of the last stage's layers, if it is theirs alone; else "last"."""
    last = [layer for layer in graphs.last_stage(model) if layer.weights]
    name = graphs.stage_name(last[0])
    named = [each for each in graphs.flat_layers(model) if each.name.startswith(f"{name}_")]
    return name if named and {each for each in named if each.weights} <= {*last} else "last"


def _rates_for(model, rates):
    """Learning rates for a model whose stages may have other names than this package's."""
    if rates != DISCRIMINATIVE:
        check_rates(rates, model)
        return rates
    last = graphs.last_stage(model)
    if any(name_of_rate(rates, each.path) for layer in last for each in layer.weights):
        return rates | _rates_beside(model, rates)
    of_stages = [*rates.values()][::-1]
    stages = graphs.stages_of(model)[::-1]
    of_stages += of_stages[-1:] * len(stages)
    return {
        layer.name: rate
        for stage, rate in zip(stages, of_stages, strict=False)
        for layer in stage
        if layer.weights
    }


# Layers of stages whose names do not say so: a convolution that ends the stem, and what closes the
# last stage of pre-activation blocks.
_BESIDE = ("pool1_", "post_")


def _rates_beside(model, rates):
    """The rates of such layers: those of the layers that they follow."""
    found, before = {}, 1.0
    for layer in graphs.flat_layers(model):
        if not layer.weights:
            continue
        name = name_of_rate(rates, layer.weights[0].path)
        before = before if name is None else rates[name]
        if layer.name.startswith(_BESIDE):
            found[layer.name] = before
    return found
