"""Progress of long work: reported by the code that does it, and shown to those who ask for it."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TextIO, TypeVar

Item = TypeVar("Item")

_QUIET = 1.0  # seconds before work is worth a bar
_EVERY = 0.25  # seconds between two updates
_WINDOW = 600.0  # at most so many seconds are averaged for the rate

_bars: "_Bars | None" = None


@contextlib.contextmanager
def task(
    title: str, total: float | None = None, unit: str = "images", *, done: float = 0
) -> Iterator[Callable[..., None]]:
    """Report the progress of some work.

    Nothing is shown or counted outside of `shown`.

    Parameters
    ----------
    title : str
        What is being done, such as "Reading".
    total : float, optional
        How much there is to do. Default: unknown.
    unit : str, default "images"
        What is counted.
    done : float, default 0
        How much was done earlier.

    Yields
    ------
    callable
        `advance(count=1, note="", total=None)` counts what has been done. The note is what else to
        show, such as the loss; the total is for work whose amount becomes known only later. It may
        be called from any thread.

    Examples
    --------
    >>> from keras_resnet import progress
    >>> with progress.task("Reading", total=64) as advance:
    ...     advance(32, "the first half")
    ...     advance(32)
    """
    bars = _bars
    if bars is None:
        yield _ignore
        return
    work = _Work(title, total, unit, done)
    bars.begin(work)
    try:
        yield work.advance
    finally:
        bars.end(work)


def tracked(
    items: Iterable[Item], title: str, total: float | None = None, unit: str = "images"
) -> Iterator[Item]:
    """Iterate over items, and report the progress.

    Parameters
    ----------
    items : iterable
        The items. Each counts as done when the next is asked for.
    title, total, unit
        As in `task`. Default for the total: the number of items, if they have one.

    Yields
    ------
    item
        Each item.

    Examples
    --------
    >>> from keras_resnet import progress
    >>> [2 * each for each in progress.tracked([1, 2], "Doubling", unit="numbers")]
    [2, 4]
    """
    with task(title, _length(items) if total is None else total, unit) as advance:
        for item in items:
            yield item
            advance()


def batches(dataset: Iterable[Item], title: str) -> Iterator[Item]:
    """Iterate over batches of (images, labels), and report how many images are done.

    Parameters
    ----------
    dataset : iterable
        The batches.
    title : str
        As in `task`.

    Yields
    ------
    batch
        Each batch.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet import progress
    >>> [len(labels) for images, labels in progress.batches([(np.zeros(4), np.ones(4))], "Looking")]
    [4]
    """
    length, total = _length(dataset), None
    with task(title) as advance:
        for batch in dataset:
            yield batch
            if advance is not _ignore:
                size = _size(batch)
                total = total or (length and length * size)
                advance(size, total=total)


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[None]:
    """Show the progress of all work inside the block, on a terminal or in a notebook.

    Work that takes more than a second gets a bar, with what is done, the rate, the time left and a
    note; work within work gets one below. Bars vanish when the work is done. What is printed in
    the meantime appears above them. Without a terminal or a notebook, nothing is shown.

    Parameters
    ----------
    stream : text file, optional
        The terminal. Default: standard error.

    Examples
    --------
    >>> from keras_resnet import progress
    >>> with progress.shown(), progress.task("Reading", total=1) as advance:
    ...     advance()
    """
    global _bars
    with _console(stream or sys.stderr) if _bars is None else contextlib.nullcontext() as console:
        if console is None:
            yield
            return
        bars = _bars = _Bars(console)
        try:
            with bars.printed_above():
                yield
        finally:
            _bars = None
            bars.close()


def _length(items):
    """How many items there are; None for a generator, or a dataset of unknown length."""
    try:
        return len(items)
    except TypeError:
        return None


def _size(batch):
    """Images in a batch, whose elements may consist of several tensors."""
    while isinstance(batch, tuple | list | Mapping):
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch)


def _ignore(count: float = 1, note: str = "", total: float | None = None) -> None:
    """Do nothing: no progress is shown."""


class _Work:
    """Work in progress."""

    def __init__(self, title, total, unit, done):
        self.title, self.total, self.unit, self.note = title, total, unit, ""
        self.done = self.earlier = done
        self._start, self._lock = time.monotonic(), threading.Lock()

    @property
    def seconds(self) -> float:
        """How long it has been in progress."""
        return time.monotonic() - self._start

    def advance(self, count: float = 1, note: str = "", total: float | None = None) -> None:
        with self._lock:
            self.done += count
            self.note = note or self.note
            self.total = self.total if total is None else total


class _Bars:
    """Bars for all work in progress, drawn by a thread while there is any."""

    def __init__(self, console):
        self.console = console
        self.drawn = False  # whether there are bars on the terminal
        self._open, self._lock = [], threading.Lock()
        self._thread, self._over = None, threading.Event()

    def begin(self, work):
        with self._lock:
            self._open.append(work)
            if self._thread is None:
                self._over.clear()
                self._thread = threading.Thread(target=self._draw, daemon=True)
                self._thread.start()

    def end(self, work):
        with self._lock:
            self._open.remove(work)
            if not self._open:
                self._stop()

    def close(self):
        with self._lock:
            self._stop()

    def _stop(self):
        """Remove the bars before anything else is printed."""
        thread, self._thread = self._thread, None
        self._over.set()
        if thread:
            thread.join()

    def _draw(self):
        """Draw bars until the work is over. Only this thread draws, so no lock is needed."""
        if self._over.wait(_QUIET):
            return
        progress, ids = _progress(self.console), {}
        with contextlib.suppress(OSError), progress:  # a terminal may go away
            self.drawn = True
            try:
                while not self._over.wait(_EVERY):
                    self._update(progress, ids)
                    progress.refresh()
            finally:
                self.drawn = False

    def _update(self, progress, ids):
        """Update the bars to what has been done."""
        there = [work for work in [*self._open] if work.seconds > _QUIET]
        for work in {*ids} - {*there}:
            progress.remove_task(ids.pop(work))
        for work in there:
            if work not in ids:
                ids[work] = progress.add_task(work.title, total=work.total, work=work)
            progress.update(ids[work], completed=work.done, total=work.total)

    @contextlib.contextmanager
    def printed_above(self):
        """Make what is printed to a terminal appear above the bars."""
        with contextlib.ExitStack() as stack:
            for name in ("stdout", "stderr"):
                if _is_terminal(getattr(sys, name)):
                    above = _Above(self, getattr(sys, name))
                    stack.callback(above.flush)
                    stack.enter_context(getattr(contextlib, f"redirect_{name}")(above))
            yield


class _Above:
    """A text file whose lines appear above the bars while there are any."""

    def __init__(self, bars, stream):
        self._bars, self._stream = bars, stream
        self._line, self._lock = "", threading.RLock()  # signal handlers print, too

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            if not self._bars.drawn:
                self._stream.write("\n".join([*lines, self._line]))
                self._line = ""
                return len(text)
            for line in lines:  # of a line that overwrites itself, only the final text
                shown = line.rstrip("\r").rpartition("\r")[2]
                self._bars.console.out(shown, highlight=False)
        return len(text)

    def flush(self):
        if not self._bars.drawn:
            self.write("")
        self._stream.flush()


def _is_terminal(stream):
    try:
        return os.isatty(stream.fileno())
    except (AttributeError, OSError, ValueError):  # none, closed, or a notebook's
        return False


@contextlib.contextmanager
def _console(stream):
    """Where to draw; None if there is neither a terminal nor a notebook."""
    if "ipykernel" in sys.modules and (console := _steady()).is_jupyter:
        yield console
    elif _is_terminal(stream):
        # A duplicate: the original is sometimes redirected, to drop what libraries write to it.
        number = os.dup(stream.fileno())
        with os.fdopen(number, "w", encoding=stream.encoding, errors="replace") as file:
            console = _steady(file)
            yield console if console.is_interactive else None
    else:
        yield None


def _steady(file=None):
    """A console that never hides the cursor, which a killed process could not bring back."""
    from rich.console import Console

    class Steady(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False

    return Steady(file=file)


def _progress(console):
    """Bars with what is done, the rate, the time left and a note."""
    from rich.progress import BarColumn, Progress, ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        """What a function says about a task: names are data, not markup."""

        def __init__(self, words, style=""):
            super().__init__(Column(no_wrap=True, overflow="ellipsis"))
            self.words, self.style = words, style

        def render(self, task):
            return Text(self.words(task), self.style)

    return Progress(
        Words(lambda task: task.description),
        BarColumn(bar_width=None, table_column=Column(max_width=30)),
        Words(_count),
        Words(_rate, "green"),
        Words(_left, "cyan"),
        Words(lambda task: task.fields["work"].note),
        console=console,
        auto_refresh=False,
        speed_estimate_period=_WINDOW,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _count(task):
    """What is done: 32/64 images."""
    work = task.fields["work"]
    if work.total is None:
        return f"{work.done:,.0f} {work.unit}" if work.done else ""
    return f"{work.done:,.0f}/{work.total:,.0f} {work.unit}"


def _speed(task):
    """What is done per second, without the slow first step if there are others."""
    work = task.fields["work"]
    return task.speed or (work.done - work.earlier) / work.seconds


def _rate(task):
    """How fast it goes: 812 images/s, or 95 s each."""
    speed = _speed(task)
    if not speed:
        return ""
    if speed < 1:
        return f"{1 / speed:,.{speed > 0.1:d}f} s each"
    return f"{speed:,.{speed < 10:d}f} {task.fields['work'].unit}/s"


def _left(task):
    """How long it will still take, 0:01:35 left; or has taken, 0:01:35 so far."""
    work, speed = task.fields["work"], _speed(task)
    seconds, word = work.seconds, "so far"
    if work.total and speed:
        seconds, word = max(work.total - work.done, 0) / speed, "left"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} {word}"
