"""What sources of streamed images have in common."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.data.duplicates import duplicates
from keras_resnet.data.image_sets import SHUFFLE_BUFFER
from keras_resnet.data.images import header_of
from keras_resnet.data.labels import LABELS, notes_on_names
from keras_resnet.data.source import Source, Split, suggestion
from keras_resnet.data.splitting import SplitPolicy, check_classes, check_counts, complete

_MEASURED = 1000  # images at the beginning of a stream whose sizes stand for all
_SORTED = 0.4  # from 0, a random order, to 1, one class after the other


def split_of_stream(where: str, images: tf.data.Dataset, labels: np.ndarray) -> Split:
    """Make a split; an error says `where` its images and labels come from."""
    try:
        return Split(images, labels)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def source_of_stream(
    argument: str,
    name: str,
    class_names: tuple[str, ...],
    splits: dict[str, Split],
    policy: SplitPolicy,
    *,
    notes: Sequence[str] = (),
) -> Source:
    """Make a source of some splits, with the size that suits their first images.

    Parameters
    ----------
    argument : str
        What the user asked for, for errors.
    name, class_names
        As in `Source`.
    splits : dict of str to Split
        The splits that there are.
    policy : SplitPolicy
        What to do about the others, and about images that cannot be read.
    notes : sequence of str
        Notes that the caller has already.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there are too few images, or classes without a name.
    """
    skipped = ()
    if policy.on_error == "skip":
        splits, skipped = _without_damaged(argument, splits)
    _check_splits(argument, class_names, splits)
    whole = complete(splits, class_names, policy)
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        **suggestion([*_sizes(splits["train"].image_set.images.take(_MEASURED))]),
        skipped=tuple(skipped),
        notes=(
            *notes,
            *notes_on_names(class_names),
            *notes_on_order(whole["train"].labels, len(class_names)),
            *duplicates(whole, class_names),
        ),
        **whole,
    )


def _without_damaged(argument, splits):
    """The splits without the images that cannot be read, and a line about each of these."""
    kept, skipped = {}, []
    for name, split in splits.items():
        errors = split.errors()
        skipped += [f"{argument!r}, {name}: {error}" for error in errors.values()]
        whole = np.setdiff1d(np.arange(len(split)), [*errors])
        kept[name] = split.take(whole) if errors else split
    return kept, skipped


def _check_splits(argument, class_names, splits):
    """Raise ValueError for labels that do not fit the names, and if the first image is damaged."""
    if not any(map(len, splits.values())):
        raise ValueError(f"data {argument!r}: no images in it.")
    check_classes(argument, class_names, "images of several classes")
    if "train" not in splits:
        raise ValueError(f"data {argument!r} has no split 'train'.")
    lowest = min(split.labels.min() for split in splits.values() if len(split))
    if lowest:
        raise ValueError(
            f"data {argument!r}: the labels begin with {lowest}; classes are counted from 0, and "
            "each has images."
        )
    for split_name, split in splits.items():
        try:
            LABELS["classification"].checked(split.labels, class_names)
        except ValueError as error:
            raise ValueError(f"data {argument!r}, {split_name}: {error}") from error
    check_counts(argument, class_names, splits)
    try:
        header_of(next(splits["train"].image_set.images.as_numpy_iterator()), whole=True)
    except ValueError as error:
        raise ValueError(f"data {argument!r}: its first image {error}") from error


def _sizes(images):
    """Height and width of images that can be read."""
    for contents in images.as_numpy_iterator():
        with contextlib.suppress(ValueError):
            header = header_of(contents)
            yield header.height, header.width


def notes_on_order(labels: np.ndarray, classes: int) -> Iterator[str]:
    """Say if images are in the order of their classes, beyond the reach of shuffling.

    Parameters
    ----------
    labels : int array of shape (images,)
        The class of each image, in the order of the stream.
    classes : int
        Number of classes.

    Yields
    ------
    str
        A line for `Source.notes`.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.data.sources.streamed import notes_on_order
    >>> len([*notes_on_order(np.repeat([0, 1], 20_000), 2)])
    1
    """
    fractions = np.bincount(labels, minlength=classes) / max(1, len(labels))

    def distance(labels):
        """The fraction of images by which the pieces of a stream differ from the whole."""
        pieces = np.array_split(labels, max(1, round(len(labels) / SHUFFLE_BUFFER)))
        counts = [np.bincount(piece, minlength=classes) for piece in pieces]
        unlike = [np.abs(each - fractions * each.sum()) for each in counts]
        return np.sum(unlike) / 2 / max(1, len(labels))

    # With many classes, pieces in random order differ too.
    random = distance(np.random.default_rng(0).permutation(labels))
    if distance(labels) - random > _SORTED * (1 - np.square(fractions).sum()):
        yield (
            f"The {len(labels):,} training images are in the order of their classes, and a stream "
            f"is shuffled {SHUFFLE_BUFFER:,} images at a time: batches hold few classes. Write the "
            "images in random order."
        )
