"""TFRecord files."""

import glob
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import reason_of
from keras_resnet.data.labels_file import LABELS_FILE, read_labels
from keras_resnet.data.source import SPLIT_OF, Source, numbered
from keras_resnet.data.sources.streamed import source_of_stream, split_of_stream
from keras_resnet.data.splitting import VALIDATION, OnError, SplitPolicy

_SHARD = re.compile(r"(?P<before>.*\D|)(?P<number>\d+)-of-(?P<of>\d+)(?P<after>\D.*|)")
_SPLIT_OF = SPLIT_OF | {"trainval": "train", "testdev": "test"}


def tfrecords(
    pattern: str, seed: int = 0, on_error: OnError = "raise", validation: float = VALIDATION
) -> Source:
    """Load TFRecord files whose records have an `image` and a `label`.

    Parameters
    ----------
    pattern : str
        The path of a file, or a pattern of several. A word such as "test" or "val" in a file's
        name, or in its folder's if that is part of the pattern, says which split it is; if no file
        is named train, those without such a word are.
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
        If there is no such file, if its records have other features, if one of several shards is
        missing, or if it cannot be told which split a file is.
    """
    return read_tfrecords(pattern, SplitPolicy(seed, on_error, validation))


def read_tfrecords(pattern: str, policy: SplitPolicy) -> Source:
    """Do what `tfrecords` does, with a policy."""
    # What looks like a pattern may be the name of a file.
    files = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
    if not files:
        raise ValueError(f"data {pattern!r}: there is no such file.")
    notes = _notes_on_shards(pattern, files)
    by_split = _by_split(pattern, files, notes)
    splits = {split: _records(pattern, split, names) for split, names in by_split.items()}
    class_names = _names_beside(pattern, files)
    if class_names is None:
        class_names = numbered(f"data {pattern!r}", [*splits.values()])
    name = re.split(r"[_\-.*?\[]", Path(files[0] if len(files) == 1 else pattern).name)[0]
    return source_of_stream(pattern, name or "tfrecords", class_names, splits, policy, notes=notes)


def _names_beside(pattern, files):
    """The names in the labels.txt beside the files; None if there is none."""
    beside = dict.fromkeys(Path(file).with_name(LABELS_FILE) for file in files)
    found = {file: tuple(read_labels(file)) for file in beside if file.is_file()}
    for file, class_names in found.items():
        if class_names != next(iter(found.values())):
            raise ValueError(
                f"data {pattern!r}: {str(file)!r} has other names than {str(next(iter(found)))!r}, "
                "or in another order. One number can be one class only."
            )
    return next(iter(found.values()), None)


def _notes_on_shards(pattern, files):
    """Say how many of the shards on disk are used; ValueError for a set in which some are lost."""
    notes, sets = [], defaultdict(lambda: defaultdict(set))
    for file in files:
        if match := _SHARD.fullmatch(file):
            sets[match["before"], match["after"]][match["of"]].add(match["number"])
    for (before, after), found in sets.items():
        if len(found) > 1:
            counts = " and ".join(sorted(found))
            raise ValueError(
                f"data {pattern!r}: shards {before}...{after} of {counts}, which are different "
                "sets. Load one of them."
            )
        ((count, there),) = found.items()
        wanted = {f"{number:0{len(min(there))}}" for number in range(int(count))}
        others = [f"{before}{number}-of-{count}{after}" for number in sorted(wanted - there)]
        lost = [file for file in others if not os.path.exists(file)]
        # A single shard that somebody asks for by its name is what they want.
        if there - wanted or (lost and files != [pattern]):
            problem = f"there is no {lost[0]!r}" if lost else "they are numbered from 0"
            raise ValueError(f"data {pattern!r}: {len(there)} of {int(count)} shards; {problem}.")
        if others:
            notes.append(f"{len(there)} of {int(count)} shards {before}...{after} are used.")
    return notes


def _by_split(pattern, files, notes):
    """The files of every split, by the words in their names."""
    fixed = len(Path(re.split(r"[*?\[]", pattern)[0] + "x").parts) - 1
    by_split, unnamed = defaultdict(list), []
    for file in files:
        # Where files of different splits share a name, their folders tell them apart.
        for part in reversed(Path(file).parts[fixed:] if len(files) > 1 else [Path(file).name]):
            words = re.findall(r"[A-Z]*[a-z]+|[A-Z]+", part)
            found = {_SPLIT_OF[word.lower()] for word in words if word.lower() in _SPLIT_OF}
            if len(found) > 1:
                raise ValueError(
                    f"data {pattern!r}: {file!r} is named after {' and '.join(sorted(found))}. "
                    "Name it after one of them."
                )
            if found:
                by_split[found.pop()].append(file)
                break
        else:
            unnamed.append(file)
    if len(by_split) > 1 and "train" not in by_split and not unnamed:
        raise ValueError(
            f"data {pattern!r}: files for {' and '.join(sorted(by_split))}, but none for train."
        )
    if "train" in by_split and unnamed:
        raise ValueError(
            f"data {pattern!r}: {unnamed[0]!r} names no split, but {by_split['train'][0]!r} does. "
            "Name it after a split, or give a pattern without it."
        )
    if unnamed:
        by_split["train"] = unnamed
    if len(by_split) == 1 and "train" not in by_split:
        ((split, found),) = by_split.items()
        notes.append(f"All files are for {split}; they are split like a whole data set.")
        return {"train": found}
    return by_split


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
