"""How training images are varied: named policies, as data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """A policy.

    Parameters
    ----------
    area : pair of float, optional
        A window is cut at random out of every image and resized: the least and the largest part of
        the image's area that it has. Default: the same view as in evaluation.
    flip : bool, default False
        Mirror every other image.
    layers : callable, optional
        Makes the Keras layers that vary a batch, one after the other.
    mixes : callable, optional
        Makes Keras layers that mix the images of a batch, and their labels: one of them for every
        batch. Labels are then probabilities of all classes.
    """

    area: tuple[float, float] | None = None
    flip: bool = False
    layers: Callable[[], Sequence[keras.layers.Layer]] = list
    mixes: Callable[[], Sequence[keras.layers.Layer]] = list

    def with_mixup(self, alpha: float) -> "Augmentation":
        """The same policy, and MixUp for every batch that it does not mix in another way.

        Parameters
        ----------
        alpha : float
            Both parameters of the Beta distribution that shares are drawn from; 0 for none.

        Returns
        -------
        Augmentation

        References
        ----------
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
        """
        if not alpha:
            return self
        return replace(self, mixes=lambda: [*self.mixes(), keras.layers.MixUp(alpha)])


AUGMENTATIONS = {
    "none": Augmentation(),  # in another order every epoch, and else as they are
    # Digits keep their meaning when they move, tilt or grow a little, not in a mirror.
    "handwriting": Augmentation(
        layers=lambda: [
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            keras.layers.RandomRotation(0.03, fill_mode="constant"),
            keras.layers.RandomZoom(0.1, 0.1, fill_mode="constant"),
        ]
    ),
    # Inception's windows, but none so small that it may miss what the photograph is of.
    "photograph": Augmentation(area=(0.35, 1.0), flip=True),
    # As the ResNet paper varies CIFAR-10: moved by up to 4 of 32 pixels, into a margin of black.
    "small photograph": Augmentation(
        flip=True,
        layers=lambda: [
            keras.layers.RandomTranslation(
                0.125, 0.125, fill_mode="constant", interpolation="nearest"
            )
        ],
    ),
    # For longer training on them: what moves in is a mirror image, and of every other image a
    # rectangle turns grey (Zhong et al., Random Erasing Data Augmentation, AAAI 2020).
    "erased small photograph": Augmentation(
        flip=True,
        layers=lambda: [
            keras.layers.RandomTranslation(
                0.125, 0.125, fill_mode="reflect", interpolation="nearest"
            ),
            keras.layers.RandomErasing((0.5, 0.5), scale=(0.02, 0.33), fill_value=127.5),
        ],
    ),
    # For long training from scratch.
    "strong": Augmentation(
        area=(0.08, 1.0),
        flip=True,
        layers=lambda: [keras.layers.RandAugment((0, 255), factor=0.4)],
        mixes=lambda: [keras.layers.MixUp(0.2), keras.layers.CutMix()],
    ),
}
"""The policies by name."""

_ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a window, width to height


def random_window(size, area, seed) -> tf.Tensor:
    """A window somewhere in an image.

    Parameters
    ----------
    size : int tensor of shape (2,)
        Height and width of the image.
    area : pair of float
        The least and the largest part of the image's area.
    seed : int tensor of shape (2,)
        The same seed makes the same window.

    Returns
    -------
    int32 tensor
        (top, left, height, width).

    References
    ----------
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6.
    """
    size = tf.cast(size, "float32")
    chance = tf.random.stateless_uniform((4,), seed)
    part = area[0] + (area[1] - area[0]) * chance[0]
    low, high = (tf.math.log(ratio) for ratio in _ASPECT_RATIOS)
    # Of the ratios, those alone for which the window fits into the image.
    pixels = part * size[0] * size[1]
    low = tf.maximum(low, tf.math.log(pixels / size[0] ** 2))
    high = tf.minimum(high, tf.math.log(size[1] ** 2 / pixels))
    # A long, narrow image may have none; its windows are smaller then than the area drawn.
    ratio = tf.exp(low + (high - low) * chance[1])
    sides = tf.stack((tf.sqrt(pixels / ratio), tf.sqrt(pixels * ratio)))
    sides = tf.clip_by_value(tf.round(sides), 1.0, size)
    corner = tf.floor(chance[2:] * (size - sides + 1.0))
    corner = tf.minimum(corner, size - sides)
    return tf.cast(tf.concat((corner, sides), 0), "int32")


class BatchAugmentation:
    """The layers of a policy, applied to batches so that the same seed varies them the same way.

    Parameters
    ----------
    policy : Augmentation
        The policy.
    classes : int
        Classes there are.
    seed : int
        Seed of the layers.
    """

    def __init__(self, policy: Augmentation, classes: int, seed: int):
        self.classes, self.seed = classes, seed
        # In full precision whatever the net computes in: bfloat16 does not tell 255 from 254.5.
        precision = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            self.layers, self.mixes = list(policy.layers()), list(policy.mixes())
        finally:
            keras.config.set_dtype_policy(precision)
        self._generators = [
            generator
            for layer in (*self.layers, *self.mixes)
            for each in layer._flatten_layers()
            if isinstance(generator := getattr(each, "generator", None), keras.random.SeedGenerator)
        ]

    def __bool__(self):
        return bool(self.layers or self.mixes)

    def __call__(self, images, labels, epoch, number):
        """Vary one batch.

        Parameters
        ----------
        images : float32 tensor of shape (batch, height, width, channels)
        labels : int tensor of shape (batch,)
        epoch, number : int tensor
            Which batch it is: it is varied as that one always is.

        Returns
        -------
        tuple of (images, labels)
        """
        # Keras' layers deal numbers out one call after the other. This makes every batch the first;
        # and as they count on from there, no two start at states that are near each other.
        key = tf.stack((tf.cast(epoch, "int64") + self.seed, tf.cast(number, "int64")))
        for index, generator in enumerate(self._generators):
            state = tf.random.experimental.stateless_fold_in(key, index)
            generator.state.assign(tf.cast(state, generator.state.dtype))
        for layer in self.layers:
            images = layer(images, training=True)
        if not self.mixes:
            return images, labels
        batch = {"images": images, "labels": tf.one_hot(labels, self.classes)}
        which = tf.random.stateless_uniform((), key, 0, len(self.mixes), "int32")
        mixed = tf.switch_case(
            which,
            [lambda mix=mix: _mix(mix, batch) for mix in self.mixes],
        )
        return mixed["images"], mixed["labels"]


def _mix(layer, batch):
    mixed = layer(batch, training=True)
    return {"images": tf.cast(mixed["images"], "float32"), "labels": mixed["labels"]}
