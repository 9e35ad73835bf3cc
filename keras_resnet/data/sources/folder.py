"""Folders of images."""

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import SPLIT_OF, SPLITS, Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.sources.tree import tree
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy, check_classes
from keras_resnet.names import label, some

_KAGGLE = re.compile(r"(?P<class>[^.]+)\.\d+\.\w+")  # cat.0.jpg
# A word for a split, and what is before and after it: seg_train, training_set, val2017.
_WORD = re.compile(
    rf"(?P<before>|.*[^a-z])(?P<word>{'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})"
    r"(?P<after>[^a-z].*|)"
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


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
        The folder. Classes are sorted by name; their images may be in folders inside. A file is an
        image by its suffix or its first bytes; all others, also hidden ones, are listed in
        `Source.skipped`. Instead of class folders there may be files named like cat.0.jpg, as on
        Kaggle. The folders of the splits are called train, validation and test, or similarly:
        Training, val, seg_test. Images in none of them, or without a class, are in no split.
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
        raise ValueError(f"data {str(path)!r}: {_instead_of_a_folder(path)}")
    found = tree(path)
    layout = _layout(path, found)
    class_names = tuple(sorted(layout.splits["train"]))
    empty = _without_images(found, layout)
    _check_readable(found, empty)
    check_classes(
        path,
        class_names,
        "class/image, or train/class/image and test/class/image",
        _hint(path, found, layout, empty) if len(class_names) < 2 else "",
    )
    _check_alike(path, layout, class_names)
    splits = {
        split: Split(
            [file for name in class_names for file in classes[name]],
            np.repeat(np.arange(len(class_names)), [len(classes[name]) for name in class_names]),
        )
        for split, classes in layout.splits.items()
    }
    return source_of_files(
        path,
        path.resolve().name,
        class_names,
        splits,
        policy,
        skipped=[*found.skipped, *itertools.starmap(skipped_line, layout.outside.items())],
        notes=[
            *_notes_on_unused(path, found, layout),
            *_notes_on_classes(layout, empty),
            *_notes_on_folders_within(found, layout),
        ],
    )


def _instead_of_a_folder(path):
    """What is wrong with a path that is no folder."""
    if path.name.lower().endswith(_ARCHIVES) and path.exists():
        return "an archive. Unpack it, and load the folder that comes out."
    if path.exists():
        return (
            "a file of a kind that is not read. Expected a folder of images, a CSV file (.csv, "
            ".tsv), COCO's JSON (.json), or TFRecord files (.tfrecord, .tfrec)."
        )
    return (
        "there is no such folder; it may also be 'digits', 'tfds:NAME', a CSV file, COCO's JSON or "
        "TFRecord files."
    )


def _check_readable(found, empty):
    """Raise ValueError for a folder with images of formats that are not read, and no others."""
    for place, parts in empty.items():
        unread = [each for each, below in found.pictures.items() if below[: len(parts)] == parts]
        if unread:
            raise ValueError(
                f"data {str(place)!r}: {_images(len(unread))} in a format that is not read, such "
                f"as {unread[0].name!r}, and no others. Convert them to JPEG or PNG, or move the "
                "folder away."
            )


def _check_alike(path, layout, class_names):
    """Raise ValueError unless every split has every class and no other."""
    for split, classes in layout.splits.items():
        lacking = [name for name in class_names if not classes.get(name)]
        strangers = sorted({*classes} - {*class_names})
        if lacking or strangers:
            problem = (
                f"no images of {lacking[0]!r}"
                if lacking
                else f"an additional class {strangers[0]!r}"
            )
            raise ValueError(
                f"data {str(path.joinpath(*layout.roots[split]))!r}: {problem}. Expected every "
                "class in every split."
            )


class _Layout(NamedTuple):
    """Where the images of a folder belong."""

    splits: dict[str, dict[str, list[Path]]]  # the files of every class of every split
    roots: dict[str, tuple[str, ...]]  # the parts of the path of every split's folder
    outside: dict[Path, str]  # why the other images are in no split


def _layout(path, found):
    """Find the splits and classes of what is in a folder."""
    start = _unwrapped((), path.resolve().name, found.images.values())
    tops = defaultdict(dict)
    for file, parts in found.images.items():
        tops[parts[len(start)] if len(parts) > len(start) + 1 else None][file] = parts
    roots, inside = {}, {}
    for name, split in _named_as_splits(filter(None, tops)).items():
        root = _unwrapped((*start, name), name, tops[name].values())
        classes, outside = _by_class(root, tops[name])
        # Without classes inside, a folder "train" is the class of trains.
        if len(classes) > 1 or any(len(parts) > len(root) + 1 for parts in tops[name].values()):
            if split in roots:
                first = roots[split][len(start)]
                raise ValueError(
                    f"data {str(path)!r}: the folders {first!r} and {name!r} are both for {split}. "
                    "Merge them, or move one away."
                )
            roots[split], inside[split] = root, (classes, outside)
    if not roots:
        classes, outside = _by_class(start, found.images)
        return _Layout({"train": classes}, {"train": start}, outside)
    if "train" not in roots:
        names = " and ".join(repr(root[len(start)]) for root in roots.values())
        raise ValueError(
            f"data {str(path)!r}: {names} is named as a split and holds classes, but no folder is "
            "named train. Name one train; or, if this is a class, give it another name."
        )
    used = {root[len(start)] for root in roots.values()}
    outside = {
        file: "beside the folders of the splits"
        if name is None
        else "in none of the folders of the splits"
        for name, images in tops.items()
        if name not in used
        for file in images
    }
    for _, others in inside.values():
        outside |= others
    splits = {split: inside[split][0] for split in SPLITS if split in inside}
    return _Layout(splits, roots, outside)


def _unwrapped(root, name, images):
    """A folder without the folders of its own name that everything is in: pets/pets/cat."""
    while images and all(
        len(parts) > len(root) + 1 and parts[len(root)].lower() == name.lower() for parts in images
    ):
        root = (*root, next(iter(images))[len(root)])
    return root


def _named_as_splits(names):
    """The split of every folder that is named as one: train, Test; also seg_train and seg_test."""
    alike = defaultdict(dict)
    for name in names:
        if match := _WORD.fullmatch(name.lower()):
            alike[match["before"], match["after"]][name] = SPLIT_OF[match["word"]]
    return {
        name: split
        for around, found in alike.items()
        # With other words around it, there must be one for training too: not a test tube.
        if around == ("", "") or {"train"} < set(found.values())
        for name, split in found.items()
    }


def _by_class(root, images):
    """The images of every class in a folder, and why the others are of none.

    Classes are the folders in it. Without any, the names of the files may tell.
    """
    depth, classes, outside = len(root), defaultdict(list), {}
    if any(len(parts) > depth + 1 for parts in images.values()):
        for file, parts in images.items():
            if len(parts) > depth + 1:
                classes[label(parts[depth])].append(file)
            else:
                outside[file] = "beside the folders of classes"
    else:
        for file in images:
            if match := _KAGGLE.fullmatch(file.name):
                classes[label(match["class"])].append(file)
            else:
                outside[file] = "without a class: in no folder of one, and not named as cat.0.jpg"
    return dict(classes), outside


def _without_images(found, layout):
    """Folders in the place of classes, without any image in them."""
    roots = {*layout.roots.values(), *(root[:-1] for root in layout.roots.values() if root)}
    lengths = {len(root) + 1 for root in roots}
    filled = {parts[:length] for parts in found.images.values() for length in lengths}
    return {
        folder: parts
        for folder, parts in found.folders.items()
        if parts[:-1] in roots and parts not in filled
    }


def _hint(path, found, layout, empty):
    """What else may be meant, where there are fewer than two classes."""
    if empty:
        return f" There are no images in {_few(each.name for each in empty)}."
    root = layout.roots["train"]
    files = [file for of_class in layout.splits["train"].values() for file in of_class]
    inner = {found.images[file][len(root) :][:-1] for file in files}
    if len({parts[:2] for parts in inner}) > 1:
        return f" Perhaps {str(path.joinpath(*root, next(iter(inner))[0]))!r} is meant."
    files = [
        file.name
        for file in path.iterdir()
        if re.search(r"\.(csv|tsv|tfrec(ords?)?)\b", file.name.lower())
    ]
    return f" Perhaps {_few(files)} is meant." if files else ""


def _few(names: Iterable[str]) -> str:
    """A list of names that stays short, however many there are."""
    return some(sorted(map(repr, names)))


def _images(count):
    """A number of images, in words."""
    return f"{count:,} image{'s' * (count != 1)}"


def _notes_on_unused(path, found, layout):
    """Images that are in no split, or not read."""
    unused = defaultdict(list)
    for file, reason in layout.outside.items():
        unused[reason].append(file)
    if found.pictures:
        unused["in a format that is not read"] = [*found.pictures]
    for reason, files in unused.items():
        yield (
            f"{_images(len(files))} not used, {reason}; the first is "
            f"{str(files[0].relative_to(path))!r}."
        )


def _notes_on_classes(layout, empty):
    """Folders that may be no classes, and are; or may be classes, and are none."""
    if empty:
        yield f"There are no images in {_few(each.name for each in empty)}."
    if len(layout.splits) == 1:
        named = [name for name in layout.splits["train"] if name.lower() in SPLIT_OF]
        if named:
            yield f"{_few(named)} is used as a class: there are no classes in it."


def _notes_on_folders_within(found, layout):
    """Folders that are one class, and classes that have the same folders in them."""
    spellings, inner = defaultdict(set), defaultdict(set)
    for split, classes in layout.splits.items():
        for name, files in classes.items():
            for file in files:
                parts = found.images[file][len(layout.roots[split]) :]
                if len(parts) > 1:
                    spellings[split, name].add(parts[0])
                    inner[split, name].add(parts[1] if len(parts) > 2 else None)
    for (_, name), folders in spellings.items():
        if len(folders) > 1:
            yield f"The folders {_few(folders)} are one class, {name!r}."
    shared = next(iter(inner.values()), set())
    if len(shared) > 1 and None not in shared and all(each == shared for each in inner.values()):
        yield (
            f"All of {_few({name for _, name in inner})} hold the folders {_few(shared)}. If those "
            "are the classes, load one of the outer folders, or name them train and test."
        )
