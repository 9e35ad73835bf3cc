"""Which classes a model confuses, and how well it does on each."""

from typing import Any

import numpy as np
from markupsafe import Markup

from keras_resnet import pages
from keras_resnet.pages import Cell, Section, parts, percent
from keras_resnet.runs.reporting.facts import Run

_CELLS = 20  # classes up to which the confusion matrix is a table of numbers
_SIDE = 500  # most cells along a side of the heat map; with more classes, several share one
_ALL, _LOWEST = 50, 20  # classes up to which all are shown; of more, how many are
_PAIRS = 30  # pairs of confused classes that are listed
_SCORES = {
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
    "f1-score": "F1",
    "threshold": "threshold",
}


def confusion(run: Run) -> Section | None:
    """The confusion matrix, as a table or a heat map, and the classes confused most often."""
    matrix = run.test.confusion() if run.test else run.metrics.get("confusion")
    if matrix is None:
        return None
    matrix = np.asarray(matrix)
    draw = _cells if len(run.names) <= _CELLS else _heat_map
    return Section("Confusion matrix", [*draw(matrix, run.names), *_pairs(matrix, run.names)])


def _cells(matrix, names):
    """The matrix as a table; the larger a cell's fraction of its row, the deeper its colour."""
    heads = Markup("").join(
        Markup('<th scope="col"><span>{}</span></th>').format(name) for name in names
    )
    totals = np.maximum(matrix.sum(1), 1)
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            names[row],
            Markup("").join(
                Markup('<td class="{}" style="--share:{}%">{}</td>').format(
                    "tone-right" if row == column else "tone-wrong",
                    f"{65 * (matrix[row, column] / totals[row]) ** 0.5:.0f}",
                    matrix[row, column] or "",
                )
                for column in range(len(names))
            ),
        )
        for row in range(len(names))
    )
    table = Markup(
        '<table class="matrix"><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(heads, rows)
    caption = "Number of test images, by true class (rows) and predicted class (columns)."
    return [parts.shown(table, caption)]


def _heat_map(matrix, names):
    """The matrix as a picture, ordered so that confused classes are near each other."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    order = _by_likeness(matrix)
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    fractions = (matrix / totals)[np.ix_(order, order)]
    each = -(-len(names) // _SIDE)
    shown = _coarser(fractions, each)
    # From transparent to a colour that shows on white and on black.
    colours = LinearSegmentedColormap.from_list("depth", [(*_RGB, 0.0), (*_RGB, 1.0)])
    with pages.figure(width=6.2, height=5.2) as (figure, axis):
        picture = axis.imshow(
            shown, cmap=colours, norm=PowerNorm(0.4, 0, 1), interpolation="none",
            extent=(0.5, len(names) + 0.5, len(names) + 0.5, 0.5),
        )  # fmt: skip
        axis.grid(visible=False)
        axis.set_xlabel("predicted class, numbered as in the list below")
        axis.set_ylabel("true class")
        bar = figure.colorbar(picture, ax=axis, shrink=0.7, ticks=[0, 0.01, 0.1, 0.5, 1])
        bar.ax.set_yticklabels(["0", "1%", "10%", "50%", "100%"])
        bar.set_label("of the class's test images")
    drawn = pages.svg(figure, "Confusion matrix", "confusion")
    several = f" Each cell is the maximum over {each} x {each} classes." if each > 1 else ""
    caption = (
        f"For each of {len(names)} true classes (rows), the fraction of its test images that was "
        "predicted as each class (columns). Classes that are often confused are near each other; "
        f"correct predictions are on the diagonal.{several}"
    )
    rows = [[place, names[index]] for place, index in enumerate(order, start=1)]
    listed = parts.details("Classes in this order", parts.table(["number", "class"], rows))
    return [parts.shown(drawn, caption), listed]


_RGB = (0.84, 0.37, 0.0)


def _by_likeness(matrix):
    """An order of classes in which those that are confused are near each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    likeness = (fractions + fractions.T) / 2
    distances = 1 - likeness
    np.fill_diagonal(distances, 0)
    return leaves_list(linkage(squareform(distances, checks=False), "average"))


def _coarser(cells, each):
    """The maximum of each block of cells."""
    if each == 1:
        return cells
    extra = -len(cells) % each
    padded = np.pad(cells, (0, extra))
    side = len(padded) // each
    return padded.reshape(side, each, side, each).max((1, 3))


def _pairs(matrix, names):
    """The pairs of classes that are confused most often."""
    if len(names) < 3:
        return []  # the matrix says it all
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    order = [divmod(int(cell), len(names)) for cell in order]
    found = [(row, column) for row, column in order if wrong[row, column]]
    if not found:
        return []
    totals = matrix.sum(1)
    rows = [
        [
            names[row],
            names[column],
            int(wrong[row, column]),
            percent(wrong[row, column] / totals[row]),
        ]
        for row, column in found
    ]
    columns = ["true class", "predicted as", "test images", "fraction of the class"]
    return [parts.heading("Most often confused"), parts.table(columns, rows)]


def classes(run: Run) -> Section | None:
    """The scores of every class or label."""
    noun = "label" if run.task == "multilabel" else "class"
    scores = run.metrics.get(f"per_{noun}")
    if run.test:
        scores = run.test.per_label() if noun == "label" else run.test.per_class()
    if not scores:
        return None
    shown = [name for name in _SCORES if name in next(iter(scores.values()))]
    trained = _counts(run, "train")
    rows = [
        [
            name,
            *(percent(found[score], bar=score == "f1-score") for score in shown),
            int(found["support"]),
            *([trained.get(name, 0)] if trained else []),
        ]
        for name, found in scores.items()
    ]
    columns = [noun, *(_SCORES[score] for score in shown), "test images"]
    columns += ["training images"] if trained else []
    title = "Labels" if noun == "label" else "Classes"
    if len(rows) <= _ALL:
        return Section(title, [parts.table(columns, rows)])
    f1 = [found["f1-score"] for found in scores.values()]
    lowest = [rows[place] for place in np.argsort(f1, kind="stable")[:_LOWEST]]
    everything = parts.details(f"All {len(rows)}", parts.table(columns, rows))
    which = parts.text(f"The {_LOWEST} {title.lower()} with the lowest F1 scores:")
    return Section(title, [which, parts.table(columns, lowest), everything])


def _counts(run, split):
    """How many images of each class are in a split, from images.csv."""
    from keras_resnet.data.labels import LABELS

    if run.images is None or run.task not in ("classification", "multilabel"):
        return {}
    rows = run.images.rows[split]
    kind = LABELS[run.task]
    labels = kind.read([row.label for row in rows], run.names) if rows else None
    if labels is None:
        return {}
    return dict(zip(run.names, kind.counts(labels, len(run.names)).tolist(), strict=True))


def precision_recall(run: Run) -> Section | None:
    """The precision-recall curves of two classes."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if run.test is None or len(run.names) != 2:
        return None
    found: list[Any] = []
    with pages.figure(width=4.2, height=3.2) as (figure, axis):
        for index, name in enumerate(run.names):
            is_it = run.test.labels == index
            if not is_it.any():
                continue
            sure = run.test.probabilities[:, index]
            precision, recall, _ = precision_recall_curve(is_it, sure)
            axis.step(recall, precision, where="post", color=pages.COLOURS[index])
            found.append([
                Markup('<span style="color:{}" aria-hidden="true">&#9632;</span> {}').format(
                    pages.COLOURS[index], name
                ),
                Cell(f"{average_precision_score(is_it, sure):.4f}", index),
            ])  # fmt: skip
        axis.set_xlabel("recall")
        axis.set_ylabel("precision")
        axis.set_xlim(0, 1.01)
        axis.set_ylim(0, 1.02)
    drawn = pages.svg(figure, "Precision against recall", "precision-recall")
    table = parts.table(["class", "average precision"], found, sortable=False)
    caption = "On the test images, with each class in turn as the positive one."
    return Section("Precision and recall", [parts.row(parts.shown(drawn, caption), table)])
