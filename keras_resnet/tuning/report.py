"""What a search has found, for people to read: a table, a plot and a page."""

import csv
import os
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_resnet import pages
from keras_resnet.checks import check_positive
from keras_resnet.files import write_text, written_beside
from keras_resnet.pages import Section, parts
from keras_resnet.tuning.importance import FEWEST, importance
from keras_resnet.tuning.records import (
    SearchRecord,
    TrialRecord,
    best,
    differing,
    pareto_front,
    score_of,
    short,
)


def table(record: SearchRecord, limit: int = 10) -> tuple[list[str], list[list[str]]]:
    """Make a table of the best trials.

    Parameters
    ----------
    record : SearchRecord
        The search.
    limit : int, default 10
        Maximum number of rows.

    Returns
    -------
    columns : list of str
        Facts, then the choices that differ between completed trials.
    rows : list of list of str
        One trial each, the best first; "" for a choice that is not active.

    Raises
    ------
    ValueError
        For a limit below 1.

    Examples
    --------
    >>> from keras_resnet.tuning.report import SearchRecord, TrialRecord, table
    >>> trials = [
    ...     TrialRecord(1, {"depth": 20}, "completed", 0.91, 272_474, 40_813_184, 8, 61.0),
    ...     TrialRecord(2, {"depth": 32}, "completed", 0.92, 466_906, 69_124_736, 8, 95.0),
    ... ]
    >>> columns, rows = table(SearchRecord("val_accuracy", "max", "random", "", 0, 160.0, trials))
    >>> rows[0]
    ['1', '2', '92.00%', '466,906', '69.1 M', '8', '95', '32']
    """
    check_positive(limit=limit)
    trials = best(record)
    names, timed = differing(trials), any(trial.milliseconds is not None for trial in trials)
    columns = ["rank", "trial", "score", "parameters", "multiply-adds", "epochs", "seconds"]
    rows = [
        [
            f"{rank}",
            f"{trial.number}",
            _score(record, trial.score),
            f"{trial.parameters:,}",
            _macs(trial.macs),
            f"{trial.epochs}",
            f"{trial.seconds:,.0f}",
            *([short(trial.milliseconds)] if timed else []),
            *(short(trial.values.get(name)) for name in names),
        ]
        for rank, trial in enumerate(trials[:limit], start=1)
    ]
    return [*columns, *(["ms"] if timed else []), *names], rows


def pareto_plot(path: str | os.PathLike, record: SearchRecord) -> None:
    """Plot scores against multiply-adds, with the Pareto front, into a PNG file.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    record : SearchRecord
        The search. Failed trials are not drawn.
    """
    with written_beside(path) as partial:
        _pareto_figure(record).savefig(partial, dpi=110, format="png")


def _pareto_figure(record):
    with pages.figure(width=10, height=4.2) as (figure, axis):
        if best(record):
            _draw_pareto(axis, record)
        else:
            axis.set_axis_off()
            axis.annotate("no trial completed", (0.5, 0.5), xycoords="axes fraction", ha="center")
    return figure


def _draw_pareto(axis, record):
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

    trials, front = best(record), pareto_front(record)
    blocks = sorted({str(trial.values.get("block", "")) for trial in trials})
    colours = dict(zip(blocks, pages.COLOURS[:6] * len(blocks), strict=False))
    axis.plot(
        [trial.macs for trial in front],
        [score_of(trial) for trial in front],
        color="#8a8a8a",
        linewidth=1.2,
        label="Pareto front (trial numbers)",
    )
    for block in filter(None, blocks):
        axis.scatter([], [], color=colours[block], label=f"block: {block}")
    longest = max(trial.epochs for trial in trials)
    for trial in trials:
        axis.scatter(
            trial.macs,
            score_of(trial),
            s=60 if trial in front else 36,
            color=colours[str(trial.values.get("block", ""))],
            # Models trained for fewer epochs are paler, so that they do not look worse.
            alpha=0.35 + 0.6 * trial.epochs / longest,
            edgecolors="black" if trial in front else "none",
            linewidths=0.8,
            zorder=4 if trial in front else 3,
            gid=f"trial-{trial.number}",
        )
    for trial in front:
        # No model is better and cheaper than one of the front, so there is room for a label.
        up = record.direction == "max"
        axis.annotate(
            f"{trial.number}",
            (trial.macs, score_of(trial)),
            (-5, 5 if up else -5),
            textcoords="offset points",
            horizontalalignment="right",
            verticalalignment="bottom" if up else "top",
        )
    for text in axis.legend().get_texts():
        text.set_parse_math(False)  # values are data
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda count, _: _macs(count))
    if _is_percentage(record):
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.margins(0.06, 0.1)
    axis.set_xlabel("multiply-adds for one image (paler: trained for fewer epochs)")
    axis.set_ylabel(record.objective)


def summary(record: SearchRecord) -> str:
    """Summarize in five to eight lines what a search has found.

    Examples
    --------
    >>> from keras_resnet.tuning.report import SearchRecord, TrialRecord, summary
    >>> trials = [TrialRecord(1, {"depth": 20}, "failed", None, 272_474, 40_813_184, 8, 0.0)]
    >>> record = SearchRecord("val_accuracy", "max", "random", "params=3e5", 4, 62.0, trials)
    >>> print(summary(record).splitlines()[2])
    Trials: 0 completed, 1 failed, in 62 s
    """
    trials, found = best(record), importance(record)
    lines = [f"{name}: {fact}" for name, fact in _facts(record)]
    if trials:
        front = ", ".join(
            f"{trial.number} ({_macs(trial.macs)}, {_score(record, trial.score)})"
            for trial in pareto_front(record)
        )
        lines += [
            f"Best: {_headline(record, trials[0])}",
            f"Its values: {_listed(trials[0])}",
            f"Pareto front: {front}",
        ]
    else:
        lines.append("Best: none, no trial completed.")
    mattered = ", ".join(
        f"{choice.name} {choice.share:.0%}" for choice in found.choices if choice.share >= 0.05
    )
    lines.append(_verdict(found) + (f" Of that: {mattered}." if mattered else ""))
    failures = "; ".join(f"{message} (trial {numbers})" for message, numbers in _failures(record))
    return "\n".join([*lines, *([f"Failed: {failures}"] if failures else [])])


def write_report(folder: str | os.PathLike, record: SearchRecord) -> None:
    """Write `trials.csv`, `pareto.png` and `report.html`, a page that needs no other file.

    Parameters
    ----------
    folder : path
        Where to write; made if it is missing. Files of an earlier report are replaced.
    record : SearchRecord
        The search.

    Examples
    --------
    >>> import os, tempfile
    >>> from keras_resnet.tuning.records import SearchRecord, TrialRecord
    >>> from keras_resnet.tuning.report import write_report
    >>> trials = [TrialRecord(1, {"depth": 20}, "completed", 0.9, 272_474, 40_813_184, 8, 61.0)]
    >>> record = SearchRecord("val_accuracy", "max", "random", "params=3e5", 0, 62.0, trials)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(folder, record)
    ...     sorted(os.listdir(folder))
    ['pareto.png', 'report.html', 'trials.csv']
    """
    folder = Path(folder)
    page = _page(record, importance(record))  # before anything is written: it may fail
    facts = [field.name for field in fields(TrialRecord) if field.name not in ("values", "message")]
    names = list(dict.fromkeys(name for trial in record.trials for name in trial.values))
    with (
        written_beside(folder / "trials.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*facts, *names, "message"])
        for trial in record.trials:
            row = [getattr(trial, fact) for fact in facts]
            row += [trial.values.get(name) for name in names]
            writer.writerow([*row, trial.message])
    pareto_plot(folder / "pareto.png", record)
    write_text(folder / "report.html", page)


def _facts(record):
    statuses = Counter(trial.status for trial in record.trials)
    return [
        ("Searched", f"{record.objective} ({record.direction}imum), {record.algorithm}"),
        ("Budget", f"{record.budget or 'none'}, {record.declined:,} models over it declined"),
        (
            "Trials",
            f"{statuses['completed']} completed, {statuses['failed']} failed, "
            f"in {_duration(record.seconds)}",
        ),
    ]


def _verdict(found):
    """Whether the choices mattered, in one sentence."""
    if found.explained is None:
        return (
            f"Too few trials to tell which choices mattered: {found.nets} different models can be "
            f"compared, and at least {FEWEST} are needed."
        )
    if not found.beyond_chance:
        return (
            "No choice mattered more than chance would explain: a random forest predicts the "
            "scores of models that it has not seen no better than shuffled scores (held-out "
            f"variance explained: {found.explained:.0%}; shuffled, {found.chance:.0%} at most)."
        )
    return (
        f"The choices explain {found.explained:.0%} of the variance of scores, as predicted by a "
        f"random forest for models that it has not seen; of shuffled scores, {found.chance:.0%} "
        "at most."
    )


def _failures(record):
    """Messages, and the numbers of the trials that failed with them."""
    trials = {}
    for trial in record.trials:
        if trial.status == "failed":
            message = " ".join(trial.message.split()) or "no message"
            trials.setdefault(message, []).append(f"{trial.number}")
    return [(message, ", ".join(numbers)) for message, numbers in trials.items()]


def _headline(record, trial):
    speed = f", {trial.milliseconds:.3g} ms" if trial.milliseconds is not None else ""
    return (
        f"trial {trial.number}, {record.objective} {_score(record, trial.score)}, "
        f"{trial.parameters:,} parameters, {_macs(trial.macs)} multiply-adds{speed}, "
        f"{trial.epochs} epochs"
    )


def _listed(trial):
    return ", ".join(f"{name}={short(value)}" for name, value in trial.values.items())


def _is_percentage(record):
    return "accuracy" in record.objective


def _score(record, score):
    return f"{score:.2%}" if _is_percentage(record) else f"{score:.4f}"


def _gain(record, gain):
    return f"{100 * gain:+.2f}" if _is_percentage(record) else f"{gain:+.4f}"


def _macs(count):
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"


def _duration(seconds):
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _page(record, found):
    """The page of a search."""
    sections = [_choices(record, found), _failed(record)]
    if trials := best(record):
        headline, chosen = map(parts.text, (_headline(record, trials[0]), _listed(trials[0])))
        sections = [
            Section("The best model", [headline, chosen]),
            Section("The best trials", [parts.table(*_sortable(record))]),
            Section("Score against multiply-adds", [parts.shown(_plot(record))]),
            *sections,
        ]
    lead = [parts.facts(_facts(record))]
    return pages.rendered(
        "sections.html",
        title=f"Search for {record.objective}",
        lead=lead if trials else [*lead, parts.text("No trial completed.")],
        sections=[section for section in sections if section],
    )


def _sortable(record):
    """The table of the best trials, with sort keys."""
    columns, texts = table(record)
    facts, rows = columns[:7], []
    for text, trial in zip(texts, best(record), strict=False):
        found = (trial.score, trial.parameters, trial.macs, trial.epochs, trial.seconds)
        keys: Any = (int(text[0]), trial.number, *found)
        cells = [pages.Cell(*each) for each in zip(text[: len(facts)], keys, strict=True)]
        choices = [
            trial.milliseconds if name == "ms" else trial.values.get(name)
            for name in columns[len(facts) :]
        ]
        rows.append([*cells, *choices])
    return columns, rows


def _choices(record, found):
    """Which choices mattered, and the scores of their values."""
    if not best(record):
        return None
    rows = [
        [
            choice.name,
            pages.percent(choice.share, 0, bar=True) if found.beyond_chance else "nothing",
            _marginals(record, choice),
        ]
        for choice in found.choices
    ]
    shown = [parts.text(_verdict(found))]
    if rows:
        columns = ["choice", "fraction of the explained variance", _OF_VALUES]
        shown += [parts.text(_COMPARED, quiet=True), parts.table(columns, rows)]
    return Section("Which choices mattered", shown)


_OF_VALUES = "values: mean score (mean difference from models trained as long; number of models)"
_COMPARED = (
    "Each model counts once, after its first round of training, and is compared with all models "
    "trained for as many epochs. Even if no choice matters, 1 search in 20 shows one that does."
)


def _marginals(record, choice):
    """The mean score of the models with each value of a choice."""
    from markupsafe import Markup

    return Markup(" \u00b7 ").join(
        Markup("<strong>{}</strong> {} ({}; {})").format(
            each.value, _score(record, each.score), _gain(record, each.gain), each.nets
        )
        for each in choice.marginals
    )


def _failed(record):
    """Why trials failed."""
    failures = _failures(record)
    return failures and Section("Failed trials", [parts.table(["reason", "trials"], failures)])


def _plot(record):
    """The Pareto plot as an element of a page, with a tooltip on every point."""
    from markupsafe import Markup

    picture = pages.svg(_pareto_figure(record), "Score of each trial against its cost", "pareto")
    for trial in best(record):
        mark = Markup('<g id="pareto-trial-{}">').format(trial.number)
        tip = Markup("<title>{}: {}</title>").format(_headline(record, trial), _listed(trial))
        picture = picture.replace(mark, mark + tip)
    return picture
