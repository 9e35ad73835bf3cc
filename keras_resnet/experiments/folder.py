"""The folder of an experiment: what it is for, and what its trials have found."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.files import json_text, locked, read_object, write_text

_SETTINGS, _RESULTS, _TRIALS = "experiment.json", "results", "trials"


@dataclass(frozen=True)
class Folder:
    """A folder that belongs to one experiment with one kind of settings.

    Parameters
    ----------
    path : pathlib.Path
        Where it is, or will be.
    default : mapping of str to value
        What settings were that an earlier version did not have.
    """

    path: Path
    default: Mapping[str, Any] = field(default_factory=dict)

    def recorded(self) -> dict[str, Any] | None:
        """What is written down about its experiment, if there is one."""
        file = self.path / _SETTINGS
        if not file.exists():
            return None
        recorded = _read(file, {"experiment": str, "settings": dict})
        if recorded is None:
            raise ValueError(f"{str(file)!r} is damaged: choose another folder, or remove this.")
        return recorded

    def experiment(self) -> dict[str, Any]:
        """What is written down about its experiment; a ValueError if there is none."""
        recorded = self.recorded()
        if recorded is None:
            raise ValueError(f"output {str(self.path)!r} holds no experiment: no {_SETTINGS}.")
        return recorded

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise ValueError if it is for something else: "experiment", "settings", "fingerprint".

        More seeds are more trials; those that are done stay. A fingerprint that is not asked for is
        not compared.
        """
        former, asked = self.recorded(), json.loads(json.dumps(asked))
        if former is None:
            self._check_place()
            return
        if former["experiment"] != asked["experiment"]:
            raise ValueError(
                f"output {str(self.path)!r} holds the experiment {former['experiment']!r}: choose "
                f"another folder for {asked['experiment']!r}."
            )
        settings = {**json.loads(json.dumps(self.default)), **former["settings"]}
        others = [
            f"{key} was {settings[key]!r}, is {value!r}"
            for key, value in asked["settings"].items()
            if settings[key] != value and key != "seeds"
        ]
        if asked.get("fingerprint", was := former.get("fingerprint")) != was:
            others.append(
                f"data was {former['data']!r}, is {asked['data']!r}, or its images differ"
            )
        if others:
            raise ValueError(
                f"output {str(self.path)!r} holds {asked['experiment']!r} with other settings: "
                f"{'; '.join(others)}. Repeat its command to go on, or choose another folder."
            )

    def _check_place(self):
        """Raise ValueError for a folder within that of another experiment."""
        for outer in self.path.absolute().parents:
            if (outer / _SETTINGS).exists():
                raise ValueError(
                    f"output {str(self.path)!r} is within {str(outer)!r}, which holds an "
                    "experiment: choose a folder beside it."
                )

    def record(self, asked: Mapping[str, Any]) -> None:
        """Write down what it is for."""
        former = self.recorded() or {}
        asked = json.loads(json.dumps({**former, **asked}))
        if asked != former:
            write_text(self.path / _SETTINGS, json_text(asked))

    def results(self, trials: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What those of some trials have found that have ended."""
        return {name: found for name in trials if (found := self.result(name)) is not None}

    def result(self, trial: str) -> dict[str, Any] | None:
        """What a trial has found, if it has ended."""
        file = self.path / _RESULTS / f"{trial}.json"
        if not file.exists():
            return None
        found = _read(file, {"seconds": (int, float), "machine": str})
        if found is None:
            raise ValueError(f"{str(file)!r} is damaged: remove it to do this trial again.")
        return found

    def keep(self, trial: str, found: Mapping[str, Any]) -> None:
        """Keep what a trial has found."""
        write_text(self.path / _RESULTS / f"{trial}.json", json_text(found))

    @contextlib.contextmanager
    def at_work_on(self, trial: str) -> Iterator[Path]:
        """Hold a trial, so that no other process does it too; a LockedError if one does.

        Yields a folder that is emptied afterwards, unless something was raised.
        """
        folder = self.path / _TRIALS / trial
        with locked(folder):
            yield folder
            for each in folder.iterdir():
                if each.is_dir():
                    shutil.rmtree(each)
        with contextlib.suppress(OSError):  # unless others are at work there
            folder.rmdir()
            folder.parent.rmdir()


def _read(file, kinds):
    """The dictionary that a file holds; None if its values are of other kinds, or it holds none."""
    try:
        found = read_object(file)
    except ValueError:
        return None
    whole = all(isinstance(found.get(key), kind) for key, kind in kinds.items())
    return found if whole else None
