"""Plans of fine-tuning: what learns, and how, one stage after the other."""

from dataclasses import dataclass, replace

from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find


@dataclass(frozen=True)
class Stage:
    """A stage of fine-tuning: what learns, and how.

    Parameters
    ----------
    back_to : str
        The first layers that learn: "head", a stage of the model such as "conv5", "last" for its
        last stage, or "all".
    recipe : Recipe
        How to train.
    views : int, default 0
        For the head alone. Instead of running every image through the frozen layers in every epoch,
        run this many augmented views of it through them once, and train on the features.
    normalization : bool, default False
        As in `unfreeze`.
    """

    back_to: str
    recipe: Recipe
    views: int = 0
    normalization: bool = False


def stages(**changes) -> tuple[Stage, ...]:
    """The three stages of fine-tuning: the head, then the last stage too, then all layers.

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
    """
    recipe = find("finetune", **changes)
    of_all = recipe.epochs // 3
    slow, slower = (
        replace(recipe, learning_rate=factor * recipe.learning_rate) for factor in (0.3, 0.1)
    )
    found = [
        Stage("head", replace(recipe, epochs=20, patience=5), views=2),
        Stage("last", replace(slow, epochs=recipe.epochs - of_all)),
        Stage("all", replace(slower, epochs=max(of_all, 1), rates=DISCRIMINATIVE)),
    ]
    return tuple(found if of_all else found[:2])


# What early stages have learned is more general, so they learn more slowly.
DISCRIMINATIVE = {"conv1": 0.05, "conv2": 0.1, "conv3": 0.2, "conv4": 0.4, "conv5": 0.7}
