import io
import struct

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pictures import encoded
from pictures import pixels as picture

from keras_resnet.data.headers import BEGINNINGS, begins_as, orientation, pixels

EXIF_ORIENTATION = 0x0112
TYPES = {"H": 3, "I": 4}


def tiff(value, order="<", kind="H", before=0, offset=8):
    """A directory of tags, so many of them before the orientation."""
    beginning = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", offset)
    tags = [struct.pack(order + "HHII", 0x0100 + each, 4, 1, 1) for each in range(before)]
    value = struct.pack(order + kind, value).ljust(4, b"\0")
    tags.append(struct.pack(order + "HHI", EXIF_ORIENTATION, TYPES[kind], 1) + value)
    return (
        beginning.ljust(offset, b"\0")
        + struct.pack(order + "H", len(tags))
        + b"".join(tags)
        + bytes(4)
    )


def saved(kind, exif=b"", **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture(0)).save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


def pillow(contents):
    with PIL.Image.open(io.BytesIO(contents)) as image:
        return image.getexif().get(EXIF_ORIENTATION, 1)


def assert_as_pillow(contents):
    assert int(orientation(contents)) == pillow(contents)


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_is_what_pillow_writes(self, kind):
        for number in range(1, 9):
            exif = PIL.Image.Exif()
            exif[0x010F], exif[EXIF_ORIENTATION] = "a camera", number
            contents = saved(kind, exif)
            assert int(orientation(contents)) == pillow(contents) == number

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("number", TYPES)
    def test_in_every_byte_order_and_type_of_number(self, kind, order, number):
        for value, before, offset in ((3, 0, 8), (6, 4, 8), (8, 1, 30)):
            exif = b"Exif\0\0" + tiff(value, order, number, before, offset)
            contents = saved(kind, exif)
            assert int(orientation(contents)) == pillow(contents) == value

    def test_behind_other_segments_and_chunks(self):
        exif = b"Exif\0\0" + tiff(6)
        assert_as_pillow(saved("JPEG", exif, icc_profile=bytes(150_000), comment=b"Exif\0\0"))
        assert_as_pillow(saved("PNG", exif, icc_profile=np.random.default_rng(0).bytes(100_000)))
        whole = saved("JPEG", exif)
        xmp = b"http://ns.adobe.com/xap/1.0/\0<xmp/>"
        segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
        assert_as_pillow(whole[:2] + segment + whole[2:])

    def test_nobody_says_so(self):
        for kind in BEGINNINGS:
            assert int(orientation(encoded(0, kind))) == 1
        for contents in (b"", b"\xff", b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"a letter"):
            assert int(orientation(contents)) == 1

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_of_no_meaning(self, value):
        assert int(orientation(saved("JPEG", b"Exif\0\0" + tiff(value)))) == 1

    def test_many_at_once(self):
        files = [saved("JPEG", b"Exif\0\0" + tiff(number)) for number in range(1, 9)]
        found = tf.map_fn(orientation, tf.constant(files), fn_output_signature="int64")
        assert found.numpy().tolist() == [*range(1, 9)]


class TestPixels:
    @pytest.mark.parametrize("kind", BEGINNINGS)
    def test_as_many_as_pillow_sees(self, kind):
        for height, width in ((1, 1), (9, 12), (300, 7), (257, 260)):
            contents = encoded(0, kind, height=height, width=width)
            with PIL.Image.open(io.BytesIO(contents)) as image:
                assert int(pixels(contents)) == image.width * image.height == width * height

    def test_of_more_than_32_bits_count(self):
        contents = bytearray(encoded(0, "PNG"))
        contents[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
        assert int(pixels(bytes(contents))) == (2**31 - 1) ** 2

    def test_a_bitmap_from_top_to_bottom_has_as_many(self):
        contents = bytearray(encoded(0, "BMP"))
        contents[22:26] = struct.pack("<i", -9)  # its height
        assert int(pixels(bytes(contents))) == 9 * 12

    def test_of_a_file_that_is_cut_are_counted_or_refused(self):
        for kind in BEGINNINGS:
            contents = encoded(0, kind)
            for length in range(len(BEGINNINGS[kind]), 40):
                try:
                    assert int(pixels(contents[:length])) >= 0
                except tf.errors.InvalidArgumentError:
                    assert kind == "JPEG"


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_file_begins_as_one_format_alone(kind):
    contents = encoded(0, kind)
    assert [other for other in BEGINNINGS if bool(begins_as(other, contents))] == [kind]
    assert not bool(begins_as(kind, BEGINNINGS[kind][:-1]))
