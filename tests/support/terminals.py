"""Processes on a pseudo-terminal."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OnTerminal:
    """A process whose standard error, and output unless it is piped, is a terminal.

    Parameters
    ----------
    *command : str
        The program and its arguments.
    piped : bool, default False
        Whether standard output is a pipe.
    columns : int, default 120
        Width of the terminal.
    """

    def __init__(self, *command, piped=False, columns=120):
        self.raw, self.output = b"", b""
        self._ours, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(PACKAGE)}
        for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # Linux says so when the other side has gone
            while data := os.read(self._ours, 2**16):
                self.raw += data

    def wait(self, timeout=240):
        """Wait for the end; returns the exit code."""
        try:
            self.output, _ = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        self._reader.join(10)
        os.close(self._ours)
        return self.process.returncode

    @property
    def drawn(self):
        """All lines written to the terminal, without colours and cursor movements."""
        return re.split(r"[\r\n]+", _CONTROL.sub("", self.raw.decode()))

    @property
    def left(self):
        """The lines that are on the terminal in the end."""
        lines, row = [""], 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.raw.decode()):
            if part == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part[0] not in "\x1b\r":
                lines[row] += part
        return [line.rstrip() for line in lines if line.strip()]
