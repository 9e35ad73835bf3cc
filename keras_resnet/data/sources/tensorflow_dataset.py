"""Data sets of tensorflow-datasets."""

import os

import numpy as np

from keras_resnet.checks import check_installed
from keras_resnet.data.images import reason_of
from keras_resnet.data.source import SPLIT_OF, Source
from keras_resnet.data.sources.folder import read_folder
from keras_resnet.data.sources.streamed import source_of_stream, split_of_stream
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy

TFDS = "tfds:"
"""What the name of a data set begins with in `load`."""


def tensorflow_dataset(
    name: str, seed: int = 0, on_error: OnError = "raise", validation: float = VALIDATION
) -> Source:
    """Load a data set of images and labels from tensorflow-datasets.

    Parameters
    ----------
    name : str
        Its name, such as "cats_vs_dogs" or "beans:0.1.0", or the folder of a prepared one, or one
        of split/class/image. A data set that is not in tensorflow-datasets' folder
        (`TFDS_DATA_DIR`) yet is downloaded and prepared. Splits other than train, validation and
        test are not used, as `Source.notes` says.
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
    return read_tensorflow_dataset(f"{TFDS}{name}", SplitPolicy(seed, on_error, validation))


def read_tensorflow_dataset(argument: str, policy: SplitPolicy) -> Source:
    """Do what `tensorflow_dataset` does, with a policy, for "tfds:NAME"."""
    name = argument.removeprefix(TFDS)
    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "dataset_info.json")):
        return read_folder(name, policy)
    homeless = os.path.expanduser("~") == "~"  # where it would be a folder of that name
    if homeless and not os.path.isdir(name) and not os.environ.get("TFDS_DATA_DIR"):
        raise ValueError(
            f"data {argument!r}: this user has no home directory. Set TFDS_DATA_DIR to a "
            "folder for downloads."
        )
    check_installed("tfds", "tensorflow_datasets", "importlib_resources")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(name) if os.path.isdir(name) else tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"data {argument!r}: {reason_of(error)}") from error
    builder.download_and_prepare()
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    features = dict(builder.info.features.items())
    if not (
        isinstance(features.get(image_key), tfds.features.Image)
        and isinstance(features.get(label_key), tfds.features.ClassLabel)
    ):
        raise ValueError(f"data {argument!r} has no images with labels, but {', '.join(features)}.")
    splits, notes = {}, []
    for each, info in builder.info.splits.items():
        split = SPLIT_OF.get(each.lower())
        if split is None:
            notes.append(f"The split {each!r} is not used: {info.num_examples:,} images.")
            continue
        if split in splits:
            raise ValueError(f"data {argument!r}: {each!r} is a second split for {split}.")
        records = builder.as_dataset(
            split=each,
            shuffle_files=False,
            decoders={image_key: tfds.decode.SkipDecoding()},
            # One file after the other: the order is the same every time.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        labels = records.map(lambda record: record[label_key]).as_numpy_iterator()
        splits[split] = split_of_stream(
            f"data {argument!r}, {each}",
            records.map(lambda record: record[image_key]),
            np.fromiter(labels, "int64"),
        )
    class_names = tuple(features[label_key].names)
    return source_of_stream(argument, builder.name, class_names, splits, policy, notes=notes)
