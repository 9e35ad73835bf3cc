"""Pictures of how a detector does, as PNG files."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.analysis import contact_sheet, draw_boxes
from keras_resnet.analysis.drawing import class_colour
from keras_resnet.analysis.plots import save_figure
from keras_resnet.data import Split
from keras_resnet.detection.batches import batches
from keras_resnet.detection.errors import Errors
from keras_resnet.detection.protocol import table_of_truths

if TYPE_CHECKING:
    from keras_resnet.detection.evaluation import DetectionEvaluation

_SIDE, _COLUMNS = 220, 6  # of a sheet
_AROUND = 0.6  # what is shown on each side of a box, as a fraction of the larger of its sides
_SMALLEST = 48  # pixels of an image that are shown at least
_NAMED = 10  # curves in colours of their own
_OBJECT, _DETECTION = "#00c000", "#ff2020"
_BESIDE = {"misclassified": "is", "both": "near"}  # an object of another class


def precision_recall(path: str | os.PathLike, evaluation: "DetectionEvaluation") -> None:
    """Save the curves of precision over recall as one PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    evaluation : DetectionEvaluation
        Detections. Up to ten classes get a curve each, at overlaps of .5 (with a dot where F1 is
        best) and .75 (dotted); with more, the mean is drawn over the curves of all in grey.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from keras_resnet.detection import DetectionEvaluation
    >>> from keras_resnet.detection.plots import precision_recall
    >>> found = [{"boxes": [[10, 10, 50, 40]], "scores": [0.9], "labels": [0]}]
    >>> quality = DetectionEvaluation(np.array([[[10, 10, 50, 50, 0, 0]]]), found, ("cell",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     precision_recall(os.path.join(folder, "curves.png"), quality)
    ...     os.listdir(folder)
    ['curves.png']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5), layout="tight")
    axis = figure.subplots()
    scores = evaluation.per_class()
    curves, strict = evaluation.curves(0.5), evaluation.curves(0.75)
    few = len(curves) <= _NAMED
    for name, curve in curves.items():
        label = evaluation.class_names.index(name)
        style: dict[str, Any] = (
            dict(color=class_colour(label)) if few else dict(color="0.8", linewidth=0.7)
        )
        text = f"{name}, AP50 {scores[name]['AP50']:.3f}" if few else None
        axis.plot(curve["recall"], curve["precision"], label=text, **style)
        if few:
            axis.plot(curve["recall"], strict[name]["precision"], linestyle=":", **style)
            best = scores[name]
            axis.plot(best["recall"], best["precision"], "o", markersize=5, **style)
    if not few:
        mean = np.mean([curve["precision"] for curve in curves.values()], axis=0)
        text = f"mean of {len(curves)} classes, AP50 {mean.mean():.3f}"
        axis.plot(np.linspace(0, 1, len(mean)), mean, color="black", label=text)
    axis.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axis.grid(alpha=0.3)
    if curves:
        axis.legend(loc="lower left")
    save_figure(figure, path)


def error_sheet(
    path: str | os.PathLike,
    split: Split,
    evaluation: "DetectionEvaluation",
    count: int = 24,
    *,
    score: float = 0.5,
) -> None:
    """Save a sheet of missed objects and false detections as one PNG file, the worst first.

    Missed objects come first, the largest at the top; then false detections, those with the
    highest scores first. Objects are green, detections red.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    split : Split
        The images that were evaluated.
    evaluation : DetectionEvaluation
        What was found in them.
    count : int, default 24
        Errors on the sheet.
    score : float, default 0.5
        Detections of lower scores are left out.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from keras_resnet import data
    >>> from keras_resnet.detection import DetectionEvaluation, error_sheet
    >>> labels = np.array([[[10, 10, 50, 50, 0, 0]]], "float32")
    >>> split = data.Split(np.zeros((1, 60, 60, 3), "uint8"), labels)
    >>> found = [{"boxes": np.zeros((0, 4)), "scores": [], "labels": []}]
    >>> quality = DetectionEvaluation(labels, found, ("cell",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     error_sheet(os.path.join(folder, "errors.png"), split, quality)
    ...     os.listdir(folder)
    ['errors.png']
    """
    errors = evaluation.errors(score)
    truths = table_of_truths(evaluation.labels)
    shown = _worst(errors, truths, count)
    wanted = np.unique(errors.images[shown])
    tiles = {}
    if len(wanted):
        dataset = batches(split.take(wanted), batch_size=1).as_numpy_iterator()
        for image, (inputs, _) in zip(wanted, dataset, strict=True):
            for index in shown[errors.images[shown] == image]:
                tiles[index] = _crop(inputs["images"][0], errors, index, truths)
    captions = [_caption(errors, index, truths, evaluation) for index in shown]
    if not captions:
        tiles, captions = {0: np.full((_SIDE, _SIDE, 3), 255)}, ["no errors"]
        shown = [0]
    contact_sheet(path, [tiles[index] for index in shown], captions, columns=_COLUMNS, side=_SIDE)


def _worst(errors: Errors, truths, count):
    """The errors to show: what was missed, then what was falsely found."""
    missed = np.flatnonzero(errors.kinds == "missed")
    boxes = truths["boxes"][errors.truths[missed]]
    missed = missed[np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")]
    false = np.flatnonzero(errors.kinds != "missed")
    false = false[np.argsort(-errors.scores[false], kind="stable")]
    rest = count - min(len(missed), max(count // 2, count - len(false)))
    return np.concatenate([missed[: count - rest], false[:rest]])


def _crop(image, errors, index, truths):
    """The place of an error in an image, with the boxes drawn."""
    boxes, colours = [], []
    if errors.truths[index] >= 0:
        boxes, colours = [truths["boxes"][errors.truths[index]]], [_OBJECT]
    if errors.detections[index] >= 0:
        boxes, colours = [*boxes, errors.boxes[index]], [*colours, _DETECTION]
    boxes = np.array(boxes)
    low, high = window(boxes, image.shape)
    tile = draw_boxes(image[low[1] : high[1], low[0] : high[0]], np.zeros((0, 4)))
    scale = _SIDE / max(tile.size)
    tile = tile.resize([max(1, round(side * scale)) for side in tile.size])
    drawn = draw_boxes(tile, (boxes - np.tile(low, 2)) * scale, colours=colours)
    return np.asarray(drawn)


def window(boxes: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Choose what to show of an image around some boxes.

    Parameters
    ----------
    boxes : array of shape (boxes, 4)
        x1, y1, x2, y2 in pixels.
    shape : sequence of int
        Height and width of the image, in pixels, and its channels.

    Returns
    -------
    low, high : int array of shape (2,)
        x and y of the corners: `image[low[1] : high[1], low[0] : high[0]]` is shown.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.detection.plots import window
    >>> [corner.tolist() for corner in window(np.array([[100, 100, 200, 200]]), (300, 400, 3))]
    [[40, 40], [260, 260]]
    """
    corners = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    middle, sides = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
    half = max(sides.max() / 2 + _AROUND * sides.max(), _SMALLEST / 2)
    limits = np.array(shape[1::-1])
    low = np.clip(np.floor(middle - half), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(middle + half), low + 1, limits).astype(int)
    return low, high


def _caption(errors, index, truths, evaluation):
    """What is wrong, and in which image."""
    names, kind, truth = evaluation.class_names, errors.kinds[index], errors.truths[index]
    what = names[errors.labels[index]]
    if kind != "missed":
        what = f"{what} {errors.scores[index]:.2f}"
    if kind in _BESIDE:
        what = f"{what}, {_BESIDE[kind]} {names[truths['labels'][truth]]}"
    else:
        what = f"{kind}: {what}"
    where = evaluation.image_ids[errors.images[index]]
    return f"{what}\n{f'image {where}' if isinstance(where, int) else where}"
