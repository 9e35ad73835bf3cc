"""What the jobs do, by the task of the data: a row of `KINDS`, asked once, at the door."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet import (
    analysis,
    data,
    detection,
    export,
    graphs,
    progress,
    training,
    transfer,
    zoo,
)
from keras_resnet.analysis.evaluation import check_finite
from keras_resnet.data import boxes
from keras_resnet.layers.view import sides
from keras_resnet.runs import objects
from keras_resnet.runs.asking import asking
from keras_resnet.training import Execution, Recipe

Quality = (
    analysis.Evaluation
    | analysis.MultiLabelEvaluation
    | analysis.RegressionEvaluation
    | detection.DetectionEvaluation
)


@dataclass(frozen=True)
class Order:
    """What is to be trained, as it was asked for.

    Parameters
    ----------
    model : str
        Name of a builder or a detector.
    weights : str or path, optional
        Weights to begin with.
    recipe : Recipe or str, optional
        How to train.
    changes : mapping of str to value
        Fields of the recipe that were given one by one.
    shortcut : str, optional
        Shortcuts of the model; "none" is the plain network.
    dropout : float
        Fraction of the features to drop.
    balanced : bool
        Whether to weight classes equally.
    """

    model: str
    weights: Any
    recipe: Recipe | str | None
    changes: Mapping[str, Any]
    shortcut: str | None
    dropout: float
    balanced: bool


@dataclass(frozen=True)
class Kind:
    """How the jobs treat the data of a task, and the models for it.

    Parameters
    ----------
    executed : callable
        Takes the execution that was asked for and the source; returns the one to train with.
    built : callable
        Makes a model that takes raw images, given the order, the source, and the image size that
        was asked for, if one was.
    shown : callable
        Chooses the size and the crop of images, given the order and the source; empty if both
        follow from the data and the model.
    planned : callable
        Says how to train, given the order, and the function that does.
    evaluated : callable
        Tests a model on a split of a source, given the view of its images and the names of its
        outputs, or None for its own and those of the source; `trained` if its training is over.
    drawn : callable
        Writes the picture of some predictions to a path, given the model, the split and how the
        model does on that.
    exported : callable
        Writes a SavedModel, given the model, the folder, the source and the precision.
    viewed : callable
        Says how a trained model is shown images, given the model, image size and crop.
    predicted : callable
        What a loaded model gives for each image of a split, given those, the view and the lowest
        score of an object; and the runtime and the precision to compute with.
    unlabelled : callable
        Labels for so many images that nobody has labelled.
    labels : str
        What the labels are, in words.
    refused : mapping of str to str
        Options of jobs that have no effect here, and why, or what has.
    searched : bool, default True
        Whether models for it can be searched for.
    some_classes : bool, default False
        Whether data to test on may have only some of a model's classes.
    """

    executed: Callable[[Execution, data.Source], Execution]
    built: Callable[[Order, data.Source, Any], keras.Model]
    shown: Callable[[Order, data.Source], dict[str, Any]]
    planned: Callable[[Order], tuple[Any, Callable]]
    evaluated: Callable[..., Quality]
    drawn: Callable[[Path, keras.Model, data.Split, Quality], None]
    exported: Callable[[keras.Model, Path, data.Source, str], export.Exported]
    viewed: Callable[..., graphs.View | None]
    predicted: Callable[..., Any]
    unlabelled: Callable[[int], np.ndarray]
    labels: str
    refused: Mapping[str, str] = field(default_factory=dict)
    searched: bool = True
    some_classes: bool = False

    def check(self, **given: Any) -> None:
        """Raise ValueError for an option that is given and has no effect."""
        for name, reason in self.refused.items():
            value = given.get(name)
            if value is not None and value is not False and value != 0.0:
                raise ValueError(f"{name}={value!r} is not for {self.labels}: {reason}.")


def kind_of(source: data.Source) -> Kind:
    """How the jobs treat a source."""
    return KINDS[source.task]


def _sized(execution, source):
    """Images have the size that suits the data, unless another is given."""
    return replace(execution, image_size=execution.image_size or source.image_size)


def _classifier(order, source, image_size):
    """A model with an answer for a whole image."""
    if objects.architecture(order.model):
        raise ValueError(
            f"model {order.model!r} finds objects; data {source.name!r} is for {source.task}, "
            "without boxes. Name a classifier, such as ResNet50."
        )
    build = zoo.builder(order.model)
    options: dict[str, Any] = dict(
        input_shape=(*sides(image_size or source.image_size), source.channels),
        include_preprocessing=True,
    )
    if order.shortcut is not None:
        options["shortcut"] = None if order.shortcut == "none" else order.shortcut
    if (drop_path := _recipe_of(order).drop_path) is not None:
        options["drop_path"] = drop_path
    if source.task == "classification" and not (order.weights or order.dropout):
        return build(weights=None, classes=len(source.class_names), **options)
    backbone = build(weights=order.weights, include_top=False, **options)
    return transfer.model_for(backbone, source, order.dropout)


def _recipe_of(order):
    """How to train all layers at once."""
    recipe = training.RECIPES[order.recipe] if isinstance(order.recipe, str) else order.recipe
    return (recipe or Recipe()).changed(**order.changes)


def _is_in_stages(order):
    return bool(order.weights) and order.recipe in (None, "finetune")


def _shown(order, source):
    """Show photographs to pretrained weights as these were tested."""
    if not _is_in_stages(order) or objects.architecture(order.model):  # which is refused later
        return {}
    return transfer.view_for(source, order.weights, order.model)


def _in_stages(order):
    """Weights are fine-tuned in stages; without, all layers are trained at once."""
    if _is_in_stages(order):
        return transfer.stages(**order.changes), transfer.fine_tune
    return _recipe_of(order), training.train


def _batches(model, split, view=None):
    """A split as a model is shown it."""
    return data.batches(split, **vars(view or graphs.view_of(model)))


def _answers_evaluated(model, split, source, view=None, _names=None, *, trained=False):
    batches = _batches(model, split, view)
    options = {"ask": asking(model, batches, len(split))} if trained else {}
    return analysis.evaluate(model, batches, source.class_names, source.task, **options)


def _answers_drawn(path, model, split, quality):
    analysis.prediction_sheet(path, _batches(model, split), quality)


def _classifier_exported(model, folder, source, precision):
    return export.saved_model(
        model,
        folder,
        source.class_names,
        images=next(iter(_batches(model, source.test)))[0].numpy(),
        agreement=1.0 if precision == "float32" else 0.9,
        verbose=False,
    )


def _answers(found, split, view, _score, **computing):
    batches = _batches(found.predictor, split, view)
    ask = asking(found.predictor, batches, len(split), **computing)
    # Batches are prefetched: images are decoded while the model computes.
    shown = progress.batches(batches, "Predicting")
    outputs = np.concatenate([ask(images) for images, _ in shown])
    return check_finite(outputs, found.model) if found.task else outputs


_SCORE = "it is for objects; top=5 says how many classes are shown"
OF_IMAGES = Kind(
    executed=_sized,
    built=_classifier,
    shown=_shown,
    planned=_in_stages,
    evaluated=_answers_evaluated,
    drawn=_answers_drawn,
    exported=_classifier_exported,
    viewed=lambda model, image_size, crop: graphs.view_of(model, image_size=image_size, crop=crop),
    predicted=_answers,
    unlabelled=lambda count: np.zeros(count, int),
    labels="answers about whole images",
    refused={"score": _SCORE, "output": "there are no boxes to draw; csv=FILE lists the answers"},
)
"""Those of models that answer for a whole image."""

KINDS: dict[str, Kind] = {
    "classification": OF_IMAGES,
    "multilabel": OF_IMAGES,
    "regression": OF_IMAGES,
    "detection": Kind(
        executed=objects.executed,
        built=objects.built,
        shown=lambda order, source: {},
        planned=objects.planned,
        evaluated=objects.evaluated,
        drawn=objects.drawn,
        exported=objects.exported,
        viewed=objects.viewed,
        predicted=objects.predicted,
        unlabelled=lambda count: boxes.padded([()] * count),
        labels="boxes",
        refused=objects.REFUSED,
        searched=False,
        some_classes=True,
    ),
}
"""How the jobs treat data, by its task."""
