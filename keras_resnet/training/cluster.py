"""The processes of a run: who they are, and how they meet."""

import json
import os
import re
import socket
import time
from collections.abc import Sequence

import tensorflow as tf

PORT = (
    12345  # of the workers, where a list of hosts names none, and of Slurm's first task on a host
)


_MANY = 1024  # more GPUs than a node has tasks


_PATIENCE = 0.2  # seconds between two looks for a process that has not come yet


class LostWorkerError(ConnectionError):
    """Another process of the run has gone, or does not answer any more."""


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
    >>> from keras_resnet.training.cluster import cluster
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


def meet(addresses, index, timeout):
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
