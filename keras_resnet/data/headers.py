"""Headers of image files, read with TensorFlow's operations alone.

`images.read_header` uses Pillow, which a graph that is served elsewhere cannot.
"""

import tensorflow as tf

# The first bytes of the files that TensorFlow decodes.
BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG", "GIF": b"GIF8", "BMP": b"BM"}

_SEARCHED = 2**20  # bytes at the beginning of a file
_MENTIONS_EXIF = r"\C*(Exif|eXIf)\C*"  # the names of such parts in JPEG and PNG files
_ORIENTATION = 0x0112
_SHORT, _LONG = 3, 4  # types of numbers in a directory of tags
_ENTRY = 12  # bytes of a tag: its name, type, count and value


def orientation(contents: tf.Tensor) -> tf.Tensor:
    r"""Read the EXIF orientation of an image.

    Parameters
    ----------
    contents : string tensor
        The contents of the file.

    Returns
    -------
    int64 tensor
        1 (upright) to 8; 1 without an orientation, and for files other than JPEG and PNG.

    References
    ----------
    CIPA DC-008, Exchangeable image file format, section 4.5; W3C, Portable Network Graphics,
    section 11.3.

    Examples
    --------
    >>> from keras_resnet.data.headers import orientation
    >>> tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    >>> tiff = b"MM\x00*\x00\x00\x00\x08" + b"\x00\x01" + tag
    >>> segment = b"Exif\x00\x00" + tiff
    >>> int(orientation(b"\xff\xd8\xff\xe1\x00" + bytes([len(segment) + 2]) + segment))
    6
    """
    beginning = tf.strings.substr(contents, 0, _SEARCHED)
    data, nowhere = tf.io.decode_raw(beginning, "uint8"), tf.constant(-1, "int64")
    # Most files have no such part, and to walk through one takes as long as decoding a small image.
    mentioned = tf.strings.regex_full_match(beginning, _MENTIONS_EXIF)
    start = tf.case(
        [
            (mentioned & begins_as("JPEG", contents), lambda: _in_jpeg(data)),
            (mentioned & begins_as("PNG", contents), lambda: _in_png(data)),
        ],
        default=lambda: nowhere,
    )
    found = tf.cond(start < 0, lambda: tf.constant(1, "int64"), lambda: _in_tiff(data, start))
    return tf.where((found >= 1) & (found <= 8), found, 1)


def begins_as(kind: str, contents: tf.Tensor) -> tf.Tensor:
    """Check whether a file begins as those of a format do.

    Parameters
    ----------
    kind : str
        A key of `BEGINNINGS`.
    contents : string tensor
        The contents of the file.

    Returns
    -------
    bool tensor
    """
    beginning = BEGINNINGS[kind]
    return tf.equal(tf.strings.substr(contents, 0, len(beginning)), beginning)


def pixels(contents: tf.Tensor) -> tf.Tensor:
    """Read the number of pixels of an image, before it is decoded.

    Parameters
    ----------
    contents : string tensor
        The contents of a file that begins as one of `BEGINNINGS`.

    Returns
    -------
    int64 tensor
    """
    data = _bytes(contents, 32)

    def product(first, second, size, little, signed=False):
        sides = tf.stack([_number(data, each, size, little) for each in (first, second)])
        return tf.reduce_prod(tf.minimum(sides, 2**32 - sides) if signed else sides)

    return tf.case(
        [
            (
                begins_as("JPEG", contents),
                lambda: tf.reduce_prod(tf.io.extract_jpeg_shape(contents, "int64")[:2]),
            ),
            (begins_as("PNG", contents), lambda: product(16, 20, 4, False)),
            (begins_as("GIF", contents), lambda: product(6, 8, 2, True)),
        ],
        # In a BMP file, a negative height means that rows run downwards.
        default=lambda: product(18, 22, 4, True, signed=True),
    )


def bits_of_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Read the bits per pixel of a BMP file: below 24, pixels are indices into a palette.

    Parameters
    ----------
    contents : string tensor
        The contents of the file.

    Returns
    -------
    int64 tensor
    """
    return _number(_bytes(contents, 32), 28, 2, little=True)


def _bytes(contents, count):
    """The first bytes of a file as numbers."""
    return tf.io.decode_raw(tf.strings.substr(contents, 0, count), "uint8")


def _number(data, start, size, little=False):
    """The whole number in some bytes; bytes beyond the end are left out."""
    return _whole(data[start : start + size], little)


def _whole(digits, little=False):
    """The bytes along the last axis as one number."""
    digits = tf.cast(tf.where(little, digits[..., ::-1], digits), "int64")
    places = tf.range(tf.shape(digits, "int64")[-1])[::-1]
    return tf.reduce_sum(digits * 256**places, axis=-1)


def _in_jpeg(data):
    """Where the TIFF structure starts in the segments of a JPEG file, or -1."""

    def is_exif(at):
        return tf.equal(_number(data, at, 2), 0xFFE1) & tf.equal(
            _number(data, at + 4, 6), int.from_bytes(b"Exif\0\0", "big")
        )

    def is_last(at):  # the image itself, or no segment
        marker = _number(data, at, 2)
        return tf.equal(marker, 0xFFDA) | (marker < 0xFF01)

    def following(at):
        length = 2 + _number(data, at + 2, 2)
        return at + tf.where(tf.equal(_number(data, at, 2), 0xFFFF), tf.cast(1, "int64"), length)

    return _walk(2, is_exif, is_last, following, 10)


def _in_png(data):
    """Where the TIFF structure starts in the chunks of a PNG file, or -1."""

    def is_named(at, name):
        return tf.equal(_number(data, at + 4, 4), int.from_bytes(name, "big"))

    return _walk(
        8,
        lambda at: is_named(at, b"eXIf"),
        lambda at: is_named(at, b"IDAT") | is_named(at, b"\0\0\0\0"),
        lambda at: at + 12 + _number(data, at, 4),
        8,
    )


def _walk(start, is_wanted, is_last, following, header):
    """Walk from part to part of a file: the position after the wanted one's header, or -1."""
    start = tf.constant(start, "int64")
    (end,) = tf.while_loop(
        lambda at: ~(is_wanted(at) | is_last(at)), lambda at: (following(at),), (start,)
    )
    return tf.where(is_wanted(end), end + header, -1)


def _in_tiff(data, start):
    """The orientation in the first directory of a TIFF structure; 0 if there is none."""
    little = tf.equal(_number(data, start, 2), int.from_bytes(b"II", "big"))
    directory = start + _number(data, start + 4, 4, little)
    count = _number(data, directory, 2, little)
    entries = data[directory + 2 : directory + 2 + _ENTRY * count]
    entries = entries[: tf.size(entries) // _ENTRY * _ENTRY]
    entries = tf.reshape(entries, (-1, _ENTRY))
    tag, kind = _whole(entries[:, :2], little), _whole(entries[:, 2:4], little)
    value = tf.where(
        tf.equal(kind, _SHORT),
        _whole(entries[:, 8:10], little),
        tf.where(tf.equal(kind, _LONG), _whole(entries[:, 8:], little), 0),
    )
    found = tf.where(tf.equal(tag, _ORIENTATION), value, 0)
    return tf.reduce_max(tf.pad(found, [[0, 1]]))
