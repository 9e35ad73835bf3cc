"""Boxes around the objects in images, as the labels of a split.

The labels of an image are rows of `COLUMNS` numbers: x1, y1, x2, y2 in pixels of the upright image
(0 is the left or upper edge of the first pixel, so that x2 - x1 is the width), the class, and 0 or
the reason why training and evaluation ignore the box: `CROWD`, as in COCO, or `DIFFICULT`, as in
VOC.
Images have different numbers of boxes; rows that an image does not need are `UNUSED`.
"""

import json
from collections.abc import Iterable, Sequence

import numpy as np

COLUMNS = 6
CLASS, IGNORED = 4, 5
"""Columns of the class, and of why a box is ignored, if it is."""

CROWD, DIFFICULT = 1, 2
"""Why a box is ignored. By COCO's protocol, a crowd takes any number of detections that are half
inside it or more; a difficult object takes one, by the usual overlap."""

UNUSED = (0, 0, 0, 0, -1, 0)
"""The row where there is no box."""


def used(labels: np.ndarray) -> np.ndarray:
    """Find the rows that are boxes.

    Parameters
    ----------
    labels : array of shape (..., 6)
        The labels.

    Returns
    -------
    bool array of shape (...)
    """
    return labels[..., CLASS] >= 0


def counted(labels: np.ndarray) -> np.ndarray:
    """Find the rows that are boxes and not ignored.

    Parameters
    ----------
    labels : array of shape (..., 6)
        The labels.

    Returns
    -------
    bool array of shape (...)
    """
    return used(labels) & (labels[..., IGNORED] == 0)


def padded(boxes: Iterable[Sequence | np.ndarray], most: int = 0) -> np.ndarray:
    """Put the boxes of images into one array.

    Parameters
    ----------
    boxes : iterable of array of shape (any number, 6)
        The boxes of every image.
    most : int, default 0
        Rows of an image, if that is more than the largest number of boxes, or than 1.

    Returns
    -------
    float32 array of shape (images, rows, 6)

    Examples
    --------
    >>> from keras_resnet.data.boxes import padded
    >>> padded([[(0, 0, 9, 9, 2, 0)], []])[:, :, 4]
    array([[ 2.],
           [-1.]], dtype=float32)
    """
    boxes = [*boxes]
    labels = np.empty((len(boxes), max(1, most, *map(len, boxes)), COLUMNS), "float32")
    labels[:] = UNUSED
    for row, found in zip(labels, boxes, strict=True):
        if len(found):
            row[: len(found)] = found
    return labels


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put labels of images together, whatever the numbers of their rows.

    Parameters
    ----------
    parts : sequence of array of shape (images, rows, 6)
        The labels.

    Returns
    -------
    float32 array of shape (images, rows, 6)
    """
    most = max(part.shape[1] for part in parts)
    return np.concatenate([padded(part, most) for part in parts])


def check_boxes(labels: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """Check the labels of a split.

    Parameters
    ----------
    labels : array
        The labels as a user passed them.
    class_names : tuple of str
        The names of the classes.

    Returns
    -------
    float32 array of shape (images, rows, 6)

    Raises
    ------
    ValueError
        For another shape, or for invalid boxes.
    """
    if not len(labels):
        return padded([])
    if labels.ndim != 3 or labels.shape[2] != COLUMNS:
        raise ValueError(
            f"labels of shape {labels.shape}; task='detection' takes floats of shape (images, "
            f"rows, {COLUMNS}): x1, y1, x2, y2 in pixels, the class, and 1 for a box to ignore."
        )
    if not labels.shape[1]:
        return padded(labels)
    is_box, (x1, y1, x2, y2, kind, ignored) = used(labels), np.moveaxis(labels, -1, 0)
    last = len(class_names) - 1
    for wrong, reason in (
        ((kind != np.round(kind)) | (kind < -1), "the class must be a whole number from 0 on"),
        (kind > last, f"the class is not one of 0 to {last}, for which there are names"),
        (
            ~np.isin(ignored, (0, CROWD, DIFFICULT)),
            f"the last number must be 0, or {CROWD} or {DIFFICULT} for a box to ignore",
        ),
        (~is_box & (labels != UNUSED).any(-1), "a row without a box is 0, 0, 0, 0, -1, 0"),
        (is_box & ((x2 <= x1) | (y2 <= y1)), "x2 must be more than x1, and y2 more than y1"),
        (is_box & ((x1 < 0) | (y1 < 0)), "a box begins at 0 or later, inside the image"),
        (
            is_box & (x2 <= 1) & (y2 <= 1) & (labels[..., :CLASS] % 1 > 0).any(-1),
            "a box of fractions; boxes are in pixels: multiply x by the width of the image and y "
            "by its height",
        ),
    ):
        _raise_for(labels, wrong, reason)
    return labels


def check_inside(labels: np.ndarray, height: int, width: int) -> None:
    """Check that boxes are inside their images, which are of one size.

    Parameters
    ----------
    labels : array of shape (images, rows, 6)
        The labels.
    height, width : int
        Of the images, in pixels.

    Raises
    ------
    ValueError
        For a box that reaches out of its image.
    """
    beyond = used(labels) & ((labels[..., 2] > width) | (labels[..., 3] > height))
    _raise_for(labels, beyond, f"the box reaches out of its image of {width} x {height} pixels")


def _raise_for(labels, wrong, reason):
    """Raise ValueError about the first box that is wrong, if there is one."""
    if wrong.any():
        image, row = map(int, np.argwhere(wrong)[0])
        numbers = ", ".join(f"{number:g}" for number in labels[image, row])
        raise ValueError(f"labels[{image}, {row}]=({numbers}): {reason}.")


def count_boxes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Count the boxes of every class, without ignored ones.

    Parameters
    ----------
    labels : array of shape (images, rows, 6)
        The labels.
    classes : int
        The number of classes.

    Returns
    -------
    int array of shape (classes,)
    """
    return np.bincount(labels[counted(labels)][:, CLASS].astype(int), minlength=classes)


def images_with(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """List the images with boxes of every class, without ignored ones.

    Parameters
    ----------
    labels : array of shape (images, rows, 6)
        The labels.
    classes : int
        The number of classes.

    Returns
    -------
    list of int array
        The indices of the images, ascending.
    """
    image, row = np.nonzero(counted(labels))
    kinds = labels[image, row, CLASS]
    return [np.unique(image[kinds == kind]) for kind in range(classes)]


def write_boxes(label: np.ndarray, class_names: Sequence[str]) -> str:
    """Write the boxes of an image as text, which `read_boxes` reads.

    Parameters
    ----------
    label : array of shape (rows, 6)
        The labels of the image.
    class_names : sequence of str
        The names of the classes.

    Returns
    -------
    str
        JSON: [x1, y1, x2, y2, name] for every box, with the reason at the end of one to ignore.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.data.boxes import write_boxes
    >>> write_boxes(np.array([[0, 0, 9, 4.5, 1, 0]], "float32"), ("cat", "dog"))
    '[[0, 0, 9, 4.5, "dog"]]'
    """
    listed = [
        [
            *map(_number, box[:CLASS]),
            class_names[int(box[CLASS])],
            *filter(None, [int(box[IGNORED])]),
        ]
        for box in label[used(label)]
    ]
    return json.dumps(listed, ensure_ascii=False)


def _number(number):
    """A float32 in as few digits as identify it."""
    return int(number) if number == int(number) else float(str(number))


def read_boxes(texts: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Read the boxes of images that `write_boxes` wrote.

    Parameters
    ----------
    texts : sequence of str
        A text for each image.
    class_names : sequence of str
        The names of the classes.

    Returns
    -------
    float32 array of shape (images, rows, 6)

    Raises
    ------
    ValueError
        For anything else, and for names that are none of the classes.
    """
    index_of = {name: index for index, name in enumerate(class_names)}

    def boxes(text):
        try:
            for *corners, name, ignored in ([*box, 0][:6] for box in json.loads(text)):
                x1, y1, x2, y2 = map(float, corners)
                yield x1, y1, x2, y2, index_of[name], int(ignored)
        except KeyError as error:
            raise ValueError(f"label {error} is not one of {', '.join(class_names)}.") from error
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"label {text[:80]!r} is not a list of boxes, [[x1, y1, x2, y2, name], ...]."
            ) from error

    return padded([[*boxes(text)] for text in texts])


def summary(label: np.ndarray, class_names: Sequence[str]) -> str:
    """Summarize the boxes of an image.

    Parameters
    ----------
    label : array of shape (rows, 6)
        The labels of the image.
    class_names : sequence of str
        The names of the classes.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.data.boxes import summary
    >>> summary(np.array([[0, 0, 9, 4, 1, 0], [4, 4, 8, 8, 1, 0]]), ("cat", "dog"))
    '2 dog'
    """
    kinds, counts = np.unique(label[used(label)][:, CLASS].astype(int), return_counts=True)
    found = (f"{count} {class_names[kind]}" for kind, count in zip(kinds, counts, strict=True))
    return ", ".join(found) or "no boxes"
