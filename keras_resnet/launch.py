"""Several processes of one command on one machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from keras_resnet.checks import check_positive

_POLL = 0.1  # seconds
_LAST_WORDS = 5.0  # seconds to wait for what an ended process has said
_MISTAKE = 2  # the code of a command that was given wrong, as it will be again


def launch(
    command: Sequence[str],
    workers: int,
    restarts: int = 0,
    grace: float = 120.0,
    *,
    search: bool = False,
) -> int:
    """Run a command in several processes that find each other through TF_CONFIG.

    Each gets an equal part of the machine's GPUs, or of its CPU's cores. The first is the chief,
    whose output is this process' own; what the others say is marked with their numbers. A SIGTERM
    or an interruption of this process is passed on to all of them.

    Parameters
    ----------
    command : sequence of str
        A program and its arguments.
    workers : int
        Processes.
    restarts : int, default 0
        How many times to start all of them again after one of them has failed, unless it was for a
        mistake in the command, which is what code 2 says.
    grace : float, default 120.0
        Seconds in which the others have to end after one has failed; of a search, after its chief
        has. The other workers of a search go on with the trial of one that has failed.
    search : bool, default False
        They are the workers of a keras-tuner search: it needs one process more, the chief, which
        trains nothing. KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT say so.

    Returns
    -------
    int
        0 if all have ended with 0, else the code of the first one that has not; of a search, its
        chief's.

    Raises
    ------
    ValueError
        For a number out of its range, or fewer GPUs than workers.

    Examples
    --------
    >>> import sys
    >>> from keras_resnet.launch import launch
    >>> launch([sys.executable, "-c", "import os; os.environ['TF_CONFIG']"], workers=2)
    0
    """
    check_positive(workers=workers)
    shares = _shares(workers)
    if search:
        # The chief makes nets to count what they cost, on the GPU of a worker: both are to leave
        # the other some memory.
        first = {**shares[0], "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        shares = [first, first, *shares[1:]]
    asked = threading.Event()
    processes, readers = [], []

    def pass_on(*_):
        asked.set()
        for process in processes:
            process.terminate()

    main = threading.current_thread() is threading.main_thread()
    former = {each: signal.signal(each, pass_on) for each in _SIGNALS} if main else {}
    try:
        for attempt in range(restarts + 1):
            processes[:], readers[:] = _start(command, shares, search)
            if asked.is_set():  # while they were being started
                pass_on()
            code = _wait(processes, grace, search)
            for reader in readers:
                reader.join(_LAST_WORDS)
            if code in (0, _MISTAKE) or asked.is_set() or attempt == restarts:
                return code
            _say(
                f"A worker has ended with code {code}: starting all of them again, "
                f"{restarts - attempt - 1} more times at most."
            )
    finally:
        for process in processes:
            process.kill()
        for each, handler in former.items():
            signal.signal(each, handler)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _shares(workers):
    """What each process is to see of the machine, as variables of its environment."""
    gpus = _gpus()
    if gpus:
        if len(gpus) < workers:
            raise ValueError(
                f"workers={workers}, but there are {len(gpus)} GPUs: a worker needs one at least."
            )
        each = len(gpus) // workers
        return [
            {"CUDA_VISIBLE_DEVICES": ",".join(gpus[index * each : (index + 1) * each])}
            for index in range(workers)
        ]
    # macOS does not say which cores a process may use.
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)
    cores = str(max(1, len(usable) // workers))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return [{name: os.environ.get(name, cores) for name in names}] * workers


def _gpus():
    """The NVIDIA GPUs that this process may use."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in chosen.split(",") if each and each != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    # A line for each, and for the parts of one; or, if there is none, a line that says so.
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index, _ in enumerate(lines)]


def _start(command, shares, search):
    """A process for every share, and the threads that repeat what they say."""
    roles = (_searchers if search else _workers)(len(shares))
    processes, readers = [], []
    for index, (share, role) in enumerate(zip(shares, roles, strict=True)):
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **share, **role},
            stdout=subprocess.PIPE if index else None,
            stderr=subprocess.STDOUT if index else None,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
        )
        if index:
            reader = threading.Thread(target=_repeat, args=(process.stdout, index), daemon=True)
            reader.start()
            readers.append(reader)
        processes.append(process)
    return processes, readers


def _workers(count):
    """Who each process is, for `tf.distribute`."""
    addresses = [f"localhost:{port}" for port in _free_ports(count)]
    for index in range(count):
        task = {"type": "worker", "index": index}
        yield {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}


def _searchers(count):
    """Who each process is, for keras-tuner."""
    (port,) = _free_ports(1)
    for index in range(count):
        yield {
            "KERASTUNER_TUNER_ID": f"worker{index - 1}" if index else "chief",
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        }


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _repeat(lines, index):
    with lines:
        for line in lines:
            print(f"[worker {index}] {line}", end="", file=sys.stderr, flush=True)


def _wait(processes, grace, search):
    """Wait for all; returns the code that says how it went."""
    first, deadline, told = 0, None, set()
    while True:
        codes = [process.poll() for process in processes]
        failed = [index for index, code in enumerate(codes) if code]
        if search:
            # Its chief knows what a lost worker was at, and when no worker is left.
            first = codes[0] or 0
            for index in {*failed} - {0} - told:
                _say(f"[worker {index}] has ended with code {codes[index]}; the others go on.")
                told.add(index)
        else:
            first = first or next((codes[index] for index in failed), 0)
        if None not in codes:
            # What ended a process that a signal has ended, as shells say it.
            return first if first >= 0 else 128 - first
        if first and deadline is None:
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(_POLL)


def _say(line):
    print(line, file=sys.stderr, flush=True)
