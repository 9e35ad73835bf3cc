"""Devices and machines: how a run is spread over them, and what its processes tell each other."""

import hashlib
import json
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_resnet

STRATEGIES = ("auto", "mirrored", "multiworker", "cpu:N", "tpu")
"""What `strategy` knows."""

PORT = (
    12345  # of the workers, where a list of hosts names none, and of Slurm's first task on a host
)

_MANY = 1024  # more GPUs than a node has tasks
_PATIENCE = 0.2  # seconds between two looks for a process that has not come yet


class LostWorkerError(ConnectionError):
    """Another process of the run has gone, or does not answer any more."""


def strategy(
    name: str = "auto", *, hosts: Sequence[str] | None = None, timeout: float = 600.0
) -> tf.distribute.Strategy:
    """Choose the devices of a run.

    Several CPU devices and several machines have to be chosen before TensorFlow has computed
    anything in this process.

    Parameters
    ----------
    name : str, default "auto"
        - "auto": all GPUs of this machine if there are several, else the one, or the CPU.
        - "mirrored": all GPUs of this machine, of which there must be some.
        - "multiworker": this process is one of several, on one machine or more, which all run the
          same program. Who they are is taken from `hosts`, or `TF_CONFIG`, or Slurm.
        - "cpu:N": N devices on the CPU, for trying out.
        - "tpu": a Cloud TPU, the one that `TPU_NAME` names if there is such a variable.
    hosts : sequence of str, optional
        For "multiworker": names of the machines, the same in every process, or "name:port"; one of
        them is this machine, the first one is the chief.
    timeout : float, default 600.0
        For "multiworker": seconds to wait for a process that has not come yet, or that lives and
        does not answer. One that dies is noticed at once, a machine that vanishes in half a minute.

    Returns
    -------
    tf.distribute.Strategy

    Raises
    ------
    ValueError
        For an unknown name, devices that are not there, or a cluster that is described wrongly.
    OSError
        If the port of this process is in use.
    LostWorkerError
        If the other processes do not come.

    Examples
    --------
    >>> from keras_resnet.training import strategy
    >>> strategy("auto").num_replicas_in_sync
    1
    """
    if hosts is not None and name != "multiworker":
        raise ValueError(f"hosts={hosts!r} are for strategy 'multiworker', not {name!r}.")
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    if name == "mirrored":
        if not tf.config.list_physical_devices("GPU"):
            raise ValueError(
                "strategy 'mirrored': TensorFlow sees no GPU here; 'cpu:2' needs none."
            )
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return _multiworker(cluster(hosts), timeout)
    if name == "tpu":
        return _tpu()
    if match := re.fullmatch(r"cpu:([1-9]\d*)", name):
        return _cpus(int(match[1]))
    raise ValueError(f"strategy {name!r} must be one of {', '.join(map(repr, STRATEGIES))}.")


def cluster(hosts: Sequence[str] | None = None) -> tuple[list[str], int]:
    """Who the processes of a run are, and which of them this is.

    Parameters
    ----------
    hosts : sequence of str, optional
        As in `strategy`.

    Returns
    -------
    tuple of (list of str, int)
        "name:port" of every process, and the index of this one.

    Raises
    ------
    ValueError
        If nothing says it, or wrongly.

    Examples
    --------
    >>> from keras_resnet.training.strategies import cluster
    >>> cluster(["localhost:2345", "other.example:2345"])
    (['localhost:2345', 'other.example:2345'], 0)
    """
    if hosts is not None:
        return _listed(hosts)
    if "TF_CONFIG" in os.environ:
        return _configured(os.environ["TF_CONFIG"])
    if "SLURM_PROCID" in os.environ:
        return _of_slurm()
    raise ValueError(
        "strategy 'multiworker': neither hosts nor TF_CONFIG nor Slurm says who the workers are. "
        "`keras-resnet launch --workers N -- train ...` starts them on one machine."
    )


def _listed(hosts):
    """The processes of a list of hosts."""
    addresses = [host if re.search(r":\d+$", host) else f"{host}:{PORT}" for host in hosts]
    mine = {"localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn()}
    here = [index for index, each in enumerate(addresses) if each.rpartition(":")[0] in mine]
    if len(here) != 1:
        raise ValueError(
            f"hosts={list(hosts)!r} must name this machine once: {socket.gethostname()!r}. Several "
            "processes on one machine need TF_CONFIG; `keras-resnet launch` sets it."
        )
    return addresses, here[0]


def _configured(text):
    """The processes of TF_CONFIG."""
    example = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        workers, task = config["cluster"], config["task"]
        addresses = [*workers.get("chief", ()), *workers["worker"]]
        index = int(task["index"])
        if "chief" in workers and task["type"] != "chief":
            index += len(workers["chief"])
        well_formed = all(isinstance(each, str) and ":" in each for each in addresses)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG={text!r} must be JSON such as {example}.") from error
    if not well_formed or task["type"] not in ("worker", "chief"):
        raise ValueError(f"TF_CONFIG={text!r} must be JSON such as {example}.")
    if not 0 <= index < len(addresses):
        raise ValueError(
            f"TF_CONFIG names this process nowhere: it is {task['type']} {task['index']}, and the "
            f"cluster has {len(addresses)} processes, counted from 0: {', '.join(addresses)}."
        )
    return addresses, index


def _of_slurm():
    """The processes of a Slurm job step."""
    try:
        # Which GPUs a task sees is Slurm's affair; without a number of them TensorFlow asks for
        # nvidia-smi, and has no tasks on nodes without GPUs.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=PORT, gpus_per_node=_MANY, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
    except RuntimeError as error:
        raise ValueError(
            f"strategy 'multiworker' under Slurm: {error} Start it by srun."
        ) from error
    # TensorFlow sorts the nodes by name, Slurm numbers its tasks by nodes in an order of its own.
    node, task = os.environ.get("SLURMD_NODENAME"), int(os.environ.get("SLURM_LOCALID", 0))
    mine = f"{node}:{PORT + task}"
    return addresses, addresses.index(mine) if mine in addresses else resolver.task_id


def _multiworker(found, timeout):
    addresses, index = found
    _meet(addresses, index, timeout)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=index
    )
    # TensorFlow's own choice is its ring over gRPC, which is slow for GPUs.
    gpus = tf.config.list_physical_devices("GPU")
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.NCCL
        if gpus
        else tf.distribute.experimental.CommunicationImplementation.RING,
        timeout_seconds=timeout,
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except RuntimeError as error:
        raise ValueError(
            "strategy 'multiworker' must be chosen before TensorFlow computes anything in this "
            f"process. ({error})"
        ) from error
    except tf.errors.OpError as error:
        raise LostWorkerError(
            f"the workers {', '.join(addresses)} did not come together: {error.message}"
        ) from error


def _meet(addresses, index, timeout):
    """Wait until all processes are there.

    TensorFlow would wait for an hour, deaf to signals, and end the process over a port in use.
    """
    port, deadline = int(addresses[index].rpartition(":")[2]), time.monotonic() + timeout
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise OSError(
                f"port {port} of this machine, where worker {index} ({addresses[index]}) is to "
                "listen, is in use. Is another run going on? Choose another port for all workers."
            ) from error
        listener.listen(len(addresses))
        missing = [address for address in addresses if address != addresses[index]]
        # Who has seen all others goes on, and answers as TensorFlow's server from then on.
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise LostWorkerError(
                    f"worker {index} ({addresses[index]}) has waited {timeout:.0f} s for "
                    f"{', '.join(missing)}, which cannot be reached."
                )
            time.sleep(_PATIENCE)


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def _tpu():
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
            os.environ.get("TPU_NAME", "local")
        )
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"strategy 'tpu': no TPU answers: {error}") from error
    return tf.distribute.TPUStrategy(resolver)


def _cpus(count):
    (cpu, *_) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        )
    except RuntimeError as error:
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise ValueError(
                f"strategy 'cpu:{count}' must be chosen before TensorFlow computes anything: this "
                f"process has {there} CPU device{'s' * (there > 1)} by now."
            ) from error
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(count)])


def workers(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """How many processes there are, and which of them this is.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy.

    Returns
    -------
    tuple of (int, int)
        The second counts from 0, which is the chief.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1, 0
    resolver = strategy.cluster_resolver
    return len(resolver.cluster_spec().as_dict()["worker"]), resolver.task_id


def exchanged(strategy: tf.distribute.Strategy, value) -> list:
    """Tell all processes something.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy. All of its processes call this at the same time.
    value : JSON value
        What this one has to say.

    Returns
    -------
    list of JSON value
        What each has said.
    """
    count, index = workers(strategy)
    if count == 1:
        return [value]
    # In float32, which every device can add up, and which holds such numbers exactly.
    content = np.frombuffer(json.dumps(value).encode(), "uint8").astype("float32")
    lengths = np.zeros(count, "float32")
    lengths[index] = len(content)
    lengths = _summed(strategy, lengths).astype(int)
    table = np.zeros((count, lengths.max()), "float32")
    table[index, : len(content)] = content
    table = _summed(strategy, table).astype("uint8")
    return [json.loads(bytes(row[:length])) for row, length in zip(table, lengths, strict=True)]


def _summed(strategy, array):
    """The sum of one array a process."""

    def of_replica():
        context = tf.distribute.get_replica_context()
        # A process' first replica speaks for it.
        index = context.replica_id_in_sync_group
        speaks = tf.equal(index % (context.num_replicas_in_sync // workers(strategy)[0]), 0)
        return context.all_reduce("SUM", tf.where(speaks, array, tf.zeros_like(array)))

    return _on_all(strategy, of_replica)().numpy()


def alignment(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable], mean: bool = False
) -> Callable[[], None]:
    """Make a function that gives variables the same value on all replicas.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy.
    variables : sequence of keras.Variable
        The variables, made in its scope.
    mean : bool, default False
        Whether the value is the mean of all replicas', rather than the first one's.

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
            # Not all devices can add up integers; these are small enough for float64.
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
    """A function that reduces everything it gives, for all replicas; gives one replica's."""
    function = tf.function(lambda: strategy.run(of_replica), autograph=False)
    function = function.get_concrete_function()  # of a `tf.function` TensorFlow counts the traces
    return lambda: tf.nest.map_structure(
        lambda each: strategy.experimental_local_results(each)[0], function()
    )


def agree(strategy: tf.distribute.Strategy, facts: Mapping[str, str]) -> None:
    """Make sure that all processes do the same.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        The strategy. All of its processes call this at the same time.
    facts : mapping of str to str
        What must be the same everywhere.

    Raises
    ------
    ValueError
        In all processes, naming those that differ from the chief, and in what.
    """
    chief, *others = exchanged(strategy, dict(facts))
    differing = [
        f"{name} is {other.get(name)} on worker {index}, {chief.get(name)} on the chief"
        for index, other in enumerate(others, start=1)
        for name in sorted({*chief, *other})
        if other.get(name) != chief.get(name)
    ]
    if differing:
        raise ValueError(f"the workers do not do the same: {'; '.join(differing)}.")


def versions() -> dict[str, str]:
    """What computes: the versions that matter, and a digest of this package's own code.

    Returns
    -------
    dict of str to str
    """
    digest = hashlib.sha256()
    folder = Path(keras_resnet.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder)}".encode() + file.read_bytes())
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "keras_resnet": f"{keras_resnet.__version__} ({digest.hexdigest()[:12]})",
    }
