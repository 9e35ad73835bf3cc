"""What pages are made of, as Markup: the macros of macros.html as functions.

Text is shown as it is, whatever stands in it; Markup is taken for HTML.
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
        What stands in it, from top to bottom.
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
    """A paragraph that readers are to see before they trust the page."""
    return macros().note(_joined(sentences))


def heading(words: str) -> "Markup":
    """A heading within a section."""
    return macros().heading(words)


def command(line: str) -> "Markup":
    """A line, or several, that is typed in a shell."""
    return macros().command(line)


def facts(rows: Iterable[tuple[str, Any]]) -> "Markup":
    """Names and what there is to say of each, such as [("Images", 300)]."""
    return macros().facts([*rows])


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    sortable: bool = True,
    style: str = "",
) -> "Markup":
    """A table that is sorted by a click on the head of a column.

    Parameters
    ----------
    columns : sequence of str
        The heads.
    rows : sequence of sequence
        Text, Markup, numbers or `Cell`. A column that begins with a number is set flush right.
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
    """Something drawn, and what is to be said of it."""
    return macros().figure(drawn, caption)


def tiles(pictures: Iterable[tuple["Markup", Any]], *, pairs: bool = False) -> "Markup":
    """Pictures beside each other, and what stands below each.

    Parameters
    ----------
    pictures : iterable of (Markup, str or Markup)
        The pictures; each may be several that belong together.
    pairs : bool, default False
        Whether each is two pictures, which need more room.

    Returns
    -------
    markupsafe.Markup
    """
    return macros().tiles([*pictures], pairs)


def row(*parts: "Markup") -> "Markup":
    """Parts beside each other, where there is room."""
    return macros().row(parts)


def details(summary: str, *parts: "Markup") -> "Markup":
    """Parts that are shown when somebody asks for them."""
    return macros().details(summary, parts)


def _joined(sentences):
    from markupsafe import Markup

    return Markup(" ").join(sentences)  # which leaves Markup as it is
