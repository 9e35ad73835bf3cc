"""What sources of image files have in common."""

import os
from collections.abc import Sequence

import numpy as np

from keras_resnet.data.duplicates import duplicates
from keras_resnet.data.images import read_headers
from keras_resnet.data.labels import Task, notes_on_names
from keras_resnet.data.source import Source, Split, suggestion
from keras_resnet.data.splitting import SplitPolicy, check_counts, complete


def source_of_files(
    path: str | os.PathLike,
    name: str,
    class_names: tuple[str, ...],
    splits: dict[str, Split],
    policy: SplitPolicy,
    task: Task = "classification",
    *,
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Source:
    """Make a source of the files of some splits, once their headers are read.

    Parameters
    ----------
    path : path
        Where the files were found, for errors.
    name, class_names, task
        As in `Source`.
    splits : dict of str to Split
        The splits that there are.
    policy : SplitPolicy
        What to do about the others, and about files that cannot be read.
    skipped, notes : sequence of str
        Lines that the caller has already.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        For a file that cannot be read, unless it is to be skipped; or if too few are left.
    """
    damaged, kept_of, sizes = [], {}, []
    for split, images in splits.items():
        found = read_headers(images.image_set.images, whole=policy.on_error == "skip")
        errors = [each for each in found if isinstance(each, ValueError)]
        if errors and policy.on_error == "raise":
            raise errors[0]
        damaged += map(str, errors)
        headers = {i: each for i, each in enumerate(found) if not isinstance(each, ValueError)}
        if split == "train":
            sizes = [(header.height, header.width) for header in headers.values()]
        kept_of[split] = images.take(np.array([*headers], int)) if errors else images
    check_counts(path, class_names, kept_of, task, " but damaged ones" if damaged else "")
    whole = complete(kept_of, class_names, policy, task)
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        **suggestion(sizes, task),
        skipped=(*damaged, *skipped),
        notes=(*notes, *notes_on_names(class_names), *duplicates(whole, class_names, task)),
        task=task,
        **whole,
    )
