"""keras-tuner's tuner with this package's trainer inside."""

import gc
import json
import os
import shutil
import time
from pathlib import Path

import keras
import keras_tuner
import tensorflow as tf

from keras_resnet import progress
from keras_resnet.data import Source
from keras_resnet.files import LockedError, read_object, write_text, written_beside
from keras_resnet.training import DivergedError
from keras_resnet.tuning import parallel
from keras_resnet.tuning.hypermodel import ResNetHyperModel, TransferHyperModel
from keras_resnet.tuning.records import SearchRecord, TrialRecord

FOLDER = "trials"
"""The subfolder of a search's folder that holds all of its state."""

_FAILURE, _STARTS = "failure.txt", "starts.json"
_MOST_STARTS = 5  # of a trial, from the same state
_IDLE = 0.5  # seconds until a worker asks again
# What a trial may fail of. Any other error is a mistake and ends the search.
_FAILURES = (tf.errors.ResourceExhaustedError, MemoryError, DivergedError)


class Tuner(keras_tuner.Tuner):
    """A keras-tuner tuner for models of this package; `search` makes it.

    Parameters
    ----------
    hypermodel : ResNetHyperModel or TransferHyperModel
        The models to choose from.
    oracle : keras_tuner.Oracle
        The algorithm that chooses.
    directory : path
        Where the state of the search is kept.
    algorithm : str
        Name of the algorithm.
    epochs : int
        Epochs of each model, at most.
    seed : int, default 0
        Seed of weights and data.
    timeout : float, default 120.0
        For several processes: seconds to wait for one another.
    """

    def __init__(
        self,
        hypermodel: ResNetHyperModel | TransferHyperModel,
        oracle: keras_tuner.Oracle,
        directory: str | os.PathLike,
        algorithm: str,
        epochs: int,
        seed: int = 0,
        timeout: float = 120.0,
    ):
        self.algorithm, self.epochs = algorithm, epochs
        self._seed, self._timeout = seed, timeout
        super().__init__(oracle, hypermodel, directory=directory, project_name=FOLDER)
        hypermodel.folder = Path(self.project_dir)
        self.save()  # keras-tuner continues a search if it finds this file

    def save(self) -> None:
        """Save the state of the search, completely or not at all."""
        if not self.is_worker:
            self.oracle.save()
        write_text(self._get_tuner_fname(), "{}")

    @property
    def is_worker(self) -> bool:
        """Whether this is one of several processes, other than the one that knows all trials."""
        return parallel.is_worker()

    def _populate_initial_space(self):
        """Declare all choices at once; keras-tuner would build models to find them."""
        space = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(space)
        self.oracle.update_space(space)

    def search(self, source: Source, **options) -> None:
        """Run trials until there are no more, or, as the chief, have workers run them.

        Parameters
        ----------
        source : Source
            The data.
        **options
            As in `keras_resnet.training.train`.
        """
        if parallel.is_chief():
            parallel.serve(self.oracle, self._timeout, print)
            return
        with parallel.lost_chief_named(self._timeout), self._told() as advance:
            while (trial := self.oracle.create_trial(self.tuner_id)).status != "STOPPED":
                if trial.status == "IDLE":  # until trials of other workers have ended
                    time.sleep(_IDLE)
                    continue
                with parallel.heard_of(self.oracle, trial.trial_id, self._timeout):
                    self._run(trial, source, options)
                self.on_trial_end(trial)
                advance(note=self._best())
                shutil.rmtree(Path(self.get_trial_dir(trial.trial_id)) / "run", ignore_errors=True)

    def _told(self):
        """Show the progress of the search; a worker does not know it."""
        if self.is_worker:
            return progress.task("Search", unit="trials")
        oracle = self.oracle
        return progress.task("Search", oracle.max_trials, "trials", done=len(oracle.end_order))

    def _best(self):
        """The best score so far, if this process knows it."""
        best = [] if self.is_worker else self.oracle.get_best_trials(1)
        score = best[0].score if best else None  # None until a trial has succeeded
        return "" if score is None else f"best {self.oracle.objective.name} {score:.4f}"

    def _run(self, trial, source, options):
        try:
            self._count_start(Path(self.get_trial_dir(trial.trial_id)))
            while (metrics := self._unless_locked(trial, source, options)) is None:
                time.sleep(_IDLE)
        except (keras_tuner.errors.FailedTrialError, *_FAILURES) as error:
            trial.status = "FAILED"
            trial.message = " ".join(f"{error}".split())[:300] or type(error).__name__
            # keras-tuner does not send the message to the chief.
            write_text(Path(self.get_trial_dir(trial.trial_id)) / _FAILURE, trial.message)
        else:
            self.oracle.update_trial(trial.trial_id, metrics)
            trial.status = "COMPLETED"

    def _unless_locked(self, trial, source, options):
        """Run a trial; None while a silent worker, given up for lost, is still running it."""
        try:
            return self.run_trial(trial, source, **options)
        except LockedError:
            return None

    def _count_start(self, folder):
        """Give up a trial that keeps ending its process without any progress.

        That happens if it takes all memory, so that the kernel kills it, or if a library crashes.
        """
        file = folder / _STARTS
        found = (path for path in folder.glob("run/**/*") if path.is_dir())
        states = sorted(path.name for path in found if not path.name.startswith("."))
        starts = read_object(file) if file.exists() else {}
        count = starts["count"] + 1 if starts.get("states") == states else 1
        if count > _MOST_STARTS:
            raise keras_tuner.errors.FailedTrialError(
                f"The process ended {_MOST_STARTS} times without a message, perhaps for lack of "
                "memory."
            )
        write_text(file, json.dumps({"count": count, "states": states}))

    def run_trial(self, trial: keras_tuner.engine.trial.Trial, source: Source, **options) -> dict:
        """Train one model, from where it was interrupted, and save its best weights.

        Parameters
        ----------
        trial : keras_tuner.engine.trial.Trial
            What has been chosen.
        source : Source
            The data.
        **options
            As in `keras_resnet.training.train`.

        Returns
        -------
        dict of str to float
            As `ResNetHyperModel.fit` returns it.
        """
        chosen, folder = trial.hyperparameters.values, Path(self.get_trial_dir(trial.trial_id))
        gc.collect()  # models of former trials are in reference cycles
        keras.utils.set_random_seed(self._seed + int(trial.trial_id))
        model = self.hypermodel.build(trial.hyperparameters)
        if "tuner/trial_id" in chosen:
            _bare(model).load_weights(self._get_checkpoint_fname(chosen["tuner/trial_id"]))
        metrics = self.hypermodel.fit(
            trial.hyperparameters,
            model,
            source,
            checkpoints=folder / "run",
            seed=self._seed,
            epochs=chosen.get("tuner/epochs", self.epochs),
            initial_epoch=chosen.get("tuner/initial_epoch", 0),
            **options,
        )
        with written_beside(self._get_checkpoint_fname(trial.trial_id)) as partial:
            _bare(model).save_weights(partial)
        return metrics

    def record(self) -> SearchRecord:
        """Describe what has been found so far.

        Returns
        -------
        SearchRecord
        """
        budget, trials = self.hypermodel.budget, []
        for number, trial_id in enumerate(self.oracle.start_order, start=1):
            trial = self.oracle.trials[trial_id]
            if trial.status not in ("COMPLETED", "FAILED"):
                continue
            chosen = trial.hyperparameters.values
            values = self.hypermodel.values(chosen)
            parameters, macs = self.hypermodel.cost(values)
            failure = Path(self.get_trial_dir(trial_id)) / _FAILURE
            completed = trial.status == "COMPLETED"
            trials.append(
                TrialRecord(
                    number=number,
                    values=values,
                    status=trial.status.lower(),
                    score=float(trial.score) if completed else None,
                    parameters=parameters,
                    macs=macs,
                    epochs=chosen.get("tuner/epochs", self.epochs),
                    seconds=trial.metrics.get_last_value("seconds") if completed else 0.0,
                    milliseconds=budget.ms and self.hypermodel.milliseconds(values),
                    message=failure.read_text() if not completed and failure.exists() else "",
                )
            )
        return SearchRecord(
            objective=self.oracle.objective.name,
            direction=self.oracle.objective.direction,
            algorithm=self.algorithm,
            budget=str(budget),
            declined=self.oracle.declined,
            seconds=self.oracle.seconds,
            trials=trials,
        )


def _bare(model):
    """A model without its optimizer, whose state no other run needs."""
    return keras.Model(model.inputs, model.outputs)
