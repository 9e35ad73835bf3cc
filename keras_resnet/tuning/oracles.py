"""keras-tuner's oracles with a budget, and with a state that survives being killed."""

import itertools
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial
from sklearn.exceptions import ConvergenceWarning

from keras_resnet.files import read_object, write_text
from keras_resnet.tuning.parallel import is_chief

NOT_WHOLE = "Put a copy in its place, or search in another folder."
"""What to do about a damaged file of a search."""

_DRAWS = 10_000  # over the budget in a row, after which the space counts as exhausted
_ENDED = ("COMPLETED", "FAILED")


class _StillDrawingError(Exception):
    """Nothing within the budget has been found yet, and other workers must not wait too long."""


class _Oracle(keras_tuner.Oracle):
    """Draws within the budget, and continues after being killed at any moment.

    keras-tuner writes a trial's file and then its own, both in place. Here they are replaced as a
    whole, and if the process is killed between the two, reading them puts the state right: the
    file of a trial says whether it has ended.

    Parameters
    ----------
    declined : callable
        Given values, the reason not to try them, or None.
    patience : float, default 5.0
        Seconds of drawing after which a worker is told to ask again.

    Attributes
    ----------
    declined : int
        Configurations that were not tried.
    seconds : float
        Duration of the search until a trial last began or ended, without interruptions.
    ended : callable
        Called with every trial that has ended.
    """

    def __init__(self, *, declined: Callable, patience: float = 5.0, **options):
        # Failed trials are recorded, and the search goes on, however many there are.
        super().__init__(max_consecutive_failed_trials=None, **options)
        self.declined, self._declines, self.ended = 0, declined, lambda trial: None
        self._patience = patience
        self._in_vain = 0  # draws since the last one within the budget
        self.seconds, self._start = 0.0, time.monotonic()
        self._heard = {}
        self._max_collisions = 1000  # so that a small space is searched completely
        self.verbose = 0

    def _random_values(self):
        begun = time.monotonic()
        while self._in_vain < _DRAWS:
            if time.monotonic() - begun > self._patience:
                raise _StillDrawingError
            values = super()._random_values()
            if values is None or not self._declines(values):
                self._in_vain = 0
                return values
            self.declined += 1
            self._in_vain += 1
            self._tried_so_far.add(self._compute_values_hash(values))
        return None

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        """As keras-tuner does it, but a worker stays idle while trials of others may still fail."""
        self._heard[tuner_id] = time.monotonic()
        try:
            trial = super().create_trial(tuner_id)
        except _StillDrawingError:
            return Trial(self.get_space(), status="IDLE")
        finally:
            self._heard[tuner_id] = time.monotonic()
        if trial.status == "STOPPED" and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    def get_trial(self, trial_id):
        """As keras-tuner does it; workers call it now and then as a sign of life."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self._heard[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        """As keras-tuner does it, replacing what a killed run may have reported."""
        trial = self.trials[trial_id]
        if trial_id in self.end_order:  # another worker has run it, since this one was given up
            return trial
        trial.metrics = type(trial.metrics)()
        return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        """As keras-tuner does it, but only once per trial."""
        if trial.trial_id in self.end_order:
            return
        # A worker that was given up may have ended it after all.
        self._retry_queue = [each for each in self._retry_queue if each != trial.trial_id]
        super().end_trial(trial)
        self.save()  # so that the trial is no longer among the running ones
        self.ended(self.trials[trial.trial_id])

    @keras_tuner.synchronized
    def give_up(self, timeout: float) -> list[str]:
        """Give up workers that have been silent for too long; others will run their trials.

        Parameters
        ----------
        timeout : float
            Seconds of silence.

        Returns
        -------
        list of str
            Their names.
        """
        silent = [
            tuner_id
            for tuner_id in list(self.tuner_ids)
            if time.monotonic() - self._heard[tuner_id] > timeout
        ]
        for tuner_id in silent:
            self.tuner_ids.discard(tuner_id)
            if trial := self.ongoing_trials.pop(tuner_id, None):
                self._retry_queue.append(trial.trial_id)
        return silent

    def get_state(self):
        return {**super().get_state(), "declined": self.declined, "seconds": self.seconds}

    def set_state(self, state):
        super().set_state(state)
        self._workers = state["ongoing_trials"]
        self.declined, self.seconds = state["declined"], state["seconds"]

    def save(self):
        now = time.monotonic()
        self.seconds, self._start = self.seconds + now - self._start, now
        write_text(self._get_oracle_fname(), json.dumps(self.get_state()))

    def _save_trial(self, trial):
        path = os.path.join(self._get_trial_dir(trial.trial_id), "trial.json")
        write_text(path, json.dumps(trial.get_state()))

    def reload(self):
        for file in ("oracle.json", "trial_*/trial.json"):  # keras-tuner would not name them
            for path in Path(self._project_dir).glob(file):
                read_object(path, NOT_WHOLE)
        super().reload()
        self._start = time.monotonic()
        self.verbose = 0
        for trial_id in list(self.trials):
            # Only its file was written: it has not begun, and is drawn again.
            if trial_id not in self.start_order:
                del self.trials[trial_id]
                shutil.rmtree(self._get_trial_dir(trial_id), ignore_errors=True)
        # Trials that were running have to run again, unless they had ended.
        ended = [each for each in self.start_order if self.trials[each].status in _ENDED]
        self.end_order += [each for each in ended if each not in self.end_order]
        self._retry_queue = [each for each in dict.fromkeys(self._retry_queue) if each not in ended]
        if not is_chief():
            return
        # Workers may have gone on while the chief was away; those that have not are given up later.
        for tuner_id, trial_id in self._workers.items():
            if trial_id in self._retry_queue:
                self._retry_queue.remove(trial_id)
                self.ongoing_trials[tuner_id] = self.trials[trial_id]
                self.tuner_ids.add(tuner_id)
                self._heard[tuner_id] = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether as many trials as requested have ended."""
        ended = [trial for trial in self.trials.values() if trial.status in _ENDED]
        return len(ended) >= self.max_trials


class RandomSearchOracle(_Oracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search within the budget."""


class BayesianOptimizationOracle(_Oracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization within the budget."""

    def populate_space(self, trial_id):
        """As keras-tuner does it, but what is over the budget is replaced by a random draw."""
        with warnings.catch_warnings():
            # A length scale at its bound only means that there are few trials.
            warnings.simplefilter("ignore", ConvergenceWarning)
            response = super().populate_space(trial_id)
        values = response.get("values")
        if not values or not (self._declines(values) or self._duplicate(values)):
            return response
        self.declined += bool(self._declines(values))
        return self._random_populate_space()


class HyperbandOracle(_Oracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband within the budget, whose brackets go on if some of their trials fail."""

    def populate_space(self, trial_id):
        """As keras-tuner does it, but a failed trial counts as the worst of its round.

        keras-tuner would wait forever for the round to complete, and drop the bracket.
        """
        self._remove_completed_brackets()
        for bracket in self._brackets:
            if len(bracket["rounds"][0]) < self._get_size(bracket["bracket_num"], 0):
                return self._random_trial(trial_id, bracket)
            if promoted := self._promoted(trial_id, bracket):
                return promoted
        if self._current_bracket == 0 and self._current_iteration + 1 == self.hyperband_iterations:
            return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}
        self._increment_bracket_num()
        self._start_new_bracket()
        return self._random_trial(trial_id, self._brackets[-1])

    def _promoted(self, trial_id, bracket):
        """The best trial of a round, for longer training in the next one."""
        number, rounds = bracket["bracket_num"], bracket["rounds"]
        for index, (former, following) in enumerate(itertools.pairwise(rounds), start=1):
            taken = {each["past_id"] for each in following}
            left = [self.trials[each["id"]] for each in former if each["id"] not in taken]
            done = [trial for trial in left if trial.status in _ENDED]
            completed = [trial for trial in done if trial.status == "COMPLETED"]
            # Promote as soon as more trials have ended than will be dropped.
            dropped = self._get_size(number, index - 1) - self._get_size(number, index)
            if len(done) > dropped and completed:
                sign = 1 if self.objective.direction == "max" else -1
                best = max(completed, key=lambda trial: sign * trial.score)
                following.append({"past_id": best.trial_id, "id": trial_id})
                values = {
                    **best.hyperparameters.values,
                    "tuner/trial_id": best.trial_id,
                    "tuner/epochs": self._get_epochs(number, index),
                    "tuner/initial_epoch": self._get_epochs(number, index - 1),
                    "tuner/bracket": number,
                    "tuner/round": index,
                }
                return {"status": "RUNNING", "values": values}
        return None
