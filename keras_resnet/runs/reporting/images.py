"""The images of a run: what it was trained on, and what it gets wrong."""

import logging
from itertools import combinations
from typing import Any

import numpy as np
from markupsafe import Markup

from keras_resnet import data, explain, graphs, pages
from keras_resnet.data.labels import LABELS
from keras_resnet.pages import Section, parts
from keras_resnet.runs.models import normalized
from keras_resnet.runs.reporting.facts import Run

log = logging.getLogger(__name__)

_EACH = 6  # worst mistakes, and least certain images
_SAMPLES = 24
_SIDE = 160  # pixels of a picture in the file
_SHOWN = 128  # pixels of one on the page
_ALL = 50  # classes up to which the table of their counts is open


def sample_images(run: Run) -> Section | None:
    """The data: its splits and classes, and what is wrong with it."""
    found: list[Any] = []
    rows: list[tuple[str, Any]] = [("Data", run.metrics.get("data"))]
    if run.images:
        counts = {split: len(rows) for split, rows in run.images.rows.items()}
        rows.append(("Images", ", ".join(f"{count:,} {name}" for name, count in counts.items())))
    rows.append((_NAMES[run.task], len(run.names)))
    if run.images:
        rows.append(("Images in two splits", _common(run)))
    skipped = run.metrics.get("skipped_count")
    if skipped is not None:
        rows.append(("Skipped files", skipped or "none"))
    found.append(parts.facts(rows))
    found += [parts.note(line) for line in run.metrics.get("notes") or ()]
    if skipped:
        lines = [[line] for line in run.metrics.get("skipped") or ()]
        found.append(parts.details("Why files were skipped", parts.table(["file"], lines)))
    return Section("Data", [*found, *_counted(run), *_samples(run)])


_NAMES = {
    "classification": "Classes",
    "multilabel": "Labels",
    "regression": "Values",
    "detection": "Classes",
}


def _common(run):
    """How many images two splits have in common."""
    digests = {
        split: [row.digest for row in rows] for split, rows in run.images.rows.items() if rows
    }
    lines = []
    for (first, some), (second, others) in combinations(digests.items(), 2):
        known = {*some}
        if count := sum(digest in known for digest in others):
            lines.append(f"{count:,} of {len(others):,} {second} images are also in {first}")
    return "; ".join(lines) or "none"


def _counted(run):
    """How many images of each class are in each split."""
    if run.images is None or run.task not in ("classification", "multilabel"):
        return []
    kind, splits = LABELS[run.task], {}
    for split, rows in run.images.rows.items():
        if rows:
            labels = kind.read([row.label for row in rows], run.names)
            splits[split] = kind.counts(labels, len(run.names)).tolist()
    columns = ["label" if run.task == "multilabel" else "class", *splits]
    rows = [[name, *row] for name, *row in zip(run.names, *splits.values(), strict=True)]
    table = parts.table(columns, rows)
    if len(rows) <= _ALL:
        return [parts.heading("Images of each class" if run.task != "multilabel" else
                              "Images with each label"), table]  # fmt: skip
    return [parts.details(f"Images of each of the {len(rows)} classes", table)]


def _samples(run):
    """Some training images, of as many classes as there is room for."""
    if run.images is None and run.source is None:
        return []
    places = _spread(run)
    try:
        split, there = run.some("train", places)
    except (ValueError, OSError) as error:
        return [parts.note(f"No images are shown: {error}")]
    if not len(there):
        return [parts.note("No images are shown: they have been changed or removed.")]
    *_, channels = split.image_set.shape or (3,)  # files have no shape; they are read in colour
    images = _read(split, image_size=_side(run), channels=channels)
    kind, tiles = LABELS[run.task], []
    for index in np.argsort(there):  # a stream has an order of its own
        label = (kind.shown or kind.written)(split.labels[index], run.names)
        drawn = pages.picture(images[index], f"A training image: {label}", side=_SIDE, shown=_SHOWN)
        tiles.append((drawn, _short(label)))
    return [parts.heading("Training images"), parts.tiles(tiles)]


def _read(split, **view):
    """The images of a split at one size, without their labels."""
    split = data.Split(split.image_set, np.zeros(len(split), int))
    return np.concatenate([batch.numpy() for batch, _ in data.batches(split, **view)])


def _spread(run):
    """Places of training images, spread over the classes."""
    labels = [row.label for row in run.images.rows["train"]] if run.images else []
    if not labels:
        return np.unique(np.linspace(0, len(run.source.train) - 1, _SAMPLES).astype(int))
    if run.task != "classification":
        return np.unique(np.linspace(0, len(labels) - 1, _SAMPLES).astype(int))
    places = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    chosen = [*places.values()]
    chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, _SAMPLES).astype(int))]
    each = max(1, _SAMPLES // len(chosen))
    return np.array([i for some in chosen for i in some[:each]][:_SAMPLES])


def _side(run):
    """The side in pixels at which images are read: no more than the model's."""
    size = run.source.image_size if run.source is not None else _model_size(run)
    return min(_SIDE, size)


def _model_size(run):
    size = run.card.get("image_size")
    return min(size) if isinstance(size, list) else size or _SIDE


def looked_at(run: Run) -> Section | None:
    """The worst mistakes and the least certain predictions, and where the model looked."""
    if run.test is None:
        return None
    chosen = _chosen(run)
    wanted = np.unique(np.concatenate([places for _, places in chosen]))
    rows = run.places["test"][wanted]  # of the images of the split
    try:
        split, there = run.some("test", rows)
        if not len(there):
            raise ValueError("they have been changed or removed.")
        pictures, sentence = _pictures(run, split, there)
    except (ValueError, OSError) as error:
        return Section("Mistakes", [parts.note(f"The images are not shown: {error}")])
    found = [parts.text(sentence, quiet=True)] if sentence else []
    for title, places in chosen:
        tiles = [
            (pictures[row], _caption(run, place, row))
            for place, row in zip(places, run.places["test"][places], strict=True)
            if row in pictures
        ]
        if tiles:
            found += [parts.heading(title), parts.tiles(tiles, pairs=True)]
    values = run.test.right is None
    return Section("Errors" if values else "Mistakes and uncertain predictions", found)


def _chosen(run):
    """Headings, and the test images shown below each."""
    test = run.test
    order = test.order()
    if test.right is None:
        return [("Largest errors", order[:_EACH])]
    wrong = order[~test.right[order]][:_EACH]
    unsure = np.argsort(_margins(test), kind="stable")
    unsure = unsure[~np.isin(unsure, wrong)][:_EACH]
    return [("Worst mistakes", wrong), ("Least certain", unsure)]


def _margins(test):
    """How far each prediction is from being another one."""
    if np.ndim(test.labels) == 2:
        return np.abs(test.probabilities - 0.5).min(1)
    highest = np.sort(test.probabilities, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def _caption(run, place, row):
    """What the model predicts for an image, and what is right."""
    said = " \N{MIDDLE DOT} ".join(_short(line) for line in run.test.caption(place).split("\n"))
    kind = "" if run.test.right is None else "good" if run.test.right[place] else "bad"
    return Markup('<span class="{}">{}</span><br><span class="quiet">{}</span>').format(
        kind, said, _short(run.name_of("test", row))
    )


def _short(text, most=70):
    """A name that leaves room for others."""
    return text if len(text) <= most else f"{text[: most - 12]}\N{HORIZONTAL ELLIPSIS}{text[-11:]}"


def _pictures(run, split, there):
    """Images beside maps of where the model looked, by place, and a sentence about the maps."""
    found = run.answering
    images = _read(split, **vars(graphs.view_of(found.model)))
    maps, sentence = _maps(found, images)
    pictures = {}
    for index, place in enumerate(there.tolist()):
        drawn = pages.picture(images[index], "A test image", side=_SIDE, shown=_SHOWN)
        if maps is not None:
            heat = pages.picture(maps[index], "Where the model looked", side=_SIDE, shown=_SHOWN)
            drawn += heat
        pictures[place] = drawn
    return pictures, sentence


def _maps(found, images):
    """Images with Grad-CAM over them, and a sentence about it; None and the reason, if it fails."""
    try:
        explainer = explain.Explainer(found.model)
        result = explainer(normalized(images, found.model), _explained(found))
        drawn = explain.overlay(images, result.maps)
    except Exception as error:  # of a model of any kind
        log.debug("no maps", exc_info=True)
        return None, f"There are no maps of where the model looked: {error}"
    return drawn, (
        f"To the right of each image: Grad-CAM at layer {result.layer}. The closer to red, the "
        "more a region speaks for the prediction. It shows where the model looked, not why."
    )


def _explained(found):
    """What is explained: the model's prediction, or the first of several values."""
    return 0 if found.task == "regression" else None
