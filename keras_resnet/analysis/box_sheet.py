"""A picture of a detection set."""

import os

import numpy as np
import PIL.Image

from keras_resnet.analysis.drawing import class_colour, draw_boxes
from keras_resnet.analysis.plots import contact_sheet
from keras_resnet.data import Source, boxes

_SIDE = 320  # pixels of an image
_NAMED = 30  # boxes whose names do not hide the image


def box_sheet(
    path: str | os.PathLike, source: Source, per_class: int = 4, *, classes: int = 8
) -> None:
    """Save some training images with each class, and the boxes in them, as a row per class.

    Boxes to ignore are white.

    Parameters
    ----------
    path : path
        The PNG file; replaced if it exists.
    source : Source
        The data, for task "detection".
    per_class : int, default 4
        Images per row, from all over the split.
    classes : int, default 8
        Rows at most. Of more classes, some from all over the list are shown.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from keras_resnet import data
    >>> from keras_resnet.analysis import box_sheet
    >>> split = data.Split(np.zeros((1, 8, 8, 3), "uint8"), np.array([[[1, 1, 6, 5, 0, 0.0]]]))
    >>> source = data.Source("one", ("cat",), 3, 8, "none", split, split, split, task="detection")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     box_sheet(os.path.join(folder, "sheet.png"), source, per_class=1)
    """
    split, count = source.train, len(source.class_names)
    members_of, chosen = boxes.images_with(split.labels, count), []
    for kind in np.linspace(0, count - 1, min(classes, count)).astype(int):
        new = np.setdiff1d(members_of[kind], chosen)
        members = new if len(new) >= per_class else members_of[kind]
        chosen += [*members[np.linspace(0, len(members) - 1, per_class).astype(int)]]
    # A stream keeps its order; the sheet has that of the rows.
    rows = np.unique(chosen)
    few = split.take(rows)
    reader = few.image_set.reader(few.labels, source.channels)
    drawn = {
        row: _drawn(reader.whole(element).numpy(), label.numpy(), source.class_names)
        for row, (element, label) in zip(rows, reader.elements(), strict=True)
    }
    contact_sheet(
        path,
        [drawn[row] for row in chosen],
        [boxes.summary(split.labels[row], source.class_names) for row in chosen],
        columns=per_class,
        side=_SIDE,
    )


def _drawn(image, label, class_names):
    """An image with its boxes, in the size in which it is shown: lines and letters stay sharp."""
    picture = PIL.Image.fromarray(np.repeat(image, 3 // image.shape[2], axis=2))
    scale = _SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    how = PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.BOX
    label = label[boxes.used(label)]
    kinds = label[:, boxes.CLASS].astype(int)
    colours = [
        "white" if ignored else class_colour(kind)
        for kind, ignored in zip(kinds, label[:, boxes.IGNORED], strict=True)
    ]
    names = class_names if len(label) <= _NAMED else [""] * len(class_names)
    return np.asarray(
        draw_boxes(
            picture.resize(size, how),
            label[:, : boxes.CLASS] * np.tile(np.divide(size, picture.size), 2),
            kinds,
            class_names=names,
            colours=colours,
        )
    )
