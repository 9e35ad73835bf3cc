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
    """Look at all files of some splits, and make a source of them.

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
        What there is to say already.

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
        headers = read_headers(images.image_set.images, whole=policy.on_error == "skip")
        errors = [header for header in headers if isinstance(header, ValueError)]
        if errors and policy.on_error == "raise":
            raise errors[0]
        damaged += map(str, errors)
        kept = [i for i, header in enumerate(headers) if not isinstance(header, ValueError)]
        if split == "train":
            sizes = [(h.height, h.width) for h in headers if not isinstance(h, ValueError)]
        kept_of[split] = images.take(np.array(kept, int)) if errors else images
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
