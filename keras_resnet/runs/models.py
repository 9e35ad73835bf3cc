"""Models by what names them: a file, the folder of a run, or a builder."""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np

import keras_resnet
from keras_resnet import data, zoo
from keras_resnet.files import LABELS_FILE
from keras_resnet.graphs import crop_of
from keras_resnet.pretrained import load
from keras_resnet.resnet import deep_graphs
from keras_resnet.runs.choices import MODEL_FILE


def load_model(model: str | os.PathLike, weights: str | None) -> tuple[keras.Model, list[str]]:
    """A model that takes raw images, and the names of its classes."""
    path = Path(model)
    if weights is None and (path.exists() or path.suffix or len(path.parts) > 1):
        return _load_file(path)
    name = os.fspath(model)
    build = zoo.builder(name)
    weights = weights or keras_resnet.list_weights(name)[0].tag
    labels = load.class_names(load.find(weights, name))
    return build(weights=weights, classes=len(labels), include_preprocessing=True), labels


def _load_file(path):
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"model {str(path)!r}: there is no file {str(file)!r}.")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"model {str(file)!r} is not a .keras file, or not a whole one.")
    try:
        with deep_graphs():
            model = keras.saving.load_model(file, compile=False)
    except (ValueError, OSError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"model {str(file)!r} cannot be loaded: {reason}") from error
    labels_file = file.with_name(LABELS_FILE)
    if labels_file.is_file():
        labels = labels_file.read_text(encoding="utf-8").splitlines()
    else:
        labels = [str(index) for index in range(model.output_shape[-1])]
    if len(labels) != model.output_shape[-1]:
        raise ValueError(
            f"{str(labels_file)!r} names {len(labels)} classes, the model has "
            f"{model.output_shape[-1]}."
        )
    return model, labels


def input_of(model: keras.Model, images: data.Source | None = None) -> dict:
    """What `data.batches` makes for a model; one of any size takes what suits the images."""
    height, _, channels = model.input_shape[1:]
    size = height or (images.image_size if images else 224)
    return {"image_size": size, "channels": channels, "crop": crop_of(model)}


def some_images(split: data.Split, options: dict, count: int) -> np.ndarray:
    """Images from all over a split, as `data.batches` makes them."""
    some = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    return np.concatenate([images for images, _ in data.batches(split.take(some), **options)])
