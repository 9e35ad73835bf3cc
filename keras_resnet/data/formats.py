"""What an image file says of itself before it is decoded, read in Python.

`headers` reads the same in a graph, by the same rules: a file, a record of a TFRecord file and a
request to a server with the same bytes become the same pixels.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}
"""The first bytes of the files that TensorFlow decodes."""

LARGEST_IMAGE = 178_956_970  # where Pillow draws the line
"""Pixels above which an image file is refused: a small one must not fill the memory."""

# How far EXIF is looked for. A file of a million empty segments must not take minutes in a graph.
SEARCHED = 2**20  # bytes at the beginning
MOST_PARTS = 1000  # segments or chunks
MOST_FILL = 2**12  # fill bytes (0xFF) that are skipped as one segment
EXIF = b"Exif\0\0"
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # the first bytes of its block, and the byte order after them

ORIENTATION = 0x0112
"""The tag of the orientation."""

TAG = 12
"""Bytes of a tag: its name, type, count and value."""

SHORT, LONG = 3, 4  # types of numbers
_SIZES = {SHORT: "H", LONG: "I"}

_BASELINE_TO_PROGRESSIVE = (0xFFC0, 0xFFC1, 0xFFC2)  # frames that every decoder knows
_APP1, _SCAN, _FILL = 0xFFE1, 0xFFDA, 0xFFFF
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

BITMAP_INFO = 40
"""Bytes of the header of a BMP file; older ones are shorter."""

BITMAP_BITS = (24, 32)
"""Bits per pixel of the BMP files that TensorFlow decodes: fewer are indices into a palette."""


@dataclass(frozen=True)
class Stored:
    """What a file says of its image.

    Parameters
    ----------
    height, width : int
        Size in pixels as stored.
    orientation : int
        EXIF orientation, 1 (upright) to 8.
    pixels : int
        Pixels that decoding takes: in a GIF those of all frames.
    """

    height: int
    width: int
    orientation: int
    pixels: int


def kind_of(file: BinaryIO) -> str | None:
    r"""Tell the format of a file that TensorFlow decodes.

    Parameters
    ----------
    file : binary file
        The file.

    Returns
    -------
    str or None
        A key of `BEGINNINGS`; None for a file that is left to Pillow.

    Examples
    --------
    >>> import io
    >>> from keras_resnet.data.formats import kind_of
    >>> kind_of(io.BytesIO(b"GIF89a")), kind_of(io.BytesIO(b"II*\x00"))
    ('GIF', None)
    """
    beginning = _read(file, 0, 34)
    kind = next((kind for kind, each in BEGINNINGS.items() if beginning.startswith(each)), None)
    return None if kind == "BMP" and not _is_plain_bitmap(beginning) else kind


def stored(file: BinaryIO, kind: str) -> Stored | None:
    """Read the size and the orientation of an image.

    Parameters
    ----------
    file : binary file
        The file.
    kind : str
        What `kind_of` says of it.

    Returns
    -------
    Stored or None
        None if only decoding can tell, or will fail.
    """
    return _STORED[kind](file)


def orientation_in(tiff: bytes) -> int:
    r"""Read the orientation in an EXIF block.

    Parameters
    ----------
    tiff : bytes
        The block, a TIFF structure. Only whole tags of its first directory count.

    Returns
    -------
    int
        1 (upright) to 8; 1 without an orientation that can be read.

    Examples
    --------
    >>> from keras_resnet.data.formats import orientation_in
    >>> tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    >>> orientation_in(b"MM\x00*\x00\x00\x00\x08\x00\x01" + tag)
    6
    >>> orientation_in(b"MM\x00*")
    1
    """
    tiff = tiff.removeprefix(EXIF)
    order = TIFF.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    count = struct.unpack_from(order + "H", tiff, start)[0] if start + 2 <= len(tiff) else 0
    entries = tiff[start + 2 : start + 2 + TAG * count]
    found = []
    for at in range(0, len(entries) - TAG + 1, TAG):
        tag, kind = struct.unpack_from(order + "HH", entries, at)
        if tag == ORIENTATION and kind in _SIZES:
            found += struct.unpack_from(order + _SIZES[kind], entries, at + 8)
    return max((value for value in found if 1 <= value <= 8), default=1)


def _read(file, start, count=-1):
    """Some bytes of a file; fewer at its end."""
    file.seek(start)
    return file.read(count)


def _exif(file, start, length):
    """The orientation in a part of a file."""
    return orientation_in(_read(file, start, max(0, min(start + length, SEARCHED) - start)))


def _segments(file) -> Iterator[tuple[int, int, int]]:
    """Marker, position and length of the segments before the image of a JPEG file."""
    at = 2
    for _ in range(MOST_PARTS):
        head = _read(file, at, 4)
        marker, length = (int.from_bytes(each, "big") for each in (head[:2], head[2:]))
        if marker == _SCAN or marker < 0xFF01:
            return
        if marker == _FILL:
            run = _read(file, at, MOST_FILL)
            at += len(run) - len(run.lstrip(b"\xff")) - 1
        else:
            yield marker, at, 2 + length
            at += 2 + length


def _jpeg(file):
    """The first frame of a JPEG file."""
    size, orientation = None, None
    for marker, at, length in _segments(file):
        if marker == _APP1 and orientation is None and at + 10 <= SEARCHED:
            if _read(file, at + 4, 6) == EXIF:
                orientation = _exif(file, at + 10, length - 10)
        elif 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            frame = _read(file, at + 4, 6)
            common = marker in _BASELINE_TO_PROGRESSIVE and len(frame) == 6
            if size or not common or frame[0] != 8 or frame[5] not in (1, 3, 4):
                return None
            size = struct.unpack(">HH", frame[1:5])
    if size is None:
        return None
    return Stored(*size, orientation or 1, size[0] * size[1])


def _png(file):
    """The first chunks of a PNG file."""
    head = _read(file, 8, 25)
    if len(head) < 25 or head[:8] != b"\0\0\0\rIHDR" or zlib.crc32(head[4:21]) != _big(head[21:]):
        return None
    width, height, depth, colour = struct.unpack(">IIBB", head[8:18])
    if depth not in _PNG_DEPTHS.get(colour, ()):
        return None
    at = 8
    for _ in range(MOST_PARTS):
        head = _read(file, at, 8)
        length, name = _big(head[:4]), head[4:]
        if len(head) < 8 or at + 8 > SEARCHED or name in (b"IDAT", bytes(4)):
            break
        if name == b"eXIf":
            return Stored(height, width, _exif(file, at + 8, length), height * width)
        at += 12 + length
    return Stored(height, width, 1, height * width)


def _gif(file):
    """All frames of a GIF file: TensorFlow's image is as large as the largest."""
    data, frames = _read(file, 0), []
    at = 13 + _palette(data[10:11])
    while (kind := data[at : at + 1]) in (b"!", b",") and kind:
        frame = data[at + 5 : at + 10]
        if kind == b",":
            if len(frame) < 5:
                break
            frames.append(struct.unpack("<HH", frame[:4]))
            at += 11 + _palette(frame[4:])
        else:
            at += 2
        while at < len(data) and data[at]:  # its pieces, of at most 255 bytes
            at += 1 + data[at]
        at += 1
    if not frames:
        return None
    width, height = (max(sides) for sides in zip(*frames, strict=True))
    return Stored(height, width, 1, max(width * height, sum(w * h for w, h in frames)))


def _palette(flags):
    """Bytes of the colour table that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _bitmap(file):
    """The header of a BMP file, in which a negative height means that rows run downwards."""
    width, height = map(abs, struct.unpack("<ii", _read(file, 18, 8)))
    return Stored(height, width, 1, height * width)


def _is_plain_bitmap(beginning):
    """Whether TensorFlow decodes a BMP file: whole colours, not compressed, no old header."""
    if len(beginning) < 34:
        return False
    size, _, _, _, bits, compression = struct.unpack("<IiiHHI", beginning[14:34])
    return size >= BITMAP_INFO and bits in BITMAP_BITS and not compression


def _big(digits):
    """The number that bytes are, the highest first."""
    return int.from_bytes(digits, "big")


_STORED: dict[str, Callable[[BinaryIO], Stored | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bitmap,
}
