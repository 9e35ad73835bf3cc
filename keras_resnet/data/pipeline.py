"""Batches of a split's images, ready for a model with `include_preprocessing=True`."""

import functools
import os
from collections.abc import Callable
from typing import overload

import tensorflow as tf

from keras_resnet.checks import check_choice, check_positive, check_range
from keras_resnet.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    BatchAugmentation,
    check_mixes,
    erased,
    random_window,
)
from keras_resnet.data.cache import cached
from keras_resnet.data.source import Split
from keras_resnet.layers.view import INTERPOLATIONS, short, sides

_KEPT = 256 / 224  # the shorter side of a cached training image, in units of the image size
_PRIME = 1_000_003  # keeps the seeds of neighbouring epochs apart


def batches(
    split: Split,
    *,
    image_size: int | tuple[int, int],
    channels: int = 3,
    crop: float = 1.0,
    interpolation: str = "bilinear",
    batch_size: int = 32,
    augmentation: str | Augmentation | None = None,
    seed: int = 0,
    epochs: range | None = None,
    first_step: int = 0,
    classes: int | None = None,
    cache: str | os.PathLike | None = None,
    shard: tuple[int, int] = (1, 0),
    replicas: int = 1,
    at_least: int = 0,
) -> tf.data.Dataset:
    """Turn a split into batches.

    Parameters
    ----------
    split : Split
        Images and labels.
    image_size : int or tuple of (int, int)
        Height and width of the result in pixels; one number for both.
    channels : int, default 3
        Channels that files are decoded to: 1 grey, 3 RGB.
    crop : float, default 1.0
        What the result shows, as a fraction of the sides of the largest window in the centre that
        has the shape of the result; for a square one, of the image's shorter side. Models for
        ImageNet are commonly tested on 224 of 256 pixels, 0.875. Ignored by an augmentation that
        cuts windows of its own.
    interpolation : {"bilinear", "bicubic"}, default "bilinear"
        How images are resized.
    batch_size : int, default 32
        Images per batch; the last one may be smaller.
    augmentation : str or Augmentation, optional
        A key of `AUGMENTATIONS`, or a policy: shuffle and vary the images anew every epoch.
        Default: the images unchanged and in order.
    seed : int, default 0
        Seed of shuffling and augmentation. The order and variation of an epoch depend only on the
        seed and the number of the epoch, not on the number of threads.
    epochs : range, optional
        For training: these epochs one after the other, so that an interrupted run continues
        exactly as it would have. Default: every iteration is a new epoch.
    first_step : int, default 0
        Skip this many batches of the first of `epochs` without reading them.
    classes : int, optional
        Number of classes; needed if an augmentation mixes the labels of classes.
    cache : "memory" or path, optional
        Keep decoded images in memory, or in a file of this folder that later runs find again.
        Images are kept in whole numbers. Those that windows are cut out of are kept with a shorter
        side of 256 pixels for an image size of 224, and in proportion; they are varied anew each
        time. Default: decode every time.
    shard : tuple of (int, int), default (1, 0)
        Number of equal parts of every epoch, and which of them to return: for training on several
        machines. In a `tf.distribute` input function, `(context.num_input_pipelines,
        context.input_pipeline_id)`. Together, the batches of all parts hold the same images as
        batches of the whole epoch.
    replicas : int, default 1
        Devices that share a batch: it comes in this many parts of equal size, one after the other,
        as `tf.distribute` expects.
    at_least : int, default 0
        Images that each device of each shard needs in every batch. If fewer are left at the end of
        an epoch, they are added to the last batch. At least 1 for several replicas.

    Returns
    -------
    tf.data.Dataset
        Of (images, labels): float32 images from 0 to 255, of shape (batch, height, width,
        channels), and the labels of the split. An augmentation that mixes them makes int64 classes
        float32 probabilities of shape (batch, classes).

    Raises
    ------
    ValueError
        For an empty split, or one of fewer images than devices; an unknown augmentation, or one
        that cannot mix the labels; a crop, size or shard out of its range; a file that is no image;
        or a cache that cannot be written, of which nothing is left behind.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> images, labels = next(iter(data.batches(digits.test, image_size=16, channels=1)))
    >>> images.shape
    TensorShape([32, 16, 16, 1])
    """
    height, width = target = sides(image_size)
    policy = policy_of(augmentation)
    check_range("crop", crop=crop)
    check_choice(INTERPOLATIONS, interpolation=interpolation)
    sizes = checked_sizes(split, batch_size, shard, replicas, at_least, first_step)
    parts, part = shard
    if policy:
        named = isinstance(augmentation, str)
        argument = f"augmentation={augmentation!r}" if named else "the augmentation"
        check_mixes(policy, split.labels, classes, argument)

    images = split.image_set.reader(split.labels, channels)
    area = policy.area if policy else None
    if cache is not None:
        kept = None if area else crop
        images = _keep(images, split, cache, target, channels, kept, interpolation)
    vary = BatchAugmentation(policy or Augmentation(), classes, seed)

    def view(element, seed):
        if area:
            choose = functools.partial(random_window, area=area, seed=seed, aspect=width / height)
            window = images.window(element, choose, max(target))
            image = _resize_quickly(window, target, interpolation)
        elif cache is not None:
            image = tf.cast(images.whole(element), "float32")
        else:
            image = middle(images.whole(element), crop, target, interpolation)
        if policy and policy.flip:
            mirrored = tf.random.stateless_uniform((), seed + 1) < 0.5
            image = tf.cond(mirrored, lambda: tf.reverse(image, (1,)), lambda: image)
        image = tf.ensure_shape(image, (*target, channels))
        if policy and policy.operations:
            image = policy.operations(image, seed + 2)
        if policy and policy.erasing:
            image = erased(image, policy.erasing, seed + 3)
        return tf.ensure_shape(image, (*target, channels))

    def epoch(epoch_seed, first_step):
        """One pass over the images."""
        dataset = images.elements(epoch_seed) if policy else images.elements()
        repeats = policy.repeats if policy else 1
        if repeats > 1:
            # As many variations one after the other of some of the images, which a shuffled epoch
            # has anywhere. Numbered after that, each is varied in its own way.
            dataset = dataset.shard(repeats, 0).flat_map(
                lambda *pair: tf.data.Dataset.from_tensors(pair).repeat(repeats)
            )
            dataset = dataset.take(len(split))
        dataset = dataset.enumerate().shard(parts, part).skip(first_step * batch_size)

        def load(position, pair):
            element, label = pair
            return view(element, tf.stack((epoch_seed, position))), label

        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
        if vary:
            # Not in parallel: the layers' states are set for each batch.
            dataset = dataset.enumerate(first_step).map(
                lambda position, batch: vary(
                    batch[0], batch[1], epoch_seed, position * parts + part
                )
            )
        rest = sizes[first_step * replicas :]
        # `batch` alone is faster, where it gives the right sizes.
        right = replicas == 1 and max(rest, default=0) <= batch_size
        return dataset if right else dataset.rebatch(rest)

    if policy is None:
        return one_after_another(epoch, len(sizes), seed, range(1))
    return one_after_another(epoch, len(sizes), seed, epochs, first_step, replicas)


@overload
def policy_of(augmentation: None) -> None: ...


@overload
def policy_of(augmentation: str | Augmentation) -> Augmentation: ...


def policy_of(augmentation: str | Augmentation | None) -> Augmentation | None:
    """Look up an augmentation policy.

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


def batch_sizes(
    images: int,
    batch_size: int,
    shard: tuple[int, int] = (1, 0),
    replicas: int = 1,
    at_least: int = 0,
) -> list[int]:
    """Count the images in every batch of an epoch that machines and their devices share.

    Parameters
    ----------
    images : int
        Number of images, over all machines.
    batch_size, shard, replicas, at_least
        As in `batches`.

    Returns
    -------
    list of int
        For every step, a number for each of the replicas of this shard.

    Raises
    ------
    ValueError
        If there are too few images for all devices.

    Examples
    --------
    >>> from keras_resnet.data.pipeline import batch_sizes
    >>> batch_sizes(70, batch_size=32, replicas=2)
    [16, 16, 16, 16, 3, 3]
    >>> batch_sizes(65, batch_size=32, replicas=2)
    [16, 16, 17, 16]
    """
    parts, part = shard
    at_least = max(at_least, int(replicas > 1))
    whole, fewest = batch_size * parts, parts * replicas * at_least
    steps, left = divmod(images, whole)
    steps += left >= max(fewest, 1)
    if not steps:
        raise ValueError(
            f"{images} images are too few for {parts * replicas} devices, each of which needs "
            f"{max(at_least, 1)} in every batch."
        )
    sizes = []
    for step in range(steps):
        last = images if step == steps - 1 else (step + 1) * whole
        mine = len(range(step * whole + part, last, parts))
        sizes += [mine // replicas + (replica < mine % replicas) for replica in range(replicas)]
    return [size for size in sizes if size]


def checked_sizes(
    split: Split,
    batch_size: int,
    shard: tuple[int, int],
    replicas: int,
    at_least: int,
    first_step: int,
) -> list[int]:
    """Count the images in every batch of an epoch of a split.

    Parameters
    ----------
    split, batch_size, shard, replicas, at_least, first_step
        As in `batches`.

    Returns
    -------
    list of int
        As `batch_sizes` returns it.

    Raises
    ------
    ValueError
        For an empty split, or one of fewer images than devices; a batch of fewer images than
        devices; or an argument out of its range.
    """
    check_positive(batch_size=batch_size, replicas=replicas)
    parts, part = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard={shard!r} must be (number of parts, which one, counted from 0).")
    if not len(split):
        raise ValueError("split has no images.")
    if batch_size < replicas:
        raise ValueError(
            f"batch_size={batch_size} is too small for replicas={replicas}, each of which needs an "
            "image of every batch."
        )
    sizes = batch_sizes(len(split), batch_size, shard, replicas, at_least)
    if first_step and not 0 <= first_step < len(sizes) // replicas:
        raise ValueError(
            f"first_step={first_step!r}: an epoch has {len(sizes) // replicas} steps, from 0."
        )
    return sizes


def one_after_another(
    epoch: Callable,
    length: int,
    seed: int,
    epochs: range | None,
    first_step: int = 0,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Chain epochs, each of which depends on its number and the seed alone.

    Parameters
    ----------
    epoch : callable
        Makes the batches of an epoch of its seed and the number of steps to skip.
    length : int
        Batches of an epoch, each of the parts for several replicas counted.
    seed, epochs, first_step, replicas
        As in `batches`.

    Returns
    -------
    tf.data.Dataset
        Of known length, some batches ahead of whoever reads it.
    """

    def numbered(number, first_step=0):
        return epoch(seed + _PRIME * number, first_step)

    if epochs is None:
        drawn = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        dataset = drawn.map(lambda number: number % 2**31).flat_map(numbered)
    else:
        dataset = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step)
        length = length * len(epochs) - first_step * replicas
        if first_step:
            begun = dataset.take(1).flat_map(lambda number: numbered(number, first_step))
            dataset = begun.concatenate(dataset.skip(1).flat_map(numbered))
        else:
            dataset = dataset.flat_map(numbered)
    options = tf.data.Options()
    # Without a shard, tf.distribute shards the batches, not the files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _keep(images, split, cache, target, channels, crop, interpolation):
    """A reader of cached images: of their middle if a crop is given, otherwise of whole images."""

    def view(element):
        image = images.whole(element)
        if crop is not None:
            image = middle(image, crop, target, interpolation)
        else:
            size = tf.cast(tf.shape(image)[:2], "float32")
            factor = tf.reduce_max([_KEPT * side for side in target] / size)
            size = tf.cast(tf.round(tf.minimum(factor, 1.0) * size), "int32")
            image = _resize(image, size, interpolation)
        return tf.cast(tf.round(image), "uint8")

    made_how = short(target), channels, crop
    if interpolation != "bilinear":  # which caches of earlier versions do not record
        made_how += (interpolation,)
    return cached(images, split, view, made_how, cache)


def middle(
    images: tf.Tensor,
    crop: float,
    image_size: int | tuple[int, int],
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Crop and resize images for evaluation, to a window in the middle of the result's shape.

    Parameters
    ----------
    images : tensor of shape (..., height, width, channels)
        An image, or several of one size.
    crop : float
        Sides of the window, as a fraction of those of the largest one that fits.
    image_size : int or tuple of (int, int)
        Height and width of the result in pixels.
    interpolation : {"bilinear", "bicubic"}, default "bilinear"
        How images are resized.

    Returns
    -------
    tensor of shape (..., height, width, channels), float32
    """
    height, width = sides(image_size)
    size = tf.shape(images)[-3:-1]
    available = tf.cast(size, "float32")
    largest = tf.minimum(available, available[::-1] * (height / width, width / height))
    window = tf.cast(tf.maximum(tf.round(crop * largest), 1.0), "int32")
    (top, left), (rows, columns) = (tf.unstack(each) for each in ((size - window) // 2, window))
    shown = images[..., top : top + rows, left : left + columns, :]
    return _resize(shown, (height, width), interpolation)


def _resize(image, size, interpolation, antialias=True):
    """Resize, with averaging; pixels stay between 0 and 255."""
    resized = tf.image.resize(image, size, interpolation, antialias=antialias)
    overshoots = interpolation == "bicubic" and image.dtype == tf.uint8
    return tf.clip_by_value(resized, 0.0, 255.0) if overshoots else resized


def _resize_quickly(image, size, interpolation):
    """Resize, without the slow averaging for factors up to 2, where it matters little."""
    return tf.cond(
        tf.reduce_any(tf.shape(image)[:2] > tf.multiply(size, 2)),
        lambda: _resize(image, size, interpolation),
        lambda: _resize(image, size, interpolation, antialias=False),
    )
