"""A model of the mean weights of several runs."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import analysis, data, graphs, names, training
from keras_resnet.data.labels import Task
from keras_resnet.data.labels_file import write_labels
from keras_resnet.files import json_text, locked, write_text, written_beside
from keras_resnet.graphs.thresholds import THRESHOLD
from keras_resnet.runs.choices import METRICS_FILE, MODEL_FILE, RUN_FILES
from keras_resnet.runs.guards import check_files, check_writable, damaged_images_named, job
from keras_resnet.runs.images import images_of, write_images
from keras_resnet.runs.kinds import OF_IMAGES, Quality, kind_of
from keras_resnet.runs.models import Answering, answering, load_model

log = logging.getLogger(__name__)

_BATCH = 64  # images that statistics are measured on at a time


@dataclass(frozen=True)
class SoupRecord:
    """What `soup` has made.

    Parameters
    ----------
    made : Soup
        The model, and what it is made of.
    models : tuple of pathlib.Path
        What it was to be made of.
    source : Source or None
        The images.
    validation : dict of str to dict
        For a greedy soup, the metric that it was chosen by: its value for the "soup", and for each
        model alone.
    evaluation : Evaluation, MultiLabelEvaluation, RegressionEvaluation or None
        How the soup does on the test images, if there are some.
    statistics : {"same", "measured", "averaged"}
        Where its BatchNormalization statistics come from: those of all models are the same; they
        were measured anew on training images; or, without any, they are the mean.
    output : pathlib.Path
        The folder.
    """

    made: training.Soup
    models: tuple[Path, ...]
    source: data.Source | None
    validation: dict[str, dict[str, float]]
    evaluation: Quality | None
    statistics: str
    output: Path

    def to_json(self) -> dict:
        """What `keras-resnet soup --json` prints and metrics.json holds."""
        source, quality = self.source, self.evaluation
        found = {} if quality is None else quality.metrics()
        if source and source.task == "classification":
            found = {f"test_{name}": value for name, value in found.items()}
        return {
            "model": self.made.model.name,
            "data": source and source.name,
            "task": source and source.task,
            **found,
            "test_images": len(source.test) if source else 0,
            **({} if quality is None else quality.details()),
            "soup": [str(self.models[index]) for index in self.made.taken],
            "validation": self.validation,
            "statistics": self.statistics,
            "loaded": source and source.loaded,
            "output": str(self.output),
        }


@job
def soup(
    models: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    source: str | os.PathLike | None = None,
    greedy: bool = False,
    task: Task | None = None,
) -> SoupRecord:
    """Average the weights of several runs, as `keras-resnet soup` does.

    The runs must be of one architecture, and are worth averaging if they began with the same
    weights, such as those of ImageNet, and differ in hyperparameters or seeds. Statistics of
    BatchNormalization are measured anew on the training images, unless all runs have the same,
    because the mean of several is not what the mean weights would measure. Thresholds of labels
    are chosen anew on the validation images, unless all runs have the same.

    Writes into `output`: model.keras, labels.txt and metrics.json; and if there are images,
    images.csv, predictions.png and what `evaluate` finds on the test images.

    Parameters
    ----------
    models : sequence of path
        Folders of runs, or .keras files of models that take raw images, at least two.
    output : path
        The folder to write.
    source : str or path, optional
        The data, as `keras_resnet.data.load` takes it. Default: the images of the runs, which must
        have been divided in the same way.
    greedy : bool, default False
        Add one model after the other, the best on the validation images first, and keep each that
        does not make the soup worse there. Default: average all.
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the models are for, if they do not say so.

    Returns
    -------
    SoupRecord

    Raises
    ------
    ValueError
        For models that cannot be read, or of different architectures, classes or views; runs with
        other images; or a greedy soup without validation images.

    Examples
    --------
    >>> import os, tempfile
    >>> import keras_resnet
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = [os.path.join(folder, name) for name in ("a.keras", "b.keras")]
    ...     for file in files:
    ...         shape = (8, 8, 1)
    ...         net = keras_resnet.CIFARResNet(8, input_shape=shape, include_preprocessing=True)
    ...         net.save(file)
    ...     record = runs.soup(files, os.path.join(folder, "soup"), source="digits")
    >>> len(record.to_json()["soup"]), record.to_json()["test_images"]
    (2, 359)
    """
    paths, output = tuple(map(Path, models)), Path(output)
    _check_places(paths, output)
    found = [load_model(path, None, task) for path in paths]
    _check_alike(found, paths)
    first = found[0]
    images = _images(paths, first, source, task)
    known = first.task or (images and images.task)
    if greedy and not (images and len(images.validation)):
        raise ValueError(
            "greedy: a greedy soup is chosen on validation images, and there are none: give the "
            "images, --data (source=)."
        )
    score = _Score(images, first) if greedy else None
    with locked(output):
        with damaged_images_named(*(images.splits.values() if images else ())):
            same = training.same_statistics([each.model for each in found])
            renew = None if same or images is None else _renewal(images, first)
            made = training.soup(
                [each.model for each in found],
                score=score,
                renew=renew,
            )
            made = replace(made, model=_decided(made, found, images, _rule_of(paths)))
            quality = None
            if images and len(images.test):
                quality = _evaluated(made.model, images, images.test, first)
        where = "measured" if renew else "averaged"
        if same or len(made.taken) == 1:
            where = "same"
        elif not renew:
            log.warning(
                "There are no images to measure BatchNormalization statistics on: those of the "
                "soup are the mean of the models', which may be far off. Give some, --data "
                "(source=)."
            )
        compared = {score.metric: _validated(made, paths, score.sign)} if score else {}
        record = SoupRecord(made, paths, images, compared, quality, where, output)
        _write(record, first.names, known)
    return record


def _decided(made, found, images, rule):
    """The model of a soup with thresholds of labels, if those it is made of have some."""
    each = [graphs.thresholds_of(found[index].model) for index in made.taken]
    if len({*each}) == 1:
        return made.model
    if images and len(images.validation):
        quality: Any = _evaluated(made.model, images, images.validation, found[0])
        chosen = analysis.choose_thresholds(
            quality.labels, quality.probabilities, rule, quality.class_names
        )
    else:
        log.warning("There are no images to choose thresholds of labels on: they are the mean.")
        half = (THRESHOLD,) * len(found[0].names)
        chosen = np.mean([thresholds or half for thresholds in each], 0).tolist()
    return graphs.with_thresholds(made.model, chosen)


def _rule_of(paths):
    """How the thresholds of the first run that has some were chosen."""
    rules = (run.metrics.get("thresholds") for run in map(images_of, paths) if run)
    return next((rule for rule in rules if isinstance(rule, str)), "f1")


def _check_places(paths, output):
    """Make sure that there are models, and that none of them is written over."""
    if len(paths) < 2:
        raise ValueError(f"models: {len(paths)} came; a soup is made of two or more.")
    for path in paths:
        folder = path if path.is_dir() else path.parent
        if output.resolve() == folder.resolve():
            raise ValueError(
                f"output={str(output)!r} holds {str(path)!r}, which it would replace: choose "
                "another folder."
            )
    check_writable(output)
    check_files(output, RUN_FILES)


def _check_alike(found: Sequence[Answering], paths):
    """Make sure that models answer the same question about images that they are shown alike."""
    first = found[0]
    for each, path in zip(found[1:], paths[1:], strict=True):
        if each.names != first.names:
            raise ValueError(
                f"model {str(path)!r} knows {names.some(each.names, 10)}; {str(paths[0])!r} knows "
                f"{names.some(first.names, 10)}: only models of the same classes have a mean."
            )
        mine, theirs = (graphs.wants_of(model) for model in (first.model, each.model))
        if mine != theirs:
            raise ValueError(
                f"model {str(path)!r} wants to be shown {theirs}, {str(paths[0])!r} {mine}: only "
                "models that see images alike have a mean."
            )


def _images(paths, first, source, task):
    """The images that were asked for, or those of the runs, or none."""
    own: list[Any] = [images_of(path) for path in paths]
    if source is not None:
        images = data.load(source, task=first.task or task)
        if images.class_names != first.names:
            raise ValueError(
                f"data {os.fspath(source)!r} has {names.some(images.class_names, 10)}; the models "
                f"know {names.some(first.names, 10)}."
            )
        return images
    if None in own:
        return None
    of_first = own[0]
    for run, path in zip(own[1:], paths[1:], strict=True):
        if _digests(run) != _digests(of_first):
            raise ValueError(
                f"model {str(path)!r} was trained, validated and tested on other images than "
                f"{str(paths[0])!r}: give the images to compare them on, --data (source=)."
            )
    images, missing = of_first.find(tuple(data.SPLITS), first.names, first.task or task)
    if any(missing.values()):
        log.warning(
            "Of the runs' images, %d have changed and %d are gone: these are left out.",
            missing["changed"],
            missing["gone"],
        )
    return images


def _digests(run):
    """The images of every split of a run, in whatever order."""
    return {name: sorted(row.digest for row in rows) for name, rows in run.rows.items()}


def _evaluated(model, images, split, first) -> Quality:
    """How a model does on a split."""
    task = first.task or images.task
    predictor = answering(model, first.names, task).predictor
    kind = kind_of(images)
    return kind.evaluated(predictor, split, images, kind.viewed(model, None, None), first.names)


def _validated(made, paths, sign):
    """What a greedy soup and each model achieve on the validation images."""
    alone = {str(path): sign * score for path, score in zip(paths, made.scores, strict=True)}
    return {"soup": sign * made.score, **alone}


class _Score:
    """What greedy soups are chosen by: the metric to compare models by, on validation images."""

    def __init__(self, images, first):
        self._images, self._first, self.metric = images, first, ""

    def __call__(self, model):
        quality = _evaluated(model, self._images, self._images.validation, self._first)
        self.metric, value = quality.headline
        return self.sign * value

    @property
    def sign(self):
        """-1 if less is better."""
        return -1.0 if self.metric.endswith("_error") else 1.0


def _renewal(images, first):
    """What measures the statistics of a model on training images; None if nothing can."""
    if kind_of(images) is not OF_IMAGES or not len(images.train):
        return None
    view = graphs.view_of(first.model)

    def renew(model):
        # Without augmentation, as the model is shown images later; in random order.
        shuffled = data.batches(
            images.train, **vars(view), batch_size=_BATCH, augmentation="none", epochs=range(1)
        )
        task = first.task or images.task
        training.renew_statistics(answering(model, first.names, task).predictor, shuffled)

    return renew


def _write(record, class_names, task):
    """Write down a soup, and how it does."""
    output, model, images = record.output, record.made.model, record.source
    with written_beside(output / MODEL_FILE) as partial:
        model.save(partial)
        for name in RUN_FILES:  # nothing of an earlier run beside this model
            (output / name).unlink(missing_ok=True)
    write_labels(output, class_names)
    if images:
        write_images(output, images)
    if record.evaluation is not None:
        record.evaluation.save(output)
        kind_of(images).drawn(output / "predictions.png", model, images.test, record.evaluation)
    write_text(output / METRICS_FILE, json_text(record.to_json()) + "\n")
