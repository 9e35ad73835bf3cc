"""The settings of a run, recorded so that it can be repeated."""

import json
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import machine, training
from keras_resnet.data.splitting import SplitPolicy
from keras_resnet.files import as_python, json_text, read_object, write_text
from keras_resnet.runs.choices import RUN_FILE

_FLAGS = {"synchronized": "sync-bn"}
_OPTIONS = (
    *("task", "model", "weights", "shortcut", "recipe", "epochs", "batch_size", "optimizer"),
    *("learning_rate", "layer_decay", "drop_path", "image_size", "crop", "precision", "dropout"),
    *("loss", "thresholds", "augmentation", "balanced", "cache", "validation", "strategy", "hosts"),
    *("timeout", "synchronized", "steps_per_execution", "save_every", "folds", "profile"),
    *("on_error", "seed"),
)
"""Arguments with an option on the command line; other fields of a recipe are given by --set."""

_UNWRITTEN = ("verbose",)  # does not change the result
_RECIPE = [each.name for each in fields(training.Recipe)]
_DEFAULTS = {
    each.name: each.default
    for options in (training.Execution, SplitPolicy)
    for each in fields(options)
    if each.default is not MISSING
}


def command(source: str | os.PathLike, output: str | os.PathLike, given: Mapping[str, Any]) -> str:
    """The command that trains the same model again.

    Parameters
    ----------
    source, output : str or path
        The data, and the folder of the run.
    given : mapping of str to value
        Other arguments of `train` that differ from its defaults, and `folds`. Fields of `Execution`
        and `SplitPolicy` that have their default values are omitted.

    Returns
    -------
    str
        A line for a shell, or a call in Python if the command line has no option for an argument.
    """
    source, output = os.fspath(source), os.fspath(output)
    given = {name: value for name, value in given.items() if _is_said(name, value)}
    words = ["keras-resnet", "train", "--data", source, "--output", output]
    for name, value in given.items():
        written = _option(name, value)
        if written is None:
            return _call(source, output, given)
        words += written
    return shlex.join(words)


def _is_said(name, value):
    """Whether an argument has to be given to repeat a run."""
    if name in _UNWRITTEN:
        return False
    return value is not None if name not in _DEFAULTS else value != _DEFAULTS[name]


def _option(name: str, value: Any) -> list[str] | None:
    """The words of a command-line option; None if there is none."""
    if name not in _OPTIONS:
        if name not in _RECIPE or is_dataclass(value):
            return None
        written = value if isinstance(value, str) else json.dumps(as_python(value))
        return ["--set", f"{name}={written}"]
    flag = f"--{_FLAGS.get(name, name.replace('_', '-'))}"
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if name == "image_size" and isinstance(value, tuple | list):
        value = "x".join(map(str, value))
    elif name == "hosts" and isinstance(value, tuple | list):
        value = ",".join(value)
    if isinstance(value, str | os.PathLike | int | float):
        return [flag, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
    return None


def _call(source, output, given):
    """The same in Python."""
    job = "cross_validate" if "folds" in given else "train"
    lines = [f"    {source!r},", f"    {output!r},"]
    for name, value in given.items():
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        lines.append(f"    {name}={value!r},")
    return "\n".join(["from keras_resnet import runs", "", f"runs.{job}(", *lines, ")"])


def begun(command: str | None, settings: Mapping[str, Any]) -> dict:
    """What is known about a run when it starts.

    Parameters
    ----------
    command : str or None
        The command that trains the same model again.
    settings : mapping of str to value
        All settings, including defaults.

    Returns
    -------
    dict
        JSON values, for `write_run`; "seconds" is None until the run is finished.
    """
    return {
        "command": command,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "versions": {
            "keras_resnet": keras_resnet.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": machine.describe(),
        "started": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "seconds": None,
    }


def ended(facts: Mapping[str, Any]) -> dict:
    """The same facts for a finished run: "seconds" is how long it took.

    For a run that was interrupted, it is the time since it was resumed.
    """
    took = datetime.now(timezone.utc) - datetime.fromisoformat(facts["started"])
    return {**facts, "seconds": round(took.total_seconds(), 1)}


def write_run(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write run.json."""
    write_text(folder / RUN_FILE, json_text(facts) + "\n")


def read_run(folder: Path) -> dict:
    """Read run.json; empty for a run of an earlier version."""
    file = folder / RUN_FILE
    return read_object(file) if file.is_file() else {}


def _plain(value):
    """A setting as a JSON value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return getattr(value, "__name__", None) or type(value).__name__
