"""The paths through a model: what is left of it when blocks are left out or swapped."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import graphs
from keras_resnet.analysis.evaluation import check_finite
from keras_resnet.checks import check_range, is_count
from keras_resnet.graphs.chain import follow
from keras_resnet.training.tasks import TASKS

_LEFT_OUT = -1


class BlockLeftOut(NamedTuple):
    """A block of a model, and what the model does without it.

    Parameters
    ----------
    name : str
        What the names of its layers begin with; of a plain model, the layer with the kernel.
    shapes : tuple of (tuple, tuple)
        Shapes of what enters and of what leaves it, without the batch.
    accuracy : float or None
        Fraction of the images that are right without it; None for a layer of a plain model that
        cannot be left out, since it changes the shape.
    """

    name: str
    shapes: tuple[tuple, tuple]
    accuracy: float | None

    @property
    def changes_shape(self) -> bool:
        """Whether its shortcut, if it has one, cannot be the identity."""
        return self.shapes[0] != self.shapes[1]


class Swap(NamedTuple):
    """Two blocks that took each other's place.

    Parameters
    ----------
    first, second : int
        Indices of the blocks.
    accuracy : float
        Fraction of the images that are right.
    """

    first: int
    second: int
    accuracy: float


class Order(NamedTuple):
    """All blocks, after some random pairs have been swapped one after the other.

    Parameters
    ----------
    swaps : int
        How many.
    correlation : float
        Kendall's rank correlation of the order with the model's own: 1 for the same order.
    accuracy : float
        Fraction of the images that are right.
    """

    swaps: int
    correlation: float
    accuracy: float


@dataclass(frozen=True)
class EffectivePaths:
    """What `effective_paths` finds.

    Parameters
    ----------
    accuracy : float
        Fraction of the images that are right with the whole model.
    chance : float
        Fraction of the images that are of the most frequent class: what a model gets right that
        always gives the same answer.
    images : int
        Images that this was measured on.
    residual : bool
        Whether the blocks are residual ones; otherwise, they are layers of a plain model.
    blocks : tuple of BlockLeftOut
        All blocks, in order.
    several : dict of int to tuple of float
        Accuracies without several random blocks, by their number: one for each draw.
    swaps : tuple of Swap
        Accuracies with two blocks of equal shapes swapped.
    orders : tuple of Order
        Accuracies with several random pairs swapped.
    """

    accuracy: float
    chance: float
    images: int
    residual: bool
    blocks: tuple[BlockLeftOut, ...]
    several: dict[int, tuple[float, ...]]
    swaps: tuple[Swap, ...]
    orders: tuple[Order, ...]

    @property
    def path_lengths(self) -> np.ndarray:
        """The fraction of all paths that go through 0, 1, 2, ... residual branches."""
        return path_lengths(len(self.blocks) if self.residual else 0)


def path_lengths(blocks: int) -> np.ndarray:
    """The lengths of the paths through residual blocks.

    Every block offers two ways, through its residual branch and around it: of n blocks, there are
    2^n paths, whose lengths follow a binomial distribution.

    Parameters
    ----------
    blocks : int
        Residual blocks of a model.

    Returns
    -------
    float array of shape (blocks + 1,)
        The fraction of the paths that go through 0, 1, 2, ... residual branches.

    References
    ----------
    Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow
    Networks, NIPS 2016, section 5.

    Examples
    --------
    >>> from keras_resnet.analysis import path_lengths
    >>> path_lengths(3).tolist()
    [0.125, 0.375, 0.375, 0.125]
    """
    check_range("index", blocks=blocks)
    return np.array([math.comb(blocks, length) / 2**blocks for length in range(blocks + 1)])


def effective_paths(
    model: keras.Model,
    dataset: Iterable,
    *,
    counts: Sequence[int] | None = None,
    draws: int = 3,
    swaps: int | None = None,
    seed: int = 0,
) -> EffectivePaths:
    """Measure a classifier with blocks left out or swapped, one, two or many at a time.

    A residual block that is left out is its shortcut alone: the identity or, where shapes change,
    the projection or the zero-padded identity. In a model without residual blocks, the same is done
    to its layers: a convolution with what follows it is replaced by the identity, if what comes out
    has the shape of what goes in. Nothing is trained again, and the model is not changed.

    Blocks are found by the model's graph: a residual block is what lies between two points that
    every way through the model passes, and ends in the sum of two branches of which one, the
    shortcut, has at most one convolution and fewer than the other.

    Parameters
    ----------
    model : keras.Model
        A functional classifier of this package or any other; it may contain other models.
    dataset : iterable of (images, labels)
        Batches, as `data.batches` makes them; labels are whole numbers.
    counts : sequence of int, optional
        How many random blocks are left out together, and how many random pairs are swapped.
        Default: up to ten numbers from 1 to all that can be left out.
    draws : int, default 3
        Random choices for each of `counts`.
    swaps : int, optional
        At most so many pairs of blocks of equal shapes are swapped, chosen at random. Default: all
        pairs there are.
    seed : int, default 0
        Seed of the random choices.

    Returns
    -------
    EffectivePaths

    Raises
    ------
    ValueError
        For a model that is not a functional classifier, or of which no block can be left out; for
        no images, images of one class, labels that do not fit, or outputs that are NaN or infinite;
        for an option out of its range.

    Notes
    -----
    What the variants of a model share at their beginning is computed once for all: without one
    block at a time, a model takes half as long as whole. Of a ResNet-56, 200 variants on 1,000
    images of CIFAR-10 take a few minutes on two cores.

    References
    ----------
    Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow
    Networks, NIPS 2016, sections 4.1 to 4.3.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import analysis, data
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> digits = data.load("digits")
    >>> found = analysis.effective_paths(
    ...     model, data.batches(digits.test, image_size=8, channels=1), counts=[2], draws=1
    ... )
    >>> [block.name for block in found.blocks], len(found.several[2])
    (['conv2_block1', 'conv3_block1', 'conv4_block1'], 1)
    """
    check_range("count", draws=draws)
    check_range("count", optional=True, swaps=swaps)
    check_range("index", seed=seed)
    graphs.check_weights(model)
    chain, random = _divided(model), np.random.default_rng(seed)
    own = tuple(range(len(chain.blocks)))
    removable = [index for index in own if chain.blocks[index].without]
    counts = _checked(counts, len(removable))
    pairs = _pairs(chain.blocks)
    chosen = pairs if swaps is None or swaps >= len(pairs) else random.permutation(pairs)[:swaps]
    single = {index: _without(own, [index]) for index in removable}
    several = {
        count: [_without(own, random.permutation(removable)[:count]) for _ in range(draws)]
        for count in counts
    }
    swapped = {(first, second): _swapped(own, [(first, second)]) for first, second in chosen}
    orders = [
        (count, _swapped(own, random.choice(pairs, count)))
        for count in (counts if len(pairs) else ())
        for _ in range(draws)
    ]
    asked = [
        *(own, *single.values(), *itertools.chain(*several.values())),
        *(*swapped.values(), *(order for _, order in orders)),
    ]
    labels, accuracy = _measured(model, chain, dataset, dict.fromkeys(asked))
    return EffectivePaths(
        accuracy=accuracy[own],
        chance=float(np.bincount(labels).max() / len(labels)),
        images=len(labels),
        residual=chain.residual,
        blocks=tuple(
            BlockLeftOut(block.name, block.shapes, accuracy.get(single.get(index, ())))
            for index, block in enumerate(chain.blocks)
        ),
        several={count: tuple(accuracy[each] for each in several[count]) for count in several},
        swaps=tuple(Swap(*pair, accuracy[order]) for pair, order in swapped.items()),
        orders=tuple(Order(count, kendall(order), accuracy[order]) for count, order in orders),
    )


def kendall(order: Sequence[int]) -> float:
    """Kendall's rank correlation of an order with the one from small to large.

    Parameters
    ----------
    order : sequence of int
        Different numbers.

    Returns
    -------
    float
        The fraction of the pairs that are in order, minus that of the others; 1 for fewer than two
        numbers.

    Examples
    --------
    >>> from keras_resnet.analysis.paths import kendall
    >>> kendall([0, 1, 2]), kendall([2, 1, 0]), round(kendall([0, 2, 1]), 3)
    (1.0, -1.0, 0.333)
    """
    first, second = np.triu_indices(len(order), 1)
    signs = np.sign(np.take(order, second) - np.take(order, first))
    return float(signs.mean()) if len(signs) else 1.0


def _checked(counts, removable):
    """The numbers of blocks to leave out together."""
    if counts is None:
        return sorted({*map(int, np.linspace(1, removable, 10).round())})
    wrong = [count for count in counts if not is_count(count) or count > removable]
    if wrong:
        raise ValueError(
            f"counts={wrong[0]!r} must be a whole number from 1 to {removable}, the blocks of the "
            "model that can be left out."
        )
    return [*dict.fromkeys(map(int, counts))]


def _pairs(blocks):
    """The pairs of blocks that can take each other's place, of shape (pairs, 2)."""
    return np.array(
        [
            (first, second)
            for first, second in itertools.combinations(range(len(blocks)), 2)
            if blocks[first].shapes == blocks[second].shapes
        ],
        int,
    ).reshape(-1, 2)


def _without(order, removed):
    """An order in which some blocks are left out."""
    return tuple(_LEFT_OUT if index in removed else index for index in order)


def _swapped(order, pairs):
    """An order in which some pairs of places have been swapped one after the other."""
    order = list(order)
    for first, second in pairs:
        order[first], order[second] = order[second], order[first]
    return tuple(order)


class _Block(NamedTuple):
    """A block: what it computes, and what it leaves of its input when it is left out."""

    name: str
    shapes: tuple[tuple, tuple]
    whole: Callable
    without: Callable | None


class _Chain(NamedTuple):
    """A model: its blocks, and what it does before the first, between them and after the last."""

    blocks: tuple[_Block, ...]
    between: tuple[Callable, ...]
    residual: bool


def _divided(model):
    """Divide a model into its blocks and what is between them."""
    links = graphs.chain_of(model)
    head = {*graphs.head_of(model).layers}
    found = [(at, at + 1, block) for at, link in enumerate(links) if (block := _residual(link))]
    residual = bool(found)
    found = found or list(_layers(links, head))
    if not any(block.without for *_, block in found):
        raise ValueError(
            f"{model.name} has neither a residual block nor a layer with a kernel that keeps the "
            "shape of its input: there is nothing that could be left out."
        )
    stops = [0, *(stop for _, stop, _ in found)]
    starts = [*(start for start, _, _ in found), len(links)]
    between = (_in_a_row(links[stop:start]) for stop, start in zip(stops, starts, strict=True))
    return _Chain(tuple(block for *_, block in found), tuple(between), residual)


def _residual(link):
    """The residual block that a piece of a model is; None if it is another piece."""
    last = link.steps[-1]
    if len(last.entering) != 2 or type(last.operation).__name__ != "Add":
        return None
    shortcut, residual = sorted(last.entering, key=lambda number: _size(link.behind(number)))
    kernels = [_size(link.behind(each))[0] for each in (shortcut, residual)]
    if kernels[0] > 1 or kernels[0] >= kernels[1]:
        return None

    def without(x):
        return follow(link.behind(shortcut), {link.entering: x})[shortcut]

    name = _common([step.operation.name for step in (*link.behind(residual), last)])
    name = name or last.operation.name
    return _Block(name, link.shapes, _compiled(link, link), _compiled(without, link))


def _common(names):
    """What some names begin with, up to a "_"."""
    words = zip(*(name.split("_") for name in names), strict=False)
    same = itertools.takewhile(lambda each: len({*each}) == 1, words)
    return "_".join(word for word, *_ in same)


def _size(steps):
    """How many steps have a kernel, and how many there are."""
    return sum(step.has_kernel for step in steps), len(steps)


def _layers(links, head):
    """The layers with kernels of a model without residual blocks, each with what follows it."""
    starts = [
        at
        for at, (first, *others) in enumerate(link.steps for link in links)
        if not others and first.has_kernel
    ]
    end = next((at for at, link in enumerate(links) if link.steps[0].operation in head), len(links))
    for start, following in itertools.pairwise([*(at for at in starts if at < end), end]):
        # What follows may change the shape, such as pooling, which then stays where it is.
        entering = links[start].shapes[0]
        keep = [at for at in range(start, following) if links[at].shapes[1] == entering]
        stop = keep[-1] + 1 if keep else following
        block = _Block(
            links[start].steps[0].operation.name,
            (entering, links[stop - 1].shapes[1]),
            _in_a_row(links[start:stop]),
            (lambda x: x) if keep else None,
        )
        yield start, stop, block


def _in_a_row(links):
    """Some pieces of a model, one after the other."""
    if not links:
        return lambda x: x
    return _compiled(lambda x: functools.reduce(lambda x, link: link(x), links, x), links[0])


def _compiled(compute, link):
    """A function of what enters a piece of a model, compiled when it is first called."""
    entering = link.tensors[0]
    shape = tf.TensorSpec((None, *entering.shape[1:]), entering.dtype)
    concrete = functools.cache(lambda: tf.function(compute).get_concrete_function(shape))
    return lambda x: concrete()(x)


def _measured(model, chain, dataset, orders):
    """The labels of all images, and the accuracy of every order of the blocks."""
    task, orders = TASKS["classification"], [*orders]
    answers, labels, right = task.answers_of(model), [], np.zeros(len(orders), int)
    for images, given in dataset:
        labels.append(_checked_labels(given, model))
        images = tf.cast(images, model.inputs[0].dtype)
        _check_images(images, len(labels[-1]), model)
        for index, outputs in _outputs(chain, images, orders):
            outputs = np.asarray(outputs)
            if not index:  # the whole model
                check_finite(outputs, model)
            decided = task.decide(answers(outputs))
            # Of what overflows without a block, no answer is right.
            right[index] += np.sum((decided == labels[-1]) & np.isfinite(outputs).all(1))
    if not labels:
        raise ValueError("dataset: there are no images to measure the model on.")
    labels = np.concatenate(labels)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"dataset: all images are of class {labels[0]}; there must be at least two classes for "
            "an accuracy to say anything."
        )
    return labels, dict(zip(orders, (right / len(labels)).tolist(), strict=True))


def _check_images(images, count, model):
    """Make sure that a batch has what the model takes, and as many images as labels."""
    shape = model.inputs[0].shape
    if not images.shape.is_compatible_with(shape):
        raise ValueError(
            f"dataset: images must be of shape {shape}, as {model.name} takes them; a batch is of "
            f"{tuple(images.shape)}."
        )
    if len(images) != count:
        raise ValueError(f"dataset: {count} labels came for {len(images)} images.")
    if not np.isfinite(images).all():  # a ReLU may make 0 of NaN
        raise ValueError("dataset: images hold NaN or infinity.")


def _checked_labels(labels, model):
    """Labels of a batch: whole numbers that the model has outputs for."""
    labels, outputs = np.asarray(labels), max(2, model.outputs[0].shape[-1])
    if labels.ndim != 1 or not np.array_equal(labels, labels.astype(int)):
        raise ValueError(
            f"dataset: labels of shape {labels.shape} and type {labels.dtype} must be whole "
            "numbers, the class of each image."
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < outputs:
        raise ValueError(
            f"dataset: labels from {labels.min()} to {labels.max()} must be classes of "
            f"{model.name}, from 0 to {outputs - 1}."
        )
    return labels.astype(int)


def _outputs(chain, images, orders):
    """The model's outputs for every order of its blocks; what orders begin with is shared."""
    waiting = [(0, chain.between[0], images, range(len(orders)))]
    while waiting:
        place, compute, x, group = waiting.pop()
        x = compute(x)
        if place == len(chain.blocks):
            yield from ((index, x) for index in group)
            continue
        choices = {}
        for index in group:
            choices.setdefault(orders[index][place], []).append(index)
        # The smaller groups go first, and leave the memory, before a larger one branches again.
        for choice, members in sorted(choices.items(), key=lambda item: -len(item[1])):
            block = chain.blocks[place if choice == _LEFT_OUT else choice]
            run = block.without if choice == _LEFT_OUT else block.whole
            follows = functools.partial(_after, run, chain.between[place + 1])
            waiting.append((place + 1, follows, x, members))


def _after(first, second, x):
    return second(first(x))
