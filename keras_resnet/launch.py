"""One command in several processes on one machine."""

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
_LAST_OUTPUT = 5.0  # seconds to wait for the output of a process that has ended
_USAGE_ERROR = 2  # the exit code of a command that was given wrongly, and will be again
_INTERRUPTED = 130  # the exit code of a command that was ended with Ctrl-C
# A terminal that is closed sends SIGHUP, which the workers, in sessions of their own, do not get.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]


def launch(
    command: Sequence[str],
    workers: int,
    restarts: int = 0,
    grace: float = 120.0,
    *,
    search: bool = False,
) -> int:
    """Run a command in several processes that find each other through TF_CONFIG.

    Each gets an equal share of the machine's GPUs, or of its CPU cores. The first is the chief,
    whose output is that of this process; the output of the others is marked with their numbers.
    If this process gets SIGTERM, SIGHUP or Ctrl-C, all of them get SIGTERM.

    Parameters
    ----------
    command : sequence of str
        A program and its arguments.
    workers : int
        Number of processes.
    restarts : int, default 0
        How many times to restart all of them after one has failed. Exit code 2, a mistake in the
        command, is not retried.
    grace : float, default 120.0
        Seconds that the others have to end after one has failed; in a search, after its chief has.
        When another worker of a search fails, the rest carry on with its trial.
    search : bool, default False
        Whether they are the workers of a keras-tuner search, which needs one more process: the
        chief, which trains nothing. KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
        KERASTUNER_ORACLE_PORT tell them so.

    Returns
    -------
    int
        0 if all have ended with 0, else the code of the first that has not; for a search, that of
        its chief. 130 after Ctrl-C, even if all have ended with 0.

    Raises
    ------
    ValueError
        For less than one worker, or fewer GPUs than workers.

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
        # The chief builds models to count what they cost, on the GPU of a worker: each has to leave
        # the other some memory.
        first = {**shares[0], "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        shares = [first, first, *shares[1:]]
    stopped, interrupted = threading.Event(), threading.Event()
    processes, readers = [], []

    def stop(number=None, _=None):
        stopped.set()
        if number == signal.SIGINT:
            interrupted.set()
        for process in processes:
            process.terminate()

    main = threading.current_thread() is threading.main_thread()
    # Whoever ignores one, as `nohup` does, wants the workers to go on.
    heard = [each for each in _SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    handlers = {each: signal.signal(each, stop) for each in heard} if main else {}
    try:
        while True:
            processes[:], readers[:] = _start(command, shares, search)
            if stopped.is_set():  # while they were being started
                stop()
            code = _wait(processes, grace, search)
            for reader in readers:
                reader.join(_LAST_OUTPUT)
            if interrupted.is_set():
                return code or _INTERRUPTED
            if code in (0, _USAGE_ERROR) or stopped.is_set() or restarts < 1:
                return code
            restarts -= 1
            _print(
                f"A worker exited with code {code}: restarting all of them, at most {restarts} "
                "more times."
            )
    finally:
        for process in processes:
            process.kill()
        for each, handler in handlers.items():
            signal.signal(each, handler)


def _shares(workers):
    """What each process may use of the machine, as environment variables."""
    gpus = _gpus()
    if gpus:
        if len(gpus) < workers:
            raise ValueError(
                f"workers={workers}, but there are {len(gpus)} GPUs: each worker needs at least "
                "one."
            )
        each = len(gpus) // workers
        return [
            {"CUDA_VISIBLE_DEVICES": ",".join(gpus[index * each : (index + 1) * each])}
            for index in range(workers)
        ]
    # macOS does not say which cores a process may use.
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    cores = str(max(1, usable // workers))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return [{name: os.environ.get(name, cores) for name in names}] * workers


def _gpus():
    """The NVIDIA GPUs that this process may use."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in chosen.split(",") if each and each != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    # One line for each GPU, and more for its partitions; or a line that says there is none.
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index, _ in enumerate(lines)]


def _start(command, shares, search):
    """Start a process for each share, and the threads that repeat their output."""
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
    """The role of each process, for `tf.distribute`."""
    addresses = [f"localhost:{port}" for port in _free_ports(count)]
    for index in range(count):
        task = {"type": "worker", "index": index}
        yield {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}


def _searchers(count):
    """The role of each process, for keras-tuner."""
    (port,) = _free_ports(1)
    for index in range(count):
        yield {
            "KERASTUNER_TUNER_ID": f"worker{index - 1}" if index else "chief",
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        }


def _free_ports(count):
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _repeat(lines, index):
    """Print the output of a worker, marked with its number."""
    with lines:
        for line in lines:
            print(f"[worker {index}] {line}", end="", file=sys.stderr, flush=True)


def _wait(processes, grace, search):
    """Wait for all of them; return the exit code of the whole."""
    first, deadline, reported = 0, None, set()
    while True:
        codes = [process.poll() for process in processes]
        failed = [index for index, code in enumerate(codes) if code]
        if search:
            # The chief knows the trial of a lost worker, and when there are no workers left.
            first = codes[0] or 0
            for index in {*failed} - {0} - reported:
                _print(f"[worker {index}] exited with code {codes[index]}; the others carry on.")
                reported.add(index)
        else:
            first = first or next((codes[index] for index in failed), 0)
        if None not in codes:
            # A process that a signal has ended: its code as shells give it.
            return first if first >= 0 else 128 - first
        if first and deadline is None:
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(_POLL)


def _print(line):
    print(line, file=sys.stderr, flush=True)
