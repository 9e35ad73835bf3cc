"""Small images, each one another, in every place that a source may be."""

import io

import numpy as np
import PIL.Image
import tensorflow as tf


def pixels(number, height=9, width=12):
    """The image of a number: noise."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), "uint8")


def encoded(number, kind="PNG", **options):
    """The contents of an image's file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels(number, **options)).save(buffer, kind)
    return buffer.getvalue()


def write_images(folder, count, start=0):
    """Write 0.png, 1.png, ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index}.png").write_bytes(encoded(start + index))


def write_damaged(folder):
    """Write one file of every damage there is; returns them in order of name."""
    (folder / "zz_cut.png").write_bytes(encoded(0)[:-20])
    (folder / "zz_empty.png").write_bytes(b"")
    (folder / "zz_renamed.png").write_text("a letter")
    without_pixels = bytearray(encoded(0))
    without_pixels[16:24] = bytes(8)  # width and height
    (folder / "zz_without_pixels.png").write_bytes(without_pixels)
    return sorted(folder.glob("zz_*"))


def write_records(path, images, labels, image="image"):
    """Write a TFRecord file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compression = "GZIP" if path.name.endswith(".gz") else ""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for contents, label in zip(images, labels, strict=True):
            features = {
                image: tf.train.Feature(bytes_list=tf.train.BytesList(value=[contents])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path
