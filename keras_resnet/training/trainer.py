"""The training loop: a recipe applied to a model and a source."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.blocks import check_positive
from keras_resnet.data import Source, batches
from keras_resnet.data.pipeline import policy_of
from keras_resnet.files import written_beside
from keras_resnet.layers import gains_from_xla
from keras_resnet.preprocessing import crop_of, preprocessing_layer
from keras_resnet.resnet import deep_graphs
from keras_resnet.training import strategies
from keras_resnet.training.averages import WeightAverage, statistics
from keras_resnet.training.checkpoints import Checkpoints, random_states, state
from keras_resnet.training.logs import Progress
from keras_resnet.training.loop import training_function, validation_function
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.recipes import recipe as find

_SMALL_BATCH = 16  # images of a replica below which their own statistics are poor ones


class Interrupted(SystemExit):
    """A run was asked to end (SIGTERM), has saved its state, and ends the program with code 0.

    Parameters
    ----------
    message : str
        How far it is.
    """

    def __init__(self, message: str):
        super().__init__(0)
        self.message = message

    def __str__(self):
        return self.message


class DivergedError(ValueError):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Result:
    """What a training run has led to.

    Parameters
    ----------
    history : dict of str to list of float
        "loss", "accuracy", "val_loss", "val_accuracy" of every epoch.
    best_epoch : int
        The epoch, from 1, whose weights the model has now: the one of the lowest validation loss,
        or the last one where nothing was validated.
    seconds : float
        Duration of the training, without interruptions.
    images_per_second : float
        Training images a second, without validation.
    stages : dict of str to int
        For training in stages, the epochs of each.
    checkpoints : pathlib.Path, optional
        Where the state of the run is.
    """

    history: dict[str, list[float]]
    best_epoch: int
    seconds: float
    images_per_second: float = 0.0
    stages: dict[str, int] = field(default_factory=dict)
    checkpoints: Path | None = None

    def save(self, path: str | os.PathLike) -> None:
        """Write the history as a CSV file of one line an epoch.

        Parameters
        ----------
        path : path
            The file.
        """
        stages = [name for name, epochs in self.stages.items() for _ in range(epochs)]
        columns = {"stage": stages, **self.history} if stages else self.history
        with written_beside(path) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *columns])
            for epoch, values in enumerate(zip(*columns.values(), strict=True), start=1):
                writer.writerow([epoch, *values])


def train(
    model: keras.Model,
    source: Source,
    recipe: Recipe | str | None = None,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    image_size: int | None = None,
    crop: float | None = None,
    seed: int = 0,
    class_weight: Mapping[int, float] | None = None,
    cache: str | os.PathLike | None = None,
    synchronized: bool | None = None,
    steps_per_execution: int = 1,
    checkpoints: str | os.PathLike | None = None,
    keep: int = 3,
    save_every: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on a source's training images, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier of the source's classes that takes raw images, as the builders make it with
        `include_preprocessing=True`. It is compiled here. It need not have been made in the scope
        of a strategy.
    source : Source
        The data; its test images are not touched. Where it has no validation images, the weights of
        the last epoch are kept.
    recipe : Recipe or str, optional
        How to train, or a key of `RECIPES`. Default: `Recipe()`.
    strategy : tf.distribute.Strategy or str, optional
        The devices, or what `keras_resnet.training.strategy` makes them of; "multiworker" and
        "cpu:N" have to be made before the model. Each takes an equal part of every batch. Default:
        the one in whose scope the model was made.
    image_size : int, optional
        Height and width in pixels to train with. Default: the model's, or the source's where the
        model takes any.
    crop : float, optional
        Part of the images that is looked at in validation, as in `data.batches`. Default: what the
        model remembers.
    seed : int, default 0
        Seed of the order and variation of the images.
    class_weight : mapping of int to float, optional
        How much each class counts, such as `source.class_weight()`. Default: all images alike.
    cache : "memory" or path, optional
        Where to keep decoded images, as in `data.batches`.
    synchronized : bool, optional
        Whether BatchNormalization takes its statistics from the images of all devices. Default:
        where a device has fewer than 16 images of a batch. Without, each device has its own, and
        the moving ones are averaged at the end of every epoch.
    steps_per_execution : int, default 1
        Steps that TensorFlow takes at once, without Python in between.
    checkpoints : path, optional
        A folder for the state of the run: a run that was interrupted and is started again goes on
        from there, with as many devices as it has then. On SIGTERM the state is saved, and the
        program ends with code 0. Of several processes only the chief, the first, needs the folder.
        Default: none.
    keep : int, default 3
        States to keep.
    save_every : int, optional
        Save the state after so many steps, as well as after every epoch.
    callbacks : sequence of keras.callbacks.Callback, optional
        More of them. `model` is, for them, the one that is being trained, with its own weights
        rather than their average. The learning rate is the recipe's, not theirs to set.
    verbose : {0, 1, 2}, default 1
        Nothing, a progress bar, or a line an epoch.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the model's classes are not as many as the source's, if it does not end in a softmax, if
        it wants images normalized and does not do that itself, if all of its layers are frozen, if
        a batch cannot be divided among the devices, if other processes do something else, if
        `checkpoints` holds a run of other settings, or if the loss stops being a number.
    OSError
        If there is no space for the checkpoints.
    LostWorkerError
        If another process of the run goes away.
    Interrupted
        On SIGTERM.

    Examples
    --------
    >>> import keras_resnet
    >>> from keras_resnet import data, training
    >>> digits = data.load("digits")
    >>> model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    >>> recipe = training.Recipe(epochs=1, batch_size=128)
    >>> result = training.train(model, digits, recipe, image_size=8, verbose=0)
    >>> result.best_epoch
    1
    """
    recipe = as_recipe(recipe)
    classes = len(source.class_names)
    check_classifier(model, source)
    size = image_size or model.input_shape[1] or source.image_size
    crop = crop_of(model) if crop is None else crop
    policy = policy_of(recipe.augmentation or source.augmentation).with_mixup(recipe.mixup)
    options = dict(image_size=size, channels=source.channels, cache=cache)

    def training(epochs, **share):
        return batches(
            source.train,
            augmentation=policy,
            seed=seed,
            epochs=epochs,
            classes=classes,
            **options,
            **share,
        )

    return fit(
        model,
        training,
        (lambda **share: batches(source.validation, crop=crop, **options, **share))
        if len(source.validation)
        else None,
        recipe,
        strategy,
        classes=classes,
        mixed=bool(policy.mixes()),
        settings={
            "data": source.name,
            "images": [len(split) for split in source.splits.values()],
            "fingerprint": source.fingerprint(),
            "image_size": size,
            "crop": crop,
            "seed": seed,
            "class_weight": class_weight and {f"{i}": float(w) for i, w in class_weight.items()},
        },
        class_weight=class_weight,
        synchronized=synchronized,
        steps_per_execution=steps_per_execution,
        checkpoints=checkpoints,
        keep=keep,
        save_every=save_every,
        callbacks=callbacks,
        verbose=verbose,
    )


def fit(
    model: keras.Model,
    training: Callable[..., tf.data.Dataset],
    validation: Callable[..., tf.data.Dataset] | None,
    recipe: Recipe,
    strategy: tf.distribute.Strategy | str | None = None,
    *,
    classes: int,
    mixed: bool = False,
    settings: Mapping | None = None,
    class_weight: Mapping[int, float] | None = None,
    synchronized: bool | None = None,
    steps_per_execution: int = 1,
    checkpoints: str | os.PathLike | None = None,
    keep: int = 3,
    save_every: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
) -> Result:
    """Train a model on batches of any kind, and keep the best epoch's weights.

    Parameters
    ----------
    model : keras.Model
        A classifier that ends in a softmax. It is compiled here.
    training : callable
        Makes the batches of (inputs, labels) of a range of epochs, one epoch after the other. It is
        given that range, and as keywords what this process has to do of it: `batch_size`,
        `first_step`, `shard`, `replicas` and `at_least`, as `data.batches` takes them.
    validation : callable or None
        Makes the batches to choose the best epoch on, given the same keywords; None keeps the last.
    recipe : Recipe
        How to train.
    strategy
        As in `train`.
    classes : int
        Classes there are.
    mixed : bool, default False
        Whether the labels in training are probabilities of all classes.
    settings : mapping of str to JSON value, optional
        What else makes the run what it is, for `checkpoints`.
    class_weight, synchronized, steps_per_execution, checkpoints, keep, save_every, callbacks
        As in `train`.
    verbose
        As in `train`.

    Returns
    -------
    Result

    Raises
    ------
    ValueError, OSError, LostWorkerError, Interrupted
        As `train` does.
    """
    check_positive(steps_per_execution=steps_per_execution, keep=keep)
    if unknown := set(class_weight or ()) - set(range(classes)):
        raise ValueError(
            f"class_weight has {sorted(unknown, key=str)!r}: classes are the numbers from 0 to "
            f"{classes - 1}."
        )
    if save_every is not None:
        check_positive(save_every=save_every)
    if not model.trainable_variables:
        raise ValueError(f"{model.name} has nothing to train: all of its layers are frozen.")
    run = _Run(model, recipe, strategy, synchronized)
    run.settings = {
        "model": model.name,
        "parameters": model.count_params(),
        "variables": len(model.trainable_variables),
        "layers": architecture_digest(model),
        "precision": ", ".join(sorted({each.compute_dtype for each in model._flatten_layers()})),
        "recipe": dataclasses.asdict(recipe),
        **(settings or {}),
    }
    soft = mixed or recipe.label_smoothing > 0

    def with_soft_labels(dataset, mixed=False):
        if not soft or mixed:
            return dataset
        return dataset.map(lambda inputs, labels: (inputs, tf.one_hot(labels, classes)))

    with run.lost_workers_named():
        run.prepare(
            lambda *epochs, **share: with_soft_labels(training(*epochs, **share), mixed),
            validation and (lambda **share: with_soft_labels(validation(**share))),
            keras.losses.CategoricalCrossentropy(
                label_smoothing=recipe.label_smoothing, reduction=None
            )
            if soft
            else keras.losses.SparseCategoricalCrossentropy(reduction=None),
            class_weight,
        )
        run.restore(checkpoints, keep)
        with _Termination(active=checkpoints is not None) as termination:
            run.train(callbacks, steps_per_execution, save_every, verbose, termination)
        if termination.requested:  # too late to be noticed there
            raise Interrupted("Asked to end: the training was over, and its state is saved.")
        run.give_best()
    state = run.state
    return Result(
        state.history,
        state.best_epoch,
        state.seconds,
        run.progress.images_per_second,
        checkpoints=None if checkpoints is None else Path(checkpoints),
    )


def as_recipe(recipe: Recipe | str | None) -> Recipe:
    """Turn what stands for a recipe into one.

    Parameters
    ----------
    recipe : Recipe or str, optional
        A recipe, or a key of `RECIPES`.

    Returns
    -------
    Recipe
    """
    return find(recipe) if isinstance(recipe, str) else recipe or Recipe()


def check_classifier(model: keras.Model, source: Source) -> None:
    """Make sure that a model gives probabilities of a source's classes, and takes raw images.

    Parameters
    ----------
    model : keras.Model
        The model.
    source : Source
        The data.

    Raises
    ------
    ValueError
        If it does not.
    """
    classes = len(source.class_names)
    if model.output_shape[-1] != classes:
        raise ValueError(
            f"{model.name} has {model.output_shape[-1]} outputs, {source.name} has {classes} "
            f"classes: build the model with classes={classes}."
        )
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Softmax):
        activation = getattr(last, "activation", None)
        if activation is not keras.activations.softmax:
            raise ValueError(
                f"{model.name} gives no probabilities: build it with "
                "classifier_activation='softmax'."
            )
    # Served, it would be given normalized images, as its backbone's weights want them.
    wanted = getattr(model, "preprocessing", None)
    if wanted and not preprocessing_layer(model):
        raise ValueError(
            f"{model.name} takes images that are normalized as {wanted!r}, and a source's are raw: "
            "build it, or its backbone, with include_preprocessing=True."
        )


def architecture_digest(model: keras.Model) -> str:
    """Digest what a model computes, but for its weights.

    Parameters
    ----------
    model : keras.Model
        Any model.

    Returns
    -------
    str
        The same for the same layers in the same order, whatever they are called. It tells apart
        nets of the same number of parameters, such as those of other shortcuts or preprocessing.
    """
    digest = hashlib.sha256()
    for layer in model._flatten_layers(include_self=False):
        config = {}
        if not isinstance(layer, keras.Model):
            with contextlib.suppress(NotImplementedError):  # of a layer that cannot be saved
                config = keras.saving.serialize_keras_object(layer)["config"]
        computed = {name: config[name] for name in config if name not in ("name", "trainable")}
        shapes = [list(weight.shape) for weight in layer.weights]
        with contextlib.suppress(AttributeError, ValueError):  # several outputs
            shapes.append(list(layer.output.shape))
        digest.update(json.dumps([type(layer).__name__, computed, shapes]).encode())
    return digest.hexdigest()[:12]


class _Termination:
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


class _Run:
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
        self.workers, self.worker = strategies.workers(self.strategy)
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
            raise strategies.LostWorkerError(
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
            **strategies.versions(),
            **self.settings,
            "devices of the process": self.share["replicas"],
        }
        strategies.agree(self.strategy, {name: str(value) for name, value in facts.items()})
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
        self.average_statistics = strategies.alignment(self.strategy, own, mean=True)

    def restore(self, folder, keep):
        """Go back to the newest checkpoint, in all processes to the chief's."""
        if folder is not None and self.worker == 0:
            others = self.average.variables if self.average else []
            self.checkpoints = Checkpoints(folder, self.settings, keep, others)
            self.checkpoints.check_space(self.net)
            self.state = _State(**(self.checkpoints.restore(self.net) or {}))
        found, *_ = strategies.exchanged(self.strategy, dataclasses.asdict(self.state))
        self.state = _State(**found)
        # With other devices than before, an epoch may have fewer steps.
        self.state.step = min(self.state.step, self.steps)
        if self.workers > 1:
            strategies.alignment(self.strategy, self.variables)()
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
            strategies.alignment(self.strategy, self.net.weights)()
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
