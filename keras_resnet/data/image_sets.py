"""Where the images of a split are: arrays in memory, files, or a stream of the contents of files.

=========  ==========================================  ===================================
`Arrays`   pixels in memory                            any order, any of them at any time
`Files`    paths, decoded when they are needed         any order, any of them at any time
`Stream`   a `tf.data.Dataset` of contents of files    one after the other
=========  ==========================================  ===================================

`image_set` wraps what a user passes. Nothing else in the package asks which kind it is.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from keras_resnet.data.images import (
    decode,
    decode_window,
    header_of,
    how_to_decode,
    in_threads,
    read_header,
    read_headers,
    reason_of,
    version_of,
)
from keras_resnet.data.readers import Reader, by_index
from keras_resnet.files import digest
from keras_resnet.progress import tracked

_logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 10_000
"""Images among which those of a stream are shuffled; the other kinds are shuffled whole."""

_GRAPH_SEED = 87654321  # TensorFlow's own where none is set
_BRIGHT = 128  # floats that reach it are clearly on the scale from 0 to 255
_LOOKED_AT = 1000  # images that tell whether all are nearly black


class ImageSet(Protocol):
    """The images of a split, wherever they are."""

    kind: ClassVar[str]
    """The name of the kind, as errors call it."""

    scheme: ClassVar[str]
    """What fingerprints of such images begin with: those of two schemes cannot be compared."""

    @property
    def images(self) -> Any:
        """The images as the user passed them."""
        ...

    @property
    def count(self) -> int | None:
        """Number of images, if it is known."""
        ...

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels, if all images have them in common."""
        ...

    def take(self, indices: np.ndarray) -> "tuple[ImageSet, np.ndarray]":
        """The images at some indices, and these indices in the order in which they come."""
        ...

    def joined(self, other: Any) -> "ImageSet":
        """These images followed by others of the same kind."""
        ...

    def errors(self) -> dict[int, str]:
        """Decode every image to its end: what is wrong with those that cannot be read."""
        ...

    def digests(self) -> np.ndarray:
        """16 hexadecimal digits an image, as bytes, which tell it from others wherever it is.

        Of the contents of its file or record, or of its shape and pixels. Computed once, and kept
        by `take` and `joined`.
        """
        ...

    def names(self) -> list[str]:
        """What to call each image: its path, or its number, counted from 0."""
        ...

    def identity(self) -> Iterator:
        """What tells whether a later run has the same images, for `files.digest`."""
        ...

    def state(self) -> Iterator:
        """What tells whether decoded images are still up to date, for `files.digest`."""
        ...

    def reader(self, labels: np.ndarray, channels: int) -> Reader:
        """Access for the input pipeline."""
        ...

    def inspect(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        """Name and (width, height) of every image; None for the size of a damaged one."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images in memory.

    Parameters
    ----------
    images : uint8 array of shape (images, height, width, channels)
        The pixels.
    known : array, optional
        Their digests, if they are known.
    """

    images: np.ndarray
    known: np.ndarray | None = field(default=None, repr=False)
    kind: ClassVar[str] = "arrays"
    scheme: ClassVar[str] = ""

    @property
    def count(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, indices: np.ndarray) -> "tuple[Arrays, np.ndarray]":
        return Arrays(self.images[indices], _some(self.known, indices)), indices

    def joined(self, other: "Arrays") -> "Arrays":
        if self.shape != other.shape:
            raise ValueError(f"images of shape {self.shape} and {other.shape} cannot be joined.")
        return Arrays(np.concatenate([self.images, other.images]), _both(self, other))

    def errors(self) -> dict[int, str]:
        return {}

    def digests(self) -> np.ndarray:
        shape = repr(self.shape)
        return _once(
            self, lambda: (digest((shape, np.ascontiguousarray(image))) for image in self.images)
        )

    def names(self) -> list[str]:
        return _numbers(len(self.images))

    def identity(self) -> Iterator:
        yield np.ascontiguousarray(self.images)

    def state(self) -> Iterator:
        yield repr(self.images.shape)
        yield np.ascontiguousarray(self.images)

    def reader(self, labels: np.ndarray, channels: int) -> Reader:
        if self.shape[2] != channels:
            raise ValueError(
                f"channels={channels}: the images have {self.shape[2]}; they are arrays of shape "
                "(images, height, width, channels)."
            )
        with tf.device("CPU:0"):  # where the pipeline runs: they may not fit on an accelerator
            images = tf.constant(self.images)
        return by_index(labels, lambda index: tf.gather(images, index))

    def inspect(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        for image in self.images:
            yield "", image.shape[1::-1]


@dataclass(frozen=True, eq=False)
class Files:
    """Images in files.

    Parameters
    ----------
    images : sequence of path
        The files, of any size and format that is read.
    known : array, optional
        Their digests, if they are known.
    """

    images: Sequence[str | os.PathLike]
    known: np.ndarray | None = field(default=None, repr=False)
    kind: ClassVar[str] = "files"
    scheme: ClassVar[str] = "contents-"

    @property
    def shape(self) -> None:
        return None

    @property
    def count(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> "tuple[Files, np.ndarray]":
        return Files([self.images[i] for i in indices], _some(self.known, indices)), indices

    def joined(self, other: "Files") -> "Files":
        return Files([*self.images, *other.images], _both(self, other))

    def errors(self) -> dict[int, str]:
        found = enumerate(read_headers(self.images, whole=True))
        return {i: str(header) for i, header in found if isinstance(header, ValueError)}

    def digests(self) -> np.ndarray:
        return _once(self, lambda: digests_of_files(self.images))

    def names(self) -> list[str]:
        return [os.fspath(file) for file in self.images]

    def identity(self) -> Iterator:
        yield self.digests()

    def state(self) -> Iterator:
        yield self.digests()
        for file in self.images:  # it may have changed since
            status = os.stat(file)
            yield repr((status.st_size, status.st_mtime_ns))

    def reader(self, labels: np.ndarray, channels: int) -> Reader:
        _check_decoded(channels)
        found = []
        for header in read_headers(self.images):
            if isinstance(header, ValueError):
                raise header
            found.append(header)
        paths = tf.constant([os.fsencode(file) for file in self.images])  # UTF-8 or not
        orientations = tf.constant([header.orientation for header in found])
        quick = tf.constant([header.quick for header in found])

        def arguments(index):
            contents = tf.io.read_file(tf.gather(paths, index))
            return contents, tf.gather(orientations, index), tf.gather(quick, index)

        def window(index, choose, at_least):
            return decode_window(*arguments(index), choose, channels, at_least)

        return by_index(labels, lambda index: decode(*arguments(index), channels=channels), window)

    def inspect(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        for file in self.images:
            header = read_header(file)
            yield os.fspath(file), (header.width, header.height)


@dataclass(frozen=True, eq=False)
class Stream:
    """The contents of image files, one after the other.

    Parameters
    ----------
    images : tf.data.Dataset
        Of string tensors, the same in every pass.
    known : array, optional
        Their digests, if they are known.
    """

    images: tf.data.Dataset
    known: np.ndarray | None = field(default=None, repr=False)
    kind: ClassVar[str] = "a stream"
    scheme: ClassVar[str] = "contents-"

    @property
    def shape(self) -> None:
        return None

    @property
    def count(self) -> int | None:
        cardinality = int(self.images.cardinality())
        return None if cardinality == tf.data.UNKNOWN_CARDINALITY else cardinality

    def take(self, indices: np.ndarray) -> "tuple[Stream, np.ndarray]":
        indices = np.unique(indices)
        kept = np.zeros(indices.max(initial=-1) + 1, bool)
        kept[indices] = True
        some = self.images.take(len(kept)).enumerate()
        some = some.filter(lambda index, _: tf.gather(kept, index))
        return Stream(some.map(lambda _, image: image), _some(self.known, indices)), indices

    def joined(self, other: "Stream") -> "Stream":
        return Stream(self.images.concatenate(other.images), _both(self, other))

    def errors(self) -> dict[int, str]:
        found = {}
        for index, contents in enumerate(tracked(self.images, "Checking images")):
            try:
                header_of(contents.numpy(), whole=True)
            except ValueError as error:
                found[index] = f"image {index} (counted from 0) {error}"
        return found

    def digests(self) -> np.ndarray:
        def compute():
            for contents in tracked(self.images.as_numpy_iterator(), "Reading", self.count):
                yield digest([contents])

        return _once(self, compute)

    def names(self) -> list[str]:
        return _numbers(len(self.digests()))

    def identity(self) -> Iterator:
        yield self.digests()

    def state(self) -> Iterator:
        yield self.digests()

    def reader(self, labels: np.ndarray, channels: int) -> Reader:
        _check_decoded(channels)
        all_labels = tf.data.Dataset.from_tensor_slices(tf.constant(labels))

        def elements(seed=None):
            pairs = tf.data.Dataset.zip((self.images, all_labels))
            if seed is None:
                return pairs
            # The order would also depend on tf.random.set_seed, where a 0 makes TensorFlow compare
            # the tensor that our seed is. This is the graph of an epoch; nothing else in it draws.
            tf.compat.v1.get_default_graph().seed = _GRAPH_SEED
            return pairs.shuffle(SHUFFLE_BUFFER, seed=seed)

        def arguments(contents):
            return contents, *how_to_decode(contents)

        return Reader(
            elements,
            lambda each: decode(*arguments(each), channels=channels),
            lambda each, choose, at_least: decode_window(
                *arguments(each), choose, channels, at_least
            ),
        )

    def inspect(self) -> Iterator[tuple[str, tuple[int, int] | None]]:
        for contents in self.images.as_numpy_iterator():
            try:
                header = header_of(contents, whole=True)
            except ValueError:
                yield "", None
            else:
                yield "", (header.width, header.height)


def digests_of_files(files: Iterable[str | os.PathLike]) -> list[str]:
    """Digest the contents of files, in parallel.

    Parameters
    ----------
    files : iterable of path
        The files. One that has not changed since the last time is not read again.

    Returns
    -------
    list of str
        16 hexadecimal digits a file.

    Raises
    ------
    ValueError
        For a file that cannot be read.
    """

    def attempt(file):
        try:
            return _digest_of_file(os.path.abspath(file), version_of(file))
        except OSError as error:
            raise ValueError(f"{os.fspath(file)!r} cannot be read: {reason_of(error)}.") from error

    return in_threads(attempt, [*files], "Reading")


@functools.lru_cache(maxsize=2**18)
def _digest_of_file(file, _version):
    """The digest of a file's contents, read again if the file has changed."""
    return digest([Path(file).read_bytes()])


def _once(images, compute):
    """The digests of images, computed at the first call."""
    known = images.known
    if known is None:
        known = np.array([*compute()], "S16")
        object.__setattr__(images, "known", known)
    return known


def _some(known, indices):
    """The digests of some images, if they are known."""
    return None if known is None else known[indices]


def _both(images, others):
    """The digests of two sets of images, if those of both are known."""
    if images.known is None or others.known is None:
        return None
    return np.concatenate([images.known, others.known])


def _check_decoded(channels):
    """Raise ValueError for images that no file can be decoded to."""
    if channels not in (1, 3):
        raise ValueError(
            f"channels={channels}: files of images are read as grey images (1) or in color (3); "
            "others have to be arrays."
        )


def _numbers(count):
    """The numbers of images, as names."""
    return [str(number) for number in range(count)]


def image_set(images: Any) -> ImageSet:
    """Wrap the images that a user passes.

    Parameters
    ----------
    images : array, list of path, tf.data.Dataset, or any of the sets of this module
        As in `Split`.

    Returns
    -------
    ImageSet

    Raises
    ------
    ValueError
        For anything else, and for pixels that are not clearly 0 to 255.
    """
    for kinds, wrap in _KINDS:
        if isinstance(images, kinds):
            return wrap(images)
    if hasattr(images, "__array__"):  # tensors, and columns of tables
        return _of_array(np.asarray(images))
    raise ValueError(
        f"images of type {type(images).__name__} must be a uint8 array of shape (images, height, "
        "width, channels), a list of paths, or a tf.data.Dataset of the contents of image files."
    )


def _of_array(images):
    """Pixels as uint8; an array of text is a list of files."""
    if images.ndim == 1 and images.dtype.kind in "OU":
        return _of_list(images.tolist())
    if images.ndim != 4:
        fix = ": add a channel axis, images[..., None]" if images.ndim == 3 else ""
        raise ValueError(
            f"images of shape {images.shape} must have the shape (images, height, width, "
            f"channels){fix}."
        )
    if images.dtype != np.uint8:
        return Arrays(_as_bytes(images))
    some = images[:: 1 + len(images) // _LOOKED_AT]
    if some.size and some.max() == 1:  # a mask, or images that were divided by 255
        _logger.warning(
            "images are uint8 from %d to 1, which is nearly black: 255 is white.", some.min()
        )
    return Arrays(images)


def _as_bytes(images):
    """Pixels of another type as uint8, if they clearly are 0 to 255."""
    kind = {"i": "integers", "u": "integers", "f": "floats"}.get(images.dtype.kind)
    if kind is None:
        raise ValueError(f"images of type {images.dtype} must be uint8, from 0 to 255.")
    if not images.size:
        return images.astype("uint8")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # NaN too
        raise ValueError(
            f"images are {images.dtype} from {low:g} to {high:g}; they must be uint8 from 0 to "
            "255. Undo their normalization, or scale them."
        )
    if (kind == "floats" and high < _BRIGHT) or high == 1:
        fix = "(255 * images).round()" if high <= 1 else "images.round()"
        raise ValueError(
            f"images are {images.dtype} from {low:g} to {high:g}, which may not be the scale from "
            f"0 to 255. Pass uint8: {fix}.astype('uint8')"
            f"{'' if high <= 1 else ', if that is their scale'}."
        )
    return (np.round(images) if kind == "floats" else images).astype("uint8")


def _of_list(images):
    """Files, each of which is named by a path."""
    for index, file in enumerate(images):
        if not isinstance(file, (str, os.PathLike)):
            raise ValueError(
                f"images[{index}] is of type {type(file).__name__}; in a list, images are paths of "
                "files. Make one array of several: np.stack(images)."
            )
    return Files(images)


def _of_dataset(images):
    """A stream whose elements are strings."""
    spec = images.element_spec
    if getattr(spec, "dtype", None) != tf.string or spec.shape.rank not in (None, 0):
        raise ValueError(
            f"images is a tf.data.Dataset of {spec}; it must be one of string tensors of shape (), "
            "the contents of image files, without labels and not in batches."
        )
    if int(images.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("images is a tf.data.Dataset without an end: leave `repeat()` out.")
    return Stream(images)


_KINDS: tuple[tuple[Any, Callable[[Any], ImageSet]], ...] = (
    ((Arrays, Files, Stream), lambda images: images),
    (np.ndarray, _of_array),
    (tf.data.Dataset, _of_dataset),
    ((list, tuple), _of_list),
)
