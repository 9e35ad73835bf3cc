"""Running an experiment: one trial after the other, each kept, and a page at the end."""

import json
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet import machine
from keras_resnet.data import Source
from keras_resnet.experiments import pages
from keras_resnet.experiments.experiment import Context, Results
from keras_resnet.experiments.table import find
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.files import LockedError, json_text, locked, write_text

_logger = logging.getLogger(__name__)

_SETTINGS, _RESULTS, _TRIALS = "experiment.json", "results", "trials"


@dataclass(frozen=True)
class ExperimentRecord:
    """What `run` has found.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    settings : dict
        How it was done.
    results : mapping
        What each trial found, by its name.
    missing : tuple of str
        Trials that other processes are still working on. Without any, the page is there.
    values : mapping of str to JSON value
        The numbers of the page.
    output : pathlib.Path
        The folder.
    """

    name: str
    settings: dict[str, Any]
    results: Results
    missing: tuple[str, ...]
    values: Mapping[str, Any]
    output: Path

    def to_json(self) -> dict:
        """What `keras-resnet experiment --json` prints."""
        return {
            "experiment": self.name,
            **self.values,
            "missing": list(self.missing),
            "settings": self.settings,
            "output": str(self.output),
        }


def run(
    name: str,
    output: str | os.PathLike,
    source: Source | Callable[[], Source] | None = None,
    *,
    full: bool = False,
    verbose: int = 0,
    **changes: Any,
) -> ExperimentRecord:
    """Do an experiment, or what is left of it, and write its page.

    Every trial is kept in `output` as soon as it has ended, and an interrupted training continues
    where it was. Several processes may share the work in one folder.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.
    output : path
        The folder: report.html, report.md, the same in Chinese, tables, figures and the results
        that they are made from.
    source : Source or callable, optional
        Images, or what loads them; it is called if there is still something to do. `gradients` and
        `one-by-one` need none.
    full : bool, default False
        Begin with the paper's settings, for a GPU, rather than those for two cores.
    verbose : {0, 1, 2}, default 0
        What trainings show, as in `training.Execution`.
    **changes
        Settings that are different, such as `epochs` and `seeds`.

    Returns
    -------
    ExperimentRecord

    Raises
    ------
    ValueError
        For an unknown experiment or setting, a setting out of its range, data that do not fit, or
        an output of another experiment or of other settings.
    Interrupted
        If a training was asked to stop; the same call goes on.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import experiments
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = experiments.run("gradients", folder, depths=(2, 4), width=20, seeds=2)
    >>> record.missing
    ()
    """
    experiment, output = find(name), Path(output)
    settings = experiment.chosen(changes, full)
    trials = experiment.trials(settings)
    recorded = _bound(output, experiment, settings)
    if any(_kept(output, trial.name) is None for trial in trials) and experiment.takes_data:
        source = _images(experiment, source, settings)
        recorded = _bound(output, experiment, settings, source)
    for number, trial in enumerate(trials, start=1):
        if _kept(output, trial.name) is not None:
            continue
        found = _done(output, trial, settings, source, verbose)
        if found is not None:
            _logger.info("%s (%d of %d)%s", trial.name, number, len(trials), _line(found))
    return _reported(output, experiment, settings, recorded)


def rebuild(output: str | os.PathLike) -> ExperimentRecord:
    """Write the page of a folder again, from the results that are there.

    Parameters
    ----------
    output : path
        The folder of an experiment.

    Returns
    -------
    ExperimentRecord

    Raises
    ------
    ValueError
        If the folder holds no experiment.
    """
    output = Path(output)
    recorded = _recorded(output)
    if recorded is None:
        raise ValueError(f"output {str(output)!r} holds no experiment: it has no {_SETTINGS}.")
    experiment = find(recorded["experiment"])
    settings = experiment.chosen(
        {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in recorded["settings"].items()
        }
    )
    return _reported(output, experiment, settings, recorded)


def _reported(output, experiment, settings, recorded):
    """The record, with a page if all trials have ended."""
    trials = [trial.name for trial in experiment.trials(settings)]
    found = {name: kept for name in trials if (kept := _kept(output, name)) is not None}
    missing = tuple(name for name in trials if name not in found)
    values = {}
    if not missing:
        report = experiment.report(settings, found)
        values = report.values
        facts = {
            "settings": settings.recorded(),
            "data": recorded.get("data"),
            "command": _command(experiment, settings),
            "machines": sorted({result["machine"] for result in found.values()}),
            "seconds": sum(result["seconds"] for result in found.values()),
        }
        pages.write(output, experiment.name, report, facts)
    return ExperimentRecord(experiment.name, settings.recorded(), found, missing, values, output)


def _command(experiment, settings):
    """What does the same again."""
    words = ["keras-resnet experiment", experiment.name]
    words += ["--data DATA"] * experiment.takes_data
    for name, value in settings.recorded().items():
        if value != getattr(experiment.settings(), name):
            option = f"--{name} " if name in ("epochs", "seeds") else f"--set {name}="
            words.append(option + shlex.quote(json.dumps(value).replace(" ", "")))
    return " ".join([*words, "--output OUTPUT"])


def _recorded(output):
    """What is written down about the experiment of a folder, if there is one."""
    file = output / _SETTINGS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _bound(output, experiment, settings, source=None):
    """Write down what a folder is for, or make sure that it is for that."""
    asked = json.loads(json.dumps({"experiment": experiment.name, "settings": settings.recorded()}))
    if source is not None:
        asked |= {"data": source.name, "fingerprint": source.fingerprint()}
    former = _recorded(output)
    if former is None or not any((output / _RESULTS).glob("*.json")):
        write_text(output / _SETTINGS, json_text(asked))
        return asked
    if former["experiment"] != experiment.name:
        raise ValueError(
            f"output {str(output)!r} holds the experiment {former['experiment']!r}: choose another "
            f"folder for {experiment.name!r}."
        )
    others = [
        f"{key} was {former['settings'].get(key)!r}, is {value!r}"
        for key, value in asked["settings"].items()
        # More seeds are more trials; those that are done stay.
        if former["settings"].get(key) != value and key != "seeds"
    ]
    if "fingerprint" in former and former["fingerprint"] != asked.get(
        "fingerprint", former["fingerprint"]
    ):
        others.append(f"data was {former['data']!r}, is {asked['data']!r}, or its images changed")
    if others:
        raise ValueError(
            f"output {str(output)!r} holds {experiment.name!r} with other settings: "
            f"{'; '.join(others)}. Repeat its command to go on, or choose another folder."
        )
    recorded = {**former, **asked}
    if recorded != former:
        write_text(output / _SETTINGS, json_text(recorded))
    return recorded


def _images(experiment, source, settings) -> Source:
    """The images that an experiment asks for, cut to its settings."""
    if source is None:
        raise ValueError(f"{experiment.name} needs images: give data, such as 'tfds:cifar10'.")
    found = source if isinstance(source, Source) else source()
    return settings.images_of(found) if isinstance(settings, TrainingSettings) else found


def _kept(output, name):
    """What a trial found, if it has ended."""
    file = output / _RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _done(output, trial, settings, source, verbose):
    """Do a trial and keep what it found; None if another process has it."""
    folder = output / _TRIALS / trial.name
    try:
        with locked(folder):
            if (found := _kept(output, trial.name)) is not None:
                return found
            start = time.perf_counter()
            with machine.computing_in(machine.PRECISIONS[settings.precision]):
                found = trial.work(Context(source, folder, verbose))
            seconds = time.perf_counter() - start  # unless an interrupted training knows better
            found = {"seconds": seconds, **found, "machine": machine.describe()}
            write_text(output / _RESULTS / f"{trial.name}.json", json_text(found))
            for each in folder.iterdir():
                if each.is_dir():
                    shutil.rmtree(each)
    except LockedError:
        return None
    return found


def _line(found):
    """The numbers that a trial found, in a line: the last ones of its lists."""
    last = {
        name: value[-1] if isinstance(value, list) and value else value
        for name, value in found.items()
    }
    shown = [f"{name} {value:.4g}" for name, value in last.items() if isinstance(value, float)]
    return ": " + ", ".join(shown[:6]) if shown else ""
