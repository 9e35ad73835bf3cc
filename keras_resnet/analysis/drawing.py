"""Boxes drawn into images.

`keras.visualization.draw_bounding_boxes` needs OpenCV, draws every class in one colour, sets text
without a background and only in ASCII, and all in one size, whatever that of the image.
"""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageDraw
import PIL.ImageFont

from keras_resnet.analysis.plots import font_families

_LINE, _TEXT = 400, 45  # how many lines, and letters of text, the longer side of an image is long
_SMALLEST = 10  # pixels of text
_GOLDEN = 0.618034  # of the circle between the hues of neighbouring classes: no two look the same


def draw_boxes(
    image: np.ndarray | PIL.Image.Image,
    boxes: Sequence | np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    scores: Sequence[float] | np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    *,
    colours: Sequence[str] | None = None,
) -> PIL.Image.Image:
    """Draw boxes into a copy of an image.

    Parameters
    ----------
    image : array of shape (height, width, 1 or 3), or PIL.Image.Image
        An image of 0 to 255.
    boxes : array of shape (boxes, 4)
        x1, y1, x2, y2 in pixels.
    labels : array of shape (boxes,), optional
        The class of every box, which its colour shows. Rows of class -1 are not drawn.
    scores : array of shape (boxes,), optional
        The score of every box. Boxes of high scores are drawn over others.
    class_names : sequence of str, optional
        Names of the classes. Default: their numbers.
    colours : sequence of str, optional
        The colour of every box, as Pillow knows it. Default: that of its class.

    Returns
    -------
    PIL.Image.Image
        In RGB. Lines and text grow with the image.

    Raises
    ------
    ValueError
        For something that is no image, or other numbers of boxes, labels and scores.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.analysis import draw_boxes
    >>> image = np.zeros((60, 80, 3), "uint8")
    >>> drawn = draw_boxes(image, [[10, 30, 50, 50]], [0], [0.9], ["cell"])
    >>> drawn.size, drawn.getpixel((10, 40)) == drawn.getpixel((49, 40))
    ((80, 60), True)
    """
    picture = _picture(image)
    boxes = np.asarray(boxes, "float64").reshape(-1, 4)
    labels = np.zeros(len(boxes), int) if (plain := labels is None) else np.asarray(labels, int)
    numbers = np.zeros(len(boxes)) if scores is None else np.asarray(scores, "float64")
    if not len(boxes) == len(labels) == len(numbers) == len(boxes if colours is None else colours):
        raise ValueError(
            f"{len(boxes)} boxes, {len(labels)} labels and {len(numbers)} scores are not of one "
            "number."
        )
    pen = PIL.ImageDraw.Draw(picture)
    texts = [
        "" if plain else _text(label, None if scores is None else number, class_names)
        for label, number in zip(labels.tolist(), numbers.tolist(), strict=True)
    ]
    font = _font("".join(texts), max(_SMALLEST, round(max(picture.size) / _TEXT)))
    line = max(1, round(max(picture.size) / _LINE))
    for index in np.argsort(numbers, kind="stable"):
        if labels[index] >= 0 and np.isfinite(boxes[index]).all():
            colour = class_colour(int(labels[index])) if colours is None else colours[index]
            _draw(pen, boxes[index], texts[index], colour, line, font)
    return picture


def class_colour(label: int) -> str:
    """Choose the colour of a class.

    Parameters
    ----------
    label : int
        The class, from 0.

    Returns
    -------
    str
        Such as "#f23d3d": bright and far from those of its neighbours.

    Examples
    --------
    >>> from keras_resnet.analysis.drawing import class_colour
    >>> class_colour(0), class_colour(1)
    ('#f23030', '#3069f2')
    """
    hue = float(label) * _GOLDEN % 1
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hsv_to_rgb(hue, 0.8, 0.95))


def _picture(image):
    """A copy of an image in RGB."""
    if isinstance(image, PIL.Image.Image):
        return image.convert("RGB").copy()
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(
            f"image of shape {pixels.shape} must be of shape (height, width, 1 or 3), of 0 to 255."
        )
    pixels = np.clip(pixels, 0, 255).astype("uint8")
    return PIL.Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))


def _text(label: int, score: float | None, class_names: Any) -> str:
    """What is written at a box."""
    name = class_names[label] if class_names is not None and label >= 0 else str(label)
    return name if score is None else f"{name} {score:.2f}"


def _font(text, size):
    """A font that has all letters of a text, if there is one."""
    from matplotlib import font_manager

    families, _ = font_families(text)
    return PIL.ImageFont.truetype(font_manager.findfont(families[-1]), size)


def _draw(pen, box, text, colour, line, font):
    """Draw a box, and its text above it, or below its upper edge where there is no room."""
    left, top, right, bottom = np.round(box).astype(int).tolist()
    right, bottom = max(left, right - 1), max(top, bottom - 1)  # Pillow's are drawn, too
    pen.rectangle((left, top, right, bottom), outline=colour, width=line)
    if not text:
        return
    wide, high = pen.textbbox((0, 0), text, font=font, anchor="lt")[2:]
    x = max(0, min(left, pen.im.size[0] - wide - 2 * line))
    y = top - high - 2 * line
    y = y if y >= 0 else max(0, top)
    pen.rectangle((x, y, x + wide + 2 * line - 1, y + high + 2 * line - 1), fill=colour)
    pen.text((x + line, y + line), text, font=font, anchor="lt", fill=_ink(colour))


def _ink(colour):
    """Black or white, whichever is read more easily on a colour."""
    red, green, blue = PIL.ImageColor.getrgb(colour)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
