"""Names the way people type them."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

_MOST = 24  # names in an error


def find(argument: str, name: str, known: Iterable[str], note: str = "") -> str:
    """Find a name in a list; case, "-" and "_" do not matter.

    Parameters
    ----------
    argument : str
        What an error calls the name.
    name : str
        The name as it was typed.
    known : iterable of str
        The known names, at least one.
    note : str, optional
        Follows the list of known names in an error.

    Returns
    -------
    str
        The known name.

    Raises
    ------
    ValueError
        For an unknown name; suggests the nearest.

    Examples
    --------
    >>> from keras_resnet import names
    >>> names.find("model", "resnext50-32x4d", ["ResNet50", "ResNeXt50_32x4d"])
    'ResNeXt50_32x4d'
    >>> names.find("model", "resnet5", ["ResNet50", "ResNeXt50_32x4d"])
    Traceback (most recent call last):
        ...
    ValueError: model 'resnet5' is not known. Did you mean ResNet50? There are ResNet50, ...
    """
    wanted = plain(name) if isinstance(name, str) else repr(name)
    by_plain_name = {plain(each): each for each in known}
    if wanted in by_plain_name:
        return by_plain_name[wanted]
    nearest = [each for each in by_plain_name if each.startswith(wanted)]
    nearest += difflib.get_close_matches(wanted, by_plain_name, n=_MOST, cutoff=0.0)
    there, kind = [*by_plain_name], "There are"
    if len(there) > _MOST:
        there, kind = [*dict.fromkeys(nearest)][:_MOST], f"The nearest of {len(there)} are"
    raise ValueError(
        f"{argument} {name!r} is not known. Did you mean {by_plain_name[nearest[0]]}? {kind} "
        f"{', '.join(by_plain_name[each] for each in there)}{note}."
    )


def some(names: Sequence[str], most: int = 3) -> str:
    """List the first of many names, and count the others.

    Parameters
    ----------
    names : sequence of str
        The names; of a long one, only the beginning is shown.
    most : int, default 3
        Names to list.

    Returns
    -------
    str

    Examples
    --------
    >>> from keras_resnet import names
    >>> names.some(["ant", "bee", "cat", "dog", "emu"])
    'ant, bee, cat and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:80] for name in names[:most]) + more


def plain(name: str) -> str:
    """Strip a name of case, "-", "_" and blanks.

    Parameters
    ----------
    name : str
        The name as it was typed.

    Returns
    -------
    str

    Examples
    --------
    >>> from keras_resnet import names
    >>> names.plain("CIFAR-ResNet_20")
    'cifarresnet20'
    """
    return re.sub(r"[-_\s]", "", name).lower()


def label(text: str) -> str:
    """Spell the name of a class in the one way in which such names are compared.

    Parameters
    ----------
    text : str
        The name as a folder, a table or a file has it.

    Returns
    -------
    str
        In Unicode's composed form (NFC), without blanks around it.

    Examples
    --------
    >>> from keras_resnet import names
    >>> names.label(" cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).strip()
