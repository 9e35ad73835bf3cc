"""Folders laid out like Pascal VOC: JPEGImages, Annotations, and ImageSets/Main."""

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from keras_resnet.data.images import IMAGE_SUFFIXES
from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import SPLIT_OF, Source
from keras_resnet.data.sources.listed_boxes import Box, Listed, source_of_boxes
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy
from keras_resnet.files import read_text
from keras_resnet.names import label

_ANNOTATIONS, _IMAGES, _SETS = "Annotations", "JPEGImages", "ImageSets/Main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


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
        The folder: Annotations has an XML file for every image in JPEGImages. Where there are
        train.txt, val.txt and test.txt in ImageSets/Main, these are the splits; of a trainval.txt
        without the former two, some are held out for validation. Pixels are counted from 1, as in
        Pascal VOC, unless a box begins at 0. Difficult objects are neither learned nor counted.
    seed : int, default 0
        Seed of the split, for what is not split on disk.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source
        Boxes without an area, or outside of their image, are left out: `Source.skipped` names them.

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
    return any(each.suffix == ".xml" for each in _entries(Path(path) / _ANNOTATIONS))


def read_voc(path: str | os.PathLike, policy: SplitPolicy) -> Source:
    """Do what `voc` does, with a policy."""
    path = Path(path)
    images = {each.stem: each for each in _entries(path / _IMAGES) if _is_image(each)}
    annotated = {each.stem: each for each in _entries(path / _ANNOTATIONS) if each.suffix == ".xml"}
    sets = _sets(path, annotated)
    listed, skipped = {}, []
    for split, names in sets.items():
        there = [name for name in names if name in annotated]
        for name in names:
            if name not in annotated:
                line = skipped_line(path / _ANNOTATIONS / f"{name}.xml", "there is no such file")
                if policy.on_error == "raise":
                    raise ValueError(line)
                skipped.append(line)
        files = [images.get(name, path / _IMAGES / f"{name}.jpg") for name in there]
        boxes, sizes = [], {}
        for index, name in enumerate(there):
            size, found = _objects(annotated[name], index)
            boxes += found
            if size:
                sizes[index] = size
        listed[split] = Listed(files, boxes, sizes)
    used = {name for names in sets.values() for name in names}
    skipped += [
        skipped_line(file, "in none of the lists of ImageSets" if name in annotated else "no boxes")
        for name, file in images.items()
        if name not in used
    ]
    found = [box for each in listed.values() for box in each.boxes]
    first = 0 if any(0 <= min(box.numbers[:2]) < 1 for box in found) else 1
    return source_of_boxes(
        path,
        path.resolve().name,
        sorted({box.name for box in found}),
        listed,
        policy,
        first=first,
        skipped=skipped,
        notes=[] if first else ["A box begins at 0, so pixels are counted from 0, not from 1."],
    )


def _entries(folder):
    """What is in a folder, sorted."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_image(file):
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def _sets(path, annotated):
    """The names of the images of every split."""
    found = {
        SPLIT_OF.get(file.stem.lower(), file.stem.lower()): [
            line.split()[0] for line in read_text(file).splitlines() if line.strip()
        ]
        for file in _entries(path / _SETS)
        if file.suffix == ".txt" and file.stem.lower() in (*SPLIT_OF, "trainval")
    }
    whole = found.pop("trainval", None)
    if "train" not in found and whole is not None:
        found["train"] = [name for name in whole if name not in {*found.get("validation", ())}]
    if found and "train" not in found:
        raise ValueError(f"data {str(path)!r}: no train.txt or trainval.txt in {_SETS}.")
    return found or {"train": [*annotated]}


def _objects(file, image):
    """The size that a file states, and its boxes."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise ValueError(f"{str(file)!r} is not XML that can be read: {error}.") from error
    boxes = []
    for number, each in enumerate(root.iter("object"), 1):
        place, box = f"object {number}", each.find("bndbox")
        name = label(each.findtext("name", ""))
        try:
            numbers = [float(box.findtext(corner)) for corner in _CORNERS]
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{str(file)!r}, {place} ({name}): no numbers {', '.join(_CORNERS)} in a bndbox."
            ) from error
        if not name:
            raise ValueError(f"{str(file)!r}, {place}: no name.")
        difficult = each.findtext("difficult", "0").strip() == "1"
        boxes.append(Box(image, numbers, name, difficult, file, place))
    size = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    return tuple(map(int, size)) if all(map(str.isdigit, size)) else None, boxes
