"""What a run needs to continue where it was interrupted."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from keras_resnet.data.source import why_others
from keras_resnet.files import as_python, read_object, remove_leftovers, write_text, written_beside
from keras_resnet.training.recipes import Recipe

# Not HDF5, whose library crashes where a disk is full.
_PROGRESS, _STATE = "progress.json", "state.safetensors"
_SETTINGS, _BEST = "settings.json", "best.safetensors"
_SPACE = 1.1  # size of a file, in times of its numbers

_logger = logging.getLogger(__name__)


class Checkpoints:
    """A folder with the last states of a run, and its best weights.

    A checkpoint appears whole or not at all, so a run may be killed at any moment.

    Parameters
    ----------
    folder : path
        The folder. Nothing is written to it before `open` or `save`.
    settings : mapping of str to JSON value
        What distinguishes the run from others.
    keep : int, default 3
        Checkpoints to keep.
    others : sequence of keras.Variable, default ()
        What belongs to the state of the run besides the model and its optimizer.

    Examples
    --------
    >>> import tempfile
    >>> import keras
    >>> from keras_resnet.training.checkpoints import Checkpoints
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Checkpoints(folder, {"seed": 1}).save(model, {"epoch": 3})
    ...     Checkpoints(folder, {"seed": 1}).open(model)
    {'epoch': 3}
    """

    persists = True
    """Whether the state outlives the process."""

    def __init__(
        self,
        folder: str | os.PathLike,
        settings: Mapping,
        keep: int = 3,
        others: Sequence[keras.Variable] = (),
    ):
        self.folder, self.settings, self.keep, self.others = Path(folder), settings, keep, others

    def open(self, model: keras.Model) -> dict | None:
        """Prepare the folder for a run, and go back to the newest checkpoint in it.

        Parameters
        ----------
        model : keras.Model
            The model, compiled as it was.

        Returns
        -------
        dict or None
            As `restore` does.

        Raises
        ------
        ValueError
            If the folder holds a run of other settings, naming the differences.
        OSError
            If there is too little space, or none of the checkpoints can be read.
        """
        remove_leftovers(self.folder, "after-*", alone=True)
        bind(self.folder, self.settings)
        self.check_space(model)
        return self.restore(model)

    def _all(self):
        """All checkpoints, newest first."""
        found = [path for path in self.folder.glob("after-*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)

    def check_space(self, model: keras.Model) -> None:
        """Make sure that there is enough space for the checkpoints of a model.

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
        # One more than are kept, until it has its name, and as much again for the best weights.
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
        """The newest checkpoint, if there is one."""
        return next(iter(self._all()), None)

    def save(self, model: keras.Model, progress: Mapping) -> Path:
        """Save the weights of a model, the state of its optimizer, and the progress of the run.

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
        """Restore a model and its optimizer from the newest checkpoint that can be read.

        Parameters
        ----------
        model : keras.Model
            The model, compiled as it was.

        Returns
        -------
        dict or None
            The progress that was saved; None if there is no checkpoint.

        Raises
        ------
        OSError
            If there are some, but none can be read.
        """
        for checkpoint in self._all():
            try:
                return self._restored(model, checkpoint)
            except (OSError, KeyError, ValueError, SafetensorError) as error:
                _logger.warning(
                    "%s cannot be read (%s): trying the one before.",
                    checkpoint,
                    str(error).partition("\n")[0],
                )
        if (newest := self.newest) is not None:
            raise OSError(
                f"no checkpoint in {str(newest.parent)!r} can be read: remove the folder."
            )
        return None

    def _restored(self, model, checkpoint):
        """Restore a model from one checkpoint."""
        progress = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
        if not model.optimizer.built:  # one that scales the loss would be built twice
            model.optimizer.build(model.trainable_variables)
        _read(checkpoint / _STATE, self._state(model))
        return progress

    def save_best(self, model: keras.Model) -> None:
        """Save the current weights of a model as the best so far.

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
        try:
            _read(self.folder / _BEST, model.weights)
        except SafetensorError as error:
            raise ValueError(
                f"{str(self.folder / _BEST)!r} is cut off or damaged: {error}. Remove "
                f"{str(self.folder)!r} to start over."
            ) from error


class BestInMemory:
    """The best weights of a run that saves no checkpoints; otherwise like `Checkpoints`."""

    persists, newest = False, None

    def __init__(self):
        self._weights = None

    def open(self, model: keras.Model) -> None:
        """Find nothing to go back to."""

    def save_best(self, model: keras.Model) -> None:
        """Keep the current weights of a model as the best so far."""
        self._weights = model.get_weights()

    def restore_best(self, model: keras.Model) -> None:
        """Give a model the best weights, if there are any."""
        if self._weights is not None:
            model.set_weights(self._weights)


def bind(folder: str | os.PathLike, settings: Mapping) -> None:
    """Write down what distinguishes the run of a folder, or make sure that it is the same run.

    Parameters
    ----------
    folder : path
        The folder; made where it is missing.
    settings : mapping of str to JSON value
        What distinguishes the run from others.

    Raises
    ------
    ValueError
        If the folder holds checkpoints of a run of other settings, naming the differences.
    """
    folder, settings = Path(folder), json.loads(json.dumps(as_python(settings)))
    former = interrupted(folder)
    if former is None:
        write_text(folder / _SETTINGS, json.dumps(settings, indent=2) + "\n")
        return
    if found := differences(former, settings):
        raise ValueError(
            f"{str(folder)!r} holds an interrupted run with other settings: {'; '.join(found)}. "
            "Repeat its command to continue it, or remove the folder to start over."
        )


def interrupted(folder: str | os.PathLike) -> dict | None:
    """Find the run whose checkpoints a folder holds.

    Parameters
    ----------
    folder : path
        The folder, which need not exist.

    Returns
    -------
    dict or None
        The settings of the run, as `bind` wrote them; None if there is none. A run that ended
        before its first checkpoint, perhaps by mistake, does not count.
    """
    file = Path(folder) / _SETTINGS
    if not file.exists() or next(Path(folder).rglob("after-*"), None) is None:
        return None
    return read_object(file, "Remove it, and the same command continues.")


def differences(former: Mapping, settings: Mapping, images: str = "fingerprint") -> list[str]:
    """Say what has changed between the settings of two runs.

    A field of a recipe that did not exist yet had the value that is the default now.

    Parameters
    ----------
    former, settings : mapping of str to JSON value
        The settings; what one of them does not say is None.
    images : str, default "fingerprint"
        The setting that tells images apart.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from keras_resnet.training.checkpoints import differences
    >>> differences({"seed": 1, "recipe": {"epochs": 2}}, {"seed": 1, "recipe": {"epochs": 3}})
    ['recipe: epochs was 2, is 3']
    """
    former, settings = _flat(former), _flat(settings)
    return [
        f"{name} was {former.get(name)!r}, is {settings.get(name)!r}"
        + (f" ({why_others(former.get(name), settings.get(name))})" if name == images else "")
        for name in sorted({*former, *settings})
        if former.get(name) != settings.get(name)
    ]


def _flat(settings):
    """Settings with the fields of their recipe, if there is one, one by one."""
    found = json.loads(json.dumps(settings))
    if isinstance(fields := found.pop("recipe", None), dict):
        recipe = {**json.loads(json.dumps(asdict(Recipe()))), **fields}
        found.update({f"recipe: {name}": value for name, value in recipe.items()})
    return found


def state(model: keras.Model) -> list[keras.Variable]:
    """All variables of a run, in the same order in every process.

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
    """Assign the values in a file, if there is one for each variable."""
    found = load_file(path)
    shapes = [found[f"{i}"].shape for i in range(len(found))]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"{str(path)!r} belongs to another model.")
    for index, variable in enumerate(variables):
        variable.assign(found[f"{index}"])


def random_states(model: keras.Model) -> list[keras.Variable]:
    """The random states of dropout and the like, which Keras does not count among the weights.

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
    """Make sure that contents reach the disk before their name does."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
