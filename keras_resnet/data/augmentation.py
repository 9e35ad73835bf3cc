"""How training images are varied: named policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_range, is_within
from keras_resnet.data.labels import task_of
from keras_resnet.data.operations import RAND_AUGMENT, TRIVIAL_AUGMENT, RandomOperations

_ASPECT_RATIOS = (3 / 4, 4 / 3)  # width to height of a window, relative to that of the result
_ERASED_AREA, _ERASED_RATIOS = (0.02, 1 / 3), (0.3, 1 / 0.3)


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
    chances : tuple of float, optional
        The probability of each of the `mixes`; what is missing to 1 is that of a batch whose images
        are not mixed. Default: all of them alike.
    operations : RandomOperations, optional
        What is drawn for each image by itself.
    erasing : float, default 0.0
        The probability that a random rectangle of an image becomes noise.
    repeats : int, default 1
        Variations of an image within an epoch, which shows as many times fewer images, and stays of
        the same length.
    """

    area: tuple[float, float] | None = None
    flip: bool = False
    layers: Callable[[], Sequence[keras.layers.Layer]] = list
    mixes: Callable[[], Sequence[keras.layers.Layer]] = list
    chances: tuple[float, ...] | None = field(default=None, kw_only=True)
    operations: RandomOperations | None = field(default=None, kw_only=True)
    erasing: float = field(default=0.0, kw_only=True)
    repeats: int = field(default=1, kw_only=True)

    def __post_init__(self):
        check_range("fraction", erasing=self.erasing)
        check_range("count", repeats=self.repeats)
        if self.chances is not None:
            count = len(self.mixes())
            probable = all(is_within("fraction", chance) for chance in self.chances)
            if not probable or sum(self.chances) > 1 + 1e-6 or len(self.chances) != count:
                raise ValueError(
                    f"chances={self.chances!r} must be probabilities, one for each of {count} "
                    "mixes, and together at most 1."
                )

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
        return self.with_mixing(mixup=alpha)

    def with_mixing(
        self,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        probability: float = 1.0,
        switch: float = 0.5,
    ) -> "Augmentation":
        """Add MixUp and CutMix to the layers that mix batches, and say how often they do.

        Parameters
        ----------
        mixup, cutmix : float, default 0.0
            Both parameters of the Beta distribution of the mixing weights; 0 for none of it.
        probability : float, default 1.0
            Fraction of the batches that are mixed, by these layers or by those of the policy.
        switch : float, default 0.5
            Of the batches that MixUp or CutMix mix, the fraction that CutMix does, where there are
            both.

        Returns
        -------
        Augmentation

        Examples
        --------
        >>> from keras_resnet.data import Augmentation
        >>> Augmentation().with_mixing(mixup=0.2, cutmix=1.0, probability=0.5, switch=0.25).chances
        (0.375, 0.125)
        """
        own = self.mixes()
        new = [(keras.layers.MixUp, mixup), (CutMix, cutmix)]
        new = [(layer, alpha) for layer, alpha in new if alpha]
        split = (1.0 - switch, switch) if len(new) == 2 else (1.0,) * len(new)
        if probability == 1.0 and not new:
            return self
        chances = None
        if self.chances or probability < 1.0 or len(set(split)) == 2:
            former = self.chances or (1.0 / len(own),) * len(own) if own else ()
            mixed = probability * (sum(former) if own else 1.0)
            part = len(own) / max(len(own) + len(new), 1)
            chances = (
                *(probability * part * chance for chance in former),
                *(mixed * (1.0 - part) * chance for chance in split),
            )
        return replace(
            self,
            mixes=lambda: [*self.mixes(), *(layer(alpha) for layer, alpha in new)],
            chances=chances,
        )


class CutMix(keras.layers.Layer):
    """Paste a rectangle of another image of the batch into each image, and mix their labels.

    Keras' own layer mixes labels by the area of a rectangle before it is rounded to pixels; this
    one counts the pixels. As in the paper, the rectangle's center lies anywhere in the image, and
    what is outside is cut off.

    Parameters
    ----------
    alpha : float
        Both parameters of the Beta distribution of the area that stays.

    References
    ----------
    Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features, ICCV 2019.
    """

    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.generator = keras.random.SeedGenerator(0)

    def call(self, batch, training=False):
        """Mix {"images": ..., "labels": ...}."""
        images, labels = batch["images"], batch["labels"]
        count, sides = tf.shape(images)[0], tf.shape(images)[1:3]
        stays = keras.random.beta((count,), self.alpha, self.alpha, seed=self.generator)
        others = keras.random.shuffle(tf.range(count), seed=self.generator)
        inside = []
        for side in (sides[0], sides[1]):
            length = tf.cast(tf.sqrt(1.0 - stays) * tf.cast(side, "float32"), "int32")
            middle = keras.random.randint((count,), 0, side, seed=self.generator)
            first = (middle - length // 2)[:, None]
            place = tf.range(side)[None]
            inside.append((place >= first) & (place < first + length[:, None]))
        pasted = inside[0][:, :, None] & inside[1][:, None, :]
        area = tf.reduce_mean(tf.cast(pasted, labels.dtype), (1, 2))[:, None]
        return {
            "images": tf.where(pasted[..., None], tf.gather(images, others), images),
            "labels": (1.0 - area) * labels + area * tf.gather(labels, others),
        }


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
        mixes=lambda: [keras.layers.MixUp(0.2), CutMix(1.0)],
    ),
    # timm's "rand-m9-mstd0.5-inc1", and the strengths of "ResNet strikes back" (arXiv 2110.00476).
    **{
        name: Augmentation(
            area=(0.08, 1.0),
            flip=True,
            operations=RandomOperations(RAND_AUGMENT, 2, 0.5, strength, 0.05),
        )
        for name, strength in (
            ("randaugment", 0.9),
            ("randaugment 7", 0.7),
            ("randaugment 6", 0.6),
        )
    },
    "trivialaugment": Augmentation(
        area=(0.08, 1.0), flip=True, operations=RandomOperations(TRIVIAL_AUGMENT)
    ),
}
"""The policies by name."""


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
    if task == "regression" and any(
        isinstance(mix, (CutMix, keras.layers.CutMix)) for mix in mixes
    ):
        raise ValueError(
            f"{argument} uses CutMix, which cannot mix numbers to predict: choose an augmentation "
            "without it. MixUp mixes the numbers as it mixes the images."
        )


def random_window(
    size, area, seed, aspect: float = 1.0, ratios: tuple[float, float] = _ASPECT_RATIOS
) -> tf.Tensor:
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
    ratios : pair of float, default (3 / 4, 4 / 3)
        The smallest and largest ratio of width to height, relative to that of the result.

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
    low, high = (tf.math.log(ratio * aspect) for ratio in ratios)
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


def erased(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Fill a random rectangle of an image with noise, or leave the image as it is.

    Parameters
    ----------
    image : float32 tensor of shape (height, width, channels)
        The image, from 0 to 255.
    probability : float
        That of a rectangle.
    seed : int tensor of shape (2,)
        The same seed gives the same rectangle.

    Returns
    -------
    float32 tensor of the same shape
        With values drawn evenly from 0 to 255 for each pixel and channel of the rectangle, so that
        it means the same however the model normalizes.

    References
    ----------
    Zhong et al., Random Erasing Data Augmentation, AAAI 2020: RE-R, with its areas and ratios.
    """
    of_chance, of_place, of_noise = tf.unstack(tf.random.split(seed, 3))

    def erase():
        size = tf.shape(image)[:2]
        window = random_window(size, _ERASED_AREA, of_place, ratios=_ERASED_RATIOS)
        top, left, height, width = tf.unstack(window)
        noise = tf.random.stateless_uniform((height, width, image.shape[2]), of_noise, 0.0, 255.0)
        filled = [[top, size[0] - top - height], [left, size[1] - left - width], [0, 0]]
        outside = tf.pad(tf.zeros_like(noise), filled, constant_values=1.0)
        return tf.pad(noise, filled) + outside * image

    return tf.cond(tf.random.stateless_uniform((), of_chance) < probability, erase, lambda: image)


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
        self.classes, self.seed, self.chances = classes, seed, policy.chances
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
        if self.chances is None:
            which = tf.random.stateless_uniform((), key, 0, len(self.mixes), "int32")
        else:
            drawn = tf.random.stateless_uniform((), key)
            which = tf.reduce_sum(
                tf.cast(drawn >= np.cumsum(self.chances, dtype="float32"), "int32")
            )
        branches = [lambda mix=mix: _mix(mix, batch) for mix in self.mixes]
        mixed = tf.switch_case(which, branches, default=lambda: batch)
        return mixed["images"], mixed["labels"][:, 0] if single else mixed["labels"]


def _mix(layer, batch):
    """A batch mixed by one layer, in float32."""
    mixed = layer(batch, training=True)
    return {"images": tf.cast(mixed["images"], "float32"), "labels": mixed["labels"]}
