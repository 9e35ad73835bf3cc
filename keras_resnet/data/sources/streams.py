"""Images in streams: TFRecord files and tensorflow-datasets."""

import glob
import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.checks import check_installed
from keras_resnet.data.images import reason_of
from keras_resnet.data.source import (
    SPLIT_OF,
    VALIDATION,
    OnError,
    Source,
    Split,
    check_classes,
    check_counts,
    complete,
)
from keras_resnet.data.sources.files import folder
from keras_resnet.files import LABELS_FILE

TFDS = "tfds:"
_SMALL = 64  # pixels a side up to which images are small ones


def tensorflow_dataset(
    name: str, seed: int = 0, on_error: OnError = "raise", validation: float = VALIDATION
) -> Source:
    """A data set of images and labels from tensorflow-datasets.

    Parameters
    ----------
    name : str
        Its name, such as "cats_vs_dogs" or "beans:0.1.0", or the folder of a prepared one, or one
        of split/class/image. What is not in tensorflow-datasets' folder (`TFDS_DATA_DIR`) yet is
        downloaded and prepared.
    seed : int, default 0
        Seed of the split, for what the data set does not split.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source
        Its images stay on disk, in the files of the data set.

    Raises
    ------
    ValueError
        If there is no such data set, or it has no images with labels.
    """
    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "dataset_info.json")):
        return folder(name, seed, on_error, validation)
    check_installed("tfds", "tensorflow_datasets", "importlib_resources")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(name) if os.path.isdir(name) else tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"data '{TFDS}{name}': {reason_of(error)}") from error
    builder.download_and_prepare()
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    features = dict(builder.info.features.items())
    if not (
        isinstance(features.get(image_key), tfds.features.Image)
        and isinstance(features.get(label_key), tfds.features.ClassLabel)
    ):
        raise ValueError(
            f"data '{TFDS}{name}' has no images with labels, but {', '.join(features)}."
        )
    splits = {}
    for each in builder.info.splits:
        if each not in SPLIT_OF:
            continue
        records = builder.as_dataset(
            split=each,
            shuffle_files=False,
            decoders={image_key: tfds.decode.SkipDecoding()},
            # One file after the other: the order is the same every time.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        labels = records.map(lambda record: record[label_key]).as_numpy_iterator()
        splits[SPLIT_OF[each]] = Split(
            records.map(lambda record: record[image_key]), np.fromiter(labels, "int64")
        )
    class_names = tuple(features[label_key].names)
    return _of_stream(
        f"{TFDS}{name}", builder.name, class_names, splits, seed, on_error, validation
    )


def tfrecords(
    pattern: str, seed: int = 0, on_error: OnError = "raise", validation: float = VALIDATION
) -> Source:
    """TFRecord files whose records have an `image` and a `label`.

    Parameters
    ----------
    pattern : str
        The path of a file, or a pattern of several. Files whose names say "test" or "val" are
        those splits, the others are for training.
    seed : int, default 0
        Seed of the split, for what the files do not split.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there is no such file, or its records are others.
    """
    files = sorted(glob.glob(pattern))
    if not files:
        raise ValueError(f"data {pattern!r}: there is no such file.")
    by_split = {}
    for file in files:
        words = re.split(r"[^a-z]+", Path(file).name.lower())
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "train")
        by_split.setdefault(split, []).append(file)
    if "train" not in by_split:
        by_split = {"train": files}
    splits = {split: _of_records(pattern, names) for split, names in by_split.items()}
    labels_file = Path(files[0]).with_name(LABELS_FILE)
    if labels_file.is_file():
        class_names = tuple(labels_file.read_text(encoding="utf-8").splitlines())
    else:
        highest = max(int(split.labels.max(initial=0)) for split in splits.values())
        class_names = tuple(map(str, range(highest + 1)))
    name = re.split(r"[_\-.*?\[]", Path(files[0] if len(files) == 1 else pattern).name)[0]
    return _of_stream(pattern, name or "tfrecords", class_names, splits, seed, on_error, validation)


def _of_records(pattern, files):
    schema = {
        "image": tf.io.FixedLenFeature((), tf.string),
        "label": tf.io.FixedLenFeature((), tf.int64),
    }
    compressed = {".gz" in Path(file).suffixes or ".gz-" in Path(file).name for file in files}
    if len(compressed) > 1:
        raise ValueError(
            f"data {pattern!r}: some of the files end in .gz and some do not; load the ones or the "
            "others."
        )
    compression = "GZIP" if compressed == {True} else ""
    records = tf.data.TFRecordDataset(files, compression).map(
        lambda record: tf.io.parse_single_example(record, schema)
    )
    try:
        labels = np.fromiter(records.map(lambda each: each["label"]).as_numpy_iterator(), "int64")
    except tf.errors.OpError as error:
        raise ValueError(
            f"data {pattern!r}: expected records with an image (the contents of an image file) and "
            f"a label (int64): {reason_of(error)}"
        ) from error
    return Split(records.map(lambda each: each["image"]), labels)


def _of_stream(argument, name, class_names, splits, seed, on_error, validation):
    """A source of streamed images; the first one says how large they are."""
    skipped = []
    if on_error == "skip":
        for split_name, split in splits.items():
            errors = split.errors()
            skipped += [f"{argument!r}, {split_name}: {error}" for error in errors.values()]
            if errors:
                splits[split_name] = split.take(np.setdiff1d(np.arange(len(split)), [*errors]))
    if not any(map(len, splits.values())):
        raise ValueError(f"data {argument!r}: no images in it.")
    check_classes(argument, class_names, "images of several classes")
    if "train" not in splits:
        raise ValueError(f"data {argument!r} has no split 'train'.")
    for split in splits.values():
        if split.labels.min(initial=0) < 0 or split.labels.max(initial=0) >= len(class_names):
            raise ValueError(
                f"data {argument!r}: a label is not one of 0 to {len(class_names) - 1}, for which "
                "there are names."
            )
    check_counts(argument, class_names, splits)
    first = next(iter(splits["train"].images))
    try:
        height, width, _ = tf.io.decode_image(first, expand_animations=False).shape
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"data {argument!r}: its first image is none that can be read.") from error
    small = max(height, width) <= _SMALL
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        image_size=min(height, width) if small else 224,
        augmentation="small photograph" if small else "photograph",
        skipped=tuple(skipped),
        **complete(splits, class_names, seed, validation),
    )
