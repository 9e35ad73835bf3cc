"""What the jobs do about objects: detectors are built, trained, evaluated, drawn and exported."""

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_resnet
from keras_resnet import analysis, data, detection, export, names, training, zoo
from keras_resnet.analysis.evaluation import submission_ids
from keras_resnet.detection.evaluation import image_ids
from keras_resnet.detection.weights import find
from keras_resnet.detection.zoo import PREFIX, Named, build
from keras_resnet.files import json_text, write_text, written_beside
from keras_resnet.layers.view import sides
from keras_resnet.pretrained import load, registry
from keras_resnet.progress import tracked

LONGEST = 5 / 3
"""The longest side of an image, relative to the shorter one, if only that is given."""

DETECTIONS_FILE = "detections.json"
"""Objects that were found, in the format of COCO's results."""

ERRORS_FILE = "errors.png"
"""What was missed and what was falsely found, in the folder of a run."""

_OF_DETECTOR = re.compile(r"\brpn\.|proposal_generator\.|^layers/functional")  # tensors
_SCORE = 0.5  # from which on objects are shown
_JPEG = (".jpg", ".jpeg")
_COLUMNS = ("boxes", "labels", "scores")
_SHOWN, _SIDE = 12, 300  # images on a sheet, and pixels of their longer side
_VERIFIED = 4  # images that an exported detector is compared on
_OUTPUT = "output=FOLDER writes what was found"

REFUSED = {
    "dropout": "detectors have no dropout",
    "balanced": "boxes are not weighted by class",
    "crop": "a detector sees whole images",
    "top": "score=0.5 says which objects are shown",
    "tta": "boxes of several views cannot be averaged",
    **dict.fromkeys(
        ("runtime", "precision"), "detectors run in TensorFlow, in the model's precision"
    ),
    **dict.fromkeys(("csv", "positive", "probability"), _OUTPUT),
}
"""Options that have no effect on detectors, and why, or what has."""


def architecture(name: str) -> Named | None:
    """Parse the name of a detector, such as FasterRCNN_ResNet50_FPN; None for other names.

    Parameters
    ----------
    name : str
        Any name; case, "-" and "_" do not matter.

    Returns
    -------
    Named or None

    Raises
    ------
    ValueError
        For a detector with an unknown backbone or head.

    Examples
    --------
    >>> from keras_resnet.runs.objects import architecture
    >>> architecture("faster-rcnn-resnext50-32x4d-c4")
    Named(backbone='ResNeXt50_32x4d', head='c4')
    """
    plain, prefix = names.plain(name), names.plain(PREFIX)
    if not plain.startswith(prefix):
        return None
    heads: dict[str, Any] = {names.plain(head): head for head in detection.HEADS}
    for ending in sorted(heads, key=len, reverse=True):
        if plain.endswith(ending):
            backbone = plain.removeprefix(prefix).removesuffix(ending)
            with contextlib.suppress(ValueError):
                found = getattr(zoo.builder(backbone), "__name__", backbone)  # CIFAR: any depth
                return Named(found, heads[ending])
    endings = [f"_{head.upper()}" for head in detection.HEADS]
    known = [f"{PREFIX}_{each}{ending}" for each in zoo.MODELS for ending in endings]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"model {name!r} is not known. Did you mean {nearest}? The names of detectors are "
        f"{PREFIX}, the name of a model, and {', '.join(endings)}."
    )


def resized(image_size: Any) -> dict[str, Any]:
    """The options of a detector that say how it resizes images.

    Parameters
    ----------
    image_size : int or pair of int, optional
        The shorter side, or that and what the longer one is at most, in pixels.

    Returns
    -------
    dict of str to int
        "min_size" and "max_size"; nothing for the detector's own.

    Examples
    --------
    >>> from keras_resnet.runs.objects import resized
    >>> resized(600), resized((480, 640))
    ({'min_size': 600, 'max_size': 1000}, {'min_size': 480, 'max_size': 640})
    """
    if image_size is None:
        return {}
    shorter, longer = sorted(sides(image_size))
    if not isinstance(image_size, Sequence):
        longer = round(LONGEST * shorter)
    return {"min_size": shorter, "max_size": longer}


def detector(
    name: str,
    classes: Any,
    weights: str | os.PathLike | None = None,
    backbone: dict[str, Any] | None = None,
    **options: Any,
) -> keras.Model:
    """Build a detector by its name or that of its backbone.

    Parameters
    ----------
    name : str
        Name of a detector, or of a builder: its model becomes a backbone with a feature pyramid.
    classes : int or None
        Number of classes. None: that of the weights.
    weights : str or path, optional
        Those of a detector, or of its backbone.
    backbone : dict, optional
        Options of the backbone's builder.
    **options
        Fields of `detection.Options`.

    Returns
    -------
    keras.Model
    """
    named = architecture(name) or Named(name, "fpn")
    whole, of_backbone = None, weights
    if weights is not None and _are_of_detector(weights, named.backbone):
        whole, of_backbone = weights, None
    return build(named, whole, of_backbone, classes, backbone=backbone, **options)


def pretrained(
    name: str, weights: str | os.PathLike | None, image_size: int | tuple[int, int] | None
) -> tuple[keras.Model, list[str]]:
    """Build a pretrained detector, and name its classes.

    Parameters
    ----------
    name : str
        Name of the detector.
    weights : str or path, optional
        Its weights. Default: the first that are published.
    image_size : int or pair of int, optional
        As `resized` takes it.

    Returns
    -------
    keras.Model, list of str
    """
    named: Any = architecture(name)
    found = find(weights or keras_resnet.list_weights(named.name)[0].tag, named.name)
    return build(named, found, **resized(image_size)), found.class_names


def _are_of_detector(weights, backbone):
    """Whether weights are those of a whole detector, rather than of its backbone."""
    tags = {row.tag for row in registry.DETECTORS}
    tags |= {alias for alias, tag in registry.ALIASES.items() if tag in tags}
    if names.plain(os.fspath(weights)) in map(names.plain, tags):
        return True
    source = load.find(weights, backbone)
    if source.row:
        return source.row in registry.DETECTORS
    tensors = source.read(True)
    return any(_OF_DETECTOR.search(name) for name in tensors)


def executed(execution, _source):
    """How to train: a detector resizes the images itself."""
    return replace(execution, image_size=None)


def built(order, source, image_size):
    """A detector of the classes of a source."""
    backbone = {}
    if order.shortcut is not None:
        backbone["shortcut"] = None if order.shortcut == "none" else order.shortcut
    if (drop_path := planned(order)[0].drop_path) is not None:
        backbone["drop_path"] = drop_path
    return detector(
        order.model,
        len(source.class_names),
        order.weights,
        backbone,
        **resized(image_size),
    )


def planned(order):
    """How to train: all at once, whatever the weights."""
    recipe = order.recipe
    recipe = training.RECIPES[recipe] if isinstance(recipe, str) else recipe
    return (recipe or training.RECIPES["detection"]).changed(**order.changes), training.train


def evaluated(model, split, source, _view=None, class_names=None, *, trained=False):
    """How a detector does on a split, which may have only some of its classes."""
    known = list(class_names or source.class_names)
    classes = [known.index(name) for name in source.class_names]
    return detection.evaluate(model, split, source.class_names, classes=classes)


def drawn(path, _model, split, quality):
    """Pictures of the objects that were found, in the images with most errors; and of errors."""
    shown = quality.order()[:_SHOWN]
    images = dict(zip(sorted(shown), images_of(split.take(np.sort(shown))), strict=True))
    sure = [_above(quality.detections[index], _SCORE) for index in shown]
    pictures = [
        analysis.draw_boxes(
            images[index], *(found[each] for each in _COLUMNS), class_names=quality.class_names
        )
        for index, found in zip(shown, sure, strict=True)
    ]
    analysis.contact_sheet(
        path,
        [*map(np.asarray, pictures)],
        [quality.caption(index) for index in shown],
        quality.right[shown],
        columns=4,
        side=_SIDE,
    )
    detection.error_sheet(path.with_name(ERRORS_FILE), split, quality)


def exported(model, folder, source, precision):
    """A SavedModel, verified on some test images."""
    return export.saved_model(
        model,
        folder,
        source.class_names,
        images=photographs(source.test, _VERIFIED),
        agreement=0.99 if precision == "float32" else 0.9,
        verbose=False,
    )


def photographs(split: data.Split, count: int) -> list[np.ndarray]:
    """Images from all over a split, uint8, each in its own size."""
    if not len(split):
        raise ValueError("there are no images to take some from: the split is empty.")
    some = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return [image.astype("uint8") for image in images_of(split.take(some))]


def images_of(split: data.Split) -> Iterator[np.ndarray]:
    """The images of a split, upright, each of its own size."""
    for inputs, _ in detection.batches(split, batch_size=1):
        yield inputs["images"][0].numpy()


def _above(found, score):
    """The objects of an image that have at least a score."""
    kept = np.asarray(found["scores"]) >= score
    return {name: np.asarray(found[name])[kept] for name in _COLUMNS}


def viewed(_model, image_size, crop):
    """No view: a detector resizes images as it was built to."""


def predicted(found, split, _view, score, **_computing):
    """The objects in the images of a split, each image at its own size."""
    score = _SCORE if score is None else score
    shown = tracked(images_of(split), "Predicting", len(split))
    return tuple(detection.detect(found.model, [each], score=score)[0] for each in shown)


def drawings(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Name the copies of images with boxes: JPEG files stay JPEG, others become PNG.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    files : sequence of pathlib.Path
        The images.

    Returns
    -------
    list of pathlib.Path
    """
    return [
        folder / f"{name}{'.jpg' if file.suffix.lower() in _JPEG else '.png'}"
        for name, file in zip(submission_ids(files), files, strict=True)
    ]


def write_drawings(
    folder: Path, files: Sequence[Path], split: data.Split, outputs, class_names: Sequence[str]
) -> None:
    """Draw the objects that were found into copies of the images, and list them as COCO does.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    files : sequence of pathlib.Path
        The images.
    split : Split
        The same, to be read.
    outputs : sequence of dict
        What `predicted` returned for them.
    class_names : sequence of str
        Names of the classes.
    """
    for path, image, found in zip(drawings(folder, files), images_of(split), outputs, strict=True):
        copy = analysis.draw_boxes(
            image, *(found[each] for each in _COLUMNS), class_names=class_names
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as partial:
            copy.save(partial, format="JPEG" if path.suffix == ".jpg" else "PNG", quality=92)
    text = json_text(detection.coco_results(outputs, image_ids(files)), None)
    write_text(folder / DETECTIONS_FILE, text + "\n")
