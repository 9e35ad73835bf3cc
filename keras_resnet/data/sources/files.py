"""Images in files: folders and CSV files."""

import csv
import io
import os
import re
from pathlib import Path

import numpy as np

from keras_resnet.data.images import image_files, read_headers
from keras_resnet.data.source import (
    SPLIT_OF,
    SPLITS,
    VALIDATION,
    OnError,
    Source,
    Split,
    check_classes,
    check_counts,
    complete,
)

_KAGGLE = re.compile(r"(?P<class>[^.]+)\.\d+\.\w+")  # cat.0.jpg


def folder(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """A folder of images laid out as class/image, or split/class/image.

    Parameters
    ----------
    path : path
        The folder. Classes are ordered by name; hidden files and files without the suffix of an
        image are passed over. In place of class folders there may be files like cat.0.jpg, as
        Kaggle has them; a folder "test" whose files tell no class is passed over then.
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
    path = Path(path)
    if not path.is_dir():
        raise ValueError(
            f"data {str(path)!r}: there is no such folder; it may also be 'digits', 'tfds:NAME', a "
            "CSV file or TFRecord files."
        )
    roots = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in SPLITS.items()
    }
    # A folder "train" without images in it that tell a class is the class of trains.
    if roots["train"] is None or not _by_class(roots["train"]):
        roots = {"train": path}
    found = {split: _by_class(root) for split, root in roots.items() if root is not None}
    found = {split: files for split, files in found.items() if files or split == "train"}
    class_names = tuple(sorted(found["train"]))
    check_classes(path, class_names, "class/image, or train/class/image and test/class/image")
    for split, files in found.items():
        strangers = sorted(set(files) - set(class_names))
        lacking = [name for name in class_names if not files.get(name)]
        if strangers or lacking:
            problem = (
                f"no images of {lacking[0]!r}" if lacking else f"a class {strangers[0]!r} more"
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
    return _of_files(path, path.resolve().name, class_names, splits, seed, on_error, validation)


def csv_file(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Images that a CSV file lists: columns path and label, and split if there is one.

    Parameters
    ----------
    path : path
        The file. A path in it begins at the file's own folder; a split is "train", "validation" or
        "test".
    seed : int, default 0
        Seed of the split, for what the file does not split.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        As `load` does; and for a missing column, or an unknown split.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data {str(path)!r}: there is no such file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"data {str(path)!r} is not text in UTF-8: {error}.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise ValueError(
            f"data {str(path)!r}: no column {missing[0]!r} in its first line, "
            f"{','.join(columns)!r}. Expected path,label or path,label,split."
        )
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"data {str(path)!r}, line {reader.line_num}: {error}.") from error
    listed = {}
    for number, row in rows:
        split = (row.get("split") or "train").strip()
        if split not in SPLIT_OF:
            raise ValueError(
                f"data {str(path)!r}, line {number}: split {split!r} must be one of "
                f"{', '.join(SPLIT_OF)}."
            )
        if not row["path"] or not row["label"]:
            raise ValueError(f"data {str(path)!r}, line {number}: path or label is empty.")
        listed.setdefault(SPLIT_OF[split], []).append((path.parent / row["path"], row["label"]))
    class_names = tuple(sorted({row["label"] for _, row in rows}))
    check_classes(path, class_names, "a line for every image, path,label")
    if "train" not in listed:
        raise ValueError(f"data {str(path)!r}: no line has the split 'train'.")
    splits = {
        split: Split(
            [file for file, _ in images],
            np.array([class_names.index(label) for _, label in images]),
        )
        for split, images in listed.items()
    }
    return _of_files(path, path.stem, class_names, splits, seed, on_error, validation)


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


def _of_files(path, name, class_names, splits, seed, on_error, validation):
    """A source of files, once they have been looked at."""
    skipped = []
    for split, images in splits.items():
        headers = read_headers(images.images, whole=on_error == "skip")
        errors = [header for header in headers if isinstance(header, ValueError)]
        if errors and on_error == "raise":
            raise errors[0]
        if errors:
            skipped += map(str, errors)
            kept = [i for i, header in enumerate(headers) if not isinstance(header, ValueError)]
            splits[split] = images.take(np.array(kept, int))
    check_counts(path, class_names, splits, " but damaged ones" if skipped else "")
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        image_size=224,
        augmentation="photograph",
        skipped=tuple(skipped),
        **complete(splits, class_names, seed, validation),
    )
