import errno
import hashlib
import io
import os
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from errors import one_line_error
from pictures import encoded, pixels, write_damaged, write_images, write_records
from sklearn.datasets import load_digits

from keras_resnet import data


def make_images(folder, counts, seed=0):
    """Write `counts` random PNG files into a folder a class."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (9, 12, 3), "uint8")
            PIL.Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


class TestDigits:
    def test_are_the_pixels_of_scikit_learn(self):
        digits = data.load("digits")
        splits = (digits.train, digits.validation, digits.test)
        ours = np.concatenate([split.images for split in splits]).reshape(-1, 64)
        theirs = np.round(load_digits().data * 255 / 16)
        assert len(ours) == 1797
        np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))

    def test_splits_depend_on_the_seed_alone(self):
        first, again, other = (data.load("digits", seed).test for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.images, again.images)
        assert (first.images != other.images).any()

    def test_every_class_is_in_every_split(self):
        digits = data.load("digits")
        for split, share in ((digits.test, 0.2), (digits.validation, 0.12)):
            counts = np.bincount(split.labels, minlength=10)
            assert counts.min() >= 0.9 * share * 174


class TestFolder:
    def test_splits_class_by_class(self, tmp_path):
        source = data.load(make_images(tmp_path / "pets", {"cat": 10, "dog": 20}))
        assert source.name == "pets"
        assert source.class_names == ("cat", "dog")
        files = [*source.train.images, *source.validation.images, *source.test.images]
        assert len(set(files)) == 30
        assert np.bincount(source.test.labels).tolist() == [2, 4]
        for split in (source.train, source.validation, source.test):
            for file, label in zip(split.images, split.labels, strict=True):
                assert file.parent.name == source.class_names[label]

    def test_keeps_the_splits_on_disk(self, tmp_path):
        make_images(tmp_path / "train", {"cat": 8, "dog": 8})
        make_images(tmp_path / "val", {"cat": 1, "dog": 1})
        make_images(tmp_path / "test", {"cat": 2, "dog": 3})
        source = data.load(tmp_path)
        assert (len(source.train), len(source.validation), len(source.test)) == (16, 2, 5)

    def test_makes_the_splits_that_are_missing(self, tmp_path):
        make_images(tmp_path / "train", {"cat": 20, "dog": 20})
        make_images(tmp_path / "test", {"cat": 2, "dog": 2})
        source = data.load(tmp_path)
        assert (len(source.train), len(source.validation), len(source.test)) == (34, 6, 4)

    def test_none_of_the_images_for_validation(self, tmp_path):
        make_images(tmp_path, {"cat": 10, "dog": 10})
        source = data.load(tmp_path, validation=0)
        assert (len(source.train), len(source.validation), len(source.test)) == (16, 0, 4)
        assert source.train.counts(2) == [8, 8]

    def test_passes_over_hidden_and_other_files(self, tmp_path):
        make_images(tmp_path, {"cat": 3, "dog": 3, ".cache": 1})
        (tmp_path / "cat" / "notes.txt").write_text("meow")
        (tmp_path / "cat" / ".DS_Store.png").write_text("")
        (tmp_path / "README").write_text("")
        source = data.load(tmp_path)
        assert len(source.train) + len(source.validation) + len(source.test) == 6

    def test_refuses_a_text_file_with_the_name_of_an_image(self, tmp_path):
        make_images(tmp_path, {"cat": 5, "dog": 5})
        (tmp_path / "dog" / "7.jpg").write_text("not a dog")
        with pytest.raises(ValueError, match=r"dog/7\.jpg' is not an image that can be read"):
            data.load(tmp_path)

    def test_refuses_formats_that_cannot_be_decoded(self, tmp_path):
        make_images(tmp_path, {"cat": 5, "dog": 5})
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / "dog" / "7.jpg", format="PPM")
        with pytest.raises(ValueError, match="a PPM file; use JPEG, PNG, GIF, BMP, WEBP, TIFF"):
            data.load(tmp_path)

    @pytest.mark.parametrize(
        ("counts", "complaint"),
        [
            ({}, "no folders of images in it"),
            ({"cat": 5}, "'cat' is the only class in it"),
            ({"cat": 5, "dog": 0}, "no images of 'dog'"),
            ({"cat": 5, "dog": 1}, "class 'dog' has too few images to split"),
        ],
    )
    def test_refuses_too_little(self, tmp_path, counts, complaint):
        with pytest.raises(ValueError, match=complaint):
            data.load(make_images(tmp_path, counts))

    def test_train_may_be_a_class(self, tmp_path):
        source = data.load(make_images(tmp_path, {"plane": 5, "train": 5, "test": 5}))
        assert source.class_names == ("plane", "test", "train")

    def test_refuses_splits_of_different_classes(self, tmp_path):
        make_images(tmp_path / "train", {"cat": 5, "dog": 5})
        make_images(tmp_path / "test", {"cat": 5, "dog": 5, "cow": 5})
        with pytest.raises(ValueError, match="an additional class 'cow'"):
            data.load(tmp_path)

    def test_refuses_what_is_not_there(self):
        with pytest.raises(ValueError, match="there is no such folder; it may also be 'digits'"):
            data.load("no/such/folder")


def contents(split):
    """The bytes of every image."""
    if isinstance(split.images, tf.data.Dataset):
        return list(split.images.as_numpy_iterator())
    return [file.read_bytes() for file in split.images]


def assert_is_split_whole(source, images, labels):
    """Every image is in one split, with its label, and every class in all of them."""
    expected = dict(zip(images, labels, strict=True))
    found = [
        pair
        for split in source.splits.values()
        for pair in zip(contents(split), split.labels.tolist(), strict=True)
    ]
    assert len(found) == len(expected)
    assert dict(found) == expected
    for split, share in ((source.test, 0.2), (source.validation, 0.8 * 0.15)):
        wanted = share * np.bincount(labels)
        assert np.abs(split.counts(len(source.class_names)) - wanted).max() <= 1


class TestDamage:
    def test_one_in_a_hundred_is_left_out_and_told(self, tmp_path):
        for label, name in enumerate(("cat", "dog")):
            write_images(tmp_path / name, 198, start=200 * label)
        damaged = write_damaged(tmp_path / "dog")
        source = data.load(tmp_path, on_error="skip")
        assert len(source.skipped) == len(damaged) == 4
        for message, file in zip(source.skipped, damaged, strict=True):
            assert message.startswith(f"{str(file)!r} is not an image that can be read: ")
            assert "\n" not in message
        assert_is_split_whole(
            source,
            [encoded(200 * label + index) for label in (0, 1) for index in range(198)],
            [0] * 198 + [1] * 198,
        )
        batches = data.batches(source.train, image_size=8, augmentation="photograph")
        assert sum(len(labels) for _, labels in batches) == len(source.train)

    def test_the_first_is_named(self, tmp_path):
        for name in ("cat", "dog"):
            write_images(tmp_path / name, 5)
        first, *_ = write_damaged(tmp_path / "dog")
        with one_line_error("is not an image that can be read", str(first)):
            data.load(tmp_path)

    def test_damage_in_the_middle_shows_when_it_is_to_be_skipped(self, tmp_path):
        for name in ("cat", "dog"):
            write_images(tmp_path / name, 5)
        hurt = bytearray(encoded(77))
        hurt[60:90] = bytes(30)
        (tmp_path / "cat" / "hurt.png").write_bytes(hurt)
        assert data.load(tmp_path).skipped == ()
        (message,) = data.load(tmp_path, on_error="skip").skipped
        assert "hurt.png" in message

    def test_splits_on_disk_tell_of_theirs(self, tmp_path):
        for split in ("train", "val", "test"):
            for name in ("cat", "dog"):
                write_images(tmp_path / split / name, 4)
                (tmp_path / split / name / "4.png").write_bytes(b"")
        source = data.load(tmp_path, on_error="skip")
        assert [len(split) for split in source.splits.values()] == [8, 8, 8]
        folders = [message.split("/")[-3:-1] for message in source.skipped]
        assert folders == [[s, n] for s in ("train", "val", "test") for n in ("cat", "dog")]

    def test_a_class_of_damaged_images_is_refused(self, tmp_path):
        write_images(tmp_path / "cat", 5)
        (tmp_path / "dog").mkdir()
        write_damaged(tmp_path / "dog")
        with one_line_error("no images of 'dog' for train but damaged ones"):
            data.load(tmp_path, on_error="skip")

    @pytest.mark.parametrize("on_error", ["raise", "skip"])
    def test_a_file_that_may_not_be_read_is_named(self, tmp_path, monkeypatch, on_error):
        for name in ("cat", "dog"):
            write_images(tmp_path / name, 5)
        secret = tmp_path / "cat" / "3.png"
        pillow_open = PIL.Image.open

        def guarded(file, *arguments):
            if str(file) == str(secret):
                raise PermissionError(errno.EACCES, "Permission denied", str(file))
            return pillow_open(file, *arguments)

        monkeypatch.setattr(PIL.Image, "open", guarded)
        message = f"{str(secret)!r} is not an image that can be read: Permission denied."
        if on_error == "skip":
            assert data.load(tmp_path, on_error="skip").skipped == (message,)
        else:
            with one_line_error(message):
                data.load(tmp_path)

    def test_may_be_raised_or_skipped(self):
        with one_line_error("on_error='ignore' must be one of 'raise', 'skip'"):
            data.load("digits", on_error="ignore")


class TestKaggle:
    """Files named after their classes, cat.0.jpg, and others to be named."""

    def write(self, folder, names, start=0):
        folder.mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            (folder / name).write_bytes(encoded(start + index, "JPEG"))

    def pets(self, count):
        return [f"{name}.{index}.jpg" for name in ("cat", "dog") for index in range(count)]

    def test_a_flat_folder(self, tmp_path):
        self.write(tmp_path / "pets", self.pets(20))
        source = data.load(tmp_path / "pets")
        assert (source.name, source.class_names) == ("pets", ("cat", "dog"))
        assert_is_split_whole(
            source, [encoded(index, "JPEG") for index in range(40)], [0] * 20 + [1] * 20
        )

    @pytest.mark.parametrize("unknown", ["test", "test1"])
    def test_images_to_be_named_are_in_no_split(self, tmp_path, unknown):
        self.write(tmp_path / "train", self.pets(20))
        self.write(tmp_path / unknown, [f"{index}.jpg" for index in range(1, 8)], start=100)
        source = data.load(tmp_path)
        assert_is_split_whole(
            source, [encoded(index, "JPEG") for index in range(40)], [0] * 20 + [1] * 20
        )

    def test_class_folders_beside_images_to_be_named(self, tmp_path):
        for name in ("cat", "dog"):
            write_images(tmp_path / "train" / name, 10)
        self.write(tmp_path / "test", ["1.jpg", "2.jpg"])
        source = data.load(tmp_path)
        assert sum(len(split) for split in source.splits.values()) == 20

    def test_every_split_may_be_flat(self, tmp_path):
        for split, count in (("train", 8), ("validation", 3), ("test", 5)):
            self.write(tmp_path / split, self.pets(count))
        source = data.load(tmp_path)
        assert [split.counts(2) for split in source.splits.values()] == [[8, 8], [3, 3], [5, 5]]
        for name, split in source.splits.items():
            for file, label in zip(split.images, split.labels, strict=True):
                assert file.parent.name == name
                assert file.name.startswith(source.class_names[label])

    def test_names_of_classes_may_have_spaces(self, tmp_path):
        names = ["big dog", "katze-ä"]
        self.write(tmp_path, [f"{name}.{index}.JPG" for name in names for index in range(4)])
        assert data.load(tmp_path).class_names == tuple(names)

    def test_images_without_classes_are_refused(self, tmp_path):
        self.write(tmp_path, ["1.jpg", "2.jpg", "cat.jpg"])
        with one_line_error("no folders of images in it", str(tmp_path)):
            data.load(tmp_path)

    def test_one_class_is_refused(self, tmp_path):
        self.write(tmp_path, ["cat.1.jpg", "cat.2.jpg"])
        with one_line_error("'cat' is the only class in it"):
            data.load(tmp_path)


class TestCSV:
    @pytest.fixture
    def table(self, tmp_path):
        """Writes a table beside a folder of 30 images."""
        write_images(tmp_path / "images", 30)

        def write(header, *rows, encoding="utf-8"):
            path = tmp_path / "pets.csv"
            path.write_bytes("\n".join((header, *rows, "")).encode(encoding))
            return path

        return write

    def test_a_quote_that_does_not_end_is_named(self, table):
        rows = self.rows()
        with one_line_error("pets.csv", "line"):
            data.load(table("path,label", '"' + "x" * 140_000, *rows))

    def rows(self, more=""):
        return [f"images/{index}.png,{('dog', 'cat')[index % 3 == 0]}{more}" for index in range(30)]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_without_splits(self, table, encoding):
        source = data.load(table("path,label", *self.rows(), encoding=encoding))
        assert (source.name, source.class_names) == ("pets", ("cat", "dog"))
        assert_is_split_whole(
            source,
            [encoded(index) for index in range(30)],
            [int(index % 3 != 0) for index in range(30)],
        )

    def test_with_splits(self, table):
        names = ["train", "", "val", "test", "validation"]
        rows = [f"{names[index // 6]},{row}" for index, row in enumerate(self.rows())]
        source = data.load(table("split,path,label", *rows))
        for split, indices in (
            (source.train, range(12)),
            (source.validation, [*range(12, 18), *range(24, 30)]),
            (source.test, range(18, 24)),
        ):
            assert contents(split) == [encoded(index) for index in indices]
            assert split.labels.tolist() == [int(index % 3 != 0) for index in indices]

    def test_one_split_of_them(self, table):
        rows = [
            f"{row},{'test' if index < 6 else 'train'}" for index, row in enumerate(self.rows())
        ]
        source = data.load(table("path,label,split", *rows))
        assert contents(source.test) == [encoded(index) for index in range(6)]
        assert (len(source.train), len(source.validation)) == (21, 3)

    def test_paths_may_be_absolute_and_columns_many(self, table, tmp_path):
        rows = [f'{index},{tmp_path}/{row},"a, b"' for index, row in enumerate(self.rows())]
        source = data.load(table("number,path,label,note", *rows))
        assert sum(len(split) for split in source.splits.values()) == 30

    def test_a_file_that_is_not_there(self, table, tmp_path):
        path = table("path,label", *self.rows(), "images/lost.png,cat", "other/lost.png,dog")
        first, second = (str(tmp_path / name) for name in ("images/lost.png", "other/lost.png"))
        reason = "is not an image that can be read: No such file or directory."
        with one_line_error(f"{first!r} {reason}"):
            data.load(path)
        source = data.load(path, on_error="skip")
        assert source.skipped == (f"{first!r} {reason}", f"{second!r} {reason}")
        assert sum(len(split) for split in source.splits.values()) == 30

    @pytest.mark.parametrize(
        ("lines", "complaints"),
        [
            (["file,label", "0.png,cat"], ["no column 'path'", "'file,label'"]),
            (["path;label", "0.png;cat"], ["no column 'path'", "Expected path,label"]),
            (["path,class", "0.png,cat"], ["no column 'label'"]),
            ([""], ["no column 'path'"]),
            (["path,label", "0.png,"], ["line 2: path or label is empty"]),
            (["path,label", "0.png,cat", "", ",cat"], ["line 4: path or label is empty"]),
            (["path,label", "0.png"], ["line 2: path or label is empty"]),
            (
                ["path,label,split", "0.png,cat,train", "1.png,dog,dev"],
                ["line 3: split 'dev' must be one of train, validation, val, test"],
            ),
            (["path,label", "0.png,cat"], ["'cat' is the only class in it"]),
            (["path,label,split", "0.png,cat,test", "1.png,dog,test"], ["no line has", "'train'"]),
        ],
    )
    def test_mistakes_name_the_line(self, table, lines, complaints):
        with one_line_error(*complaints, "pets.csv"):
            data.load(table(*lines))

    def test_a_class_that_is_in_one_split_alone(self, table):
        rows = self.rows(",train")
        path = table("path,label,split", *rows, "images/0.png,cow,test")
        with one_line_error("no images of 'cow' for train"):
            data.load(path)

    def test_another_encoding_is_named(self, table):
        path = table("path,label", *self.rows(), "images/1.png,schön", encoding="latin-1")
        with one_line_error("pets.csv", "is not text in UTF-8"):
            data.load(path)

    def test_no_such_file(self):
        with one_line_error("data 'no/such.csv': there is no such file"):
            data.load("no/such.csv")


class TestTFRecords:
    images = tuple(encoded(index, "JPEG" if index % 2 else "PNG") for index in range(60))
    labels = tuple(index % 3 for index in range(60))

    @pytest.mark.parametrize("name", ["pets.tfrecord", "pets.tfrecord.gz", "pets.tfrecords"])
    def test_are_split_class_by_class(self, tmp_path, name):
        source = data.load(write_records(tmp_path / name, self.images, self.labels))
        assert (source.name, source.class_names) == ("pets", ("0", "1", "2"))
        assert_is_split_whole(source, self.images, self.labels)

    def test_the_splits_depend_on_the_seed_alone(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", self.images, self.labels)
        first, again, other = (contents(data.load(path, seed).test) for seed in (1, 1, 2))
        assert first == again != other

    def test_small_images_stay_small(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", self.images, self.labels)
        assert (data.load(path).image_size, data.load(path).augmentation) == (9, "small photograph")
        large = [encoded(index, height=80, width=65) for index in range(60)]
        write_records(path, large, self.labels)
        assert (data.load(path).image_size, data.load(path).augmentation) == (224, "photograph")

    def test_a_pattern_and_names_that_tell_the_split(self, tmp_path):
        parts = {"train-0": range(20), "train-1": range(20, 36), "test": range(36, 48)}
        for part, indices in {**parts, "val": range(48, 60)}.items():
            write_records(
                tmp_path / f"pets-{part}.tfrecord.gz",
                [self.images[index] for index in indices],
                [self.labels[index] for index in indices],
            )
        write_records(tmp_path / "cows.tfrecord.gz", self.images, self.labels)
        (tmp_path / "labels.txt").write_text("cat\ndög\ncow\n", encoding="utf-8")
        source = data.load(f"{tmp_path}/pets-*.tfrecord.gz")
        assert (source.name, source.class_names) == ("pets", ("cat", "dög", "cow"))
        assert tuple(contents(source.train)) == self.images[:36]
        assert tuple(contents(source.test)) == self.images[36:48]
        assert tuple(contents(source.validation)) == self.images[48:]
        assert tuple(source.validation.labels) == self.labels[48:]

    @pytest.mark.parametrize("ending", ["*", "-*-of-*", "s-0000?-of-00002"])
    def test_shards_are_named_as_tensorflow_names_them(self, tmp_path, ending):
        plural = "s" * ending.startswith("s")
        for shard in range(2):
            write_records(
                tmp_path / f"pets.tfrecord{plural}-0000{shard}-of-00002",
                self.images[30 * shard :][:30],
                self.labels[30 * shard :][:30],
            )
        source = data.load(f"{tmp_path}/pets.tfrecord{ending}")
        assert source.name == "pets"
        assert_is_split_whole(source, self.images, self.labels)
        with one_line_error("there is no such file"):
            data.load(f"{tmp_path}/pets.tfrecord{plural}-00009-of-00002")

    def test_compressed_and_plain_files_do_not_mix(self, tmp_path):
        for suffix in ("", ".gz"):
            write_records(tmp_path / f"pets.tfrecord{suffix}", self.images, self.labels)
        with one_line_error("pets.tfrecord*", "some of the files end in .gz and some do not"):
            data.load(f"{tmp_path}/pets.tfrecord*")

    def test_labels_that_are_no_numbers_are_refused(self, tmp_path):
        path = tmp_path / "pets.tfrecord"
        features = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
            for name, content in (("image", self.images[0]), ("label", b"cat"))
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(example.SerializeToString())
        with pytest.raises(ValueError, match=r"label \(int64\)") as refusal:
            data.load(path)
        assert "{" not in str(refusal.value)

    def test_a_cut_file_is_refused(self, tmp_path):
        for name in ("pets.tfrecord", "pets.tfrecord.gz"):
            path = write_records(tmp_path / name, self.images, self.labels)
            path.write_bytes(path.read_bytes()[:-100])
            with one_line_error(name, "expected records with an image", "truncated record"):
                data.load(path)

    @pytest.mark.parametrize("name", ["letter.tfrecord", "letter.tfrecord.gz"])
    def test_other_files_are_refused(self, tmp_path, name):
        (tmp_path / name).write_text("Dear cat, " * 20)
        with one_line_error(name, "expected records with an image"):
            data.load(tmp_path / name)

    def test_other_records_are_refused(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", self.images, self.labels, image="picture")
        with one_line_error("pets.tfrecord", "expected records with an image", "image"):
            data.load(path)

    def test_a_folder_is_refused(self, tmp_path):
        (tmp_path / "pets.tfrecord").mkdir()
        with one_line_error("pets.tfrecord", "Is a directory"):
            data.load(tmp_path / "pets.tfrecord")

    def test_records_without_images_are_refused(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", [b"miaow"] * 60, self.labels)
        with one_line_error("pets.tfrecord", "its first image cannot be read"):
            data.load(path)
        write_records(path, [], [])
        with one_line_error("pets.tfrecord", "no images in it"):
            data.load(path)

    @pytest.mark.parametrize("name", ["lost.tfrecord", "lost-*.tfrecord.gz"])
    def test_no_such_file(self, tmp_path, name):
        with one_line_error(name, "there is no such file"):
            data.load(tmp_path / name)

    def test_labels_without_names_are_refused(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", self.images, self.labels)
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        with one_line_error("pets.tfrecord", "label 2 is not one of 0 to 1"):
            data.load(path)
        (tmp_path / "labels.txt").unlink()
        write_records(path, self.images, [label - 1 for label in self.labels])
        with one_line_error("pets.tfrecord", "labels[0]=-1 is negative"):
            data.load(path)
        write_records(path, self.images, [*self.labels[:-1], 2**40])
        with one_line_error("pets.tfrecord", "label 1099511627776, but only 60 images"):
            data.load(path)

    def test_one_class_is_refused(self, tmp_path):
        path = write_records(tmp_path / "pets.tfrecord", self.images, [0] * 60)
        with one_line_error("'0' is the only class in it"):
            data.load(path)

    def test_every_class_is_in_every_split(self, tmp_path):
        for split in ("train", "val", "test"):
            labels = [0 if split == "train" and label == 1 else label for label in self.labels]
            write_records(tmp_path / f"pets-{split}.tfrecord", self.images, labels)
        with one_line_error("no images of '1' for train"):
            data.load(f"{tmp_path}/pets-*.tfrecord")


@pytest.fixture(scope="class")
def offline():
    """A machine without a network."""

    def refuse(*_, **__):
        raise OSError("the network was used")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="class")
def prepared(offline, tmp_path_factory):
    """A folder of tensorflow-datasets with one data set, of three files."""
    import tensorflow_datasets as tfds

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = {
                "number": np.int64,
                "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "pet": tfds.features.ClassLabel(names=["dog", "cat"]),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("picture", "pet"),
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(0, 40), "test": self._generate_examples(40, 8)}

        def _generate_examples(self, start, count):
            for number in range(start, start + count):
                image = pixels(number)
                yield number, {"number": number, "picture": image, "pet": number % 2}

    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    builder = TinyPets(data_dir=folder)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    )
    assert len(list(builder.data_path.glob("*train*"))) == 3
    return builder


@pytest.mark.usefixtures("offline")
class TestTensorFlowDatasets:
    def numbers(self, split):
        """The number that each image was made of."""
        made = {pixels(number).tobytes(): number for number in range(48)}
        return [
            made[np.asarray(PIL.Image.open(io.BytesIO(image))).tobytes()]
            for image in contents(split)
        ]

    def test_a_folder_that_was_prepared(self, prepared):
        source = data.load(f"tfds:{prepared.data_path}")
        assert (source.name, source.class_names) == ("tiny_pets", ("dog", "cat"))
        assert (source.image_size, source.channels) == (9, 3)
        numbers = {name: self.numbers(split) for name, split in source.splits.items()}
        for name, split in source.splits.items():
            assert [number % 2 for number in numbers[name]] == split.labels.tolist()
        assert sorted(numbers["test"]) == list(range(40, 48))
        assert sorted(numbers["train"] + numbers["validation"]) == list(range(40))
        assert source.validation.counts(2) == [3, 3]

    def test_images_come_as_tensorflow_datasets_gives_them(self, prepared):
        split = data.load(f"tfds:{prepared.data_path}").test
        theirs = {
            int(record["number"]): (record["picture"], record["pet"])
            for record in prepared.as_dataset(split="test").as_numpy_iterator()
        }
        ours = data.batches(split, image_size=9, batch_size=1)
        for number, (image, label) in zip(self.numbers(split), ours, strict=True):
            picture, pet = theirs[number]
            np.testing.assert_array_equal(image[0], picture[:, 1:10])
            assert int(label[0]) == pet

    def test_a_name_in_the_folder_of_the_environment(self, prepared):
        script = (
            "import hashlib, sys; from keras_resnet import data; "
            "source = data.load('tfds:tiny_pets', seed=3); "
            "print([hashlib.md5(image).hexdigest() for split in source.splits.values()"
            " for image in split.images.as_numpy_iterator()])"
        )
        process = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "TFDS_DATA_DIR": str(prepared.data_path.parents[1])},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        source = data.load(f"tfds:{prepared.data_path}", seed=3)
        hashes = [
            hashlib.md5(image).hexdigest()
            for split in source.splits.values()
            for image in contents(split)
        ]
        assert process.stdout.strip() == str(hashes)

    @pytest.mark.parametrize(
        "name", ["no_such_data_set", "no such", "", "beans:9.9.9", "beans/lentils"]
    )
    def test_an_unknown_name_is_refused(self, name):
        with one_line_error(f"data 'tfds:{name}': "):
            data.load(f"tfds:{name}")

    def test_another_folder_is_refused(self, tmp_path):
        with one_line_error(str(tmp_path), "no folders of images in it"):
            data.load(f"tfds:{tmp_path}")

    def test_a_data_set_without_images_is_refused(self, tmp_path):
        import tensorflow_datasets as tfds

        class TinyLetters(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
                features = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, _):
                return {"train": [(0, {"text": "Dear cat,", "label": 0})]}

            def _generate_examples(self):
                raise NotImplementedError

        builder = TinyLetters(data_dir=tmp_path)
        builder.download_and_prepare()
        with one_line_error("tiny_letters", "has no images with labels, but ", "text"):
            data.load(f"tfds:{builder.data_path}")

    def test_a_folder_as_image_folder_wants_it(self, tmp_path):
        for split, count in (("train", 6), ("test", 3)):
            for name in ("cat", "dog"):
                write_images(tmp_path / split / name, count)
        source = data.load(f"tfds:{tmp_path}")
        import tensorflow_datasets as tfds

        theirs = tfds.ImageFolder(str(tmp_path))
        assert source.class_names == tuple(theirs.info.features["label"].names)
        (records,) = theirs.as_dataset(split="test", batch_size=6).as_numpy_iterator()
        files = {
            os.fsdecode(name): int(label)
            for name, label in zip(records["image/filename"], records["label"], strict=True)
        }
        assert files == {
            str(file): int(label)
            for file, label in zip(source.test.images, source.test.labels, strict=True)
        }


class TestWeights:
    def source(self, *counts):
        splits = {
            name: data.Split(
                np.zeros((sum(counts), 2, 2, 1), "uint8"), np.repeat(np.arange(len(counts)), counts)
            )
            for name in data.SPLITS
        }
        names = tuple("abcdef"[: len(counts)])
        return data.Source("letters", names, 1, 2, "handwriting", **splits)

    def test_are_those_by_hand(self):
        source = self.source(2, 6, 4)
        assert source.class_weight() == pytest.approx({0: 12 / 6, 1: 12 / 18, 2: 12 / 12})
        assert source.imbalance == 3

    @pytest.mark.parametrize("counts", [(5, 5), (1, 9), (7, 3, 3, 3)])
    def test_make_all_classes_count_alike(self, counts):
        weights = self.source(*counts).class_weight()
        assert sorted(weights) == list(range(len(counts)))
        shares = [weights[label] * count for label, count in enumerate(counts)]
        np.testing.assert_allclose(shares, sum(counts) / len(counts))
        assert all(type(weight) is float for weight in weights.values())


def test_some_of_a_split_are_the_same_wherever_it_is(tmp_path):
    write_images(tmp_path, 10)
    files = [tmp_path / f"{index}.png" for index in range(10)]
    labels = np.arange(10) % 3
    images = np.stack([pixels(index) for index in range(10)])
    stream = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])
    indices = np.array([1, 4, 5, 8])
    for kind in (images, files, stream):
        once = data.Split(kind, labels).take(indices)
        twice = once.take(np.array([0, 2, 3]))
        for split, expected in ((once, [1, 4, 5, 8]), (twice, [1, 5, 8])):
            shown, shown_labels = next(iter(data.batches(split, image_size=9)))
            np.testing.assert_array_equal(shown, images[expected][:, :, 1:10])
            assert shown_labels.numpy().tolist() == labels[expected].tolist()


def test_damaged_records_are_left_out(tmp_path):
    contents = [encoded(index) for index in range(20)]
    contents[13] = contents[13][:40]
    file = write_records(tmp_path / "pets.tfrecord", contents, [index % 2 for index in range(20)])
    source = data.load(file, on_error="skip")
    (told,) = source.skipped
    assert "train: image 13 (counted from 0) cannot be read" in told
    kept = [each for split in source.splits.values() for each in split.images.as_numpy_iterator()]
    assert sorted(kept) == sorted(contents[:13] + contents[14:])
    found = [split.errors() for split in data.load(file).splits.values()]
    assert sorted(map(len, found)) == [0, 0, 1]
