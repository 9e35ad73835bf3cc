"""Where images come from: what all sources have in common, and a function for each."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import tensorflow as tf

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "MPO")  # MPO: a JPEG with a second one behind it

SPLITS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
"""The splits, and the names that their folders may have."""


@dataclass(frozen=True)
class Split:
    """Images of one split, in memory or on disk.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, channels), or list of path
        The images themselves, or their files.
    labels : int array of shape (images,)
        Index of each image's class.
    """

    images: np.ndarray | Sequence[Path]
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


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
        The augmentation that suits them, a key of `pipeline.AUGMENTATIONS`.
    train, validation, test : Split
        The splits, with every class in each.
    """

    name: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    augmentation: str
    train: Split
    validation: Split
    test: Split


def load(source: str | os.PathLike, seed: int = 0) -> Source:
    """Load a data set.

    Parameters
    ----------
    source : str or path
        "digits": the 1,797 handwritten digits that come with scikit-learn. Otherwise a folder of
        images as class/image, or with the folders train, test and, if there is one, validation
        above that. What is not split on disk is split here, class by class: a fifth of the images
        for the test, 15 % of the rest for validation.
    seed : int, default 0
        Seed of the split.

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        If there is no such folder, if it holds no images or fewer than two classes, if a class is
        too small to split, or a file is not the image that its name says.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (1222, 216, 359)
    """
    if str(source) == "digits":
        return digits(seed)
    return folder(source, seed)


def digits(seed: int = 0) -> Source:
    """The handwritten digits that come with scikit-learn: 8x8 pixels, grey.

    Parameters
    ----------
    seed : int, default 0
        Seed of the split.

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
    return Source(
        name="digits",
        class_names=tuple(str(name) for name in bunch.target_names),
        channels=1,
        image_size=16,
        augmentation="handwriting",
        **_split(images, bunch.target, seed),
    )


def folder(path: str | os.PathLike, seed: int = 0) -> Source:
    """A folder of images laid out as class/image, or split/class/image.

    Parameters
    ----------
    path : path
        The folder. Classes are ordered by name; hidden files and files without the suffix of an
        image are passed over.
    seed : int, default 0
        Seed of the split, for what is not split on disk.

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
        raise ValueError(f"data {str(path)!r}: there is no such folder; it may also be 'digits'.")
    roots = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in SPLITS.items()
    }
    # A folder "train" without folders in it is the class of trains.
    if roots["train"] is None or not _class_folders(roots["train"]):
        roots = {"train": path}
    class_names = tuple(sorted(_class_folders(roots["train"])))
    found = {}
    for split, root in roots.items():
        if root is None:
            continue
        files = {name: image_files([root / name]) for name in class_names if (root / name).is_dir()}
        strangers = sorted(set(_class_folders(root)) - set(class_names))
        lacking = [name for name in class_names if not files.get(name)]
        if strangers or lacking:
            problem = (
                f"no images of {lacking[0]!r}" if lacking else f"a class {strangers[0]!r} more"
            )
            raise ValueError(f"data {str(root)!r}: {problem}. Expected every class in every split.")
        found[split] = Split(
            [file for name in class_names for file in files[name]],
            np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]),
        )
    if len(class_names) < 2:
        raise ValueError(
            f"data {str(path)!r}: "
            + (
                f"{class_names[0]!r} is the only class in it"
                if class_names
                else "no folders of images in it"
            )
            + ". Expected class/image, or train/class/image and test/class/image, with two classes "
            "or more."
        )
    for split in found.values():
        check_images(split.images)
    return Source(
        name=path.resolve().name,
        class_names=class_names,
        channels=3,
        image_size=224,
        augmentation="photograph",
        **_complete(found, class_names, seed),
    )


def image_files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """The image files among `paths` and directly in the folders among them, in order of name.

    Parameters
    ----------
    paths : iterable of path
        Files, taken as they are, and folders.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    ValueError
        For a path that does not exist.

    Examples
    --------
    >>> from keras_resnet.data import image_files
    >>> image_files(["no.jpg"])
    Traceback (most recent call last):
        ...
    ValueError: 'no.jpg': there is no such file or folder.
    """
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            )
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"{str(path)!r}: there is no such file or folder.")
    return files


def check_images(files: Iterable[str | os.PathLike], whole: bool = False) -> None:
    """Make sure that files are images, before work starts on them.

    Parameters
    ----------
    files : iterable of path
        Files that should be JPEG, PNG, BMP or GIF images, whatever their suffix.
    whole : bool, default False
        Decode every image to its end, instead of looking at the headers alone.

    Raises
    ------
    ValueError
        For the first file that is not an image, or damaged.

    Examples
    --------
    >>> import tempfile
    >>> from keras_resnet.data import check_images
    >>> with tempfile.NamedTemporaryFile(suffix=".jpg") as file:  # doctest: +ELLIPSIS
    ...     check_images([file.name])
    Traceback (most recent call last):
        ...
    ValueError: '...jpg' is not an image that can be read: ...
    """
    for file in files:
        try:
            with PIL.Image.open(file) as image:
                if image.format not in IMAGE_FORMATS:
                    raise OSError(f"a {image.format} file; use {', '.join(IMAGE_FORMATS[:4])}")
                if image.format == "BMP" and image.tile[0].args[0] != "BGR":
                    raise OSError("a BMP file of other than 24 bits a pixel; use PNG")
                if whole:
                    image.load()
                    decode(file, channels=3)
        except (
            OSError,
            SyntaxError,
            PIL.Image.DecompressionBombError,
            tf.errors.InvalidArgumentError,
        ) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{str(file)!r} is not an image that can be read: {reason}."
            ) from error


def decode(file: str | os.PathLike | tf.Tensor, channels: int) -> tf.Tensor:
    """Read one image file.

    Parameters
    ----------
    file : path or string tensor
        A JPEG, PNG, BMP or GIF file; of a GIF, the first frame.
    channels : {1, 3}
        1 for grey, 3 for RGB.

    Returns
    -------
    tensor of shape (height, width, channels), float32, 0 to 255
    """
    contents = tf.io.read_file(file if tf.is_tensor(file) else os.fspath(file))
    # Not every format decodes to one channel, but all of them do to three.
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    image = tf.cast(image, "float32")
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def _class_folders(root):
    return [
        child.name for child in root.iterdir() if child.is_dir() and not child.name.startswith(".")
    ]


def _split(images, labels, seed):
    """All three splits of one set of images."""
    return _complete({"train": Split(images, labels)}, range(labels.max() + 1), seed)


def _complete(found, class_names, seed):
    """Make the splits that are missing out of the training images."""
    splits = dict(found)
    random = np.random.default_rng(seed)
    for name, share in (("test", 0.2), ("validation", 0.15)):
        if name in splits:
            continue
        train = splits["train"]
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
        splits[name] = _take(train, held_out)
        splits["train"] = _take(train, kept)
    return splits


def _take(split, indices):
    images = split.images
    if isinstance(images, np.ndarray):
        return Split(images[indices], split.labels[indices])
    return Split([images[index] for index in indices], split.labels[indices])
