"""What an experiment is: settings, trials, and a report of what they found."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from keras_resnet import checks, names
from keras_resnet.data import Source
from keras_resnet.files import as_python

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = Mapping[str, Mapping[str, Any]]
"""What each trial found, by its name: numbers, texts and lists that JSON can hold."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be chosen in every experiment; each has a class of its own that adds to it.

    Parameters
    ----------
    seeds : int, default 2
        Repetitions of everything, with the seeds 0, 1, ...

    Raises
    ------
    ValueError
        For fewer than the experiment needs.
    """

    seeds: int = 2
    least_seeds: ClassVar[int] = 1
    precision = "float32"

    def __post_init__(self):
        checks.check_positive(seeds=self.seeds)
        if self.seeds < self.least_seeds:
            raise ValueError(
                f"seeds={self.seeds}: the spread over seeds needs at least {self.least_seeds}."
            )

    def recorded(self) -> dict[str, Any]:
        """What is written down of the settings: what JSON can hold, and of no machine alone.

        Returns
        -------
        dict
            Settings that make the same report.
        """
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """What a trial works with.

    Parameters
    ----------
    source : Source or None
        The images, cut to what the settings ask for; None for experiments without data.
    folder : pathlib.Path
        A folder of its own, such as for checkpoints, until it has ended.
    verbose : {0, 1, 2}
        As in `training.Execution`.
    """

    source: Source | None
    folder: Path
    verbose: int = 0

    @property
    def images(self) -> Source:
        """The images of an experiment that has some."""
        assert self.source is not None
        return self.source


class Trial(NamedTuple):
    """One piece of the work: a model that is trained or measured, with one seed.

    Parameters
    ----------
    name : str
        Names its file of results: lower-case letters, digits, "-", "_" and ".".
    work : callable
        Takes a `Context`, returns what was found.
    """

    name: str
    work: Callable[[Context], dict[str, Any]]


class Table(NamedTuple):
    """A table of a page, and a CSV file.

    Parameters
    ----------
    columns : sequence of str
        Names in the CSV file, such as "training_error"; a page has headings of its own.
    rows : sequence of sequence
        Numbers, texts, and None for what is not known.
    percent : collection of str, default ()
        Columns of fractions that the page shows as percentages.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    percent: Collection[str] = ()


@dataclass(frozen=True)
class Report:
    """What an experiment has found.

    Parameters
    ----------
    values : mapping of str to JSON value
        The numbers that its page speaks of, and that `--json` prints.
    tables : mapping of str to Table
        Each becomes NAME.csv.
    figures : mapping of str to matplotlib.figure.Figure
        Each becomes NAME.svg.
    """

    values: Mapping[str, Any]
    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, "Figure"] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """An experiment: a row of `EXPERIMENTS`.

    Parameters
    ----------
    name : str
        What to call it.
    settings : subclass of Settings
        What can be chosen. The defaults end within twenty minutes on two cores.
    trials : callable
        The trials of some settings, in the order in which they are run.
    report : callable
        Settings and `Results` to a `Report`.
    full : mapping of str to value
        Settings of the paper, for a GPU.
    takes_data : bool, default True
        Whether it needs images.
    """

    name: str
    settings: type[Settings]
    trials: Callable[[Any], Sequence[Trial]]
    report: Callable[[Any, Results], Report]
    full: Mapping[str, Any] = field(default_factory=dict)
    takes_data: bool = True

    def chosen(self, changes: Mapping[str, Any], full: bool = False) -> Any:
        """Make settings of what somebody asks for.

        Parameters
        ----------
        changes : mapping of str to value
            Settings that differ from the defaults; lists become tuples.
        full : bool, default False
            Whether the defaults are the paper's.

        Returns
        -------
        Settings

        Raises
        ------
        ValueError
            For a name that is not one of its settings, or a value out of its range.
        """
        there = [each.name for each in fields(self.settings)]
        given = {
            names.find(f"{self.name}: setting", name, there): _tuples(as_python(value))
            for name, value in changes.items()
        }
        return replace(self.settings(**(self.full if full else {})), **given)


def _tuples(value):
    """A value with tuples for its lists, which the command line and JSON have."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
