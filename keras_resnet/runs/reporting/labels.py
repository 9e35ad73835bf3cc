"""Precision and recall of each label."""

import numpy as np

from keras_resnet import pages
from keras_resnet.pages import Section, parts
from keras_resnet.runs.reporting.facts import Run

_DRAWN = 8  # labels with a curve of their own


def label_curves(run: Run) -> Section | None:
    """Precision-recall curves of all labels, or of the worst of many, with their thresholds."""
    if run.test is None:
        return None
    scores = run.test.per_label()
    known = [index for index, name in enumerate(run.names) if scores[name]["support"]]
    if not known:
        return None
    precisions = [scores[run.names[index]]["average_precision"] for index in known]
    drawn = [known[place] for place in np.argsort(precisions, kind="stable")[:_DRAWN]]
    with pages.figure(width=6.4, height=3.6) as (figure, axis):
        for place, index in enumerate(sorted(drawn)):
            _draw(axis, run.test, index, scores[run.names[index]], pages.COLOURS[place])
        axis.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        legend = figure.legend(loc="outside right upper")
        for text in legend.get_texts():
            text.set_parse_math(False)  # names are data
    picture = pages.svg(figure, "Precision against recall of labels", "precision-recall")
    few = len(drawn) < len(known)
    which = f"The {len(drawn)} labels with the lowest average precision" if few else "All labels"
    caption = f"{which}, on the test images. The dot on each curve marks the label's threshold."
    return Section("Precision and recall", [parts.shown(picture, caption)])


def _draw(axis, test, index, scores, colour):
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(
        test.labels[:, index] == 1, test.probabilities[:, index]
    )
    name = short(test.class_names[index])
    text = f"{name}, {scores['average_precision']:.3f}"
    axis.step(recall, precision, where="post", color=colour, label=text)
    axis.plot(scores["recall"], scores["precision"], "o", color=colour, markersize=4)


def short(name: str, letters: int = 24) -> str:
    """A name that leaves room for the plot beside it."""
    return name if len(name) <= letters else f"{name[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"
