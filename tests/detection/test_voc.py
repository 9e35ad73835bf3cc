"""Folders like Pascal VOC's."""

from xml.sax.saxutils import escape

import PIL.Image
import pytest
from box_files import (
    HEIGHT,
    WIDTH,
    boxes_of,
    images_of_boxes,
    write_image,
    write_images,
    write_xml,
)
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.data import sources
from keras_resnet.data.boxes import DIFFICULT

COUNT = 20


@pytest.fixture(scope="module")
def bccd(assets):
    return data.load(assets / "detection" / "bccd")


class TestBloodCells:
    def test_all_boxes_but_two(self, bccd):
        assert {name: len(split) for name, split in bccd.splits.items()} == {
            "train": 205,
            "validation": 87,
            "test": 72,
        }
        counts = map(sum, zip(*bccd.counts().values(), strict=True))
        assert dict(zip(bccd.class_names, counts, strict=True)) == {
            "RBC": 4155 - 2,
            "WBC": 372,
            "Platelets": 361,
        }

    def test_the_two_are_named(self, bccd):
        lines = [line for line in bccd.skipped if "box" in line]
        assert len(lines) == 2
        for name, place in (
            ("BloodImage_00338.xml", "object 13 (RBC), 504, 337, 504, 337."),
            ("BloodImage_00343.xml", "object 4 (RBC), 181, 329, 181, 329."),
        ):
            (line,) = (line for line in lines if name in line)
            assert line.endswith(f"a box without an area, left out: {place}")
        assert bccd.notes[0].startswith("2 boxes without an area, left out; the first is")


@pytest.fixture
def folder(tmp_path):
    """20 images with a cell each, and a dot in every second."""
    write_images(tmp_path / "JPEGImages", COUNT)
    for number in range(COUNT):
        dots = [(1, 1, WIDTH, HEIGHT, "dot")] * (number % 2)
        boxes = [(number + 1, 2, number + 9, 20, "cell"), *dots]
        write_xml(tmp_path / "Annotations" / f"{number}.xml", boxes)
    return tmp_path


def write_sets(folder, **stems):
    for name, of_split in stems.items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{stem}\n" for stem in of_split))


def found_in(source):
    """The boxes of all images."""
    found = {}
    for split in source.splits.values():
        found |= boxes_of(split, source.class_names)
    return found


class TestFolder:
    def test_without_lists_is_split(self, folder):
        source = data.load(folder)
        assert (source.task, source.class_names) == ("detection", ("cell", "dot"))
        found = found_in(source)
        assert len(found) == COUNT
        # A pixel that is the first in the file is from 0 to 1.
        assert found["3.png"] == [(3, 1, 12, 20, "cell", False), (0, 0, 64, 48, "dot", False)]
        assert min(map(len, source.splits.values())) >= 1
        assert sources.voc(folder).fingerprint() == source.fingerprint()

    def test_a_box_at_0_is_counted_from_0(self, folder):
        write_xml(folder / "Annotations" / "4.xml", [(0, 3, 7, 9, "cell")])
        source = data.load(folder)
        assert found_in(source)["4.png"] == [(0, 3, 7, 9, "cell", False)]
        assert found_in(source)["3.png"][0] == (4, 2, 12, 20, "cell", False)
        assert "Pixels are counted from 0:" in source.notes[0]
        assert "4.xml', object 1 (cell), 0, 3, 7, 9." in source.notes[0]

    def test_lists_are_splits(self, folder):
        write_sets(folder, train=range(10), val=range(10, 14), test=range(14, 18), trainval=())
        write_sets(folder, cell_train=["0 1"])  # of a class, for classification
        source = data.load(folder)
        assert [len(split) for split in source.splits.values()] == [10, 4, 4]
        assert [line.split(": ")[1] for line in source.skipped] == [
            "in no list of ImageSets/Main."
        ] * 2

    def test_trainval_alone_is_split(self, folder):
        write_sets(folder, trainval=range(16), test=range(16, 20))
        source = data.load(folder)
        assert len(source.test) == 4
        assert len(source.train) + len(source.validation) == 16
        write_sets(folder, val=range(3))
        assert [len(split) for split in data.load(folder).splits.values()] == [13, 3, 4]

    def test_difficult_objects_are_ignored(self, folder):
        write_xml(folder / "Annotations" / "3.xml", [(1, 2, 3, 4, "cell")] * 2, difficult=[1])
        source = data.load(folder)
        assert [ignored for *_, ignored in found_in(source)["3.png"]] == [0, DIFFICULT]
        assert sum(map(sum, source.counts().values())) == COUNT * 3 // 2 - 1

    @pytest.mark.parametrize("beside", [True, False])
    def test_folders_are_splits(self, tmp_path, beside):
        for start, split in ((0, "train"), (6, "valid"), (12, "test")):
            write_images(tmp_path / split / ("" if beside else "images"), 6, start=start)
            for number in range(start, start + 6):
                inside = tmp_path / split / ("" if beside else "annotations")
                write_xml(inside / f"{number}.xml", [(2, 2, 9, 9, "cell")])
        source = data.load(tmp_path)
        assert [len(split) for split in source.splits.values()] == [6, 6, 6]
        assert source.class_names == ("cell",)

    def test_images_without_objects(self, folder):
        write_xml(folder / "Annotations" / "0.xml", [])
        source = data.load(folder)
        assert found_in(source)["0.png"] == []
        assert any("1 image has no boxes; the first is" in note for note in source.notes)

    def test_images_without_an_annotation_are_not_used(self, folder):
        (folder / "Annotations" / "0.xml").unlink()
        source = data.load(folder)
        assert len(found_in(source)) == COUNT - 1
        assert source.skipped == (f"'{folder / 'JPEGImages' / '0.png'}': without an annotation.",)


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("<annotation>", "not XML that can be parsed: "),
            (
                "<annotation><object><name>cell</name></object></annotation>",
                "no numbers xmin, ymin, xmax, ymax in the bndbox of object 1 (cell)",
            ),
            (
                "<annotation><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2"
                "</ymax></bndbox></object></annotation>",
                "no name of object 1",
            ),
        ],
    )
    def test_annotations(self, folder, text, complaint):
        (folder / "Annotations" / "4.xml").write_text(text)
        with one_line_error("4.xml'", complaint):
            data.load(folder)
        source = data.load(folder, on_error="skip")
        assert "4.png" not in found_in(source)
        (line,) = source.skipped
        assert complaint in line

    @pytest.mark.parametrize("lost", ["Annotations/4.xml", "JPEGImages/4.png"])
    def test_files_that_are_missing(self, folder, lost):
        write_sets(folder, train=range(COUNT))
        (folder / lost).unlink()
        with one_line_error("4."):
            data.load(folder)
        source = data.load(folder, on_error="skip")
        assert "4.png" not in found_in(source)
        assert len(source.skipped) == 1

    def test_no_training_images(self, folder):
        write_sets(folder, test=range(COUNT))
        with one_line_error("test but nothing to train on. Expected train.txt or trainval.txt"):
            data.load(folder)

    def test_a_class_that_is_in_the_test_alone(self, folder):
        write_xml(folder / "Annotations" / "19.xml", [(2, 2, 9, 9, "rare")])
        write_sets(folder, train=range(18), test=[18, 19])
        with one_line_error("no images of 'rare' for train. Expected every class in train"):
            data.load(folder)

    def test_no_objects(self, folder):
        for file in (folder / "Annotations").iterdir():
            write_xml(file, [])
        with one_line_error("no image has a box"):
            data.load(folder)

    def test_an_image_that_is_turned(self, folder):
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        (folder / "JPEGImages" / "4.png").unlink()
        write_image(folder / "JPEGImages" / "4.jpg", 4, exif=exif)
        with one_line_error("4.jpg'", "64x48, it is 48x64", "EXIF orientation 6", "turn the boxes"):
            data.load(folder)
        write_xml(folder / "Annotations" / "4.xml", [(1, 1, 48, 64, "cell")], size=(48, 64))
        assert found_in(data.load(folder))["4.jpg"] == [(0, 0, 48, 64, "cell", False)]

    def test_another_task(self, folder):
        with one_line_error("task='classification'", "has boxes, which are task='detection'"):
            data.load(folder, task="classification")


@settings(deadline=None, max_examples=15)
@given(images_of_boxes(st.integers(1, 40)))
def test_any_is_read_as_it_was_written(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("cells")
    for number, (name, boxes) in enumerate((images | {"28.png": [], "29.png": []}).items()):
        write_image(folder / "images" / name, number)
        escaped = [(*box[:4], escape(box[4])) for box in boxes]
        write_xml(folder / "annotations" / f"{name[:-4]}.xml", escaped)
    write_sets(folder, train=[name[:-4] for name in images], val=[28], test=[29])
    source = data.load(folder)
    assert boxes_of(source.train, source.class_names) == {
        name: [(x1 - 1, y1 - 1, x2, y2, kind, False) for x1, y1, x2, y2, kind in boxes]
        for name, boxes in images.items()
    }
