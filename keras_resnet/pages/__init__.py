"""Pages that need no other file: one look, one way to draw and to tabulate."""

from keras_resnet.pages.figures import COLOURS, figure, svg, svg_file
from keras_resnet.pages.pictures import data_uri, picture
from keras_resnet.pages.rendering import Cell, number, percent, rendered

__all__ = [
    "COLOURS",
    "Cell",
    "data_uri",
    "figure",
    "number",
    "percent",
    "picture",
    "rendered",
    "svg",
    "svg_file",
]
