import builtins
import errno

import PIL.Image
import pytest
from errors import one_line_error
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
