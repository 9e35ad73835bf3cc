"""What is searched: the choices that make a net of the family and its training, as data."""

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

import keras_tuner

from keras_resnet import names
from keras_resnet.data import AUGMENTATIONS
from keras_resnet.resnet import total_stride
from keras_resnet.training import Recipe

# Table 2 of Xie et al. (2017): cardinality and channels a group, all of about the same complexity.
CARDINALITIES = {
    "1x64d": (1, 64),
    "2x40d": (2, 40),
    "4x24d": (4, 24),
    "8x14d": (8, 14),
    "32x4d": (32, 4),
}
"""Pairs of cardinality and base width, by name."""

# None is the augmentation that suits the data.
AUGMENTATION_STRENGTHS = {
    "none": {"augmentation": "none"},
    "light": {},
    "medium": {"mixup": 0.2},
    "strong": {"augmentation": "strong"},
}
"""What the strengths of augmentation are as fields of a recipe."""

_SMALL, _LARGE = 48, 128  # pixels a side: from which on images need a stem that makes them smaller
_MOST_BLOCKS = 8
# What is searched for only where something else is chosen.
CONDITIONS = {
    "cardinality": ("block", ["bottleneck"]),
    "stride_in": ("block", ["bottleneck"]),
}
_NET = ("stem", "block", "cardinality", "width", "shortcut", "stride_in", "zero_init_residual")
_RECIPE = tuple(field.name for field in dataclasses.fields(Recipe) if field.name != "epochs")


def default_space(input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The choices for images of a size.

    Parameters
    ----------
    input_shape : tuple of (height, width, channels)
        Shape of one image.

    Returns
    -------
    dict of str to list, dict or value
        What `ResNetHyperModel` takes as `space`: a list of values to choose from; or
        `{"min_value": ..., "max_value": ...}`, with `"step"` or `"sampling"` if need be, as
        `HyperParameters.Int` and `HyperParameters.Float` take them; or one value, which is no
        choice. The names are

        - "conv2_blocks", "conv3_blocks", ...: the depth of each stage. There are three stages for
          images of less than 128 pixels, and four for larger ones.
        - "block": "basic" or "bottleneck".
        - "cardinality", of bottleneck blocks alone: a key of `CARDINALITIES`.
        - "width": times the filters of the papers, 16 in the first stage of three, 64 of four.
        - "shortcut": "A", "B", "C", or "none" for the plain net.
        - "stem": "cifar" for images of up to 48 pixels, both to 128, "imagenet" for larger ones.
        - "augmentation_strength": a key of `AUGMENTATION_STRENGTHS`.
        - "learning_rate", "weight_decay", "label_smoothing", and any other field of
          `keras_resnet.training.Recipe` but "epochs".

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


def changed(space: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """A space with other choices, checked.

    Parameters
    ----------
    space : mapping
        As `default_space` makes it.
    changes : mapping, optional
        Choices in place of those there are.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        For an unknown name, or a choice with no value or with one that is not allowed.
    """
    known = dict.fromkeys([*space, *_RECIPE, "augmentation_strength"])
    if "block" in space:
        known.update(dict.fromkeys(_NET))
    found = dict(space)
    for name, choice in (changes or {}).items():
        found[names.find("choice of a space", name, known)] = choice
    for name, choice in found.items():
        _check(name, choice)
        if isinstance(choice, list | tuple) and {int, float} == set(map(type, choice)):
            found[name] = list(map(float, choice))  # keras-tuner wants them of one kind
    return found


_ALLOWED = {
    "cardinality": CARDINALITIES,
    "augmentation_strength": AUGMENTATION_STRENGTHS,
    "augmentation": AUGMENTATIONS,
    "block": ("basic", "bottleneck"),
    "shortcut": ("A", "B", "C", "none"),
    "stem": ("cifar", "imagenet"),
    "stride_in": ("3x3", "1x1"),
    "zero_init_residual": (True, False),
}


def _check(name, choice):
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
    for value in values:
        if name in _ALLOWED:
            if value not in _ALLOWED[name]:
                allowed = ", ".join(map(repr, _ALLOWED[name]))
                raise ValueError(f"space: {name} has {value!r}, which must be one of {allowed}.")
        elif name.endswith("_blocks"):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"space: {name} has {value!r}, which must be a number from 1 on.")
        elif name == "dropout":
            if not isinstance(value, Real) or not 0 <= value < 1:
                raise ValueError(f"space: dropout has {value!r}, which must be from 0 to below 1.")
        elif name in ("width", "slower"):
            if not isinstance(value, Real) or not value > 0:
                raise ValueError(f"space: {name} has {value!r}, which must be a number above 0.")
        elif name in _RECIPE:
            Recipe().changed(**{name: value})


def numeric(
    name: str, choice: Mapping[str, Any]
) -> keras_tuner.engine.hyperparameters.HyperParameter:
    """A range of numbers as keras-tuner knows it."""
    whole = isinstance(choice["min_value"], int) and isinstance(choice["max_value"], int)
    parameters = keras_tuner.HyperParameters()
    (parameters.Int if whole else parameters.Float)(name, **choice)
    return parameters.space[0]


def is_choice(choice: Any) -> bool:
    """Whether there is anything to choose."""
    if isinstance(choice, Mapping):
        return choice["min_value"] != choice["max_value"]
    return isinstance(choice, list | tuple) and len(set(choice)) > 1


def declare(
    parameters: keras_tuner.HyperParameters,
    space: Mapping[str, Any],
    conditions: Mapping[str, tuple[str, list]],
) -> dict[str, Any]:
    """Declare a space's choices, and see what has been chosen.

    Parameters
    ----------
    parameters : keras_tuner.HyperParameters
        Where to declare them.
    space : mapping
        As `changed` returns it.
    conditions : mapping of str to (str, list)
        The choices that are there only where another one has one of those values.

    Returns
    -------
    dict of str to value
        Of every choice that is not left out by its condition, and of what is no choice.
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
    """The values of a choice; of a range, both ends."""
    if isinstance(choice, Mapping):
        return [choice["min_value"], choice["max_value"]]
    return list(choice) if isinstance(choice, list | tuple) else [choice]


def smallest(choice: Any) -> Any:
    """The least of the numbers to choose from, or the first of the names."""
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
    """What `keras_resnet.resnet.resnet` has to be given.

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
        For values that no net has: groups that would not be of whole channels, or more stages than
        the images have room for.
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
                f"cardinality={values['cardinality']!r} has no whole channels a group in a stage "
                f"of {options['filters'][0]} filters."
            )
    smallest = total_stride(len(stages), options["stem"])
    if min(input_shape[:2]) < smallest:
        raise ValueError(f"stem={options['stem']!r} needs images of {smallest} pixels a side.")
    return options


def recipe_of(values: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """A recipe with what has been chosen of it.

    Parameters
    ----------
    values : mapping of str to value
        As `declare` returns them.
    recipe : Recipe
        What else there is to it.

    Returns
    -------
    Recipe
    """
    strength = AUGMENTATION_STRENGTHS.get(values.get("augmentation_strength"), {})
    return recipe.changed(**strength, **{name: values[name] for name in _RECIPE if name in values})
