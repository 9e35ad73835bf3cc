"""What sources of image files with boxes have in common."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet.data.boxes import padded
from keras_resnet.data.images import Header, read_headers
from keras_resnet.data.skipped import skipped_line
from keras_resnet.data.source import Source, Split
from keras_resnet.data.sources.listed import source_of_files
from keras_resnet.data.splitting import SplitPolicy
from keras_resnet.names import some

_MANY = 0.1  # fraction of boxes that cannot all be slips of the hand
_SLACK = 1.0  # pixels by which people round outwards


def _by_size(numbers):
    return np.concatenate([numbers[:, :2], numbers[:, :2] + numbers[:, 2:]], axis=1)


def _by_center(numbers):
    half = numbers[:, 2:] / 2
    return np.concatenate([numbers[:, :2] - half, numbers[:, :2] + half], axis=1)


CORNERS, SIZE = "xmin, ymin, xmax, ymax", "x, y, width, height"
LAYOUTS = {
    CORNERS: lambda numbers: numbers,
    SIZE: _by_size,
    "center x, center y, width, height": _by_center,
    "ymin, xmin, ymax, xmax": lambda numbers: numbers[:, [1, 0, 3, 2]],
}
"""What the four numbers of a box may be: how x1, y1, x2, y2 are made of them."""


class Box(NamedTuple):
    """A box as a file lists it.

    Parameters
    ----------
    image : int
        The index of its image.
    numbers : sequence of float
        Four, as `LAYOUTS` has them.
    name : str
        Its class.
    ignored : bool
        Whether it is neither learned from nor counted.
    file : path
        The file that lists it.
    place : str
        Where in the file it is: "line 7".
    """

    image: int
    numbers: Sequence[float]
    name: str
    ignored: bool
    file: str | os.PathLike
    place: str


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
        Width and height of the images as the boxes were drawn, by their index, where that is known.
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

    A box without an area, or outside of its image, is left out, and one that reaches beyond its
    image is cut at the border; each is named.

    Parameters
    ----------
    path : path
        Where the data was found, for errors.
    name, class_names
        As in `Source`. A class without any box is left out.
    listed : dict of str to Listed
        The splits that there are.
    policy : SplitPolicy
        What to do about the others, and about files that cannot be read.
    layout : str
        A key of `LAYOUTS`.
    first : int, default 0
        The number of the first pixel: 1 where a box of one pixel is from 1 to 1.
    skipped, notes : sequence of str
        Lines that the caller has already.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If the numbers are not what the layout says, or there is no box; and as `source_of_files`
        does.
    """
    where = f"data {str(path)!r}"
    if not any(each.boxes for each in listed.values()):
        raise ValueError(f"{where}: no image has a box, so there is nothing to learn.")
    skipped, drawn = [*skipped], {}
    for split, images in listed.items():
        usable, lines = _usable(images, policy)
        drawn[split] = _Drawn(usable, layout, first)
        skipped += lines
    _check_layout(where, [*drawn.values()], layout)
    names = [name for each in drawn.values() for name in each.names_in_use()]
    kept = [name for name in class_names if name in {*names}]
    notes = [*notes, *_notes_on_boxes([*drawn.values()])]
    if unused := [name for name in class_names if name not in kept]:
        notes.append(f"No box is of {some([*map(repr, unused)])}: left out of the classes.")
    if not kept:
        raise ValueError(f"{where}: no box can be used; the first: {next(_lines(drawn), '')}")
    return source_of_files(
        path,
        name,
        tuple(kept),
        {split: Split(each.listed.files, each.labels(kept)) for split, each in drawn.items()},
        policy,
        "detection",
        skipped=[*skipped, *_lines(drawn)],
        notes=notes,
    )


def _usable(listed, policy):
    """The images that can be read and are as large as they were, with their boxes; other lines."""
    found = read_headers(listed.files, whole=policy.on_error == "skip")
    wrong = {}
    for index, (file, header) in enumerate(zip(listed.files, found, strict=True)):
        if isinstance(header, ValueError):
            wrong[index] = str(header)
        elif reason := _resized(header, listed.sizes.get(index)):
            wrong[index] = skipped_line(file, reason)
    if wrong and policy.on_error == "raise":
        raise ValueError(next(iter(wrong.values())))
    kept = [index for index in range(len(found)) if index not in wrong]
    new = {old: index for index, old in enumerate(kept)}
    boxes = [box._replace(image=new[box.image]) for box in listed.boxes if box.image in new]
    sizes = {new[index]: _size(found[index]) for index in kept}
    return Listed([listed.files[index] for index in kept], boxes, sizes), [*wrong.values()]


def _size(header: Header) -> tuple[int, int]:
    return header.width, header.height


def _resized(header, stated):
    """Why boxes that were drawn into an image of another size do not fit, if so."""
    if not stated or min(stated) < 1 or stated == _size(header):
        return None
    turned = stated == _size(header)[::-1] and header.orientation > 4
    why = (
        f", once it is turned upright as its EXIF orientation, {header.orientation}, says: turn "
        "the boxes, or remove the orientation"
        if turned
        else ": give the boxes of the image as it is"
    )
    return (
        "its boxes are for an image of another size: "
        f"{'x'.join(map(str, stated))}, but it is {header.width}x{header.height}{why}"
    )


class _Drawn:
    """The boxes of some images, in columns, and what is wrong with them."""

    def __init__(self, listed, layout, first):
        boxes = listed.boxes
        self.listed = listed
        self.numbers = np.array([box.numbers for box in boxes], float).reshape(-1, 4)
        self.image = np.array([box.image for box in boxes], int)
        self.sizes = np.array([listed.sizes[index] for index in self.image], float).reshape(-1, 2)
        self.ignored = np.array([box.ignored for box in boxes], bool)
        corners = LAYOUTS[layout](self.numbers).astype("float32")
        self.empty = ~(corners[:, 2:] > corners[:, :2]).all(1)
        corners[:, :2] -= first
        self.corners = np.clip(corners, 0, np.tile(self.sizes, 2)).astype("float32")
        self.outside = ~self.empty & ~(self.corners[:, 2:] > self.corners[:, :2]).all(1)
        self.beyond = np.abs(corners - self.corners).max(1, initial=0)
        self.fine = ~self.empty & ~self.outside

    def names_in_use(self):
        """The classes that are learned."""
        of_use = np.flatnonzero(self.fine & ~self.ignored)
        return {self.listed.boxes[index].name for index in of_use}

    def labels(self, class_names):
        """The labels of the images."""
        number = {name: index for index, name in enumerate(class_names)}
        rows = [[] for _ in self.listed.files]
        for index in np.flatnonzero(self.fine):
            box = self.listed.boxes[index]
            if box.name in number:
                row = (*self.corners[index], number[box.name], box.ignored)
                rows[box.image].append(row)
        return padded(rows)

    def named(self, index):
        """A box in words: what it is, and its numbers."""
        box = self.listed.boxes[index]
        return f"{box.place} ({box.name}), {', '.join(f'{number:g}' for number in box.numbers)}"


def _lines(drawn):
    """A line about every box that is left out."""
    for each in drawn.values():
        for wrong, reason in (
            (each.empty, "a box without an area is left out"),
            (each.outside, "a box outside of its image is left out"),
        ):
            for index in np.flatnonzero(wrong):
                named = each.named(index)
                yield skipped_line(each.listed.boxes[index].file, f"{reason}: {named}")


def _notes_on_boxes(drawn):
    """Lines about boxes that are not used as they are, and images without any."""
    for find, what in (
        (lambda each: each.empty, "without an area: left out"),
        (lambda each: each.outside, "outside of the image: left out"),
        (lambda each: each.fine & (each.beyond > _SLACK), "reaching out of the image: cut there"),
        (lambda each: each.fine & each.ignored, "to ignore (crowded or difficult)"),
    ):
        found = [(each, index) for each in drawn for index in np.flatnonzero(find(each))]
        if found:
            each, index = found[0]
            file = os.fspath(each.listed.boxes[index].file)
            noun = "box" if len(found) == 1 else "boxes"
            yield f"{len(found):,} {noun} {what}; the first is {file!r}, {each.named(index)}."
    bare = [
        file
        for each in drawn
        for index, file in enumerate(each.listed.files)
        if index not in {*each.image[each.fine].tolist()}
    ]
    if bare:
        have = "image has" if len(bare) == 1 else "images have"
        yield f"{len(bare):,} {have} no boxes; the first is {str(bare[0])!r}."


def _check_layout(where, drawn, layout):
    """Raise ValueError for boxes whose four numbers are something else than expected."""
    numbers = np.concatenate([each.numbers for each in drawn])
    sizes = np.concatenate([each.sizes for each in drawn])
    fault = next((each for each in drawn if len(each.numbers)), None)
    if not len(numbers) or fault is None:
        return
    if (np.abs(numbers) <= 1).all() and (sizes > 1).any():
        raise ValueError(
            f"{where}: all boxes are between 0 and 1, such as {fault.named(0)}. Expected {layout} "
            "in pixels: multiply x by the width of the image and y by its height."
        )

    def misfits(layout):
        corners = LAYOUTS[layout](numbers)
        wrong = (corners < -_SLACK) | (corners > np.tile(sizes, 2) + _SLACK)
        return wrong.any(1) | (corners[:, 2:] < corners[:, :2]).any(1)

    counts = Counter({each: int(misfits(each).sum()) for each in LAYOUTS})
    best = min(LAYOUTS, key=counts.__getitem__)
    many = counts[layout] > _MANY * len(numbers)
    if many and counts[best] < counts[layout] / 2:
        each, index = _first(drawn, misfits(layout))
        raise ValueError(
            f"{where}: {counts[layout]:,} of {len(numbers):,} boxes do not fit into their images "
            f"as {layout}, such as {os.fspath(each.listed.boxes[index].file)!r}, "
            f"{each.named(index)}. As {best}, all but {counts[best]:,} do: convert them."
        )
    outside = np.concatenate([each.outside for each in drawn])
    if outside.mean() > _MANY:
        each, index = _first(drawn, outside)
        raise ValueError(
            f"{where}: {outside.sum():,} of {len(numbers):,} boxes are outside of their images, "
            f"such as {os.fspath(each.listed.boxes[index].file)!r}, {each.named(index)}. Perhaps "
            "the images were made smaller since: boxes are in their pixels."
        )


def _first(drawn, wrong):
    """Where the first of some boxes is."""
    index = int(np.argmax(wrong))
    for each in drawn:
        if index < len(each.numbers):
            return each, index
        index -= len(each.numbers)
    raise AssertionError("a box is in one of the splits")
