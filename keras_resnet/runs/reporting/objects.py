"""How well a detector finds objects, and what it gets wrong."""

from typing import Any

import numpy as np
from markupsafe import Markup

from keras_resnet import analysis, detection, pages
from keras_resnet.detection.errors import KINDS
from keras_resnet.detection.protocol import table_of_truths
from keras_resnet.pages import Section, parts, percent
from keras_resnet.runs.reporting.facts import Run
from keras_resnet.runs.reporting.labels import short

_DRAWN = 8  # classes with a curve of their own
_WORST, _SIDE = 12, 320  # images, and pixels of their longer side
_SCORE = 0.5  # detections with lower scores are not drawn
_OBJECT, _DETECTION = "#00c000", "#ff2020"
_SCORES = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "AR_100": "AR",
    "score": "best threshold",
    "precision": "precision there",
    "recall": "recall there",
}


def objects(run: Run) -> Section | None:
    """The average precision of every class."""
    scores = run.metrics.get("per_class")
    if not scores:
        return None
    rows = [
        [name, *(percent(found.get(each), bar=each == "AP") for each in _SCORES),
         int(found["objects"]), int(found["detections"])]
        for name, found in scores.items()
    ]  # fmt: skip
    what = (
        "AP is the area under the precision-recall curve, averaged over IoU thresholds of .50 to "
        ".95 as COCO defines it; AP50 and AP75 are at IoUs of .50 and .75. AR is the recall with "
        "up to 100 detections per image and class. The best threshold is the score with the "
        'highest F1; "precision there" and "recall there" are at that threshold.'
    )
    columns = ["class", *_SCORES.values(), "objects", "detections"]
    return Section("Classes", [parts.table(columns, rows), parts.text(what, quiet=True)])


def object_curves(run: Run) -> Section | None:
    """Precision-recall curves of all classes, or of the worst of many and their mean."""
    curves = run.test.curves(0.5) if run.test else {}
    if not curves:
        return None
    areas = {name: float(np.mean(curve["precision"])) for name, curve in curves.items()}
    drawn = sorted(areas, key=areas.__getitem__)[:_DRAWN]
    with pages.figure(width=6.4, height=3.6) as (figure, axis):
        for place, name in enumerate(name for name in curves if name in drawn):
            curve, text = curves[name], f"{short(name)}, {areas[name]:.3f}"
            axis.plot(curve["recall"], curve["precision"], label=text, color=pages.COLOURS[place])
        if len(drawn) < len(curves):
            recall = next(iter(curves.values()))["recall"]
            mean = np.mean([curve["precision"] for curve in curves.values()], axis=0)
            axis.plot(recall, mean, "--", color="#8a8a8a", label=f"mean of {len(curves)}")
        axis.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        legend = figure.legend(loc="outside right upper")
        for text in legend.get_texts():
            text.set_parse_math(False)  # names are data
    picture = pages.svg(figure, "Precision against recall of classes", "precision-recall")
    few = len(drawn) < len(curves)
    which = f"The {len(drawn)} classes with the lowest AP50" if few else "All classes"
    caption = f"{which}, at an IoU of .50. The number after each name is its AP50."
    return Section("Precision and recall", [parts.shown(picture, caption)])


def error_kinds(run: Run) -> Section | None:
    """How many errors there are of each kind, and what each kind costs."""
    found = run.metrics.get("errors")
    if not found:
        return None
    gained = found["AP50_gained"]
    rows = [
        [kind, what, found["counts"][kind], percent(gained[kind], bar=True)]
        for kind, what in KINDS.items()
    ]
    what = (
        f"Counted at a score threshold of {_SCORE}. The last column is how much AP50 would rise if "
        "all errors of that kind were corrected, at any score; these gains do not add up."
    )
    table = parts.table(["error", "meaning", "count", "AP50 lost"], rows)
    each = [
        [name, *(int(scores[kind]) for kind in KINDS)]
        for name, scores in (run.metrics.get("per_class") or {}).items()
    ]
    listed = parts.details("Errors of each class", parts.table(["class", *KINDS], each))
    return Section("Errors", [table, parts.text(what, quiet=True), listed])


def worst_images(run: Run) -> Section | None:
    """The images with the most errors, with true and detected boxes."""
    if run.test is None:
        return None
    order = run.test.order()[:_WORST]
    order = order[~run.test.right[order]]
    if not len(order):
        return Section("Images with the most errors", [parts.text("No test image has any errors.")])
    try:
        split, there = run.some("test", run.places["test"][order])
        images: Any = detection.batches(split, batch_size=1) if len(there) else ()
    except (ValueError, OSError) as error:
        return Section("Images with the most errors", [parts.note(f"They are not shown: {error}")])
    pixels = {
        place: inputs["images"][0].numpy()
        for place, (inputs, _) in zip(there.tolist(), images, strict=True)
    }
    truths = table_of_truths(run.test.labels)
    tiles = []
    for index in order.tolist():
        place = int(run.places["test"][index])
        if place in pixels:
            tiles.append((_drawn(run, index, pixels[place], truths), _caption(run, index, place)))
    legend = Markup(
        'True boxes are <span style="color:{}">&#9632;</span> green, detections with a score of at '
        'least {} <span style="color:{}">&#9632;</span> red.'
    ).format(_OBJECT, _SCORE, _DETECTION)
    found: list[Any] = [parts.text(legend, quiet=True), parts.tiles(tiles, pairs=True)]
    if missing := len(order) - len(tiles):
        found.append(parts.note(f"Not shown, since changed or removed: {missing} more."))
    return Section("Images with the most errors", found)


def _drawn(run, index, image, truths):
    """An image with the boxes of objects and of detections."""
    scale = _SIDE / max(image.shape[:2])
    picture = analysis.draw_boxes(image, np.zeros((0, 4)))
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    here, found = truths["images"] == index, run.test.detections[index]
    sure = found["scores"] >= _SCORE
    picture = analysis.draw_boxes(
        picture, scale * truths["boxes"][here], colours=[_OBJECT] * int(here.sum())
    )
    drawn = analysis.draw_boxes(
        picture, scale * found["boxes"][sure], found["labels"][sure], found["scores"][sure],
        run.names, colours=[_DETECTION] * int(sure.sum()),
    )  # fmt: skip
    return pages.picture(drawn, "A test image with boxes", side=_SIDE)


def _caption(run, index, place):
    return Markup('{}<br><span class="quiet">{}</span>').format(
        run.test.caption(index), short(run.name_of("test", place), 60)
    )
