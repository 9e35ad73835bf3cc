"""HTML pages in single files: one look, and one way to make figures and tables.

=========================  =====================================================================
`rendered`                 a page, from a template that extends base.html
`Section`, `parts`         what is in it: text, facts, tables, figures, pictures
`Cell`, `percent`          what is in a table, and what it is sorted by
`figure`, `svg`            a figure in this style, and as an element of a page
`COLOURS`                  colours of lines and points
`picture`, `data_uri`      an image as an element of a page, and as a data URI
=========================  =====================================================================
"""

from keras_resnet.pages import parts
from keras_resnet.pages.figures import COLOURS, figure, svg, svg_file
from keras_resnet.pages.parts import Section
from keras_resnet.pages.pictures import data_uri, picture
from keras_resnet.pages.rendering import Cell, number, percent, rendered

__all__ = [
    "COLOURS",
    "Cell",
    "Section",
    "data_uri",
    "figure",
    "number",
    "parts",
    "percent",
    "picture",
    "rendered",
    "svg",
    "svg_file",
]
