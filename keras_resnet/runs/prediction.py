"""A trained model on images that nobody has labelled."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from keras_resnet import analysis, data, graphs
from keras_resnet.analysis.evaluation import submission_ids
from keras_resnet.checks import check_choice, check_positive, check_range
from keras_resnet.data.images import read_headers
from keras_resnet.data.labels import Task
from keras_resnet.data.labels_file import LABELS_FILE
from keras_resnet.export.compiled import candidates
from keras_resnet.names import label as spelled
from keras_resnet.names import some
from keras_resnet.runs import objects
from keras_resnet.runs.choices import COMPUTED_IN, MODEL_FILE, RUN_FILES
from keras_resnet.runs.guards import check_writable, damaged_images_named, job
from keras_resnet.runs.kinds import KINDS, OF_IMAGES
from keras_resnet.runs.models import load_model, warn_of_unknowns


@dataclass(frozen=True)
class PredictRecord:
    """What `predict` has found.

    Parameters
    ----------
    files : tuple of pathlib.Path
        The images.
    task : str or None
        What the model is for; None if that is not known.
    names : tuple of str
        Names of the classes, labels or values.
    outputs : array of shape (images, names), or tuple of dict
        Probabilities of classes or labels, or values; of a model whose task is not known, what it
        gives. Of a detector what `detection.detect` returns, a dict for each image.
    top : int, optional
        Classes or labels to show per image.
    csv : pathlib.Path, optional
        The file that was written.
    output : pathlib.Path, optional
        The folder that was written: copies of the images with boxes, and detections.json.
    skipped : tuple of str, default ()
        Why damaged images were left out, a line for each.
    tta : str, optional
        The views of each image whose answers were averaged.
    thresholds : tuple of float, optional
        What the probability of each label exceeds in images that have it. Default: 0.5.
    """

    files: tuple[Path, ...]
    task: str | None
    names: tuple[str, ...]
    outputs: np.ndarray | tuple[dict[str, np.ndarray], ...]
    top: int | None = None
    csv: Path | None = None
    output: Path | None = None
    skipped: tuple[str, ...] = ()
    tta: str | None = None
    thresholds: tuple[float, ...] | None = None

    def to_json(self) -> dict:
        """What `keras-resnet predict --json` prints."""
        found = {
            "task": self.task,
            "predictions": [
                {"image": str(file), **_PREDICTIONS[self.task](row, self)}
                for file, row in zip(self.files, self.outputs, strict=True)
            ],
            "skipped": list(self.skipped),
        }
        if self.thresholds is not None:
            found["thresholds"] = dict(zip(self.names, self.thresholds, strict=True))
        written = {"csv": self.csv, "output": self.output, "tta": self.tta}
        return {**found, **{name: str(value) for name, value in written.items() if value}}


def _classes(row, record):
    """The most probable classes."""
    return {"classes": _probabilities(row, record.names, np.argsort(-row)[: record.top or 5])}


def _labels(row, record):
    """The labels that an image has, and how probable these, or the most probable ones, are."""
    order, names = np.argsort(-row), record.names
    chosen = graphs.present(row, record.thresholds)
    shown = order[: record.top] if record.top else [index for index in order if chosen[index]]
    return {
        "labels": [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen],
        "classes": _probabilities(row, names, shown),
    }


def _values(row, record):
    """The value, or values by name."""
    if len(record.names) == 1:
        return {"value": float(row[0])}
    return {"values": dict(zip(record.names, map(float, row), strict=True))}


def _objects(row, record):
    """The objects, the most certain first: class, score, and x1, y1, x2, y2 in pixels."""
    columns = (row[name].tolist() for name in ("labels", "scores", "boxes"))
    return {
        "objects": [
            {"class": record.names[label], "score": score, "box": box}
            for label, score, box in zip(*columns, strict=True)
        ]
    }


def _outputs(row, _record):
    """What came out, as it is."""
    return {"output": np.asarray(row, float).tolist()}


_PREDICTIONS: dict[str | None, Callable] = {
    "classification": _classes,
    "multilabel": _labels,
    "regression": _values,
    "detection": _objects,
    None: _outputs,
}


def _probabilities(row, names, indices):
    return [{"class": names[index], "probability": float(row[index])} for index in indices]


@job
def predict(
    model: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    task: Task | None = None,
    top: int | None = None,
    csv: str | os.PathLike | None = None,
    positive: str | None = None,
    probability: bool = False,
    output: str | os.PathLike | None = None,
    score: float | None = None,
    weights: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    tta: str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
) -> PredictRecord:
    """Run a trained model on images, as `keras-resnet predict` does.

    Parameters
    ----------
    model : str or path
        A .keras file of a model that takes raw images, a folder with a model.keras, or the name of
        a builder.
    images : path or sequence of path
        Image files, or folders of them.
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the model is for, if it does not say so itself: what a last layer without an activation
        gives may be logits, or values.
    top : int, optional
        Classes to show per image. Default: 5; of several labels, those that are predicted.
    csv : path, optional
        Write id,label of every image, Kaggle's file; several labels as 3|7, and values as id,value.
        The id of 7.jpg is 7, or a/7 where there is another 7.jpg in another folder; lines are in
        the order of numbers where all ids are numbers.
    positive : str, optional
        With `csv`: the label is 1 for this class or label and 0 for others.
    probability : bool, default False
        With `positive`: the label is the class' probability.
    output : path, optional
        For a detector: a folder for copies of the images with boxes, and for detections.json, the
        objects in the format of COCO's results. The id of 7.jpg is 7, as with `csv`, a number where
        all are; classes are numbered from 1.
    score : float, optional
        For a detector: the lowest score of an object. Default: 0.5. 0 is for all that it gives, as
        COCO's average precision wants it.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels that images are shown with, if the model takes any size. Default:
        the model's.
    crop : float, optional
        Fraction of an image that is shown, as in `keras_resnet.data.batches`. Default: the model's.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files; those skipped have no line in the CSV file.
    tta : {"flip", "five_crops", "ten_crops"}, optional
        Test-time augmentation: average the answers to several views of each image, as
        `keras_resnet.analysis.over_views` does. Default: one view.
    runtime : {"auto", "openvino", "tensorflow", "litert", "onnxruntime"}, optional
        What runs the model, as in `keras_resnet.export.compiled`; "auto" is the fastest that is
        installed. Default: TensorFlow.
    precision : {"float32", "bfloat16"}, optional
        The precision to compute in. Default: the model's; with `runtime`, "float32".

    Returns
    -------
    PredictRecord

    Raises
    ------
    ValueError
        For a model or images that cannot be read, or options that do not suit the model.
    ImportError
        If the runtime is not installed.

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
    ...     record = runs.predict(file, image, top=3)
    >>> len(record.to_json()["predictions"][0]["classes"])
    3
    """
    if (positive and not csv) or (probability and not positive):
        raise ValueError("positive needs csv, and probability needs positive.")
    files = files_in(images)
    if top is not None:
        check_positive(top=top)
    check_range("fraction", optional=True, score=score)
    check_choice(("raise", "skip"), on_error=on_error)
    tta = tta and analysis.find_views(tta)
    computing = {"runtime": runtime, "precision": precision}
    if runtime or precision:
        check_choice((None, *COMPUTED_IN), precision=precision)
        candidates(runtime or "tensorflow", precision or "float32")
    written = Path(csv) if csv else None
    if written:
        _check_place(written, files, Path(model))
    files, skipped = readable(files, on_error)
    found = load_model(model, weights, task, image_size)
    kind = KINDS.get(found.task or "", OF_IMAGES)
    kind.check(
        **dict(top=top, csv=csv, positive=positive, probability=probability),
        **dict(output=output, score=score, crop=crop, tta=tta, **computing),
    )
    folder = Path(output) if output else None
    if folder:
        pictures = (*objects.drawings(folder, files), folder / objects.DETECTIONS_FILE)
        check_folder(folder, pictures, files, Path(model))
    view = kind.viewed(found.model, image_size, crop)
    if (csv or tta) and found.task is None:
        raise ValueError(
            f"{'csv' if csv else f'tta={tta!r}'}: what the outputs of {found.model.name!r} mean is "
            "not known; say what it is for, as task='classification'."
        )
    if tta and view:
        predictor, view = analysis.over_views(found.predictor, tta, view)
        found = replace(found, predictor=predictor)
    if found.task in (None, "regression") and (top is not None or positive):
        given = f"positive={positive!r}" if positive else f"top={top}"
        raise ValueError(f"{given} is for classes and labels; {found.model.name!r} gives values.")
    positive = positive and spelled(positive)
    if positive and positive not in found.names:
        raise ValueError(f"positive={positive!r}: the model knows {some(found.names, 10)}.")
    if positive and found.names.count(positive) > 1:
        raise ValueError(f"positive={positive!r} is the name of several classes of the model.")
    warn_of_unknowns(found)
    split = data.Split(files, kind.unlabelled(len(files)))
    with damaged_images_named(split, may_skip=False):
        outputs = kind.predicted(found, split, view, score, **computing)
        if folder:
            objects.write_drawings(folder, files, split, outputs, found.names)
    thresholds = graphs.thresholds_of(found.model)
    if written and found.task:
        analysis.submission(
            *(written, files, outputs, found.names, positive),
            probability=probability,
            task=found.task,
            thresholds=thresholds,
        )
    return PredictRecord(
        *(tuple(files), found.task, found.names, outputs, top, written, folder, skipped, tta),
        thresholds=thresholds,
    )


def files_in(images: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    """The image files in files and folders; ValueError if there are none."""
    places = [images] if isinstance(images, str | os.PathLike) else images
    places = [Path(each) for each in places]
    files = data.image_files(places)
    if not files:
        raise ValueError(f"no images in {', '.join(map(str, places))}.")
    return files


def readable(files: list[Path], on_error: str) -> tuple[list[Path], tuple[str, ...]]:
    """The images that can be read, and why the others cannot."""
    headers = read_headers(files, whole=True)
    errors = [each for each in headers if isinstance(each, ValueError)]
    if errors and (on_error == "raise" or len(errors) == len(files)):
        raise errors[0]
    pairs = zip(files, headers, strict=True)
    good = [file for file, header in pairs if not isinstance(header, ValueError)]
    return good, tuple(map(str, errors))


def _check_place(csv, files, model):
    """Make sure that a submission can be written, and replaces no image and nothing of a model."""
    submission_ids(files)
    check_writable(csv.parent)
    no_file = csv.exists() and not csv.is_file()
    if no_file or csv.resolve() in _taken(files, model):
        raise ValueError(
            f"csv={str(csv)!r} would replace what is no submission: choose another name."
        )


def check_folder(folder: Path, paths: Iterable[Path], files: list[Path], model: Path) -> None:
    """Make sure that pictures can be written, and replace no image and nothing of a model."""
    check_writable(folder)
    if folder.resolve() in {file.parent.resolve() for file in files}:
        raise ValueError(
            f"output={str(folder)!r} holds the images, and the next prediction would take the "
            "copies for some of them: choose another folder."
        )
    taken = _taken(files, model)
    for path in paths:
        if path.resolve() in taken or path.is_dir():
            raise ValueError(
                f"output={str(folder)!r} would replace {str(path)!r}, which is not what an earlier "
                "prediction has drawn: choose another folder."
            )


def _taken(files, model):
    """The images, a model, and what is beside it."""
    folder = model if model.is_dir() else model.parent
    beside = RUN_FILES if (folder / MODEL_FILE).exists() else (LABELS_FILE,)
    return {path.resolve() for path in (*files, model, *(folder / name for name in beside))}
