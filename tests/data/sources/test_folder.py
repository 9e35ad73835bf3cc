import ast
import builtins
import errno
import itertools
import os
import re
import tempfile
from pathlib import Path

import PIL.Image
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, write_damaged, write_images
from splits import assert_is_split_whole, make_images

from keras_resnet import data


class TestFolder:
    def test_splits_class_by_class(self, tmp_path):
        source = data.load(make_images(tmp_path / "pets", {"cat": 10, "dog": 20}))
        assert source.name == "pets"
        assert source.class_names == ("cat", "dog")
        files = [*source.train.images, *source.validation.images, *source.test.images]
        assert len(set(files)) == 30
        assert min(source.test.counts(2)) >= 1
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
        assert len(source.test) == 4
        assert len(source.train) + len(source.validation) == 40
        assert min(source.validation.counts(2)) >= 1

    def test_none_of_the_images_for_validation(self, tmp_path):
        make_images(tmp_path, {"cat": 10, "dog": 10})
        source = data.load(tmp_path, validation=0)
        assert len(source.validation) == 0
        assert len(source.train) + len(source.test) == 20
        assert min(source.test.counts(2)) >= 1

    def test_passes_over_hidden_and_other_files(self, tmp_path):
        make_images(tmp_path, {"cat": 3, "dog": 3, ".cache": 1})
        (tmp_path / "cat" / "notes.txt").write_text("meow")
        (tmp_path / "cat" / ".DS_Store.png").write_text("")
        (tmp_path / "README").write_text("BM, a car")
        source = data.load(tmp_path)
        assert len(source.train) + len(source.validation) + len(source.test) == 6
        unknown = "not an image, by its suffix and its first bytes."
        assert {*source.skipped} == {
            f"{str(tmp_path / '.cache')!r}: a hidden folder: 1 file.",
            f"{str(tmp_path / 'README')!r}: {unknown}",
            f"{str(tmp_path / 'cat' / 'notes.txt')!r}: {unknown}",
            f"{str(tmp_path / 'cat' / '.DS_Store.png')!r}: a hidden file.",
        }
        assert source.notes == ()

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
            (
                {"cat": 5, "dog": 0},
                r"'cat' is the only class in it.*There are no images in 'dog'\.",
            ),
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
        plain_open = builtins.open

        def guarded(file, *arguments, **options):
            if str(file) == str(secret):
                raise PermissionError(errno.EACCES, "Permission denied", str(file))
            return plain_open(file, *arguments, **options)

        monkeypatch.setattr(builtins, "open", guarded)
        message = f"{str(secret)!r} is not an image that can be read: Permission denied."
        if on_error == "skip":
            assert data.load(tmp_path, on_error="skip").skipped == (message,)
        else:
            with one_line_error(message):
                data.load(tmp_path)


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


def files_of(source):
    """The files of every split, as they are called below the folder of the data."""
    return {
        name: sorted(file.as_posix().split("/data/", 1)[1] for file in split.images)
        for name, split in source.splits.items()
    }


@pytest.fixture
def put(tmp_path):
    """Writes images, each one another, to paths below a folder; returns the folder."""
    made = itertools.count()

    def put(*paths, kind="PNG"):
        for path in paths:
            file = tmp_path / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(next(made), kind))
        return tmp_path / "data"

    return put


def of_classes(*folders, count=5, classes=("cat", "dog")):
    """Paths of images: a few of each class in each folder."""
    places = itertools.product(folders, classes, range(count))
    return [os.path.normpath(f"{folder}/{name}/{index}.png") for folder, name, index in places]


def reasons(source):
    return sorted(line.rsplit("': ", 1)[1] for line in source.skipped)


class TestWhatIsFound:
    """In every folder, of every suffix."""

    def test_images_in_folders_of_a_class(self, put):
        folder = put(*of_classes("."), "cat/2019/a.png", "dog/2019/may/b.png", "dog/x.jpg/c.png")
        source = data.load(folder)
        assert (source.skipped, source.notes) == ((), ())
        assert sum(map(len, source.splits.values())) == 13
        labels = {
            file.name: label
            for split in source.splits.values()
            for file, label in zip(split.images, split.labels, strict=True)
        }
        assert (labels["a.png"], labels["b.png"], labels["c.png"]) == (0, 1, 1)

    @pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".JPG", ".jpg_large", "", ".1", ".bak"])
    def test_jpeg_files_of_any_suffix(self, put, suffix):
        folder = put(*of_classes("."))
        put(f"cat/new{suffix}", f"dog/new{suffix}", kind="JPEG")
        source = data.load(folder)
        assert sum(map(len, source.splits.values())) == 12
        assert source.skipped == ()

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF"])
    def test_the_first_bytes_tell_an_image(self, put, kind):
        folder = put(*of_classes("."))
        put("cat/image", kind=kind)
        assert sum(map(len, data.load(folder).splits.values())) == 11

    def test_what_begins_as_an_image_and_is_none_is_refused(self, put):
        folder = put(*of_classes("."))
        (folder / "cat" / "half.part").write_bytes(encoded(7, "JPEG")[:100])
        with one_line_error("half.part' is not an image that can be read"):
            data.load(folder)
        (line,) = data.load(folder, on_error="skip").skipped
        assert "half.part" in line

    def test_camera_files_begin_as_tiff_files_do(self, put):
        folder = put(*of_classes("."))
        put("cat/photo.NEF", kind="TIFF")
        source = data.load(folder)
        (line,) = source.skipped
        assert "photo.NEF': a camera's raw image, which is not read; use JPEG" in line
        assert source.notes == (
            "1 image not used, in a format that is not read; the first is 'cat/photo.NEF'.",
        )

    def test_links_are_followed_but_not_in_a_circle(self, put, tmp_path):
        folder = put(*of_classes("."))
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "more.png").write_bytes(encoded(99))
        (folder / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
        (folder / "dog" / "round").symlink_to(folder)
        (folder / "dog" / "gone.txt").symlink_to(tmp_path / "gone")
        source = data.load(folder)
        assert sum(map(len, source.splits.values())) == 11
        assert reasons(source) == [
            "a link to a folder that it is in.",
            "not an image, by its suffix and its first bytes.",
        ]
        (folder / "dog" / "gone.png").symlink_to(tmp_path / "gone")
        with one_line_error("gone.png", "No such file"):
            data.load(folder)

    def test_a_pipe_is_not_waited_for(self, put):
        folder = put(*of_classes("."))
        os.mkfifo(folder / "cat" / "pipe.jpg")
        assert reasons(data.load(folder)) == ["not a file."]

    def test_a_folder_that_may_not_be_read_is_named(self, put, monkeypatch):
        folder, scandir = put(*of_classes(".")), os.scandir

        def guarded(path):
            if str(path).endswith("dog"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        with one_line_error("dog' cannot be looked through: Permission denied"):
            data.load(folder)

    @pytest.mark.parametrize("name", ["__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN"])
    def test_folders_of_systems_are_no_classes(self, put, name):
        folder = put(*of_classes("."), f"{name}/cat/0.png")
        source = data.load(folder)
        assert source.class_names == ("cat", "dog")
        assert source.skipped == (f"{str(folder / name)!r}: a folder of the system: 1 file.",)

    def test_folders_without_images_are_no_classes(self, put):
        folder = put(*of_classes("."))
        (folder / "cow").mkdir()
        (folder / "texts" / "inner").mkdir(parents=True)
        (folder / "texts" / "a.txt").write_text("miaow")
        source = data.load(folder)
        assert source.class_names == ("cat", "dog")
        unknown = "not an image, by its suffix and its first bytes."
        assert reasons(source) == ["an empty folder.", "an empty folder.", unknown]
        assert source.notes == ("There are no images in 'cow', 'texts'.",)

    def test_a_class_of_photographs_that_are_not_read_is_refused(self, put):
        folder = put(*of_classes("."), "cow/0.heic", "cow/1.HEIC")
        with one_line_error("cow': 2 images in a format that is not read, such as '0.heic'"):
            data.load(folder)

    def test_images_beside_the_classes_are_told(self, put):
        source = data.load(put(*of_classes("."), "logo.png", "cat.7.png"))
        assert reasons(source) == ["beside the folders of classes."] * 2
        assert "2 images not used" in source.notes[0]

    def test_files_that_are_not_named_after_a_class_are_told(self, put):
        names = [f"{name}.{index}.png" for name in ("cat", "dog") for index in range(5)]
        source = data.load(put(*names, "logo.png"))
        assert sum(map(len, source.splits.values())) == 10
        assert "logo.png': without a class" in source.skipped[0]
        assert "'logo.png'" in source.notes[0]

    def test_tables_in_a_folder_without_classes_are_offered(self, put):
        folder = put("1.png")
        (folder / "labels.csv").write_text("path,label\n")
        with one_line_error("no folders of images in it", "Perhaps 'labels.csv' is meant"):
            data.load(folder)


class TestSplitsOfFolders:
    @pytest.mark.parametrize(
        ("train", "validation", "test"),
        [
            ("Train", "Valid", "Test"),
            ("TRAIN", "VAL", "TEST"),
            ("training", "dev", "testing"),
            ("train", "eval", "test"),
            ("seg_train", "seg_val", "seg_test"),
            ("training_set", "validation_set", "test_set"),
            ("train2017", "val2017", "test2017"),
            ("images-train", "images-valid", "images-test"),
        ],
    )
    def test_go_by_several_names(self, put, train, validation, test):
        folder = put(*of_classes(train, validation, test, count=2))
        found = files_of(data.load(folder))
        for split, name in (("train", train), ("validation", validation), ("test", test)):
            assert found[split] == sorted(of_classes(name, count=2))

    def test_as_kaggle_packs_them(self, put):
        train, test = (of_classes(f"seg_{split}/seg_{split}") for split in ("train", "test"))
        folder = put(*train, *test, *(f"seg_pred/seg_pred/{index}.png" for index in range(3)))
        source = data.load(folder)
        assert source.class_names == ("cat", "dog")
        found = files_of(source)
        assert found["test"] == sorted(test)
        assert sorted(found["train"] + found["validation"]) == sorted(train)
        assert reasons(source) == ["in none of the folders of the splits."] * 3
        assert "3 images not used" in source.notes[0]

    def test_a_folder_in_one_of_its_name(self, put):
        folder = put(*of_classes("data/train", "data/test"))
        assert files_of(data.load(folder))["test"] == sorted(of_classes("data/test"))

    @pytest.mark.parametrize(
        ("first", "second"), [("valid", "validation"), ("Test", "test"), ("train", "training")]
    )
    def test_two_for_one_are_refused(self, put, first, second):
        folder = put(*of_classes("train", "test", first, second))
        with one_line_error(repr(first), repr(second), "are both for"):
            data.load(folder)

    def test_an_empty_folder_is_none(self, put):
        folder = put(*of_classes("train", "validation"))
        (folder / "valid").mkdir()
        assert files_of(data.load(folder))["validation"] == sorted(of_classes("validation"))

    @pytest.mark.parametrize("names", [("test",), ("val", "test"), ("cat", "Test")])
    def test_without_one_for_training_they_are_refused(self, put, names):
        with one_line_error("named as a split", "no folder is named train"):
            data.load(put(*of_classes(*names)))

    def test_a_test_of_nothing_but_images_is_taken_for_a_class_and_told(self, put):
        source = data.load(put(*of_classes("."), *(f"test/{index}.png" for index in range(5))))
        assert source.class_names == ("cat", "dog", "test")
        assert source.notes == ("'test' is used as a class: there are no classes in it.",)

    def test_words_for_splits_may_be_in_names_of_classes(self, put):
        names = ("test tube", "bullet train", "train station")
        assert data.load(put(*of_classes(".", classes=names))).class_names == tuple(sorted(names))

    def test_other_parts_than_splits_are_told(self, put):
        source = data.load(put(*of_classes("fold1", "fold2")))
        assert source.class_names == ("fold1", "fold2")
        (note,) = source.notes
        assert "All of 'fold1', 'fold2' hold the folders 'cat', 'dog'." in note

    def test_a_folder_above_is_told(self, put):
        with one_line_error("'pets' is the only class", "data/pets' is meant"):
            data.load(put(*of_classes("pets")))


class TestNames:
    def test_are_compared_in_one_form_of_unicode(self, put):
        composed, decomposed = "caf\u00e9", "cafe\u0301"
        folder = put(
            *of_classes("train", classes=("bar", decomposed)),
            *of_classes("test", classes=("bar", composed)),
        )
        source = data.load(folder)
        assert source.class_names == ("bar", composed)
        assert source.counts()["test"] == [5, 5]
        put(*of_classes("train", classes=(composed,), count=2))
        source = data.load(folder, validation=0)
        assert source.counts()["train"] == [5, 7]
        assert "are one class, 'caf\u00e9'" in source.notes[0]

    def test_that_differ_in_case_alone_are_told(self, put):
        source = data.load(put(*of_classes(".", classes=("Cat", "cat", "dog"))))
        assert source.notes == ("The classes 'Cat' and 'cat' differ only in case.",)

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [("two\nlines", "must be one line of text"), ("\udcff", "is not text in UTF-8")],
    )
    def test_that_no_file_can_hold_are_refused_at_once(self, put, name, complaint):
        with one_line_error(repr(name), complaint):
            data.load(put(*of_classes(".", classes=(name, "dog"))))


FOLDERS = st.sampled_from(
    ["cat", "dog", "train", "Test", "valid", "val", "seg_train", ".git", "__MACOSX", "a b", "2019"]
)
FILES = st.sampled_from(
    (
        *("0.png", "1.PNG", "cat.0.png", "dog.1.png", "new.jfif", "image", ".hidden.png"),
        *("photo.heic", "notes.txt", "._0.png", "empty.jpg", "half.png", "README", "Thumbs.db"),
    )
)
CONTENTS = {
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "photo.heic": b"\0\0\0\x18ftypheic",
    "notes.txt": b"miaow",
    "README": b"BMW",
    "empty.jpg": b"",
    "half.png": encoded(0)[:60],
}
# Some layouts of whole data sets, to which anything is added.
LAYOUTS = [
    [],
    [(name,) for name in ("cat", "dog")],
    [(split, name) for split in ("train", "Test") for name in ("cat", "dog")],
]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(LAYOUTS),
    st.lists(st.tuples(st.lists(FOLDERS, max_size=4).map(tuple), FILES), max_size=15),
    st.sampled_from(["raise", "skip"]),
)
def test_every_file_of_any_folder_is_used_or_told_or_refused(layout, others, on_error):
    with tempfile.TemporaryDirectory() as folder:
        paths = {Path(folder, *parents, f"{i}.png") for parents in layout for i in range(4)}
        paths |= {Path(folder, *parents, name) for parents, name in others}
        for number, file in enumerate(sorted(paths)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(CONTENTS.get(file.name, encoded(number)))
        source, refusal = None, ""
        try:
            source = data.load(folder, on_error=on_error, validation=0)
        except ValueError as error:
            refusal = str(error)
        assert (source is None) == bool(refusal)
        assert "\n" not in refusal
        assert re.match(r"(data|class|source) '|'|\d+ images are too few|$", refusal)
        if source is None:
            return
        used = [file for split in source.splits.values() for file in split.images]
        told = {Path(ast.literal_eval(re.match(r"'[^']*'", line)[0])) for line in source.skipped}
        assert len(used) == len(set(used))
        assert not told & set(used)
        for file in paths - set(used):
            assert file in told or any(parent in told for parent in file.parents)
        for split in source.splits.values():
            for file, index in zip(split.images, split.labels, strict=True):
                names = (*file.relative_to(folder).parts[:-1], file.name.split(".")[0])
                assert source.class_names[index] in names
