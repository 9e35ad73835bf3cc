"""Runs one contender in its own process, one piece of work at a time.

`Process` is the other side: it starts the process and exchanges lines of JSON with it;
`Conversation` does that with any command.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The first call of a turn starts with caches filled by the other process, so it does not count,
# unless it takes longer than this many seconds: then the caches make no difference.
WORTH_COUNTING = 5.0


class Conversation:
    """A running command that answers with lines of JSON; `startup` is its first answer."""

    def __init__(self, command: list[str], folder: Path = ROOT):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed by __exit__
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.startup = self.answer()

    def ask(self, work: str, **options) -> None:
        """Ask for a piece of work; `answer` waits until it is done."""
        print(json.dumps({"work": work, **options}), file=self._process.stdin, flush=True)

    def do(self, work: str, **options) -> dict:
        """Ask for a piece of work, and wait for the answer."""
        self.ask(work, **options)
        return self.answer()

    def answer(self) -> dict:
        """Read an answer, or raise the errors that the process printed."""
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(self._errors.read()[-2000:])
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()
        self._errors.close()


class Process(Conversation):
    """A running contender; `startup` holds the seconds it took to start."""

    def __init__(self, name: str, net: str, precision: str, size: int, folder: Path = ROOT):
        command = [sys.executable, "-m", "benchmarks.worker", name, net, precision, str(size)]
        super().__init__(command, folder)


def answers() -> Callable[..., None]:
    """Return the function that a process answers with; other output goes to standard error."""
    to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda **facts: print(json.dumps(facts), file=to, flush=True)


def do(contender, net, random, saved, work, batch=1, seconds=0.0, folder=None):
    """Do a piece of work once, or repeat it for at least `seconds`."""
    images = random.normal(size=(batch, net.size, net.size, 3)).astype("float32")
    labels = random.integers(0, net.classes, batch)
    arguments = {
        "train": (images, labels),
        "infer": (images,),
        "train_from_files": (folder and Path(folder), batch),
        "build": (),
        "save": (saved,),
        "load": (saved,),
    }[work]
    taken = []
    warm = not seconds
    while not taken or sum(taken) < seconds:
        start = time.perf_counter()
        own_clock = getattr(contender, work)(*arguments)
        time_taken = time.perf_counter() - start
        if warm or time_taken > WORTH_COUNTING:
            taken.append(own_clock if work == "train_from_files" else time_taken)
        warm = True
    return {"seconds": taken, "peak_mebibytes": peak_mebibytes()}


def peak_mebibytes() -> float:
    """Return this process's peak memory; `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def main(name: str, net_name: str, precision: str, size: str) -> None:
    answer = answers()
    start = time.perf_counter()
    from benchmarks.contenders import EVERYONE, NETS

    kind, _, modules = EVERYONE[name]
    net = dataclasses.replace(NETS[net_name], size=int(size))
    for module in modules:
        importlib.import_module(module)
    imported = time.perf_counter()
    contender = kind(net, precision)
    answer(imports=imported - start, build=time.perf_counter() - imported)

    import numpy as np

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            answer(**do(contender, net, random, Path(folder), **json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
