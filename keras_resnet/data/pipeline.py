"""From a split to batches of images, ready for a model with `include_preprocessing=True`."""

import os

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.data.sources import Split, decode

# Layers that vary the training images, by the kind of image. Each takes a seed.
AUGMENTATIONS = {
    # Digits keep their meaning when they move, tilt or grow a little, not in a mirror.
    "handwriting": lambda seed: [
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant", seed=seed),
        keras.layers.RandomRotation(0.03, fill_mode="constant", seed=seed + 1),
        keras.layers.RandomZoom(0.1, 0.1, fill_mode="constant", seed=seed + 2),
    ],
    "photograph": lambda seed: [
        keras.layers.RandomFlip("horizontal", seed=seed),
        keras.layers.RandomZoom((-0.3, 0.0), seed=seed + 1),
    ],
    # As the ResNet paper varies CIFAR-10: moved by up to 4 of 32 pixels, into a margin of black.
    "small photograph": lambda seed: [
        keras.layers.RandomFlip("horizontal", seed=seed),
        keras.layers.RandomTranslation(
            0.125, 0.125, fill_mode="constant", interpolation="nearest", seed=seed + 1
        ),
    ],
}


def batches(
    split: Split,
    *,
    image_size: int,
    channels: int = 3,
    crop: float = 1.0,
    batch_size: int = 32,
    augmentation: str | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Turn a split into batches.

    Parameters
    ----------
    split : Split
        Images and labels.
    image_size : int
        Height and width of the result in pixels.
    channels : int, default 3
        Channels that files are decoded to: 1 grey, 3 RGB.
    crop : float, default 1.0
        Part of an image's shorter side, up to all of it, that the result shows: a square around the
        centre. Nets for ImageNet are commonly tested on 224 of 256 pixels, 0.875.
    batch_size : int, default 32
        Images a batch; the last one may be smaller.
    augmentation : str, optional
        A key of `AUGMENTATIONS`: shuffle the images anew and vary them every epoch. Default: the
        images as they are, in their order.
    seed : int, default 0
        Seed of shuffling and augmentation.

    Returns
    -------
    tf.data.Dataset
        Of (images, labels): float32 of 0 to 255, of shape (batch, size, size, channels), and int64.

    Raises
    ------
    ValueError
        For an unknown augmentation, or a crop out of its range.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> images, labels = next(iter(data.batches(digits.test, image_size=16, channels=1)))
    >>> images.shape
    TensorShape([32, 16, 16, 1])
    """
    if augmentation is not None and augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation={augmentation!r} must be None or one of "
            f"{', '.join(map(repr, AUGMENTATIONS))}."
        )
    if not 0 < crop <= 1:
        raise ValueError(f"crop={crop!r} must be above 0 and at most 1.")
    on_disk = not isinstance(split.images, np.ndarray)
    images = [os.fspath(path) for path in split.images] if on_disk else split.images
    dataset = tf.data.Dataset.from_tensor_slices((images, split.labels.astype("int64")))
    if augmentation is not None:
        dataset = dataset.shuffle(len(split), seed=seed)
    size = round(image_size / crop)
    resize = keras.layers.Resizing(size, size, crop_to_aspect_ratio=True, antialias=True)
    centre = keras.layers.CenterCrop(image_size, image_size)

    def load(image, label):
        image = decode(image, channels) if on_disk else tf.cast(image, "float32")
        return centre(resize(image)), label

    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    if augmentation is not None:
        augment = keras.Sequential(AUGMENTATIONS[augmentation](seed))
        # One batch after another: in parallel, the random numbers would be dealt out by chance.
        dataset = dataset.map(lambda images, labels: (augment(images, training=True), labels))
    return dataset.prefetch(tf.data.AUTOTUNE)
