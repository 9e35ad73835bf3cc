"""Finds the model in a checkpoint: the tensors of one ResNet among all that a training left.

A checkpoint of a larger model, or of several, has the tensors of a ResNet under a prefix, such as
"state_dict.module.encoder_q." in MoCo's. The prefix is found by the names of some tensors that
every ResNet has, in each of the layouts in `_LAYOUTS`. What else there is, is set aside; where two
models fit, the caller has to choose.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_resnet.names import some
from keras_resnet.pretrained import first_names

logger = logging.getLogger("keras_resnet")

# Prefixes that module wrappers add to every name: DataParallel, torch.compile, trainers.
_WRAPPERS = ("module.", "_orig_mod.", "model.")

COUNTER = "num_batches_tracked"
"""PyTorch counts the batches that each batch normalization has seen; Keras does not use this."""

# By the first part of their names: heads that stand on features in self-supervised training, and
# are of no use after it.
_PROJECTIONS = ("projection", "projector", "projetion", "proj", "prototypes", "predictor", "mlp")

# Modules whose last layer is such a head, even if it is a single one.
_SELF_SUPERVISED = {"encoder_q", "encoder_k", "base_encoder", "momentum_encoder"}

# The modules of `torchvision.models.ResNet` by their place among its children, of which users make
# a `torch.nn.Sequential`.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _as_it_is(name: str) -> str:
    """Keep a name."""
    return name


def _of_children(name: str) -> str:
    """Give the first module of a name the name that torchvision gives it."""
    first, dot, rest = name.partition(".")
    return _CHILDREN.get(first, first) + dot + rest


# By names of the first block's tensors, which every model has: what torchvision, timm or Keras call
# the others.
_LAYOUTS: dict[tuple[str, ...], Callable[[str], str]] = {
    tuple(f"{block}{each}.weight" for each in ("conv1", "conv2", norm)): rename
    for block, norm, rename in (
        ("layer1.0.", "bn1", _as_it_is),
        ("stages.0.blocks.0.", "norm1", _as_it_is),
        ("4.0.", "bn1", _of_children),
    )
}


@dataclasses.dataclass(frozen=True)
class Found:
    """A model in a checkpoint.

    Parameters
    ----------
    prefix : str
        What the names of its tensors begin with: "" or something that ends in ".".
    tensors : mapping of str to array
        Its tensors, by the names that its library gives them.
    aside : tuple of str
        Names of the other tensors in the file.
    projection : tuple of str
        Those of them that are of a projection head.
    """

    prefix: str
    tensors: Mapping[str, Any]
    aside: tuple[str, ...] = ()
    projection: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The prefix as people write it: "." is the top of the file."""
        return self.prefix.rstrip(".") or "."


def models_in(tensors: Mapping[str, Any], choice: str | None = None) -> list[Found]:
    """Find the models in a checkpoint.

    Parameters
    ----------
    tensors : mapping of str to array
        All tensors in the checkpoint, by their names in it.
    choice : str, optional
        Part of the prefix of those that are wanted, such as "teacher"; "." for the top of the file.

    Returns
    -------
    list of Found
        At least one: if no tensors look like a ResNet's, all of them, without what wrappers add to
        their names.

    Raises
    ------
    ValueError
        If no prefix has the part that is wanted.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.pretrained import finding
    >>> block = [f"layer1.0.{each}.weight" for each in ("conv1", "bn1", "conv2", "bn2")]
    >>> names = [f"{model}.{name}" for model in ("student", "teacher") for name in block]
    >>> tensors = {name: np.zeros(1) for name in names}
    >>> [each.place for each in finding.models_in(tensors)]
    ['student', 'teacher']
    >>> finding.models_in(tensors, "teacher")[0].aside == tuple(names[:4])
    True
    """
    tensors = _without_counters(tensors)
    if first_names.are_in(tensors) and choice is None:
        return [Found("", *first_names.translated(tensors))]
    places = {}
    for signs, rename in _LAYOUTS.items():
        for name in tensors:
            prefix = name.removesuffix(signs[0])
            if f".{name}".endswith(f".{signs[0]}") and all(prefix + n in tensors for n in signs):
                places[prefix] = rename
    wanted = [prefix for prefix in places if choice is None or _has(prefix, choice)]
    if choice is not None and not wanted:
        there = " and ".join(repr(_place(each)) for each in places) or "none that is of a ResNet"
        raise ValueError(f"there is no model under {choice!r} in the file; there is {there}.")
    if not wanted:
        return [Found("", plain_names(tensors))]
    return [_model(tensors, prefix, places[prefix], [*places]) for prefix in wanted]


def the_model(
    tensors: Mapping[str, Any],
    choice: str | None = None,
    fits: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Found:
    """Find the one model in a checkpoint that is meant.

    Parameters
    ----------
    tensors, choice
        As in `models_in`.
    fits : callable, optional
        Takes the tensors of a model, and returns whether they are those that are needed. It is
        asked where there are several.

    Returns
    -------
    Found
        What it sets aside is logged.

    Raises
    ------
    ValueError
        As `models_in`, and if there are several models, unless one of them fits, or all that fit
        are one and the same.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.pretrained import finding
    >>> block = [f"layer1.0.{each}.weight" for each in ("conv1", "bn1", "conv2", "bn2")]
    >>> names = [f"{model}.{name}" for model in ("encoder_q", "encoder_k") for name in block]
    >>> tensors = {name: np.zeros(1) for name in names}
    >>> finding.the_model(tensors, "encoder_q").prefix
    'encoder_q.'
    >>> finding.the_model(tensors)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: 2 models in the file fit: 'encoder_q' and 'encoder_k'. Choose one: weights=...
    """
    models = models_in(tensors, choice)
    right = [each for each in models if fits is None or len(models) == 1 or fits(each.tensors)]
    places = " and ".join(repr(each.place) for each in right or models)
    if not right:
        raise ValueError(f"{len(models)} models are in the file, {places}, and none of them fits.")
    if any(not _is_same(right[0], each) for each in right[1:]):
        last = right[0].place
        raise ValueError(
            f"{len(right)} models in the file fit: {places}. Choose one: weights='FILE#{last}', or "
            f"prefix={last!r} of load_state_dict."
        )
    return right[0]


def tell(found: Found, argument: str) -> None:
    """Log what was set aside.

    Parameters
    ----------
    found : Found
        The result of `the_model`.
    argument : str
        The source of the tensors.
    """
    if not found.aside:
        return
    heads = f" {some(found.projection)} are of a projection head." if found.projection else ""
    modules = dict.fromkeys(_module(name, found.prefix) for name in found.aside)
    under = f"took the model under {found.place!r}, and " if found.prefix else ""
    logger.info(
        "%s: %sset aside %d other tensors, of %s.%s",
        *(argument, under, len(found.aside), some([*modules], 5), heads),
    )


def plain_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Remove prefixes that wrappers have added to all names, and batch counters.

    Parameters
    ----------
    tensors : mapping of str to array
        Tensors of one model.

    Returns
    -------
    dict of str to array
        The same tensors.

    Examples
    --------
    >>> from keras_resnet.pretrained import finding
    >>> finding.plain_names({"module.fc.weight": 1, "module.fc.bias": 2})
    {'fc.weight': 1, 'fc.bias': 2}
    """
    tensors = _without_counters(tensors)
    while prefix := next(
        (each for each in _WRAPPERS if tensors and all(n.startswith(each) for n in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _model(tensors, prefix, rename, prefixes):
    """Make the model under a prefix, without models in it."""
    others = tuple(each for each in prefixes if each.startswith(prefix) and each != prefix)
    inside, aside, projection = {}, [], []
    for name, tensor in tensors.items():
        if not name.startswith(prefix) or name.startswith(others):
            if len(tensor.shape):  # scalars count steps
                aside.append(name)
        elif _is_projection(name.removeprefix(prefix)):
            aside.append(name)
            projection.append(name)
        else:
            inside[rename(name.removeprefix(prefix))] = tensor
    head = {name for name in inside if re.match(r"fc\.", name)}
    layers = {name for name in head if name.endswith(".weight")}
    if _SELF_SUPERVISED & {*prefix.split(".")} or len(layers) > 1:
        for name in head:
            del inside[name]
        aside += (of_head := [name for name in tensors if name.removeprefix(prefix) in head])
        projection += of_head
    elif head:  # behind dropout, the only layer has a number
        inside = {re.sub(r"^fc\.\d+\.", "fc.", name): each for name, each in inside.items()}
    projection += [name for name in aside if name not in projection and _is_projection(name)]
    return Found(prefix, inside, tuple(aside), tuple(projection))


def _is_projection(name):
    """Whether a tensor's name is of a projection head."""
    return any(part.startswith(_PROJECTIONS) for part in name.split("."))


def _has(prefix, choice):
    """Whether the parts of a prefix include these, in a row."""
    return f".{choice.strip('.')}." in f".{prefix}" if choice.strip(".") else not prefix


def _place(prefix):
    """A prefix as people write it."""
    return prefix.rstrip(".") or "."


def _module(name, prefix):
    """The module that a tensor outside a model is of, in as many parts as tell them apart."""
    parts, common = name.split("."), 0
    for ours, theirs in zip(prefix.split("."), parts, strict=False):
        if ours != theirs:
            break
        common += 1
    return ".".join(parts[: common + 1]).partition("/")[0]


def _without_counters(tensors):
    """Remove batch counters."""
    return {name: each for name, each in tensors.items() if not name.endswith(COUNTER)}


def _is_same(one, other):
    """Whether the tensors of two models are the same memory, as those of one module twice are."""
    for name in one.tensors.keys() | other.tensors.keys():
        if name not in one.tensors or name not in other.tensors:
            return False
        both = [np.asarray(each.tensors[name]) for each in (one, other)]
        first, second = ((a.__array_interface__["data"], a.shape, a.strides) for a in both)
        if first != second:
            return False
    return True
