"""The same image has the same pixels, wherever it comes from."""

import io
import struct
from dataclasses import dataclass

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from exported import signatures
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from pictures import write_records

from keras_resnet import data
from keras_resnet.data.images import header_of

SIZE = 12
ORIENTATION = 0x0112
# What was done to an upright image to store it in every orientation, and undoes it.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[::-1],
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: image.swapaxes(0, 1)[:, ::-1],
}


@dataclass(frozen=True)
class Kind:
    """A way to store an image: Pillow's format and mode, whether exactly, and what can be told."""

    format: str
    mode: str = "RGB"
    exact: bool = True
    turned: bool = True
    served: bool = True
    options: tuple = ()


KINDS = {
    "JPEG": Kind("JPEG", exact=False),
    "progressive": Kind("JPEG", exact=False, options=(("progressive", True), ("subsampling", 0))),
    "grey JPEG": Kind("JPEG", "L", exact=False),
    "CMYK JPEG": Kind("JPEG", "CMYK", exact=False),
    "PNG": Kind("PNG"),
    "grey PNG": Kind("PNG", "L"),
    "PNG of 16 bits": Kind("PNG", "I;16"),
    "PNG of a palette": Kind("PNG", "P"),
    "PNG of 2 colours": Kind("PNG", "1"),
    "PNG with alpha": Kind("PNG", "RGBA"),
    "grey PNG with alpha": Kind("PNG", "LA"),
    "GIF": Kind("GIF", "P", turned=False),
    "BMP": Kind("BMP", turned=False),
    "BMP with alpha": Kind("BMP", "RGBA", turned=False),
    "BMP of a palette": Kind("BMP", "P", turned=False, served=False),
    "grey BMP": Kind("BMP", "L", turned=False, served=False),
    "BMP of 2 colours": Kind("BMP", "1", turned=False, served=False),
    "WebP": Kind("WEBP", served=False, options=(("lossless", True),)),
    "lossy WebP": Kind("WEBP", exact=False, served=False),
    "WebP with alpha": Kind("WEBP", "RGBA", served=False, options=(("lossless", True),)),
    "TIFF": Kind("TIFF", served=False),
    "TIFF of a palette": Kind("TIFF", "P", served=False),
    "packed TIFF": Kind("TIFF", served=False, options=(("compression", "tiff_lzw"),)),
    "TIFF of 16 bits": Kind("TIFF", "I;16", served=False),
}


def as_mode(pixels, mode):
    """An image in a mode of Pillow, and the RGB pixels that it stands for."""
    grey = pixels[..., 0]
    if mode == "I;16":
        deep = grey.astype("uint16") * 256 + pixels[..., 1]  # the lower byte is noise
        return PIL.Image.fromarray(deep), np.repeat(grey[..., None], 3, -1)
    if mode in ("L", "LA", "1", "P"):
        grey = grey // 128 * 255 if mode == "1" else grey
        image = PIL.Image.fromarray(grey)
        if mode == "P":
            colours = np.random.default_rng(0).integers(0, 256, (256, 3), "uint8")
            image.putpalette(colours.tobytes())
            return image, colours[grey]
        return image.convert(mode), np.repeat(grey[..., None], 3, -1)
    if mode == "RGBA":
        opaque = np.full((*grey.shape, 1), 255, "uint8")
        return PIL.Image.fromarray(np.concatenate([pixels, opaque], -1)), pixels
    return PIL.Image.fromarray(pixels).convert(mode), pixels


def picture(seed, kind, orientation, size):
    """The contents of a file, and the upright image that it shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), "uint8")
    stored = STORED[orientation if kind.turned else 1](noise)
    image, _ = as_mode(stored, kind.mode)
    _, shown = as_mode(noise, kind.mode)
    options = dict(kind.options)
    if kind.turned:
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind.format, **options)
    return buffer.getvalue(), shown


def sources(folder, contents):
    """A source of a folder, a CSV file and TFRecord files, each with these images as its test."""
    labels = [number >= len(contents) // 2 for number in range(len(contents))]
    training = [picture(number, KINDS["PNG"], 1, (9, 9))[0] for number in range(8)]
    splits = {"train": (training, [number % 2 for number in range(8)]), "test": (contents, labels)}
    lines = ["path,label,split"]
    for split, (images, classes) in splits.items():
        for number, (image, label) in enumerate(zip(images, classes, strict=True)):
            file = folder / split / "ab"[label] / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
            lines.append(f"{file.relative_to(folder)},{'ab'[label]},{split}")
        write_records(folder / f"pets-{split}.tfrecord", images, map(int, classes))
    (folder / "pets.csv").write_text("\n".join(lines))
    for name in ("", "pets.csv", "pets-*.tfrecord"):
        yield data.load(f"{folder}/{name}", validation=0)


def seen(split, channels=3):
    """All images of a split as a model is shown them."""
    batches = data.batches(split, image_size=SIZE, channels=channels, batch_size=1000)
    ((images, _),) = batches
    return images.numpy()


@pytest.fixture(scope="module")
def model():
    """A model in which every pixel counts."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(7, activation="softmax")(x))


@pytest.fixture(scope="module")
def classify(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return signatures(model, folder, preprocessing="raw", top=7, crop=1.0)["classify_bytes"]


def assert_one_picture(folder, model, classify, drawn, size):
    """Everything that is said of images agrees: `drawn` are (kind, orientation)."""
    made = [
        picture(seed, KINDS[kind], orientation, size)
        for seed, (kind, orientation) in enumerate(drawn)
    ]
    contents = [each for each, _ in made]
    loaded = list(sources(folder, contents))
    images = [seen(source.test) for source in loaded]
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])
    exact = [KINDS[kind].exact for kind, _ in drawn]
    if any(exact):
        upright = np.stack([shown for _, shown in made])[exact]
        shown = seen(data.Split(upright, np.zeros(len(upright), int)))
        np.testing.assert_allclose(images[0][exact], shown, atol=1e-4)
    for each, (_, shown) in zip(contents, made, strict=True):
        header = header_of(each)
        assert (header.height, header.width) == shown.shape[:2]
    served = [index for index, (kind, _) in enumerate(drawn) if KINDS[kind].served]
    if served:
        answer = classify([contents[index] for index in served])
        expected = model.predict(images[0][served], verbose=0)
        expected = np.take_along_axis(expected, answer["labels"].astype(int), 1)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    others = {kind: each for (kind, _), each in zip(drawn, contents, strict=True)}
    for kind, each in others.items():
        if not KINDS[kind].served:
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"image.*0.*is "):
                classify([each])


def test_of_every_kind_in_every_orientation(tmp_path, model, classify):
    drawn = [(kind, 1 + (number + offset) % 8)
             for number, kind in enumerate(KINDS)
             for offset in (range(8) if KINDS[kind].turned else (0,))]  # fmt: skip
    assert_one_picture(tmp_path, model, classify, drawn, (15, 22))


@settings(max_examples=3, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([*KINDS]), st.integers(1, 8)), min_size=2, max_size=12),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_of_any_size(tmp_path_factory, model, classify, drawn, size):
    assert_one_picture(tmp_path_factory.mktemp("images"), model, classify, drawn, size)


def test_jpegs_are_what_pillow_shows(tmp_path):
    y, x = np.mgrid[:40, :56]
    smooth = np.stack((4 * x, 5 * y, 128 + x - y), -1).clip(0, 255).astype("uint8")
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        for kind in ("JPEG", "WEBP"):
            PIL.Image.fromarray(STORED[orientation](smooth)).save(
                tmp_path / f"{orientation}.{kind}", kind, exif=exif, quality=95
            )
    files = sorted(tmp_path.iterdir())
    shown = seen(data.Split(files, np.zeros(len(files), int)))
    truth = seen(data.Split(smooth[None], [0]))
    assert np.abs(shown - truth).mean() < 2


def test_grey_models_see_one_grey(tmp_path):
    drawn = [(kind, 6) for kind in ("PNG", "grey PNG", "PNG of 16 bits", "TIFF of 16 bits")]
    made = [
        picture(seed, KINDS[kind], turned, (9, 14)) for seed, (kind, turned) in enumerate(drawn)
    ]
    images = [seen(source.test, 1) for source in sources(tmp_path, [each for each, _ in made])]
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])
    grey = np.stack([shown[..., :1] for _, shown in made[1:]])
    np.testing.assert_allclose(images[0][1:], seen(data.Split(grey, [0, 0, 0]), 1), atol=1e-4)


def tiff(pixels, bits, sample=1, photometric=1, order="<", width=None):
    """A TIFF file of one channel with any bits, types of numbers, and meanings of them."""
    height, body = len(pixels), pixels.tobytes()
    width = width or pixels.shape[1]
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8),
            (277, 1), (278, height), (279, len(body)), (339, sample)]  # fmt: skip
    return (
        {"<": b"II*\0", ">": b"MM\0*"}[order]
        + struct.pack(order + "I", 8 + len(body))
        + body
        + struct.pack(order + "H", len(tags))
        + b"".join(
            struct.pack(order + "HHI", tag, 4, 1) + struct.pack(order + "I", value)
            if tag in (273, 279)
            else struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
            for tag, value in tags
        )
        + bytes(4)
    )


RAMP = np.arange(6 * 8).reshape(6, 8)
DEEP = 1000 * RAMP


def twelve_bits(values):
    """Two numbers in three bytes."""
    first, second = values[:, ::2], values[:, 1::2]
    parts = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    return np.stack(parts, -1).reshape(len(values), -1).astype("uint8")


SHADES = {
    "16 bits": (tiff(DEEP.astype("<u2"), 16), DEEP >> 8),
    "16 bits, big-endian": (tiff(DEEP.astype(">u2"), 16, order=">"), DEEP >> 8),
    "16 bits, all dark": (tiff(RAMP.astype("<u2"), 16), RAMP >> 8),
    "16 bits, white is 0": (tiff(DEEP.astype("<u2"), 16, photometric=0), 255 - (DEEP >> 8)),
    "12 bits": (tiff(twelve_bits(80 * RAMP), 12, width=8), 80 * RAMP >> 4),
    "8 bits, white is 0": (tiff(RAMP.astype("uint8"), 8, photometric=0), 255 - RAMP),
}


def test_deep_images_have_a_scale_of_their_own(tmp_path):
    """Each by its format, not by the numbers that happen to be in it."""
    contents = [each for each, _ in SHADES.values()]
    right = np.stack([np.repeat(shown[..., None], 3, -1) for _, shown in SHADES.values()])
    files = [tmp_path / name for name in SHADES]
    for file, each in zip(files, contents, strict=True):
        file.write_bytes(each)
    labels = np.zeros(len(files), int)
    expected = seen(data.Split(right.astype("uint8"), labels))
    for images in (files, tf.data.Dataset.from_tensor_slices(contents)):
        shown = seen(data.Split(images, labels))
        for name, one, other in zip(SHADES, shown, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4, err_msg=name)


NO_SCALE = {
    "floats of 0 to 1": tiff((RAMP / 47).astype("<f4"), 32, sample=3),
    "floats of 0 to 255": tiff((RAMP * 5).astype("<f4"), 32, sample=3),
    "32 bits": tiff(RAMP.astype("<i4") * 5, 32, sample=2),
    "32 bits without a sign": tiff(RAMP.astype("<u4") * 5, 32),
    "16 bits with a sign": tiff(RAMP.astype("<i2") * 5, 16, sample=2),
    "8 bits with a sign": tiff(RAMP.astype("i1"), 8, sample=2),
}
REASON = "nothing says what black and white are: convert it to 8 or 16 bits"


@pytest.mark.parametrize("kind", NO_SCALE)
def test_numbers_without_a_scale_are_refused(tmp_path, kind):
    """Before, floats of 0 to 1 became black without a word."""
    file = tmp_path / "one.tiff"
    file.write_bytes(NO_SCALE[kind])
    with one_line_error(str(file), REASON):
        data.check_images([file])
    with one_line_error("cannot be read: its pixels are floats, signed, or of 32 bits", REASON):
        header_of(NO_SCALE[kind])


def test_numbers_without_a_scale_are_refused_everywhere(tmp_path, classify):
    good = [picture(number, KINDS["PNG"], 1, (9, 9))[0] for number in range(3)]
    contents = [*good, NO_SCALE["floats of 0 to 1"]]
    with one_line_error("test/b/003.png' is not an image", REASON):
        next(sources(tmp_path, contents))
    skipped = data.load(tmp_path, on_error="skip", validation=0)
    assert len(skipped.test) == 3
    assert any("003.png" in line and REASON in line for line in skipped.skipped)
    split = data.Split(tf.data.Dataset.from_tensor_slices(contents), [0] * 4)
    ((index, reason),) = split.errors().items()
    assert (index, REASON in reason) == (3, True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnknownError), match=REASON):
        seen(split)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is none of JPEG"):
        classify(contents)
