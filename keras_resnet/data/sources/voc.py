"""Folders laid out like Pascal VOC: images, and an XML file for each with its boxes."""

import contextlib
import os
import xml.etree.ElementTree as ElementTree
from itertools import chain
from pathlib import Path

from keras_resnet.data.boxes import DIFFICULT
from keras_resnet.data.images import IMAGE_SUFFIXES
from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import SPLIT_OF, SPLITS, Source
from keras_resnet.data.sources.listed_boxes import Box, Listed, leave_out, source_of_boxes
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy
from keras_resnet.files import read_text
from keras_resnet.names import label

# Folders of annotations and of images, in any case; "" is the folder that they would be in.
_PLACES = (("annotations", "jpegimages"), ("annotations", "images"), ("annotations", ""), ("", ""))
_SETS = "ImageSets/Main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BEGINNING = 1024  # bytes that tell an annotation from other XML


def voc(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Load a folder of images with boxes, laid out like Pascal VOC.

    Parameters
    ----------
    path : path
        The folder: Annotations has an XML file for every image in JPEGImages or images. Where there
        are train.txt, val.txt and test.txt in ImageSets/Main, these are the splits; without the
        first two, trainval.txt is split. Or there are folders train, valid and test, in which the
        XML files may also be beside the images.

        Pixels are counted from 1, as in Pascal VOC, unless a box begins at 0. Difficult objects are
        neither learned nor counted.
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
    """
    return read_voc(path, SplitPolicy(seed, on_error, validation))


def is_voc(path: str | os.PathLike) -> bool:
    """Whether a folder is laid out like Pascal VOC.

    Parameters
    ----------
    path : path
        The folder, which need not exist.

    Returns
    -------
    bool
    """
    with contextlib.suppress(OSError):  # what cannot be looked through is named elsewhere
        return bool(_pair(Path(path)) or _split_folders(Path(path)))
    return False


def read_voc(path: str | os.PathLike, policy: SplitPolicy) -> Source:
    """Do what `voc` does, with a policy."""
    path = Path(path)
    listed, skipped = {}, []
    if pair := _pair(path):
        annotations, images = map(_by_stem, pair, (_is_annotation, _is_image))
        sets = _sets(path) or {"train": [*annotations]}
        for split, stems in sets.items():
            listed[split] = _listed(stems, annotations, images, pair, policy, skipped)
        named = {stem for stems in sets.values() for stem in stems}
        skipped += _unused(annotations, images, named)
    else:
        for split, folder in _split_folders(path).items():
            pair = _pair(folder)
            annotations, images = map(_by_stem, pair, (_is_annotation, _is_image))
            listed[split] = _listed(annotations, annotations, images, pair, policy, skipped)
            skipped += _unused(annotations, images, {*annotations})
    if "train" not in listed:
        raise ValueError(
            f"data {str(path)!r}: {' and '.join(listed)} but nothing to train on. Expected "
            f"train.txt or trainval.txt in {_SETS}, or a folder train."
        )
    boxes = [box for each in listed.values() for box in each.boxes]
    from_0 = next((box for box in boxes if 0 <= min(box.numbers[:2]) < 1), None)
    note = f"Pixels are counted from 0: {os.fspath(from_0.file)!r}, {from_0}." if from_0 else ""
    return source_of_boxes(
        path,
        path.resolve().name,
        sorted({box.name for box in boxes}),
        {split: listed[split] for split in SPLITS if split in listed},
        policy,
        first=0 if from_0 else 1,
        skipped=skipped,
        notes=[note] if note else [],
    )


def _children(folder):
    """What is in a folder and not hidden, sorted."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(each for each in found if not each.name.startswith("."))


def _is_annotation(file):
    return file.suffix.lower() == ".xml"


def _is_image(file):
    return file.suffix.lower() in IMAGE_SUFFIXES


def _by_stem(folder, is_one):
    """Files by their names without suffixes."""
    return {file.stem: file for file in _children(folder) if is_one(file)}


def _pair(folder):
    """The folders of the annotations and of the images in a folder, if it has such."""
    wanted = [each for each in _children(folder) if each.name.lower() in {*chain(*_PLACES)}]
    inside = {each.name.lower(): each for each in wanted if each.is_dir()} | {"": folder}
    for annotations, images in _PLACES:
        if annotations in inside and images in inside:
            first = next(filter(_is_annotation, _children(inside[annotations])), None)
            if first and b"<annotation" in _beginning(first):
                return inside[annotations], inside[images]
    return None


def _beginning(file):
    with open(file, "rb") as opened:
        return opened.read(_BEGINNING)


def _split_folders(path):
    """The folders of the splits."""
    named = [each for each in _children(path) if each.name.lower() in SPLIT_OF and each.is_dir()]
    return {SPLIT_OF[each.name.lower()]: each for each in named if _pair(each)}


def _sets(path):
    """The names of the images of every split, as the lists in the folder have them."""
    lists = {file.stem: file for file in _children(path / _SETS) if file.suffix == ".txt"}
    named = {
        name: [*dict.fromkeys(line.strip() for line in read_text(file).splitlines())]
        for name, file in lists.items()
        if name in (*SPLIT_OF, "trainval")
    }
    found = {SPLIT_OF.get(name, name): [*filter(None, stems)] for name, stems in named.items()}
    both = found.pop("trainval", None)
    if both is not None and "train" not in found:
        others = {*found.get("validation", ())}
        found["train"] = [stem for stem in both if stem not in others]
    return found


def _listed(stems, annotations, images, pair, policy, skipped):
    """The images of a split and their boxes."""
    found = Listed([], [])
    for stem in stems:
        file = annotations.get(stem)
        try:
            if file is None:
                raise ValueError(skipped_line(pair[0] / f"{stem}.xml", "there is no such file"))
            name, size, boxes = _read(file, len(found.files))
        except ValueError as error:
            leave_out(str(error), policy, skipped)
            continue
        if size:
            found.sizes[len(found.files)] = size
        found.files.append(images.get(stem) or pair[1] / (name or f"{stem}.jpg"))
        found.boxes.extend(boxes)
    return found


def _read(file, image):
    """The name and size of the image that an annotation is of, and its boxes."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise ValueError(skipped_line(file, f"not XML that can be parsed: {error}")) from error
    boxes = []
    for number, each in enumerate(root.iter("object"), 1):
        place, name = f"object {number}", label(each.findtext("name", ""))
        try:
            numbers = [float(each.findtext(f"bndbox/{corner}", "")) for corner in _CORNERS]
        except ValueError as error:
            reason = f"no numbers {', '.join(_CORNERS)} in the bndbox of {place} ({name})"
            raise ValueError(skipped_line(file, reason)) from error
        if not name:
            raise ValueError(skipped_line(file, f"no name of {place}"))
        ignored = DIFFICULT if each.findtext("difficult", "0").strip() == "1" else 0
        boxes.append(Box(image, numbers, name, ignored, file, place))
    width, height = (root.findtext(f"size/{each}", "").strip() for each in ("width", "height"))
    size = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    return root.findtext("filename", "").strip(), size, boxes


def _unused(annotations, images, named):
    """Lines about images that are in no split."""
    for stem, file in images.items():
        if stem not in named:
            reason = f"in no list of {_SETS}" if stem in annotations else "without an annotation"
            yield skipped_line(file, reason)
