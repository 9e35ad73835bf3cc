"""The parts of pages, as Markup: the macros of macros.html as functions.

Text is escaped and shown as it is; Markup is inserted as HTML.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_resnet.pages.rendering import macros

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Parameters
    ----------
    title : str
        Its heading.
    parts : sequence of markupsafe.Markup
        What is in it, from top to bottom.
    """

    title: str
    parts: Sequence["Markup"]

    @property
    def anchor(self) -> str:
        """The id of its heading."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title).lower().split())


def text(*sentences: "str | Markup", quiet: bool = False) -> "Markup":
    """A paragraph."""
    return macros().text(_joined(sentences), quiet)


def note(*sentences: str) -> "Markup":
    """A highlighted paragraph: what readers need to know before they trust the page."""
    return macros().note(_joined(sentences))


def heading(words: str) -> "Markup":
    """A heading within a section."""
    return macros().heading(words)


def command(line: str) -> "Markup":
    """One or more lines to type in a shell."""
    return macros().command(line)


def facts(rows: Iterable[tuple[str, Any]]) -> "Markup":
    """Names and their values, such as [("Images", 300)]."""
    return macros().facts([*rows])


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    sortable: bool = True,
    style: str = "",
) -> "Markup":
    """A table that a click on a column's heading sorts.

    Parameters
    ----------
    columns : sequence of str
        The headings.
    rows : sequence of sequence
        Text, Markup, numbers or `Cell`. A column that begins with a number is right-aligned.
    sortable : bool, default True
        Whether it can be sorted.
    style : str, optional
        A class of the page's own style sheet.

    Returns
    -------
    markupsafe.Markup
    """
    return macros().table(columns, rows, sortable, style)


def shown(drawn: "Markup", caption: str | None = None) -> "Markup":
    """A drawing, and its caption."""
    return macros().figure(drawn, caption)


def tiles(pictures: Iterable[tuple["Markup", Any]], *, pairs: bool = False) -> "Markup":
    """Pictures side by side, each with a caption.

    Parameters
    ----------
    pictures : iterable of (Markup, str or Markup)
        The pictures and their captions; a picture may be several that belong together.
    pairs : bool, default False
        Whether each is two pictures, which need more room.

    Returns
    -------
    markupsafe.Markup
    """
    return macros().tiles([*pictures], pairs)


def row(*parts: "Markup") -> "Markup":
    """Parts side by side, where there is room."""
    return macros().row(parts)


def details(summary: str, *parts: "Markup") -> "Markup":
    """Parts that are hidden until the summary is clicked."""
    return macros().details(summary, parts)


def _joined(sentences):
    from markupsafe import Markup

    return Markup(" ").join(sentences)  # which leaves Markup as it is
