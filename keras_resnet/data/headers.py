"""Headers of image files, read with TensorFlow's operations alone.

`formats` reads the same in Python, by the same rules; a graph that is served elsewhere cannot.
"""

import tensorflow as tf

from keras_resnet.data.formats import (
    BEGINNINGS,
    BITMAP_BITS,
    BITMAP_INFO,
    EXIF,
    LONG,
    MOST_FILL,
    MOST_PARTS,
    ORIENTATION,
    SEARCHED,
    SHORT,
    TAG,
    TIFF,
)

# Traced once, and not again for every dataset and every export.
_of_file = tf.function(input_signature=[tf.TensorSpec((), "string")], autograph=False)
_MENTIONS_EXIF = r"\C*(Exif|eXIf)\C*"  # the names of such parts in JPEG and PNG files


@_of_file
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
    beginning = tf.strings.substr(contents, 0, SEARCHED)
    data = tf.io.decode_raw(beginning, "uint8")
    # Most files have no such part, and to walk through one takes as long as decoding a small image.
    mentioned = tf.strings.regex_full_match(beginning, _MENTIONS_EXIF)
    block = tf.case(
        [
            (mentioned & begins_as("JPEG", contents), lambda: _in_jpeg(data)),
            (mentioned & begins_as("PNG", contents), lambda: _in_png(data)),
        ],
        default=lambda: data[:0],
    )
    return tf.cond(tf.size(block) > 0, lambda: _in_tiff(block), lambda: tf.constant(1, "int64"))


def begins_as(kind: str, contents: tf.Tensor) -> tf.Tensor:
    """Check whether a file begins like those of a format.

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


@_of_file
def quick(contents: tf.Tensor) -> tf.Tensor:
    """Check whether TensorFlow decodes a file; otherwise Pillow does.

    Parameters
    ----------
    contents : string tensor
        The contents of the file.

    Returns
    -------
    bool tensor

    Examples
    --------
    >>> from keras_resnet.data.headers import quick
    >>> bool(quick(b"GIF89a")), bool(quick(b"RIFF"))
    (True, False)
    """
    data = _bytes(contents, 34)
    size, bits, compression = (_number(data, *each, True) for each in ((14, 4), (28, 2), (30, 4)))
    plain = (size >= BITMAP_INFO) & tf.reduce_any(tf.equal(bits, BITMAP_BITS))
    plain &= tf.equal(compression, 0) & tf.equal(tf.size(data), 34)
    others = [begins_as(kind, contents) for kind in BEGINNINGS if kind != "BMP"]
    return tf.reduce_any([*others, begins_as("BMP", contents) & plain])


@_of_file
def pixels(contents: tf.Tensor) -> tf.Tensor:
    """Count the pixels that decoding an image takes, before it is decoded.

    Parameters
    ----------
    contents : string tensor
        The contents of a file that begins as one of `BEGINNINGS`.

    Returns
    -------
    int64 tensor
        In a GIF those of all frames.
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
            (begins_as("GIF", contents), lambda: _in_gif(tf.io.decode_raw(contents, "uint8"))),
        ],
        # In a BMP file, a negative height means that rows run downwards.
        default=lambda: product(18, 22, 4, True, signed=True),
    )


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
    """The EXIF block in the segments of a JPEG file; nothing if there is none."""

    def is_exif(at):
        return tf.equal(_number(data, at, 2), 0xFFE1) & tf.equal(
            _number(data, at + 4, 6), int.from_bytes(EXIF, "big")
        )

    def is_last(at):  # the image itself, or no segment
        marker = _number(data, at, 2)
        return tf.equal(marker, 0xFFDA) | (marker < 0xFF01)

    def following(at):
        others = tf.not_equal(tf.pad(data[at : at + MOST_FILL], [[0, 1]]), 0xFF)
        fill = tf.argmax(others) - 1
        return at + tf.where(fill >= 1, fill, 2 + _number(data, at + 2, 2))

    at, found = _walk(2, is_exif, is_last, following)
    return data[at + 10 : tf.where(found, at + 2 + _number(data, at + 2, 2), 0)]


def _in_png(data):
    """The EXIF block in the chunks of a PNG file; nothing if there is none."""

    def is_named(at, name):
        return tf.equal(_number(data, at + 4, 4), int.from_bytes(name, "big"))

    at, found = _walk(
        8,
        lambda at: is_named(at, b"eXIf"),
        lambda at: is_named(at, b"IDAT") | is_named(at, b"\0\0\0\0"),
        lambda at: at + 12 + _number(data, at, 4),
    )
    return data[at + 8 : tf.where(found, at + 8 + _number(data, at, 4), 0)]


def _walk(start, is_wanted, is_last, following):
    """Walk from part to part of a file: where it ends, and whether at the wanted one."""
    at, _ = tf.while_loop(
        lambda at, count: ~(is_wanted(at) | is_last(at)) & (count < MOST_PARTS),
        lambda at, count: (following(at), count + 1),
        (tf.constant(start, "int64"), tf.constant(1)),
    )
    return at, is_wanted(at)


def _in_tiff(block):
    """The orientation in the first directory of a TIFF structure; 1 if there is none."""
    prefixed = tf.equal(_number(block, 0, len(EXIF)), int.from_bytes(EXIF, "big"))
    block = block[tf.where(prefixed, len(EXIF), 0) :]
    beginning = _number(block, 0, 4)
    little, big = (tf.equal(beginning, int.from_bytes(each, "big")) for each in TIFF)
    directory = _number(block, 4, 4, little)
    count = _number(block, directory, 2, little)
    entries = block[directory + 2 : directory + 2 + TAG * count]
    entries = tf.reshape(entries[: tf.size(entries) // TAG * TAG], (-1, TAG))
    tag, kind = _whole(entries[:, :2], little), _whole(entries[:, 2:4], little)
    value = tf.where(
        tf.equal(kind, SHORT),
        _whole(entries[:, 8:10], little),
        tf.where(tf.equal(kind, LONG), _whole(entries[:, 8:], little), 0),
    )
    counts = tf.equal(tag, ORIENTATION) & (value >= 1) & (value <= 8) & (little | big)
    return tf.reduce_max(tf.pad(tf.where(counts, value, 1), [[0, 1]], constant_values=1))


def _in_gif(data):
    """The pixels of all frames of a GIF file, and of the one that TensorFlow makes of them."""
    # Step by step, a file of a million pieces of one byte would take minutes. So every byte is
    # treated as the beginning of a piece, then of a block, and finds its end by doubling its steps.
    data = tf.cast(tf.pad(data, [[0, 16]]), "int32")  # zeros beyond the end
    last = tf.size(data) - 16
    place = tf.range(last + 16)
    palettes = tf.where(data >= 0x80, tf.bitwise.left_shift(6, data & 7), 0)
    ends = tf.minimum(tf.where(data > 0, place + 1 + data, place), last)
    ends = tf.while_loop(
        lambda ends, more: more,
        lambda ends, more: _doubled(ends),
        (ends, tf.constant(True)),
    )[0]
    is_frame = tf.equal(data, ord(",")) & (place + 10 <= last)
    is_extension = tf.equal(data, ord("!"))
    begin = place + tf.where(is_frame, 11 + tf.roll(palettes, -9, 0), 2)
    following = tf.minimum(tf.gather(ends, tf.minimum(begin, last)) + 1, last)
    following = tf.where(is_frame | is_extension, following, place)
    first = tf.minimum(13 + palettes[10], last)

    def farther(blocks, jumps, _):
        """All blocks found so far, and as many after them."""
        blocks = tf.concat((blocks, tf.gather(jumps, blocks)), 0)
        jumps, more = _doubled(jumps)
        return blocks, jumps, more & tf.not_equal(tf.gather(jumps, blocks[-1]), blocks[-1])

    blocks, _, _ = tf.while_loop(
        lambda blocks, jumps, more: more,
        farther,
        (first[None], following, tf.constant(True)),
        shape_invariants=(tf.TensorShape((None,)), following.shape, tf.TensorShape(())),
    )
    frames = tf.boolean_mask(blocks, tf.gather(is_frame, blocks))
    sides = tf.gather(data, frames[:, None] + (5, 7)) + 256 * tf.gather(
        data, frames[:, None] + (6, 8)
    )
    sides = tf.cast(sides, "int64")
    largest = tf.reduce_max(tf.pad(sides, [[0, 1], [0, 0]]), 0)
    return tf.maximum(tf.reduce_prod(largest), tf.reduce_sum(tf.reduce_prod(sides, 1)))


def _doubled(jumps):
    """Jumps twice as far, and whether that changes anything."""
    twice = tf.gather(jumps, jumps)
    return twice, tf.reduce_any(tf.not_equal(twice, jumps))
