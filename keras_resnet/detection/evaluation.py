"""How good a detector is on images with boxes: average precision as COCO and Pascal VOC have it."""

from collections.abc import Sequence

import numpy as np

from keras_resnet.detection.protocol import MOST, SIZES, check_detections, check_truths, matched


def coco_metrics(
    truths: np.ndarray, detections: Sequence[dict], class_names: Sequence[str]
) -> dict[str, float]:
    """Average precision and recall by COCO's protocol.

    Parameters
    ----------
    truths : array of shape (images, most, 6)
        A split's labels: x1, y1, x2, y2 in pixels, class, ignored. Rows of class -1 are none.
    detections : sequence of dict
        "boxes", "scores" and "labels" of every image.
    class_names : sequence of str
        Names of the classes.

    Returns
    -------
    dict of str to float
        "AP", the mean over classes and overlaps of .5 to .95; "AP50" and "AP75", at one overlap;
        "AP_small", "AP_medium" and "AP_large", of boxes below 32 x 32 pixels, below 96 x 96 and
        above; "AR_1", "AR_10" and "AR_100", the recall of so many detections of each image and
        class; "AR_small", "AR_medium" and "AR_large". NaN where there are no such boxes.

    Examples
    --------
    >>> import numpy as np
    >>> from keras_resnet.detection.evaluation import coco_metrics
    >>> truths = np.array([[[10, 10, 50, 50, 0, 0]]], "float32")
    >>> found = [{"boxes": [[10, 10, 50, 40]], "scores": [0.9], "labels": [0]}]
    >>> scores = coco_metrics(truths, found, ("cell",))
    >>> round(scores["AP50"], 2), round(scores["AP"], 2), scores["AP_large"]
    (1.0, 0.6, nan)
    """
    classes = len(class_names)
    truths = check_truths(truths, classes)
    return summary(matched(truths, check_detections(detections, len(truths), classes), classes))


def summary(evaluator) -> dict[str, float]:
    """COCO's twelve numbers, of what `protocol.matched` returns."""
    precision, recall = (
        np.where(evaluator.eval[name] < 0, np.nan, evaluator.eval[name])
        for name in ("precision", "recall")
    )
    best = MOST.index(100)
    thresholds = evaluator.params.iouThrs
    at = {f"AP{round(100 * t)}": [index] for index, t in enumerate(thresholds)}
    return {
        "AP": _mean(precision[:, :, :, 0, best]),
        **{name: _mean(precision[at[name], :, :, 0, best]) for name in ("AP50", "AP75")},
        **{
            f"AP_{size}": _mean(precision[:, :, :, index, best])
            for index, size in enumerate(SIZES)
            if index
        },
        **{f"AR_{count}": _mean(recall[:, :, 0, index]) for index, count in enumerate(MOST)},
        **{
            f"AR_{size}": _mean(recall[:, :, index, best])
            for index, size in enumerate(SIZES)
            if index
        },
    }


def _mean(values):
    """The mean of what there is; NaN, where there is nothing."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
