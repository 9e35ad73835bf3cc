"""The processes of a run: which ones there are, and how they meet."""

import json
import os
import re
import socket
import time
from collections.abc import Sequence

import tensorflow as tf

PORT = 12345  # of workers without one in a list of hosts, and of the first Slurm task on a host
_MANY = 1024  # more GPUs than a node has tasks
_PATIENCE = 0.2  # seconds between attempts to reach a process that has not started yet


class LostWorkerError(ConnectionError):
    """Another process of the run has ended or no longer answers."""


def cluster(hosts: Sequence[str] | None = None) -> tuple[list[str], int]:
    """Find the processes of a run, and which of them this is.

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
        If nothing lists them, or the list is malformed.

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
        "strategy 'multiworker': neither hosts nor TF_CONFIG nor Slurm lists the workers. "
        "`keras-resnet launch --workers N -- train ...` starts them on one machine."
    )


def _listed(hosts):
    """Find the processes in a list of hosts."""
    addresses = [host if re.search(r":\d+$", host) else f"{host}:{PORT}" for host in hosts]
    mine = {"localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn()}
    here = [index for index, each in enumerate(addresses) if each.rpartition(":")[0] in mine]
    if len(here) != 1:
        raise ValueError(
            f"hosts={list(hosts)!r} must list this machine once: {socket.gethostname()!r}. Several "
            "processes on one machine need TF_CONFIG; `keras-resnet launch` sets it."
        )
    return addresses, here[0]


def _configured(text):
    """Find the processes in TF_CONFIG."""
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
            f"TF_CONFIG does not list this process: it is {task['type']} {task['index']}, and the "
            f"cluster has {len(addresses)} processes, counted from 0: {', '.join(addresses)}."
        )
    return addresses, index


def _of_slurm():
    """Find the processes of a Slurm job step."""
    try:
        # Slurm decides which GPUs a task sees. Without a number of them TensorFlow runs nvidia-smi,
        # and finds no tasks on nodes without GPUs.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=PORT, gpus_per_node=_MANY, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
    except RuntimeError as error:
        raise ValueError(
            f"strategy 'multiworker' under Slurm: {error} Start it with srun."
        ) from error
    # TensorFlow sorts the nodes by name; Slurm numbers its tasks by nodes in its own order.
    node, task = os.environ.get("SLURMD_NODENAME"), int(os.environ.get("SLURM_LOCALID", 0))
    mine = f"{node}:{PORT + task}"
    return addresses, addresses.index(mine) if mine in addresses else resolver.task_id


def meet(addresses: Sequence[str], index: int, timeout: float) -> None:
    """Wait until all processes have started.

    TensorFlow itself would wait for an hour, ignoring signals, and abort if the port is in use.

    Parameters
    ----------
    addresses : sequence of str
        "name:port" of every process.
    index : int
        Which of them this is.
    timeout : float
        Seconds to wait.

    Raises
    ------
    OSError
        If the port of this process is in use.
    LostWorkerError
        If another process does not start in time.
    """
    port, deadline = int(addresses[index].rpartition(":")[2]), time.monotonic() + timeout
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise OSError(
                f"port {port} of this machine, on which worker {index} ({addresses[index]}) would "
                "listen, is in use. Is another run going on? Choose other ports for all workers."
            ) from error
        listener.listen(len(addresses))
        missing = [address for address in addresses if address != addresses[index]]
        # A process that has reached all others continues; TensorFlow's server answers from then on.
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise LostWorkerError(
                    f"worker {index} ({addresses[index]}) waited {timeout:.0f} s for "
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
