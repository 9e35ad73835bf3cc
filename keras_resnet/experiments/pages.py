"""The page of an experiment: Markdown and HTML, in English and in Chinese."""

import csv
import functools
import html
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.experiments.experiment import Report
from keras_resnet.experiments.figures import svg
from keras_resnet.files import write_text, written_beside

LANGUAGES = {"en": "", "zh": ".zh"}
"""The languages, and what the name of a page has in front of its suffix."""


def write(output: str | os.PathLike, name: str, report: Report, facts: Mapping[str, Any]) -> None:
    """Write the tables, the figures and the pages of an experiment.

    Parameters
    ----------
    output : path
        The folder. It gets a CSV file of each table, an SVG file of each figure, and report.md,
        report.html, report.zh.md and report.zh.html.
    name : str
        The experiment: its text is pages/NAME.en.md and pages/NAME.zh.md, templates for Jinja.
    report : Report
        What was found.
    facts : mapping
        "settings", "data", "command", "machines" and "seconds", for the text.
    """
    output = Path(output)
    drawn = {each: svg(figure) for each, figure in report.figures.items()}
    texts = {  # before anything is written: one may fail
        language: _markdown(name, language, report, facts) for language in LANGUAGES
    }
    for each, table in report.tables.items():
        with (
            written_beside(output / f"{each}.csv") as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(table.rows)
    for each, text in drawn.items():
        write_text(output / f"{each}.svg", text)
    for language, suffix in LANGUAGES.items():
        write_text(output / f"report{suffix}.md", texts[language])
        write_text(output / f"report{suffix}.html", _html(texts[language], language, drawn))


def _markdown(name, language, report, facts):
    """The text of an experiment, with its numbers."""
    environment = _environment()

    def table(name, *headings):
        return _table(report.tables[name], headings)

    def figure(name, caption):
        if name not in report.figures:
            raise KeyError(name)
        return f"![{caption}]({name}.svg)\n\n*{caption}*"

    text = environment.get_template(f"{name}.{language}.md").render(
        **report.values, **facts, table=table, figure=figure
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@functools.cache
def _environment():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_resnet.experiments", "pages"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=lambda fraction, digits=1: f"{100 * fraction:.{digits}f}%",
        number=_number,
    )
    return environment


def _number(value):
    """A number as people write it."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _table(table, headings):
    """A table in Markdown, under headings in the language of the page."""
    if len(headings) != len(table.columns):
        raise ValueError(f"{headings} are not as many as {table.columns}.")
    rows = [
        [
            f"{100 * cell:.1f}%" if column in table.percent and cell is not None else _number(cell)
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]
    texts = [
        any(isinstance(cell, str) for cell in cells) for cells in zip(*table.rows, strict=True)
    ]
    rule = ["---" if each else "---:" for each in texts]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rule, *rows])


def _html(markdown, language, drawn):
    """A page that needs no other file."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, picture in drawn.items():
        body = re.sub(
            rf'<img src="{re.escape(name)}\.svg" alt="([^"]*)" ?/>',
            lambda found, picture=picture: picture.replace(
                "<svg", f'<svg role="img" aria-label="{found[1]}"', 1
            ),
            body,
        )
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    title = next((line.lstrip("# ") for line in markdown.splitlines() if line.startswith("# ")), "")
    page = _environment().get_template("page.html")
    return page.render(language=language, title=html.escape(title), body=body)
