"""What a run needs to go on where it was interrupted."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from keras_resnet.files import write_text, written_beside

# Not HDF5, whose library crashes where a disk is full.
_PROGRESS, _STATE = "progress.json", "state.safetensors"
_SETTINGS, _BEST = "settings.json", "best.safetensors"
_SPACE = 1.1  # of a checkpoint's numbers in a file

_logger = logging.getLogger(__name__)


class Checkpoints:
    """A folder with the last states of a run, and its best weights.

    A checkpoint appears whole or not at all, so that a run may be killed at any moment.

    Parameters
    ----------
    folder : path
        The folder; made where it is missing.
    settings : mapping of str to JSON value
        What makes the run what it is.
    keep : int, default 3
        Checkpoints to keep.
    others : sequence of keras.Variable, default ()
        What belongs to the state of the run besides the model and its optimizer.

    Raises
    ------
    ValueError
        If the folder holds a run of other settings, naming what differs.

    Examples
    --------
    >>> import tempfile
    >>> import keras
    >>> from keras_resnet.training.checkpoints import Checkpoints
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Checkpoints(folder, {"seed": 1}).save(model, {"epoch": 3})
    ...     Checkpoints(folder, {"seed": 1}).restore(model)
    {'epoch': 3}
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        settings: Mapping,
        keep: int = 3,
        others: Sequence[keras.Variable] = (),
    ):
        self.folder, self.keep, self.others = Path(folder), keep, others
        for stray in self.folder.glob(".*-after-*"):  # of a run that was killed
            shutil.rmtree(stray, ignore_errors=True)
        settings = json.loads(json.dumps(settings))
        file = self.folder / _SETTINGS
        # A run that ended before its first checkpoint, by a mistake perhaps, binds nobody.
        if not file.exists() or next(self.folder.rglob("after-*"), None) is None:
            write_text(file, json.dumps(settings, indent=2) + "\n")
            return
        former = json.loads(file.read_text(encoding="utf-8"))
        differing = [
            f"{name} was {former.get(name)!r}, is {settings.get(name)!r}"
            for name in sorted({*former, *settings})
            if former.get(name) != settings.get(name)
        ]
        if differing:
            raise ValueError(
                f"{str(self.folder)!r} holds an interrupted run of other settings: "
                f"{'; '.join(differing)}. Repeat its command to go on with it, or remove the "
                "folder to begin anew."
            )

    def _all(self):
        """The checkpoints, the newest first."""
        found = [path for path in self.folder.glob("after-*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)

    def check_space(self, model: keras.Model) -> None:
        """Make sure that there is space for the checkpoints of a model.

        Parameters
        ----------
        model : keras.Model
            The model, compiled, its optimizer built.

        Raises
        ------
        OSError
            If there is not.
        """
        size = _SPACE * sum(np.prod(each.shape) * 4 for each in self._state(model))
        # One more than are kept, until it has its name; and as much as all weights for the best.
        needed = size * max(self.keep + 2 - len(self._all()), 1)
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise OSError(
                f"{str(self.folder)!r}: the checkpoints need {needed / 2**20:,.0f} MiB, "
                f"{free / 2**20:,.0f} MiB are free. Make room, or choose another disk."
            )

    def _state(self, model):
        return [*state(model), *self.others]

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint."""
        return next(iter(self._all()), None)

    def save(self, model: keras.Model, progress: Mapping) -> Path:
        """Save the weights of a model, the state of its optimizer, and how far the run is.

        Parameters
        ----------
        model : keras.Model
            The model, compiled.
        progress : mapping of str to JSON value
            What `restore` is to return.

        Returns
        -------
        pathlib.Path
            The checkpoint.
        """
        former = self._all()
        number = int(former[0].name.rpartition("-")[2]) + 1 if former else 1
        path = self.folder / f"after-{number}"
        with written_beside(path) as partial:
            partial.mkdir()
            _write(partial / _STATE, self._state(model))
            (partial / _PROGRESS).write_text(json.dumps(dict(progress)), encoding="utf-8")
            _flush(partial / _STATE, partial / _PROGRESS, partial)
        for old in former[self.keep - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def restore(self, model: keras.Model) -> dict | None:
        """Bring a model and its optimizer back to the newest checkpoint that can be read.

        Parameters
        ----------
        model : keras.Model
            The model, compiled as it was.

        Returns
        -------
        dict or None
            The progress that was saved; None where there is no checkpoint.

        Raises
        ------
        OSError
            If there are some, and none can be read.
        """
        for checkpoint in self._all():
            try:
                return self._restored(model, checkpoint)
            except (OSError, KeyError, ValueError, SafetensorError) as error:
                _logger.warning(
                    "%s cannot be read (%s): going back to the one before.",
                    checkpoint,
                    str(error).partition("\n")[0],
                )
        if (newest := self.newest) is not None:
            raise OSError(
                f"no checkpoint in {str(newest.parent)!r} can be read: remove the folder."
            )
        return None

    def _restored(self, model, checkpoint):
        """Bring a model back to a checkpoint."""
        progress = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
        if not model.optimizer.built:  # one that scales the loss would be built twice
            model.optimizer.build(model.trainable_variables)
        _read(checkpoint / _STATE, self._state(model))
        return progress

    def save_best(self, model: keras.Model) -> None:
        """Save the weights that a model has now as the best so far.

        Parameters
        ----------
        model : keras.Model
            The model.
        """
        with written_beside(self.folder / _BEST) as partial:
            _write(partial, model.weights)
            _flush(partial)

    def restore_best(self, model: keras.Model) -> None:
        """Give a model the best weights.

        Parameters
        ----------
        model : keras.Model
            The model.
        """
        _read(self.folder / _BEST, model.weights)


def state(model: keras.Model) -> list[keras.Variable]:
    """All variables of a run, in the order that every process makes them in.

    Parameters
    ----------
    model : keras.Model
        A model, compiled, its optimizer built.

    Returns
    -------
    list of keras.Variable
    """
    variables = [*model.weights, *random_states(model), *model.optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def _write(path, variables):
    content = {f"{i}": np.array(each.numpy(), order="C") for i, each in enumerate(variables)}
    path.write_bytes(save(content))


def _read(path, variables):
    """Give variables the values of a file, if it has one for each."""
    found = load_file(path)
    shapes = [found[f"{i}"].shape for i in range(len(found))]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"{str(path)!r} is of another model.")
    for index, variable in enumerate(variables):
        variable.assign(found[f"{index}"])


def random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of dropout and the like, which Keras does not count among the weights.

    Parameters
    ----------
    model : keras.Model
        A model.

    Returns
    -------
    list of keras.Variable
    """
    return [variable for variable in model.variables if "seed_generator" in variable.path]


def _flush(*paths):
    """Make sure that what was written is on the disk, before its name is."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
