"""How training images are varied: named policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data.labels import task_of


@dataclass(frozen=True)
class Augmentation:
    """An augmentation policy.

    Parameters
    ----------
    area : tuple of (float, float), optional
        Cut a random window out of every image and resize it: its smallest and largest area, as
        fractions of the image's. Default: the same view as in evaluation.
    flip : bool, default False
        Mirror half of the images at random.
    layers : callable, optional
        Makes the Keras layers that vary a batch, one after the other.
    mixes : callable, optional
        Makes Keras layers that mix the images of a batch and their labels; one of them is drawn
        for every batch. Labels of classes become probabilities.
    """

    area: tuple[float, float] | None = None
    flip: bool = False
    layers: Callable[[], Sequence[keras.layers.Layer]] = list
    mixes: Callable[[], Sequence[keras.layers.Layer]] = list

    def with_mixup(self, alpha: float) -> "Augmentation":
        """Add MixUp to the layers that mix batches.

        Parameters
        ----------
        alpha : float
            Both parameters of the Beta distribution of the mixing weights; 0 for no MixUp.

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
    "none": Augmentation(),  # only shuffled
    # Digits keep their meaning when they move, tilt or grow a little, but not in a mirror.
    "handwriting": Augmentation(
        layers=lambda: [
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            keras.layers.RandomRotation(0.03, fill_mode="constant"),
            keras.layers.RandomZoom(0.1, 0.1, fill_mode="constant"),
        ]
    ),
    # Inception's windows, but none so small that it may miss the subject of the photograph.
    "photograph": Augmentation(area=(0.35, 1.0), flip=True),
    # The whole image, for labels of things that a window may miss.
    "mirrored": Augmentation(flip=True),
    # As the ResNet paper varies CIFAR-10: moved by up to 4 of 32 pixels, into a black margin.
    "small photograph": Augmentation(
        flip=True,
        layers=lambda: [
            keras.layers.RandomTranslation(
                0.125, 0.125, fill_mode="constant", interpolation="nearest"
            )
        ],
    ),
    # For longer training on them: the margin is a mirror image, and in half of the images a
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

_ASPECT_RATIOS = (3 / 4, 4 / 3)  # width to height of a window, relative to that of the result


def check_mixes(
    policy: Augmentation, labels: np.ndarray, classes: int | None, argument: str
) -> None:
    """Check that a policy can mix some labels.

    Parameters
    ----------
    policy : Augmentation
        The policy.
    labels : array
        The labels of a split.
    classes : int, optional
        Number of classes, if the labels are classes.
    argument : str
        What errors call the policy, such as "augmentation='strong'".

    Raises
    ------
    ValueError
        For classes of unknown number, and for numbers that CutMix would have to mix.
    """
    mixes, task = policy.mixes(), task_of(labels)
    if mixes and task == "classification" and classes is None:
        raise ValueError(f"{argument} mixes labels: pass classes, the number of classes.")
    if task == "regression" and any(isinstance(mix, keras.layers.CutMix) for mix in mixes):
        raise ValueError(
            f"{argument} uses CutMix, which cannot mix numbers to predict: choose an augmentation "
            "without it. MixUp mixes the numbers as it mixes the images."
        )


def random_window(size, area, seed, aspect: float = 1.0) -> tf.Tensor:
    """Draw a random window of an image.

    Parameters
    ----------
    size : int tensor of shape (2,)
        Height and width of the image.
    area : pair of float
        The smallest and largest area, as fractions of the image's.
    seed : int tensor of shape (2,)
        The same seed gives the same window.
    aspect : float, default 1.0
        Width divided by height of the result that the window is resized to.

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
    fraction = area[0] + (area[1] - area[0]) * chance[0]
    low, high = (tf.math.log(ratio * aspect) for ratio in _ASPECT_RATIOS)
    # Only aspect ratios for which the window fits into the image.
    pixels = fraction * size[0] * size[1]
    low = tf.maximum(low, tf.math.log(pixels / size[0] ** 2))
    high = tf.minimum(high, tf.math.log(size[1] ** 2 / pixels))
    # A long, narrow image may have none; its windows are then smaller than the area drawn.
    ratio = tf.exp(low + (high - low) * chance[1])
    sides = tf.stack((tf.sqrt(pixels / ratio), tf.sqrt(pixels * ratio)))
    sides = tf.clip_by_value(tf.round(sides), 1.0, size)
    corner = tf.floor(chance[2:] * (size - sides + 1.0))
    corner = tf.minimum(corner, size - sides)
    return tf.cast(tf.concat((corner, sides), 0), "int32")


class BatchAugmentation:
    """The layers of a policy, which vary a batch in the same way for the same seed.

    Parameters
    ----------
    policy : Augmentation
        The policy.
    classes : int, optional
        Number of classes; needed to mix labels of classes.
    seed : int
        Seed of the layers.
    """

    def __init__(self, policy: Augmentation, classes: int | None, seed: int):
        self.classes, self.seed = classes, seed
        # In full precision whatever the model computes in: bfloat16 cannot tell 255 from 254.5.
        precision = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            self.layers, self.mixes = list(policy.layers()), list(policy.mixes())
        finally:
            keras.config.set_dtype_policy(precision)
        generators: list[Any] = [
            getattr(each, "generator", None)
            for layer in (*self.layers, *self.mixes)
            for each in layer._flatten_layers()
        ]
        self._states = [
            each.state for each in generators if isinstance(each, keras.random.SeedGenerator)
        ]

    def __bool__(self):
        return bool(self.layers or self.mixes)

    def __call__(self, images, labels, epoch, number):
        """Vary one batch.

        Parameters
        ----------
        images : float32 tensor of shape (batch, height, width, channels)
        labels : tensor of shape (batch,) or (batch, labels)
        epoch, number : int tensor
            Which batch it is: the same batch is always varied in the same way.

        Returns
        -------
        tuple of (images, labels)
        """
        # Keras' layers draw from a state that advances with every call. Setting it makes each batch
        # independent of those before; hashed keys keep the states of batches far apart.
        key = tf.stack((tf.cast(epoch, "int64") + self.seed, tf.cast(number, "int64")))
        for index, state in enumerate(self._states):
            drawn = tf.random.experimental.stateless_fold_in(key, index)
            state.assign(tf.cast(drawn, state.dtype))
        for layer in self.layers:
            images = layer(images, training=True)
        if not self.mixes:
            return images, labels
        if labels.dtype.is_integer:
            labels = tf.one_hot(labels, self.classes)
        single = labels.shape.rank == 1
        batch = {"images": images, "labels": labels[:, None] if single else labels}
        which = tf.random.stateless_uniform((), key, 0, len(self.mixes), "int32")
        mixed = tf.switch_case(
            which,
            [lambda mix=mix: _mix(mix, batch) for mix in self.mixes],
        )
        return mixed["images"], mixed["labels"][:, 0] if single else mixed["labels"]


def _mix(layer, batch):
    """A batch mixed by one layer, in float32."""
    mixed = layer(batch, training=True)
    return {"images": tf.cast(mixed["images"], "float32"), "labels": mixed["labels"]}
