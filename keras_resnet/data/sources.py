"""Where images come from: what all sources have in common, and a function for each."""

import csv
import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import decode, image_files, read_headers, reason_of
from keras_resnet.files import LABELS_FILE

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""The splits, and the names that their folders may have."""

_SPLIT_OF = {alias: split for split, names in SPLITS.items() for alias in names}

_TEST, VALIDATION = 0.2, 0.15  # parts that are held out where nothing else is said

_TFDS = "tfds:"
_SMALL = 64  # pixels a side up to which images are small ones
_KAGGLE = re.compile(r"(?P<class>[^.]+)\.\d+\.\w+")  # cat.0.jpg

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Split:
    """Images of one split, in memory, in files or in a stream.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, channels), list of path, or Dataset
        The images themselves, their files, or a `tf.data.Dataset` of the contents of image files.
    labels : int array of shape (images,)
        Index of each image's class.
    """

    images: np.ndarray | Sequence[Path] | tf.data.Dataset
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def counts(self, classes: int) -> list[int]:
        """Images of every class.

        Parameters
        ----------
        classes : int
            Classes there are.

        Returns
        -------
        list of int
        """
        return np.bincount(self.labels, minlength=classes).tolist()

    def errors(self) -> dict[int, str]:
        """Decode every image of a file or a stream to its end.

        Returns
        -------
        dict of int to str
            What is wrong with each that cannot be read, by its index.
        """
        if isinstance(self.images, np.ndarray):
            return {}
        if not isinstance(self.images, tf.data.Dataset):
            headers = enumerate(read_headers(self.images, whole=True))
            return {i: str(header) for i, header in headers if isinstance(header, ValueError)}
        found = {}
        for index, contents in enumerate(self.images):
            try:
                decode(contents)
            except tf.errors.InvalidArgumentError:
                found[index] = f"image {index} (counted from 0) cannot be read."
        return found

    def take(self, indices: np.ndarray) -> "Split":
        """Some of the images.

        Parameters
        ----------
        indices : int array
            Which ones; a stream keeps its own order.

        Returns
        -------
        Split
        """
        images = self.images
        if isinstance(images, tf.data.Dataset):
            kept = np.zeros(len(self), bool)
            kept[indices] = True
            some = images.enumerate().filter(lambda index, _: tf.gather(kept, index))
            return Split(some.map(lambda _, image: image), self.labels[kept])
        if isinstance(images, np.ndarray):
            return Split(images[indices], self.labels[indices])
        return Split([images[index] for index in indices], self.labels[indices])

    def joined(self, other: "Split") -> "Split":
        """These images and others behind them.

        Parameters
        ----------
        other : Split
            The others, of the same kind.

        Returns
        -------
        Split
        """
        labels = np.concatenate([self.labels, other.labels])
        if isinstance(self.images, tf.data.Dataset):
            return Split(self.images.concatenate(other.images), labels)
        if isinstance(self.images, np.ndarray):
            return Split(np.concatenate([self.images, other.images]), labels)
        return Split([*self.images, *other.images], labels)


@dataclass(frozen=True)
class Source:
    """A labelled data set, split three ways.

    Parameters
    ----------
    name : str
        What to call it.
    class_names : tuple of str
        Names of the classes, in the order of the labels.
    channels : int
        Channels of an image.
    image_size : int
        Side in pixels that suits the images best, if nobody asks for another.
    augmentation : str
        The augmentation that suits them, a key of `AUGMENTATIONS`.
    train, validation, test : Split
        The splits, with every class in each.
    skipped : tuple of str
        What was wrong with each file that was left out.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    augmentation: str
    train: Split
    validation: Split
    test: Split
    skipped: tuple[str, ...] = field(default=(), repr=False)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return {name: getattr(self, name) for name in SPLITS}

    def class_weight(self) -> dict[int, float]:
        """Weights that make all classes count alike in training, for `fit(class_weight=...)`.

        Returns
        -------
        dict of int to float
            For every class what `sklearn.utils.compute_class_weight` calls "balanced".

        Examples
        --------
        >>> from keras_resnet import data
        >>> weights = data.load("digits").class_weight()
        >>> 0.9 < min(weights.values()) <= 1 <= max(weights.values()) < 1.1
        True
        """
        from sklearn.utils import compute_class_weight

        classes = np.arange(len(self.class_names))
        weights = compute_class_weight("balanced", classes=classes, y=self.train.labels)
        return dict(enumerate(map(float, weights)))

    def fingerprint(self) -> str:
        """A digest of what tells whether two sources are the same.

        Returns
        -------
        str
            Of the names of the classes, all labels in their order, and the images: their pixels
            where they are in memory, the names of their files, and nothing of a stream.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split in self.splits.values():
            digest.update(np.asarray(split.labels, "int64").tobytes())
            if isinstance(split.images, np.ndarray):
                digest.update(np.ascontiguousarray(split.images))
            elif not isinstance(split.images, tf.data.Dataset):
                names = ("/".join(Path(file).parts[-2:]) for file in split.images)
                digest.update("\n".join(names).encode())
        return digest.hexdigest()[:16]

    def with_all_to_train(self) -> "Source":
        """The same data with the validation images among those to train on, and none to validate.

        Returns
        -------
        Source

        Examples
        --------
        >>> from keras_resnet import data
        >>> digits = data.load("digits").with_all_to_train()
        >>> len(digits.train), len(digits.validation)
        (1438, 0)
        """
        nothing = self.validation.take(np.array([], int))
        return replace(self, train=self.train.joined(self.validation), validation=nothing)

    @property
    def imbalance(self) -> float:
        """How many times more training images the largest class has than the smallest."""
        counts = self.train.counts(len(self.class_names))
        return max(counts) / min(counts)


def load(
    source: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Load a data set.

    What is not split where it comes from is split here, class by class: a fifth of the images for
    the test, 15 % of the rest for validation.

    Parameters
    ----------
    source : str or path
        - "digits": the 1,797 handwritten digits that come with scikit-learn.
        - A folder of images as class/image, or with the folders train, test and, if there is one,
          validation above that; or with files named like cat.0.jpg in place of the class folders.
        - A CSV file with the columns path and label, and a column split if there is one.
        - "tfds:NAME": a data set of tensorflow-datasets, prepared before or downloaded now, or
          "tfds:FOLDER", where one was prepared, or laid out as `tfds.ImageFolder` wants it.
        - TFRecord files, `.tfrecord` or `.tfrecord.gz`, or shards such as
          `cifar.tfrecord-00000-of-00010`: one of them, or a pattern such as
          "cifar_*.tfrecord.gz" or "cifar.tfrecord-*". Each record has an `image` (the contents of
          an image file) and a `label`. A "test" or "val" in a file's name says what it is for; the
          names of the classes are the lines of a `labels.txt` beside it, or numbers.
    seed : int, default 0
        Seed of the split.
    on_error : {"raise", "skip"}, default "raise"
        What to do about a file that is missing, damaged or no image: raise an error that names it,
        or leave it out and tell in `Source.skipped`. To skip, every image is decoded once; without,
        beginning and end are looked at.
    validation : float, default 0.15
        Part of the training images that is kept for validation, where nothing is; 0 for none.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there is no such source, if it holds no images or fewer than two classes, if a class is
        too small to split or has no images, or for a file that is not the image that its name says.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (1222, 216, 359)
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation={validation!r} must be at least 0 and below 1.")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} must be 'raise' or 'skip'.")
    name = os.fspath(source)
    if name == "digits":
        return digits(seed, validation)
    if name.startswith(_TFDS):
        return tensorflow_dataset(name.removeprefix(_TFDS), seed, on_error, validation)
    if re.search(r"\.tfrecords?(\.gz|(\.gz)?-\d+-of-\d+|[^/\\]*[*?\[].*)?$", name):
        return tfrecords(name, seed, on_error, validation)
    if name.lower().endswith(".csv"):
        return csv_file(name, seed, on_error, validation)
    return folder(name, seed, on_error, validation)


def digits(seed: int = 0, validation: float = VALIDATION) -> Source:
    """The handwritten digits that come with scikit-learn: 8x8 pixels, grey.

    Parameters
    ----------
    seed : int, default 0
        Seed of the split.
    validation : float, default 0.15
        As in `load`.

    Returns
    -------
    Source

    References
    ----------
    Kaynak, Alpaydin: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.

    Examples
    --------
    >>> from keras_resnet.data.sources import digits
    >>> digits().test.images.shape
    (359, 8, 8, 1)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype("uint8")[..., None]
    class_names = tuple(str(name) for name in bunch.target_names)
    return Source(
        name="digits",
        class_names=class_names,
        channels=1,
        image_size=16,
        augmentation="handwriting",
        **_complete({"train": Split(images, bunch.target)}, class_names, seed, validation),
    )


def folder(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """A folder of images laid out as class/image, or split/class/image.

    Parameters
    ----------
    path : path
        The folder. Classes are ordered by name; hidden files and files without the suffix of an
        image are passed over. In place of class folders there may be files like cat.0.jpg, as
        Kaggle has them; a folder "test" whose files tell no class is passed over then.
    seed : int, default 0
        Seed of the split, for what is not split on disk.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        As `load` does.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.data.sources import folder
    >>> with tempfile.TemporaryDirectory() as empty:  # doctest: +ELLIPSIS
    ...     folder(empty)
    Traceback (most recent call last):
        ...
    ValueError: data ...: no folders of images in it. Expected class/image, ...
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(
            f"data {str(path)!r}: there is no such folder; it may also be 'digits', 'tfds:NAME', a "
            "CSV file or TFRecord files."
        )
    roots = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in SPLITS.items()
    }
    # A folder "train" without images in it that tell a class is the class of trains.
    if roots["train"] is None or not _by_class(roots["train"]):
        roots = {"train": path}
    found = {split: _by_class(root) for split, root in roots.items() if root is not None}
    found = {split: files for split, files in found.items() if files or split == "train"}
    class_names = tuple(sorted(found["train"]))
    _check_classes(path, class_names, "class/image, or train/class/image and test/class/image")
    for split, files in found.items():
        strangers = sorted(set(files) - set(class_names))
        lacking = [name for name in class_names if not files.get(name)]
        if strangers or lacking:
            problem = (
                f"no images of {lacking[0]!r}" if lacking else f"a class {strangers[0]!r} more"
            )
            raise ValueError(
                f"data {str(roots[split])!r}: {problem}. Expected every class in every split."
            )
    splits = {
        split: Split(
            [file for name in class_names for file in files[name]],
            np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]),
        )
        for split, files in found.items()
    }
    return _of_files(path, path.resolve().name, class_names, splits, seed, on_error, validation)


def csv_file(
    path: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
) -> Source:
    """Images that a CSV file lists: columns path and label, and split if there is one.

    Parameters
    ----------
    path : path
        The file. A path in it begins at the file's own folder; a split is "train", "validation" or
        "test".
    seed : int, default 0
        Seed of the split, for what the file does not split.
    on_error, validation
        As in `load`.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        As `load` does; and for a missing column, or an unknown split.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"data {str(path)!r}: there is no such file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"data {str(path)!r} is not text in UTF-8: {error}.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise ValueError(
            f"data {str(path)!r}: no column {missing[0]!r} in its first line, "
            f"{','.join(columns)!r}. Expected path,label or path,label,split."
        )
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"data {str(path)!r}, line {reader.line_num}: {error}.") from error
    listed = {}
    for number, row in rows:
        split = (row.get("split") or "train").strip()
        if split not in _SPLIT_OF:
            raise ValueError(
                f"data {str(path)!r}, line {number}: split {split!r} must be one of "
                f"{', '.join(_SPLIT_OF)}."
            )
        if not row["path"] or not row["label"]:
            raise ValueError(f"data {str(path)!r}, line {number}: path or label is empty.")
        listed.setdefault(_SPLIT_OF[split], []).append((path.parent / row["path"], row["label"]))
    class_names = tuple(sorted({row["label"] for _, row in rows}))
    _check_classes(path, class_names, "a line for every image, path,label")
    if "train" not in listed:
        raise ValueError(f"data {str(path)!r}: no line has the split 'train'.")
    splits = {
        split: Split(
            [file for file, _ in images],
            np.array([class_names.index(label) for _, label in images]),
        )
        for split, images in listed.items()
    }
    return _of_files(path, path.stem, class_names, splits, seed, on_error, validation)


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
    import tensorflow_datasets as tfds

    if os.path.isdir(name) and not os.path.exists(os.path.join(name, "dataset_info.json")):
        return folder(name, seed, on_error, validation)
    try:
        builder = tfds.builder_from_directory(name) if os.path.isdir(name) else tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, OSError, ValueError, AssertionError) as error:
        raise ValueError(f"data '{_TFDS}{name}': {reason_of(error)}") from error
    builder.download_and_prepare()
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    features = dict(builder.info.features.items())
    if not (
        isinstance(features.get(image_key), tfds.features.Image)
        and isinstance(features.get(label_key), tfds.features.ClassLabel)
    ):
        raise ValueError(
            f"data '{_TFDS}{name}' has no images with labels, but {', '.join(features)}."
        )
    splits = {}
    for each in builder.info.splits:
        if each not in _SPLIT_OF:
            continue
        records = builder.as_dataset(
            split=each,
            shuffle_files=False,
            decoders={image_key: tfds.decode.SkipDecoding()},
            # One file after the other: the order is the same every time.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        labels = records.map(lambda record: record[label_key]).as_numpy_iterator()
        splits[_SPLIT_OF[each]] = Split(
            records.map(lambda record: record[image_key]), np.fromiter(labels, "int64")
        )
    class_names = tuple(features[label_key].names)
    return _of_stream(
        f"{_TFDS}{name}", builder.name, class_names, splits, seed, on_error, validation
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
        split = next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), "train")
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


def _by_class(root):
    """The files of every class in a folder: in folders of the class's name, or named after it."""
    folders = sorted(
        child for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")
    )
    if folders:
        return {child.name: image_files([child]) for child in folders}
    found = {}
    for file in image_files([root]):
        if match := _KAGGLE.fullmatch(file.name):
            found.setdefault(match["class"], []).append(file)
    return found


def _check_classes(path, class_names, expected):
    if len(class_names) < 2:
        found = (
            f"{class_names[0]!r} is the only class in it"
            if class_names
            else "no folders of images in it"
        )
        raise ValueError(
            f"data {str(path)!r}: {found}. Expected {expected}, with two classes or more."
        )


def _check_counts(path, class_names, splits, but=""):
    for split, images in splits.items():
        for class_name, count in zip(class_names, images.counts(len(class_names)), strict=True):
            if not count:
                raise ValueError(
                    f"data {str(path)!r}: no images of {class_name!r} for {split}{but}. Expected "
                    "every class in every split."
                )


def _of_files(path, name, class_names, splits, seed, on_error, validation):
    """A source of files, once they have been looked at."""
    skipped = []
    for split, images in splits.items():
        headers = read_headers(images.images, whole=on_error == "skip")
        errors = [header for header in headers if isinstance(header, ValueError)]
        if errors and on_error == "raise":
            raise errors[0]
        if errors:
            skipped += map(str, errors)
            kept = [i for i, header in enumerate(headers) if not isinstance(header, ValueError)]
            splits[split] = images.take(np.array(kept, int))
    _check_counts(path, class_names, splits, " but damaged ones" if skipped else "")
    return Source(
        name=name,
        class_names=class_names,
        channels=3,
        image_size=224,
        augmentation="photograph",
        skipped=tuple(skipped),
        **_complete(splits, class_names, seed, validation),
    )


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
    _check_classes(argument, class_names, "images of several classes")
    if "train" not in splits:
        raise ValueError(f"data {argument!r} has no split 'train'.")
    for split in splits.values():
        if split.labels.min(initial=0) < 0 or split.labels.max(initial=0) >= len(class_names):
            raise ValueError(
                f"data {argument!r}: a label is not one of 0 to {len(class_names) - 1}, for which "
                "there are names."
            )
    _check_counts(argument, class_names, splits)
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
        **_complete(splits, class_names, seed, validation),
    )


def _complete(found, class_names, seed, validation):
    """Make the splits that are missing out of the training images."""
    splits = dict(found)
    random = np.random.default_rng(seed)
    for name, share in (("test", _TEST), ("validation", validation)):
        if name in splits:
            continue
        train = splits["train"]
        if not share:
            splits[name] = train.take(np.array([], int))
            continue
        held_out = []
        for label, class_name in enumerate(class_names):
            members = random.permutation(np.flatnonzero(train.labels == label))
            count = max(1, round(share * len(members)))
            if len(members) <= count:
                raise ValueError(
                    f"class {class_name!r} has too few images to split: add some, at least 3 are "
                    "needed."
                )
            held_out.append(members[:count])
        held_out = np.sort(np.concatenate(held_out))
        kept = np.setdiff1d(np.arange(len(train)), held_out)
        splits[name] = train.take(held_out)
        splits["train"] = train.take(kept)
    return splits
