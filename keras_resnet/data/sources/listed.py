"""What sources of image files have in common."""

import os

import numpy as np

from keras_resnet.data.duplicates import duplicates
from keras_resnet.data.images import read_headers
from keras_resnet.data.labels import Task
from keras_resnet.data.source import Source, Split
from keras_resnet.data.splitting import SplitPolicy, check_counts, complete


def source_of_files(
    path: str | os.PathLike,
    name: str,
    class_names: tuple[str, ...],
    splits: dict[str, Split],
    policy: SplitPolicy,
    task: Task = "classification",
    augmentation: str = "photograph",
) -> Source:
    """Look at all files of some splits, and make a source of them.

    Parameters
    ----------
    path : path
        Where the files were found, for errors.
    name, class_names, task, augmentation
        As in `Source`.
    splits : dict of str to Split
        The splits that there are.
    policy : SplitPolicy
        What to do about the others, and about files that cannot be read.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        For a file that cannot be read, unless it is to be skipped; or if too few are left.
    """
    skipped, kept_of = [], {}
    for split, images in splits.items():
        headers = read_headers(images.image_set.images, whole=policy.on_error == "skip")
        errors = [header for header in headers if isinstance(header, ValueError)]
        if errors and policy.on_error == "raise":
            raise errors[0]
        skipped += map(str, errors)
        kept = [i for i, header in enumerate(headers) if not isinstance(header, ValueError)]
        kept_of[split] = images.take(np.array(kept, int)) if errors else images
    check_counts(path, class_names, kept_of, task, " but damaged ones" if skipped else "")
    whole = complete(kept_of, class_names, policy, task)
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        image_size=224,
        augmentation=augmentation,
        skipped=tuple(skipped),
        task=task,
        notes=duplicates(whole, class_names, task),
        **whole,
    )
