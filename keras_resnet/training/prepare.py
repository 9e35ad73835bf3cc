"""What a run needs before its first step: devices, a model on them, functions and batches."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from keras_resnet.graphs import copy_state, twin_of
from keras_resnet.layers import gains_from_xla
from keras_resnet.resnet import deep_graphs
from keras_resnet.training import collectives, strategies
from keras_resnet.training.averages import WeightAverage, statistics
from keras_resnet.training.checkpoints import BestInMemory, Checkpoints, random_states, state
from keras_resnet.training.execution import Execution
from keras_resnet.training.loop import training_function, validation_function
from keras_resnet.training.recipes import Recipe
from keras_resnet.training.stopping import Stopping
from keras_resnet.training.tasks import Objective

_SMALL_BATCH = 16  # images of a replica below which their own statistics are poor


@dataclass(frozen=True)
class Devices:
    """The devices of a run, and this process' share of them.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy.
    workers, worker : int
        Processes, and which of them this is, from 0.
    replicas : int
        Devices of all processes.
    synchronized : bool
        Whether BatchNormalization takes its statistics from the images of all of them.
    share : dict
        Keywords of `data.batches` for this process' part of every batch.
    """

    strategy: tf.distribute.Strategy
    workers: int
    worker: int
    replicas: int
    synchronized: bool
    share: dict

    @property
    def is_chief(self) -> bool:
        """Whether this process is the first, which writes and prints."""
        return self.worker == 0

    def iterator(self, dataset: tf.data.Dataset) -> Iterator:
        """Iterate over batches that were made for this process.

        Parameters
        ----------
        dataset : tf.data.Dataset
            The batches: one after another for each of the replicas.

        Returns
        -------
        iterator
        """
        if self.replicas == 1:
            return iter(dataset)
        # It is read as far as it goes and no further; if it might end, all processes would ask each
        # other in every step whether they are all still there.
        endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
        options = tf.distribute.InputOptions(
            experimental_fetch_to_device=bool(tf.config.list_logical_devices("GPU"))
        )
        return iter(
            self.strategy.distribute_datasets_from_function(
                lambda _: dataset.apply(endless), options
            )
        )


def devices_of(
    strategy: tf.distribute.Strategy | str | None,
    model: keras.Model,
    recipe: Recipe,
    synchronized: bool | None,
) -> Devices:
    """Divide the batches of a recipe among devices.

    Parameters
    ----------
    strategy, model, recipe, synchronized
        As in `keras_resnet.training.train`.

    Returns
    -------
    Devices

    Raises
    ------
    ValueError
        If they cannot be divided, or the strategy comes too late.
    """
    if strategy == "multiworker":
        raise ValueError(
            "strategy 'multiworker' must be chosen before TensorFlow computes anything: make it "
            "with `training.strategy('multiworker')` before the model."
        )
    chosen = strategies.strategy(strategy) if isinstance(strategy, str) else strategy
    chosen = chosen or model.distribute_strategy
    workers, worker = collectives.workers(chosen)
    replicas = chosen.num_replicas_in_sync
    parts = replicas * recipe.accumulation
    check_divisible(recipe.batch_size, chosen, recipe.accumulation)
    are_few = replicas > 1 and recipe.batch_size // parts < _SMALL_BATCH
    share = dict(
        batch_size=recipe.batch_size // workers,
        shard=(workers, worker),
        replicas=replicas // workers,
        at_least=recipe.accumulation,
    )
    synchronized = bool(are_few if synchronized is None else synchronized)
    return Devices(chosen, workers, worker, replicas, synchronized, share)


def check_divisible(
    batch_size: int, strategy: tf.distribute.Strategy, accumulation: int = 1
) -> None:
    """Make sure that batches can be divided among devices, and into parts.

    Parameters
    ----------
    batch_size : int
        Images per step.
    strategy : tf.distribute.Strategy
        The devices.
    accumulation : int, default 1
        Parts in which each device takes its images.

    Raises
    ------
    ValueError
        If they cannot.
    """
    replicas = strategy.num_replicas_in_sync
    parts = replicas * accumulation
    if batch_size % parts:
        below = batch_size // parts * parts
        raise ValueError(
            f"batch_size={batch_size} cannot be divided among {replicas} devices"
            f"{f' in {accumulation} parts each' * (accumulation > 1)}: "
            f"{f'{below} or ' * (below > 0)}{below + parts} can."
        )


class Batches:
    """The training batches of a run.

    Parameters
    ----------
    training : callable
        Makes those of a range of epochs, as in `trainer.fit`.
    epochs : int
        Epochs of the run.
    share : mapping of str to value
        This process' share of them.
    """

    def __init__(self, training: Callable, epochs: int, share: Mapping):
        self._training, self._epochs, self._share = training, epochs, share
        self._all = training(range(epochs), **share)
        self.steps = len(self._all) // epochs // share["replicas"]
        """Steps per epoch."""

    def rest(self, epoch: int, step: int) -> tf.data.Dataset:
        """The batches that are left after some epochs and steps; to be called once.

        Parameters
        ----------
        epoch, step : int
            How many of each are done.

        Returns
        -------
        tf.data.Dataset
        """
        found, self._all = self._all, None
        if not (epoch or step):
            return found
        del found  # before the images that it keeps in memory are read again
        return self._training(range(epoch, self._epochs), first_step=step, **self._share)

    def of_step(self, epoch: int, step: int) -> tf.data.Dataset:
        """The batches of a single step.

        Parameters
        ----------
        epoch, step : int
            Which one, from 0.

        Returns
        -------
        tf.data.Dataset
            One for each device of this process.
        """
        found = self._training(range(epoch, epoch + 1), first_step=step, **self._share)
        return found.take(self._share["replicas"])


@dataclass(frozen=True)
class Prepared:
    """A run before its first step.

    Parameters
    ----------
    recipe, objective, devices
        What is learned, how and where.
    model, net : keras.Model
        The model as it was given, and on the devices.
    average : WeightAverage or None
        The moving average of the weights.
    batches : Batches
        The training batches.
    validation : tf.data.Dataset or None
        The validation batches.
    train, validate : callable
        Functions of some steps, as `loop` makes them.
    average_statistics : callable
        Gives the statistics of all replicas their mean.
    store : Checkpoints or BestInMemory
        Where the state of the run and its best weights are kept.
    stopping : Stopping or None, default None
        When the run ends before its last epoch, in addition to the recipe's patience.
    keeps_last : bool, default False
        Whether the last weights count as the best.
    """

    recipe: Recipe
    objective: Objective
    devices: Devices
    model: keras.Model
    net: keras.Model
    average: WeightAverage | None
    batches: Batches
    validation: tf.data.Dataset | None
    train: Callable
    validate: Callable
    average_statistics: Callable[[], None]
    store: Checkpoints | BestInMemory
    stopping: Stopping | None = None
    keeps_last: bool = False

    @property
    def variables(self) -> list[keras.Variable]:
        """Everything that makes the state of the run."""
        return state(self.net) + (self.average.variables if self.average else [])

    def averaged(self):
        """A context in which the model has the average of its weights, if there is one."""
        return self.average.swapped() if self.average else contextlib.nullcontext()


def prepare(
    model: keras.Model,
    training: Callable,
    validation: Callable | None,
    recipe: Recipe,
    objective: Objective,
    devices: Devices,
    settings: Mapping,
    execution: Execution,
) -> Prepared:
    """Bring a model onto its devices.

    Parameters
    ----------
    model, training, validation, recipe, objective, settings, execution
        As in `trainer.fit`.
    devices : Devices
        The devices.

    Returns
    -------
    Prepared

    Raises
    ------
    ValueError
        If other processes do something else.
    """
    strategy, share = devices.strategy, devices.share
    batches = Batches(
        lambda *epochs, **options: objective.prepare(training(*epochs, **options)),
        recipe.epochs,
        share,
    )
    if validation:
        # Each process needs an image of every batch, or one of them would take more steps.
        validation = objective.prepare(
            validation(**{**share, "at_least": int(devices.workers > 1)})
        )
    facts = {
        **collectives.versions(),
        **settings,
        "devices of the process": share["replicas"],
    }
    collectives.agree(strategy, {name: str(value) for name, value in facts.items()})
    net, here = model, strategy.extended.variable_created_in_scope
    if devices.replicas > 1 or not all(here(each.value) for each in model.weights):
        net = replicated(model, strategy, devices.synchronized)
    for each in dict.fromkeys([model, net]):
        with strategy.scope() if each is net else contextlib.nullcontext():
            _compile(each, recipe.make_optimizer(batches.steps, each), objective.compiled)
    with strategy.scope():
        net.optimizer.build(net.trainable_variables)
        average = WeightAverage(net, recipe.ema) if recipe.ema else None
    own = statistics(net) + (average.statistics if average else [])
    store = BestInMemory()
    if execution.checkpoints is not None and devices.is_chief:
        others = average.variables if average else []
        store = Checkpoints(execution.checkpoints, settings, execution.keep, others)
    return Prepared(
        recipe,
        objective,
        devices,
        model,
        net,
        average,
        batches,
        validation,
        training_function(net, objective, accumulation=recipe.accumulation, average=average),
        validation_function(net, objective),
        # Replicas that do not synchronize their statistics have their own.
        collectives.alignment(strategy, [] if devices.synchronized else own, mean=True),
        store,
    )


def validated_as_before(prepared: Prepared) -> Prepared:
    """Measure the validation loss of smooth labels, as the earlier epochs of a run did.

    Parameters
    ----------
    prepared : Prepared
        The run.

    Returns
    -------
    Prepared
    """
    objective = replace(prepared.objective, loss=prepared.objective.smoothed_loss)
    return replace(prepared, validate=validation_function(prepared.net, objective))


def compile_for_more(model: keras.Model, recipe: Recipe, compiled: tuple[str, str] | None) -> None:
    """Compile a trained model for Keras' own methods, with a new optimizer of its recipe.

    The optimizer that it was trained with has come to the end of its schedule, at a rate of 0.

    Parameters
    ----------
    model : keras.Model
        The model.
    recipe : Recipe
        The recipe; of its schedule, the highest learning rate.
    compiled : tuple of (str, str) or None
        As in `Objective`.
    """
    inside = tf.distribute.has_strategy()
    with contextlib.nullcontext() if inside else model.distribute_strategy.scope():
        _compile(model, recipe.make_optimizer(model=model), compiled)
        model.optimizer.build(model.trainable_variables)


def _compile(model, optimizer, compiled):
    """Compile a model for Keras' own methods and for the steps of `loop`."""
    # Keras looks at the policy of the model alone.
    if any(layer.compute_dtype == "float16" for layer in model._flatten_layers()):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss, *metrics = compiled or (None,)
    model.compile(
        optimizer, loss, metrics=metrics, jit_compile="auto" if gains_from_xla() else False
    )


def replicated(
    model: keras.Model, strategy: tf.distribute.Strategy, synchronized: bool
) -> keras.Model:
    """Copy a model to all devices of a strategy.

    Parameters
    ----------
    model : keras.Model
        The model.
    strategy : tf.distribute.Strategy
        The devices.
    synchronized : bool
        As in `Devices`.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        If a copy of a layer would lose something that it computes with.
    """
    twins = {}

    def clone(layer):
        changes = {}
        if isinstance(layer, keras.layers.BatchNormalization):
            changes["synchronized"] = synchronized
        twins[layer] = twin_of(layer, **changes)
        return twins[layer]

    with strategy.scope(), deep_graphs():
        net = keras.models.clone_model(model, clone_function=clone, recursive=True)
        for layer, twin in twins.items():
            if twin is not layer:
                copy_state(layer, twin)
        for mine, theirs in zip(random_states(net), random_states(model), strict=True):
            mine.assign(theirs)
    return net
