"""The images of a run: what it was trained on and tested on, listed in images.csv."""

import contextlib
import csv
import os
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_resnet import data
from keras_resnet.data.image_sets import Files, digests_of_files
from keras_resnet.data.labels import LABELS
from keras_resnet.data.source import joined
from keras_resnet.data.splitting import VALIDATION
from keras_resnet.files import read_object, written_beside
from keras_resnet.runs.choices import IMAGES_FILE, METRICS_FILE, MODEL_FILE


class _Row(NamedTuple):
    """An image of a run: a path, or a number in its split, counted from 0."""

    split: str
    image: str
    label: str
    digest: str


def write_images(folder: Path, source: data.Source) -> None:
    """Write down the images of a run."""
    written = LABELS[source.task].written
    with (
        written_beside(folder / IMAGES_FILE) as partial,
        _opened(partial, "w") as file,
    ):
        table = csv.writer(file)  # whose own ends of lines have it quote those in names
        table.writerow(_Row._fields)
        for name, split in source.splits.items():
            images = split.image_set.names()
            if isinstance(split.image_set, Files):
                images = map(os.path.abspath, images)
            digests = np.char.decode(split.digests()).tolist()
            for image, label, digest in zip(images, split.labels, digests, strict=True):
                table.writerow(_Row(name, image, written(label, source.class_names), digest))


def _opened(path, mode):
    # Names of files are bytes, which need not be text.
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def _cells_of_any_length():
    """Let a cell be longer than 128 kB, as the one with thousands of boxes is."""
    former = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(former)


@dataclass(frozen=True)
class RunImages:
    """What a run knows about its images.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the run.
    rows : dict of str to list
        The images of every split.
    metrics : dict
        What metrics.json holds: the name of the data, the task, and the arguments of `data.load`.
    """

    folder: Path
    rows: dict[str, list[_Row]]
    metrics: dict

    @property
    def validation(self) -> float:
        """The fraction of the training images that was held out for validation."""
        return (self.metrics.get("loaded") or {}).get("validation", VALIDATION)

    @property
    def in_memory(self) -> bool:
        """Whether its images are arrays, whose digests are none of files."""
        return (self.metrics.get("loaded") or {}).get("source") == "digits"

    def among(self, digests: np.ndarray, split: str) -> int:
        """How many of some images the run has in a split."""
        return int(np.isin(digests, _digests(self.rows[split])).sum())

    def find(
        self, wanted: tuple[str, ...], class_names: tuple[str, ...], task: str | None
    ) -> tuple[data.Source, dict[str, int]]:
        """The images that are unchanged, and how many of the `wanted` splits have changed or gone.

        Raises ValueError if none is left.
        """
        rows = [row for name in wanted for row in self.rows[name]]
        what = " and ".join(wanted)
        if not rows:
            raise ValueError(f"run {str(self.folder)!r} has no {what} images.")
        task = self.metrics.get("task") or task or "classification"
        find = self._in_files if self.has_files else self._in_data
        source, missing = find(wanted, class_names, task)
        if sum(missing.values()) == len(rows):
            raise ValueError(
                f"run {str(self.folder)!r}: none of its {len(rows)} {what} images is still there "
                "and unchanged. Give other images to test on, --data (source=)."
            )
        return source, missing

    def some(
        self, split: str, places: np.ndarray, class_names: tuple[str, ...], task: str
    ) -> tuple[data.Split, np.ndarray]:
        """The given images of a split, as far as they are unchanged, and their places.

        Raises ValueError or OSError where the data can no longer be loaded.
        """
        rows = self.rows[split]
        if self.has_files:
            there = [i for i in places if os.path.isfile(rows[i].image)]
            now = digests_of_files([rows[i].image for i in there])
            kept = [i for i, digest in zip(there, now, strict=True) if rows[i].digest == digest]
            images = Files([rows[i].image for i in kept], _digests([rows[i] for i in kept]))
        elif not self.metrics.get("loaded"):
            raise ValueError(f"{METRICS_FILE} does not say where the images are.")
        else:
            whole, places_of = _indexed(data.load(**self.metrics["loaded"]))
            found = sorted(
                (places_of[rows[i].digest].pop(0), i) for i in places if places_of[rows[i].digest]
            )  # a stream keeps its own order
            images, _ = whole.image_set.take(np.array([index for index, _ in found], int))
            kept = [i for _, i in found]
        labels = _labels([rows[i] for i in kept], class_names, task)
        return data.Split(images, labels), np.array(kept, int)

    @property
    def has_files(self) -> bool:
        """Whether the images are files of their own, not those of a data set or of records."""
        return any(os.path.isabs(row.image) for rows in self.rows.values() for row in rows[:1])

    def _in_files(self, wanted, class_names, task):
        """The files that are still there and unchanged; those of other splits are not read."""
        splits, missing = {}, {"changed": 0, "gone": 0}
        for name, rows in self.rows.items():
            there = [os.path.isfile(row.image) or name not in wanted for row in rows]
            missing["gone"] += there.count(False)
            rows = [row for row, is_there in zip(rows, there, strict=True) if is_there]
            if name in wanted:
                now = digests_of_files([row.image for row in rows])
                same = [row for row, digest in zip(rows, now, strict=True) if row.digest == digest]
                missing["changed"] += len(rows) - len(same)
                rows = same
            files = Files([row.image for row in rows], _digests(rows))
            splits[name] = data.Split(files, _labels(rows, class_names, task))
        return data.Source(
            name=self.metrics.get("data", self.folder.name),
            class_names=class_names,
            channels=3,
            image_size=224,
            augmentation="none",
            task=task,
            **splits,
        ), missing

    def _in_data(self, wanted, class_names, task):
        """The images with the same contents in the data, which is loaded again."""
        if not self.metrics.get("loaded"):
            raise ValueError(
                f"run {str(self.folder)!r}: {METRICS_FILE} does not say where its images are. Give "
                "them, --data (source=)."
            )
        source = data.load(**self.metrics["loaded"])
        whole, places = _indexed(source)
        splits, missing = {}, {"changed": 0, "gone": 0}
        for name, rows in self.rows.items():
            found = sorted(
                (places[row.digest].pop(0), row) for row in rows if places.get(row.digest)
            )
            missing["gone"] += (len(rows) - len(found)) * (name in wanted)
            images, _ = whole.image_set.take(np.array([index for index, _ in found], int))
            labels = _labels([row for _, row in found], class_names, task)
            splits[name] = data.Split(images, labels)
        return replace(source, class_names=class_names, task=task, **splits), missing


def _indexed(source):
    """All images of some data, and where those of each digest are."""
    whole, places = joined(source.splits.values()), defaultdict(list)
    for index, digest in enumerate(np.char.decode(whole.digests()).tolist()):
        places[digest].append(index)
    return whole, places


def _digests(rows):
    return np.array([row.digest for row in rows], "S16")


def _labels(rows, class_names, task):
    return LABELS[task].read([row.label for row in rows], class_names)


def images_of(model: str | os.PathLike) -> RunImages | None:
    """What a model's run knows about its images; None without a run, or for one that lists none."""
    folder = Path(model).parent if Path(model).name == MODEL_FILE else Path(model)
    if not (folder / IMAGES_FILE).is_file():
        return None
    rows = {name: [] for name in data.SPLITS}
    with _opened(folder / IMAGES_FILE, "r") as file, _cells_of_any_length():
        try:
            for row in csv.DictReader(file):
                rows[row["split"]].append(_Row(**row))
        except (KeyError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{str(folder / IMAGES_FILE)!r} is not the list of a run's images: its first line "
                f"is {','.join(_Row._fields)}, its splits are {', '.join(rows)}."
            ) from error
    metrics = folder / METRICS_FILE
    known = read_object(metrics) if metrics.is_file() else {}
    return RunImages(folder, rows, known)
