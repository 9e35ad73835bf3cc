"""A model on the devices of a strategy, and how far its training is."""

import contextlib
import dataclasses
import signal
import threading
import time
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.layers import gains_from_xla
from keras_resnet.resnet import deep_graphs
from keras_resnet.training import cluster, collectives, strategies
from keras_resnet.training.averages import WeightAverage, statistics
from keras_resnet.training.checkpoints import Checkpoints, random_states, state
from keras_resnet.training.logs import Progress
from keras_resnet.training.loop import training_function, validation_function
from keras_resnet.training.result import DivergedError, Interrupted

_SMALL_BATCH = 16  # images of a replica below which their own statistics are poor ones


class Termination:
    """Notices that the process is asked to end, instead of ending it."""

    def __init__(self, active):
        # Python lets no other thread say what happens on a signal.
        self._active = active and threading.current_thread() is threading.main_thread()
        self.requested = False

    def _notice(self, *_):
        self.requested = True

    def __enter__(self):
        if self._active:
            self._former = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_):
        if self._active:
            signal.signal(signal.SIGTERM, self._former)


@dataclass
class _State:
    """How far a run is."""

    epoch: int = 0
    step: int = 0  # of the epoch
    # Of the epoch, as in loop.TOTALS.
    totals: list[float] = field(default_factory=lambda: [0.0] * 3)
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    finished: bool = False


class Run:
    """A model on the devices of a strategy, and how far its training is."""

    def __init__(self, model, recipe, strategy, synchronized):
        self.model, self.recipe, self.state = model, recipe, _State()
        if strategy == "multiworker":
            raise ValueError(
                "strategy 'multiworker' must be chosen before TensorFlow computes anything: make "
                "it by `training.strategy('multiworker')` before the model."
            )
        if isinstance(strategy, str):
            strategy = strategies.strategy(strategy)
        self.strategy = strategy or model.distribute_strategy
        self.workers, self.worker = collectives.workers(self.strategy)
        self.replicas = self.strategy.num_replicas_in_sync
        parts = self.replicas * recipe.accumulation
        if recipe.batch_size % parts:
            below = recipe.batch_size // parts * parts
            raise ValueError(
                f"batch_size={recipe.batch_size} cannot be divided among {self.replicas} devices"
                f"{f' in {recipe.accumulation} parts each' * (recipe.accumulation > 1)}: "
                f"{f'{below} or ' * (below > 0)}{below + parts} can."
            )
        if synchronized is None:
            synchronized = self.replicas > 1 and recipe.batch_size // parts < _SMALL_BATCH
        self.synchronized = synchronized
        self.share = dict(
            batch_size=recipe.batch_size // self.workers,
            shard=(self.workers, self.worker),
            replicas=self.replicas // self.workers,
            at_least=recipe.accumulation,
        )
        self.settings, self.checkpoints, self.best_weights = {}, None, None

    @contextlib.contextmanager
    def lost_workers_named(self):
        """TensorFlow says a lot when a worker is lost, and not what to do."""
        try:
            yield
        except (
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
            tf.errors.InternalError,
            tf.errors.UnavailableError,
        ) as error:
            if self.workers == 1:
                raise
            raise cluster.LostWorkerError(
                f"in step {self.state.step + 1} of epoch {self.state.epoch + 1}, worker "
                f"{self.worker} has lost another one, which has ended or does not answer. "
                f"{self._kept()} Start all workers again with the same command."
            ) from error

    def _kept(self):
        """Where the newest state is."""
        newest = self.checkpoints and self.checkpoints.newest
        if not newest:
            return "No state has been saved here."
        return f"The last good checkpoint is {str(newest)!r}."

    def prepare(self, training, validation, loss, class_weight):
        """Bring the model onto the devices."""
        self.training = training
        self.dataset = training(range(self.recipe.epochs), **self.share)
        # Of every batch each process needs an image, or one of them would take more steps.
        share = {**self.share, "at_least": int(self.workers > 1)}
        self.validation = validation and validation(**share)
        facts = {
            **collectives.versions(),
            **self.settings,
            "devices of the process": self.share["replicas"],
        }
        collectives.agree(self.strategy, {name: str(value) for name, value in facts.items()})
        self.steps = len(self.dataset) // self.recipe.epochs // self.share["replicas"]
        self.net, here = self.model, self.strategy.extended.variable_created_in_scope
        if self.replicas > 1 or not all(here(each.value) for each in self.model.weights):
            self.net = _replicated(self.model, self.strategy, self.synchronized)
        for model in dict.fromkeys([self.model, self.net]):
            with self.strategy.scope() if model is self.net else contextlib.nullcontext():
                optimizer = self.recipe.optimizer(self.steps)
                # Keras looks at the policy of the model alone.
                if any(layer.compute_dtype == "float16" for layer in model._flatten_layers()):
                    optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
                model.compile(
                    optimizer,
                    "sparse_categorical_crossentropy",
                    metrics=["accuracy"],
                    jit_compile="auto" if gains_from_xla() else False,
                )
        with self.strategy.scope():
            self.net.optimizer.build(self.net.trainable_variables)
            self.average = WeightAverage(self.net, self.recipe.ema) if self.recipe.ema else None
        self.training_function = training_function(
            self.net,
            loss,
            class_weight=class_weight,
            accumulation=self.recipe.accumulation,
            average=self.average,
        )
        self.validation_function = validation_function(self.net, loss)
        self.variables, own = state(self.net), statistics(self.net)
        if self.average:
            self.variables += self.average.variables
            own += self.average.statistics
        # Replicas that do not synchronize their statistics have some of their own.
        own = [] if self.synchronized else own
        self.average_statistics = collectives.alignment(self.strategy, own, mean=True)

    def restore(self, folder, keep):
        """Go back to the newest checkpoint, in all processes to the chief's."""
        if folder is not None and self.worker == 0:
            others = self.average.variables if self.average else []
            self.checkpoints = Checkpoints(folder, self.settings, keep, others)
            self.checkpoints.check_space(self.net)
            self.state = _State(**(self.checkpoints.restore(self.net) or {}))
        found, *_ = collectives.exchanged(self.strategy, dataclasses.asdict(self.state))
        self.state = _State(**found)
        # With other devices than before, an epoch may have fewer steps.
        self.state.step = min(self.state.step, self.steps)
        if self.workers > 1:
            collectives.alignment(self.strategy, self.variables)()
        _spread(self.strategy, random_states(self.net))

    def _save(self):
        """Save the state, if this is the process that does."""
        if self.checkpoints:
            for variable in self.net.weights:
                if not np.isfinite(variable.numpy()).all():
                    raise self._lost_number(self.state.step)
            self.checkpoints.save(self.net, dataclasses.asdict(self.state))

    def _lost_number(self, step):
        return DivergedError(
            f"learning_rate={self.recipe.learning_rate}: the loss is not a number any more in step "
            f"{step} of epoch {self.state.epoch + 1}. {self._kept()} Use a lower learning rate."
        )

    def _iterator(self, dataset):
        if self.replicas == 1:
            return iter(dataset)
        # It is read as far as it goes and no further; a dataset that may end would make all
        # processes ask each other in every step whether they are all still there.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        options = tf.distribute.InputOptions(
            experimental_fetch_to_device=bool(tf.config.list_logical_devices("GPU"))
        )
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda _: dataset.apply(endless), options
            )
        )

    def _rest(self):
        """Batches of what is left; nothing of an epoch that lacks its validation alone."""
        epoch = self.state.epoch + (self.state.step == self.steps)
        step = self.state.step % self.steps
        if epoch == self.recipe.epochs:
            return None
        if epoch or step:
            left = range(epoch, self.recipe.epochs)
            self.dataset = None  # images that it keeps in memory are read again
            self.dataset = self.training(left, first_step=step, **self.share)
        return self._iterator(self.dataset)

    def train(self, callbacks, steps_per_execution, save_every, verbose, termination):
        """Take the epochs that are left."""
        recipe, state, steps = self.recipe, self.state, self.steps
        self.progress = Progress(verbose if self.worker == 0 else 0, recipe.epochs, steps)
        if state.finished or state.epoch >= recipe.epochs:
            return
        callbacks = keras.callbacks.CallbackList(
            list(callbacks), model=self.net, epochs=recipe.epochs, steps=steps, verbose=0
        )
        iterator = self._rest()
        self.net.stop_training = False
        callbacks.on_train_begin()
        try:
            while not (state.finished or state.epoch == recipe.epochs or self.net.stop_training):
                callbacks.on_epoch_begin(state.epoch)
                self.progress.begin_epoch(state.epoch, state.step)
                start = time.perf_counter() - state.seconds
                while state.step < steps and not self.net.stop_training:
                    count = min(steps_per_execution, steps - state.step)
                    if save_every:
                        count = min(count, save_every - state.step % save_every)
                    callbacks.on_train_batch_begin(state.step)
                    before = state.totals[2]
                    asked = self._take_steps(iterator, count, termination)
                    state.seconds = time.perf_counter() - start
                    logs = _means(state.totals)
                    callbacks.on_train_batch_end(state.step - 1, logs)
                    self.progress.step(state.step, state.totals[2] - before, logs)
                    if asked or (save_every and state.step % save_every == 0 != steps - state.step):
                        self.average_statistics()
                        self._save()
                    if asked:
                        raise self._interruption()
                self.average_statistics()
                logs = {**_means(state.totals), **self._validate(termination)}
                state.seconds = time.perf_counter() - start
                self._count_epoch(logs)
                self._save()
                self.progress.end_epoch(state.epoch - 1, logs)
                callbacks.on_epoch_end(state.epoch - 1, logs)
                if self.net.stop_training and not state.finished:
                    state.finished = True
                    self._save()
        finally:
            self.progress.end_epoch()
            callbacks.on_train_end()

    def _take_steps(self, iterator, count, termination):
        """Some steps; returns whether a process was asked to end."""
        stop = tf.constant(float(termination.requested))
        totals = self.training_function(iterator, stop, count).numpy()
        lost = ~np.isfinite(totals[:, 0])
        if lost.any():
            raise self._lost_number(self.state.step + 1 + int(lost.argmax()))
        self.state.step += count
        self.state.totals = (self.state.totals + totals[:, :3].sum(0, "float64")).tolist()
        return termination.requested if self.workers == 1 else totals[:, 3].any()

    def _interruption(self):
        return Interrupted(
            f"Asked to end: the state after step {self.state.step} of {self.steps} in epoch "
            f"{self.state.epoch + 1} is saved. The same command goes on from there."
        )

    def _validate(self, termination):
        """Loss and accuracy on the validation images; keeps the weights if they are the best."""
        if self.average:
            self.average.swap()
        logs = {} if self.validation is None else self._validation_logs(termination)
        if logs.get("loss", -np.inf) < min(self.state.history.get("val_loss", ()), default=np.inf):
            self.state.best_epoch = self.state.epoch + 1
            if self.checkpoints:
                self.checkpoints.save_best(self.net)
            else:
                self.best_weights = self.net.get_weights()
        if self.average:
            self.average.swap()
        return {f"val_{name}": value for name, value in logs.items()}

    def _validation_logs(self, termination):
        iterator, totals = self._iterator(self.validation), np.zeros(4)
        for _ in range(len(self.validation) // self.share["replicas"]):
            stop = tf.constant(float(termination.requested))
            totals += self.validation_function(iterator, stop, 1).numpy()[0]
            if totals[3]:
                if self.average:
                    self.average.swap()
                self._save()
                raise self._interruption()
        means = _means(totals)
        if not np.isfinite(means["loss"]):
            raise self._lost_number(self.state.step)
        return means

    def _count_epoch(self, logs):
        state = self.state
        for name, value in logs.items():
            state.history.setdefault(name, []).append(float(value))
        state.epoch, state.step, state.totals = state.epoch + 1, 0, [0.0] * 3
        patience = self.recipe.patience or self.recipe.epochs
        state.finished = state.epoch - state.best_epoch >= patience

    def give_best(self):
        """Give the model the best weights."""
        if self.checkpoints:
            self.checkpoints.restore_best(self.net)
        elif self.best_weights is not None:
            self.net.set_weights(self.best_weights)
        if self.workers > 1:
            collectives.alignment(self.strategy, self.net.weights)()
        if self.net is not self.model:
            self.model.set_weights(self.net.get_weights())


def _means(totals):
    loss, right, images = totals[:3]
    return {"loss": loss / images, "accuracy": right / images}


def _replicated(model, strategy, synchronized):
    """The same model on all devices of a strategy."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = synchronized
        return type(layer).from_config(config)

    with strategy.scope(), deep_graphs():
        net = keras.models.clone_model(model, clone_function=clone, recursive=True)
        net.set_weights(model.get_weights())
        for mine, theirs in zip(random_states(net), random_states(model), strict=True):
            mine.assign(theirs)
    return net


def _spread(strategy, states):
    """Let replicas draw other random numbers than the first, such as the masks of dropout."""

    def of_replica():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        for each in states:
            each.assign(each.value + tf.cast(tf.stack([0, index]), each.value.dtype))

    if states and strategy.num_replicas_in_sync > 1:
        tf.function(lambda: strategy.run(of_replica), autograph=False).get_concrete_function()()
