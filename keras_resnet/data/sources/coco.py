"""Boxes in COCO's JSON: a file, or a folder with one for each split."""

import contextlib
import json
import os
import re
from pathlib import Path

from keras_resnet.data.boxes import CROWD
from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import SPLIT_OF, SPLITS, Source
from keras_resnet.data.sources.listed_boxes import SIZE, Box, Listed, leave_out, source_of_boxes
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy
from keras_resnet.files import read_text
from keras_resnet.names import label, some

_FOLDERS = ("annotations", "labels", *SPLIT_OF)  # that may hold a file
_KEYS = ("images", "annotations", "categories")
_INSTANCES = "instances_"  # what the files with boxes begin with, where there are others
_BEGINNING = 2**16  # bytes in which one of the keys is
_LOOKED_FOR = 16  # images that tell the folder of all


def coco(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Load images with boxes that are listed in COCO's JSON.

    Parameters
    ----------
    path : path
        The JSON file, or a folder with one for each split: annotations/instances_train2017.json
        beside train2017, or train/_annotations.coco.json beside the images. The images are beside
        the file, or in a folder images, data, or of the name of the split. Boxes of crowds are
        neither learned nor counted.
    seed : int, default 0
        Seed of the split, for what is not split on disk.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source
        Classes are in the order of their ids; those without a box in any split are left out.

    Raises
    ------
    ValueError
        As `load` does; and for a file that is not COCO's JSON, or boxes of images or categories
        that it does not list, unless these are to be skipped.
    """
    return read_coco(path, SplitPolicy(seed, on_error, validation))


def is_coco(path: str | os.PathLike) -> bool:
    """Whether a path is that of a JSON file, or of a folder with COCO's JSON in it.

    Parameters
    ----------
    path : path
        The path, which need not exist.

    Returns
    -------
    bool
    """
    path = Path(path)
    with contextlib.suppress(OSError):  # what cannot be looked through is named elsewhere
        return bool(_files(path)) if path.is_dir() else path.suffix.lower() == ".json"
    return False


def read_coco(path: str | os.PathLike, policy: SplitPolicy) -> Source:
    """Do what `coco` does, with a policy."""
    path = Path(path)
    listed, class_names, skipped = {}, {}, []
    for split, file in _by_split(path).items():
        listed[split], names = _read(file, split, policy, skipped)
        class_names.update(dict.fromkeys(names))
    return source_of_boxes(
        path,
        path.resolve().name if path.is_dir() else path.stem,
        [*class_names],
        listed,
        policy,
        SIZE,
        skipped=skipped,
    )


def _files(folder):
    """The files with boxes in a folder, and the split that each is named for, or None."""
    found = {}
    inside = [each for each in sorted(folder.iterdir()) if each.name.lower() in _FOLDERS]
    for place in (folder, *filter(Path.is_dir, inside)):
        files = [file for file in sorted(place.iterdir()) if _may_be_coco(file)]
        with_boxes = [file for file in files if file.name.startswith(_INSTANCES)]
        for file in with_boxes or files:
            words = re.findall("[a-z]+", file.stem.lower())
            words += [] if place == folder else [place.name.lower()]
            splits = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
            found[file] = splits[0] if splits else None
    return found


def _may_be_coco(file):
    """Whether a file begins as COCO's JSON does."""
    if file.suffix.lower() != ".json" or file.name.startswith(".") or not file.is_file():
        return False
    with open(file, "rb") as opened:
        start = opened.read(_BEGINNING)
    return start.lstrip()[:1] == b"{" and any(f'"{key}"'.encode() in start for key in _KEYS)


def _by_split(path):
    """The file of every split."""
    where = f"data {str(path)!r}"
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"{where}: there is no such file.")
        return {"train": path}
    files = _files(path)
    if len(files) == 1 and None in files.values():
        return {"train": next(iter(files))}
    found = {}
    for file, split in files.items():
        if split is None or split in found:
            also = f"{found[split].name!r} is for {split} too" if split else "it names no split"
            raise ValueError(
                f"{where}: {file.name!r} may be for any split: {also}. Expected one JSON file for "
                "each of train, validation and test, named so; or load a file by itself."
            )
        found[split] = file
    if "train" not in found:
        raise ValueError(
            f"{where}: {some([repr(file.name) for file in files])}, but none for training. To "
            "split the images of one of them, load that file by itself."
        )
    return {split: found[split] for split in SPLITS if split in found}


def _read(file, split, policy, skipped):
    """The images and boxes of a file, and the names of its classes in the order of their ids."""
    images, annotations, categories = _parsed(file)
    names = {each: label(name) for each, name in _pairs(file, categories, "category", "name")}
    paths = _pairs(file, images, "image", "file_name")
    if len({each for each, _ in paths}) < len(paths):
        raise ValueError(f"{str(file)!r}: two images have one id.")
    folder = _folder(file, split, [name for _, name in paths])
    index_of = {each: index for index, (each, _) in enumerate(paths)}
    found = Listed([folder / name for _, name in paths], [])
    for index, image in enumerate(images):
        size = image.get("width"), image.get("height")
        if all(isinstance(side, int) for side in size):
            found.sizes[index] = size
    for number, entry in enumerate(annotations):
        try:
            found.boxes.append(_box(file, number, entry, index_of, names))
        except ValueError as error:
            leave_out(str(error), policy, skipped)
    return found, [names[each] for each in sorted(names, key=lambda each: (str(type(each)), each))]


def _box(file, number, entry, index_of, names):
    """The box of an annotation."""
    entry = entry if isinstance(entry, dict) else {}
    place = f"annotation {entry.get('id', number)}"
    image, kind = (
        each if isinstance(each := entry.get(key), int | float | str | None) else repr(each)
        for key in ("image_id", "category_id")
    )
    try:
        numbers = [*map(float, entry.get("bbox", ()))]
    except (TypeError, ValueError):
        numbers = []
    for wrong, reason in (
        (image not in index_of, f"a box of an unknown image: {place}, image_id {image!r}"),
        (kind not in names, f"a box of an unknown category: {place}, category_id {kind!r}"),
        (len(numbers) != 4, f"an annotation without a bbox of four numbers, {SIZE}: {place}"),
    ):
        if wrong:
            raise ValueError(skipped_line(file, reason))
    crowd = CROWD if str(entry.get("iscrowd")).lower() in ("1", "1.0", "true") else 0
    return Box(index_of[image], numbers, names[kind], crowd, file, place)


def _parsed(file):
    """The lists in a file: images, annotations and categories."""
    try:
        content = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{str(file)!r} is not JSON that can be parsed: {error}.") from error
    expected = f"Expected COCO's {', '.join(_KEYS)}."
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} is a JSON {type(content).__name__}. {expected}")
    for key in _KEYS:
        if not isinstance(content.get(key), list):
            raise ValueError(f"{str(file)!r} has no list {key!r}. {expected}")
    return (content[key] for key in _KEYS)


def _pairs(file, entries, what, key):
    """The ids of images or categories, and their names."""
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append((entry["id"], entry[key].strip()))
            hash(entry["id"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(file)!r}: {what} {number} (counted from 0) must have an 'id' and a {key!r}."
            ) from error
    return found


def _folder(file, split, names):
    """The folder that the images of a file are in."""
    own = file.parent
    outer = own.parent if own.name.lower() in _FOLDERS else own
    called = file.stem.removeprefix(_INSTANCES)
    places = ["", called, *SPLITS[split], "images", "data", "JPEGImages"]
    tried = [
        folder
        for base in dict.fromkeys((own, outer))
        for place in places
        for folder in (base / place, base / "images" / place)
    ]
    for folder in dict.fromkeys(tried):
        if any((folder / name).is_file() for name in names[:_LOOKED_FOR]):
            return folder
    if names:
        raise ValueError(
            f"{str(file)!r}: its images, such as {names[0]!r}, are not beside it, and in none of "
            f"the folders {some([place for place in places if place], len(places))} there."
        )
    return own
