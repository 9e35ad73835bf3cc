"""What a run shows and logs while it is going on."""

import os
import sys
import time
from collections.abc import Mapping

import keras
import tensorflow as tf


class TensorBoardLog(keras.callbacks.Callback):
    """Write the scalars of every epoch for TensorBoard.

    `keras.callbacks.TensorBoard` needs TensorBoard itself, which no longer comes with TensorFlow.
    Writing its files does not.

    Parameters
    ----------
    folder : path
        Folder for the event files; `tensorboard --logdir` shows them.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet.training.logs import TensorBoardLog
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = TensorBoardLog(folder)
    ...     log.on_epoch_end(0, {"loss": 0.5})
    ...     log.on_train_end()
    ...     len(os.listdir(folder))
    1
    """

    def __init__(self, folder: str | os.PathLike):
        super().__init__()
        self._folder, self._writer = os.fspath(folder), None

    def on_epoch_end(self, epoch, logs=None):  # noqa: D102
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.write(name, tf.constant(value, "float32"), epoch, metadata)
        self._writer.flush()

    def on_train_end(self, logs=None):  # noqa: D102
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Profile(keras.callbacks.Callback):
    """Write a trace of some steps for TensorBoard's profiler.

    Parameters
    ----------
    folder : path
        Folder for the trace.
    first, last : int, default 10, 20
        The steps to trace, counted from the first of this process.
    """

    def __init__(self, folder: str | os.PathLike, first: int = 10, last: int = 20):
        super().__init__()
        self._folder, self._first, self._last = os.fspath(folder), first, last
        self._steps, self._tracing = 0, False

    def on_train_batch_begin(self, batch, logs=None):  # noqa: D102
        self._steps += 1
        if self._steps == self._first:
            tf.profiler.experimental.start(self._folder)
            self._tracing = True

    def on_train_batch_end(self, batch, logs=None):  # noqa: D102
        if self._steps == self._last:
            self.on_train_end()

    def on_train_end(self, logs=None):  # noqa: D102
        if self._tracing:
            tf.profiler.experimental.stop()
            self._tracing = False


class Progress:
    """Show the progress of a run.

    Parameters
    ----------
    verbose : {0, 1, 2}
        0: nothing; 1: a bar for every epoch, with images per second and the time left, and a line
        at its end; 2: only the line.
    epochs, steps : int
        Epochs of the run, steps per epoch.
    """

    def __init__(self, verbose: int, epochs: int, steps: int):
        self._verbose, self._epochs, self._steps = verbose, epochs, steps
        self._bar, self._task = None, None
        self._images, self._seconds, self._steps_done = 0, 0.0, 0
        self._before, self._start = (0, 0.0), 0.0

    @property
    def images_per_second(self) -> float:
        """Training images per second, without the first steps, which are slow, and validation."""
        return self._images / self._seconds if self._seconds else 0.0

    def _rate(self):
        """The same for this epoch alone, as text."""
        images, seconds = self._before
        seconds = self._seconds - seconds
        return f"{(self._images - images) / seconds if seconds else 0.0:,.0f} images/s"

    def begin_epoch(self, epoch: int, step: int) -> None:
        """Begin or continue an epoch.

        Parameters
        ----------
        epoch, step : int
            How many of each are done.
        """
        if self._verbose == 1:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = ["{task.description}", BarColumn(), MofNCompleteColumn()]
            self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn())
            title = f"Epoch {epoch + 1}/{self._epochs}"
            self._task = self._bar.add_task(title, total=self._steps, completed=step, note="")
            self._bar.start()
        self._before, self._start = (self._images, self._seconds), time.perf_counter()

    def step(self, step: int, images: float, logs: Mapping[str, float]) -> None:
        """Count some steps.

        Parameters
        ----------
        step : int
            Steps of this epoch that are done.
        images : int
            Images in these steps.
        logs : mapping of str to float
            What to show.
        """
        now = time.perf_counter()
        if self._steps_done:
            self._images += images
            self._seconds += now - self._start
        self._start, self._steps_done = now, self._steps_done + 1
        if self._bar and self._task is not None:
            note = f"{_shown(logs)}, {self._rate()}"
            self._bar.update(self._task, completed=step, note=note)

    def end_epoch(self, epoch: int = 0, logs: Mapping[str, float] | None = None) -> None:
        """End an epoch, or a run in the middle of one.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.
        logs : mapping of str to float, optional
            What to show. Default: nothing.
        """
        if self._bar:
            self._bar.stop()
            self._bar = None
        if self._verbose and logs:
            print(
                f"Epoch {epoch + 1}/{self._epochs}: {_shown(logs)}, {self._rate()}",
                file=sys.stdout,
                flush=True,
            )


def _shown(logs):
    return ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
