"""Runs of the command line in processes of their own, to be looked at and killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "keras_resnet.cli"]


class Run:
    """`keras-resnet` in another process.

    Parameters
    ----------
    *arguments : str
        Those of the command line.
    log : path
        Where its standard error goes.
    """

    def __init__(self, *arguments, log):
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,
            )

    def workers(self):
        """Process numbers of the workers by index; the process itself where it has none."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (folder / "environ").read_bytes().decode()
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            index = re.search(r'TF_CONFIG=.*"index": (\d+)', environment)
            if parent == self.process.pid and index and "keras_resnet.cli" in command:
                found[int(index[1])] = int(folder.name)
        return found or {0: self.process.pid}

    def kill(self, worker=0):
        """Kill one of the processes."""
        os.kill(self.workers()[worker], signal.SIGKILL)

    def wait(self, timeout=120):
        """Wait for the end; returns the exit code and, if there is one, the JSON answer."""
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        lines = output.strip().splitlines()
        answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
        return self.process.returncode, answer


def newest(output):
    """The number of the newest checkpoint of a run."""
    names = (path.name for path in (Path(output) / "checkpoints" / "scratch").glob("after-*"))
    return max((int(name.removeprefix("after-")) for name in names), default=0)


def wait_for(condition, timeout=90):
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.05)
