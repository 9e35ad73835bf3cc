"""Lines about what was seen and is not used, and their summary."""

import os
import re
from collections.abc import Iterable

_SHOWN = 5  # lines of each kind that a summary shows
_KINDS = 20  # kinds that it shows
_DAMAGED = re.compile(r"is not an image that can be read|cannot be read")
# A path as Python's repr writes it, then the reason, in which details follow a colon.
_LINE = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[:,]? ?(?P<reason>.*)""", re.DOTALL)


def skipped_line(path: str | os.PathLike, reason: str) -> str:
    """Say why something is not used.

    Parameters
    ----------
    path : path
        What was seen.
    reason : str
        Why it is not used. Details that differ between paths of one kind follow a colon.

    Returns
    -------
    str
        A line for `Source.skipped`.

    Examples
    --------
    >>> from keras_resnet.data.skipped import skipped_line
    >>> skipped_line("pets/.git", "a hidden folder: 12 files")
    "'pets/.git': a hidden folder: 12 files."
    """
    return f"{os.fspath(path)!r}: {reason}."


def is_damaged(line: str) -> bool:
    """Whether a line of `Source.skipped` is about an image that cannot be read.

    Parameters
    ----------
    line : str
        The line.

    Returns
    -------
    bool
    """
    return bool(_DAMAGED.search(_reason(line)))


def summary(lines: Iterable[str]) -> list[str]:
    """Shorten lines of `Source.skipped` to a few of each kind.

    Parameters
    ----------
    lines : iterable of str
        The lines.

    Returns
    -------
    list of str
        At most about a hundred lines, however many there are.

    Examples
    --------
    >>> from keras_resnet.data.skipped import skipped_line, summary
    >>> summary([skipped_line(f"{number}.txt", "a text") for number in range(100)])[4:]
    ["'4.txt': a text.", 'and 95 more: a text.']
    """
    kinds = {}
    for line in lines:
        kind = "cannot be read." if is_damaged(line) else re.sub(r":.*", ".", _reason(line))
        kinds.setdefault(re.sub(r"\d+", "N", kind), []).append(line)
    shown = []
    for kind, members in [*kinds.items()][:_KINDS]:
        # Showing one more takes no more space than counting it.
        few = members if len(members) <= _SHOWN + 1 else members[:_SHOWN]
        shown += few
        if len(few) < len(members):
            shown.append(f"and {len(members) - len(few):,} more: {kind}")
    others = [line for members in [*kinds.values()][_KINDS:] for line in members]
    return [*shown, f"and {len(others):,} more of other kinds."] if others else shown


def _reason(line):
    """What a line says about its path."""
    match = _LINE.match(line)
    return match["reason"] if match else line
