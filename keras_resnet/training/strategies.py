"""The choice of devices and machines for a run."""

import functools
import os
import re
from collections.abc import Sequence

import tensorflow as tf

from keras_resnet.training.cluster import LostWorkerError, cluster, meet

STRATEGIES = ("auto", "mirrored", "multiworker", "cpu:N", "tpu")
"""The names that `strategy` takes."""


def strategy(
    name: str = "auto", *, hosts: Sequence[str] | None = None, timeout: float = 600.0
) -> tf.distribute.Strategy:
    """Choose the devices of a run.

    Several CPU devices and several machines have to be chosen before TensorFlow computes anything
    in this process.

    Parameters
    ----------
    name : str, default "auto"
        - "auto": all GPUs of this machine if there are several, otherwise its GPU or CPU.
        - "mirrored": all GPUs of this machine; there must be at least one.
        - "multiworker": this process is one of several, on one or more machines, that all run the
          same program. `hosts`, `TF_CONFIG` or Slurm lists them.
        - "cpu:N": N devices on the CPU, for tests.
        - "tpu": a Cloud TPU; if `TPU_NAME` is set, the one with that name.
    hosts : sequence of str, optional
        For "multiworker": names of the machines, or "name:port", the same in every process. One of
        them is this machine; the first is the chief.
    timeout : float, default 600.0
        For "multiworker": seconds to wait for a process that has not started yet or does not
        answer. One that dies is noticed at once, a machine that disappears within half a minute.

    Returns
    -------
    tf.distribute.Strategy

    Raises
    ------
    ValueError
        For an unknown name, devices that do not exist, or a malformed description of the cluster.
    OSError
        If the port of this process is in use.
    LostWorkerError
        If the other processes do not start in time.

    Examples
    --------
    >>> from keras_resnet.training import strategy
    >>> strategy("auto").num_replicas_in_sync
    1
    """
    if hosts is not None and name != "multiworker":
        raise ValueError(f"hosts={hosts!r} is for strategy 'multiworker', not {name!r}.")
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        return _mirrored() if several else tf.distribute.get_strategy()
    if name == "mirrored":
        if not tf.config.list_physical_devices("GPU"):
            raise ValueError(
                "strategy 'mirrored': TensorFlow sees no GPU here; 'cpu:2' needs none."
            )
        return _mirrored()
    if name == "multiworker":
        return _multiworker(cluster(hosts), timeout)
    if name == "tpu":
        return _tpu()
    if match := re.fullmatch(r"cpu:([1-9]\d*)", name):
        return _cpus(int(match[1]))
    raise ValueError(f"strategy {name!r} must be one of {', '.join(map(repr, STRATEGIES))}.")


def _multiworker(found, timeout):
    addresses, index = found
    meet(addresses, index, timeout)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=index
    )
    # By default TensorFlow uses its ring over gRPC, which is slow for GPUs.
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
            f"the workers {', '.join(addresses)} did not connect: {error.message}"
        ) from error


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
                f"process already has {there} CPU device{'s' * (there > 1)}."
            ) from error
    if count == 1:
        return tf.distribute.get_strategy()
    return _mirrored(*(f"CPU:{index}" for index in range(count)))


@functools.cache
def _mirrored(*devices):
    """The strategy for some devices of this process; all GPUs by default.

    TensorFlow numbers the collective operations of every strategy from the same start, so those of
    a second strategy would collide with the first one's.
    """
    return tf.distribute.MirroredStrategy([*devices] or None)
