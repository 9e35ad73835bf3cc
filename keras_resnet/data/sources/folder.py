"""Folders of images."""

import os
import re
from pathlib import Path

import numpy as np

from keras_resnet.data.images import image_files
from keras_resnet.data.source import SPLITS, Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes

_KAGGLE = re.compile(r"(?P<class>[^.]+)\.\d+\.\w+")  # cat.0.jpg


def folder(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Load a folder of images laid out as class/image, or split/class/image.

    Parameters
    ----------
    path : path
        The folder. Classes are sorted by name. Hidden files, and files without the suffix of an
        image, are ignored. Instead of class folders there may be files like cat.0.jpg, as Kaggle
        has them; a folder "test" of files without a class in their names is then ignored.
    seed : int, default 0
        Seed of the split, for what is not split on disk.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        As `load` does.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.data.sources import folder
    >>> with tempfile.TemporaryDirectory() as empty:  # doctest: +ELLIPSIS
    ...     folder(empty)
    Traceback (most recent call last):
        ...
    ValueError: data ...: no folders of images in it. Expected class/image, ...
    """
    return read_folder(path, SplitPolicy(seed, on_error, validation))


def read_folder(path: str | os.PathLike, policy: SplitPolicy) -> Source:
    """Do what `folder` does, with a policy."""
    path = Path(path)
    if not path.is_dir():
        raise ValueError(
            f"data {str(path)!r}: there is no such folder; it may also be 'digits', 'tfds:NAME', a "
            "CSV file or TFRecord files."
        )
    roots = _roots(path)
    found = {split: _by_class(root) for split, root in roots.items()}
    found = {split: files for split, files in found.items() if files or split == "train"}
    class_names = tuple(sorted(found["train"]))
    check_classes(path, class_names, "class/image, or train/class/image and test/class/image")
    for split, files in found.items():
        strangers = sorted(set(files) - set(class_names))
        lacking = [name for name in class_names if not files.get(name)]
        if strangers or lacking:
            problem = (
                f"no images of {lacking[0]!r}"
                if lacking
                else f"an additional class {strangers[0]!r}"
            )
            raise ValueError(
                f"data {str(roots[split])!r}: {problem}. Expected every class in every split."
            )
    splits = {
        split: Split(
            [file for name in class_names for file in files[name]],
            np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]),
        )
        for split, files in found.items()
    }
    return source_of_files(path, path.resolve().name, class_names, splits, policy)


def _roots(path):
    """The folder of every split."""
    roots = {
        split: root
        for split, names in SPLITS.items()
        for root in [next((path / name for name in names if (path / name).is_dir()), None)]
        if root
    }
    # A folder "train" whose images tell no class is the class of trains.
    return roots if "train" in roots and _by_class(roots["train"]) else {"train": path}


def _by_class(root):
    """The files of every class in a folder: in folders of the class's name, or named after it."""
    folders = sorted(
        child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    if folders:
        return {child.name: image_files([child]) for child in folders}
    found = {}
    for file in image_files([root]):
        if match := _KAGGLE.fullmatch(file.name):
            found.setdefault(match["class"], []).append(file)
    return found
