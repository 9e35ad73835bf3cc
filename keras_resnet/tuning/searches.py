"""From a space and data to the best net."""

import contextlib
import io
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import keras
import keras_tuner
import tensorflow as tf

from keras_resnet import names
from keras_resnet.checks import check_positive
from keras_resnet.data import Source, Split
from keras_resnet.data.source import source_of
from keras_resnet.files import write_text
from keras_resnet.training import Result, strategies
from keras_resnet.tuning import parallel
from keras_resnet.tuning.hypermodel import METRICS, ResNetHyperModel, TransferHyperModel
from keras_resnet.tuning.oracles import (
    BayesianOptimizationOracle,
    HyperbandOracle,
    RandomSearchOracle,
)
from keras_resnet.tuning.records import best, short
from keras_resnet.tuning.space import is_choice
from keras_resnet.tuning.tuner import FOLDER, Tuner

ALGORITHMS = ("hyperband", "random", "bayesian")
"""What `search` knows."""

_SETTINGS = "search.json"
_ITERATIONS = 10**6  # of Hyperband: as many as there are trials for


def search(
    hypermodel: ResNetHyperModel | TransferHyperModel,
    train: Source | Split,
    validation: Split | None = None,
    *,
    algorithm: str = "hyperband",
    trials: int = 30,
    epochs: int = 27,
    objective: str = "val_accuracy",
    seed: int = 0,
    directory: str | os.PathLike = "runs/search",
    strategy: tf.distribute.Strategy | str | None = None,
    timeout: float = 120.0,
    verbose: int = 1,
    **options,
) -> Tuner:
    """Search for the best net and its training; the same call goes on with an interrupted search.

    Several processes share a search where the environment says so, as keras-tuner has it:
    KERASTUNER_TUNER_ID is "chief" in one of them and another name in each of the others,
    KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT say where the chief listens. All of them make
    the same call, with a directory that all can see. The chief draws, the others train.

    Parameters
    ----------
    hypermodel : ResNetHyperModel or TransferHyperModel
        What to choose between, and the budget.
    train : Source or Split
        The data; its test images are not touched.
    validation : Split, optional
        Images to compare nets on. Default: those of the source.
    algorithm : {"hyperband", "random", "bayesian"}, default "hyperband"
        How to choose. Hyperband trains many nets for a short time, and the best of them for longer.
    trials : int, default 30
        Nets to train; one that Hyperband goes on with is another trial. More than before extend a
        search that has ended.
    epochs : int, default 27
        Epochs of each net, at most. A `patience` of the hypermodel's recipe ends one earlier.
    objective : {"val_accuracy", "val_loss", "accuracy", "loss"}, default "val_accuracy"
        What makes a net better than another.
    seed : int, default 0
        Seed of the choices, of weights and of data.
    directory : path, default "runs/search"
        Where the search is kept.
    strategy : tf.distribute.Strategy or str, optional
        The devices of every trial, as in `keras_resnet.training.train`.
    timeout : float, default 120.0
        For several processes: seconds to wait for the chief, and for a worker that is not heard of
        any more before another one runs its trial.
    verbose : {0, 1}, default 1
        Nothing, or a line a trial.
    **options
        As in `keras_resnet.training.train`: `crop`, `class_weight`, `cache`, ...

    Returns
    -------
    Tuner
        A `keras_tuner.Tuner`, with all it can do; `record()` tells what was found.

    Raises
    ------
    ValueError
        For an argument out of its range, or a directory that holds another search.
    LostChiefError
        If the chief cannot be reached, or no worker comes.

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
    if objective not in METRICS:
        raise ValueError(
            f"objective={objective!r} is nothing that the models tell: there are "
            f"{', '.join(METRICS)}."
        )
    if not timeout > 0:
        raise ValueError(f"timeout={timeout!r} must be above 0.")
    source = _source(train, validation)
    if isinstance(strategy, str):
        strategy = strategies.strategy(strategy)
    settings = {
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
        **{f"space: {name}": choice for name, choice in hypermodel.space.items()},
    }
    settings = json.loads(json.dumps(settings, default=str))
    directory = Path(directory)
    # A worker finds what its chief has written.
    there = not parallel.is_worker() or parallel.reach_chief(
        timeout, lambda: _finished(directory) >= trials
    )
    _check_same_search(directory, settings)
    if not there:
        return None
    oracle = _oracle(algorithm, hypermodel, trials, epochs, objective, seed)
    with contextlib.redirect_stdout(io.StringIO()):  # keras-tuner says that it goes on
        tuner = Tuner(hypermodel, oracle, directory, algorithm, epochs, seed, timeout)
    if verbose:
        oracle.ended = lambda trial: print(_line(tuner, trial), flush=True)
    if not (parallel.is_chief() and oracle.over):
        tuner.search(source, strategy=strategy, **options)
    if not parallel.is_worker():
        write_text(directory / _SETTINGS, json.dumps({**settings, "finished": trials}, indent=2))
    return tuner


def _source(train, validation):
    if isinstance(train, Source):
        if validation is None:
            return train
        return replace(train, validation=validation)
    if validation is None:
        raise ValueError("validation=None: a split to train on needs one to validate on.")
    return source_of(train, validation)


def _oracle(algorithm, hypermodel, trials, epochs, objective, seed):
    options = dict(
        declined=hypermodel.declined,
        objective=keras_tuner.Objective(objective, METRICS[objective]),
        seed=seed + 1,  # keras-tuner takes 0 for none
    )
    if algorithm == "random":
        return RandomSearchOracle(max_trials=trials, **options)
    if algorithm == "bayesian":
        # keras-tuner's three random trials for each choice would be all there are.
        return BayesianOptimizationOracle(max_trials=trials, num_initial_points=10, **options)
    oracle = HyperbandOracle(max_epochs=epochs, hyperband_iterations=_ITERATIONS, **options)
    oracle.max_trials = trials
    return oracle


def _read(directory):
    path = directory / _SETTINGS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _finished(directory):
    """Trials of the search that has ended here; 0 for one that has not."""
    return _read(directory).get("finished", 0)


def _check_same_search(directory, settings):
    former = _read(directory)
    former.pop("finished", None)
    # A search that ended before its first trial, by a mistake perhaps, binds nobody.
    begun = any((directory / FOLDER).glob("trial_*"))
    if not (former and begun) and not parallel.is_worker():
        shutil.rmtree(directory / FOLDER, ignore_errors=True)
        write_text(directory / _SETTINGS, json.dumps(settings, indent=2))
        return
    for name in dict.fromkeys([*former, *settings]):
        if former.get(name) != settings.get(name):
            raise ValueError(
                f"directory {str(directory)!r} holds another search: {name} was "
                f"{former.get(name)!r}, now it is {settings.get(name)!r}. Choose another "
                "directory, or give the same arguments to go on with that search."
            )


def _line(tuner, trial):
    """What there is to tell of a trial that has ended."""
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
    """What was chosen of all that could have been, in a line."""
    chosen = ((name, value) for name, value in values.items() if is_choice(space[name]))
    return ", ".join(f"{name} {short(value)}" for name, value in chosen)


def retrain(
    tuner: Tuner,
    source: Source,
    *,
    epochs: int | None = None,
    seed: int = 0,
    **options,
) -> tuple[keras.Model, Result]:
    """Train the best net of a search anew, on its training and validation images together.

    Parameters
    ----------
    tuner : Tuner
        What `search` has returned.
    source : Source
        The data of the search.
    epochs : int, optional
        How long. Default: as long as the longest trials.
    seed : int, default 0
        Seed of weights and data.
    **options
        As in `keras_resnet.training.train`.

    Returns
    -------
    tuple of (keras.Model, Result)
        The net with the weights of the last epoch, for there are no images left to choose by.

    Raises
    ------
    ValueError
        If no trial of the search was completed.
    """
    record = tuner.record()
    if not best(record):
        failures = [trial.message for trial in record.trials if trial.status == "failed"]
        raise ValueError(
            f"none of the {len(record.trials)} trials was completed. {' '.join(failures[:1])}"
        )
    values = best(record)[0].values
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
