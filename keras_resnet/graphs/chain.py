"""A model as a chain of functions, cut at the points that every way through it passes."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from keras_resnet.graphs.structure import check_functional, is_functional, plain


class Step(NamedTuple):
    """One call of a layer, or of a function of `keras.ops`, in a model or in one nested in it.

    Parameters
    ----------
    operation : keras.Operation
        What is called.
    node : keras.src.ops.node.Node
        With which arguments.
    entering, leaving : tuple of int
        Numbers of the tensors that go in and come out.
    """

    operation: Any
    node: Any
    entering: tuple[int, ...]
    leaving: tuple[int, ...]

    @property
    def has_kernel(self) -> bool:
        """Whether the operation has more than scales and shifts."""
        return any(len(weight.shape) > 1 for weight in getattr(self.operation, "weights", ()))


@dataclass(frozen=True)
class Link:
    """A piece of a model, between two points where a single tensor is left of all before.

    Parameters
    ----------
    steps : tuple of Step
        What it does, in order.
    entering, leaving : int
        Numbers of the tensors at its two ends.
    tensors : tuple of (keras.KerasTensor, keras.KerasTensor)
        These tensors, in the model or in one nested in it.
    """

    steps: tuple[Step, ...]
    entering: int
    leaving: int
    tensors: tuple[keras.KerasTensor, keras.KerasTensor]

    @property
    def shapes(self) -> tuple[tuple, tuple]:
        """Shapes of the tensors at its two ends, without the batch."""
        before, after = self.tensors
        return tuple(before.shape[1:]), tuple(after.shape[1:])

    def __call__(self, x: Any) -> Any:
        """Compute what the model makes of a tensor, in inference."""
        return follow(self.steps, {self.entering: x})[self.leaving]

    def behind(self, number: int) -> tuple[Step, ...]:
        """The steps that a tensor of this link is made by, in order."""
        needed, found = {number}, []
        for step in reversed(self.steps):
            if needed & {*step.leaving}:
                needed |= {*step.entering}
                found.insert(0, step)
        return tuple(found)


def follow(steps: Iterable[Step], known: Mapping[int, Any]) -> dict[int, Any]:
    """Compute some steps in inference, without a trace in the layers that they belong to.

    Parameters
    ----------
    steps : iterable of Step
        What to compute, in order.
    known : mapping of int to tensor
        Tensors that the first ones need, by their numbers.

    Returns
    -------
    dict of int to tensor
        These, and all that came out.
    """
    known = dict(known)
    for step in steps:
        tensors = zip(step.node.input_tensors, step.entering, strict=True)
        args, kwargs = step.node.arguments.fill_in({id(each): known[at] for each, at in tensors})
        if getattr(step.operation, "_call_has_training_arg", False):
            kwargs["training"] = False
        found = keras.tree.flatten(step.operation(*args, **kwargs))
        known.update(zip(step.leaving, found, strict=True))
    return known


def chain_of(model: keras.Model) -> tuple[Link, ...]:
    """Cut a model into functions that follow each other, each from one tensor to one tensor.

    Models nested in it are looked into, at any depth.

    Parameters
    ----------
    model : keras.Model
        A functional or built sequential model of one input and one output.

    Returns
    -------
    tuple of Link
        Called one after the other, they compute what the model does in inference. A layer without
        branches around it is a link of its own; a residual block is one up to its sum.

    Raises
    ------
    ValueError
        If the model is not functional, or has several inputs or outputs.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import graphs
    >>> chain = graphs.chain_of(keras_resnet.CIFARResNet(8))
    >>> [len(link.steps) for link in chain]  # the blocks and, between them, single layers
    [1, 1, 1, 6, 1, 8, 1, 8, 1, 1, 1]
    """
    check_functional(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; it "
            "must have one of each."
        )
    numbers = itertools.count(1)
    tensors, steps = {0: model.inputs[0]}, []
    (last,) = _flattened(model, (0,), numbers, steps, tensors)
    return tuple(_links(steps, last, tensors))


def _flattened(model, entering, numbers, steps, tensors):
    """Append the steps of a model, and of those nested in it; return the numbers of its outputs."""
    model = plain(model) if isinstance(model, keras.Sequential) else model
    known = dict(zip(map(id, model.inputs), entering, strict=True))
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            inside = tuple(known[id(each)] for each in node.input_tensors)
            if is_functional(node.operation):
                leaving = _flattened(node.operation, inside, numbers, steps, tensors)
            else:
                leaving = tuple(itertools.islice(numbers, len(node.outputs)))
                steps.append(Step(node.operation, node, inside, leaving))
                tensors.update(zip(leaving, node.outputs, strict=True))
            known.update(zip(map(id, node.outputs), leaving, strict=True))
    return tuple(known[id(each)] for each in model.outputs)


def _links(steps, last, tensors) -> Iterator[Link]:
    """Divide steps where a single tensor is left that later ones need."""
    uses = Counter(number for step in steps for number in step.entering)
    uses[last] += 1
    left, before, begun = {0}, 0, []
    for step in steps:
        uses.subtract(step.entering)
        begun.append(step)
        left = {number for number in (*left, *step.leaving) if uses[number] > 0}
        if len(left) == 1:
            (after,) = left
            yield Link(tuple(begun), before, after, (tensors[before], tensors[after]))
            before, begun = after, []
