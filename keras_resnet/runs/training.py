"""From images to a tested, exported model."""

import contextlib
import inspect
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_resnet import data, detection, names, training, transfer
from keras_resnet.checks import is_within
from keras_resnet.data.labels import Task
from keras_resnet.data.labels_file import check_labels
from keras_resnet.data.splitting import SplitPolicy
from keras_resnet.files import locked
from keras_resnet.interrupts import continued
from keras_resnet.machine import ONEDNN, computing_in, cpu, fast_precision, lacks_onednn
from keras_resnet.runs import repeating
from keras_resnet.runs.choices import MODEL_FILE, THRESHOLDS
from keras_resnet.runs.guards import (
    check_run,
    check_space,
    check_whole,
    damaged_images_named,
    job,
    policy_of,
)
from keras_resnet.runs.kinds import Order, kind_of
from keras_resnet.runs.models import check_name
from keras_resnet.runs.reporting import draw_page
from keras_resnet.runs.results import TrainRecord, counted_names, write_results
from keras_resnet.training import collectives
from keras_resnet.training.checkpoints import bind, interrupted

__all__ = ["TrainRecord", "train"]

log = logging.getLogger(__name__)

SHORTCUTS = ("A", "B", "C", "none")

# What one may also say field by field: how to train, how to carry that out, how to read the data.
_RECIPE = [each.name for each in fields(training.Recipe)]
_EXECUTION = [
    each.name
    for each in fields(training.Execution)
    if each.name not in ("class_weight", "checkpoints")
]
_DATA = ("on_error", "validation")
# Fields of an execution that are not settings.
_OF_THE_RUN = ("class_weight", "checkpoints", "verbose")


@job
@continued("the same command continues from what is saved.")
def train(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    model: str = "ResNet50",
    weights: str | os.PathLike | None = None,
    task: Task | None = None,
    shortcut: Literal["A", "B", "C", "none"] | None = None,
    dropout: float = 0.0,
    recipe: training.Recipe | str | None = None,
    balanced: bool = False,
    precision: Literal["float32", "bfloat16", "float16"] | None = None,
    strategy: tf.distribute.Strategy | str = "auto",
    hosts: Sequence[str] | None = None,
    timeout: float = 600.0,
    profile: bool = False,
    exports: str | os.PathLike | None = None,
    thresholds: Literal["f1", "balanced_accuracy"] | float | None = None,
    **options,
) -> TrainRecord | None:
    """Train a model on images, test it and export it, as `keras-resnet train` does.

    With weights, the model is fine-tuned in stages: first its head, on features computed once, then
    the last stage, then all layers, as long as that improves it (`transfer.stages`). Without, it is
    trained from scratch. An interrupted run continues where it stopped when it is started again
    with the same arguments, even on another machine or with a later version: it keeps the defaults
    that were chosen for it.

    Where the labels are boxes, the model is a Faster R-CNN, trained all at once: the one that
    `model` names, or one over that backbone, with a feature pyramid.

    Writes into `output`: report.html, the page of the run; model.keras, labels.txt, history.csv,
    images.csv, metrics.json, curves.png, predictions.png, logs for TensorBoard; run.json, the
    settings, and answers.npz, the model's answers on the test and validation images; and
    confusion.csv, per_label.csv or residuals.csv; for boxes, instead of the last two,
    per_class.csv, precision_recall.png, detections.json and truths.json.

    Parameters
    ----------
    source : str or path
        The data, as `keras_resnet.data.load` takes it.
    output : path
        The folder of the run.
    model : str, default "ResNet50"
        Name of a builder, or of a detector, such as "FasterRCNN_ResNet50_C4"; case, "-" and "_" do
        not matter.
    weights : str or path, optional
        Weights to fine-tune: a tag of `keras_resnet.list_weights`, or a file. For a detector, its
        own or those of its backbone.
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What to learn. Default: what the labels of the data suggest.
    shortcut : {"A", "B", "C", "none"}, optional
        Shortcuts of the model; "none" is the plain network. Default: the builder's.
    dropout : float, default 0.0
        Fraction of the features to drop.
    recipe : Recipe or str, optional
        How to train, or a key of `keras_resnet.training.RECIPES`. Default: "finetune" with weights,
        otherwise `Recipe()`.
    balanced : bool, default False
        Weight classes equally, however many images each has.
    precision : {"float32", "bfloat16", "float16"}, optional
        The precision of feature maps. Default: "bfloat16" where this machine is fast at it, as
        `keras_resnet.machine.fast_precision` says, otherwise "float32".
    strategy : tf.distribute.Strategy or str, default "auto"
        The devices, as `keras_resnet.training.strategy` takes them.
    hosts : sequence of str, optional
        For "multiworker": the machines, the same everywhere.
    timeout : float, default 600.0
        For "multiworker": seconds to wait for a worker that does not come or answer.
    profile : bool, default False
        Write a trace of steps 10 to 20 into output/profile.
    exports : path, optional
        Folder of the SavedModel's versions. Default: output/saved_model.
    thresholds : {"f1", "balanced_accuracy"} or float, optional
        For several labels per image: what is to be the best on the validation images that a
        threshold for each label can make it, as in `keras_resnet.analysis.choose_thresholds`; or a
        number, the threshold of all. A label is predicted where its probability exceeds that, in
        tests, in predictions and in exports. Default: 0.5.
    **options
        Fields of `keras_resnet.training.Recipe`, such as `epochs` and `learning_rate`; fields of
        `keras_resnet.training.Execution`, such as `image_size`, `seed`, `callbacks` and `verbose`,
        which is 0 unless given; and `on_error` and `validation` of `keras_resnet.data.load`. With
        weights, `image_size` and `crop` default to those of `keras_resnet.transfer.view_for`. A
        detector's `image_size` is the shorter side of an image, or that and how long the other one
        may be.

    Returns
    -------
    TrainRecord or None
        None in a worker that is not the chief.

    Raises
    ------
    ValueError
        For an argument that is unknown or out of range, data that cannot be read, a folder that
        is in use, holds another run or cannot be written to, or a loss that becomes NaN.
    keras_resnet.training.Interrupted
        On SIGTERM and Ctrl-C, after the state has been saved.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.train("digits", folder, model="CIFARResNet8", epochs=1)
    >>> record.to_json()["test_images"]
    359
    """
    given = dict(
        model=model,
        weights=weights,
        task=task,
        shortcut=shortcut,
        dropout=dropout,
        recipe=recipe,
        balanced=balanced,
        precision=precision,
        strategy=strategy,
        hosts=hosts,
        timeout=timeout,
        profile=profile,
        thresholds=thresholds,
        **options,
    )
    asked = ask(**given)
    command = command_of(source, output, {"exports": exports, **given})
    output = Path(output)
    exports = output / "saved_model" if exports is None else Path(exports)
    if asked.is_chief:
        check_run(output, exports)
    images = asked.images(source)
    asked = settled(asked, images, interrupted(output / "checkpoints"))
    return learn(asked, images, output, exports, os.fspath(source), command)


def command_of(
    source: str | os.PathLike, output: str | os.PathLike, given: Mapping[str, Any]
) -> str:
    """The command that repeats `train`, or `cross_validate`, with the same arguments."""
    defaults = inspect.signature(train).parameters
    known = (*defaults, *_RECIPE, *_EXECUTION, *_DATA, "folds")
    given = {names.find("option", name, known): value for name, value in given.items()}
    said = {
        name: value
        for name, value in given.items()
        if name not in defaults or value != defaults[name].default
    }
    return repeating.command(source, output, said)


@dataclass(frozen=True)
class Asked:
    """What a job was asked to train, once it is known to make sense.

    Parameters
    ----------
    order : Order
        The model, and how to train it.
    execution : Execution
        How to carry that out.
    policy : SplitPolicy
        How the data is split.
    task : str or None
        What to learn, if it was said.
    precision : str or None
        The precision of feature maps; None until `settled` chooses it.
    strategy : tf.distribute.Strategy
        The devices.
    profile : bool
        Whether to write a trace.
    thresholds : str, float or None
        How the thresholds of labels are chosen.
    chosen : mapping of str to value, optional
        What `settled` chose of the execution; None for a run that an earlier version began.
    """

    order: Order
    execution: training.Execution
    policy: SplitPolicy
    task: Task | None
    precision: str | None
    strategy: tf.distribute.Strategy
    profile: bool
    thresholds: str | float | None
    chosen: Mapping[str, Any] | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the first of the run, which writes and prints."""
        return collectives.workers(self.strategy)[1] == 0

    def images(self, source: str | os.PathLike, **fractions: Any) -> data.Source:
        """Load the data, and make sure that it suits what was asked.

        Parameters
        ----------
        source : str or path
            As `data.load` takes it.
        **fractions
            `validation` and `test` of `data.load`, in place of those that were asked for.

        Returns
        -------
        Source
        """
        fractions = {"validation": self.policy.validation, **fractions}
        images = data.load(source, on_error=self.policy.on_error, task=self.task, **fractions)
        order = self.order
        check_labels(images.class_names)
        training.task_of(images).check_options(order.changes)
        kind_of(images).check(
            dropout=order.dropout, balanced=order.balanced, crop=self.execution.crop
        )
        if order.balanced and not training.task_of(images).weighted:
            raise ValueError(
                f"balanced=True weights classes or labels; data {images.name!r} has numbers."
            )
        self._check_thresholds(images)
        return images

    def _check_thresholds(self, images):
        if self.thresholds is None:
            return
        if images.task != "multilabel":
            raise ValueError(
                f"thresholds={self.thresholds!r} are for several labels per image; data "
                f"{images.name!r} is for {images.task}: leave them out."
            )
        # A cross-validation holds some out later.
        validated = len(images.validation) or self.policy.validation
        if self.thresholds in THRESHOLDS and not validated:
            raise ValueError(
                f"thresholds={self.thresholds!r} are chosen on validation images, and data "
                f"{images.name!r} has none: give validation=, or a number."
            )

    def all_settings(self, images: data.Source, execution: training.Execution) -> dict:
        """All settings, including the defaults, as they were settled."""
        order, (plan, _) = self.order, kind_of(images).planned(self.order)
        carried = {
            name: value for name, value in vars(execution).items() if name not in _OF_THE_RUN
        }
        return {
            "task": images.task,
            "model": order.model,
            "weights": order.weights,
            "shortcut": order.shortcut,
            "dropout": order.dropout,
            "balanced": order.balanced,
            "precision": self.precision,
            "thresholds": self.thresholds,
            "strategy": type(self.strategy).__name__,
            "devices": self.strategy.num_replicas_in_sync,
            **vars(self.policy),
            **carried,  # whose seed is the run's; the policy's is that of splits
            "recipe": order.recipe,
            "training": plan,
        }

    def settings(self) -> dict:
        """What the stages of a run cannot know of each other, for its checkpoints."""
        order = self.order
        return {
            "model": order.model,
            "weights": order.weights and os.fspath(order.weights),
            "precision": self.precision,
            "dropout": order.dropout,
            "on_error": self.policy.on_error,
            **({} if self.chosen is None else {"chosen": dict(self.chosen)}),
        }


def ask(
    *,
    model,
    weights,
    task,
    shortcut,
    dropout,
    recipe,
    balanced,
    precision,
    strategy,
    hosts,
    timeout,
    profile,
    thresholds,
    **options,
) -> Asked:
    """Tell mistakes in the arguments of `train` before the data is read, and choose devices."""
    if precision is not None:
        policy_of(precision)
    changes, execution, policy = _sorted(options)
    if isinstance(recipe, str):
        recipe = names.find("recipe", recipe, training.RECIPES)
    shortcut = shortcut and names.find("shortcut", shortcut, SHORTCUTS)
    check_name(model)
    if thresholds is not None and not is_within("fraction", thresholds):
        known = " or ".join(map(repr, THRESHOLDS))
        if not isinstance(thresholds, str) or thresholds not in THRESHOLDS:
            raise ValueError(f"thresholds={thresholds!r} must be {known}, or a number from 0 to 1.")
    base = training.RECIPES[recipe] if isinstance(recipe, str) else recipe or training.Recipe()
    base.changed(**changes)
    # Before TensorFlow computes anything, which ends the choice of devices.
    if isinstance(strategy, str):
        strategy = training.strategy(strategy, hosts=hosts, timeout=timeout)
    order = Order(model, weights, recipe, changes, shortcut, dropout, balanced)
    return Asked(order, execution, policy, task, precision, strategy, profile, thresholds)


def as_train(options: Mapping[str, Any]) -> Asked:
    """Ask for what `train` would do with some of its options.

    Parameters
    ----------
    options : mapping of str to value
        Keyword arguments of `train`; the others have its defaults.

    Returns
    -------
    Asked
    """
    bound = inspect.signature(train).bind_partial(**options)
    bound.apply_defaults()
    given = bound.arguments
    unused = {"source", "output", "exports", "options"}
    return ask(**{name: given[name] for name in given if name not in unused}, **given["options"])


def settled(asked: Asked, images: data.Source, former: Mapping[str, Any] | None = None) -> Asked:
    """Choose what was not given: the precision, and the size and crop of images.

    Parameters
    ----------
    asked : Asked
        What was given.
    images : Source
        The data.
    former : mapping of str to value, optional
        The settings of an interrupted run, which are kept.

    Returns
    -------
    Asked
    """
    order, execution, choice = asked.order, asked.execution, None
    if asked.is_chief:
        began = former or {}
        precision, reason = asked.precision or began.get("precision"), None
        if precision is None:
            precision, reason = fast_precision()
        shown = began.get("chosen") if former else kind_of(images).shown(order, images)
        choice = [precision, reason, shown]
    # All machines do as the first one does, even if they are fast at something else.
    (precision, reason, shown), *_ = collectives.exchanged(asked.strategy, choice)
    if reason and precision != "float32":
        log.info(
            "Computing in %s, as %s; precision='float32' (--precision float32) overrides this.",
            precision,
            reason,
        )
    # Detectors are tested on one image at a time, which takes longer with oneDNN.
    if images.task != "detection" and lacks_onednn() and not tf.config.list_physical_devices("GPU"):
        log.info(
            "TensorFlow leaves oneDNN off on %s: %s=1 in the environment makes training faster.",
            cpu().name,
            ONEDNN,
        )
    if shown is None:  # earlier versions trained all epochs
        epochs = training.RECIPES["finetune"].epochs
        if kind_of(images).planned(order)[1] is transfer.fine_tune:
            order = replace(order, changes={"epochs": epochs, **order.changes})
        return replace(asked, order=order, precision=precision)
    chosen = {
        name: value
        for name, value in shown.items()
        if value is not None and getattr(execution, name) is None
    }
    return replace(
        asked, precision=precision, execution=replace(execution, **chosen), chosen=chosen
    )


def learn(
    asked: Asked,
    images: data.Source,
    output: Path,
    exports: Path,
    name: str,
    command: str,
    last: Callable[[TrainRecord], Any] | None = None,
) -> TrainRecord | None:
    """Train a model on images, test it and export it.

    Parameters
    ----------
    asked : Asked
        What to train, settled.
    images : Source
        The data.
    output, exports : pathlib.Path
        The folders of the run and of the SavedModel.
    name : str
        What checkpoints call the data.
    command : str
        The command that repeats the run.
    last : callable, optional
        Writes what is left to write, before the checkpoints are removed.

    Returns
    -------
    TrainRecord or None
        None in a worker that is not the chief.
    """
    order, chief, strategy = asked.order, asked.is_chief, asked.strategy
    kind = kind_of(images)
    plan, learns = kind.planned(order)
    assert asked.precision is not None  # settled chose one
    policy = policy_of(asked.precision)
    with computing_in(policy), locked(output) if chief else contextlib.nullcontext():
        keras.utils.set_random_seed(asked.execution.seed)
        net = kind.built(order, images, asked.execution.image_size)
        execution = kind.executed(asked.execution, images)
        if chief:
            check_space(net, output, exports)
            check_whole(images.test)  # the others are seen in the first epoch
            _announce(images, net, order.balanced)
            # An interrupted run must not continue as another.
            bind(output / "checkpoints", {"data": name, **asked.settings()})
            if (output / MODEL_FILE).exists():
                log.warning("%s holds a trained model, which this run replaces.", output)
            settings = {"data": name, "output": output, **asked.all_settings(images, execution)}
            begun = repeating.begun(command, settings)
            repeating.write_run(output, begun)
            execution = _logged(execution, output, asked.profile)
        in_stages = learns is transfer.fine_tune
        execution = replace(
            execution,
            class_weight=images.class_weight() if order.balanced else None,
            checkpoints=output / "checkpoints" / ("" if in_stages else "scratch"),
        )
        with damaged_images_named(*images.splits.values()):
            result = learns(net, images, plan, strategy, **vars(execution))
            if not chief:
                return None
            record = write_results(
                net, images, result, output, exports, asked.precision, asked.thresholds, begun
            )
        draw_page(output, record.model, images)
        if last is not None:
            last(record)
        shutil.rmtree(output / "checkpoints")
    return record


def _sorted(options):
    """Options by what they are for: changes of the recipe, the execution, the data."""
    known = (*_RECIPE, *_EXECUTION, *_DATA)
    given = {names.find("option", name, known): value for name, value in options.items()}
    of_recipe, of_execution, of_data = (
        {name: given[name] for name in group if name in given}
        for group in (_RECIPE, _EXECUTION, _DATA)
    )
    if of_recipe.get("augmentation") is not None:
        known = dict.fromkeys([*data.AUGMENTATIONS, *detection.AUGMENTATIONS])
        found = names.find("augmentation", of_recipe["augmentation"], known)
        of_recipe["augmentation"] = found
    return of_recipe, training.Execution(**{"verbose": 0, **of_execution}), SplitPolicy(**of_data)


def _logged(execution, output, profile):
    """The same execution with logs for TensorBoard."""
    logs = [training.TensorBoardLog(output / "logs")]
    if profile:
        logs.append(training.Profile(output / "profile"))
    return replace(execution, callbacks=[*execution.callbacks, *logs])


def _announce(images, net, balanced):
    log.info(
        "%s: %s, %d training, %d validation and %d test images. %s: %s parameters.",
        images.name,
        counted_names(images),
        *map(len, images.splits.values()),
        net.name,
        f"{net.count_params():,}",
    )
    if images.imbalance > 1.5:
        remedy = "they are weighted equally" if balanced else "balanced weights them equally"
        log.info(
            "The largest class has %.1f times as many images as the smallest: %s.",
            images.imbalance,
            remedy,
        )
