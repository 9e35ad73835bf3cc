"""Tables of boxes."""

import pytest
from box_files import (
    HEIGHT,
    WIDTH,
    boxes_of,
    images_of_boxes,
    write_csv,
    write_image,
    write_images,
)
from errors import one_line_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_resnet import data
from keras_resnet.data.boxes import used

COUNT = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 30 images."""
    folder = tmp_path_factory.mktemp("cells")
    write_images(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    """Writes a table beside them."""
    return lambda rows, *args, **options: write_csv(folder / "cells.csv", rows, *args, **options)


def rows(count=COUNT):
    """A cell in every image, a dot in every second."""
    for number in range(count):
        yield f"{number}.png", number, 1, number + 8.5, 20, "cell"
        if number % 2:
            yield f"{number}.png", 0, 0, WIDTH, HEIGHT, "dot"


class TestTable:
    def test_without_splits(self, table):
        source = data.load(table(rows()))
        assert (source.task, source.name) == ("detection", "cells")
        assert source.class_names == ("cell", "dot")
        assert sum(map(len, source.splits.values())) == COUNT
        assert min(map(len, source.splits.values())) >= 1
        assert [sum(counts) for counts in zip(*source.counts().values(), strict=True)] == [30, 15]
        assert min(source.counts()["train"]) > 0
        again = data.load(table(reversed([*rows()])))
        for name, split in source.splits.items():  # where an image is depends on its contents
            assert {*split.images} == {*again.splits[name].images}

    def test_lines_of_an_image_may_be_anywhere(self, table):
        shuffled = [each for index in (0, 1, 2) for each in [*rows()][index::3]]
        source = data.load(table(shuffled))
        found = {
            name: boxes
            for split in source.splits.values()
            for name, boxes in boxes_of(split, source.class_names).items()
        }
        assert found["1.png"] == [
            (1, 1, 9.5, 20, "cell", False),
            (0, 0, WIDTH, HEIGHT, "dot", False),
        ]
        assert found["2.png"] == [(2, 1, 10.5, 20, "cell", False)]

    def test_with_splits_and_an_image_without_boxes(self, table):
        header = "path,xmin,ymin,xmax,ymax,label,split"
        lines = [
            ("0.png", 1, 1, 9, 9, "cell", "train"),
            ("1.png", "", "", "", "", "", "train"),
            ("2.png", "", "", "", "", "", "test"),
            ("3.png", 1, 1, 9, 9, "cell", "val"),
        ]
        source = data.load(table(lines, header))
        assert [len(split) for split in source.splits.values()] == [2, 1, 1]
        assert used(source.train.labels).sum(1).tolist() == [1, 0]
        assert not used(source.test.labels).any()
        assert any(note.startswith("2 images have no boxes; the first is") for note in source.notes)

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_other_names_and_delimiters(self, table, delimiter):
        header = "filename,width,height,class,x1,y1,x2,y2"
        lines = [(f"{i}.png", WIDTH, HEIGHT, "cell", 1, 2, 30, 40) for i in range(COUNT)]
        source = data.load(table(lines, header, delimiter))
        assert source.train.labels[0, 0].tolist() == [1, 2, 30, 40, 0, 0]
        assert "The column 'x1' is used as 'xmin'." in source.notes

    def test_classes_may_still_be_read_alone(self, table):
        lines = [(f"{i}.png", 1, 2, 30, 40, ("cell", "dot")[i % 2]) for i in range(COUNT)]
        assert data.load(table(lines), task="classification").task == "classification"

    def test_300_boxes_in_an_image(self, table):
        many = [("0.png", i % 60, i // 60, i % 60 + 3, i // 60 + 3, "cell") for i in range(300)]
        source = data.load(table([*many, *rows()]))
        most = max(source.splits.values(), key=lambda split: split.labels.shape[1])
        assert most.labels.shape[1] == 301
        assert sum(sum(counts) for counts in source.counts().values()) == 300 + 45


class TestMistakes:
    @pytest.mark.parametrize(
        ("line", "complaints"),
        [
            (("0.png", 1, 2, "x", 4, "cell"), ["line 2: xmax 'x' is not a number"]),
            (("0.png", 1, 2, "", 4, "cell"), ["line 2: xmax '' is not a number"]),
            (("0.png", 1, 2, "3,5", 4, "cell"), ["xmax '3,5' is not a number such as 12 or 12.5"]),
            (("0.png", 1, 2, 3, 4, ""), ["line 2: label is empty"]),
            (("", 1, 2, 3, 4, "cell"), ["line 2: path is empty"]),
            (("lost.png", 1, 2, 3, 4, "cell"), ["lost.png' is not an image that can be read"]),
        ],
    )
    def test_are_named(self, table, line, complaints):
        with one_line_error(*complaints):
            data.load(table([line, *rows()]))

    def test_an_image_of_two_splits(self, table):
        lines = [("0.png", 1, 1, 9, 9, "cell", "train"), ("0.png", 1, 1, 9, 9, "cell", "test")]
        with one_line_error("line 3: '0.png' is for test, but for train in line 2"):
            data.load(table(lines, "path,xmin,ymin,xmax,ymax,label,split"))

    def test_a_missing_column(self, table):
        with one_line_error("no column 'ymax'", "Expected path,xmin,ymin,xmax,ymax,label"):
            data.load(table([], "path,xmin,ymin,xmax,label"), task="detection")

    def test_no_box_at_all(self, table):
        with one_line_error("cells.csv': no image has a box"):
            data.load(table([(f"{i}.png", "", "", "", "", "") for i in range(COUNT)]))

    def test_normalized(self, table):
        lines = [(f"{i}.png", 0.1, 0.2, 0.5, 1, "cell") for i in range(COUNT)]
        with one_line_error("all boxes are between 0 and 1, such as", "line 2", "multiply x by"):
            data.load(table(lines))

    def test_normalized_in_part(self, table):
        """Left out, these boxes would teach that there is nothing in their images."""
        lines = [(f"{i}.png", 0.1, 0.2, 0.5, 1, "cell") for i in range(6)]
        with one_line_error("6 of 51 boxes are between 0 and 1, such as", "multiply x by"):
            data.load(table([*rows(), *lines]))

    def test_another_layout(self, table):
        lines = [(f"{i}.png", 30 + i, 20, 10, 15, "cell") for i in range(20)]
        with one_line_error("20 of 20 boxes do not fit", "As x, y, width, height, all do"):
            data.load(table(lines))
        lines = [(f"{i}.png", 5, 40, 20, 60, "cell") for i in range(20)]
        with one_line_error("20 of 20 boxes do not fit", "As ymin, xmin, ymax, xmax, all do"):
            data.load(table(lines))

    def test_another_layout_that_is_seldom_noticed(self, table):
        """Large objects: of x, y, width and height, hardly ever is the width less than x."""
        lines = [(f"{i % 30}.png", i % 9, 2, 50, 40, "cell") for i in range(60)]
        lines += [(f"{i}.png", 30, 2, 20, 40, "cell") for i in range(2)]
        with one_line_error("2 of 62 boxes do not fit", "As x, y, width, height, all do"):
            data.load(table(lines))

    def test_of_larger_images(self, table):
        lines = [(f"{i}.png", 300 + i, 200, 400, 250, "cell") for i in range(9)]
        with one_line_error("9 of 9 boxes are outside of their images", "made smaller"):
            data.load(table(lines))

    def test_in_an_image_of_one_pixel(self, folder, table):
        for number in range(9):
            write_image(folder / "tiny" / f"{number}.png", number, (1, 1))
        source = data.load(table([(f"tiny/{i}.png", 0, 0, 1, 1, "cell") for i in range(9)]))
        assert source.train.labels[0].tolist() == [[0, 0, 1, 1, 0, 0]]


class TestFaults:
    """One bad box does not spoil a data set."""

    def load(self, table, *bad, **options):
        return data.load(table([*rows(), *bad]), **options)

    @pytest.mark.parametrize("on_error", ["raise", "skip"])
    @pytest.mark.parametrize(
        ("numbers", "reason"),
        [
            ((5, 5, 5, 9), "without an area, left out"),
            ((9, 5, 5, 9), "without an area, left out"),
            ((5, 5, 5 + 1e-9, 9), "without an area, left out"),
            ((70, 5, 80, 9), "outside of the image, left out"),
            ((-9, 5, 0, 9), "outside of the image, left out"),
            (("nan", 5, 7, 9), "of numbers that are not finite, left out"),
            ((1, 5, "inf", 9), "of numbers that are not finite, left out"),
            ((1, 5, 1e300, 9), "of numbers that are not finite, left out"),
            ((0.2, 0.3, 0.4, 1), "of fractions, not of pixels, left out"),
        ],
    )
    def test_are_left_out_and_named(self, table, numbers, reason, on_error):
        source = self.load(table, ("4.png", *numbers, "cell"), on_error=on_error)
        assert sum(sum(counts) for counts in source.counts().values()) == 45
        (line,) = source.skipped
        assert line.startswith(f"'{table([])}': a box {reason}: line 47 (cell), ")
        assert sum(f"1 box {reason}; the first is" in note for note in source.notes) == 1

    def test_are_cut_and_named(self, table):
        source = self.load(table, ("4.png", -5, 40, 9, 99, "rare"))
        number = source.class_names.index("rare")
        (box,) = (
            box
            for split in source.splits.values()
            for label in split.labels
            for box in label
            if box[4] == number
        )
        assert box.tolist() == [0, 40, 9, HEIGHT, number, 0]
        (line,) = source.skipped
        assert "a box reaching out of the image, cut at the border: line 47 (rare), -5, 40" in line

    def test_a_pixel_is_rounding(self, table):
        source = self.load(table, ("4.png", -1, -0.5, WIDTH + 1, HEIGHT + 0.5, "cell"))
        assert source.skipped == ()
        assert max(split.labels[..., 2].max() for split in source.splits.values()) == WIDTH

    def test_a_class_that_has_nothing_else_is_none(self, table):
        source = self.load(table, ("4.png", 5, 5, 5, 9, "ghost"))
        assert source.class_names == ("cell", "dot")
        assert "No box to learn from is of 'ghost': not among the classes." in source.notes

    def test_nothing_is_left(self, table):
        with one_line_error("none of its 9 boxes can be learned from"):
            data.load(table([(f"{i}.png", 5, 5, 5, 9, "cell") for i in range(9)]))


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(images_of_boxes(st.floats(0, 40, width=32)))
def test_any_table_is_read_as_it_was_written(folder, table, images):
    lines = [
        (name, *map(repr, map(float, box[:4])), box[4], "train")
        for name, boxes in images.items()
        for box in boxes
    ]
    lines += [(name, "", "", "", "", "", "train") for name, boxes in images.items() if not boxes]
    lines += [("28.png", "", "", "", "", "", "val"), ("29.png", "", "", "", "", "", "test")]
    source = data.load(table(lines, "path,xmin,ymin,xmax,ymax,label,split"))
    found = boxes_of(source.train, source.class_names)
    assert found == {name: [(*box, False) for box in boxes] for name, boxes in images.items()}


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), min_size=15, max_size=COUNT))
def test_every_class_is_learned_and_every_image_is_in_one_split(folder, table, classes):
    lines = [
        (f"{number}.png", index, 0, index + 5, 9, name)
        for number, names in enumerate(classes)
        for index, name in enumerate(["all", *names])
    ]
    source = data.load(table(lines))
    assert source.class_names == tuple(sorted({line[-1] for line in lines}))
    assert min(source.counts()["train"]) > 0
    assert min(map(len, source.splits.values())) > 0
    files = [file.name for split in source.splits.values() for file in split.images]
    assert sorted(files) == sorted(f"{number}.png" for number in range(len(classes)))
    boxes = sum(int(used(split.labels).sum()) for split in source.splits.values())
    assert boxes == len(lines)
