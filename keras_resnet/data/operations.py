"""What RandAugment and TrivialAugment do to an image: tables of operations, drawn by a seed.

Keras' `RandAugment` draws the operations of a batch, computes all that it knows for each image of
it and keeps two; its layers also draw from a state. Here every image has its own, which depend on
a seed alone, and only these are computed. The arithmetic is Pillow's, up to its rounding.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf

_GREY = 128.0  # of what was outside of the image
_LUMINANCE = (0.299, 0.587, 0.114)
_SMOOTH = ((1, 1, 1), (1, 5, 1), (1, 1, 1))


def auto_contrast(image, _):
    """Stretch each channel to the range from 0 to 255."""
    lowest, highest = (find(image, (0, 1)) for find in (tf.reduce_min, tf.reduce_max))
    spread = highest - lowest
    stretched = (image - lowest) * tf.math.divide_no_nan(255.0, spread)
    return tf.where(spread > 0, tf.minimum(stretched, 255.0), image)


def equalize(image, _):
    """Make each channel's values equally frequent."""
    channels = image.shape[2]
    values = tf.cast(tf.round(image), "int32") + 256 * tf.range(channels)
    counts = tf.math.bincount(tf.reshape(values, [-1]), None, 256 * channels, 256 * channels)
    counts = tf.reshape(counts, (channels, 256))
    # As in Pillow, the highest value that there is does not count.
    highest = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), 1)
    rest = tf.reduce_sum(counts, 1) - tf.gather(counts, highest, batch_dims=1)
    step = rest[:, None] // 255
    below = tf.cumsum(counts, 1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), values), "float32")


def invert(image, _):
    """Swap dark and bright."""
    return 255.0 - image


def posterize(image, bits):
    """Keep the highest bits of each value."""
    step = 2.0 ** (8.0 - bits)
    return tf.floor(tf.round(image) / step) * step


def solarize(image, threshold):
    """Invert what reaches a threshold."""
    return tf.where(image < threshold, image, 255.0 - image)


def solarize_add(image, addition):
    """Brighten what is darker than the middle."""
    return tf.where(image < 128.0, tf.minimum(image + addition, 255.0), image)


def color(image, factor):
    """From grey, 0, to the image, 1, and beyond."""
    return _blended(_grey(image), image, factor)


def contrast(image, factor):
    """From the mean brightness, 0, to the image, 1, and beyond."""
    return _blended(tf.reduce_mean(_grey(image)), image, factor)


def brightness(image, factor):
    """From black, 0, to the image, 1, and beyond."""
    return _blended(0.0, image, factor)


def sharpness(image, factor):
    """From a smoothed image, 0, to the image, 1, and beyond; the outermost pixels stay."""
    kernel = tf.constant(_SMOOTH, "float32")[:, :, None, None] / 13.0
    kernel = tf.tile(kernel, (1, 1, image.shape[2], 1))
    smooth = tf.nn.depthwise_conv2d(image[None], kernel, (1, 1, 1, 1), "VALID")[0]
    inside = tf.pad(tf.ones_like(smooth), ((1, 1), (1, 1), (0, 0)))
    smooth = tf.where(inside > 0, tf.pad(smooth, ((1, 1), (1, 1), (0, 0))), image)
    return _blended(smooth, image, factor)


def shear_x(image, factor):
    """Shift each row by this times its number."""
    return _moved(image, (1.0, factor, 0.0), (0.0, 1.0, 0.0))


def shear_y(image, factor):
    """Shift each column by this times its number."""
    return _moved(image, (1.0, 0.0, 0.0), (factor, 1.0, 0.0))


def translate_x(image, pixels):
    """Shift to the left."""
    return _moved(image, (1.0, 0.0, pixels), (0.0, 1.0, 0.0))


def translate_y(image, pixels):
    """Shift upwards."""
    return _moved(image, (1.0, 0.0, 0.0), (0.0, 1.0, pixels))


def translate_x_by(image, fraction):
    """Shift to the left by a fraction of the width."""
    return translate_x(image, fraction * image.shape[1])


def translate_y_by(image, fraction):
    """Shift upwards by a fraction of the height."""
    return translate_y(image, fraction * image.shape[0])


def rotate(image, degrees):
    """Turn around the middle, counterclockwise."""
    y, x = (side / 2 for side in image.shape[:2])
    sine, cosine = tf.sin(degrees * (math.pi / 180)), tf.cos(degrees * (math.pi / 180))
    return _moved(
        image,
        (cosine, -sine, x - cosine * x + sine * y),
        (sine, cosine, y - sine * x - cosine * y),
    )


def _grey(image):
    """The brightness; of other than three channels, their mean."""
    if image.shape[2] != 3:
        return tf.reduce_mean(image, 2, keepdims=True)
    return tf.tensordot(image, tf.constant(_LUMINANCE), 1)[..., None]


def _blended(other, image, factor):
    return tf.clip_by_value(other + factor * (image - other), 0.0, 255.0)


def _moved(image, row_x, row_y):
    """The image with each pixel taken from another place, where (0, 0) is the upper left corner.

    The op counts from the middle of the first pixel.
    """
    (a, b, c), (d, e, f) = row_x, row_y
    rows = (a, b, c + (a + b - 1.0) / 2, d, e, f + (d + e - 1.0) / 2, 0.0, 0.0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=tf.stack([tf.cast(each, "float32") for each in rows])[None],
        output_shape=image.shape[:2],
        fill_value=_GREY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[0]


@dataclass(frozen=True)
class Operation:
    """Something that is done to an image, more or less of it.

    Parameters
    ----------
    apply : callable
        Takes a float32 image of shape (height, width, channels), from 0 to 255, and an argument.
    argument : callable, optional
        Makes the argument of a strength from 0 to 1 and a sign, -1 or 1.
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    argument: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = lambda strength, sign: strength


def _by(most):
    """Up to so much, either way."""
    return lambda strength, sign: sign * most * strength


def _around_1(most, least):
    """1 and up to so much more or less, but not below the least."""
    return lambda strength, sign: tf.maximum(1.0 + sign * most * strength, least)


def _whole(number):
    """Rounded down, as what is meant to be a whole number may be a little less."""
    return tf.floor(number + 1e-4)


RAND_AUGMENT = {
    "auto_contrast": Operation(auto_contrast),
    "equalize": Operation(equalize),
    "invert": Operation(invert),
    "rotate": Operation(rotate, _by(30.0)),
    "posterize": Operation(posterize, lambda strength, _: 4.0 - _whole(4.0 * strength)),
    "solarize": Operation(solarize, lambda strength, _: 256.0 - _whole(256.0 * strength)),
    "solarize_add": Operation(solarize_add, lambda strength, _: _whole(110.0 * strength)),
    "color": Operation(color, _around_1(0.9, 0.1)),
    "contrast": Operation(contrast, _around_1(0.9, 0.1)),
    "brightness": Operation(brightness, _around_1(0.9, 0.1)),
    "sharpness": Operation(sharpness, _around_1(0.9, 0.1)),
    "shear_x": Operation(shear_x, _by(0.3)),
    "shear_y": Operation(shear_y, _by(0.3)),
    "translate_x": Operation(translate_x_by, _by(0.45)),
    "translate_y": Operation(translate_y_by, _by(0.45)),
}
"""timm's operations whose severity increases with their strength ("inc1")."""

TRIVIAL_AUGMENT = {
    "identity": Operation(lambda image, _: image),
    "shear_x": Operation(shear_x, _by(0.99)),
    "shear_y": Operation(shear_y, _by(0.99)),
    "translate_x": Operation(translate_x, lambda strength, sign: sign * _whole(32.0 * strength)),
    "translate_y": Operation(translate_y, lambda strength, sign: sign * _whole(32.0 * strength)),
    "rotate": Operation(rotate, _by(135.0)),
    "brightness": Operation(brightness, _around_1(0.99, 0.0)),
    "color": Operation(color, _around_1(0.99, 0.0)),
    "contrast": Operation(contrast, _around_1(0.99, 0.0)),
    "sharpness": Operation(sharpness, _around_1(0.99, 0.0)),
    "posterize": Operation(posterize, lambda strength, _: 8.0 - tf.round(6.0 * strength)),
    "solarize": Operation(solarize, lambda strength, _: 255.0 * (1.0 - strength)),
    "auto_contrast": Operation(auto_contrast),
    "equalize": Operation(equalize),
}
"""The wide space of TrivialAugment, with torchvision's numbers."""


@dataclass(frozen=True)
class RandomOperations:
    """Operations that are drawn for each image.

    Parameters
    ----------
    table : mapping of str to Operation
        What they are drawn from, all alike.
    count : int, default 1
        How many, one after the other; the same may come again.
    probability : float, default 1.0
        That each of them is carried out.
    strength : float, optional
        The mean of a normal distribution of strengths, of which what is below 0 or above 1 becomes
        that. Default: one of 31 strengths, evenly spaced from 0 to 1.
    spread : float, default 0.0
        Its standard deviation.

    References
    ----------
    Cubuk et al., RandAugment, NeurIPS 2020. Müller and Hutter, TrivialAugment, ICCV 2021.
    """

    table: Mapping[str, Operation]
    count: int = 1
    probability: float = 1.0
    strength: float | None = None
    spread: float = 0.0

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Vary an image.

        Parameters
        ----------
        image : float32 tensor of shape (height, width, channels)
            The image, from 0 to 255.
        seed : int tensor of shape (2,)
            The same seed varies it in the same way.

        Returns
        -------
        float32 tensor of the same shape
        """
        once = tf.function(self._once)  # traced but once
        for each in tf.unstack(tf.random.split(seed, self.count)):
            image = once(image, each)
        return image

    def _once(self, image, seed):
        """The image after one operation, or none."""
        of_chance, of_kind, of_strength, of_sign = tf.unstack(tf.random.split(seed, 4))
        carried_out = tf.random.stateless_uniform((), of_chance) < self.probability
        kind = tf.random.stateless_uniform((), of_kind, 0, len(self.table), "int32")
        strength = self._drawn(of_strength)
        sign = 2.0 * tf.round(tf.random.stateless_uniform((), of_sign)) - 1.0
        branches = [
            functools.partial(_applied, operation, image, strength, sign)
            for operation in self.table.values()
        ]
        which = tf.where(carried_out, kind, len(branches))
        return tf.switch_case(which, [*branches, lambda: tf.identity(image)])

    def _drawn(self, seed):
        if self.strength is None:
            return tf.cast(tf.random.stateless_uniform((), seed, 0, 31, "int32"), "float32") / 30.0
        drawn = self.strength + self.spread * tf.random.stateless_normal((), seed)
        return tf.clip_by_value(drawn, 0.0, 1.0)


def _applied(operation, image, strength, sign):
    varied = operation.apply(image, operation.argument(strength, sign))
    return tf.ensure_shape(varied, image.shape)
