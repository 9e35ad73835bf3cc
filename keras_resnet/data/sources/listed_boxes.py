"""What sources of image files with boxes have in common."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet.data.boxes import padded, used
from keras_resnet.data.images import Header, read_headers
from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import SplitPolicy
from keras_resnet.names import some

# Fractions of the boxes that are no slips of the hand: of any number, and of two or more.
_MANY, _SOME = 0.1, 0.01
_SLACK = 1.0  # pixels by which people and programs round outwards


def _by_size(numbers):
    return np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], axis=1)


def _by_center(numbers):
    half = numbers[:, 2:] / 2
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


CORNERS, SIZE = "xmin, ymin, xmax, ymax", "x, y, width, height"
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    CORNERS: lambda numbers: numbers,
    SIZE: _by_size,
    "center x, center y, width, height": _by_center,
    "ymin, xmin, ymax, xmax": lambda numbers: numbers[:, [1, 0, 3, 2]],
}
"""What the four numbers of a box may be, and how x1, y1, x2, y2 are made of them."""


class Box(NamedTuple):
    """A box as a file lists it.

    Parameters
    ----------
    image : int
        The index of its image.
    numbers : sequence of float
        Four, in one of the `LAYOUTS`.
    name : str
        Its class.
    ignored : int
        0, or why it is neither learned from nor counted: `boxes.CROWD` or `boxes.DIFFICULT`.
    file : path
        The file that lists it.
    place : str
        Where in that file: "line 7".
    """

    image: int
    numbers: Sequence[float]
    name: str
    ignored: int
    file: str | os.PathLike
    place: str

    def __str__(self):
        numbers = ", ".join(f"{number:g}" for number in self.numbers)
        return f"{self.place} ({self.name}), {numbers}"


@dataclass(frozen=True)
class Listed:
    """The images of a split, and the boxes in them.

    Parameters
    ----------
    files : list of path
        The images.
    boxes : list of Box
        Their boxes.
    sizes : dict of int to (int, int)
        Width and height of images as the boxes were drawn, by index, where the file says so.
    """

    files: list[Path]
    boxes: list[Box]
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)


def source_of_boxes(
    path: str | os.PathLike,
    name: str,
    class_names: Sequence[str],
    listed: dict[str, Listed],
    policy: SplitPolicy,
    layout: str = CORNERS,
    *,
    first: int = 0,
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Source:
    """Make a source of images with boxes.

    One bad box does not spoil a data set: a box without an area, or outside of its image, is left
    out, and one that reaches out of its image is cut at the border. All are named in
    `Source.skipped`. Where many are bad, they are something else than expected: an error.

    Parameters
    ----------
    path : path
        Where the data was found, for errors.
    name, class_names
        As in `Source`. A class without a box in any split is left out.
    listed : dict of str to Listed
        The splits that there are.
    policy : SplitPolicy
        What to do about the others, and about images that cannot be read.
    layout : str
        What the numbers of a box are: a key of `LAYOUTS`.
    first : int, default 0
        The number of the first pixel: 1 where a box of one pixel goes from 1 to 1.
    skipped, notes : sequence of str
        Lines that the caller has already.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there is no box, if the numbers are not what the layout says, for images of another size
        than the boxes were drawn in; and as `source_of_files` does.
    """
    where, skipped = f"data {str(path)!r}", [*skipped]
    usable = {split: _usable(images, policy, skipped) for split, images in listed.items()}
    boxes = [box for images in usable.values() for box in images.boxes]
    if not boxes:
        raise ValueError(f"{where}: no image has a box, so there is nothing to learn.")
    numbers = np.array([box.numbers for box in boxes], "float64")
    sizes = np.array(
        [images.sizes[box.image] for images in usable.values() for box in images.boxes], "float64"
    )
    _check_layout(where, boxes, numbers, sizes, layout)
    corners, faults = _fitted(numbers, sizes, layout, first)
    _check_inside(where, boxes, faults)
    fine = ~np.any([faults[fault] for fault, fate in _FAULTS.items() if fate == _LEFT_OUT], axis=0)
    learned = {box.name for box, good in zip(boxes, fine, strict=True) if good and not box.ignored}
    kept = [each for each in class_names if each in learned]
    if not kept:
        raise ValueError(
            f"{where}: none of its {len(boxes):,} boxes can be learned from; the first is "
            f"{_named(boxes[0])}."
        )
    found, bare = {}, []
    ends = np.cumsum([len(images.boxes) for images in usable.values()])[:-1]
    of_splits = zip(usable.items(), np.split(corners, ends), np.split(fine, ends), strict=True)
    for (split, images), inside, good in of_splits:
        labels = _labels(images, inside, good, kept)
        bare += [images.files[index] for index in np.flatnonzero(~used(labels).any(1))]
        found[split] = Split(images.files, labels)
    return source_of_files(
        path,
        name,
        tuple(kept),
        found,
        policy,
        "detection",
        skipped=[*skipped, *_lines(boxes, faults)],
        notes=[
            *notes,
            *_notes_on_boxes(boxes, faults),
            *_notes_on_images(bare),
            *_notes_on_classes([each for each in class_names if each not in kept]),
        ],
    )


def _usable(listed, policy, skipped):
    """The images that can be read and have the size that they had, with their boxes."""
    found = read_headers(listed.files, whole=policy.on_error == "skip")
    wrong, sizes = {}, {}
    for index, (file, header) in enumerate(zip(listed.files, found, strict=True)):
        if isinstance(header, ValueError):
            wrong[index] = str(header)
        elif reason := _resized(header, listed.sizes.get(index)):
            wrong[index] = skipped_line(file, reason)
        else:
            sizes[index] = _size(header)
    for line in wrong.values():
        leave_out(line, policy, skipped)
    new = {index: place for place, index in enumerate(sizes)}
    return Listed(
        [listed.files[index] for index in sizes],
        [box._replace(image=new[box.image]) for box in listed.boxes if box.image in new],
        {new[index]: size for index, size in sizes.items()},
    )


def leave_out(line: str, policy: SplitPolicy, skipped: list[str]) -> None:
    """Raise ValueError about something, or add a line about it to those of `Source.skipped`.

    Parameters
    ----------
    line : str
        What is wrong.
    policy : SplitPolicy
        Its `on_error` decides.
    skipped : list of str
        The lines.
    """
    if policy.on_error == "raise":
        raise ValueError(line)
    skipped.append(line)


def _size(header: Header) -> tuple[int, int]:
    return header.width, header.height


def _resized(header, drawn_in):
    """Why boxes that were drawn in an image of another size do not fit, if so."""
    if not drawn_in or min(drawn_in) < 1 or drawn_in == _size(header):
        return None
    turned = drawn_in == _size(header)[::-1] and header.orientation > 4
    why = (
        f" once it is upright, as its EXIF orientation {header.orientation} says: turn the boxes "
        "too, or remove the orientation"
        if turned
        else ": give the boxes in its pixels"
    )
    sizes = ("x".join(map(str, size)) for size in (drawn_in, _size(header)))
    return "boxes of an image of another size: they are for {}, it is {}".format(*sizes) + why


def _check_layout(where, boxes, numbers, sizes, layout):
    """Raise ValueError for boxes whose four numbers are something else than expected."""
    if ((numbers >= 0) & (numbers <= 1)).all() and sizes.max() > 1:
        raise ValueError(
            f"{where}: all boxes are between 0 and 1, such as {_named(boxes[0])}. Expected "
            f"{layout} in pixels: multiply x by the width of the image and y by its height."
        )
    misfits = {}
    for name, corners_of in LAYOUTS.items():
        with np.errstate(over="ignore", invalid="ignore"):
            corners = corners_of(numbers)
        beyond = (corners < -_SLACK) | (corners > np.tile(sizes, 2) + _SLACK)
        misfits[name] = beyond.any(1) | (corners[:, 2:] < corners[:, :2]).any(1)
    counts = {name: int(found.sum()) for name, found in misfits.items()}
    best = min(counts, key=counts.__getitem__)
    # Corners hardly ever fit as something else: x1 + x2 is beyond the image for half of them.
    several = min(_MANY * len(boxes), max(1, _SOME * len(boxes)))
    if counts[layout] > several and counts[best] < counts[layout] / 2:
        all_but = f"all but {counts[best]:,}" if counts[best] else "all"
        raise ValueError(
            f"{where}: {counts[layout]:,} of {len(boxes):,} boxes do not fit into their images as "
            f"{layout}, such as {_named(boxes[int(misfits[layout].argmax())])}. As {best}, "
            f"{all_but} do: convert them."
        )


def _check_inside(where, boxes, faults):
    """Raise ValueError if many boxes are fractions, or outside of their images."""
    fractions = faults[_FRACTIONS]
    if fractions.mean() > _MANY:
        raise ValueError(
            f"{where}: {fractions.sum():,} of {len(boxes):,} boxes are between 0 and 1, such as "
            f"{_named(boxes[int(fractions.argmax())])}. Boxes are in pixels: multiply x by the "
            "width of the image and y by its height."
        )
    outside = faults[_OUTSIDE]
    if outside.mean() > _MANY:
        raise ValueError(
            f"{where}: {outside.sum():,} of {len(boxes):,} boxes are outside of their images, such "
            f"as {_named(boxes[int(outside.argmax())])}. Have the images been made smaller since? "
            "Boxes are in their pixels."
        )


_LEFT_OUT = "left out"
_FRACTIONS = "of fractions, not of pixels"
_OUTSIDE, _BEYOND = "outside of the image", "reaching out of the image"
_FAULTS = {
    "of numbers that are not finite": _LEFT_OUT,
    _FRACTIONS: _LEFT_OUT,
    "without an area": _LEFT_OUT,
    _OUTSIDE: _LEFT_OUT,
    _BEYOND: "cut at the border",
}
"""What may be wrong with a box, and what becomes of it."""


def _fitted(numbers, sizes, layout, first):
    """The corners of boxes inside their images, and which boxes have each of the faults."""
    with np.errstate(over="ignore", invalid="ignore"):
        corners = LAYOUTS[layout](numbers).astype("float32")
        fraction = ((numbers >= 0) & (numbers <= 1)).all(1) & (numbers % 1 > 0).any(1)
    finite, fraction = np.isfinite(corners).all(1), fraction & (sizes > 1).any(1)
    empty = ~(corners[:, 2:] > corners[:, :2]).all(1)  # as the file has them
    corners[:, :2] -= first
    cut = np.clip(np.nan_to_num(corners), 0, np.tile(sizes, 2)).astype("float32")
    outside = ~(cut[:, 2:] > cut[:, :2]).all(1)
    far = (np.abs(cut - corners) > _SLACK).any(1)
    found, rest = {}, np.ones(len(cut), bool)
    for fault, wrong in zip(_FAULTS, (~finite, fraction, empty, outside, far), strict=True):
        found[fault] = rest & wrong
        rest &= ~wrong
    return cut, found


def _labels(listed, corners, fine, class_names):
    """The labels of the images of a split."""
    number_of = {name: number for number, name in enumerate(class_names)}
    rows = [[] for _ in listed.files]
    for box, corner, good in zip(listed.boxes, corners.tolist(), fine, strict=True):
        if good and box.name in number_of:
            rows[box.image].append((*corner, number_of[box.name], box.ignored))
    return padded(rows)


def _named(box):
    """What to call a box in an error."""
    return f"{os.fspath(box.file)!r}, {box}"


def _lines(boxes, faults):
    """A line about every box that has a fault."""
    for fault, fate in _FAULTS.items():
        for index in np.flatnonzero(faults[fault]):
            yield skipped_line(boxes[index].file, f"a box {fault}, {fate}: {boxes[index]}")


def _notes_on_boxes(boxes, faults):
    """Lines about boxes that are not used as they are."""
    ignored = np.array([box.ignored > 0 for box in boxes], bool)
    what = {f"{fault}, {fate}": faults[fault] for fault, fate in _FAULTS.items()}
    what["of a crowd or a difficult object, not learned and not counted"] = ignored
    for text, found in what.items():
        if count := int(found.sum()):
            noun = "box" if count == 1 else "boxes"
            yield f"{count:,} {noun} {text}; the first is {_named(boxes[int(found.argmax())])}."


def _notes_on_images(bare):
    """A line about images without boxes."""
    if bare:
        have = "image has" if len(bare) == 1 else "images have"
        yield f"{len(bare):,} {have} no boxes; the first is {os.fspath(bare[0])!r}."


def _notes_on_classes(unused):
    """A line about classes that no box is of."""
    if unused:
        yield f"No box to learn from is of {some([*map(repr, unused)])}: not among the classes."
