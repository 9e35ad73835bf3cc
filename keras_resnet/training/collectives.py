"""What the processes of a run tell each other, and how they agree."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet.files import digest


def workers(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Count the processes, and find which of them this is.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy.

    Returns
    -------
    tuple of (int, int)
        The number of processes, and the index of this one; 0 is the chief.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1, 0
    resolver = strategy.cluster_resolver
    return len(resolver.cluster_spec().as_dict()["worker"]), resolver.task_id


def exchanged(strategy: tf.distribute.Strategy, value) -> list:
    """Send a value to all processes, and receive theirs.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy. All of its processes call this at the same time.
    value : JSON value
        The value of this process.

    Returns
    -------
    list of JSON value
        The values of all processes, in their order.
    """
    count, index = workers(strategy)
    if count == 1:
        return [value]
    # In float32, which every device can sum, and which holds bytes exactly.
    content = np.frombuffer(json.dumps(value).encode(), "uint8").astype("float32")
    lengths = np.zeros(count, "float32")
    lengths[index] = len(content)
    lengths = _summed(strategy, lengths).astype(int)
    table = np.zeros((count, lengths.max()), "float32")
    table[index, : len(content)] = content
    table = _summed(strategy, table).astype("uint8")
    return [json.loads(bytes(row[:length])) for row, length in zip(table, lengths, strict=True)]


def _summed(strategy, array):
    """The sum of one array per process."""

    def of_replica():
        context = tf.distribute.get_replica_context()
        # The first replica of a process speaks for it.
        index = context.replica_id_in_sync_group
        speaks = tf.equal(index % (context.num_replicas_in_sync // workers(strategy)[0]), 0)
        return context.all_reduce("SUM", tf.where(speaks, array, tf.zeros_like(array)))

    return _on_all(strategy, of_replica)().numpy()


def alignment(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable], mean: bool = False
) -> Callable[[], None]:
    """Make a function that gives variables equal values on all replicas.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy.
    variables : sequence of keras.Variable
        The variables, made in its scope.
    mean : bool, default False
        Whether to take the mean of all replicas rather than the value of the first.

    Returns
    -------
    callable
        To be called by all processes at the same time.
    """
    variables = list({id(variable): variable for variable in variables}.values())
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or not variables:
        return lambda: None

    def of_replica():
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)

        def reduce(variable):
            value = tf.convert_to_tensor(variable.value)
            # Not all devices can sum integers; these are small enough for float64.
            value = value if value.dtype.is_floating else tf.cast(value, "float64")
            value = value / replicas if mean else tf.where(first, value, tf.zeros_like(value))
            return context.all_reduce("SUM", value)

        return [reduce(variable) for variable in variables]

    aligned = _on_all(strategy, of_replica)

    def assign():
        for variable, value in zip(variables, aligned(), strict=True):
            variable.assign(tf.cast(value, variable.dtype))

    return assign


def _on_all(strategy, of_replica):
    """Make a function that runs on all replicas and returns the result of one."""
    function = tf.function(lambda: strategy.run(of_replica), autograph=False)
    function = function.get_concrete_function()  # TensorFlow counts the traces of a `tf.function`
    return lambda: tf.nest.map_structure(
        lambda each: strategy.experimental_local_results(each)[0], function()
    )


def agree(strategy: tf.distribute.Strategy, facts: Mapping[str, str]) -> None:
    """Make sure that all processes do the same thing.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy. All of its processes call this at the same time.
    facts : mapping of str to str
        What must be equal everywhere.

    Raises
    ------
    ValueError
        In all processes, listing the differences from the chief.
    """
    chief, *others = exchanged(strategy, dict(facts))
    differing = [
        f"{name} is {other.get(name)} on worker {index}, {chief.get(name)} on the chief"
        for index, other in enumerate(others, start=1)
        for name in sorted({*chief, *other})
        if other.get(name) != chief.get(name)
    ]
    if differing:
        raise ValueError(f"the workers differ: {'; '.join(differing)}.")


def versions() -> dict[str, str]:
    """The versions of everything that computes, and a digest of this package's code.

    Returns
    -------
    dict of str to str
    """
    folder = Path(keras_resnet.__file__).parent
    code = digest(
        (f"{file.relative_to(folder)}".encode() + file.read_bytes())
        for file in sorted(folder.rglob("*.py"))
    )
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "keras_resnet": f"{keras_resnet.__version__} ({code[:12]})",
    }
