"""What is in a folder of images, at any depth."""

import os
from dataclasses import dataclass
from pathlib import Path

from keras_resnet.data.formats import BEGINNINGS, TIFF
from keras_resnet.data.images import FORMATS, IMAGE_SUFFIXES
from keras_resnet.data.skipped import skipped_line

# Folders that systems and programs leave behind.
_OF_SYSTEMS = {
    "__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information",
}  # fmt: skip

_RAW = (
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw",
)  # fmt: skip
_UNREAD = (
    ".avif", ".dcm", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jxl", ".pbm",
    ".pgm", ".pnm", ".ppm", ".psd", ".svg", ".tga",
)  # fmt: skip
_USE = f"use {', '.join(FORMATS)}"
# By their suffix: many raw images begin like a TIFF file and hold a thumbnail.
_PICTURES = {
    **dict.fromkeys(_RAW, f"a camera's raw image, which is not read; {_USE}"),
    **dict.fromkeys(_UNREAD, f"an image in a format that is not read; {_USE}"),
}
_BEGINNING = 18  # bytes that tell a format
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes, by the version of the format


@dataclass(frozen=True)
class Tree:
    """Everything in a folder.

    Parameters
    ----------
    images : dict of pathlib.Path to tuple of str
        Files that are images by their suffix or their first bytes, sorted, with the parts of their
        paths below the folder.
    folders : dict of pathlib.Path to tuple of str
        All folders but hidden ones and those of systems.
    pictures : dict of pathlib.Path to tuple of str
        Images in a format that is not read.
    skipped : list of str
        A line for everything else, as in `Source.skipped`, and for the pictures.
    """

    images: dict[Path, tuple[str, ...]]
    folders: dict[Path, tuple[str, ...]]
    pictures: dict[Path, tuple[str, ...]]
    skipped: list[str]


def tree(path: str | os.PathLike) -> Tree:
    """Look through a folder and all folders in it.

    Parameters
    ----------
    path : path
        The folder. Links in it are followed, but not in a circle.

    Returns
    -------
    Tree

    Raises
    ------
    ValueError
        For a folder that may not be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from keras_resnet.data.sources.tree import tree
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "notes.txt").write_text("miaow")
    ...     found = tree(folder)
    >>> len(found.images), len(found.skipped)
    (0, 1)
    """
    images, folders, pictures, skipped = {}, {}, {}, []
    start = Path(path), (), frozenset({os.path.realpath(path)})
    waiting: list[tuple[Path, tuple[str, ...], frozenset[str]]] = [start]
    while waiting:
        folder, parts, above = waiting.pop()
        children = _children(folder)
        if parts and not children:
            skipped.append(skipped_line(folder, "an empty folder"))
        for entry in children:
            child, below = folder / entry.name, (*parts, entry.name)
            if entry.is_dir():
                real = os.path.realpath(child)
                reason = _no_folder(child) or (real in above and "a link to a folder that it is in")
                if not reason:
                    folders[child] = below
                    waiting.append((child, below, above | {real}))
            elif not (reason := _no_image(child, entry)):
                images[child] = below
            elif reason in _PICTURES.values():
                pictures[child] = below
            if reason:
                skipped.append(skipped_line(child, reason))
    images, folders, pictures = (dict(sorted(each.items())) for each in (images, folders, pictures))
    return Tree(images, folders, pictures, skipped)


def _children(folder):
    """What is in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{str(folder)!r} cannot be looked through: {error.strerror}.") from error


def _no_folder(path):
    """Why a folder is not looked through, if so."""
    hidden = path.name.startswith(".")
    if not hidden and path.name.lower() not in _OF_SYSTEMS:
        return None
    count = sum(len(files) for _, _, files in os.walk(path))
    kind = "a hidden folder" if hidden else "a folder of the system"
    return f"{kind}: {count} file{'s' * (count != 1)}"


def _no_image(path, entry):
    """Why a file is not taken for an image, if so."""
    if entry.name.startswith("."):
        return "a hidden file"
    # A link to nothing counts as an image; reading it fails later, with its name.
    if not entry.is_file() and path.exists():
        return "not a file"
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    if suffix in _PICTURES:
        return _PICTURES[suffix]
    return None if _begins_as_image(path) else "not an image, by its suffix and its first bytes"


def _begins_as_image(path):
    """Whether the first bytes of a file are those of an image that is read."""
    try:
        with open(path, "rb") as file:
            start = file.read(_BEGINNING)
    except OSError:
        return False
    bmp_header = int.from_bytes(start[14:18], "little")
    return (
        any(kind != "BMP" and start.startswith(each) for kind, each in BEGINNINGS.items())
        or start.startswith((*TIFF,))
        or (start.startswith(b"RIFF") and start[8:12] == b"WEBP")
        # A text may begin with the two letters of a BMP file.
        or (start.startswith(BEGINNINGS["BMP"]) and bmp_header in _BMP_HEADERS)
    )
