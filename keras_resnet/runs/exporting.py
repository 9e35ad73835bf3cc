"""Models written as other programs load them, and measured."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_resnet import data, graphs, names
from keras_resnet import export as exporters
from keras_resnet.checks import check_range
from keras_resnet.data.labels_file import LABELS_FILE, check_labels, read_labels, write_labels
from keras_resnet.export.card import with_facts
from keras_resnet.export.formats import FORMATS
from keras_resnet.export.runtimes import is_version
from keras_resnet.files import json_text, write_text, written_beside
from keras_resnet.runs.choices import EXPORTS
from keras_resnet.runs.guards import check_writable, job, silenced_libraries
from keras_resnet.runs.images import images_of
from keras_resnet.runs.models import load_model, normalized, some_images
from keras_resnet.runs.objects import photographs

_CALIBRATED = 100  # images


@dataclass(frozen=True)
class ExportRecord:
    """What `export` has written.

    Parameters
    ----------
    exported : Exported
        Where it is, its model card, and how it compares with the original.
    format : str
        Its format.
    precision : str
        What it computes in.
    """

    exported: exporters.Exported
    format: str
    precision: str

    def to_json(self) -> dict:
        """What `keras-resnet export --json` prints."""
        return {
            "output": str(self.exported.path),
            "format": self.format,
            "precision": self.precision,
            **(asdict(self.exported.verification) if self.exported.verification else {}),
            **{name: asdict(each) for name, each in self.exported.beside.items()},
        }


@job
def export(
    model: str | os.PathLike,
    output: str | os.PathLike,
    *,
    format: Literal["saved_model", "litert", "onnx", "openvino"] = "saved_model",
    precision: Literal["float32", "bfloat16", "float16", "dynamic", "int8"] = "float32",
    task: Literal["classification", "multilabel", "regression", "detection"] | None = None,
    calibrate: str | os.PathLike | None = None,
    batch_size: int | None = None,
    image_dtype: Literal["float32", "uint8"] = "float32",
    resize: bool = False,
    top: int = 5,
    with_litert: Literal["float32", "float16", "dynamic", "int8"] | None = None,
    agreement: float | None = None,
    weights: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
) -> ExportRecord:
    """Write a model as other programs load it, and verify it there, as `keras-resnet export` does.

    Parameters
    ----------
    model : str or path
        A .keras file, a folder with a model.keras, or the name of a builder. Of a detector, which
        takes images of any size as they are, only a SavedModel can be written, and what says how
        images are shown is refused.
    output : path
        The folder of all versions of a SavedModel, or of the file NAME.tflite, NAME.onnx or
        NAME.xml, beside which its model card and labels.txt are written. A new folder for such a
        file whose name is a number, a version for OpenVINO Model Server, appears only when it is
        complete.
    format : {"saved_model", "litert", "onnx", "openvino"}, default "saved_model"
        What to write.
    precision : {"float32", "bfloat16", "float16", "dynamic", "int8"}, default "float32"
        The precision to compute in: "bfloat16" is for "saved_model" and "openvino", "int8" for
        "litert" and "openvino", "float16" and "dynamic" for "litert".
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the model is for, if it does not say so itself; a softmax or a sigmoid that is missing
        is added. Default: what the model says.
    calibrate : str or path, optional
        Images, as `keras_resnet.data.load` takes them: the training split calibrates "int8", the
        test split verifies.
    batch_size : int, optional
        Images of every request. Default: any number.
    image_dtype : {"float32", "uint8"}, default "float32"
        For "saved_model": what images come as.
    resize : bool, default False
        For "saved_model": take images of any size.
    top : int, default 5
        For "saved_model": classes of an answer to image files.
    with_litert : {"float32", "float16", "dynamic", "int8"}, optional
        For "saved_model": also write a LiteRT file of this precision into the folder, which
        TensorFlow Serving can serve in place of the SavedModel, as
        `keras_resnet.export.saved_model` says.
    agreement : float, optional
        Fraction of the test images whose class must not change, or of the objects in them that must
        still be found. Default: 0.99, for "litert" and "openvino" 0.95.
    weights : str or path, optional
        For the name of a builder: a tag of `keras_resnet.list_weights`, or a file. Default: its
        first.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels that images are shown with, if the model takes any size; for the
        name of a detector, the shorter side that it resizes them to. Default: the model's.
    crop : float, optional
        Fraction of an image that is shown, as in `keras_resnet.data.batches`. Default: the model's.

    Returns
    -------
    ExportRecord

    Raises
    ------
    ValueError
        For options that do not go together, a model or images that cannot be read, a place that is
        taken or, for a file, holds another model's labels.txt, or an exported model that disagrees
        with the original.
    ImportError
        If the package that writes or runs the format is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "net.keras")
    ...     keras_resnet.CIFARResNet(8, include_preprocessing=True).save(file)
    ...     record = runs.export(file, folder, format="litert")
    >>> record.to_json()["runtime"]
    'LiteRT'
    """
    kind = names.find("format", format, EXPORTS)
    if precision not in EXPORTS[kind]:
        raise ValueError(
            f"precision={precision!r}: format {kind!r} knows {', '.join(EXPORTS[kind])}."
        )
    for name, value in {"precision": precision, "with_litert": with_litert}.items():
        if value == "int8" and not calibrate:
            raise ValueError(f"{name}='int8' needs images to calibrate: calibrate=SOURCE.")
    is_file = kind in FORMATS
    if is_file and (resize or image_dtype != "float32"):
        raise ValueError("resize and image_dtype are for format 'saved_model'.")
    if with_litert is not None and is_file:
        raise ValueError(f"with_litert={with_litert!r} is only for format 'saved_model'.")
    check_range("agreement", optional=True, agreement=agreement)
    output = Path(output)
    check_writable(output)
    if is_file:
        FORMATS[kind].check(precision)
    found = load_model(model, weights, task, image_size)
    net, labels = found.model, _labels(found)
    if is_file:
        FORMATS[kind].check_kind(net)
        _check_labels_beside(output, labels)
    shown, some, verified = _SHOWN[found.task == "detection"](net, image_dtype, image_size, crop)
    options: dict[str, Any] = dict(
        labels=labels, batch_size=batch_size, image_size=shown["image_size"], verbose=False
    )
    if agreement is not None:
        options["agreement"] = agreement
    if calibrate:
        images = data.load(calibrate, task=found.task if found.task != "classification" else None)
        options["images"] = some(images.test, verified)
        if "int8" in (precision, with_litert):
            options["calibrate"] = some(images.train, _CALIBRATED)
    if len(EXPORTS[kind]) > 1:
        options["precision"] = precision
    with silenced_libraries():
        if is_file:
            exported = _written_file(net, output, kind, options)
        else:
            options.update(crop=shown["crop"], image_dtype=image_dtype, resize=resize, top=top)
            options["with_litert"] = with_litert
            exported = exporters.saved_model(net, output, **options)
    run = None if weights else images_of(model)
    if run and run.metrics.get("calibration"):  # an export is calibrated like its model
        exported = with_facts(exported, calibration=run.metrics["calibration"])
    return ExportRecord(exported, kind, precision)


def _written_file(net, output, kind, options):
    """A single file, with its model card and labels.txt beside it."""
    name = f"{net.name}{FORMATS[kind].suffix}"
    # A model server takes a folder with a new number for a new version.
    as_version = is_version(output) and not output.exists()
    with written_beside(output) if as_version else contextlib.nullcontext(output) as folder:
        exported = getattr(exporters, kind)(net, folder / name, **options)
        if options["labels"]:
            write_labels(folder, options["labels"])
        write_text(f"{exported.path}.json", json_text(exported.card) + "\n")
    return dataclasses.replace(exported, path=output / name)


def _of_one_size(model, image_dtype, image_size, crop):
    """How images are shown to a model, a function that takes some, and how many verify it."""
    view = graphs.view_of(model, image_size=image_size, crop=crop)

    def some(split, count):
        pixels = some_images(split, vars(view), count)
        return pixels if image_dtype == "uint8" else normalized(pixels, model)

    return vars(view), some, 500


def _as_they_are(model, image_dtype, image_size, crop):
    """The same of a detector, whose size was settled when it was built or loaded."""
    return {"image_size": None, "crop": crop}, photographs, 32


_SHOWN = {True: _as_they_are, False: _of_one_size}
"""How images are shown to models, by whether they are detectors."""


def _check_labels_beside(folder, labels):
    """Make sure that a folder has no labels.txt, or that of the model to be written into it."""
    file = folder / LABELS_FILE
    if labels:
        check_labels(labels)
    if file.exists() and read_labels(file) != labels:
        raise ValueError(
            f"output {str(folder)!r}: its {LABELS_FILE} is that of another model. Choose another "
            "folder."
        )


def _labels(found):
    """Names of the outputs; None where nobody has named them and their meaning is not known."""
    return [*found.names] if found.named or found.task else None


@dataclass(frozen=True)
class BenchRecord:
    """What `bench` has measured.

    Parameters
    ----------
    results : tuple of Latency
        For every batch size, one for every model.
    """

    results: tuple[exporters.Latency, ...]

    def to_json(self) -> dict:
        """What `keras-resnet bench --json` prints."""
        return {"results": [{**asdict(each), "path": str(each.path)} for each in self.results]}


@job
def bench(
    exported: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    images: str | os.PathLike | None = None,
    task: Literal["classification", "multilabel", "regression", "detection"] | None = None,
    batch_sizes: Sequence[int] | None = None,
    seconds: float = 5.0,
    image_size: int | tuple[int, int] | None = None,
) -> BenchRecord:
    """Measure exported models side by side, as `keras-resnet bench` does.

    Parameters
    ----------
    exported : path or sequence of path
        SavedModels or folders of their versions, .tflite, .onnx and .xml files.
    images : str or path, optional
        Images to measure with, as `keras_resnet.data.load` takes them; with detectors, the first of
        the test split, in its own size. Default: noise.
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the labels of the images are. Default: what they suggest.
    batch_sizes : sequence of int, optional
        Images of a batch, for models that take any number. Default: 1 and 16; with a detector among
        the models, 1.
    seconds : float, default 5.0
        Time for each model and batch size.
    image_size : int or tuple of (int, int), optional
        Height and width of the noise, for models that take images of any size. Default: 224x224;
        for a detector 600x800.

    Returns
    -------
    BenchRecord

    Raises
    ------
    ValueError
        For what is not an exported model, or numbers that are not positive.

    Examples
    --------
    >>> import tempfile
    >>> import keras_resnet
    >>> from keras_resnet import export, runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = export.saved_model(keras_resnet.CIFARResNet(8), folder, verbose=False)
    ...     record = runs.bench(path, batch_sizes=[1], seconds=0.1)
    >>> record.results[0].runtime
    'TensorFlow'
    """
    paths = [exported] if isinstance(exported, str | os.PathLike) else list(exported)
    shown = None
    if images and paths:
        source = data.load(images, task=task)
        if source.task == "detection":
            shown = np.stack(photographs(source.test, 1))
        else:
            _, height, width, channels = exporters.load(paths[0]).image_shape
            options = {"image_size": (height or 224, width or 224), "channels": channels}
            shown = some_images(source.test, options, max(batch_sizes or (16,)))
    return BenchRecord(
        tuple(exporters.latencies(paths, shown, batch_sizes, seconds, image_size=image_size))
    )
