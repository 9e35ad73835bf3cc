import numpy as np
import pytest
import tensorflow as tf
from errors import one_line_error
from pictures import encoded, write_records
from splits import assert_is_split_whole, contents

from keras_resnet import data
from keras_resnet.data.sources import streamed


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

    def write(self, tmp_path, *names):
        for name in names:
            write_records(tmp_path / name, self.images[:12], self.labels[:12])
        return tmp_path

    @pytest.mark.parametrize("name", ["pets.tfrec", "PETS.TFRECORD", "pets.tfrec.gz", "a[1].tfrec"])
    def test_go_by_several_suffixes(self, tmp_path, name):
        assert data.load(self.write(tmp_path, name) / name).class_names == ("0", "1", "2")

    @pytest.mark.parametrize("shards", [(0, 2), (1, 2), (0, 1)])
    @pytest.mark.parametrize("form", ["pets.tfrecord-{:05}-of-00003", "p-{:05}-of-00003.tfrecord"])
    def test_a_missing_shard_is_named(self, tmp_path, shards, form):
        (missing,) = {0, 1, 2} - {*shards}
        folder = self.write(tmp_path, *map(form.format, shards))
        with one_line_error("2 of 3 shards; there is no", form.format(missing)):
            data.load(f"{folder}/*tfrecord*")

    def test_some_shards_of_many_are_told(self, tmp_path):
        names = [f"pets.tfrecord-{index:05}-of-00012" for index in range(12)]
        folder = self.write(tmp_path, *names)
        assert data.load(f"{folder}/pets.tfrecord-*").notes == data.load(f"{folder}/pets*").notes
        for pattern, count in ((names[3], 1), ("pets.tfrecord-0000?-of-00012", 10)):
            assert f"{count} of 12 shards" in data.load(f"{folder}/{pattern}").notes[0]
        (folder / names[5]).unlink()
        assert "1 of 12 shards" in data.load(f"{folder}/{names[3]}").notes[0]

    def test_shards_of_two_sets_are_refused(self, tmp_path):
        names = ("p.tfrecord-00000-of-00001", "p.tfrecord-00000-of-00002")
        with one_line_error("shards", "of 00001 and 00002"):
            data.load(f"{self.write(tmp_path, *names)}/p.tfrecord-*")
        name = "q.tfrecord-00001-of-00001"
        with one_line_error("1 of 1 shards", "there is no"):
            data.load(f"{self.write(tmp_path, name)}/q.tfrecord-*")

    @pytest.mark.parametrize(
        ("train", "validation", "test"),
        [
            ("pets_train", "pets_dev", "pets_test"),
            ("petsTrain", "petsVal", "petsTest"),
            ("pets-training", "pets-valid", "pets-testing"),
            ("pets", "pets.eval", "pets_testdev"),
            ("pets_trainval", "PETS_DEV", "PETS_TEST"),
            ("train/pets", "dev/pets", "test/pets"),
        ],
    )
    def test_splits_go_by_several_names(self, tmp_path, train, validation, test):
        for start, name in enumerate((train, validation, test)):
            some = slice(12 * start, 12 * start + 12)
            write_records(tmp_path / f"{name}.tfrecord", self.images[some], self.labels[some])
        found = data.load(f"{tmp_path}/{'*/' * ('/' in train)}*.tfrecord")
        for start, split in enumerate(found.splits.values()):
            assert tuple(contents(split)) == self.images[12 * start : 12 * start + 12]

    @pytest.mark.parametrize(
        ("names", "complaint"),
        [
            (("train", "test", "holdout"), "holdout.tfrecord' names no split, but"),
            (("train", "train_test"), "is named after test and train"),
            (("val", "test"), "files for test and validation, but none for train"),
        ],
    )
    def test_where_the_split_cannot_be_told_it_is_refused(self, tmp_path, names, complaint):
        folder = self.write(tmp_path, *(f"{name}.tfrecord" for name in names))
        with one_line_error(complaint):
            data.load(f"{folder}/*.tfrecord")

    @pytest.mark.parametrize("first", ["cat\ndog\ncow\n", None])
    def test_names_are_those_beside_every_file(self, tmp_path, first):
        for split in ("test", "train"):
            (tmp_path / split).mkdir()
            self.write(tmp_path / split, "pets.tfrecord")
        if first:
            (tmp_path / "test" / "labels.txt").write_text(first)
        (tmp_path / "train" / "labels.txt").write_text("cat\ndog\ncow\n")
        assert data.load(f"{tmp_path}/*/pets.tfrecord").class_names == ("cat", "dog", "cow")
        (tmp_path / "test" / "labels.txt").write_text("dog\ncat\ncow\n")
        with one_line_error("labels.txt' has other names than", "or in another order"):
            data.load(f"{tmp_path}/*/pets.tfrecord")

    def test_one_split_alone_is_split_and_told(self, tmp_path):
        source = data.load(self.write(tmp_path, "pets_test.tfrecord") / "pets_test.tfrecord")
        assert len(source.train) < 12
        assert source.notes == ("All files are for test; they are split like a whole data set.",)

    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("classes", [2, 10, 3000])
    def test_a_stream_in_order_of_its_classes_is_told(self, ordered, classes):
        labels = np.arange(30_000) % classes
        labels = np.sort(labels) if ordered else np.random.default_rng(1).permutation(labels)
        notes = [*streamed.notes_on_order(labels, classes)]
        assert len(notes) == ordered
        assert all("30,000 training images are in the order of their classes" in n for n in notes)
        assert not [*streamed.notes_on_order(labels[:10_000], classes)]

    def test_labels_that_begin_with_1_are_told(self, tmp_path):
        path = write_records(tmp_path / "p.tfrecord", self.images, [i + 1 for i in self.labels])
        with one_line_error("the labels begin with 1; classes are counted from 0"):
            data.load(path)

    @pytest.mark.parametrize(
        "text", [b"\xef\xbb\xbfcat\ndog\ncow\n", b"cat\r\n dog\r\ncow\r\n\r\n \n"]
    )
    def test_marks_and_blank_lines_are_no_names(self, tmp_path, text):
        path = self.write(tmp_path, "p.tfrecord") / "p.tfrecord"
        (tmp_path / "labels.txt").write_bytes(text)
        assert data.load(path).class_names == ("cat", "dog", "cow")

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
        with one_line_error("pets.tfrecord", "label 2 of image 2", "is not one of 0 to 1"):
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
