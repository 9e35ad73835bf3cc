"""Load a data set by its name or path."""

import glob
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from keras_resnet.checks import check_choice
from keras_resnet.data.labels import LABELS, Task
from keras_resnet.data.source import Source
from keras_resnet.data.sources.coco import is_coco, read_coco
from keras_resnet.data.sources.csv_file import read_csv
from keras_resnet.data.sources.digits import read_digits
from keras_resnet.data.sources.folder import read_folder
from keras_resnet.data.sources.tensorflow_dataset import TFDS, read_tensorflow_dataset
from keras_resnet.data.sources.tfrecords import read_tfrecords
from keras_resnet.data.sources.voc import is_voc, read_voc
from keras_resnet.data.splitting import TEST, VALIDATION, OnError, SplitPolicy

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Parameters
    ----------
    matches : callable
        Takes a name or path; whether it is of this kind.
    read : callable
        Takes a name or path and a policy, and the task if there are several; returns the source.
    tasks : tuple of str
        The tasks that its labels may be for.
    named : bool
        Whether it goes by a name, which a `Path` is not.
    """

    matches: Callable[[str], object]
    read: Callable[..., Source]
    tasks: tuple[str, ...] = ("classification",)
    named: bool = False


KINDS = (
    Kind(lambda name: name == "digits", read_digits, named=True),
    Kind(lambda name: name.startswith(TFDS), read_tensorflow_dataset, named=True),
    Kind(re.compile(r"(?i)\.tfrec(ords?)?(\.gz|(\.gz)?-\d+-of-\d+|[^/\\]*[*?\[].*)?$").search,
         read_tfrecords),
    Kind(lambda name: name.lower().endswith((".csv", ".tsv")), read_csv, tuple(LABELS)),
    Kind(lambda name: re.search(r"[*?]", name) and not os.path.isdir(name), read_tfrecords),
    Kind(is_coco, read_coco, ("detection",)),
    Kind(is_voc, read_voc, ("detection",)),
    Kind(lambda name: True, read_folder),
)  # fmt: skip
"""The kinds of sources. The first that matches is taken."""

_HAS = {
    "classification": "has one class an image. Images with several labels, or with numbers, are "
    "listed in a CSV file; boxes in one too, in COCO's JSON, or in a folder like Pascal VOC's",
    "detection": "has boxes, which are task='detection'",
}


def load(
    source: str | os.PathLike,
    seed: int = 0,
    on_error: OnError = "raise",
    validation: float = VALIDATION,
    *,
    task: Task | None = None,
    test: float = TEST,
) -> Source:
    """Load a data set.

    What is not split where it comes from is split here: about a fifth of the images for the test,
    15 % of the rest for validation, and at least one of every class, or of every label where
    possible. Where the image in a file or record goes depends on the seed and on its own contents
    alone: others may be added or removed, and files renamed, and it stays there, unless it is the
    only one of its class. Equal images are in one split.

    Parameters
    ----------
    source : str or path
        - "digits": the 1,797 handwritten digits that come with scikit-learn. `Path("digits")` is a
          folder.
        - A folder of images as class/image, with images at any depth; or with the folders train,
          test and, if there is one, validation above that; or with files named like cat.0.jpg in
          place of the class folders.
        - A CSV file with the columns path and label, and a column split if there is one. Several
          labels an image are written as cat|dog; numbers to predict are in a column value, or are
          labels with a decimal point. Images with the same text in a column group stay in one
          split. Semicolons or tabs may be in place of commas. With columns xmin, ymin, xmax and
          ymax, a line is a box and label its class; an image with several has several lines.
        - A folder of images with boxes, laid out like Pascal VOC: Annotations, JPEGImages and, for
          the splits, ImageSets/Main; or COCO's JSON: a file, or a folder with one for each split.
        - "tfds:NAME": a data set of tensorflow-datasets, prepared before or downloaded now, or
          "tfds:FOLDER", where one was prepared, or laid out as `tfds.ImageFolder` wants it.
        - TFRecord files, `.tfrecord`, `.tfrec` or `.tfrecord.gz`, or shards such as
          `cifar.tfrecord-00000-of-00010`: one of them, or a pattern such as
          "cifar_*.tfrecord.gz" or "cifar.tfrecord-*". Each record has an `image` (the contents of
          an image file) and a `label`. A "test" or "val" in a file's name says what it is for; the
          names of the classes are the lines of a `labels.txt` beside it, or numbers.
    seed : int, default 0
        Seed of the split.
    on_error : {"raise", "skip"}, default "raise"
        What to do about a file that is missing, damaged or no image: raise an error that names it,
        or leave it out and say so in `Source.skipped`. To skip, every image is decoded once;
        otherwise only the beginning and end of each file are read.
    validation : float, default 0.15
        Fraction of the training images that is held out for validation if the source has no
        validation split; 0 for none.
    test : float, default 0.2
        Fraction of the images that is held out for the test if the source has no test split; 0 for
        none.
    task : {"classification", "multilabel", "regression", "detection"}, optional
        What the labels of a CSV file are for. Default: what they look like; whole numbers are names
        of classes.

    Returns
    -------
    Source
        `Source.skipped` lists what was seen and is not used; `Source.notes`, which are logged too,
        say what one should know about the data.

    Raises
    ------
    ValueError
        If there is no such source, if it holds no images or fewer than two classes, if a class is
        too small to split or has no images, for a file that is not the image that its name says,
        for labels that do not suit the task, or if there are no boxes, or many that do not fit into
        their images. A few boxes that do not fit are left out or cut, and named in `Source.notes`.

    Examples
    --------
    >>> from keras_resnet import data
    >>> digits = data.load("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (1222, 216, 359)
    """
    policy = SplitPolicy(seed, on_error, validation, test)
    check_choice((None, *LABELS), task=task)
    name = os.fsdecode(source)
    called = isinstance(source, str)
    kind = next(kind for kind in KINDS if kind.matches(name) and (called or not kind.named))
    if task not in (None, *kind.tasks):
        raise ValueError(f"task={task!r}: data {name!r} {_HAS[kind.tasks[0]]}.")
    found = kind.read(name, policy, *([task] if len(kind.tasks) > 1 else []))
    for note in found.notes:
        _logger.warning("%s: %s", name, note)
    again = name if kind.read is read_digits else _anywhere(name)
    return replace(found, loaded={"source": again, **asdict(policy), "task": task})


def _anywhere(name):
    """A name that means the same in every working directory."""
    prefix = TFDS if name.startswith(TFDS) else ""
    path = name.removeprefix(prefix)
    return prefix + os.path.abspath(path) if os.path.exists(path) or glob.glob(path) else name
