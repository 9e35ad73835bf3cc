"""The page of a run: its settings, its results, and how far to trust them."""

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_resnet import data, pages
from keras_resnet.files import locked, write_text
from keras_resnet.runs.choices import PAGE_FILE
from keras_resnet.runs.guards import check_files, check_writable, job
from keras_resnet.runs.reporting.facts import Run, check_done, read
from keras_resnet.runs.reporting.sections import lead, sections_of

__all__ = ["ReportRecord", "draw_page", "report"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportRecord:
    """A summary of the page of a run.

    Parameters
    ----------
    run : pathlib.Path
        The folder of the run.
    page : pathlib.Path
        The page.
    task : str
        The task of the run.
    metrics : dict
        The contents of metrics.json, among them the metrics on the test images.
    sections : tuple of str
        The headings of the page.
    lacks : tuple of str
        What the page cannot show, and why, one line each.
    """

    run: Path
    page: Path
    task: str
    metrics: dict[str, Any]
    sections: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def to_json(self) -> dict:
        """What `keras-resnet report --json` prints."""
        return {
            "run": str(self.run),
            "page": str(self.page),
            "bytes": self.page.stat().st_size,
            "task": self.task,
            "calibration": self.metrics.get("calibration"),
            "sections": list(self.sections),
            "lacks": list(self.lacks),
        }


@job
def report(run: str | os.PathLike, output: str | os.PathLike | None = None) -> ReportRecord:
    """Draw the page of a run again, as `keras-resnet report` does.

    `train` draws it when it finishes. The page is drawn from the files in the folder of the run; a
    run of an earlier version has fewer, and its page says what is missing.

    Parameters
    ----------
    run : str or path
        The folder of the run, or the model.keras in it.
    output : str or path, optional
        The page, an HTML file. Default: report.html in the folder.

    Returns
    -------
    ReportRecord

    Raises
    ------
    ValueError
        If the folder is not that of a run, or the run is in progress or was interrupted.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet import runs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = runs.train("digits", folder, model="CIFARResNet8", epochs=1)
    ...     record = runs.report(folder)
    ...     record.page.name, record.sections[0]
    ('report.html', 'Settings')
    """
    folder = Path(run)
    folder = folder.parent if folder.is_file() else folder
    check_done(folder)
    page = folder / PAGE_FILE if output is None else Path(output)
    check_writable(page.parent)
    check_files(page.parent, [page.name])
    within = page.parent.absolute() == folder.absolute()
    with locked(folder) if within else contextlib.nullcontext():
        return _drawn(read(folder), page)


def draw_page(folder: Path, model: Any, source: data.Source) -> ReportRecord | None:
    """Draw the page of a run whose model and data are in memory; only warn if that fails.

    By then the model is trained, tested and exported: its page must not make the run fail.
    """
    try:
        return _drawn(read(folder, model, source), folder / PAGE_FILE)
    except Exception as error:
        log.warning(
            "%s: the model is saved, but its page could not be drawn (%s: %s). "
            "`keras-resnet report %s` tries again.",
            folder,
            type(error).__name__,
            error,
            folder,
        )
        return None


def _drawn(run: Run, page: Path) -> ReportRecord:
    sections = sections_of(run)
    title = f"{run.metrics.get('model', 'A model')} on {run.metrics.get('data', 'its data')}"
    text = pages.rendered("sections.html", title=title, lead=lead(run), sections=sections)
    write_text(page, text)
    titles = tuple(section.title for section in sections)
    return ReportRecord(run.folder, page, run.task, dict(run.metrics), titles, run.lacks)
