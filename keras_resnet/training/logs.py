"""What a run shows and logs while it is going on."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping

import keras
import tensorflow as tf

from keras_resnet import progress


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
        0: nothing; 1: bars for the run and the epoch, with images per second and the time left, and
        a line at the end of every epoch; 2: only the line. Within `keras_resnet.progress.shown`,
        there are bars in any case.
    epochs, steps, batch_size : int
        Epochs of the run, steps per epoch, images per step.
    """

    def __init__(self, verbose: int, epochs: int, steps: int, batch_size: int):
        self._verbose, self._epochs = verbose, epochs
        self._batch_size, self._images_per_epoch = batch_size, steps * batch_size
        self._of_run, self._of_epoch = contextlib.ExitStack(), contextlib.ExitStack()
        self._advance_run, self._advance_epoch = None, None
        self._images, self._seconds, self._steps_done = 0, 0.0, 0
        self._before, self._start, self._of_this_epoch = (0, 0.0), 0.0, 0.0

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
        if self._advance_run is None:
            if self._verbose == 1:
                self._of_run.enter_context(progress.shown(sys.stdout))
            run = progress.task("Training", self._epochs, "epochs", done=epoch)
            self._advance_run = self._of_run.enter_context(run)
        self._of_this_epoch = done = min(step * self._batch_size, self._images_per_epoch)
        title = f"Epoch {epoch + 1}/{self._epochs}"
        self._advance_epoch = self._of_epoch.enter_context(
            progress.task(title, self._images_per_epoch, done=done)
        )
        self._before, self._start = (self._images, self._seconds), time.perf_counter()

    def step(self, images: float, logs: Mapping[str, float]) -> None:
        """Count some steps.

        Parameters
        ----------
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
        self._of_this_epoch += images
        if self._advance_epoch:
            self._advance_epoch(images, _shown(logs))

    def end_epoch(self, epoch: int, logs: Mapping[str, float]) -> None:
        """End an epoch.

        Parameters
        ----------
        epoch : int
            The epoch, from 0.
        logs : mapping of str to float
            What to show.
        """
        self._of_epoch.close()
        self._images_per_epoch = self._of_this_epoch  # the last batch may have been smaller
        if self._advance_run:
            self._advance_run(1, _shown(logs))
        if self._verbose:
            print(
                f"Epoch {epoch + 1}/{self._epochs}: {_shown(logs)}, {self._rate()}",
                file=sys.stdout,
                flush=True,
            )

    def end(self) -> None:
        """End a run, perhaps in the middle of an epoch."""
        self._of_epoch.close()
        self._of_run.close()


def _shown(logs):
    return ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
