"""The images of a run: what it learned from, and where it errs."""

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
_ALL = 50  # classes up to which all are listed with their counts


def sample_images(run: Run) -> Section | None:
    """What the data is: its splits and classes, and what is wrong with it."""
    found: list[Any] = []
    rows: list[tuple[str, Any]] = [("Data", run.metrics.get("data"))]
    if run.images:
        counts = {split: len(rows) for split, rows in run.images.rows.items()}
        rows.append(("Images", ", ".join(f"{count:,} {name}" for name, count in counts.items())))
    rows.append((_NAMES[run.task], len(run.names)))
    if run.images:
        rows.append(("In two splits", _common(run)))
    skipped = run.metrics.get("skipped_count")
    if skipped is not None:
        rows.append(("Files left out", skipped or "none"))
    found.append(parts.facts(rows))
    found += [parts.note(line) for line in run.metrics.get("notes") or ()]
    if skipped:
        lines = [[line] for line in run.metrics.get("skipped") or ()]
        found.append(parts.details("Why files were left out", parts.table(["file"], lines)))
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
    return "; ".join(lines) or "no image"


def _counted(run):
    """The images of every class in each split."""
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
        return [parts.note("No images are shown: they have changed since, or are gone.")]
    *_, channels = split.image_set.shape or (3,)  # of arrays; files become what is asked for
    images = _read(split, image_size=_side(run), channels=channels)
    kind, tiles = LABELS[run.task], []
    for index in np.argsort(there):  # a stream has an order of its own
        label = (kind.shown or kind.written)(split.labels[index], run.names)
        drawn = pages.picture(images[index], f"A training image: {label}", side=_SIDE, shown=_SHOWN)
        tiles.append((drawn, _short(label)))
    return [parts.heading("Training images"), parts.tiles(tiles)]


def _read(split, **view):
    """The images of a split in one size, whatever their labels are."""
    split = data.Split(split.image_set, np.zeros(len(split), int))
    return np.concatenate([batch.numpy() for batch, _ in data.batches(split, **view)])


def _spread(run):
    """Places of training images: one of each class first, as far as there are classes."""
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
    """Pixels that images are read at: no more than they have."""
    size = run.source.image_size if run.source is not None else _model_size(run)
    return min(_SIDE, size)


def _model_size(run):
    size = run.card.get("image_size")
    return min(size) if isinstance(size, list) else size or _SIDE


def looked_at(run: Run) -> Section | None:
    """The worst mistakes and the least certain answers, and where the model looked."""
    if run.test is None:
        return None
    chosen = _chosen(run)
    wanted = np.unique(np.concatenate([places for _, places in chosen]))
    rows = run.places["test"][wanted]  # of the images of the split
    try:
        split, there = run.some("test", rows)
        if not len(there):
            raise ValueError("they have changed since, or are gone.")
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
    return Section("Mistakes and doubts", found)


def _chosen(run):
    """Which test images are shown, and why: numbers of answers."""
    test = run.test
    order = test.order()
    if test.right is None:
        return [("Largest errors", order[:_EACH])]
    wrong = order[~test.right[order]][:_EACH]
    unsure = np.argsort(_margins(test), kind="stable")
    unsure = unsure[~np.isin(unsure, wrong)][:_EACH]
    return [("Worst mistakes", wrong), ("Least certain", unsure)]


def _margins(test):
    """How far each answer is from another one."""
    if np.ndim(test.labels) == 2:
        return np.abs(test.probabilities - 0.5).min(1)
    highest = np.sort(test.probabilities, axis=1)[:, -2:]
    return highest[:, 1] - highest[:, 0]


def _caption(run, place, row):
    """What the model says of an image, and what is right."""
    said = " \N{MIDDLE DOT} ".join(_short(line) for line in run.test.caption(place).split("\n"))
    kind = "" if run.test.right is None else "good" if run.test.right[place] else "bad"
    return Markup('<span class="{}">{}</span><br><span class="quiet">{}</span>').format(
        kind, said, _short(run.name_of("test", row))
    )


def _short(text, most=70):
    """A name that leaves room for others."""
    return text if len(text) <= most else f"{text[: most - 12]}\N{HORIZONTAL ELLIPSIS}{text[-11:]}"


def _pictures(run, split, there):
    """Images beside where the model looked, by their places, and a sentence about that."""
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
    """Images with Grad-CAM over them; None and the reason, if there is none."""
    try:
        explainer = explain.Explainer(found.model)
        result = explainer(normalized(images, found.model), _explained(found))
        drawn = explain.overlay(images, result.maps)
    except Exception as error:  # of a model of any kind
        log.debug("no maps", exc_info=True)
        return None, f"There are no maps of where the model looked: {error}"
    return drawn, (
        f"On the right of each image: Grad-CAM of the layer {result.layer}, where the image speaks "
        "for what the model says, from blue to red. It says where the model looked, not why."
    )


def _explained(found):
    """What is explained: the model's answer, or the first of several values."""
    return 0 if found.task == "regression" else None
