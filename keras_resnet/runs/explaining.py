"""Where in images a trained model sees what it says."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image

from keras_resnet import analysis, data, graphs
from keras_resnet import explain as explanations
from keras_resnet.analysis.evaluation import submission_ids
from keras_resnet.checks import check_choice, check_positive, check_range
from keras_resnet.data.labels import Task
from keras_resnet.detection.plots import window
from keras_resnet.files import written_beside
from keras_resnet.names import find, some
from keras_resnet.names import label as spelled
from keras_resnet.progress import batches
from keras_resnet.runs import objects
from keras_resnet.runs.guards import damaged_images_named, job
from keras_resnet.runs.kinds import KINDS, OF_IMAGES
from keras_resnet.runs.models import Answering, load_model, normalized, warn_of_unknowns
from keras_resnet.runs.prediction import check_folder, files_in, readable

SHEET_FILE = "sheet.png"
"""Images beside their maps, in the folder that `explain` writes."""

_ON_SHEET = 16  # images
_SIDE = 224  # pixels up to which small images are enlarged
_OBJECTS, _SCORE = 5, 0.5  # how many are explained per image, and their lowest score
_LONGEST = (
    200  # bytes of a file name: most file systems allow 255, and it is longer while being written
)
_REFUSED: dict[bool, dict[str, str]] = {
    True: {"crop": "a detector sees whole images"},
    False: {
        "score": "it is for detectors; class_name chooses what to explain",
        "top": "it is for detectors; other models get one map per image",
    },
}
"""Options that do not apply to detectors, or to other models, and why."""


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
    layer : str
        The layer that gave the feature map.
    box : tuple of float, optional
        For an object: x1, y1, x2, y2 in pixels of the image.
    """

    image: Path
    name: str
    answer: float
    file: Path
    layer: str
    box: tuple[float, ...] | None = None


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
        The layer that gave the feature maps; for a feature pyramid, the layers.
    output : pathlib.Path
        The folder: a picture of every image or object, and `SHEET_FILE`.
    maps : tuple of Map
        What was drawn, in the order of the images.
    skipped : tuple of str, default ()
        Why damaged images were left out, a line for each.
    empty : tuple of pathlib.Path, default ()
        Images in which no object was found.
    """

    task: str | None
    method: str
    layer: str
    output: Path
    maps: tuple[Map, ...]
    skipped: tuple[str, ...] = ()
    empty: tuple[Path, ...] = ()

    def to_json(self) -> dict:
        """What `keras-resnet explain --json` prints."""
        word, key = _WORDS[self.task]
        of_boxes = self.task == "detection"
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
                    **({"box": list(each.box), "layer": each.layer} if each.box else {}),
                }
                for each in self.maps
            ],
            "skipped": list(self.skipped),
            **({"empty": [*map(str, self.empty)]} if of_boxes else {}),
        }


_WORDS: dict[str | None, tuple[str, str]] = {
    "classification": ("class", "probability"),
    "multilabel": ("label", "probability"),
    "regression": ("name", "value"),
    "detection": ("class", "score"),
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
    method: str | None = None,
    top: int | None = None,
    score: float | None = None,
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
        model is shown it; and sheet.png, up to 16 images beside their maps. For a detector,
        7_1.png, 7_2.png and so on, one for each object.
    class_name : str, optional
        The class, label or value to explain. Default: the most probable one of each image; for a
        detector, objects of all classes.
    layer : str, optional
        The layer whose feature map is used, or a stage such as "conv5". Default: what global
        pooling is applied to, or else the last feature map; for a detector, the one that the
        object's region was taken from.
    method : {"grad_cam", "grad_cam++", "cam", "hirescam"}, optional
        As in `explain.grad_cam`, and for detectors in `explain.box_maps`. Default: "grad_cam", and
        "hirescam" for detectors.
    top : int, optional
        For a detector: how many objects to explain per image, highest scores first. Default: 5.
    score : float, optional
        For a detector: the lowest score of an object. Default: 0.5.
    task : {"classification", "multilabel", "regression", "detection"}, optional
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
        For a model or images that cannot be read, options that do not suit the model and, for a
        detector, if no object was found in any of the images.

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
    if method is not None:
        method = find("method", method, explanations.METHODS)
    check_choice(("raise", "skip"), on_error=on_error)
    if top is not None:
        check_positive(top=top)
    check_range("fraction", optional=True, score=score)
    files, folder = files_in(images), Path(output)
    files, skipped = readable(files, on_error)
    stems = [_short(name) for name in submission_ids(files)]
    found = load_model(model, weights, task, image_size)
    detects = found.task == "detection"
    given = dict(top=top, score=score, crop=crop)
    for name, reason in _REFUSED[detects].items():
        if given[name] is not None:
            raise ValueError(f"{name}={given[name]!r} is not for {found.model.name!r}: {reason}.")
    top = _OBJECTS if top is None else top
    numbers = [f"_{number}" for number in range(1, top + 1)] if detects else [""]
    names = [f"{stem}{number}.png" for stem in stems for number in numbers]
    if SHEET_FILE in names:
        raise ValueError(
            f"{str(files[names.index(SHEET_FILE)])!r} would be written to {SHEET_FILE}, which "
            "is the overview of all images: rename it."
        )
    pictures = [folder / name for name in names]
    check_folder(folder, (*pictures, folder / SHEET_FILE), files, Path(model))
    split = data.Split(files, KINDS.get(found.task or "", OF_IMAGES).unlabelled(len(files)))
    order = _Order(found, files, split, folder, stems, _chosen(found, class_name))
    with damaged_images_named(split, may_skip=False):
        if detects:
            method = method or "hirescam"
            explainer = explanations.BoxExplainer(found.model, layer, method)
            least = _SCORE if score is None else score
            maps, empty = _of_objects(order, explainer, top, least)
        else:
            method, empty = method or "grad_cam", []
            view = graphs.view_of(found.model, image_size=image_size, crop=crop)
            explainer = explanations.Explainer(found.model, layer, method)
            maps = _of_images(order, explainer, view)
    layers = ", ".join(dict.fromkeys(each.layer for each in maps))
    return ExplainRecord(found.task, method, layers, folder, tuple(maps), skipped, tuple(empty))


class _Order(NamedTuple):
    """What to draw: images, as files and as a split, and the names of the pictures."""

    found: Answering
    files: list[Path]
    split: data.Split
    folder: Path
    stems: list[str]
    chosen: int | None

    @property
    def on_sheet(self) -> set[int]:
        """The images that are on the sheet, from all over the split."""
        count = len(self.files)
        return {*np.linspace(0, count - 1, min(_ON_SHEET, count)).astype(int).tolist()}


def _of_images(order, explainer, view) -> list[Map]:
    """Draw what a model looks at in each image."""
    found, maps, tiles, captions = order.found, [], [], []
    warn_of_unknowns(found)
    form = ".2f" if found.task in ("classification", "multilabel") else ".4g"
    for batch, _ in batches(data.batches(order.split, **vars(view)), "Explaining"):
        shown = batch.numpy()
        result = explainer(normalized(shown, found.model), order.chosen)
        answers = _answers(found, result.outputs)
        shown = _enlarged(shown)
        drawn = explanations.overlay(shown, result.maps)
        for image, picture, index, row in zip(
            shown, drawn, result.classes.tolist(), answers, strict=True
        ):
            number = len(maps)
            file, name, answer = order.files[number], found.names[index], float(row[index])
            path = order.folder / f"{order.stems[number]}.png"
            maps.append(Map(file, name, answer, path, result.layer))
            _write(picture, path)
            if number in order.on_sheet:
                tiles += [image, picture]
                captions += [file.name, f"{name}\n{answer:{form}}"]
    columns = min(8, len(tiles))
    analysis.contact_sheet(order.folder / SHEET_FILE, tiles, captions, columns=columns)
    return maps


def _of_objects(order, explainer, top, score) -> tuple[list[Map], list[Path]]:
    """Draw what a detector looks at for each object; also return the images without objects."""
    found, maps, empty, rows, seen = order.found, [], [], [], []
    for number, image in enumerate(objects.images_of(order.split)):
        result = explainer(image, order.chosen, top=top, score=score)
        file, (image,) = order.files[number], _enlarged(image[None])
        seen.append(result.found)
        factor = image.shape[0] // result.maps.shape[1]
        pictures = [explanations.overlay(image[None], each[None])[0] for each in result.maps]
        whole = analysis.draw_boxes(image, factor * result.boxes, result.labels)
        row = [(np.asarray(whole), file.name)]
        for index, picture in enumerate(pictures):
            label, answer = int(result.labels[index]), float(result.scores[index])
            box, layer = result.boxes[index], result.layers[index]
            path = order.folder / f"{order.stems[number]}_{index + 1}.png"
            maps.append(Map(file, found.names[label], answer, path, layer, tuple(box.tolist())))
            whole = analysis.draw_boxes(picture, [factor * box], [label], [answer], found.names)
            _write(np.asarray(whole), path)
            row.append((_cut(picture, factor * box, label), f"{found.names[label]}\n{answer:.2f}"))
        empty += [] if len(pictures) else [file]
        rows += [row] if number in order.on_sheet else []
    if not maps:
        raise ValueError(_nothing(order, seen, score))
    columns = max(map(len, rows))
    blank = np.full((1, 1, 3), 255, "uint8"), ""
    tiles = [tile for row in rows for tile in (*row, *[blank] * (columns - len(row)))]
    analysis.contact_sheet(
        order.folder / SHEET_FILE, *zip(*tiles, strict=True), columns=columns, side=_SIDE
    )
    return maps, empty


def _cut(picture, box, label):
    """The part of a picture around a box, with the box."""
    drawn = np.asarray(analysis.draw_boxes(picture, [box], [label]))
    low, high = window(box[None], drawn.shape)
    return drawn[low[1] : high[1], low[0] : high[0]]


def _nothing(order, seen, score) -> str:
    """Why there is no object to explain."""
    names, count = order.found.names, len(seen)
    where = order.files[0].name if count == 1 else f"the {count} images"
    scores = np.concatenate([each["scores"] for each in seen])
    labels = np.concatenate([each["labels"] for each in seen])
    what, sure = "object", scores >= score
    if order.chosen is not None:
        what = f"{names[order.chosen]!r}"
        if sure.any():
            there = some([names[label] for label in np.unique(labels[sure])], 10)
            return (
                f"class_name={names[order.chosen]!r}: none was found in {where} with a score of "
                f"{score:g} or more, only {there}."
            )
        scores, labels = scores[labels == order.chosen], labels[labels == order.chosen]
    best = "nor any with a lower score"
    if len(scores):
        highest = int(scores.argmax())
        best = f"the highest is {scores[highest]:.2g}, of {names[labels[highest]]!r}: lower score"
    return f"no {what} with a score of {score:g} or more was found in {where}; {best}."


def _short(name: str) -> str:
    """The name of an image, shortened if it is too long for a file system."""
    folder, slash, last = name.rpartition("/")
    if len(os.fsencode(last)) > _LONGEST:
        digest = hashlib.sha256(os.fsencode(last)).hexdigest()[:8]
        last = f"{os.fsencode(last)[: _LONGEST - 9].decode(errors='ignore')}-{digest}"
    return f"{folder}{slash}{last}"


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
