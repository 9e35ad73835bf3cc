"""From a split to batches of images, ready for a model with `include_preprocessing=True`."""

import functools
import os

import tensorflow as tf

from keras_resnet.checks import check_positive
from keras_resnet.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    BatchAugmentation,
    random_window,
)
from keras_resnet.data.cache import cached
from keras_resnet.data.readers import reader
from keras_resnet.data.sources import Split

# What a training image is kept as in a cache: its shorter side, in times of the size wanted.
_KEPT = 256 / 224
_PRIME = 1_000_003  # keeps the seeds of neighbouring epochs apart


def batches(
    split: Split,
    *,
    image_size: int,
    channels: int = 3,
    crop: float = 1.0,
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
    image_size : int
        Height and width of the result in pixels.
    channels : int, default 3
        Channels that files are decoded to: 1 grey, 3 RGB.
    crop : float, default 1.0
        Part of an image's shorter side, up to all of it, that the result shows: a square around the
        centre. Nets for ImageNet are commonly tested on 224 of 256 pixels, 0.875. Not for an
        augmentation that cuts windows of its own.
    batch_size : int, default 32
        Images a batch; the last one may be smaller.
    augmentation : str or Augmentation, optional
        A key of `AUGMENTATIONS`, or a policy: shuffle the images anew and vary them every epoch.
        Default: the images as they are, in their order.
    seed : int, default 0
        Seed of shuffling and augmentation. Order and variation of an epoch depend on the seed and
        the number of the epoch alone, however many threads work on it.
    epochs : range, optional
        For training: these epochs one after the other, so that an interrupted run goes on as it
        would have gone. Default: every iteration is an epoch, another one each time.
    first_step : int, default 0
        Leave out so many batches of the first of `epochs`, unread.
    classes : int, optional
        Classes there are; needed where an augmentation mixes labels.
    cache : "memory" or path, optional
        Keep decoded images, in memory or in a file of this folder, made at the first use and found
        again by later runs. Training images are kept with a shorter side of 256 pixels for every
        224 wanted, and varied anew each time. Default: decode every time.
    shard : tuple of (int, int), default (1, 0)
        Of so many equal parts of every epoch, this one: for training on several machines. In a
        `tf.distribute` input function, `(context.num_input_pipelines, context.input_pipeline_id)`.
        The batches of all parts together hold the images that batches of all of their images would.
    replicas : int, default 1
        Devices that share a batch: it comes in so many parts of equal size, one after the other, as
        `tf.distribute` wants it.
    at_least : int, default 0
        Images that each device of each shard needs in every batch: where fewer are left at the end
        of an epoch, they make the last batch larger. At least 1 for several replicas.

    Returns
    -------
    tf.data.Dataset
        Of (images, labels): float32 of 0 to 255, of shape (batch, size, size, channels), and int64;
        or, from an augmentation that mixes labels, float32 of shape (batch, classes).

    Raises
    ------
    ValueError
        For an empty split, or one of fewer images than devices, an unknown augmentation, a crop,
        size or shard out of its range, a file that is no image, or a cache that cannot be written;
        nothing of it is left behind then.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> images, labels = next(iter(data.batches(digits.test, image_size=16, channels=1)))
    >>> images.shape
    TensorShape([32, 16, 16, 1])
    """
    check_positive(image_size=image_size, batch_size=batch_size, replicas=replicas)
    policy = policy_of(augmentation)
    if not 0 < crop <= 1:
        raise ValueError(f"crop={crop!r} must be above 0 and at most 1.")
    parts, part = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard={shard!r} must be (parts, which of them, counted from 0).")
    if not len(split):
        raise ValueError("split has no images.")
    if policy and policy.mixes() and classes is None:
        raise ValueError(f"augmentation={augmentation!r} mixes labels: say how many classes.")
    sizes = batch_sizes(len(split), batch_size, shard, replicas, at_least)
    if first_step and not 0 <= first_step < len(sizes) // replicas:
        raise ValueError(
            f"first_step={first_step!r}: an epoch has {len(sizes) // replicas} steps, from 0."
        )

    images = reader(split, channels)
    area = policy.area if policy else None
    if cache is not None:
        images = _keep(images, split, cache, image_size, channels, None if area else crop)
    vary = BatchAugmentation(policy, classes, seed) if policy else None

    def view(element, seed):
        if area:
            choose = functools.partial(random_window, area=area, seed=seed)
            image = _resize_quickly(images.window(element, choose, image_size), image_size)
        elif cache is not None:
            image = tf.cast(images.whole(element), "float32")
        else:
            image = middle(images.whole(element), crop, image_size)
        if policy and policy.flip:
            mirrored = tf.random.stateless_uniform((), seed + 1) < 0.5
            image = tf.cond(mirrored, lambda: tf.reverse(image, (1,)), lambda: image)
        return tf.ensure_shape(image, (image_size, image_size, channels))

    def epoch(number, first_step=0):
        """One pass over the images."""
        epoch_seed = seed + _PRIME * number
        dataset = images.elements(epoch_seed) if policy else images.elements()
        dataset = dataset.enumerate().shard(parts, part).skip(first_step * batch_size)

        def load(position, pair):
            element, label = pair
            return view(element, tf.stack((epoch_seed, position))), label

        dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
        if vary:
            # One batch after another: the layers' states are set for each.
            dataset = dataset.enumerate(first_step).map(
                lambda position, batch: vary(*batch, epoch_seed, position * parts + part)
            )
        rest = sizes[first_step * replicas :]
        # Only where `batch`, which is quicker, has not made them as they are to be.
        as_they_are = replicas == 1 and max(rest, default=0) <= batch_size
        return dataset if as_they_are else dataset.rebatch(rest)

    length = len(sizes)
    if policy is None:
        dataset = epoch(0)
    elif epochs is None:
        drawn = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        dataset = drawn.map(lambda number: number % 2**31).flat_map(epoch)
    else:
        dataset = tf.data.Dataset.range(epochs.start, epochs.stop, epochs.step)
        length = length * len(epochs) - first_step * replicas
        if first_step:
            begun = dataset.take(1).flat_map(lambda number: epoch(number, first_step))
            dataset = begun.concatenate(dataset.skip(1).flat_map(epoch))
        else:
            dataset = dataset.flat_map(epoch)
    options = tf.data.Options()
    # Where nobody has asked for a shard, machines share what comes out at the end.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(length))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def policy_of(augmentation: str | Augmentation | None) -> Augmentation | None:
    """Find a policy.

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
    if augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation={augmentation!r} must be None or one of "
            f"{', '.join(map(repr, AUGMENTATIONS))}."
        )
    return AUGMENTATIONS[augmentation]


def batch_sizes(
    images: int,
    batch_size: int,
    shard: tuple[int, int] = (1, 0),
    replicas: int = 1,
    at_least: int = 0,
) -> list[int]:
    """Images in every batch of an epoch, where machines and their devices share the batches.

    Parameters
    ----------
    images : int
        Images of all machines.
    batch_size, shard, replicas, at_least
        As in `batches`.

    Returns
    -------
    list of int
        For every step, a number for each of the replicas of this shard.

    Raises
    ------
    ValueError
        If there are fewer images than that.

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


def _keep(images, split, cache, image_size, channels, crop):
    """The same images from a cache: the middle where a crop is given, else all of each."""

    def view(element):
        image = images.whole(element)
        if crop is not None:
            image = middle(image, crop, image_size)
        else:
            size = tf.cast(tf.shape(image)[:2], "float32")
            factor = tf.minimum(_KEPT * image_size / tf.reduce_min(size), 1.0)
            image = _resize(image, tf.cast(tf.round(factor * size), "int32"))
        return tf.cast(tf.round(image), "uint8")

    return cached(images, split, view, (image_size, channels, crop), cache)


def middle(images: tf.Tensor, crop: float, image_size: int) -> tf.Tensor:
    """What an evaluation shows of an image: the square in its middle, resized.

    Parameters
    ----------
    images : tensor of shape (..., height, width, channels)
        An image, or several of one size.
    crop : float
        Part of the shorter side that the square has.
    image_size : int
        Height and width of the result in pixels.

    Returns
    -------
    tensor of shape (..., image_size, image_size, channels), float32
    """
    size = tf.shape(images)[-3:-1]
    side = crop * tf.cast(tf.reduce_min(size), "float32")
    side = tf.cast(tf.round(side), "int32")
    top, left = tf.unstack((size - side) // 2)
    square = images[..., top : top + side, left : left + side, :]
    return _resize(square, (image_size, image_size))


def _resize(image, size):
    return tf.image.resize(image, size, antialias=True)


def _resize_quickly(image, image_size):
    """Without averaging, which takes most of the time, where it does little: up to two pixels."""
    size = (image_size, image_size)
    return tf.cond(
        tf.reduce_max(tf.shape(image)[:2]) > 2 * image_size,
        lambda: _resize(image, size),
        lambda: tf.image.resize(image, size),
    )
