import numpy as np
import PIL.Image
import pytest

from keras_resnet.analysis import draw_boxes
from keras_resnet.analysis.drawing import class_colour

GREY = (200, 200, 200)


def image(height=60, width=80):
    return np.full((height, width, 3), GREY, "uint8")


def extent(picture):
    """x1, y1, x2, y2 of what is drawn into a grey image."""
    rows, columns = np.nonzero((np.asarray(picture) != GREY).any(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("box", [(10, 20, 50, 45), (0, 0, 80, 60), (79, 59, 80, 60)])
def test_a_box_is_drawn_around_its_pixels_and_leaves_the_image_as_it_was(box):
    original = image()
    drawn = draw_boxes(original, [box])
    assert extent(drawn) == box
    assert (original == GREY).all()
    inner = np.asarray(drawn)[box[1] + 1 : box[3] - 1, box[0] + 1 : box[2] - 1]
    assert (inner == GREY).all()


def test_lines_grow_with_the_image():
    def thickness(height, width):
        drawn = draw_boxes(image(height, width), [(0, 0, width, height)])
        return int((np.asarray(drawn)[height // 2, : width // 2] != GREY).any(-1).sum())

    assert [thickness(60, 80), thickness(480, 640), thickness(1200, 1600)] == [1, 2, 4]


def test_classes_have_colours_of_their_own_and_text_has_the_colour_behind_it():
    drawn = draw_boxes(image(), [(5, 30, 30, 50), (40, 30, 75, 50)], [0, 1])
    colours = [PIL.Image.new("RGB", (1, 1), class_colour(each)).getpixel((0, 0)) for each in (0, 1)]
    assert [drawn.getpixel((5, 45)), drawn.getpixel((74, 45))] == colours
    assert extent(drawn)[1] < 30  # the text is above
    assert len({class_colour(each) for each in range(91)}) == 91


def test_text_stays_in_the_image_and_the_highest_score_is_on_top():
    both = [(60, 0, 80, 30), (60, 0, 80, 30)]
    drawn = draw_boxes(image(), both, [0, 1], [0.9, 0.3], ["red cell", "blue"])
    alone = draw_boxes(image(), both[:1], [0], [0.9], ["red cell"])
    assert drawn.getpixel((79, 29)) == alone.getpixel((79, 29))
    left, top, right, bottom = extent(alone)
    assert (top, right, bottom) == (0, 80, 30)
    assert left < 60  # moved, so that it can be read


def test_no_boxes_padding_and_grey_images():
    assert extent(draw_boxes(np.zeros((8, 8, 1)), [])) == (0, 0, 8, 8)
    assert (np.asarray(draw_boxes(image(), [(0, 0, 0, 0)], [-1])) == GREY).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((8, 8)), []), r"image of shape \(8, 8\)"),
        ((image(), [(0, 0, 4, 4)], [0, 1]), "1 boxes, 2 labels"),
    ],
)
def test_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_boxes(*arguments)
