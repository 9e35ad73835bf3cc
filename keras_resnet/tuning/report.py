"""What a search has found, for people to read: a table, a plot and a page."""

import csv
import html
import io
import os
from collections import Counter
from dataclasses import fields
from pathlib import Path

from keras_resnet.files import write_text, written_beside
from keras_resnet.tuning.importance import FEWEST, importance
from keras_resnet.tuning.records import (
    SearchRecord,
    TrialRecord,
    best,
    differing,
    pareto_front,
    short,
)


def table(record: SearchRecord, limit: int = 10) -> tuple[list[str], list[list[str]]]:
    """Put the best trials in a table.

    Parameters
    ----------
    record : SearchRecord
        The search.
    limit : int, default 10
        Rows at most.

    Returns
    -------
    columns : list of str
        Facts, then the choices that are not the same in all completed trials.
    rows : list of list of str
        A trial each, the best first; "" for a choice that is not active.

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
    if limit < 1:
        raise ValueError(f"limit={limit!r} must be 1 or more.")
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
    """Save scores against multiply-adds as one PNG file, with the Pareto front.

    Parameters
    ----------
    path : path
        The file; replaced if it is there.
    record : SearchRecord
        The search. Failed trials are not drawn.
    """
    with written_beside(path) as partial:
        _pareto_figure(record).savefig(partial, dpi=110, format="png")


def _pareto_figure(record):
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

    # A figure of its own, without pyplot, leaves the user's windows and settings alone.
    figure = Figure(figsize=(10, 4.2), layout="tight")
    axis = figure.subplots()
    trials, front = best(record), pareto_front(record)
    if not trials:
        axis.set_axis_off()
        axis.annotate("no trial completed", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return figure
    blocks = sorted({str(trial.values.get("block", "")) for trial in trials})
    colours = dict(zip(blocks, matplotlib.colormaps["tab10"].colors * len(blocks), strict=False))
    line = [trial.macs for trial in front], [trial.score for trial in front]
    axis.plot(*line, color="#57606a", linewidth=1.2, label="Pareto front (trial numbers)")
    for block in filter(None, blocks):
        axis.scatter([], [], color=colours[block], label=f"block: {block}")
    longest = max(trial.epochs for trial in trials)
    for trial in trials:
        axis.scatter(
            trial.macs,
            trial.score,
            s=60 if trial in front else 36,
            color=colours[str(trial.values.get("block", ""))],
            # What was trained for less is paler, so that it is not taken for worse.
            alpha=0.35 + 0.6 * trial.epochs / longest,
            edgecolors="black" if trial in front else "white",
            linewidths=0.8,
            zorder=4 if trial in front else 3,
            gid=f"trial-{trial.number}",
        )
    for trial in front:
        # Better than a point of the front, and cheaper, is nothing: there is room for its label.
        up = record.direction == "max"
        axis.annotate(
            f"{trial.number}",
            (trial.macs, trial.score),
            (-5, 5 if up else -5),
            textcoords="offset points",
            horizontalalignment="right",
            verticalalignment="bottom" if up else "top",
            fontsize=9,
        )
    for text in axis.legend(fontsize=9).get_texts():
        text.set_parse_math(False)  # values are data
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda count, _: _macs(count))
    if "accuracy" in record.objective:
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.margins(0.06, 0.1)
    axis.set_xlabel("multiply-adds for one image (paler: trained for fewer epochs)")
    axis.set_ylabel(record.objective)
    axis.grid(alpha=0.3)
    return figure


def summary(record: SearchRecord) -> str:
    """Say in five to eight lines what a search has found.

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
    mattered = ", ".join(f"{c.name} {c.share:.0%}" for c in found.choices if c.share >= 0.05)
    lines.append(_verdict(found) + (f" Of that: {mattered}." if mattered else ""))
    failures = "; ".join(f"{message} (trial {numbers})" for message, numbers in _failures(record))
    return "\n".join([*lines, *([f"Failed: {failures}"] if failures else [])])


def write_report(folder: str | os.PathLike, record: SearchRecord) -> None:
    """Write `trials.csv`, `pareto.png` and `report.html`, a page that needs no other file.

    Parameters
    ----------
    folder : path
        Where; made where it is missing. Files of an earlier report are replaced.
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
        ("Budget", f"{record.budget or 'none'}, {record.declined:,} nets over it declined"),
        (
            "Trials",
            f"{statuses['completed']} completed, {statuses['failed']} failed, "
            f"in {_duration(record.seconds)}",
        ),
    ]


def _verdict(found):
    if found.explained is None:
        return (
            f"Too few trials to tell which choices mattered: {found.nets} different nets can be "
            f"compared, and it takes {FEWEST}."
        )
    if not found.beyond_chance:
        return (
            "The choices explain nothing beyond chance: a forest of trees predicts the scores of "
            "nets that it has not seen no better than from shuffled choices "
            f"(held-out variance explained: {found.explained:.0%})."
        )
    return (
        f"The choices explain {found.explained:.0%} of the variance of the scores of nets that a "
        f"forest of trees has not seen; shuffled choices, {found.chance:.0%} at most."
    )


def _failures(record):
    """Messages, and the numbers of the trials that failed so."""
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


def _score(record, score):
    return f"{score:.2%}" if "accuracy" in record.objective else f"{score:.4f}"


def _gain(record, gain):
    return f"{100 * gain:+.2f}" if "accuracy" in record.objective else f"{gain:+.4f}"


def _macs(count):
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"


def _duration(seconds):
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


_STYLE = """
@page { size: A4; margin: 11mm }
body { font: 14px/1.4 system-ui, sans-serif; color: #1f2328; max-width: 68em; margin: 1em auto;
  padding: 0 1em }
h1 { font-size: 1.5em; margin: 0 0 .3em }  h2 { font-size: 1.1em; margin: 1em 0 .2em;
  break-after: avoid }
p { margin: .2em 0 }  .quiet, dt { color: #59636e }  svg { width: 100%; height: auto }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1em; margin: 0 }  dd { margin: 0 }
table { border-collapse: collapse; font-size: .85em; width: 100% }  tr { break-inside: avoid }
th, td { padding: .12em .4em; border-bottom: 1px solid #d1d9e0; text-align: left }
th { vertical-align: bottom; font-weight: 600; line-height: 1.1 }
.trials th, .trials td { text-align: right }
.trials th:nth-child(n+8) span { writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 9em; text-align: left }
.choices td { vertical-align: top }  .choices i { font-style: normal }
.choices th, .choices td:nth-child(2), .choices i { white-space: nowrap }
.bar { display: inline-block; height: .7em; background: #0969da; margin-right: .4em;
  print-color-adjust: exact }
@media print { body { font-size: 8pt; margin: 0; padding: 0; max-width: none; line-height: 1.3 }
  svg { height: 64mm }  h2 { margin-top: .7em } }
"""


def _page(record, found):
    trials, title = best(record), html.escape(f"Search for {record.objective}")
    facts = "".join(f"<dt>{key}</dt><dd>{html.escape(fact)}</dd>" for key, fact in _facts(record))
    parts = [f"<h1>{title}</h1>\n<dl>{facts}</dl>"]
    if trials:
        columns, rows = table(record)
        parts += [
            f"<h2>The best net</h2>\n<p>{html.escape(_headline(record, trials[0]))}</p>",
            f"<p>{html.escape(_listed(trials[0]))}</p>",
            f"<h2>The best trials</h2>\n{_html_table('trials', columns, rows)}",
            f"<h2>Score against multiply-adds</h2>\n{_svg(record)}",
            f"<h2>Which choices mattered</h2>\n<p>{html.escape(_verdict(found))}</p>",
        ]
    else:
        parts.append("<p>No trial completed.</p>")
    if found.choices:
        parts.append(_choices_table(record, found))
    if failures := _failures(record):
        parts.append(
            f"<h2>Failed trials</h2>\n{_html_table('failed', ['why', 'trials'], failures)}"
        )
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>{_STYLE}</style>'
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _html_table(style, columns, rows):
    # Names of choices may be broken after an underscore.
    head = (html.escape(column).replace("_", "_<wbr>") for column in columns)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return _markup_table(style, head, lines)


def _markup_table(style, head, lines):
    head = "".join(f"<th><span>{cell}</span></th>" for cell in head)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="{style}">\n{head}\n<tbody>\n{body}\n</tbody>\n</table>'


def _choices_table(record, found):
    lines = []
    for choice in found.choices:
        bar = f'<span class="bar" style="width:{8 * choice.share:.2f}em"></span>{choice.share:.0%}'
        values = " &emsp;".join(
            f"<i><b>{html.escape(marginal.value)}</b> {_score(record, marginal.score)} "
            f"({_gain(record, marginal.gain)}; {marginal.nets})</i>"
            for marginal in choice.marginals
        )
        share = bar if found.beyond_chance else "nothing"
        lines.append(f"<td>{html.escape(choice.name)}</td><td>{share}</td><td>{values}</td>")
    head = ("choice", "part of it", "values: mean score (mean difference from equals; nets)")
    return (
        '<p class="quiet">Each net counts once, after its first round of training; its equals are '
        "all nets of as many epochs. Where no choice matters, 1 search in 20 still shows some."
        f"</p>\n{_markup_table('choices', head, lines)}"
    )


def _svg(record):
    """The Pareto plot as an element of a page, with a tooltip on each point."""
    import matplotlib

    file = io.StringIO()
    # Text as text, and the same page for the same record.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pareto"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        _pareto_figure(record).savefig(file, format="svg", metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", '<svg role="img"', 1)
    for trial in best(record):
        tip = html.escape(f"{_headline(record, trial)}: {_listed(trial)}")
        mark = f'<g id="trial-{trial.number}">'
        svg = svg.replace(mark, f"{mark}<title>{tip}</title>")
    return svg
