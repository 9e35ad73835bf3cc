import numpy as np
import PIL.Image
import pytest
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
        with pytest.raises(ValueError, match="a class 'cow' more"):
            data.load(tmp_path)

    def test_refuses_what_is_not_there(self):
        with pytest.raises(ValueError, match="there is no such folder; it may also be 'digits'"):
            data.load("no/such/folder")
