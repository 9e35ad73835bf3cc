"""What a run knows of its images, and what `evaluate` makes of that."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from errors import one_line_error
from pictures import encoded, write_images, write_records
from splits import contents

import keras_resnet
from keras_resnet import data, runs
from keras_resnet.runs.images import images_of
from keras_resnet.runs.images import write_images as write_run_images


def pets(folder):
    for start, name in enumerate(("cat", "dog")):
        write_images(folder / name, 20, start=1000 * start)
    return data.load(folder)


def written(source, folder):
    """The images of a run on a source, as they are read back."""
    folder.mkdir(exist_ok=True)
    write_run_images(folder, source)
    known = {"data": source.name, "task": source.task, "loaded": source.loaded}
    (folder / "metrics.json").write_text(json.dumps(known))
    return images_of(folder)


def found(run, source, *splits):
    return run.find(splits, source.class_names, source.task)


def assert_same(split, expected):
    assert contents(split) == contents(expected)
    np.testing.assert_array_equal(split.labels, expected.labels)


class TestImagesOfARun:
    def test_are_a_table(self, tmp_path):
        source = pets(tmp_path / "pets")
        written(source, tmp_path / "run")
        with (tmp_path / "run" / "images.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["split", "image", "label", "digest"]
        assert len(rows) == 40
        for row in rows:
            assert row["label"] == os.path.basename(os.path.dirname(row["image"]))
        assert [row["digest"].encode() for row in rows if row["split"] == "test"] == [
            *source.test.digests()
        ]

    @pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
    def test_of_every_task_are_found_again(self, tmp_path, task):
        write_images(tmp_path / "images", 30)
        label = {
            "classification": lambda index: ("a|b", 'c,"d"')[index % 2],
            "multilabel": lambda index: ("cat|dog", "", "dög")[index % 3],
            "regression": lambda index: index / 3,
        }[task]
        with (tmp_path / "images.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [("path", "label"), *((f"images/{i}.png", label(i)) for i in range(30))]
            csv.writer(file).writerows(rows)
        source = data.load(tmp_path / "images.csv", task=task)
        again, missing = found(written(source, tmp_path / "run"), source, *source.splits)
        assert missing == {"changed": 0, "gone": 0}
        for name, split in source.splits.items():
            assert_same(again.splits[name], split)

    def test_that_changed_or_are_gone_are_left_out_and_counted(self, tmp_path):
        source = pets(tmp_path / "pets")
        its = written(source, tmp_path / "run")
        first, second, *_ = source.test.images
        kept = source.test.take(np.arange(2, len(source.test)))
        first.write_bytes(encoded(777))
        second.unlink()
        source.train.images[0].unlink()  # which nobody looks at
        again, missing = found(its, source, "test")
        assert missing == {"changed": 1, "gone": 1}
        assert_same(again.test, kept)
        shutil.rmtree(tmp_path / "pets")
        with one_line_error("none of its", "test images is still there", "--data"):
            found(its, source, "test")

    def test_stay_those_of_the_run_when_there_are_more(self, tmp_path):
        source = pets(tmp_path / "pets")
        expected = set(contents(source.test))
        its = written(source, tmp_path / "run")
        write_images(tmp_path / "pets" / "cat", 60, start=5000)  # the first 20 are others now
        again, missing = found(its, source, "test")
        cats = sum(label == 0 for label in source.test.labels)
        assert missing == {"changed": cats, "gone": 0}
        assert set(contents(again.test)) < expected

    def test_of_records_are_found_by_their_contents(self, tmp_path, monkeypatch):
        images, labels = [encoded(number) for number in range(40)], [0, 1] * 20
        monkeypatch.chdir(tmp_path)
        write_records(tmp_path / "pets.tfrecord", images, labels)
        source = data.load("pets.tfrecord")
        its = written(source, tmp_path / "run")
        expected = dict(zip(contents(source.test), source.test.labels, strict=True))
        lost, *_ = contents(source.test)
        others = [encoded(number) for number in range(100, 160)]
        kept = [image for image in images if image != lost]
        write_records(
            tmp_path / "pets.tfrecord",
            [*others, *kept[::-1]],
            [0, 1] * 30 + [labels[images.index(each)] for each in kept[::-1]],
        )
        monkeypatch.chdir("/")
        again, missing = found(its, source, "test")
        assert missing == {"changed": 0, "gone": 1}
        del expected[lost]
        assert dict(zip(contents(again.test), again.test.labels, strict=True)) == expected

    def test_are_looked_for_in_the_data_that_was_meant(self, tmp_path, monkeypatch):
        pets(tmp_path / "digits")
        monkeypatch.chdir(tmp_path)
        assert data.load("digits").loaded["source"] == "digits"
        assert data.load(tmp_path / "digits").loaded["source"] == str(tmp_path / "digits")

    def test_of_arrays_are_found_by_their_pixels(self, tmp_path):
        source = data.load("digits", validation=0.3)
        again, missing = found(written(source, tmp_path / "run"), source, *source.splits)
        assert missing == {"changed": 0, "gone": 0}
        for name, split in source.splits.items():
            assert sorted(again.splits[name].digests()) == sorted(split.digests())

    @pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\rb.png", b"a\nb,c.png"])
    def test_strange_names_are_kept(self, tmp_path, name):
        name = os.path.join(os.fsencode(tmp_path), name)
        with open(name, "wb") as file:
            file.write(encoded(0))
        write_images(tmp_path, 1)
        files = [os.fsdecode(name), str(tmp_path / "0.png")]
        split = data.Split(files, [0, 1])
        source = data.Source("pets", ("cat", "dog"), 3, 9, "none", split, split, split)
        again, _ = found(written(source, tmp_path / "run"), source, "test")
        assert again.test.images == files

    def test_another_table_is_named(self, tmp_path):
        for text in ("path,label\n0.png,cat\n", "split,image,label,digest\ndev,0.png,cat,0\n"):
            (tmp_path / "images.csv").write_text(text)
            with one_line_error("images.csv' is not the list of a run's images"):
                images_of(tmp_path)

    def test_a_split_without_any(self, tmp_path):
        source = pets(tmp_path / "pets").with_all_to_train()
        with one_line_error("has no validation images"):
            found(written(source, tmp_path / "run"), source, "validation")

    def test_labels_that_are_other_names_now(self, tmp_path):
        source = pets(tmp_path / "pets")
        its = written(source, tmp_path / "run")
        with one_line_error("label 'cat' is not one of katze, hund"):
            its.find(("test",), ("katze", "hund"), "classification")


def test_images_in_memory_and_in_files_cannot_be_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = data.load("digits")
    written(digits, tmp_path / "run")
    net = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    net.save(tmp_path / "run" / "model.keras")
    for index, label in enumerate(digits.train.labels[:50]):
        (tmp_path / "digits" / f"{label}").mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(digits.train.images[index, ..., 0])
        image.save(tmp_path / "digits" / f"{label}" / f"{index}.png")
    record = runs.evaluate("run", Path("digits:all"))  # a folder, as a path is
    assert (record.to_json()["images"], record.trained_on) == (50, None)
    assert runs.evaluate("run", "digits:all").trained_on == 1222
