"""Pictures of images and of training, as PNG files."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.analysis.report import Evaluation
from keras_resnet.data import Source, batches
from keras_resnet.files import written_beside

RIGHT, WRONG = "#1a7f37", "#cf222e"


def contact_sheet(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    right: Sequence[bool] | None = None,
    columns: int = 8,
) -> None:
    """Save images with captions as one PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it is there.
    images : sequence of array of shape (height, width, 1 or 3)
        Images of 0 to 255.
    captions : sequence of str
        A line or two for each image.
    right : sequence of bool, optional
        Whether the caption is right: sets it in green, or in red.
    columns : int, default 8
        Images in a row.

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
    evaluation: Evaluation,
    count: int = 32,
) -> None:
    """Save evaluated images with what they were taken for, the worst mistakes first.

    Parameters
    ----------
    path : path
        The PNG file; replaced if it is there.
    dataset : tf.data.Dataset
        The batches of (images, labels) that were evaluated, in the same order.
    evaluation : Evaluation
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
    right = evaluation.predictions == evaluation.labels
    sureness = evaluation.probabilities.max(axis=-1)
    # The surest mistakes first, then what was nearly one.
    shown = np.argsort(np.where(right, 1 + sureness, -sureness), kind="stable")[:count]
    images = dict.fromkeys(shown)
    for index, (image, _) in enumerate(dataset.unbatch().take(max(shown) + 1)):
        if index in images:
            images[index] = image.numpy()
    captions = [
        f"{evaluation.class_names[evaluation.predictions[index]]} "
        f"({evaluation.probabilities[index].max():.0%})"
        + ("" if right[index] else f"\nis {evaluation.class_names[evaluation.labels[index]]}")
        for index in shown
    ]
    contact_sheet(path, list(images.values()), captions, right[shown])


def training_curves(
    path: str | os.PathLike,
    history: Mapping[str, Sequence[float]],
    stages: Mapping[str, int] | None = None,
) -> None:
    """Save loss and accuracy over the epochs as one PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it is there.
    history : mapping of str to sequence of float
        "loss" and "accuracy" of every epoch, and "val_loss" and "val_accuracy", if there are any.
    stages : mapping of str to int, optional
        Epochs of every stage of the training; a line is drawn where one begins.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet.analysis import training_curves
    >>> names = ("loss", "val_loss", "accuracy", "val_accuracy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     training_curves(os.path.join(folder, "curves.png"), {name: [1, 2] for name in names})
    """
    figure, axes = _figure(1, 2, figsize=(10, 4))
    for axis, metric in zip(axes.flat, ("loss", "accuracy"), strict=True):
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
        axis.set_ylabel(metric)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def _figure(rows, columns, figsize):
    # A figure of its own, without pyplot, leaves the user's windows and settings alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="tight")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path):
    with written_beside(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def class_sheet(path: str | os.PathLike, source: Source, per_class: int = 8) -> None:
    """Save some training images of every class.

    Parameters
    ----------
    path : path
        The PNG file; replaced if it is there.
    source : Source
        The data.
    per_class : int, default 8
        Images of every class, from all over the split.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet import data
    >>> from keras_resnet.analysis import class_sheet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     class_sheet(os.path.join(folder, "sheet.png"), data.load("digits"), per_class=2)
    """
    chosen = []
    for label in range(len(source.class_names)):
        members = np.flatnonzero(source.train.labels == label)
        chosen += [*members[np.linspace(0, len(members) - 1, per_class).astype(int)]]
    side = min(source.image_size, 96)
    # A stream keeps its order; the sheet is in that of the classes.
    rows = sorted(set(chosen))
    dataset = batches(source.train.take(np.array(rows)), image_size=side, channels=source.channels)
    images = dict(zip(rows, dataset.unbatch(), strict=True))
    contact_sheet(
        path,
        [images[index][0].numpy() for index in chosen],
        [source.class_names[source.train.labels[index]] for index in chosen],
        columns=per_class,
    )
