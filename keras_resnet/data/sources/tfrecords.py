"""TFRecord files."""

import glob
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import reason_of
from keras_resnet.data.source import SPLIT_OF, Source, numbered
from keras_resnet.data.sources.streamed import source_of_stream, split_of_stream
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy
from keras_resnet.files import LABELS_FILE


def tfrecords(
    pattern: str, seed: int = 0, on_error: OnError = "raise", validation: float = VALIDATION
) -> Source:
    """Load TFRecord files whose records have an `image` and a `label`.

    Parameters
    ----------
    pattern : str
        The path of a file, or a pattern of several. Files with "test" or "val" in their names are
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
        If there is no such file, or its records have other features.
    """
    return read_tfrecords(pattern, SplitPolicy(seed, on_error, validation))


def read_tfrecords(pattern: str, policy: SplitPolicy) -> Source:
    """Do what `tfrecords` does, with a policy."""
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
    splits = {split: _records(pattern, split, names) for split, names in by_split.items()}
    labels_file = Path(files[0]).with_name(LABELS_FILE)
    if labels_file.is_file():
        class_names = tuple(labels_file.read_text(encoding="utf-8").splitlines())
    else:
        class_names = numbered(f"data {pattern!r}", [*splits.values()])
    name = re.split(r"[_\-.*?\[]", Path(files[0] if len(files) == 1 else pattern).name)[0]
    return source_of_stream(pattern, name or "tfrecords", class_names, splits, policy)


def _records(pattern, split, files):
    """A split of some files."""
    schema = {
        "image": tf.io.FixedLenFeature((), tf.string),
        "label": tf.io.FixedLenFeature((), tf.int64),
    }
    compressed = {".gz" in Path(file).suffixes or ".gz-" in Path(file).name for file in files}
    if len(compressed) > 1:
        raise ValueError(
            f"data {pattern!r}: some of the files end in .gz and some do not; load one kind or the "
            "other."
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
    return split_of_stream(
        f"data {pattern!r}, {split}", records.map(lambda each: each["image"]), labels
    )
