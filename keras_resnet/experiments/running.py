"""Running an experiment: one trial after the other, each kept, and a page at the end."""

import contextlib
import json
import logging
import os
import shlex
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet import machine, progress
from keras_resnet.data import Source
from keras_resnet.experiments import pages
from keras_resnet.experiments.experiment import Context, Results
from keras_resnet.experiments.folder import Folder
from keras_resnet.experiments.table import EXPERIMENTS, find
from keras_resnet.experiments.trainings import TrainingSettings
from keras_resnet.files import LockedError
from keras_resnet.interrupts import continued

_logger = logging.getLogger(__name__)


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
        Trials that other processes are still working on. If there are none, the page is there.
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
        Images, or what loads them. Without any, an experiment that needs some can only write its
        page again.
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
        On Ctrl-C, or if a training was asked to stop; the same call continues.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import experiments
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = experiments.run("gradients", folder, depths=(2, 4), width=20, seeds=2)
    >>> record.missing
    ()
    """
    experiment = find(name)
    folder = Folder(Path(output), experiment.settings().recorded())
    settings = experiment.chosen(changes, full)
    trials = experiment.trials(settings)
    asked = {"experiment": experiment.name, "settings": settings.recorded()}
    folder.check(asked)
    images = None
    if not experiment.takes_data:
        if source is not None:
            _logger.warning("%s needs no images: the data are not used.", experiment.name)
    elif source is not None or len(folder.results(_names(trials))) < len(trials):
        images = _images(experiment, source, settings)
        asked |= {"data": images.name, "fingerprint": images.fingerprint()}
        folder.check(asked)
    if folder.recorded() is None:
        folder.record(asked)
    with continued(lambda: _how_far(folder, trials)):
        _work(folder, asked, trials, settings, images, verbose)
        return _reported(folder, experiment, settings)


def rebuild(output: str | os.PathLike) -> ExperimentRecord:
    """Write the page of a folder again, from the results that are there.

    Parameters
    ----------
    output : path
        The folder of an experiment.

    Returns
    -------
    ExperimentRecord
        With `missing`, and without a page, if trials have not been done.

    Raises
    ------
    ValueError
        If the folder holds no experiment, or a damaged one.
    """
    folder = Folder(Path(output))
    recorded = folder.experiment()
    experiment = find(recorded["experiment"])
    return _reported(folder, experiment, experiment.chosen(recorded["settings"]))


def index(folder: str | os.PathLike) -> dict[str, ExperimentRecord]:
    """Write the index of all experiments in a folder, and their pages again.

    Parameters
    ----------
    folder : path
        The folder with a folder for each experiment, called as that is. It gets index.md and
        index.zh.md: what the papers claim, and what was found in the experiments that are there.

    Returns
    -------
    dict of str to ExperimentRecord
        The experiments that have been done.
    """
    there = [name for name in EXPERIMENTS if Folder(Path(folder) / name).recorded()]
    records = {name: rebuild(Path(folder) / name) for name in there}
    done = {name: record for name, record in records.items() if not record.missing}
    pages.write_index(folder, {name: record.values for name, record in done.items()})
    return done


def _how_far(folder, trials):
    """How many trials are done, and how to continue."""
    done = len(folder.results(_names(trials)))
    return f"{done} of {len(trials)} trials are done. The same command continues."


def _names(trials):
    return [trial.name for trial in trials]


def _images(experiment, source, settings) -> Source:
    """The images that an experiment asks for, cut to its settings."""
    if source is None:
        raise ValueError(f"{experiment.name} needs images: give data, such as 'tfds:cifar10'.")
    found = source() if callable(source) else source
    if not isinstance(found, Source):
        raise ValueError(
            f"source={found!r} must be a Source, as data.load makes it, or a function."
        )
    return settings.images_of(found) if isinstance(settings, TrainingSettings) else found


def _work(folder, asked, trials, settings, images, verbose):
    """Do trials until all are done, or in the hands of other processes."""
    found, former = folder.results(_names(trials)), None
    _logger.info("%s: %d trials, %d done.", asked["experiment"], len(trials), len(found))
    title, done = asked["experiment"], len(found)
    with progress.task(title, len(trials), "trials", done=done) as advance:
        while len(found) not in (
            former,
            len(trials),
        ):  # another process may have been killed meanwhile
            former = len(found)
            for trial in trials:
                if trial.name in found:
                    continue
                with contextlib.suppress(LockedError), folder.at_work_on(trial.name) as place:
                    advance(0, trial.name)
                    result = folder.result(trial.name)
                    if result is None:
                        result = _done(trial, settings, Context(images, place, verbose))
                        folder.check(asked)  # several that started at once have to agree
                        folder.keep(trial.name, result)
                    found[trial.name] = result
                    advance()
                    _logger.info("%s", _line(trial.name, found, len(trials)))


def _done(trial, settings, context):
    """What a trial finds."""
    start = time.perf_counter()
    with machine.computing_in(machine.PRECISIONS[settings.precision]):
        found = trial.work(context)
    # An interrupted training knows better how long it took.
    return {
        "seconds": time.perf_counter() - start,
        **found,
        "machine": machine.describe(),
    }


def _line(name, found, trials):
    """How far the work is, what the last trial has found, and how long the others will take."""
    numbers = {
        each: value[-1] if isinstance(value, list) and value else value
        for each, value in found[name].items()
        if each != "seconds"
    }
    shown = [
        f"{each.replace('_', ' ')} {value:.3g}"
        for each, value in numbers.items()
        if isinstance(value, float)
    ]
    words = [f"{len(found)} of {trials}, {name}: {', '.join(shown[:4])}".removesuffix(": ")]
    words.append(_duration(found[name]["seconds"]))
    if 1 < len(found) < trials:
        left = statistics.mean(each["seconds"] for each in found.values()) * (trials - len(found))
        words.append(f"about {_duration(left)} left")
    return "; ".join(words)


def _duration(seconds):
    """Seconds as people say it."""
    unit, name = next(
        ((unit, name) for unit, name in ((3600, "h"), (60, "min")) if seconds >= 1.5 * unit),
        (1, "s"),
    )
    number = seconds / unit
    return f"{number:.0f} {name}" if number >= 10 else f"{number:.2g} {name}"


def _reported(folder, experiment, settings):
    """The record, with a page if all trials have ended."""
    trials = _names(experiment.trials(settings))
    found = folder.results(trials)
    missing = tuple(name for name in trials if name not in found)
    values = {}
    if not missing:
        folder.record({"settings": settings.recorded()})
        report = experiment.report(settings, found)
        values = report.values
        facts = {
            "settings": settings.recorded(),
            "data": folder.experiment().get("data"),
            "command": _command(experiment, settings),
            "machines": sorted({result["machine"] for result in found.values()}),
            "seconds": sum(result["seconds"] for result in found.values()),
        }
        pages.write(folder.path, experiment.name, report, facts)
    return ExperimentRecord(
        experiment.name, settings.recorded(), found, missing, values, folder.path
    )


def _command(experiment, settings):
    """What does the same again: from the defaults or the paper's settings, whatever is shorter."""
    words = min(
        (["--full"] * full + _options(settings, experiment.chosen({}, full)) for full in (0, 1)),
        key=len,
    )
    data = ["--data DATA"] * experiment.takes_data
    return " ".join(["keras-resnet experiment", experiment.name, *data, *words, "--output OUTPUT"])


def _options(settings, default):
    """What on the command line makes the settings of the default ones."""
    words = []
    former = default.recorded()
    for name, value in settings.recorded().items():
        if value != former[name]:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            option = f"--{name} " if name in ("epochs", "seeds") else f"--set {name}="
            words.append(option + shlex.quote(text))
    return words
