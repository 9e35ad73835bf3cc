import io
import os
import struct

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_resnet import data
from keras_resnet.data.images import decode, decode_window, read_header, read_headers

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def ramp():
    """An image that is another one after every turn and reflection."""
    y, x = np.mgrid[:48, :64]
    return np.stack((4 * x, 5 * y, 128 + x - y), -1).clip(0, 255).astype("uint8")


def pillow(file):
    with PIL.Image.open(file) as image:
        return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"), "int")


def read(file, **options):
    header = read_header(file)
    contents = tf.io.read_file(os.fspath(file))
    return decode(contents, header.orientation, header.quick, **options).numpy().astype(int)


class TestDecode:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
    def test_stands_upright_as_exif_tells(self, tmp_path, ramp, suffix, orientation):
        exif = PIL.Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        file = tmp_path / f"image{suffix}"
        PIL.Image.fromarray(ramp).save(file, exif=exif, quality=95)
        header = read_header(file)
        assert (header.height, header.width) == pillow(file).shape[:2]
        assert np.abs(read(file) - pillow(file)).mean() < 2

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", [".jpg", ".png"])
    def test_a_window_is_the_same_part_of_the_upright_image(
        self, tmp_path, ramp, suffix, orientation
    ):
        exif = PIL.Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        file = tmp_path / f"image{suffix}"
        PIL.Image.fromarray(ramp).save(file, exif=exif, quality=95, subsampling=0)
        top, left, height, width = window = (5, 9, 30, 21)
        sizes = []

        def choose(size):
            sizes.append(size.numpy().tolist())
            return tf.constant(window)

        contents = tf.io.read_file(os.fspath(file))
        part = decode_window(contents, tf.constant(orientation), tf.constant(True), choose)
        whole = pillow(file)
        assert sizes == [list(whole.shape[:2])]
        expected = whole[top : top + height, left : left + width]
        assert np.abs(part.numpy() - expected).max() <= 6

    @pytest.mark.parametrize(("at_least", "ratio"), [(300, 1), (160, 2), (100, 4), (8, 8)])
    def test_a_large_window_comes_smaller_and_smooth(self, tmp_path, ramp, at_least, ratio):
        large = PIL.Image.fromarray(ramp).resize((1024, 768), PIL.Image.Resampling.BICUBIC)
        large.save(tmp_path / "image.jpg", quality=95)
        top, left, height, width = window = (96, 160, 480, 400)
        contents = tf.io.read_file(os.fspath(tmp_path / "image.jpg"))
        part = decode_window(contents, 1, True, lambda size: tf.constant(window), 3, at_least)
        assert part.shape == (height // ratio, width // ratio, 3)
        whole = pillow(tmp_path / "image.jpg")[top : top + height, left : left + width]
        blocks = whole.reshape(height // ratio, ratio, width // ratio, ratio, 3).mean((1, 3))
        assert np.abs(part.numpy() - blocks).max() <= 6

    @pytest.mark.parametrize("mode", ["P", "1", "L"])
    def test_bmp_of_few_colours(self, tmp_path, ramp, mode):
        file = tmp_path / "image.bmp"
        PIL.Image.fromarray(ramp).convert(mode).save(file)
        assert not read_header(file).quick
        np.testing.assert_array_equal(read(file), pillow(file))

    @pytest.mark.parametrize("suffix", [".png", ".tiff"])
    def test_sixteen_bits_keep_their_shades(self, tmp_path, ramp, suffix):
        file = tmp_path / f"image{suffix}"
        grey = ramp[..., 0]
        PIL.Image.fromarray(grey.astype("uint16") * 257).save(file)
        with PIL.Image.open(file) as image:
            assert image.mode.startswith("I")
        assert np.abs(read(file)[..., 0] - grey).max() <= 1

    def test_the_first_frame_of_an_animation(self, tmp_path, ramp):
        first = PIL.Image.fromarray(ramp).convert("P")
        rest = [PIL.Image.new("P", first.size, colour) for colour in (3, 7)]
        for name in ("image.gif", "image.webp"):
            first.convert("RGB").save(
                tmp_path / name, save_all=True, append_images=rest, quality=95
            )
            assert np.abs(read(tmp_path / name) - ramp).mean() < 20

    def test_grey_on_request(self, tmp_path, ramp):
        PIL.Image.fromarray(ramp).save(tmp_path / "image.png")
        grey = np.asarray(PIL.Image.fromarray(ramp).convert("L"), int)
        assert np.abs(read(tmp_path / "image.png", channels=1)[..., 0] - grey).max() <= 1


class TestHeaders:
    def damaged(self, folder, ramp):
        """Files that are no images, each with what is said of it."""
        PIL.Image.fromarray(ramp).save(folder / "whole.jpg")
        contents = (folder / "whole.jpg").read_bytes()
        (folder / "empty.jpg").write_bytes(b"")
        (folder / "renamed.jpg").write_text("a letter")
        (folder / "cut.jpg").write_bytes(contents[: len(contents) // 2])
        (folder / "folder.jpg").mkdir()
        PIL.Image.fromarray(ramp).save(folder / "nothing.png")
        png = bytearray((folder / "nothing.png").read_bytes())
        png[16:24] = bytes(8)  # width and height
        (folder / "nothing.png").write_bytes(png)
        return {
            "empty.jpg": "the file is empty",
            "renamed.jpg": "cannot identify image file",
            "cut.jpg": "",
            "folder.jpg": "Is a directory",
            "nothing.png": "",
            "missing.jpg": "No such file or directory",
        }

    def test_damage_is_told_by_file(self, tmp_path, ramp):
        for name, reason in self.damaged(tmp_path, ramp).items():
            with pytest.raises(ValueError, match="not an image that can be read") as caught:
                read_header(tmp_path / name)
            message = str(caught.value)
            assert str(tmp_path / name) in message
            assert reason in message
            assert "\n" not in message
            assert "{{" not in message

    def test_one_after_another_in_order(self, tmp_path, ramp):
        damaged = list(self.damaged(tmp_path, ramp))
        headers = read_headers([tmp_path / name for name in [*damaged, "whole.jpg"]])
        assert [type(header) for header in headers[:-1]] == [ValueError] * len(damaged)
        assert (headers[-1].height, headers[-1].width) == ramp.shape[:2]

    def test_photographs_with_damaged_exif_are_kept_as_they_are(self, tmp_path, ramp):
        """Pillow raised struct.error or SyntaxError, and the graph turned them by other bytes."""
        tiff = b"MM\0*\0\0\0\x08"
        blocks = (b"MM\0*", b"", b"II*\0\xff\xff\xff\xff", b"XX" + tiff[2:], tiff + b"\0\5\1\x12")
        files = []
        for kind in ("JPEG", "PNG", "WEBP"):
            for number, block in enumerate(blocks):
                files.append(tmp_path / f"{number}.{kind}")
                exif = b"Exif\0\0" + block
                PIL.Image.fromarray(ramp).save(files[-1], kind, exif=exif, quality=95)
        for header in read_headers(files, whole=True):
            assert (header.height, header.width, header.orientation) == (*ramp.shape[:2], 1)
        stream = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])
        for images in (files, stream):
            split = data.Split(images, np.zeros(len(files), int))
            assert split.errors() == {}
            ((shown, _),) = data.batches(split, image_size=48)
            assert np.abs(shown - ramp[:, 8:-8]).mean() < 5

    def test_names_need_not_be_utf_8(self, tmp_path, ramp):
        """They passed `load` and failed in training, without a name."""
        names = (b"caf\xe9.png", b"\xff\xfe.jpg", "日本.png".encode(), b"a\nb.png")
        files = [os.fsdecode(os.path.join(os.fsencode(tmp_path), name)) for name in names]
        for file in files:
            PIL.Image.fromarray(ramp).save(file, "PNG")
        split = data.Split(files, np.zeros(4, int))
        ((shown, _),) = data.batches(split, image_size=48, cache=tmp_path / "cache")
        np.testing.assert_allclose(shown, np.stack([ramp[:, 8:-8]] * 4), atol=1)
        assert split.errors() == {}
        for index, file in enumerate(files):
            with open(file, "wb") as opened:
                opened.write(b"no image")
            reason = split.errors()[index]
            assert repr(file) in reason
            assert "\n" not in reason
            reason.encode()  # can be printed

    def test_what_libjpeg_cannot_read_is_told_before_training(self, tmp_path, ramp):
        """Its beginning and its end are as they should be."""
        file = tmp_path / "image.jpg"
        PIL.Image.fromarray(ramp).save(file)
        contents = file.read_bytes()
        at = contents.index(b"\xff\xc0")
        for marker, bits in ((0xC0, 12), (0xC3, 8)):
            changed = bytearray(contents)
            changed[at + 1], changed[at + 4] = marker, bits
            file.write_bytes(changed)
            with pytest.raises(ValueError, match=r"image\.jpg' is not an image that can be read"):
                data.check_images([file])

    def test_what_only_libjpeg_can_read_is_the_same_everywhere(self, tmp_path, ramp):
        """Its header is told by libjpeg: it is coded as no other file."""
        exif = PIL.Image.Exif()
        exif[EXIF_ORIENTATION] = 6
        PIL.Image.fromarray(ramp).save(tmp_path / "image.jpg", exif=exif)
        contents = (tmp_path / "image.jpg").read_bytes().replace(b"\xff\xc0", b"\xff\xc9", 1)
        (tmp_path / "image.jpg").write_bytes(contents)
        header = read_header(tmp_path / "image.jpg")
        assert (header.width, header.height, header.orientation) == (48, 64, 6)
        shown = []
        for images in ([tmp_path / "image.jpg"], tf.data.Dataset.from_tensors(contents)):
            ((image, _),) = data.batches(data.Split(images, [0]), image_size=48)
            shown.append(image.numpy())
        np.testing.assert_array_equal(*shown)

    def test_a_huge_image_in_a_stream_is_refused(self, ramp):
        frames = io.BytesIO()
        PIL.Image.new("P", (1, 1)).save(frames, "GIF")
        contents = bytearray(frames.getvalue())
        at = contents.index(b",")
        contents[at + 5 : at + 9] = struct.pack("<HH", 14_000, 14_000)  # the screen stays 1 x 1
        split = data.Split(tf.data.Dataset.from_tensors(bytes(contents)), [0])
        reason = "it has 196000000 pixels, 178956970 are allowed"
        with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnknownError), match=reason):
            list(data.batches(split, image_size=9))
        assert reason in split.errors()[0]

    def test_damage_in_the_middle_shows_in_the_whole(self, tmp_path, ramp):
        PIL.Image.fromarray(ramp).save(tmp_path / "image.png")
        contents = bytearray((tmp_path / "image.png").read_bytes())
        contents[60:90] = bytes(30)
        (tmp_path / "image.png").write_bytes(contents)
        data.check_images([tmp_path / "image.png"])
        with pytest.raises(ValueError, match=r"image\.png' is not an image"):
            data.check_images([tmp_path / "image.png"], whole=True)

    def test_what_some_cameras_write_behind_an_image_is_no_damage(self, tmp_path, ramp):
        PIL.Image.fromarray(ramp).save(tmp_path / "image.jpg")
        with (tmp_path / "image.jpg").open("ab") as file:
            file.write(bytes(5000))
        data.check_images([tmp_path / "image.jpg"])

    def test_a_file_that_changed_is_looked_at_again(self, tmp_path, ramp):
        file = tmp_path / "image.png"
        PIL.Image.fromarray(ramp).save(file)
        assert read_header(file).width == 64
        PIL.Image.fromarray(ramp[:, :10]).save(file)
        assert read_header(file).width == 10

    def test_a_file_that_took_the_place_of_another_is_looked_at(self, tmp_path, ramp):
        """Of the same name, size and date, but turned otherwise."""
        files = [tmp_path / "one.png", tmp_path / "other.png"]
        for file, orientation in zip(files, (1, 3), strict=True):
            exif = PIL.Image.Exif()
            exif[EXIF_ORIENTATION] = orientation
            PIL.Image.fromarray(ramp).save(file, exif=exif)
            os.utime(file, (1, 1))
        assert read_header(files[0]).orientation == 1
        assert files[0].stat().st_size == files[1].stat().st_size
        files[1].replace(files[0])
        assert read_header(files[0]).orientation == 3


def test_what_a_folder_has_beside_images_is_told(tmp_path, caplog):
    for name in ("a.JFIF", "b.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "inner").mkdir()
    assert [file.name for file in data.image_files([tmp_path])] == ["a.JFIF", "b.png"]
    (message,) = caplog.messages
    assert "what is not an image by its suffix, 2 in all; the first is 'inner'" in message
