"""Image files: their headers, whether they are complete, and their pixels."""

import functools
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import PIL.ImageOps
import tensorflow as tf

from keras_resnet.data import headers
from keras_resnet.data.formats import LARGEST_IMAGE, Stored, kind_of, orientation_in, stored
from keras_resnet.data.readers import cut
from keras_resnet.progress import tracked

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib"),
    *(".gif", ".webp", ".tif", ".tiff"),
)

# The bytes at the end of a complete file, for the formats that have such.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
FORMATS = (*_ENDS, "BMP", "WEBP", "TIFF")
_USE = ", ".join(FORMATS)
_TAIL = 1024  # last bytes that must contain the end: some cameras write more after it

_RATIOS = (1, 2, 4, 8)  # by which a JPEG can be reduced as it is decoded

# Tags of TIFF files; a photometric interpretation; and the sample formats signed and float.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _NOT_FROM_ZERO = 0, {2, 3}

# For every EXIF orientation: whether the upright image is the stored one with rows and columns
# swapped, then turned upside down, then mirrored.
_ORIENTATIONS = np.array(
    [
        (False, False, False),  # not an orientation; some cameras write 0 for "unknown"
        (False, False, False),
        (False, False, True),
        (False, True, True),
        (False, True, False),
        (True, False, False),
        (True, False, True),
        (True, True, True),
        (True, True, False),
    ]
)


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Parameters
    ----------
    format : str
        One of `FORMATS`, whatever the file's suffix.
    width, height : int
        Size in pixels, upright.
    orientation : int
        EXIF orientation, 1 (upright) to 8.
    quick : bool
        Whether TensorFlow decodes the file; otherwise Pillow does.
    """

    format: str
    width: int
    height: int
    orientation: int
    quick: bool


def read_header(file: str | os.PathLike, whole: bool = False) -> Header:
    """Read the header of an image file.

    Parameters
    ----------
    file : path
        A JPEG, PNG, BMP, GIF, WebP or TIFF file, whatever its suffix.
    whole : bool, default False
        Decode all of it. Otherwise only the beginning and the end of the file are checked.

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        If the file, which is named, is not an image that can be read.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.data.images import read_header
    >>> with tempfile.NamedTemporaryFile(suffix=".jpg") as file:  # doctest: +ELLIPSIS
    ...     read_header(file.name)
    Traceback (most recent call last):
        ...
    ValueError: '...jpg' is not an image that can be read: ...
    """
    try:
        return _read_header(os.path.abspath(file), whole, version_of(file))
    # Pillow's parsers raise anything: struct.error, KeyError, MemoryError, ...
    except Exception as error:
        raise ValueError(
            f"{os.fspath(file)!r} is not an image that can be read: {reason_of(error)}."
        ) from error


def header_of(contents: bytes, whole: bool = False) -> Header:
    """Read the header in the contents of an image file, as `read_header` does in the file.

    Parameters
    ----------
    contents : bytes
        The contents of the file.
    whole : bool, default False
        As in `read_header`.

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        If that is not an image that can be read, with the reason: "cannot be read: ...".

    Examples
    --------
    >>> from keras_resnet.data.images import header_of
    >>> header_of(b"GIF89a")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: cannot be read: ...
    """
    try:
        return _header(io.BytesIO(contents), whole)
    except Exception as error:
        raise ValueError(f"cannot be read: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """The message of an error, in one line."""
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    # TensorFlow adds the place in its graph, in braces and brackets.
    return re.sub(r"\{\{.*?\}\} | \[Op:.*", "", reason.splitlines()[0])


def version_of(file: str | os.PathLike) -> tuple[int, ...]:
    """What is different once a file has changed, or another of its name, size and date is there.

    Parameters
    ----------
    file : path
        The file.

    Returns
    -------
    tuple of int

    Raises
    ------
    OSError
        If there is no such file.
    """
    status = os.stat(file)
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


@functools.lru_cache(maxsize=2**20)
def _read_header(file, whole, _version):
    """The header of a file, read again if the file has changed."""
    with open(file, "rb") as opened:
        return _header(opened, whole)


def _header(file, whole):
    """The header of an open file."""
    kind, quick, known, sure = _stated(file)
    if whole or not (sure and _has_its_end(file, kind)):
        contents = _contents(file)
        decode(contents) if quick else _decode_with_pillow(contents)
    sides = known.width, known.height
    width, height = reversed(sides) if _ORIENTATIONS[known.orientation][0] else sides
    return Header(kind, width, height, known.orientation, quick)


def _stated(file):
    """What an open file says of itself: format, `quick`, `Stored`, and whether that is certain."""
    if not file.read(1):
        raise OSError("the file is empty")
    kind = kind_of(file)
    if kind is None:
        with _opened(file) as image:
            turned = orientation_in(image.info.get("exif") or b"")
            return image.format, False, Stored(image.height, image.width, turned, 0), True
    known = stored(file, kind)
    sure = known is not None
    if known is None:
        known = _stored_by_tensorflow(_contents(file), kind)
    _check_size(known.width, known.height, known.pixels)
    return kind, True, known, sure


def _contents(file):
    """All bytes of an open file."""
    file.seek(0)
    return file.read()


def _stored_by_tensorflow(contents, kind):
    """What TensorFlow says of a file whose header we cannot read."""
    if kind == "JPEG":
        height, width, _ = map(int, tf.io.extract_jpeg_shape(contents))
    else:
        height, width, _ = tf.io.decode_image(contents, channels=3, expand_animations=False).shape
    return Stored(height, width, int(_orientation(contents)), height * width)


# Traced: a loop of single operations would be slow.
_orientation = tf.function(headers.orientation, input_signature=[tf.TensorSpec((), "string")])


def _check_size(width, height, pixels):
    """Refuse an image of no pixels, or of too many."""
    if not width or not height:
        raise OSError(f"it has {width}x{height} pixels")
    if pixels > LARGEST_IMAGE:
        raise OSError(f"it has {pixels} pixels, {LARGEST_IMAGE} are allowed: make it smaller")


def _has_its_end(file, kind):
    """Whether a file ends as complete ones of its format do."""
    if kind not in _ENDS:
        return False
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _TAIL))
    return _ENDS[kind] in file.read()


def read_headers(
    files: Sequence[str | os.PathLike], whole: bool = False
) -> list[Header | ValueError]:
    """Read the headers of many image files in parallel.

    Parameters
    ----------
    files : sequence of path
        The files.
    whole : bool, default False
        As in `read_header`.

    Returns
    -------
    list of Header or ValueError
        The header of each file, or the error that `read_header` raised.
    """

    def attempt(file):
        try:
            return read_header(file, whole)
        except ValueError as error:
            return error

    return in_threads(attempt, files, "Checking images" if whole else "Reading headers")


def in_threads(work: Callable[[Any], Result], files: Sequence[Any], title: str) -> list[Result]:
    """Read many files in parallel, and report the progress.

    Parameters
    ----------
    work : callable
        What to do with each file.
    files : sequence
        The files.
    title : str
        As in `progress.task`.

    Returns
    -------
    list
        The result for each file.
    """
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        return list(tracked(pool.map(work, files), title, len(files)))


def check_images(files: Iterable[str | os.PathLike], whole: bool = False) -> None:
    """Check that files are images, before work starts on them.

    Parameters
    ----------
    files : iterable of path
        Files that should be images, whatever their suffix.
    whole : bool, default False
        Decode every image to its end, instead of checking only its beginning and end.

    Raises
    ------
    ValueError
        For the first file that is not an image, or is damaged.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.data import check_images
    >>> with tempfile.NamedTemporaryFile(suffix=".jpg") as file:  # doctest: +ELLIPSIS
    ...     check_images([file.name])
    Traceback (most recent call last):
        ...
    ValueError: '...jpg' is not an image that can be read: the file is empty.
    """
    for header in read_headers(list(files), whole):
        if isinstance(header, ValueError):
            raise header


def how_to_decode(contents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Find out in a pipeline how to call `decode`, by the rules of `read_header`.

    Parameters
    ----------
    contents : string tensor
        The contents of an image file.

    Returns
    -------
    orientation : int64 tensor
    quick : bool tensor
    """

    def look(numbers):
        _, quick, known, _ = _stated(io.BytesIO(numbers.tobytes()))
        return np.int64(known.orientation), np.bool_(quick)

    # In Python it takes microseconds; the graph of `headers` takes longer, to make and to run.
    numbers = tf.io.decode_raw(contents, tf.uint8)
    orientation, quick = tf.numpy_function(look, [numbers], (tf.int64, tf.bool), stateful=False)
    return tf.ensure_shape(orientation, ()), tf.ensure_shape(quick, ())


def decode(contents, orientation=1, quick=True, channels: int = 3) -> tf.Tensor:
    """Decode the contents of an image file, upright.

    Parameters
    ----------
    contents : string tensor
        The contents of the file.
    orientation : int or int tensor, default 1
        As in `Header`; Pillow reads it itself.
    quick : bool or bool tensor, default True
        As in `Header`.
    channels : {1, 3}, default 3
        1 for grey, 3 for RGB.

    Returns
    -------
    tensor of shape (height, width, channels), uint8
    """
    image = _either(
        quick,
        # Every format can be decoded to three channels, but not to one.
        lambda: _upright(
            tf.io.decode_image(contents, channels=3, expand_animations=False), orientation
        ),
        lambda: tf.numpy_function(
            # As numbers: NumPy's strings lose trailing zeros.
            lambda numbers: _decode_with_pillow(numbers.tobytes()),
            [tf.io.decode_raw(contents, tf.uint8)],
            tf.uint8,
            stateful=False,
        ),
    )
    image = tf.ensure_shape(image, (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def decode_window(
    contents, orientation, quick, choose, channels: int = 3, at_least: int | None = None
) -> tf.Tensor:
    """Decode a window of an image file; of a JPEG, only that window.

    Parameters
    ----------
    contents, orientation, quick, channels
        As in `decode`.
    choose : callable
        Returns the window, (top, left, height, width), for the size (height, width) of the upright
        image.
    at_least : int, optional
        A window whose sides are at least twice as long may be reduced to a half, a quarter or an
        eighth of its size: for a JPEG that is faster, and as smooth as averaging.

    Returns
    -------
    tensor of shape (height, width, channels), uint8
    """

    def in_jpeg():
        stored = tf.io.extract_jpeg_shape(contents)[:2]
        turned, flipped, mirrored = tf.unstack(tf.gather(_ORIENTATIONS, orientation))
        size = tf.where(turned, stored[::-1], stored)
        top, left, height, width = tf.unstack(choose(size))
        # The same window in the stored image: the orientation undone.
        top = tf.where(flipped, size[0] - top - height, top)
        left = tf.where(mirrored, size[1] - left - width, left)
        window = tf.stack((top, left, height, width))
        window = tf.where(turned, tf.gather(window, (1, 0, 3, 2)), window)
        if at_least is None:
            image = tf.io.decode_and_crop_jpeg(contents, window, channels=3)
        else:
            times = tf.reduce_min(window[2:]) // at_least
            image = tf.switch_case(
                sum(tf.cast(times >= ratio, "int32") for ratio in _RATIOS[1:]),
                [functools.partial(_decode_smaller, contents, window, each) for each in _RATIOS],
            )
        return _upright(image, orientation)

    def in_others():
        return cut(decode(contents, orientation, quick), choose)

    is_jpeg = tf.logical_and(tf.io.is_jpeg(contents), quick)
    image = tf.ensure_shape(tf.cond(is_jpeg, in_jpeg, in_others), (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def _decode_smaller(contents, window, ratio):
    """A window of a JPEG, reduced as it is decoded."""
    return tf.io.decode_and_crop_jpeg(contents, window // ratio, channels=3, ratio=ratio)


def _upright(image, orientation):
    """A stored image, turned as its orientation says."""

    def turn():
        turned, flipped, mirrored = tf.unstack(tf.gather(_ORIENTATIONS, orientation))
        upright = tf.cond(turned, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        axes = tf.boolean_mask((0, 1), tf.stack((flipped, mirrored)))
        return tf.reverse(upright, axes)

    return _either(tf.less_equal(orientation, 1), lambda: image, turn)


def _either(condition, yes, no):
    """`tf.cond`, decided in Python if the condition is already known."""
    known = tf.get_static_value(condition)
    return tf.cond(condition, yes, no) if known is None else yes() if known else no()


def _opened(file):
    """An image that Pillow decodes; OSError if nothing says what its numbers mean."""
    try:
        image = PIL.Image.open(file)
    except PIL.UnidentifiedImageError as error:
        raise OSError(f"cannot identify image file; use {_USE}") from error
    if image.format not in FORMATS:
        raise OSError(f"a {image.format} file; use {_USE}")
    _check_size(image.width, image.height, image.width * image.height)
    tags = getattr(image, "tag_v2", {})
    if image.mode in ("I", "F") or {*tags.get(_SAMPLE_FORMAT, ())} & _NOT_FROM_ZERO:
        raise OSError(
            "its pixels are floats, signed, or of 32 bits, and nothing says what black and white "
            "are: convert it to 8 or 16 bits"
        )
    return image


def _decode_with_pillow(contents):
    """RGB pixels of the contents of a file, upright."""
    with _opened(io.BytesIO(contents)) as image:
        turned = orientation_in(image.info.get("exif") or b"")
        image.load()  # Pillow turns a TIFF file itself
        if image.mode.startswith("I;16"):  # it would clip 16 bits at 255
            tags = getattr(image, "tag_v2", {})
            pixels = np.asarray(image, "uint16")
            if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
                pixels = ~pixels
            # The high byte, as TensorFlow and Pillow reduce everything else of 16 bits.
            pixels = pixels >> (4 if tags.get(_BITS) == (12,) else 8)
            image = PIL.Image.fromarray(pixels.astype("uint8"))
        pixels = np.asarray(image.convert("RGB"))
    swapped, flipped, mirrored = _ORIENTATIONS[turned]
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return np.ascontiguousarray(pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1])


def image_files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """List image files: those named, and those directly in the folders named.

    Parameters
    ----------
    paths : iterable of path
        Files, which are not checked, and folders.

    Returns
    -------
    list of pathlib.Path
        In the order of the paths, and in a folder by name. Anything else in a folder is left out,
        with a warning unless it is hidden.

    Raises
    ------
    ValueError
        For a path that does not exist.

    Examples
    --------
    >>> from keras_resnet.data import image_files
    >>> image_files(["no.jpg"])
    Traceback (most recent call last):
        ...
    ValueError: 'no.jpg': there is no such file or folder.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            seen = sorted(file for file in path.iterdir() if not file.name.startswith("."))
            files += [file for file in seen if file.suffix.lower() in IMAGE_SUFFIXES]
            others = [file for file in seen if file.suffix.lower() not in IMAGE_SUFFIXES]
            if others:
                _logger.warning(
                    "%s: left out what is not an image by its suffix, %d in all; the first is %r.",
                    path,
                    len(others),
                    others[0].name,
                )
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"{str(path)!r}: there is no such file or folder.")
    return files
