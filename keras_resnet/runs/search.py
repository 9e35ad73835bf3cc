"""The search for the model, and its training, that suit images and a budget best."""

import contextlib
import functools
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_resnet import data, names, training, tuning
from keras_resnet.checks import check_range
from keras_resnet.data.labels_file import check_labels
from keras_resnet.files import locked
from keras_resnet.interrupts import continued
from keras_resnet.layers.view import sides
from keras_resnet.machine import computing_in
from keras_resnet.runs.choices import SEARCH_FILES
from keras_resnet.runs.guards import (
    check_files,
    check_run,
    check_whole,
    check_writable,
    damaged_images_named,
    job,
    policy_of,
)
from keras_resnet.runs.kinds import kind_of
from keras_resnet.runs.results import TrainRecord, counted_names, write_results
from keras_resnet.training.callbacks import check_callbacks, direct
from keras_resnet.tuning import parallel, records, report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneRecord:
    """What `tune` has found.

    Parameters
    ----------
    search : SearchRecord
        The search, with all of its trials.
    output : pathlib.Path
        The folder of the search.
    trained : TrainRecord, optional
        The best model, trained on all but the test images.
    """

    search: records.SearchRecord
    output: Path
    trained: TrainRecord | None = None

    def to_json(self) -> dict:
        """What `keras-resnet tune --json` prints."""
        best = records.best(self.search)
        found = {
            "trials": len(self.search.trials),
            "failed": sum(trial.status == "failed" for trial in self.search.trials),
            "declined": self.search.declined,
            "seconds": self.search.seconds,
            "best": asdict(best[0]) if best else None,
            "output": str(self.output),
        }
        return {**found, **self.trained.metrics()} if self.trained else found


@job
def tune(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    budget: str | None = None,
    trials: int = 30,
    epochs: int = 27,
    task: Literal["classification", "multilabel", "regression"] | None = None,
    algorithm: Literal["hyperband", "random", "bayesian"] = "hyperband",
    objective: str | None = None,
    weights: str | os.PathLike | None = None,
    space: Mapping[str, Any] | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    precision: Literal["float32", "bfloat16", "float16"] = "float32",
    cache: str | os.PathLike | None = None,
    validation: float = 0.15,
    strategy: tf.distribute.Strategy | str = "auto",
    timeout: float = 120.0,
    steps_per_execution: int = 16,
    retrain_epochs: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> TuneRecord | None:
    """Search for the model, and its training, that suit images and a budget best.

    An interrupted search continues when it is started again with the same arguments, and with more
    trials, one that has ended. Writes into `output`: report.html, pareto.png, trials.csv, the
    search itself, and into output/best what `train` writes of the best model, trained on all but
    the test images.

    Parameters
    ----------
    source : str or path
        The data, as `keras_resnet.data.load` takes it.
    output : path
        The folder of the search.
    budget : str, optional
        What models may cost at most: "params=N,macs=N,ms=N", or one of them.
    trials : int, default 30
        Models to train.
    epochs : int, default 27
        Epochs of each, at most.
    task : {"classification", "multilabel", "regression"}, optional
        What models learn. Default: what the labels suggest, as in `keras_resnet.data.load`.
    algorithm : {"hyperband", "random", "bayesian"}, default "hyperband"
        How to choose.
    objective : str, optional
        What to choose by, as in `keras_resnet.tuning.search`. Default: the metric of the task on
        the validation images, such as "val_accuracy".
    weights : str or path, optional
        Search for the best way to fine-tune these: a tag of `keras_resnet.list_weights`, or a file.
    space : mapping of str to object, optional
        Other values for choices, as in `keras_resnet.tuning.ResNetHyperModel`.
    patience : int, optional
        End a trial after so many epochs without improvement.
    batch_size : int, optional
        Images per step.
    image_size : int or tuple of (int, int), optional
        Height and width in pixels, one number for both. Default: the data's.
    precision : {"float32", "bfloat16", "float16"}, default "float32"
        What feature maps are computed in.
    cache : "memory" or path, optional
        Where to keep decoded images.
    validation : float, default 0.15
        Fraction of the training images to compare models on, where the data has none for that.
    strategy : tf.distribute.Strategy or str, default "auto"
        The devices, as `keras_resnet.training.strategy` takes them.
    timeout : float, default 120.0
        For several processes: seconds until one that is not heard of is given up.
    steps_per_execution : int, default 16
        Steps that TensorFlow takes at once.
    retrain_epochs : int, optional
        Epochs of the best model at the end; 0 for none. Default: as long as the longest trials.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.
    seed : int, default 0
        Seed of the choices, of weights and of data.
    callbacks : sequence of keras.callbacks.Callback, optional
        For the training of the best model at the end.
    verbose : {0, 1, 2}, default 0
        Nothing; or a line per trial and, at the end, a progress bar or a line per epoch.

    Returns
    -------
    TuneRecord or None
        None in a worker of several processes.

    Raises
    ------
    ValueError
        For an argument that is unknown or out of range, data that cannot be read, a folder that is
        in use, holds another search or cannot be written to, or if no trial completed.
    keras_resnet.training.Interrupted
        On SIGTERM and Ctrl-C, after the state has been saved.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> choices = {"block": "basic", "width": 0.5, "conv2_blocks": 1, "conv3_blocks": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.tune(
    ...         "digits", folder, trials=1, epochs=1, space=choices, image_size=8, retrain_epochs=0
    ...     )
    >>> record.to_json()["trials"]
    1
    """
    policy = policy_of(precision)
    output, worker = Path(output), parallel.is_worker()
    check_writable(output, output / "search")
    check_files(output, SEARCH_FILES)
    check_run(output / "best", output / "best" / "saved_model")
    check_range("index", optional=True, retrain_epochs=retrain_epochs)
    changes = _changes(space, batch_size=batch_size, patience=patience)
    # Before TensorFlow computes anything, which ends the choice of devices.
    if isinstance(strategy, str):
        strategy = training.strategy(strategy)
    images = data.load(source, on_error=on_error, validation=validation, task=task)
    check_labels(images.class_names)
    if not kind_of(images).searched:
        raise ValueError(
            f"data {images.name!r} is for {images.task}, for which there is no search: train a "
            "model on it, runs.train (keras-resnet train)."
        )
    if not worker and retrain_epochs != 0:
        check_whole(images.test)
    check_callbacks(callbacks)
    direct(callbacks, ("loss", *training.task_of(images).metrics), validated=False)
    size = sides(image_size or images.image_size)
    execution: dict[str, Any] = dict(
        strategy=strategy, cache=cache, steps_per_execution=steps_per_execution
    )
    with (
        computing_in(policy),
        contextlib.nullcontext() if worker else locked(output),
        continued("the same command continues after the trials that are done."),
    ):
        kind, recipe = tuning.ResNetHyperModel, training.Recipe()
        if weights:
            kind = functools.partial(tuning.TransferHyperModel, weights=weights)
            recipe = training.recipe("finetune")
        hypermodel = kind(
            (*size, images.channels),
            len(images.class_names),
            space,
            budget,
            recipe=recipe.changed(**changes),
        )
        log.info(
            "%s: %s, %d training and %d validation images.",
            images.name,
            counted_names(images),
            len(images.train),
            len(images.validation),
        )
        with damaged_images_named(images.train, images.validation):
            tuner = tuning.search(
                hypermodel,
                images,
                algorithm=algorithm,
                trials=trials,
                epochs=epochs,
                objective=objective,
                seed=seed,
                directory=output / "search",
                timeout=timeout,
                verbose=min(verbose, 1),
                **execution,
            )
            if tuner is None or tuner.is_worker:
                return None
            record = tuner.record()
            report.write_report(output, record)
            log.info("%s: report.html, pareto.png, trials.csv", output)
            records.champion(record)
            if retrain_epochs == 0:
                return TuneRecord(record, output)
            folder = output / "best"
            model, result = tuning.retrain(
                tuner,
                images,
                epochs=retrain_epochs,
                seed=seed,
                checkpoints=folder / "checkpoints",
                callbacks=callbacks,
                verbose=verbose,
                **execution,
            )
            trained = write_results(
                model, images.with_all_to_train(), result, folder, folder / "saved_model", precision
            )
        shutil.rmtree(folder / "checkpoints")
    return TuneRecord(record, output, trained)


def _changes(space, **options):
    """The options that are given, as fields of the recipe; none may be a choice of the space."""
    given = {name: value for name, value in options.items() if value is not None}
    chosen = {names.plain(name) for name in space or ()}
    for name, value in given.items():
        if names.plain(name) in chosen:
            raise ValueError(f"{name}={value!r} is a choice of the space as well: give one only.")
    return given
