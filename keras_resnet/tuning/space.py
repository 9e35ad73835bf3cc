"""Search spaces: the choices that make a model of the family and its training, as data."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras_tuner

from keras_resnet import names
from keras_resnet.blocks import CARDINALITIES
from keras_resnet.checks import check_choice, check_range
from keras_resnet.data import AUGMENTATIONS
from keras_resnet.resnet import total_stride
from keras_resnet.training import Recipe
from keras_resnet.training.recipes import OPTIMIZERS

# "light" keeps the augmentation that suits the data.
AUGMENTATION_STRENGTHS = {
    "none": {"augmentation": "none"},
    "light": {},
    "medium": {"mixup": 0.2},
    "strong": {"augmentation": "strong"},
}
"""Strengths of augmentation, as fields of a recipe."""

# Side in pixels up to which images need no stem that reduces them, and from which they need one.
_SMALL, _LARGE = 48, 128
_MOST_BLOCKS = 8
CONDITIONS = {
    "cardinality": ("block", ["bottleneck"]),
    "stride_in": ("block", ["bottleneck"]),
}
"""Choices that exist only where another choice has one of some values."""

_NET = ("stem", "block", "cardinality", "width", "shortcut", "stride_in", "zero_init_residual")
_OF_SGD = ("learning_rate", "weight_decay")
_RECIPE = tuple(field.name for field in dataclasses.fields(Recipe) if field.name != "epochs")


def default_space(input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Choices that suit images of a size.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.

    Returns
    -------
    dict of str to list, dict or value
        What `ResNetHyperModel` takes as `space`. A list holds values to choose from;
        `{"min_value": ..., "max_value": ...}`, optionally with `"step"` or `"sampling"`, is a
        range, as `HyperParameters.Int` and `HyperParameters.Float` take it; a single value is
        fixed. The names are

        - "conv2_blocks", "conv3_blocks", ...: the depth of each stage. There are three stages for
          images of fewer than 128 pixels, and four for larger ones.
        - "block": "basic" or "bottleneck".
        - "cardinality", for bottleneck blocks only: a key of `CARDINALITIES`.
        - "width": multiplies the filters of the papers: 16 in the first of three stages, 64 in the
          first of four.
        - "shortcut": "A", "B", "C", or "none" for the plain model.
        - "stem": "cifar" for images of up to 48 pixels, "imagenet" from 128 pixels on, either in
          between.
        - "augmentation_strength": a key of `AUGMENTATION_STRENGTHS`.
        - "learning_rate", "weight_decay", "label_smoothing", and any other field of
          `keras_resnet.training.Recipe` except "epochs". Rates and decays are for "sgd"; of a
          model that is trained by another optimizer, they are those in proportion.

        "stride_in" and "zero_init_residual" of `keras_resnet.ResNet` may be added.

    Examples
    --------
    >>> from keras_resnet.tuning import default_space
    >>> default_space((32, 32, 3))["shortcut"]
    ['A', 'B', 'C']
    """
    size = min(input_shape[:2])
    stages = 4 if size >= _LARGE else 3
    stems = ["cifar", "imagenet"] if size < _LARGE else ["imagenet"]
    blocks = {"min_value": 1, "max_value": _MOST_BLOCKS}
    return {
        "stem": stems[:1] if size <= _SMALL else stems,
        "block": ["basic", "bottleneck"],
        **{f"conv{stage}_blocks": blocks for stage in range(2, 2 + stages)},
        "cardinality": list(CARDINALITIES),
        "width": [0.5, 0.75, 1.0, 1.5, 2.0],
        "shortcut": ["A", "B", "C"],
        "learning_rate": {"min_value": 0.02, "max_value": 1.0, "sampling": "log"},
        "weight_decay": {"min_value": 1e-5, "max_value": 1e-3, "sampling": "log"},
        "augmentation_strength": list(AUGMENTATION_STRENGTHS),
        "label_smoothing": [0.0, 0.05, 0.1],
    }


TRANSFER = {
    "backbone": ["ResNet18", "ResNet50"],
    "back_to": ["head", "last", "all"],
    "slower": {"min_value": 0.01, "max_value": 1.0, "sampling": "log"},
    "dropout": [0.0, 0.2, 0.5],
    "learning_rate": {"min_value": 0.02, "max_value": 0.5, "sampling": "log"},
    "weight_decay": {"min_value": 1e-6, "max_value": 1e-3, "sampling": "log"},
    "augmentation_strength": ["light", "medium"],
    "label_smoothing": [0.0, 0.1],
}
"""The choices of `TransferHyperModel`."""


def changed(
    space: Mapping[str, Any], changes: Mapping[str, Any] | None, optimizer: str = "sgd"
) -> dict[str, Any]:
    """Replace choices of a space, and check all of them.

    Parameters
    ----------
    space : mapping
        As `default_space` makes it.
    changes : mapping, optional
        New choices by name.
    optimizer : str, default "sgd"
        Where it is no choice: what the learning rates and weight decays of the space, which are for
        "sgd", have to suit. Where several are to choose from, each has its own.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For an unknown name, or a choice without a value or with one that is not allowed.
    """
    known = dict.fromkeys([*space, *_RECIPE, "augmentation_strength"])
    if "block" in space:
        known.update(dict.fromkeys(_NET))
    found = dict(space)
    given = {
        names.find("choice of a space", name, known): choice
        for name, choice in (changes or {}).items()
    }
    found.update(given)
    optimizers = options_of(found.get("optimizer", optimizer))
    for name in [each for each in _OF_SGD if each in found and each not in given]:
        if len(optimizers) > 1:
            del found[name]
        elif optimizers[0] in OPTIMIZERS:
            found[name] = _suited(found[name], name, optimizers[0])
    if "augmentation_strength" in found:
        asked = "augmentation_strength" in given
        found["augmentation_strength"] = _strengths(found, asked)
    for name, choice in found.items():
        _check(name, choice)
        if isinstance(choice, list | tuple) and {int, float} == set(map(type, choice)):
            found[name] = list(map(float, choice))  # keras-tuner takes one type only
    return found


def _suited(choice, name, optimizer):
    """A range for SGD, moved to one for another optimizer."""
    factor = getattr(OPTIMIZERS[optimizer], name) / getattr(OPTIMIZERS["sgd"], name)
    return {key: choice[key] * factor if key != "sampling" else choice[key] for key in choice}


def _strengths(space, asked):
    """The strengths of augmentation that set no field which the space sets as well."""
    choice = space["augmentation_strength"]
    clashes = {
        strength: [name for name in fields if name in space]
        for strength, fields in AUGMENTATION_STRENGTHS.items()
    }
    left = [each for each in options_of(choice) if not clashes.get(each)]
    if asked and len(left) < len(options_of(choice)):
        strength = next(each for each in options_of(choice) if clashes.get(each))
        name = clashes[strength][0]
        raise ValueError(
            f"space: augmentation_strength={strength!r} sets {name}, and {name}={space[name]!r} "
            "does so, too: leave one of them out."
        )
    return choice if asked else left


# What a value of a choice must pass, called with the choice's name as a keyword.
_CHECKS = {
    **dict.fromkeys(_RECIPE, Recipe().changed),
    **{
        name: functools.partial(check_choice, allowed)
        for name, allowed in {
            "cardinality": CARDINALITIES,
            "augmentation_strength": AUGMENTATION_STRENGTHS,
            "augmentation": AUGMENTATIONS,
            "block": ("basic", "bottleneck"),
            "shortcut": ("A", "B", "C", "none"),
            "stem": ("cifar", "imagenet"),
            "stride_in": ("3x3", "1x1"),
            "zero_init_residual": (True, False),
        }.items()
    },
    **{
        name: functools.partial(check_range, kind)
        for name, kind in {
            **{f"conv{stage}_blocks": "count" for stage in range(2, 6)},
            "dropout": "dropout",
            "width": "positive",
            "slower": "positive",
        }.items()
    },
}


def _check(name, choice):
    """Raise ValueError for a choice without values, or with one that is not allowed."""
    if isinstance(choice, Mapping):
        try:
            numeric(name, choice)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"space: {name}={choice!r} must have min_value and max_value, and may have step "
                f"and sampling: {error}"
            ) from error
    values = options_of(choice)
    if not values:
        raise ValueError(f"space: {name}={choice!r} is empty; leave at least one value.")
    if check := _CHECKS.get(name):
        for value in values:
            try:
                check(**{name: value})
            except ValueError as error:
                raise ValueError(f"space: {error}") from error


def numeric(
    name: str, choice: Mapping[str, Any]
) -> keras_tuner.engine.hyperparameters.HyperParameter:
    """Make keras-tuner's parameter for a range of numbers."""
    whole = isinstance(choice["min_value"], int) and isinstance(choice["max_value"], int)
    parameters = keras_tuner.HyperParameters()
    (parameters.Int if whole else parameters.Float)(name, **choice)
    return parameters.space[0]


def is_choice(choice: Any) -> bool:
    """Whether there is more than one value to choose from."""
    if isinstance(choice, Mapping):
        return choice["min_value"] != choice["max_value"]
    return isinstance(choice, list | tuple) and len(set(choice)) > 1


def declare(
    parameters: keras_tuner.HyperParameters,
    space: Mapping[str, Any],
    conditions: Mapping[str, tuple[str, list]],
) -> dict[str, Any]:
    """Declare a space's choices to keras-tuner, and look up what has been chosen.

    Parameters
    ----------
    parameters : keras_tuner.HyperParameters
        Where to declare them.
    space : mapping
        As `changed` returns it.
    conditions : mapping of str to (str, list)
        Choices that exist only where another one has one of some values, as in `CONDITIONS`.

    Returns
    -------
    dict of str to value
        The chosen and the fixed values, without those whose condition does not hold.
    """
    values = {}
    # A condition must be declared before what depends on it.
    for name in sorted(space, key=lambda name: name in conditions):
        choice = space[name]
        parent, needed = conditions.get(name, (None, None))
        if parent is not None and is_choice(space[parent]):
            with parameters.conditional_scope(parent, needed):
                value = _declare(parameters, name, choice)
        elif parent is None or values[parent] in needed:
            value = _declare(parameters, name, choice)
        if parent is None or values[parent] in needed:
            values[name] = value
    return values


def options_of(choice: Any) -> list:
    """The values of a choice; for a range, both ends."""
    if isinstance(choice, Mapping):
        return [choice["min_value"], choice["max_value"]]
    return list(choice) if isinstance(choice, list | tuple) else [choice]


def smallest(choice: Any) -> Any:
    """The smallest of the numbers to choose from, or the first of the names."""
    options = options_of(choice)
    return options[0] if isinstance(options[0], str) else min(options)


def _declare(parameters, name, choice):
    if not is_choice(choice):
        return options_of(choice)[0]
    if isinstance(choice, Mapping):
        kind = type(numeric(name, choice)).__name__
        return getattr(parameters, kind)(name, **choice)
    return parameters.Choice(name, list(choice), default=smallest(choice))


def net_of(values: Mapping[str, Any], input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Turn values into arguments of `keras_resnet.ResNet`.

    Parameters
    ----------
    values : mapping of str to value
        As `declare` returns them.
    input_shape : tuple of (height, width, channels)
        Shape of one image.

    Returns
    -------
    dict of str to value
        Keyword arguments.

    Raises
    ------
    ValueError
        If there is no such model: its groups would not have whole channels, or the images are too
        small for its stages.
    """
    stages = sorted(name for name in values if name.endswith("_blocks"))
    first = 64 if len(stages) > 3 else 16
    options = {
        "block_counts": tuple(values[name] for name in stages),
        "filters": tuple(round(first * values["width"] * 2**i) for i in range(len(stages))),
        **{name: values[name] for name in _NET if name in values},
    }
    del options["width"]
    options["shortcut"] = None if options["shortcut"] == "none" else options["shortcut"]
    if "cardinality" in options:
        options["cardinality"], options["base_width"] = CARDINALITIES[options["cardinality"]]
        if options["filters"][0] * options["base_width"] % 64:
            raise ValueError(
                f"cardinality={values['cardinality']!r} does not divide the channels of a stage of "
                f"{options['filters'][0]} filters into whole groups."
            )
    smallest = total_stride(len(stages), options["stem"])
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"stem={options['stem']!r} needs images of at least {smallest}x{smallest} pixels."
        )
    return options


def recipe_of(values: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """Change the fields of a recipe that have been chosen.

    Parameters
    ----------
    values : mapping of str to value
        As `declare` returns them.
    recipe : Recipe
        The recipe that gives the other fields.

    Returns
    -------
    Recipe
    """
    strength = AUGMENTATION_STRENGTHS.get(values.get("augmentation_strength", ""), {})
    return recipe.changed(**strength, **{name: values[name] for name in _RECIPE if name in values})
