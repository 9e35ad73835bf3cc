"""From what names a data set to the data set."""

import os
import re

from keras_resnet.data.source import VALIDATION, OnError, Source
from keras_resnet.data.sources.digits import digits
from keras_resnet.data.sources.files import csv_file, folder
from keras_resnet.data.sources.streams import TFDS, tensorflow_dataset, tfrecords


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
    if name.startswith(TFDS):
        return tensorflow_dataset(name.removeprefix(TFDS), seed, on_error, validation)
    if re.search(r"\.tfrecords?(\.gz|(\.gz)?-\d+-of-\d+|[^/\\]*[*?\[].*)?$", name):
        return tfrecords(name, seed, on_error, validation)
    if name.lower().endswith(".csv"):
        return csv_file(name, seed, on_error, validation)
    return folder(name, seed, on_error, validation)
