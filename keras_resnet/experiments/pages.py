"""The page of an experiment: Markdown and HTML, in English and in Chinese."""

import csv
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.experiments.experiment import Report
from keras_resnet.files import write_text, written_beside
from keras_resnet.pages import rendered, svg, svg_file

LANGUAGES = {"en": "", "zh": ".zh"}
"""The languages, and what the name of a page has in front of its suffix."""

_CALLED = {"en": "English", "zh": "中文"}
_TAGS = {"en": "en", "zh": "zh-Hans"}

_UNKNOWN = "\N{EN DASH}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# What Markdown would take for marks of its own; "_" only does at the ends of a word.
_MARKS = re.compile(r"[\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_])|^[#+-](?= |$)|^#|(?<=^\d)[.)](?= )")
_HAN, _MARKS_OF_CHINESE = "\u3400-\u9fff", "\u3000-\u303f\uff01-\uff5e"
_CHINESE = _HAN + _MARKS_OF_CHINESE
_CODE, _PLACE_OF_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL), "\ue000"
_WIDE = {ord(each): ord(each) + 0xFEE0 for each in ",;:!?()"}


class _Markdown(str):
    """Text that is Markdown already."""


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
    drawn = {each: svg_file(figure) for each, figure in report.figures.items()}
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
        page = _html(texts[language], language, report.figures)
        write_text(output / f"report{suffix}.html", page)


def write_index(folder: str | os.PathLike, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the index of several experiments.

    Parameters
    ----------
    folder : path
        The folder above theirs. It gets index.md and index.zh.md.
    found : mapping of str to mapping
        The values of those that have been done, by name.
    """
    texts = {
        language: _rendered("index", language, "index", {"found": found}) for language in LANGUAGES
    }
    for language, suffix in LANGUAGES.items():
        write_text(Path(folder) / f"index{suffix}.md", texts[language])


def _markdown(name, language, report, facts):
    """The text of an experiment, with its numbers."""

    def table(name, *headings, words=None):
        return _Markdown(_table(report.tables[name], headings, words or {}))

    def figure(name, caption):
        if name not in report.figures:
            raise KeyError(name)
        caption = _escaped(caption)
        return _Markdown(f"![{caption}]({name}.svg)\n\n*{caption}*")

    facts = {**facts, "command": _Markdown(facts["command"])}
    values = {**report.values, **facts, "table": table, "figure": figure}
    return _rendered(name, language, "report", values)


def _rendered(name, language, file, values):
    """The text of a template, with a link to the other language under its title."""
    text = _environment().get_template(f"{name}.{language}.md").render(values)
    title, text = text.strip().split("\n", 1)
    (other,) = LANGUAGES.keys() - {language}
    link = f"[{_CALLED[other]}]({file}{LANGUAGES[other]}.md)"
    parts = f"{title}\n\n{link}\n\n{text}\n".split("```")  # every other one is code
    parts[::2] = [re.sub(r"\n{3,}", "\n\n", part) for part in parts[::2]]
    text = "```".join(parts)
    return _as_chinese(text) if language == "zh" else text


@functools.cache
def _environment():
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_resnet.experiments", "pages"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,  # a text that is included ends with its paragraph
        finalize=_escaped,
    )
    environment.filters.update(percent=_percent, number=_number)
    return environment


def _escaped(value):
    """Text as Markdown shows it, whatever is in it; what is `_Markdown` stays."""
    if not isinstance(value, str) or isinstance(value, _Markdown):
        return value
    return _MARKS.sub(r"\\\g<0>", " ".join(value.split()))


def _percent(fraction, digits=1):
    """A fraction as a percentage."""
    return _UNKNOWN if fraction is None else f"{round(100 * fraction, digits) + 0.0:.{digits}f}%"


def _number(value):
    """A number as people write it, with three significant digits; other texts as they are."""
    if value is None or value != value:
        return _UNKNOWN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 999.5:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return (
        f"{mantissa} \N{MULTIPLICATION SIGN} 10{str(int(exponent)).translate(_RAISED)}"
        if exponent
        else mantissa
    )


def _table(table, headings, words):
    """A table in Markdown: its headings, and words in its cells, in the language of the page."""
    if len(headings) != len(table.columns):
        raise ValueError(f"{headings} are not as many as {table.columns}.")
    rows = [
        [
            _percent(cell) if column in table.percent else _escaped(_number(words.get(cell, cell)))
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]
    columns = zip(*table.rows, strict=True) if table.rows else [""] * len(headings)
    texts = [any(isinstance(cell, str) for cell in cells) for cells in columns]
    rule = ["---" if each else "---:" for each in texts]
    head = map(_escaped, headings)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _as_chinese(text):
    """Markdown with the punctuation and line breaks of Chinese.

    Texts are typed with a keyboard's commas; and a line break would be shown as a blank. Code
    stays as it is.
    """
    codes = _CODE.findall(text)
    text = _CODE.sub(_PLACE_OF_CODE, text)
    between, marks = r"\([^()\n]*\)", "[,;:!?]"
    text = re.sub(rf"(?<=[{_CHINESE}]){marks} *|{marks} *(?=[{_CHINESE}])", _widened, text)
    text = re.sub(rf"(?<!\])\([^()\n]*[{_CHINESE}][^()\n]*\)", _widened, text)
    text = re.sub(
        rf"(?<=[{_CHINESE}]){between}|(?<![\]A-Za-z0-9]){between}(?=[{_HAN}])", _widened, text
    )
    text = re.sub(rf"(?<=[{_CHINESE}])\n(?=[{_CHINESE}])", "", text)
    text = re.sub(rf"(?<=[{_MARKS_OF_CHINESE}])\n(?=\w)(?!\d+\. )", "", text)
    return re.sub(_PLACE_OF_CODE, lambda _: codes.pop(0), text)


def _widened(found):
    """What was found, its first and last character as wide as a Chinese one."""
    text = found[0].rstrip()
    return text[0].translate(_WIDE) + text[1:-1] + text[1:][-1:].translate(_WIDE)


def _html(markdown, language, figures):
    """A page that needs no other file."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, figure in figures.items():
        body = re.sub(
            rf'<p><img src="{re.escape(name)}\.svg" alt="([^"]*)" />'
            r"</p>\n<p><em>(.*?)</em></p>",
            lambda found, name=name, figure=figure: (
                f'<figure><div class="wide">{svg(figure, Markup(found[1]), name)}</div>'
                f"<figcaption>{found[2]}</figcaption></figure>"
            ),
            body,
        )
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    body = re.sub(r'(<a href="report(?:\.zh)?)\.md"', r'\1.html"', body)
    body = re.sub(r'<a href="(?!https?:|report)[^"]*">(.*?)</a>', r"\1", body)
    (title,) = re.findall(r"<h1>(.*?)</h1>", body)
    title = re.sub("<.*?>", "", title)
    return rendered(
        "document.html", language=_TAGS[language], title=Markup(title), body=Markup(body)
    )
