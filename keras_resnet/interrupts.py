"""Stopping work on request: on Ctrl-C, when a terminal is closed, or for another process."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

_logger = logging.getLogger(__name__)

# The signals that stop a run, and its exit codes. A terminal that is closed sends SIGHUP.
_SIGNALS = {"SIGTERM": 0, "SIGHUP": 0, "SIGINT": 130}


class Interrupted(SystemExit):
    """Work was asked to stop; if it can be continued, its state is saved.

    Parameters
    ----------
    message : str
        How far it got, and how to continue.
    code : int, default 0
        The exit code of the program: 0 on SIGTERM, 130 on Ctrl-C.
    """

    def __init__(self, message: str, code: int = 0):
        super().__init__(code)
        self.message = message

    def __str__(self):
        return self.message


class Termination:
    """A context in which SIGTERM, SIGHUP and Ctrl-C are noticed rather than obeyed.

    A second Ctrl-C is obeyed.

    Parameters
    ----------
    active : bool
        Whether to do anything at all.
    """

    def __init__(self, active: bool):
        # Python lets no other thread handle signals.
        self._active = active and _handles_signals()
        self._former = {}
        self.requested, self.code = False, 0

    def _notice(self, number, _):
        self.requested, self.code = True, _SIGNALS[signal.Signals(number).name]
        if number == signal.SIGINT:
            former = self._former[number]
            signal.signal(number, signal.SIG_DFL if isinstance(former, _EndOfCommand) else former)
            with contextlib.suppress(RuntimeError):  # another message was being written
                _logger.warning("Stopping after this step. Press Ctrl-C again to abort it.")

    def __enter__(self):
        for name in _SIGNALS if self._active else ():
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            # Whoever ignores one, as `nohup` does, wants the run to go on.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._former[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_):
        for number, handler in self._former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def continued(message: str | Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, say how to continue work that keeps its state.

    Parameters
    ----------
    message : str or callable
        What to say, or a function that returns it.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        words = message() if callable(message) else message
        raise Interrupted(f"Interrupted: {words}", _SIGNALS["SIGINT"]) from None


@contextlib.contextmanager
def ends_command() -> Iterator[None]:
    """Let Ctrl-C end a command, and a second Ctrl-C end it at once, whatever it is doing.

    Raises
    ------
    Interrupted
        On Ctrl-C.
    """
    handler = _EndOfCommand()
    # As above, whoever ignores it wants the command to go on.
    ours = _handles_signals() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        # Libraries that are interrupted while imported or called back raise their own errors.
        if not handler.asked and not isinstance(error, KeyboardInterrupt):
            raise
        message = "Interrupted. The same command starts from the beginning."
        raise Interrupted(message, _SIGNALS["SIGINT"]) from None
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _EndOfCommand:
    """What the first Ctrl-C does to a command. The second kills the process, as SIGINT does."""

    asked = False

    def __call__(self, number, frame):
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt


def _handles_signals():
    return threading.current_thread() is threading.main_thread()
