"""The papers' experiments."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from keras_resnet import data, experiments
from keras_resnet.experiments import ExperimentRecord
from keras_resnet.runs.guards import check_writable, job


@job
def experiment(
    name: str,
    output: str | os.PathLike,
    source: str | os.PathLike | data.Source | None = None,
    *,
    full: bool = False,
    settings: Mapping[str, Any] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    verbose: int = 0,
) -> ExperimentRecord:
    """Do an experiment of the papers, as `keras-resnet experiment` does.

    Parameters
    ----------
    name : str
        A key of `experiments.EXPERIMENTS`.
    output : path
        The folder for results and pages.
    source : str, path or Source, optional
        Images of classes, as for `train`. `gradients` and `one-by-one` need none.
    full : bool, default False
        Begin with the paper's settings, for a GPU.
    settings : mapping of str to value, optional
        Settings that are different.
    on_error : {"raise", "skip"}, default "raise"
        What to do about damaged files.
    verbose : {0, 1, 2}, default 0
        What trainings show: nothing, a bar, or a line per epoch.

    Returns
    -------
    ExperimentRecord

    Raises
    ------
    ValueError
        As `experiments.run` and `data.load` do.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = runs.experiment("one-by-one", folder)
    >>> record.name
    'one-by-one'
    """
    check_writable(Path(output))
    if source is None or isinstance(source, data.Source):
        images = source
    else:
        images = partial(data.load, source, on_error=on_error)
    return experiments.run(name, output, images, full=full, verbose=verbose, **(settings or {}))
