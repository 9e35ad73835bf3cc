"""The same bytes say the same of an image, whether Python reads them or a graph."""

import io
import struct
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import encoded, pixels

from keras_resnet.data import headers
from keras_resnet.data.formats import BEGINNINGS, kind_of, orientation_in, stored
from keras_resnet.data.images import header_of


def exif(orientation, order=">", kind=3, before=0):
    """A block of EXIF, with so many tags before the orientation."""
    letter = {3: "H", 4: "I"}[kind]
    tags = [struct.pack(order + "HHII", 0x0100 + each, 4, 1, 1) for each in range(before)]
    value = struct.pack(order + letter, orientation).ljust(4, b"\0")
    tags.append(struct.pack(order + "HHI", 0x0112, kind, 1) + value)
    beginning = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return beginning + struct.pack(order + "H", len(tags)) + b"".join(tags) + bytes(4)


def saved(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels(0)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def with_segment(jpeg, block, name=b"Exif\0\0"):
    """A JPEG file with an EXIF segment, whatever is in it."""
    segment = name + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def with_chunk(png, block):
    """A PNG file with an EXIF chunk, whatever is in it."""
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    return png[:33] + chunk + struct.pack(">I", 0) + png[33:]


def gif(*frames, screen=(10, 10), local=False, between=b""):
    """A GIF file of black frames of (width, height), with one palette or each with its own."""
    colours, flags = bytes(6), 0x80
    head = bytes([0, 0, 0]) if local else bytes([flags, 0, 0]) + colours
    parts = [b"GIF89a", struct.pack("<HH", *screen), head]
    for width, height in frames:
        whole = io.BytesIO()
        PIL.Image.new("P", (width, height)).save(whole, "GIF")
        frame = whole.getvalue()[whole.getvalue().index(b",") : -1]
        palette = bytes([flags]) + colours if local else b"\0"
        parts.append(between + frame[:9] + palette + frame[10:])
    return b"".join(parts) + b";"


WHOLE = [
    *(saved(kind) for kind in BEGINNINGS),
    saved("JPEG", "L", progressive=True),
    saved("BMP", "P"),
    saved("BMP", "RGBA"),
    *(with_segment(saved("JPEG"), exif(6, order, kind, 2)) for order in "<>" for kind in (3, 4)),
    *(with_chunk(saved("PNG"), exif(8, order, before=1)) for order in "<>"),
    with_segment(saved("JPEG"), b"Exif\0\0" + exif(3)),
    gif((3, 5), (12, 2), between=b"!\xfe\3abc\0"),
    b"\xff\xd8" + b"\xff" * 9 + with_segment(saved("JPEG"), exif(5))[2:],
]


@st.composite
def damaged(draw):
    """A file with some bytes that are others, cut somewhere."""
    contents = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, min(99, len(contents) - 1)))
        contents[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xE1, 0xFF]) | st.integers(0, 255))
    return bytes(contents[: draw(st.integers(0, len(contents)) | st.just(len(contents)))])


@settings(max_examples=200, deadline=None)
@given(damaged() | st.builds(bytes.__add__, st.sampled_from([*BEGINNINGS.values()]), st.binary()))
@example(with_segment(saved("JPEG"), exif(6)[:-4]))  # cut behind the tag
@example(with_segment(saved("JPEG"), exif(6)[:-6]))  # and within it: the next bytes are not its own
@example(with_segment(saved("JPEG"), b"MM\0*"))
@example(with_segment(saved("JPEG"), b"XX\0*" + exif(6)[4:]))
@example(b"\xff\xd8" + b"\xff\xe0\0\2" * 999 + with_segment(saved("JPEG"), exif(6))[2:])
@example(b"\xff\xd8" + b"\xff\xe0\0\2" * 998 + with_segment(saved("JPEG"), exif(6))[2:])
@example(b"\xff\xd8" + b"\xff" * 5000 + with_segment(saved("JPEG"), exif(6))[2:])
@example(with_chunk(saved("PNG"), exif(6)[:-10]))
@example(gif((1, 1), (5, 2))[:-20])
@example(gif((3, 5), (12, 2))[:-12])  # within the header of a frame
@example(gif(local=True, between=b"!"))
@example(b"\xff\xd8\xff\xe1\x00\x00" * 50)  # segments of no length
@example(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 60_000)  # a great many of them
@example(b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xff" * 20)  # a chunk of 4 GiB
@example(b"\x89PNG\r\n\x1a\n" + b"\x7f\xff\xff\xfftEXt" * 20)
@example(b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\xff\xff\xff\xff")  # a directory behind the end
@example(b"\xff\xd8\xff\xe1\xff\xffExif\0\0MM\0*\0\0\0\x00")  # a directory that is the header
def test_python_reads_what_a_graph_reads(contents):
    file = io.BytesIO(contents)
    kind = kind_of(file)
    assert bool(headers.quick(contents)) == (kind is not None)
    orientation = int(headers.orientation(contents))
    assert 1 <= orientation <= 8
    known = stored(file, kind) if kind else None
    if known:
        assert orientation == known.orientation
        if kind != "JPEG":  # whose size libjpeg reads in the graph
            assert int(headers.pixels(contents)) == known.pixels


@settings(max_examples=200, deadline=None)
@given(damaged() | st.binary())
def test_any_bytes_are_an_image_or_refused(contents):
    try:
        header = header_of(contents, whole=True)
    except ValueError as error:
        assert str(error).startswith("cannot be read: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert header.width * header.height > 0


class TestExif:
    """A photograph that everyone decodes is kept, whatever its EXIF block is like."""

    @pytest.mark.parametrize(
        ("block", "expected"),
        [
            (exif(6), 6),
            (exif(6)[:-4], 6),  # the tag is whole
            (exif(6)[:-5], 1),
            (exif(6, "<", before=3)[:-4], 6),
            (b"MM\0*", 1),  # struct.error of Pillow
            (b"", 1),
            (b"XX\0*" + exif(6)[4:], 1),  # SyntaxError of Pillow
            (b"MM\0*\xff\xff\xff\xff", 1),
            (b"MM\0*\0\0\0\x08\xff\xff" + exif(6)[10:-4], 6),  # announces more tags than there are
            (exif(0), 1),
            (exif(9), 1),
        ],
    )
    def test_damaged_ones_are_upright(self, block, expected):
        assert orientation_in(block) == expected
        for contents in (
            with_segment(saved("JPEG"), block),
            saved("WEBP", exif=b"Exif\0\0" + block, lossless=True),
        ):
            assert header_of(contents, whole=True).orientation == expected
        jpeg = with_segment(saved("JPEG"), block)
        assert int(headers.orientation(jpeg)) == expected

    def test_what_follows_a_block_is_none_of_it(self):
        tag = exif(6)[10:22]
        contents = with_segment(saved("JPEG"), b"MM\0*\0\0\0\x08\0\x02" + exif(1)[10:22])
        contents = contents.replace(exif(1)[10:22], exif(1)[10:22] + tag, 1)
        assert int(headers.orientation(contents)) == 1

    def test_the_first_directory_counts_and_in_it_what_has_a_meaning(self):
        twice = exif(6, before=1).replace(struct.pack(">HHII", 0x0100, 4, 1, 1), exif(77)[10:22])
        assert orientation_in(twice) == 6
        assert int(headers.orientation(with_segment(saved("JPEG"), twice))) == 6


class TestFrames:
    @pytest.mark.parametrize(
        "frames", [[(7, 9)], [(2, 3), (8, 5)], [(8, 5), (2, 3)], [(9, 1), (1, 9)]]
    )
    @pytest.mark.parametrize("screen", [(10, 10), (99, 88)])
    @pytest.mark.parametrize("local", [False, True])
    def test_make_an_image_as_large_as_tensorflow_does(self, frames, screen, local):
        contents = gif(*frames, screen=screen, local=local, between=b"!\xf9\4\0\0\0\0\0")
        decoded = tf.io.decode_image(contents, channels=3, expand_animations=False)
        header = header_of(contents)
        assert (header.height, header.width) == decoded.shape[:2]
        assert int(headers.pixels(contents)) >= header.height * header.width

    def test_all_count(self):
        contents = gif(*[(50, 40)] * 7)
        assert int(headers.pixels(contents)) == 7 * 50 * 40

    def test_of_more_than_the_screen_are_refused(self):
        """A GIF of 10 x 10 pixels by its screen that decodes to 14,000 x 14,000."""
        small, huge = (struct.pack("<HHHH", 0, 0, side, side) for side in (5, 14_000))
        contents = gif((1, 1), (5, 5)).replace(small, huge)
        assert int(headers.pixels(contents)) == 14_000**2 + 1
        with pytest.raises(ValueError, match="it has 196000001 pixels, 178956970 are allowed"):
            header_of(contents)


MEGABYTE = 2**20
FLOODS = {
    "fill bytes": b"\xff\xd8" + b"\xff" * MEGABYTE + with_segment(saved("JPEG"), exif(6))[2:],
    "empty segments": b"\xff\xd8"
    + b"\xff\xe0\0\2" * (MEGABYTE // 4)
    + with_segment(saved("JPEG"), exif(6))[2:],
    "both": b"\xff\xd8"
    + (b"\xff\xe0\0\2" + b"\xff" * 60) * (MEGABYTE // 64)
    + with_segment(saved("JPEG"), exif(6))[2:],
    "empty chunks": saved("PNG")[:33]
    + b"\0\0\0\0teXt\0\0\0\0" * (MEGABYTE // 12)
    + with_chunk(saved("PNG"), exif(6))[33:],
    "empty extensions": gif((2, 3), between=b"!\xfe\0" * (MEGABYTE // 3)),
    "pieces of one byte": gif((2, 3), between=b"!\xfe" + b"\1\1" * (MEGABYTE // 2) + b"\0"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_megabyte_of_nothing_takes_no_minute(kind):
    contents = FLOODS[kind]
    for read in (headers.orientation, headers.pixels, header_of):
        start = time.process_time()
        read(contents)
        assert time.process_time() - start < 5
    assert header_of(contents).orientation == int(headers.orientation(contents))


def test_a_few_fill_bytes_hide_no_orientation():
    contents = b"\xff\xd8" + b"\xff" * 5000 + with_segment(saved("JPEG"), exif(6))[2:]
    assert header_of(contents).orientation == int(headers.orientation(contents)) == 6


@pytest.mark.parametrize("offset", [0, 4])
def test_an_old_bitmap_is_left_to_pillow(offset):
    """Of OS/2: TensorFlow would read its header as another one."""
    image = np.arange(4 * 3 * 3, dtype="uint8").reshape(3, 4, 3)
    body = image[::-1, :, ::-1].tobytes()
    contents = b"BM" + struct.pack("<IIIIHHHH", 26 + len(body), 0, 26, 12, 4, 3, 1, 24) + body
    contents += bytes(offset)
    header = header_of(contents, whole=True)
    assert (header.width, header.height, header.quick) == (4, 3, False)
    assert not bool(headers.quick(contents))


def test_encoded_pictures_are_seen():
    for kind in BEGINNINGS:
        header = header_of(encoded(0, kind), whole=True)
        assert (header.format, header.quick) == (kind, True)
        assert (header.height, header.width) == pixels(0).shape[:2]
