"""What sources of streamed images have in common."""

import numpy as np
import tensorflow as tf

from keras_resnet.data.duplicates import duplicates
from keras_resnet.data.images import header_of
from keras_resnet.data.source import Source, Split
from keras_resnet.data.splitting import SplitPolicy, check_classes, check_counts, complete

_SMALL = 64  # pixels a side up to which images are small ones


def split_of_stream(where: str, images: tf.data.Dataset, labels: np.ndarray) -> Split:
    """Make a split, whose errors say `where` its labels come from."""
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
) -> Source:
    """Make a source of some splits, whose first image says how large they are.

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

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there are too few images, or classes without a name.
    """
    splits, skipped = dict(splits), []
    if policy.on_error == "skip":
        for split_name, split in splits.items():
            errors = split.errors()
            skipped += [f"{argument!r}, {split_name}: {error}" for error in errors.values()]
            if errors:
                splits[split_name] = split.take(np.setdiff1d(np.arange(len(split)), [*errors]))
    if not any(map(len, splits.values())):
        raise ValueError(f"data {argument!r}: no images in it.")
    check_classes(argument, class_names, "images of several classes")
    if "train" not in splits:
        raise ValueError(f"data {argument!r} has no split 'train'.")
    for split_name, split in splits.items():
        if split.labels.max(initial=0) >= len(class_names):
            raise ValueError(
                f"data {argument!r}, {split_name}: label {split.labels.max()} is not one of 0 to "
                f"{len(class_names) - 1}, for which there are names."
            )
    check_counts(argument, class_names, splits)
    first = next(splits["train"].image_set.images.as_numpy_iterator())
    try:
        header = header_of(first, whole=True)
    except ValueError as error:
        raise ValueError(f"data {argument!r}: its first image {error}") from error
    small = max(header.height, header.width) <= _SMALL
    whole = complete(splits, class_names, policy)
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        image_size=min(header.height, header.width) if small else 224,
        augmentation="small photograph" if small else "photograph",
        skipped=tuple(skipped),
        notes=duplicates(whole, class_names),
        **whole,
    )
