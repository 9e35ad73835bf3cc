"""Pictures of images and of training curves, as PNG files."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow as tf

from keras_resnet.analysis.evaluation import (
    Evaluation,
    MultiLabelEvaluation,
    RegressionEvaluation,
)
from keras_resnet.data import Source, batches
from keras_resnet.files import written_beside
from keras_resnet.training.learning_rates import LearningRates
from keras_resnet.training.tasks import task_of

_logger = logging.getLogger(__name__)

RIGHT, WRONG = "#1a7f37", "#cf222e"

_DPI = 110
_FONT = "DejaVu Sans"  # comes with Matplotlib
# Pixels of a sheet: what the cell of an image is larger than it, for two lines, and the gap.
_AROUND, _MARGIN = (20, 53), 5
_LETTERS = 20  # in a line over an image of 145 pixels


def contact_sheet(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    right: Sequence[bool] | np.ndarray | None = None,
    columns: int = 8,
    *,
    side: int = 145,
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
    side : int, default 145
        Pixels of the longer side of an image on the sheet.

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
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    cell = (side + _AROUND[0], side + _AROUND[1])
    width, height = columns * cell[0], rows * cell[1]
    letters = _LETTERS * side // 145
    figure = Figure(figsize=(width / _DPI, height / _DPI))
    for index, (image, caption) in enumerate(zip(images, captions, strict=False)):
        row, column = divmod(index, columns)
        middle, bottom = (column + 0.5) * cell[0], height - (row + 1) * cell[1] + _MARGIN
        tile = _tile(image, side)
        figure.figimage(tile, middle - tile.shape[1] // 2, bottom + (side - tile.shape[0]) // 2)
        colour = "black" if right is None else RIGHT if right[index] else WRONG
        figure.text(
            middle / width,
            (bottom + side + _MARGIN) / height,
            "\n".join(_short(line, letters) for line in caption.split("\n")),
            horizontalalignment="center",
            fontsize=9,
            color=colour,
        )
    save_figure(figure, path)


def _tile(image, side):
    """An image in RGB, as large as fits into its cell on a sheet."""
    pixels = np.clip(np.asarray(image), 0, 255).astype("uint8")
    picture = PIL.Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    scale = side / max(picture.size)
    size = [max(1, round(each * scale)) for each in picture.size]
    # The pixels of small images stay visible.
    how = PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.BOX
    return np.asarray(picture.convert("RGB").resize(size, how))


def _short(line, letters=_LETTERS):
    """A line that is hardly wider than an image on a sheet."""
    return line if len(line) <= letters else f"{line[: letters - 9]}\u2026{line[-8:]}"


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
            axis.annotate(_short(stage), (first, 1), xycoords=("data", "axes fraction"), fontsize=8)
            first += count
        axis.set_xlabel("epoch")
        axis.set_ylabel(_short(metric.replace("_", " "), 2 * _LETTERS))
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def learning_rate_curve(path: str | os.PathLike, found: LearningRates) -> None:
    """Save the loss over a rising learning rate as a PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    found : LearningRates
        What `keras_resnet.training.find_learning_rate` returns.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from keras_resnet.analysis import learning_rate_curve
    >>> from keras_resnet.training import LearningRates
    >>> rates = np.geomspace(1e-3, 10, 81)
    >>> found = LearningRates(rates, 2 - np.tanh(np.log10(rates / 0.1)), diverged=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     learning_rate_curve(os.path.join(folder, "rates.png"), found)
    """
    figure, ((axis,),) = _figure(1, 1, figsize=(7, 4))
    rates, smooth = found.rates[: len(found.losses)], found.smooth
    axis.plot(rates, found.losses, color="tab:blue", alpha=0.3, label="loss of a step")
    axis.plot(rates, smooth, color="tab:blue", label="smoothed")
    if found.suggestion is not None:
        text = f"suggested: {found.suggestion:.2g}"
        axis.axvline(found.suggestion, color="tab:orange", linestyle="--", label=text)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")  # the usual one writes formulas
    axis.xaxis.set_minor_formatter("")
    # Where the training diverges, the last losses are many times as high as all others.
    low, high = smooth.min(), np.quantile(smooth, 0.9)
    axis.set_ylim(low - 0.1 * (high - low) - 0.01, high + 0.5 * (high - low) + 0.01)
    axis.set_xlabel("learning rate, for a batch of 256 images")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def _figure(rows, columns, figsize):
    # Without pyplot, the user's windows and settings are left alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="tight")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as a PNG file, whatever letters the names of classes have.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : path
        The file; replaced if it exists.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families, unknown = font_families("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_parse_math(False)  # in a name, a $ is a dollar
        text.set_fontfamily(families)
    if unknown:
        _logger.warning(
            "%s: no font on this machine has the letters %s. Install one that does, such as Noto "
            "Sans CJK.",
            os.fspath(path),
            "".join(unknown[:10]) + ("..." if len(unknown) > 10 else ""),
        )
    with written_beside(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # as just logged
        figure.savefig(partial, dpi=_DPI, format="png")


def font_families(text: str) -> tuple[list[str], list[str]]:
    """Find fonts that together have the letters of a text.

    Parameters
    ----------
    text : str
        The text.

    Returns
    -------
    tuple of (list of str, list of str)
        Names of fonts, each of which has letters that those before it have not; and the letters
        that no font on this machine has.
    """
    from matplotlib import font_manager

    fonts = [
        font
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and not font.name.startswith("Last Resort")
    ]
    fonts.sort(key=lambda font: font.name != _FONT)
    families, unknown = [_FONT], {letter for letter in text if letter.isprintable()}
    for font in fonts:
        if not unknown:
            break
        letters = unknown & {*map(chr, font_manager.get_font(font.fname).get_charmap())}
        if letters:
            families.append(font.name)
            unknown -= letters
    return [*dict.fromkeys(families)], sorted(unknown)


def class_sheet(
    path: str | os.PathLike, source: Source, per_class: int = 8, *, classes: int = 32
) -> None:
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
    classes : int, default 32
        Rows at most. Of more classes, some from all over the list are shown.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet import data
    >>> from keras_resnet.analysis import class_sheet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     class_sheet(os.path.join(folder, "sheet.png"), data.load("digits"), per_class=2)
    """
    chosen, describe = [], task_of(source).describe
    members_of = _ROWS[source.task](source)
    some = np.linspace(0, len(members_of) - 1, min(classes, len(members_of))).astype(int)
    for members in (members_of[row] for row in some):
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
