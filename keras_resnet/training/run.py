"""The loop over the epochs of a run."""

import contextlib
import dataclasses
import time
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.interrupts import Interrupted, Termination
from keras_resnet.progress import tracked
from keras_resnet.training import collectives
from keras_resnet.training.checkpoints import random_states
from keras_resnet.training.cluster import LostWorkerError
from keras_resnet.training.execution import Execution
from keras_resnet.training.logs import Progress
from keras_resnet.training.prepare import Devices, Prepared, compile_for_more
from keras_resnet.training.result import DivergedError

_NAMED = 3  # images that are blamed for a loss that is not finite


@dataclass
class State:
    """How far a run is; what is written down with every checkpoint.

    Parameters
    ----------
    epoch, step : int
        Epochs that are done, and steps of the one that is not.
    totals : list of float
        `Objective.totals` of those steps.
    history : dict of str to list of float
        As in `Result`.
    best_epoch : int
        As in `Result`.
    seconds : float
        Duration of the training.
    finished : bool
        Whether it has ended before its last epoch.
    smoothed : bool
        As in `Result`.
    """

    epoch: int = 0
    step: int = 0
    totals: list[float] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    finished: bool = False
    smoothed: bool = False


def restored(prepared: Prepared, smoothed: bool = False) -> State:
    """Go back to the newest checkpoint: in all processes to the chief's.

    Parameters
    ----------
    prepared : Prepared
        The run.
    smoothed : bool, default False
        As in `Result`, for a run that begins.

    Returns
    -------
    State

    Raises
    ------
    ValueError
        If the checkpoints are those of a run of other settings.
    OSError
        If there is no space for checkpoints, or none of them can be read.
    """
    devices, net = prepared.devices, prepared.net
    found = prepared.store.open(net)
    if found is None:
        totals = [0.0] * len(prepared.objective.totals)
        found = dataclasses.asdict(State(totals=totals, smoothed=smoothed))
    # Earlier versions do not say so.
    found.setdefault("smoothed", prepared.recipe.label_smoothing > 0)
    found, *_ = collectives.exchanged(devices.strategy, found)
    state = State(**found)
    # With other devices than before, an epoch may have fewer steps.
    state.step = min(state.step, prepared.batches.steps)
    if devices.workers > 1:
        collectives.alignment(devices.strategy, prepared.variables)()
    _spread(devices.strategy, random_states(net))
    return state


def run(prepared: Prepared, state: State, execution: Execution, termination: Termination) -> float:
    """Train for the epochs that are left.

    Parameters
    ----------
    prepared : Prepared
        The run.
    state : State
        How far it is; kept up to date.
    execution : Execution
        Its callbacks, and how often to save, show and go back to Python.
    termination : Termination
        Whether to stop early.

    Returns
    -------
    float
        Training images per second.

    Raises
    ------
    DivergedError
        If the loss becomes NaN or infinite.
    Interrupted
        If the run was asked to stop.
    """
    epochs, steps, net = prepared.recipe.epochs, prepared.batches.steps, prepared.net
    verbose = execution.verbose if prepared.devices.is_chief else 0
    progress = Progress(verbose, epochs, steps, prepared.recipe.batch_size)
    if state.finished or state.epoch >= epochs:
        return progress.images_per_second
    callbacks = keras.callbacks.CallbackList(
        list(execution.callbacks), model=net, epochs=epochs, steps=steps, verbose=0
    )
    iterator = _iterator(prepared, state)
    net.stop_training = False
    callbacks.on_train_begin()
    try:
        while not (state.finished or state.epoch == epochs or net.stop_training):
            callbacks.on_epoch_begin(state.epoch)
            progress.begin_epoch(state.epoch, state.step)
            start = time.perf_counter() - state.seconds
            while state.step < steps and not net.stop_training:
                callbacks.on_train_batch_begin(state.step)
                count = _steps_at_once(execution, state.step, steps)
                images, asked = _take_steps(prepared, state, iterator, count, termination)
                state.seconds = time.perf_counter() - start
                logs = _means(prepared, state.totals)
                callbacks.on_train_batch_end(state.step - 1, logs)
                if asked or _is_to_be_saved(execution, state.step, steps):
                    prepared.average_statistics()
                    _save(prepared, state)
                if asked:
                    raise _interruption(prepared, state, termination)
                progress.step(images, logs)
            prepared.average_statistics()
            logs = {**_means(prepared, state.totals), **_validate(prepared, state, termination)}
            state.seconds = time.perf_counter() - start
            _count_epoch(prepared, state, logs)
            _save(prepared, state)
            progress.end_epoch(state.epoch - 1, logs)
            callbacks.on_epoch_end(state.epoch - 1, logs)
            if net.stop_training and not state.finished:
                state.finished = True
                _save(prepared, state)
    finally:
        progress.end()
        callbacks.on_train_end()
    return progress.images_per_second


def give_best(prepared: Prepared) -> None:
    """Give the model the best weights of the run, and compile it for more.

    Parameters
    ----------
    prepared : Prepared
        The run.
    """
    model, net, devices = prepared.model, prepared.net, prepared.devices
    prepared.store.restore_best(net)
    if devices.workers > 1:
        collectives.alignment(devices.strategy, net.weights)()
    if net is not model:
        model.set_weights(net.get_weights())
    compile_for_more(model, prepared.recipe, prepared.objective.compiled)


@contextlib.contextmanager
def lost_workers_named(devices: Devices, progress):
    """Say which worker was lost where, and what to do, in place of TensorFlow's long message.

    Parameters
    ----------
    devices : Devices
        The devices.
    progress : callable
        Returns the `State` of the run and where it is kept.
    """
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if devices.workers == 1:
            raise
        state, store = progress()
        raise LostWorkerError(
            f"in step {state.step + 1} of epoch {state.epoch + 1}, worker {devices.worker} lost "
            f"another worker, which has ended or does not answer. {_last_good(store)} Start all "
            "workers again with the same command."
        ) from error


def _iterator(prepared, state):
    """Batches of what is left; None if only the validation of the last epoch is."""
    steps = prepared.batches.steps
    epoch, step = state.epoch + (state.step == steps), state.step % steps
    if epoch == prepared.recipe.epochs:
        return None
    return prepared.devices.iterator(prepared.batches.rest(epoch, step))


def _steps_at_once(execution, step, steps):
    """Steps to take before Python looks again."""
    count = min(execution.steps_per_execution, steps - step)
    if every := execution.save_every:
        count = min(count, every - step % every)
    return count


def _is_to_be_saved(execution, step, steps):
    """Whether to save within an epoch; at its end, validation comes first."""
    every = execution.save_every
    return bool(every) and step % every == 0 and step < steps


def _take_steps(prepared, state, iterator, count, termination):
    """Take some steps; returns their images, and whether any process was asked to stop."""
    stop = tf.constant(float(termination.requested))
    totals = prepared.train(iterator, stop, count).numpy()
    lost = ~np.isfinite(totals[:, 0])
    if lost.any():
        step = state.step + int(lost.argmax())
        raise _diverged(prepared, state, step + 1, _suspects(prepared, state.epoch, step))
    state.step += count
    sums = totals[:, :-1].sum(0, "float64")
    state.totals = (state.totals + sums).tolist()
    asked = termination.requested if prepared.devices.workers == 1 else totals[:, -1].any()
    return float(sums[-1]), asked


def _means(prepared, totals):
    """Loss and metrics per image."""
    *sums, images = totals
    names = prepared.objective.totals[:-1]
    return {name: total / images for name, total in zip(names, sums, strict=True)}


def _validate(prepared, state, termination):
    """Measure the model on the validation images, and keep its weights if they are the best."""
    with prepared.averaged():
        logs, asked = _validation(prepared, termination)
        if not asked:
            if not np.isfinite(logs.get("loss", 0.0)):
                raise _diverged(prepared, state, state.step)
            best = min(state.history.get("val_loss", ()), default=np.inf)
            if prepared.keeps_last or logs.get("loss", -np.inf) < best:
                state.best_epoch = state.epoch + 1
                prepared.store.save_best(prepared.net)
    if asked:
        _save(prepared, state)
        raise _interruption(prepared, state, termination)
    return {f"val_{name}": value for name, value in logs.items()}


def _validation(prepared, termination):
    """Loss and metrics of the validation images, and whether to stop."""
    if prepared.validation is None:
        return {}, False
    iterator, devices = prepared.devices.iterator(prepared.validation), prepared.devices
    totals, steps = 0.0, range(len(prepared.validation) // devices.share["replicas"])
    for _ in tracked(steps, "Validating", unit="steps"):
        stop = tf.constant(float(termination.requested))
        *sums, asked = prepared.validate(iterator, stop, 1).numpy()[0].astype("float64")
        if asked:
            return {}, True
        totals += np.array(sums)
    return _means(prepared, totals), False


def _count_epoch(prepared, state, logs):
    for name, value in logs.items():
        state.history.setdefault(name, []).append(float(value))
    state.epoch, state.step, state.totals = state.epoch + 1, 0, [0.0] * len(state.totals)
    patience = prepared.recipe.patience or prepared.recipe.epochs
    state.finished = state.epoch - state.best_epoch >= patience or (
        prepared.stopping is not None
        and prepared.validation is not None
        and prepared.stopping.ends(state.history["val_loss"])
    )


def _save(prepared, state):
    """Save the state, unless there is nowhere to, or its weights are not finite."""
    if not prepared.store.persists:
        return
    for variable in prepared.net.weights:
        if not np.isfinite(variable.numpy()).all():
            raise _diverged(prepared, state, state.step)
    prepared.store.save(prepared.net, dataclasses.asdict(state))


def _suspects(prepared, epoch, step):
    """Names of those images of a step whose loss or gradient is not finite."""
    objective, model, net = prepared.objective, prepared.model, prepared.net
    # Of several processes, each would have to wait for the others' part.
    if objective.suspects is None or (net is model and prepared.devices.replicas > 1):
        return []
    if net is not model:
        model.set_weights(net.get_weights())
    batches = prepared.batches.of_step(epoch, step)
    return [name for batch in batches for name in objective.suspects(model, *batch)]


def _diverged(prepared, state, step, images=()):
    named = ", ".join(map(repr, images[:_NAMED])) + ", ..." * (len(images) > _NAMED)
    blamed = f"By itself, so does the loss of {named}, or its gradient. " * bool(images)
    return DivergedError(
        f"learning_rate={prepared.recipe.learning_rate}: the loss became NaN or infinite at step "
        f"{step} of epoch {state.epoch + 1}. {blamed}{_last_good(prepared.store)} Use a lower "
        f"learning rate{', or look at these images' * bool(images)}."
    )


def _last_good(store):
    if not store or not store.newest:
        return "No checkpoint was saved here."
    return f"The last good checkpoint is {str(store.newest)!r}."


def _interruption(prepared, state, termination):
    return Interrupted(
        f"Interrupted: the state after step {state.step} of {prepared.batches.steps} in epoch "
        f"{state.epoch + 1} is saved. The same command continues from there.",
        termination.code,
    )


def _spread(strategy, states):
    """Let each replica draw its own random numbers, such as the masks of dropout."""

    def of_replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        for each in states:
            each.assign(each.value + tf.cast(tf.stack([0, index]), each.value.dtype))

    if states and strategy.num_replicas_in_sync > 1:
        tf.function(lambda: strategy.run(of_replica), autograph=False).get_concrete_function()()
