import shutil
from pathlib import Path

import numpy as np
import pytest
from errors import one_line_error
from pictures import encoded, write_images, write_records

from keras_resnet import data
from keras_resnet.data import sources


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pets"
    for name in ("cat", "dog"):
        write_images(folder / name, 10)
    return folder


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"on_error": "ignore"}, "on_error='ignore' must be one of 'raise', 'skip'"),
        ({"validation": 1}, "validation=1 must be at least 0 and below 1"),
        ({"validation": float("nan")}, "validation=nan must be a number of at least 0 and below 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number of at least 0"),
        ({"task": "captions"}, "task='captions' must be one of None, 'classification'"),
    ],
)
def test_options_are_checked(options, complaint):
    with one_line_error(complaint):
        data.load("digits", **options)


@pytest.mark.parametrize("task", ["multilabel", "regression", "detection"])
def test_folders_have_classes_alone(pets, task):
    for source in (pets, "digits"):
        with one_line_error(f"task={task!r}", "one class an image", "CSV file"):
            data.load(source, task=task)
    assert data.load(pets, task="classification").class_names == ("cat", "dog")


def test_every_kind_has_a_function_of_its_own(pets):
    loaded, own = data.load(pets, 3, validation=0.3), sources.folder(pets, 3, validation=0.3)
    assert loaded.fingerprint() == own.fingerprint()
    np.testing.assert_array_equal(
        sources.digits(1, 0).train.images, data.load("digits", 1, validation=0).train.images
    )


class TestWhatPeopleType:
    def test_a_path_called_digits_is_a_folder(self, pets, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with one_line_error("data 'digits': there is no such folder"):
            data.load(Path("digits"))
        assert data.load("digits").notes == ()
        shutil.copytree(pets, "digits")
        for name in (Path("digits"), "./digits", "digits/"):
            assert data.load(name).class_names == ("cat", "dog")
        source = data.load("digits")
        assert len(source.class_names) == 10
        assert "the folder of that name is './digits'." in source.notes[0]

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("pets.zip", "an archive. Unpack it"),
            ("pets.TAR.GZ", "an archive. Unpack it"),
            ("pets.txt", "a file of a kind that is not read. Expected a folder of images, a CSV"),
            ("train-00000-of-00002", "a file of a kind that is not read"),
        ],
    )
    def test_files_that_exist_are_not_said_to_be_missing(self, tmp_path, name, complaint):
        (tmp_path / name).write_bytes(b"PK")
        with one_line_error(name, complaint):
            data.load(tmp_path / name)

    def test_a_folder_that_is_called_like_a_table(self, tmp_path):
        (tmp_path / "pets.csv").mkdir()
        with one_line_error("a folder, not a CSV file"):
            data.load(tmp_path / "pets.csv")


@pytest.mark.parametrize(("side", "size"), [(9, 9), (64, 64), (65, 224)])
def test_images_are_as_large_in_files_as_in_records(tmp_path, side, size):
    images, labels = [encoded(i, height=side, width=side) for i in range(20)], [0, 1] * 10
    rows = ["path,label"]
    for number, image in enumerate(images):
        file = tmp_path / "folder" / "ab"[labels[number]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        rows.append(f"{file},{labels[number]}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    write_records(tmp_path / "r.tfrecord", images, labels)
    for name in ("folder", "table.csv", "r.tfrecord"):
        source = data.load(tmp_path / name)
        assert source.image_size == size
        assert source.augmentation == ("small " * (side <= 64)) + "photograph"
