import hashlib
import io
import os
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from errors import one_line_error
from pictures import pixels, write_images
from splits import contents

from keras_resnet import data


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
            counts = {"train": (0, 40), "test": (40, 8), "extra": (48, 5)}
            return {name: self._generate_examples(*each) for name, each in counts.items()}

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
        assert min(source.validation.counts(2)) >= 1
        assert source.notes == ("The split 'extra' is not used: 5 images.",)

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
