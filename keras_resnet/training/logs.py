"""What a run writes down while it goes on, for TensorBoard."""

import os

import keras
import tensorflow as tf


class TensorBoardLog(keras.callbacks.Callback):
    """Scalars of every epoch as TensorBoard reads them.

    TensorFlow brings TensorBoard itself no longer along, which `keras.callbacks.TensorBoard` needs;
    to write its files, it is not needed.

    Parameters
    ----------
    folder : path
        Where the event files go; `tensorboard --logdir` shows them.

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
