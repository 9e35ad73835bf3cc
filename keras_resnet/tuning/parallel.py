"""A search on several machines: keras-tuner's chief draws trials, and workers train them."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client
from keras_tuner.src.distribute.utils import has_chief_oracle, is_chief_oracle

_POLL = 0.2  # seconds


class LostChiefError(ConnectionError):
    """The chief of a search cannot be reached."""


def is_chief() -> bool:
    """Whether the environment makes this process the chief of a search."""
    return is_chief_oracle()


def is_worker() -> bool:
    """Whether the environment makes this process a worker of a search."""
    return has_chief_oracle() and not is_chief_oracle()


def _address():
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def reach_chief(timeout: float, over) -> bool:
    """Wait for the chief.

    Parameters
    ----------
    timeout : float
        Seconds to wait.
    over : callable
        Says whether the search is over, so that nobody will answer.

    Returns
    -------
    bool
        True if the chief is there, False if the search is over.

    Raises
    ------
    LostChiefError
        If the chief is not there in time.
    """
    oracle_client.TIMEOUT = timeout  # for every call, which would otherwise wait for an hour
    host, port = _address().rsplit(":", 1)
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=_POLL).close()
            return True
        except OSError as error:
            if over():
                return False
            if time.monotonic() > deadline:
                raise LostChiefError(
                    f"KERASTUNER_ORACLE_IP={host!r}, KERASTUNER_ORACLE_PORT={port!r}: no chief of "
                    f"a search answered there within {timeout:g} s. Start it with the same command "
                    "and KERASTUNER_TUNER_ID=chief, or check for a firewall in between."
                ) from error
        time.sleep(_POLL)


@contextlib.contextmanager
def lost_chief_named(timeout: float) -> Iterator[None]:
    """Turn the twenty lines of a gRPC error into one."""
    try:
        yield
    except grpc.RpcError as error:
        raise LostChiefError(
            f"the chief of the search at {_address()} has not answered for {timeout:g} s: "
            f"{error.code().name}. Start it again with the same command, and then this worker."
        ) from error


@contextlib.contextmanager
def heard_of(oracle: keras_tuner.Oracle, trial_id: str, timeout: float) -> Iterator[None]:
    """Let the chief know that a worker is alive while it runs a trial.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        The worker's connection to the chief.
    trial_id : str
        The trial.
    timeout : float
        Seconds of silence after which the chief gives up a worker.
    """
    ended = threading.Event()

    def ask():
        while not ended.wait(timeout / 4):
            with contextlib.suppress(grpc.RpcError):  # the end of the trial will raise it
                oracle.get_trial(trial_id)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def serve(oracle: keras_tuner.Oracle, timeout: float, say) -> None:
    """Give trials to workers until there are none left and all workers know it.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        The algorithm that draws them.
    timeout : float
        Seconds of silence after which a worker is given up.
    say : callable
        Called with a message about every worker that is given up.

    Raises
    ------
    ValueError
        If the port is in use.
    LostChiefError
        If no worker asks for a trial in time, or none is left.
    """
    server = grpc.server(futures.ThreadPoolExecutor(8))
    servicer = oracle_chief.OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(
                (os.environ["KERASTUNER_ORACLE_IP"], int(os.environ["KERASTUNER_ORACLE_PORT"]))
            )
        server.add_insecure_port(_address())
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"KERASTUNER_ORACLE_PORT={os.environ['KERASTUNER_ORACLE_PORT']!r}: the chief cannot "
            f"listen at {_address()}: {error}. Choose another port, the same for all workers."
        ) from error
    server.start()
    last = time.monotonic()
    try:
        while not (servicer.stop_triggered and oracle_chief.exit_chief(oracle)):
            time.sleep(_POLL)
            for worker in oracle.give_up(timeout):
                say(
                    f"{worker} has been silent for {timeout:g} s: its trial goes to another worker."
                )
            if oracle.tuner_ids:
                last = time.monotonic()
            elif time.monotonic() - last > timeout:
                raise LostChiefError(
                    f"no worker has asked the chief at {_address()} for a trial for {timeout:g} s. "
                    "Start workers with the same command and KERASTUNER_TUNER_ID=worker0, ..."
                )
    finally:
        server.stop(grace=1).wait()
