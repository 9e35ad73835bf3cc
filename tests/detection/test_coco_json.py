"""Boxes in COCO's JSON."""

import json

import pytest
from box_files import (
    NAMES,
    boxes_of,
    coco,
    images_of_boxes,
    write_image,
    write_images,
    write_json,
)
from errors import one_line_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.data import sources

COUNT = 20


def content(start=0, count=COUNT, **options):
    """A cell in every image, a dot in every second, and a class that nothing is of."""
    images = {
        f"{number}.png": [
            (number, 1, number + 8.5, 20, "cell"),
            *[(0, 0, 64, 48, "dot")] * (number % 2),
        ]
        for number in range(start, start + count)
    }
    return coco(images, ("cells", "dot", "cell"), **options)


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", COUNT)
    return tmp_path


@pytest.fixture
def load(folder):
    """Loads a file with some content."""
    return lambda content, **options: data.load(
        write_json(folder / "annotations" / "all.json", content), **options
    )


class TestFile:
    def test_is_split_whole(self, load):
        source = load(content())
        assert (source.task, source.name) == ("detection", "all")
        assert source.class_names == ("dot", "cell")  # by their ids, which have gaps
        assert "No box to learn from is of 'cells': not among the classes." in source.notes
        assert sum(map(len, source.splits.values())) == COUNT
        counts = [sum(each) for each in zip(*source.counts().values(), strict=True)]
        assert counts == [COUNT // 2, COUNT]
        found = {}
        for split in source.splits.values():
            assert len(split)
            found |= boxes_of(split, source.class_names)
        assert found["3.png"] == [(3, 1, 11.5, 20, "cell", False), (0, 0, 64, 48, "dot", False)]

    def test_crowds_are_ignored(self, load):
        source = load(content(crowds=(2,)))  # the dot in 1.png
        found = {}
        for split in source.splits.values():
            found |= boxes_of(split, source.class_names)
        assert found["1.png"][1] == (0, 0, 64, 48, "dot", True)
        assert sum(ignored for boxes in found.values() for *_, ignored in boxes) == 1
        assert sum(source.counts()[name][0] for name in source.splits) == COUNT // 2 - 1
        assert any("1 box of a crowd or a difficult object" in note for note in source.notes)

    def test_images_without_annotations_have_no_boxes(self, load):
        some = content()
        some["annotations"] = [each for each in some["annotations"] if each["image_id"] > 100]
        source = load(some)
        assert sum(map(len, source.splits.values())) == COUNT
        assert any(note.startswith("1 image has no boxes") for note in source.notes)

    @pytest.mark.parametrize("place", ["", "images", "data", "train2017", "images/train2017"])
    def test_images_are_found(self, tmp_path, place):
        write_images(tmp_path / place, COUNT)
        file = tmp_path / "annotations" / "instances_train2017.json"
        assert len(data.load(write_json(file, content())).train)

    def test_its_own_function(self, load, folder):
        source = load(content(), seed=3, validation=0.3)
        own = sources.coco(folder / "annotations" / "all.json", 3, validation=0.3)
        assert source.fingerprint() == own.fingerprint()


class TestFolder:
    def splits(self, folder, file, images, names=("train", "val", "test")):
        """Write a set with files of three splits; returns what it loads as."""
        for index, name in enumerate(names):
            write_images(folder / images.format(name), 6, start=6 * index)
            write_json(folder / file.format(name), content(6 * index, 6))
        source = data.load(folder)
        assert source.name == folder.name
        for index, split in enumerate(source.splits.values()):
            assert {file.name for file in split.images} == {
                f"{number}.png" for number in range(6 * index, 6 * index + 6)
            }
        assert source.class_names == ("dot", "cell")
        return source

    @pytest.mark.parametrize("images", ["{}2017", "images/{}2017", "images"])
    def test_of_coco(self, tmp_path, images):
        self.splits(tmp_path, "annotations/instances_{}2017.json", images)
        write_json(tmp_path / "annotations" / "captions_train2017.json", content())
        assert len(data.load(tmp_path).train) == 6

    @pytest.mark.parametrize("names", [("train", "valid", "test"), ("Train", "Val", "TEST")])
    def test_of_roboflow(self, tmp_path, names):
        self.splits(tmp_path, "{}/_annotations.coco.json", "{}", names)

    def test_with_one_file(self, folder):
        write_json(folder / "annotations" / "instances_default.json", content())
        assert sum(map(len, data.load(folder).splits.values())) == COUNT

    def test_without_a_test_split(self, folder):
        write_json(folder / "annotations" / "train.json", content(0, 12))
        write_json(folder / "annotations" / "val.json", content(12, 8))
        source = data.load(folder)
        assert len(source.validation) == 8
        assert len(source.train) + len(source.test) == 12
        assert len(source.test)

    def test_without_training_images(self, folder):
        write_json(folder / "annotations" / "instances_val2017.json", content())
        with one_line_error("'instances_val2017.json', but none for training", "by itself"):
            data.load(folder)

    def test_with_two_files_for_a_split(self, folder):
        for name in ("train.json", "train_more.json"):
            write_json(folder / "annotations" / name, content())
        with one_line_error("'train_more.json' may be for any split: 'train.json' is for train"):
            data.load(folder)

    def test_other_json_does_not_make_one(self, tmp_path):
        for name in ("cat", "dog"):
            write_images(tmp_path / name, 10, start=len(name) + 20 * (name == "dog"))
        write_json(tmp_path / "names.json", {"names": ["cat", "dog"]})
        write_json(tmp_path / "results.json", [{"image_id": 1}])
        assert data.load(tmp_path).task == "classification"


class TestMistakes:
    def test_no_such_file(self, tmp_path):
        with one_line_error("lost.json': there is no such file"):
            data.load(tmp_path / "lost.json")

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("{", "is not JSON that can be parsed: "),
            ("[" * 100_000, "is not JSON that can be parsed: "),
            ("[]", "is a JSON list. Expected COCO's images, annotations, categories"),
            ('{"images": [], "annotations": []}', "has no list 'categories'. Expected COCO's"),
            (
                '{"images": [], "annotations": [], "categories": [{"id": 1}]}',
                "category 0 (counted from 0) must have an 'id' and a 'name'",
            ),
            (
                '{"images": [3], "annotations": [], "categories": []}',
                "image 0 (counted from 0) must have an 'id' and a 'file_name'",
            ),
            ('{"images": [], "annotations": [], "categories": []}', "no image has a box"),
        ],
    )
    def test_what_is_not_coco(self, tmp_path, text, complaint):
        (tmp_path / "all.json").write_text(text)
        with one_line_error("all.json'", complaint):
            data.load(tmp_path / "all.json")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"category_id": 99}, "a box of an unknown category: annotation 1004, category_id 99"),
            ({"image_id": 7}, "a box of an unknown image: annotation 1004, image_id 7"),
            ({"image_id": [7]}, "a box of an unknown image: annotation 1004, image_id '[7]'"),
            ({"bbox": [1, 2, 3]}, "an annotation without a bbox of four numbers"),
            ({"bbox": None}, "an annotation without a bbox of four numbers"),
            ({"bbox": [1, 2, "wide", 3]}, "an annotation without a bbox of four numbers"),
        ],
    )
    def test_of_one_annotation(self, load, change, reason):
        some = content()
        some["annotations"][4] |= change
        with one_line_error("all.json': ", reason):
            load(some)
        source = load(some, on_error="skip")
        (line,) = source.skipped
        assert reason in line
        assert sum(map(sum, source.counts().values())) == COUNT * 3 // 2 - 1

    def test_images_that_are_missing(self, load, folder):
        (folder / "images" / "3.png").unlink()
        with one_line_error("3.png' is not an image that can be read"):
            load(content())
        source = load(content(), on_error="skip")
        assert sum(map(len, source.splits.values())) == COUNT - 1
        assert "3.png" in source.skipped[0]

    def test_images_that_are_nowhere(self, tmp_path):
        with one_line_error("its images, such as '0.png', are not beside it", "images, data"):
            data.load(write_json(tmp_path / "all.json", content()))

    def test_two_images_of_one_id(self, load):
        some = content()
        some["images"][1]["id"] = some["images"][0]["id"]
        with one_line_error("two images have one id"):
            load(some)

    def test_corners_in_place_of_sizes(self, load):
        some = content()
        for each in some["annotations"]:
            x, y, width, height = each["bbox"]
            each["bbox"] = [x + 20, y + 20, min(x + width + 20, 64), min(y + height + 20, 48)]
        with one_line_error("do not fit into their images as x, y, width, height", "As xmin, ymin"):
            load(some)

    def test_images_of_another_size(self, load, folder):
        write_image(folder / "images" / "5.png", 5, (32, 24))
        with one_line_error("5.png': boxes of an image of another size: they are for 64x48, it is"):
            load(content())
        source = load(content(), on_error="skip")
        assert "5.png" in source.skipped[0]
        assert sum(map(len, source.splits.values())) == COUNT - 1


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(images_of_boxes(st.floats(0, 40, width=32)))
def test_any_is_read_as_it_was_written(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("cells")
    for number, name in enumerate((*images, "28.png", "29.png")):
        write_image(folder / name, number)
    write_json(folder / "train.json", coco(images, NAMES))
    write_json(folder / "val.json", coco({"28.png": []}, NAMES))
    write_json(folder / "test.json", coco({"29.png": []}, NAMES))
    source = data.load(folder)
    assert source.class_names == NAMES
    found = boxes_of(source.train, NAMES)
    for name, boxes in images.items():
        assert len(found[name]) == len(boxes)
        for box, (*corners, kind) in zip(found[name], boxes, strict=True):
            assert box[:4] == pytest.approx(corners, abs=1e-5)  # by way of width and height
            assert box[4:] == (kind, False)
    assert json.loads((folder / "train.json").read_text())["images"]
