"""Pictures of images and of training curves, as PNG files."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.analysis.evaluation import (
    Evaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
)
from keras_resnet.data import Source, batches
from keras_resnet.files import written_beside
from keras_resnet.training.tasks import task_of

RIGHT, WRONG = "#1a7f37", "#cf222e"


def contact_sheet(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    right: Sequence[bool] | np.ndarray | None = None,
    columns: int = 8,
) -> None:
    """Save images with captions as one PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    images : sequence of array of shape (height, width, 1 or 3)
        Images of 0 to 255.
    captions : sequence of str
        A line or two for each image.
    right : sequence or array of bool, optional
        Whether each caption is right: it is set in green or in red. Default: all in black.
    columns : int, default 8
        Images per row.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from keras_resnet.analysis import contact_sheet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     contact_sheet(os.path.join(folder, "sheet.png"), [np.zeros((8, 8, 1))], ["a zero"])
    ...     os.listdir(folder)
    ['sheet.png']
    """
    rows = -(-len(images) // columns)
    figure, axes = _figure(rows, columns, figsize=(1.5 * columns, 1.8 * rows))
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (axis, image, caption) in enumerate(zip(axes.flat, images, captions, strict=False)):
        pixels = np.clip(np.asarray(image), 0, 255).astype("uint8")
        axis.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray")
        colour = "black" if right is None else RIGHT if right[index] else WRONG
        axis.set_title(caption, fontsize=9, color=colour)
    _save(figure, path)


def prediction_sheet(
    path: str | os.PathLike,
    dataset: tf.data.Dataset,
    evaluation: Evaluation | MultiLabelEvaluation | RegressionEvaluation,
    count: int = 32,
) -> None:
    """Save evaluated images with their predictions, the worst mistakes first.

    Parameters
    ----------
    path : path
        The PNG file; replaced if it exists.
    dataset : tf.data.Dataset
        The batches of (images, labels) that were evaluated, in the same order.
    evaluation : Evaluation, MultiLabelEvaluation or RegressionEvaluation
        Their evaluation.
    count : int, default 32
        Images on the sheet.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, tensorflow as tf
    >>> from keras_resnet.analysis import Evaluation, prediction_sheet
    >>> images, labels = np.zeros((2, 8, 8, 1)), np.array([0, 1])
    >>> quality = Evaluation(labels, np.eye(2), ("cat", "dog"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    ...     prediction_sheet(os.path.join(folder, "sheet.png"), dataset, quality)
    """
    shown = evaluation.order()[:count]
    images: dict[int, Any] = dict.fromkeys(shown)
    for index, (image, _) in enumerate(dataset.unbatch().take(max(shown) + 1)):
        if index in images:
            images[index] = image.numpy()
    captions = [evaluation.caption(index) for index in shown]
    right = None if evaluation.right is None else evaluation.right[shown]
    contact_sheet(path, list(images.values()), captions, right)


def training_curves(
    path: str | os.PathLike,
    history: Mapping[str, Sequence[float]],
    stages: Mapping[str, int] | None = None,
) -> None:
    """Save loss and metrics over the epochs as one PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    history : mapping of str to sequence of float
        "loss" and metrics for every epoch, as in `Result.history`: those of the validation images
        have "val_" in front of their names.
    stages : mapping of str to int, optional
        Epochs of every stage of the training. A line marks where each begins.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet.analysis import training_curves
    >>> names = ("loss", "val_loss", "accuracy", "val_accuracy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training_curves(os.path.join(folder, "curves.png"), {name: [1, 2] for name in names})
    """
    metrics = [name for name in history if not name.startswith("val_")]
    figure, axes = _figure(1, len(metrics), figsize=(5 * len(metrics), 4))
    for axis, metric in zip(axes.flat, metrics, strict=True):
        epochs = range(1, len(history[metric]) + 1)
        axis.plot(epochs, history[metric], label="training")
        if f"val_{metric}" in history:
            axis.plot(epochs, history[f"val_{metric}"], label="validation")
        first = 1
        for stage, count in (stages or {}).items():
            axis.axvline(first - 0.5, color="grey", linewidth=0.8, linestyle=":")
            axis.annotate(stage, (first, 1), xycoords=("data", "axes fraction"), fontsize=8)
            first += count
        axis.set_xlabel("epoch")
        axis.set_ylabel(metric.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def _figure(rows, columns, figsize):
    # Without pyplot, the user's windows and settings are left alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="tight")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path):
    with written_beside(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def class_sheet(path: str | os.PathLike, source: Source, per_class: int = 8) -> None:
    """Save some training images of every class, as a row per class.

    With several labels per image there is a row per label, and with numbers there are four rows of
    images in the order of their values.

    Parameters
    ----------
    path : path
        The PNG file; replaced if it exists.
    source : Source
        The data.
    per_class : int, default 8
        Images per row, from all over the split.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet import data
    >>> from keras_resnet.analysis import class_sheet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     class_sheet(os.path.join(folder, "sheet.png"), data.load("digits"), per_class=2)
    """
    chosen, describe = [], task_of(source).describe
    for members in _ROWS[source.task](source):
        chosen += [*members[np.linspace(0, len(members) - 1, per_class).astype(int)]]
    side = min(source.image_size, 96)
    # A stream keeps its order; the sheet has that of the rows.
    rows = sorted(set(chosen))
    dataset = batches(source.train.take(np.array(rows)), image_size=side, channels=source.channels)
    images = dict(zip(rows, dataset.unbatch(), strict=True))
    contact_sheet(
        path,
        [images[index][0].numpy() for index in chosen],
        [describe(source.train.labels[index], source.class_names) for index in chosen],
        columns=per_class,
    )


def _rows_of_classes(source):
    labels = source.train.labels
    return [np.flatnonzero(labels == label) for label in range(len(source.class_names))]


def _rows_of_labels(source):
    return [np.flatnonzero(column > 0.5) for column in source.train.labels.T]


def _rows_of_values(source):
    values = source.train.labels.reshape(len(source.train), -1)[:, 0]
    rows = np.array_split(np.argsort(values, kind="stable"), 4)
    return [row for row in rows if len(row)]


_ROWS = {
    "classification": _rows_of_classes,
    "multilabel": _rows_of_labels,
    "regression": _rows_of_values,
}
