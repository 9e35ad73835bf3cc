import errno
import os
import pathlib
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from pictures import encoded, pixels, write_images

from keras_resnet import data

COUNT = 12


@pytest.fixture
def files(tmp_path):
    """Images of many sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{index}.png" for index in range(COUNT)]
    for index, path in enumerate(paths):
        path.write_bytes(encoded(index, height=10 + index, width=25 - index))
    return paths


def split_of(images):
    return data.Split(images, np.arange(COUNT) % 3)


def shown(split, **options):
    """All images and labels."""
    options = {"image_size": 8, "batch_size": 5, **options}
    images, labels = zip(*data.batches(split, **options).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def changed_in_secret(path, number):
    """Write another image of the same size into a file, whose date stays."""
    before = path.stat()
    contents = path.read_bytes()
    height, width = np.frombuffer(contents[16:24], ">u4")[::-1]
    path.write_bytes(encoded(number, height=int(height), width=int(width)))
    # A PNG file of noise is not compressed: its length depends on its size alone.
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def names(folder):
    return sorted(file.name for file in folder.iterdir())


VIEWS = (
    {},
    {"crop": 0.875},
    {"channels": 1},
    {"augmentation": "photograph", "epochs": range(1, 3), "image_size": 30},
    {"augmentation": "small photograph", "epochs": range(2)},
)


@pytest.mark.parametrize("options", VIEWS, ids=str)
def test_images_are_the_same_in_memory_and_on_disk(files, tmp_path, options):
    split = split_of(files)
    images, labels = shown(split, cache="memory", **options)
    for _ in ("written", "found again"):
        again, labels_again = shown(split, cache=tmp_path / "cache", **options)
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    assert len(names(tmp_path / "cache")) == 1
    plain, plain_labels = shown(split, **options)
    np.testing.assert_array_equal(labels, plain_labels)
    # Evaluation keeps what it shows as whole numbers.
    assert np.abs(images - plain).max() <= 0.5 + 1e-3


def test_large_images_are_kept_as_256_pixels_for_224(tmp_path):
    y, x = np.mgrid[:100, :150]
    ramp = np.stack((2.55 * y, 1.7 * x, 255 - 2.55 * y), -1).astype("uint8")
    split = data.Split(np.stack([ramp] * 20), np.zeros(20, int))
    options = {"image_size": 28, "augmentation": "photograph", "epochs": range(1)}
    images, _ = shown(split, cache=tmp_path / "cache", **options)
    (folder,) = (tmp_path / "cache").iterdir()
    kept = sum(file.stat().st_size for file in folder.iterdir())
    assert 20 * 32 * 48 * 3 <= kept < 20 * 32 * 48 * 3 + 1000
    plain, _ = shown(split, **options)
    assert np.abs(images - plain).max() < 12
    assert np.abs(images - images[:1]).max() > 50


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_files_are_needed_for_the_first_epoch_alone(files, tmp_path, where):
    cache = "memory" if where == "memory" else tmp_path / "cache"
    options = {"augmentation": "photograph", "epochs": range(3)}
    expected, _ = shown(split_of(files), image_size=30, **options)
    dataset = data.batches(
        split_of(files), image_size=30, batch_size=5, cache=cache, **options
    ).as_numpy_iterator()
    first, _ = next(dataset)
    for file in files:
        file.unlink()
    rest = [images for images, _ in dataset]
    np.testing.assert_array_equal(np.concatenate([first, *rest]), expected)


def test_later_runs_find_it_again(files, tmp_path):
    before, _ = shown(split_of(files), cache=tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    written = (folder / "pixels.bin").stat()
    elsewhere = shutil.copytree(tmp_path / "images", tmp_path / "moved")
    for images in (files, [elsewhere / file.name for file in files]):
        after, _ = shown(split_of(images), cache=tmp_path / "cache")
        np.testing.assert_array_equal(before, after)
    assert len(names(tmp_path / "cache")) == 1
    assert (folder / "pixels.bin").stat().st_ino == written.st_ino


def test_images_that_changed_are_decoded_again(files, tmp_path):
    cache = tmp_path / "cache"
    shown(split_of(files), cache=cache)
    changed_in_secret(files[3], 100)
    images, _ = shown(split_of(files), cache=cache)
    expected, _ = shown(split_of(files))
    assert np.abs(images - expected).max() <= 0.5 + 1e-3

    status = files[5].stat()
    files[5].write_bytes(encoded(101, height=40, width=40))
    os.utime(files[5], ns=(status.st_atime_ns, status.st_mtime_ns))
    images, _ = shown(split_of(files), cache=cache)
    expected, _ = shown(split_of(files))
    assert np.abs(images - expected).max() <= 0.5 + 1e-3
    assert len(names(cache)) == 3


def test_every_view_and_every_choice_of_images_has_its_own(files, tmp_path):
    cache = tmp_path / "cache"
    split = split_of(files)
    for number, (images, options) in enumerate(
        [
            (split, {}),
            (split, {"image_size": 9}),
            (split, {"crop": 0.5}),
            (split, {"channels": 1}),
            (split, {"augmentation": "photograph", "epochs": range(1)}),
            (split.take(np.arange(6)), {}),
            (split.take(np.arange(COUNT)[::-1]), {}),
            (data.Split(files, np.arange(COUNT) % 2), {}),
        ],
        start=1,
    ):
        images, labels = shown(images, cache=cache, **options)
        assert len(names(cache)) == number
    assert labels.tolist() == [0, 1] * 6


@pytest.mark.parametrize("name", ["pixels.bin", "shapes.npy"])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_damaged_one_is_named(files, tmp_path, name, keep):
    cache = tmp_path / "cache"
    shown(split_of(files), cache=cache)
    (file,) = cache.glob(f"*/{name}")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with one_line_error(f"cache {str(file.parent)!r} is cut off or damaged", "Remove it."):
        shown(split_of(files), cache=cache)


@pytest.mark.parametrize("way", ["arrays", "stream"])
def test_other_kinds_of_splits_are_kept_too(tmp_path, way):
    def split(start):
        numbers = range(start, start + COUNT)
        if way == "arrays":
            return split_of(np.stack([pixels(number) for number in numbers]))
        contents = [encoded(number, height=9 + number % 2) for number in numbers]
        return split_of(tf.data.Dataset.from_tensor_slices(contents))

    for start in (0, 50):
        expected, expected_labels = shown(split(start))
        for cache in ("memory", tmp_path / "cache", tmp_path / "cache"):
            images, labels = shown(split(start), cache=cache)
            assert np.abs(images - expected).max() <= 0.5 + 1e-3
            np.testing.assert_array_equal(labels, expected_labels)
    assert len(names(tmp_path / "cache")) == 2


def test_the_same_bytes_in_another_shape_are_other_images(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, COUNT * 8 * 16 * 3, "uint8")
    for shape in ((8, 16), (16, 8)):
        split = split_of(values.reshape(COUNT, *shape, 3))
        images, _ = shown(split, cache=tmp_path / "cache")
        np.testing.assert_array_equal(images, shown(split)[0])


class TestFailure:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("after", [0, 7])
    def test_a_full_disk_is_said_and_nothing_is_left(
        self, files, tmp_path, monkeypatch, number, after
    ):
        path_open = pathlib.Path.open

        class Disk:
            def __init__(self, file):
                self.file, self.left = file, after

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, contents):
                if not self.left:
                    raise OSError(number, os.strerror(number))
                self.left -= 1
                return self.file.write(contents)

        def open_path(path, mode="r", *arguments, **options):
            file = path_open(path, mode, *arguments, **options)
            return Disk(file) if "w" in mode else file

        monkeypatch.setattr(pathlib.Path, "open", open_path)
        cache = tmp_path / "cache"
        with one_line_error(f"cache {str(cache)!r} cannot be written", "the disk is full"):
            shown(split_of(files), cache=cache)
        assert names(cache) == []
        monkeypatch.undo()
        shown(split_of(files), cache=cache)

    def test_of_the_last_file_leaves_nothing(self, files, tmp_path, monkeypatch):
        def save(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(np, "save", save)
        with one_line_error("cannot be written", "the disk is full"):
            shown(split_of(files), cache=tmp_path / "cache")
        assert names(tmp_path / "cache") == []

    @pytest.mark.parametrize("below", ["", "folder"])
    def test_a_file_in_its_place_is_named(self, files, tmp_path, below):
        (tmp_path / "file").write_text("here")
        cache = tmp_path / "file" / below
        with one_line_error(f"cache {str(cache)!r} cannot be written"):
            shown(split_of(files), cache=cache)
        assert (tmp_path / "file").read_text() == "here"

    def test_a_damaged_image_leaves_nothing(self, files, tmp_path):
        contents = bytearray(files[5].read_bytes())
        contents[60:90] = bytes(30)
        files[5].write_bytes(contents)
        with pytest.raises(tf.errors.InvalidArgumentError):
            shown(split_of(files), cache=tmp_path / "cache")
        assert names(tmp_path / "cache") == []

    def test_a_writer_that_was_killed_is_no_cache(self, tmp_path):
        write_images(tmp_path / "images", COUNT)
        cache = tmp_path / "cache"
        script = (
            "import os, pathlib, signal, sys, numpy as np; from keras_resnet import data; "
            "np.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
            f"files = [pathlib.Path(sys.argv[1], f'{{i}}.png') for i in range({COUNT})]; "
            f"split = data.Split(files, np.arange({COUNT}) % 3); "
            "data.batches(split, image_size=8, cache=sys.argv[2])"
        )
        process = subprocess.run(
            [sys.executable, "-c", script, tmp_path / "images", cache], capture_output=True
        )
        assert process.returncode == -9
        left = names(cache)
        assert all(name.startswith(".") for name in left)
        assert any(any(path.iterdir()) for path in cache.iterdir() if path.is_dir())
        split = split_of([tmp_path / "images" / f"{index}.png" for index in range(COUNT)])
        images, _ = shown(split, cache=cache)
        np.testing.assert_array_equal(images, shown(split, cache="memory")[0])
        (made,) = names(cache)  # what was left is gone
        assert not made.startswith(".")


def test_of_two_runs_one_writes_it_and_the_other_waits(files, tmp_path, monkeypatch):
    numpy_save, saved, pool = np.save, [], ThreadPoolExecutor(1)

    def look():
        return shown(split_of(files), cache=tmp_path / "cache")

    def save(*arguments):
        saved.append(pool.submit(look))
        time.sleep(0.5)
        assert not saved[0].done()
        numpy_save(*arguments)

    monkeypatch.setattr(np, "save", save)
    images, labels = look()
    (other,) = saved
    other_images, other_labels = other.result()
    np.testing.assert_array_equal(images, other_images)
    np.testing.assert_array_equal(labels, other_labels)
    assert len(names(tmp_path / "cache")) == 1
