"""What a run needs to go on where it was interrupted."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import keras

from keras_resnet.files import write_text, written_beside

_PROGRESS, _WEIGHTS = "progress.json", "state.weights.h5"
_SETTINGS, _BEST = "settings.json", "best.weights.h5"


class Checkpoints:
    """A folder with the state of a run after its last epochs, and its best weights.

    A checkpoint appears whole or not at all, so that a run may be killed at any moment.

    Parameters
    ----------
    folder : path
        The folder; made where it is missing.
    settings : mapping of str to JSON value
        What makes the run what it is.
    keep : int, default 2
        Checkpoints to keep.

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
    ...     Checkpoints(folder, {"seed": 1}).save(model, {"epoch": 3})
    ...     Checkpoints(folder, {"seed": 1}).restore(model)
    {'epoch': 3}
    """

    def __init__(self, folder: str | os.PathLike, settings: Mapping, keep: int = 2):
        self.folder, self.keep = Path(folder), keep
        settings = json.loads(json.dumps(settings))
        try:
            former = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_text(self.folder / _SETTINGS, json.dumps(settings, indent=2) + "\n")
            return
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

    def save(self, model: keras.Model, progress: Mapping) -> None:
        """Save the weights of a model, the state of its optimizer, and how far the run is.

        Parameters
        ----------
        model : keras.Model
            The model, compiled.
        progress : mapping of str to JSON value
            What `restore` is to return.
        """
        former = self._all()
        number = int(former[0].name.rpartition("-")[2]) + 1 if former else 1
        with written_beside(self.folder / f"after-{number}") as partial:
            partial.mkdir()
            model.save_weights(partial / _WEIGHTS)
            states = [keras.ops.convert_to_numpy(each).tolist() for each in _random_states(model)]
            content = {"progress": dict(progress), "random": states}
            (partial / _PROGRESS).write_text(json.dumps(content), encoding="utf-8")
            _flush(partial / _WEIGHTS, partial / _PROGRESS, partial)
        for old in former[self.keep - 1 :]:
            shutil.rmtree(old, ignore_errors=True)

    def restore(self, model: keras.Model) -> dict | None:
        """Bring a model and its optimizer back to the newest checkpoint.

        Parameters
        ----------
        model : keras.Model
            The model, compiled as it was.

        Returns
        -------
        dict or None
            The progress that was saved; None where there is no checkpoint.
        """
        for checkpoint in self._all()[:1]:
            content = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
            model.optimizer.build(model.trainable_variables)
            model.load_weights(checkpoint / _WEIGHTS)
            for variable, state in zip(_random_states(model), content["random"], strict=True):
                variable.assign(state)
            return content["progress"]
        return None

    def save_best(self, model: keras.Model) -> None:
        """Save the weights that a model has now as the best so far.

        Parameters
        ----------
        model : keras.Model
            The model.
        """
        with written_beside(self.folder / _BEST) as partial:
            model.save_weights(partial)
            _flush(partial)

    def restore_best(self, model: keras.Model) -> None:
        """Give a model the best weights.

        Parameters
        ----------
        model : keras.Model
            The model.
        """
        model.load_weights(self.folder / _BEST, skip_mismatch=False)


def _random_states(model):
    """The states of dropout and the like, which Keras does not count among the weights."""
    return [variable for variable in model.variables if "seed_generator" in variable.path]


def _flush(*paths):
    """Make sure that what was written is on the disk, before its name is."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
