"""Where in images a trained model sees what it says."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image

from keras_resnet import analysis, data, graphs
from keras_resnet import explain as explanations
from keras_resnet.analysis.evaluation import submission_ids
from keras_resnet.checks import check_choice
from keras_resnet.data.labels import Task
from keras_resnet.files import written_beside
from keras_resnet.names import find, some
from keras_resnet.names import label as spelled
from keras_resnet.runs.guards import damaged_images_named, job
from keras_resnet.runs.models import load_model, normalized, warn_of_unknowns
from keras_resnet.runs.prediction import check_folder, files_in, readable

SHEET_FILE = "sheet.png"
"""Images beside their maps, in the folder that `explain` writes."""

_ON_SHEET = 16  # images
_SIDE = 224  # pixels up to which small images are enlarged


@dataclass(frozen=True)
class Map:
    """A map that was drawn over an image.

    Parameters
    ----------
    image : pathlib.Path
        The image.
    name : str
        The class, label or value that is explained.
    answer : float
        Its probability, or the value itself; of a model whose task is not known, what it gives.
    file : pathlib.Path
        The picture.
    """

    image: Path
    name: str
    answer: float
    file: Path


@dataclass(frozen=True)
class ExplainRecord:
    """What `explain` has drawn.

    Parameters
    ----------
    task : str or None
        What the model is for; None if that is not known.
    method : str
        A key of `explain.METHODS`.
    layer : str
        The layer that gave the feature maps.
    output : pathlib.Path
        The folder: a picture of every image, and `SHEET_FILE`.
    maps : tuple of Map
        What was drawn, in the order of the images.
    skipped : tuple of str, default ()
        Why damaged images were left out, a line for each.
    """

    task: str | None
    method: str
    layer: str
    output: Path
    maps: tuple[Map, ...]
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict:
        """What `keras-resnet explain --json` prints."""
        word, key = _WORDS[self.task]
        return {
            "task": self.task,
            "method": self.method,
            "layer": self.layer,
            "output": str(self.output),
            "sheet": str(self.output / SHEET_FILE),
            "maps": [
                {
                    "image": str(each.image),
                    word: each.name,
                    key: each.answer,
                    "file": str(each.file),
                }
                for each in self.maps
            ],
            "skipped": list(self.skipped),
        }


_WORDS: dict[str | None, tuple[str, str]] = {
    "classification": ("class", "probability"),
    "multilabel": ("label", "probability"),
    "regression": ("name", "value"),
    None: ("index", "output"),
}


@job
def explain(
    model: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    class_name: str | None = None,
    layer: str | None = None,
    method: str = "grad_cam",
    task: Task | None = None,
    weights: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> ExplainRecord:
    """Draw where a trained model looks, as `keras-resnet explain` does.

    Parameters
    ----------
    model : str or path
        A .keras file of a model that takes raw images, a folder with a model.keras, or the name of
        a builder.
    images : path or sequence of path
        Image files, or folders of them.
    output : path
        The folder for the pictures: for 7.jpg, 7.png (a/7.png where there is another 7.jpg), as the
        model is shown it; and sheet.png, images beside their maps, of up to 16 images.
    class_name : str, optional
        The class, label or value to explain. Default: for each image the most probable one.
    layer : str, optional
        The layer whose feature map is used, or a stage such as "conv5". Default: what global
        pooling is applied to, or else the last feature map.
    method : {"grad_cam", "grad_cam++", "cam"}, default "grad_cam"
        As in `explain.grad_cam`.
    task : {"classification", "multilabel", "regression"}, optional
        What the model is for, if it does not say so itself.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels that images are shown with, if the model takes any size. Default:
        the model's.
    crop : float, optional
        Fraction of an image that is shown, as in `keras_resnet.data.batches`. Default: the model's.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.

    Returns
    -------
    ExplainRecord

    Raises
    ------
    ValueError
        For a model or images that cannot be read, a detector, and options that do not suit the
        model.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, PIL.Image
    >>> import keras_resnet
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file, image = Path(folder) / "net.keras", Path(folder) / "image.png"
    ...     keras_resnet.CIFARResNet(8, include_preprocessing=True).save(file)
    ...     PIL.Image.fromarray(np.zeros((8, 8), "uint8")).save(image)
    ...     record = runs.explain(file, image, Path(folder) / "maps", class_name="3")
    ...     sorted(path.name for path in record.output.iterdir())
    ['image.png', 'sheet.png']
    """
    method = find("method", method, explanations.METHODS)
    check_choice(("raise", "skip"), on_error=on_error)
    files, folder = files_in(images), Path(output)
    files, skipped = readable(files, on_error)
    pictures = [folder / f"{name}.png" for name in submission_ids(files)]
    if folder / SHEET_FILE in pictures:
        raise ValueError(
            f"{str(files[pictures.index(folder / SHEET_FILE)])!r} would be written to "
            f"{SHEET_FILE}, which shows all images: rename it."
        )
    found = load_model(model, weights, task, image_size)
    if found.task == "detection":
        raise ValueError(
            f"{found.model.name!r} finds objects; maps are for models that answer for a whole "
            "image. predict draws the boxes."
        )
    check_folder(folder, (*pictures, folder / SHEET_FILE), files, Path(model))
    view = graphs.view_of(found.model, image_size=image_size, crop=crop)
    chosen = _chosen(found, class_name)
    explained = explanations.Explainer(found.model, layer, method)
    warn_of_unknowns(found)
    split = data.Split(files, np.zeros(len(files), int))
    maps, tiles, layer_name = [], {}, ""
    on_sheet = set(np.linspace(0, len(files) - 1, min(_ON_SHEET, len(files))).astype(int).tolist())
    with damaged_images_named(split, may_skip=False):
        for batch, _ in data.batches(split, **vars(view)):
            shown = batch.numpy()
            result = explained(normalized(shown, found.model), chosen)
            answers = _answers(found, result.outputs)
            shown, layer_name = _enlarged(shown), result.layer
            drawn = explanations.overlay(shown, result.maps)
            for image, picture, index, row in zip(
                shown, drawn, result.classes.tolist(), answers, strict=True
            ):
                number = len(maps)
                maps.append(
                    Map(files[number], found.names[index], float(row[index]), pictures[number])
                )
                _write(picture, pictures[number])
                if number in on_sheet:
                    tiles[number] = image, picture
    _write_sheet(folder / SHEET_FILE, tiles, maps, found.task)
    return ExplainRecord(found.task, method, layer_name, folder, tuple(maps), skipped)


def _chosen(found, class_name) -> int | None:
    """The number of the class that was named."""
    if class_name is None:
        if found.task == "regression" and len(found.names) > 1:
            raise ValueError(
                f"model {found.model.name!r} gives the values {some(found.names, 10)}: say which "
                "one is to be explained, class_name=NAME (--class NAME)."
            )
        return None
    name = spelled(class_name)
    if found.names.count(name) != 1:
        what = "is the name of several classes of" if name in found.names else "is not known to"
        raise ValueError(
            f"class_name={class_name!r} {what} the model, which knows {some(found.names, 10)}."
        )
    return found.names.index(name)


def _answers(found, outputs):
    """Probabilities or values of what a model gave; what it gave, if its task is not known."""
    answer: Any = found.task and graphs.answer_of(graphs.head_of(found.model), found.task)
    return np.asarray(answer(outputs)) if answer else outputs


def _enlarged(images):
    """Small images with larger pixels."""
    factor = max(1, _SIDE // max(images.shape[1:3]))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def _write(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as partial:
        PIL.Image.fromarray(pixels).save(partial, format="PNG")


def _write_sheet(path, tiles, maps, task):
    """Save images beside their maps, with the names of the files and what is explained."""
    form = ".2f" if task in ("classification", "multilabel") else ".4g"
    captions = []
    for number in tiles:
        shown = maps[number]
        captions += [shown.image.name, f"{shown.name}\n{shown.answer:{form}}"]
    images = [tile for pair in tiles.values() for tile in pair]
    analysis.contact_sheet(path, images, captions, columns=min(8, len(images)))
