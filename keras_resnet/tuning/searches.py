"""From a space and data to the best model."""

import contextlib
import io
import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf

from keras_resnet import names
from keras_resnet.checks import check_positive, check_range
from keras_resnet.data import Source, Split
from keras_resnet.data.source import source_of
from keras_resnet.files import as_python, locked, read_object, write_text
from keras_resnet.training import Result, strategies, task_of
from keras_resnet.training.checkpoints import differences
from keras_resnet.training.prepare import check_divisible
from keras_resnet.tuning import parallel
from keras_resnet.tuning import space as spaces
from keras_resnet.tuning.hypermodel import ResNetHyperModel, TransferHyperModel, objectives
from keras_resnet.tuning.oracles import (
    NOT_WHOLE,
    BayesianOptimizationOracle,
    HyperbandOracle,
    RandomSearchOracle,
)
from keras_resnet.tuning.records import best, champion, short
from keras_resnet.tuning.tuner import FOLDER, Tuner

ALGORITHMS = ("hyperband", "random", "bayesian")
"""The algorithms of `search`."""

_SETTINGS, _CHOSEN = "search.json", "trial.json"
_ITERATIONS = 10**6  # of Hyperband: the number of trials ends it
_PLAIN = "of plain labels"
# Choices that change what training images and their labels are, or how a model sees them.
_OWN_TRAINING = ("augmentation_strength", "augmentation", "mixup", "label_smoothing", "dropout")

_logger = logging.getLogger(__name__)


def search(
    hypermodel: ResNetHyperModel | TransferHyperModel,
    train: Source | Split,
    validation: Split | None = None,
    *,
    algorithm: str = "hyperband",
    trials: int = 30,
    epochs: int = 27,
    objective: str | None = None,
    seed: int = 0,
    directory: str | os.PathLike = "runs/search",
    strategy: tf.distribute.Strategy | str | None = None,
    timeout: float = 120.0,
    verbose: int = 1,
    **options: Any,
) -> Tuner | None:
    """Search for the best model and its training; the same call continues an interrupted search.

    Several processes share a search if the environment says so, as keras-tuner defines it:
    KERASTUNER_TUNER_ID is "chief" in one of them and another name in each of the others, and
    KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are where the chief listens. All of them make
    the same call, with a directory that all can see. The chief draws trials, the others train.

    Parameters
    ----------
    hypermodel : ResNetHyperModel or TransferHyperModel
        The models to choose from, and the budget.
    train : Source or Split
        The data. Its test images are not used.
    validation : Split, optional
        Images to compare models on. Default: those of the source.
    algorithm : {"hyperband", "random", "bayesian"}, default "hyperband"
        How to choose. Hyperband trains many models for a short time, and the best of them for
        longer.
    trials : int, default 30
        Models to train. A model that Hyperband continues with counts as another trial. More trials
        than before extend a search that has ended.
    epochs : int, default 27
        Epochs of each model, at most. A `patience` of the hypermodel's recipe may end training
        earlier.
    objective : str, optional
        What to choose by: "val_loss", "loss", or a metric of the task, such as "val_accuracy",
        "accuracy", "val_mean_absolute_error". Those of training images only where the space leaves
        augmentation, mixup, label smoothing and dropout alone. Default: the task's metric on
        validation images.
    seed : int, default 0
        Seed of the choices, of weights and of data.
    directory : path, default "runs/search"
        Where to keep the search.
    strategy : tf.distribute.Strategy or str, optional
        The devices for every trial, as in `keras_resnet.training.train`.
    timeout : float, default 120.0
        For several processes: seconds to wait for the chief, and for a silent worker before
        another one runs its trial.
    verbose : {0, 1}, default 1
        Print nothing, or one line per trial.
    **options
        As in `keras_resnet.training.train`: `crop`, `class_weight`, `cache`, ...

    Returns
    -------
    Tuner or None
        A `keras_tuner.Tuner` with all its methods; `record()` returns what was found. None in a
        worker that comes when the search is over.

    Raises
    ------
    ValueError
        For an argument out of its range, an objective that trials measure in different ways, or a
        directory that is in use or holds another search.
    LostChiefError
        If the chief cannot be reached, or no worker asks for a trial.

    References
    ----------
    Li et al., Hyperband, Journal of Machine Learning Research, 2018.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import data, tuning
    >>> choices = {"block": "basic", "width": 0.5, "conv2_blocks": 1, "conv3_blocks": 1}
    >>> hypermodel = tuning.ResNetHyperModel((8, 8, 1), 10, choices, "params=2e4")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tuner = tuning.search(
    ...         hypermodel, data.load("digits"), trials=2, epochs=1, directory=folder, verbose=0
    ...     )
    ...     len(tuner.record().trials)
    2
    """
    check_positive(trials=trials, epochs=epochs)
    algorithm = names.find("algorithm", algorithm, ALGORITHMS)
    check_range("limit", timeout=timeout)
    source = _source(train, validation)
    directions = objectives(source)
    objective = next(iter(directions)) if objective is None else objective
    if objective not in directions:
        raise ValueError(
            f"objective={objective!r} is not measured for {source.task}: choose one of "
            f"{', '.join(directions)}."
        )
    _check_comparable(objective, hypermodel.space, Path(directory))
    if hypermodel.classes != len(source.class_names):
        raise ValueError(
            f"hypermodel: classes={hypermodel.classes}, but {source.name} has "
            f"{len(source.class_names)} {task_of(source).labels}."
        )
    hypermodel.source = source
    if isinstance(strategy, str):
        strategy = strategies.strategy(strategy)
    for size in spaces.options_of(hypermodel.space.get("batch_size", hypermodel.recipe.batch_size)):
        check_divisible(size, strategy or tf.distribute.get_strategy())
    settings = _settings(hypermodel, source, algorithm, epochs, objective, seed, options)
    directory = Path(directory)
    # A worker needs the settings that its chief writes.
    there = not parallel.is_worker() or parallel.reach_chief(
        timeout, lambda: _finished(directory) >= trials
    )
    with contextlib.nullcontext() if parallel.is_worker() else locked(directory):
        _check_same_search(directory, settings)
        if not there:
            return None
        criterion = keras_tuner.Objective(objective, directions[objective])
        oracle = _oracle(algorithm, hypermodel, trials, epochs, criterion, seed, timeout)
        with contextlib.redirect_stdout(io.StringIO()):  # keras-tuner announces what it continues
            tuner = Tuner(hypermodel, oracle, directory, algorithm, epochs, seed, timeout)
        if verbose:
            oracle.ended = lambda trial: print(_line(tuner, trial), flush=True)
        if not (parallel.is_chief() and oracle.over):
            tuner.search(source, strategy=strategy, **options)
        if not parallel.is_worker():
            content = json.dumps({**_read(directory), "finished": trials}, indent=2)
            write_text(directory / _SETTINGS, content)
        return tuner


def _settings(hypermodel, source, algorithm, epochs, objective, seed, options):
    """What must stay the same when a search goes on, as it is written to its folder."""
    settings = {
        # Searches from before there were other tasks do not name theirs.
        **({} if source.task == "classification" else {"task": source.task}),
        "algorithm": algorithm,
        "epochs": epochs,
        "objective": objective,
        "seed": seed,
        "input_shape": list(hypermodel.input_shape),
        "classes": hypermodel.classes,
        "budget": str(hypermodel.budget),
        "recipe": asdict(hypermodel.recipe),
        "data": source.fingerprint(),
        "precision": keras.config.dtype_policy().name,
        "weights": getattr(hypermodel, "weights", None),
        **{name: options.get(name) for name in ("crop", "class_weight")},
        **_view_settings(hypermodel, source, options.get("crop")),
        **{f"space: {name}": choice for name, choice in hypermodel.space.items()},
    }
    return json.loads(json.dumps(as_python(settings), default=str))


def _view_settings(hypermodel, source, crop):
    """What tells a search from an earlier version's, whose tests showed less than its training."""
    space = hypermodel.space
    strengths = spaces.options_of(space.get("augmentation_strength", "light"))
    recipes = [
        spaces.recipe_of({"augmentation_strength": each}, hypermodel.recipe) for each in strengths
    ]
    windows = all(task_of(source).policy(source, recipe).area for recipe in recipes)
    # Models with the stem for small images have always been tested on whole images.
    whole = crop == 1.0 or (crop is None and spaces.options_of(space.get("stem")) == ["cifar"])
    if whole or (windows and "augmentation" not in space):
        return {}
    return {"view": "the same in training and validation"}


def _source(train, validation):
    """The data as a source."""
    if isinstance(train, Source):
        return train if validation is None else replace(train, validation=validation)
    if validation is None:
        raise ValueError("validation=None: a training split needs a validation split.")
    return source_of(train, validation)


def _oracle(algorithm, hypermodel, trials, epochs, objective, seed, timeout):
    """The algorithm that chooses."""
    options = dict(
        declined=hypermodel.declined,
        objective=objective,
        seed=seed + 1,  # to keras-tuner, 0 is no seed
        patience=timeout / 24,  # so that a worker does not give up a chief that is drawing
    )
    if algorithm == "random":
        return RandomSearchOracle(max_trials=trials, **options)
    if algorithm == "bayesian":
        # keras-tuner's default, three random trials per choice, would often be all of them.
        return BayesianOptimizationOracle(max_trials=trials, num_initial_points=10, **options)
    oracle = HyperbandOracle(max_epochs=epochs, hyperband_iterations=_ITERATIONS, **options)
    oracle.max_trials = trials
    return oracle


def _read(directory):
    path = directory / _SETTINGS
    return read_object(path, NOT_WHOLE) if path.exists() else {}


def _finished(directory):
    """Number of trials of the search that has ended here; 0 if it has not ended."""
    return _read(directory).get("finished", 0)


def _check_same_search(directory, settings):
    former = _read(directory)
    former.pop("finished", None)
    loss = former.pop("val_loss", None)
    # A search that ended before its first trial, perhaps by a mistake, may be replaced.
    begun = any((directory / FOLDER).glob("trial_*"))
    if not (former and begun) and not parallel.is_worker():
        shutil.rmtree(directory / FOLDER, ignore_errors=True)
        content = json.dumps({**settings, "val_loss": _PLAIN}, indent=2)
        write_text(directory / _SETTINGS, content)
        return
    if found := differences(former, settings, images="data"):
        raise ValueError(
            f"directory {str(directory)!r} holds another search: {'; '.join(found)}. Choose "
            "another directory, or give the same arguments to continue that search."
        )
    if loss != _PLAIN and settings["objective"] == "val_loss":
        _logger.warning(
            "%s: an earlier version began this search, whose val_loss had each trial's "
            "label_smoothing in it. Trials from here on do not compare with those before.",
            directory,
        )


def _check_comparable(objective, space, directory):
    """Refuse an objective that each trial measures in its own way."""
    own = [name for name in _OWN_TRAINING if name in space and spaces.is_choice(space[name])]
    if objective.startswith("val_") or not own:
        return
    message = (
        f"objective={objective!r} is measured on training images as each trial changes them "
        f"({', '.join(own)}): choose val_{objective}, or fix these choices."
    )
    if _read(directory).get("objective") != objective:
        raise ValueError(message)
    _logger.warning("%s", message)  # an earlier version began this search


def _line(tuner, trial):
    """One line about a trial that has ended."""
    record = tuner.record()
    number = tuner.oracle.start_order.index(trial.trial_id) + 1
    its = next(each for each in record.trials if each.number == number)
    of = f"Trial {number}/{tuner.oracle.max_trials}"
    if its.status == "failed":
        return f"{of} failed: {its.message}"
    champion = best(record)[0]
    return (
        f"{of}: {record.objective} {its.score:.4f} (best {champion.score:.4f}, trial "
        f"{champion.number}), {its.parameters:,} parameters, {its.epochs} epochs, "
        f"{its.seconds:.0f} s: {_chosen(tuner.hypermodel.space, its.values)}"
    )


def _chosen(space, values):
    """The chosen values, without fixed ones, in one line."""
    chosen = ((name, value) for name, value in values.items() if spaces.is_choice(space[name]))
    return ", ".join(f"{name} {short(value)}" for name, value in chosen)


def _start_over_unless_of(values, folder):
    """Remove the state of an interrupted retraining, if it was of another trial."""
    file, chosen = folder / _CHOSEN, json.dumps(dict(values), sort_keys=True)
    with locked(folder):
        if file.exists() and file.read_text(encoding="utf-8") != chosen:
            shutil.rmtree(folder)
        write_text(file, chosen)


def retrain(
    tuner: Tuner,
    source: Source,
    *,
    epochs: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[keras.Model, Result]:
    """Train the best model of a search from scratch, on training and validation images together.

    Parameters
    ----------
    tuner : Tuner
        What `search` has returned.
    source : Source
        The data of the search.
    epochs : int, optional
        Epochs. Default: as many as the longest trials.
    seed : int, default 0
        Seed of weights and data.
    **options
        As in `keras_resnet.training.train`.

    Returns
    -------
    tuple of (keras.Model, Result)
        The model with the weights of the last epoch, as there are no images left to choose by.

    Raises
    ------
    ValueError
        If no trial of the search was completed.
    """
    values = champion(tuner.record()).values
    if checkpoints := options.get("checkpoints"):
        _start_over_unless_of(values, Path(checkpoints))
    keras.utils.set_random_seed(seed)
    model = tuner.hypermodel.make(values)
    result = tuner.hypermodel.train(
        model,
        source.with_all_to_train(),
        values,
        epochs or tuner.epochs,
        seed=seed,
        **options,
    )
    return model, result
