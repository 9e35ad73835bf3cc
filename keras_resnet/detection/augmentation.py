"""Augmentation of images and their boxes: named policies.

Each image is augmented by itself, before it is padded into a batch, with random numbers that depend
only on its seed. Keras' layers do neither: they augment whole batches, padding included, and draw
from a state that advances. Besides, `RandomCrop` of 3.15 swaps the x and y offsets of boxes
(keras#23518), does not clip them, and changes the dict that it is given.
"""

from dataclasses import dataclass

import tensorflow as tf

from keras_resnet.checks import check_choice, check_range
from keras_resnet.data.boxes import CLASS, IGNORED, UNUSED

_CHANCES = (
    *("scale", "tall", "wide", "box", "top", "left", "row", "column"),
    *("turn", "upside_down", "flip", "brightness", "contrast", "saturation"),
)
_STREAM = 1  # apart from what training draws from the same seed
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue


@dataclass(frozen=True)
class Augmentation:
    """How to augment images and their boxes.

    Parameters
    ----------
    flip : bool, default False
        Mirror half of the images, left to right.
    upside_down : bool, default False
        Mirror half of the images, top to bottom.
    turns : bool, default False
        Turn images by 0, 90, 180 or 270 degrees.
    scale : tuple of (float, float), optional
        Scale objects by a random factor between these two, uniform in its logarithm. Above 1, a
        window is cut out of the image; below 1, the image shrinks inside a border of its mean
        colour. Resizing alone would change nothing: a detector resizes its input.
    crop : tuple of (float, float), optional
        Cut out a window whose height and whose width are fractions of the image's between these.
    visible : float, default 0.3
        A box stays, clipped to the window, if its centre or this fraction of its area is inside;
        otherwise it is dropped. Ignored boxes stay if any part is inside. If an image has boxes,
        every window contains the centre of one.
    brightness, contrast, saturation : float, default 0
        Multiply by a random factor between 1 minus and 1 plus this.

    Raises
    ------
    ValueError
        For a number out of its range.

    References
    ----------
    Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation,
    CVPR 2021: scale jitter.

    Examples
    --------
    >>> from keras_resnet import detection
    >>> detection.Augmentation(flip=True, scale=(0.5, 2.0)).visible
    0.3
    """

    flip: bool = False
    upside_down: bool = False
    turns: bool = False
    scale: tuple[float, float] | None = None
    crop: tuple[float, float] | None = None
    visible: float = 0.3
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self):
        for name, kind in (("scale", "positive"), ("crop", "crop")):
            bounds = getattr(self, name)
            if bounds is None:
                continue
            if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
                raise ValueError(f"{name}={bounds!r} must be None, or (smallest, largest).")
            for bound in bounds:
                check_range(kind, **{name: bound})
            if bounds[0] > bounds[1]:
                raise ValueError(f"{name}={bounds!r} must be (smallest, largest), in this order.")
        check_range("fraction", visible=self.visible)
        for name in ("brightness", "contrast", "saturation"):
            check_range("fraction", **{name: getattr(self, name)})


AUGMENTATIONS = {
    "none": Augmentation(),  # only shuffled
    "mirrored": Augmentation(flip=True),
    # Milder than the 0.1 to 2 of large-scale jitter, which was made for larger data sets.
    "photograph": Augmentation(
        flip=True,
        scale=(0.5, 2.0),
        crop=(0.75, 1.0),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    ),
    # A slide has no right way up, and a fixed magnification; stain and light vary.
    "cells": Augmentation(
        flip=True,
        upside_down=True,
        turns=True,
        scale=(0.8, 1.25),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    ),
}
"""The policies by name."""


def policy_of(augmentation: str | Augmentation | None) -> Augmentation | None:
    """Look up a policy.

    Parameters
    ----------
    augmentation : str or Augmentation, optional
        A key of `AUGMENTATIONS`, or a policy itself.

    Returns
    -------
    Augmentation or None
        None for None.

    Raises
    ------
    ValueError
        If there is no such policy.
    """
    if augmentation is None or isinstance(augmentation, Augmentation):
        return augmentation
    check_choice((None, *AUGMENTATIONS), augmentation=augmentation)
    return AUGMENTATIONS[augmentation]


def varied(
    policy: Augmentation, image: tf.Tensor, rows: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Augment an image and its boxes.

    Parameters
    ----------
    policy : Augmentation
        How.
    image : uint8 tensor of shape (height, width, 3) or (height, width, 1)
        The image.
    rows : float32 tensor of shape (rows, 6)
        The boxes in it, as in `keras_resnet.data.boxes`.
    seed : int tensor of shape (2,)
        The same seed varies the same image in the same way.

    Returns
    -------
    tuple of (image, rows)
        The image may have another size. Rows of boxes that are dropped become `UNUSED`.
    """
    seed = tf.random.experimental.stateless_fold_in(seed, _STREAM)
    drawn = tf.unstack(tf.random.stateless_uniform((len(_CHANCES),), seed))
    chance = dict(zip(_CHANCES, drawn, strict=True))
    channels = image.shape[-1]
    for step in (_cut, _shrink, _turn, _recolour):
        image, rows = step(policy, image, rows, chance)
        image = tf.ensure_shape(image, (None, None, channels))
    return image, tf.where(rows[:, CLASS, None] >= 0, rows, tf.constant(UNUSED, "float32"))


def _factor(policy, chance):
    """How many times as large things become."""
    low, high = policy.scale
    return low * (high / low) ** chance["scale"]


def _between(bounds, chance):
    """A number between two."""
    return bounds[0] + (bounds[1] - bounds[0]) * chance


def _whole(low, high, chance):
    """A whole number from `low` to `high`."""
    return tf.minimum(low + tf.floor(chance * (high - low + 1)), high)


def _size(image):
    """Height and width, as float32."""
    return tf.cast(tf.shape(image)[:2], "float32")


def _cut(policy, image, rows, chance):
    """Cut out a window, and keep the boxes that are visible enough in it."""
    if policy.crop is None and (policy.scale is None or policy.scale[1] <= 1):
        return image, rows
    boxes, classes, ignored = rows[:, :4], rows[:, CLASS], rows[:, IGNORED]
    centres = (boxes[:, 1::-1] + boxes[:, 3:1:-1]) / 2  # y, x
    learned = tf.boolean_mask(centres, (classes >= 0) & (ignored == 0))
    corner, sides = _window(policy, _size(image), learned, chance)

    (top, left), (height, width) = (tf.unstack(tf.cast(x, "int32")) for x in (corner, sides))
    image = image[top : top + height, left : left + width]
    moved = boxes - tf.tile(corner[::-1], [2])
    clipped = tf.clip_by_value(moved, 0.0, tf.tile(sides[::-1], [2]))
    centres -= corner
    centred = tf.reduce_all((centres >= 0) & (centres <= sides), axis=1)
    left_over = tf.math.divide_no_nan(_area(clipped), _area(moved))
    enough = (left_over > 0) & ((ignored > 0) | (left_over >= policy.visible))
    enough |= centred & (ignored == 0)
    classes = tf.where(enough, classes, -1.0)
    return image, tf.concat((clipped, tf.stack((classes, ignored), 1)), 1)


def _window(policy, size, centres, chance):
    """The corner and sides of a window that contains one of these centres, if there are any."""
    sides = size
    if policy.scale:
        sides /= tf.maximum(_factor(policy, chance), 1.0)
    if policy.crop:
        sides *= [_between(policy.crop, chance[name]) for name in ("tall", "wide")]
    sides = tf.clip_by_value(tf.round(sides), 1.0, size)

    def around_one():
        last = tf.cast(tf.shape(centres)[0] - 1, "float32")
        one = tf.gather(centres, tf.cast(_whole(0.0, last, chance["box"]), "int32"))
        one = tf.clip_by_value(one, 0.0, size)
        return tf.maximum(tf.math.ceil(one - sides), 0.0), tf.minimum(tf.floor(one), size - sides)

    anywhere = tf.zeros(2), size - sides
    low, high = tf.cond(tf.shape(centres)[0] > 0, around_one, lambda: anywhere)
    return _whole(low, high, tf.stack((chance["top"], chance["left"]))), sides


def _area(boxes):
    """The areas of boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _shrink(policy, image, rows, chance):
    """Shrink the image, and place it on a canvas of its former size and its mean colour."""
    if policy.scale is None or policy.scale[0] >= 1:
        return image, rows
    size = _size(image)
    sides = tf.round(size * tf.minimum(_factor(policy, chance), 1.0))
    sides = tf.clip_by_value(sides, 1.0, size)
    corner = _whole(0.0, size - sides, tf.stack((chance["row"], chance["column"])))

    def on_canvas():
        height_width = tf.cast(sides, "int32")
        # Averaging is slow, and matters little for factors down to a half.
        small = tf.image.resize(image, height_width, antialias=policy.scale[0] < 0.5)
        mean = tf.reduce_mean(small, axis=(0, 1))
        before = tf.cast(corner, "int32")
        margins = tf.stack((before, tf.shape(image)[:2] - height_width - before), 1)
        return _in_bytes(tf.pad(small - mean, tf.pad(margins, ((0, 1), (0, 0)))) + mean)

    image = tf.cond(tf.reduce_any(sides < size), on_canvas, lambda: image)
    factors, moves = tf.tile((sides / size)[::-1], [2]), tf.tile(corner[::-1], [2])
    return image, tf.concat((rows[:, :4] * factors + moves, rows[:, 4:]), 1)


def _turn(policy, image, rows, chance):
    """Turn and mirror: swap rows and columns, then turn upside down, then mirror."""
    quarter = tf.floor(4 * chance["turn"]) if policy.turns else 0.0
    upside_down = (quarter == 1) | (quarter == 2)
    mirrored = quarter >= 2
    if policy.upside_down:
        upside_down ^= chance["upside_down"] < 0.5
    if policy.flip:
        mirrored ^= chance["flip"] < 0.5
    boxes = rows[:, :4]
    if policy.turns:
        swapped = (quarter == 1) | (quarter == 3)
        image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        boxes = tf.where(swapped, tf.gather(boxes, (1, 0, 3, 2), axis=1), boxes)
    height, width = tf.unstack(_size(image))
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    if policy.turns or policy.upside_down:
        image = tf.cond(upside_down, lambda: tf.reverse(image, (0,)), lambda: image)
        y1, y2 = tf.where(upside_down, height - y2, y1), tf.where(upside_down, height - y1, y2)
    if policy.turns or policy.flip:
        image = tf.cond(mirrored, lambda: tf.reverse(image, (1,)), lambda: image)
        x1, x2 = tf.where(mirrored, width - x2, x1), tf.where(mirrored, width - x1, x2)
    return image, tf.concat((tf.stack((x1, y1, x2, y2), 1), rows[:, 4:]), 1)


def _recolour(policy, image, rows, chance):
    """Change brightness, contrast and saturation."""
    names = ("brightness", "contrast", "saturation")
    if not any(getattr(policy, name) for name in names):
        return image, rows
    brightness, contrast, saturation = (
        1 + getattr(policy, name) * (2 * chance[name] - 1) for name in names
    )
    # In one product of matrices. Only its result is cut off at 0 and 255.
    image = tf.cast(image, "float32")
    channels = image.shape[-1]
    luma = tf.constant(_LUMA if channels == 3 else (1.0,))
    mean = tf.reduce_sum(tf.reduce_mean(image, (0, 1)) * luma)
    grey = tf.tile(luma[:, None], (1, channels))
    matrix = brightness * contrast * (saturation * tf.eye(channels) + (1 - saturation) * grey)
    return _in_bytes(image @ matrix + brightness * (1 - contrast) * mean), rows


def _in_bytes(image):
    """Pixels as uint8."""
    return tf.saturate_cast(tf.round(image), "uint8")
