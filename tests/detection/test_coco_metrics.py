"""COCO's numbers, where they are known by hand."""

import numpy as np
import pytest

from keras_resnet.detection.evaluation import coco_metrics


def truths(*images):
    """Labels of images, each a list of (x1, y1, x2, y2, class, ignored)."""
    labels = np.zeros((len(images), max(map(len, images), default=0), 6), "float32")
    labels[..., 4] = -1
    for index, rows in enumerate(images):
        labels[index, : len(rows)] = np.reshape(rows, (-1, 6))
    return labels


def found(*rows):
    """Detections of an image, each (x1, y1, x2, y2, class, score)."""
    rows = np.reshape(np.array(rows, "float64"), (-1, 6))
    return {"boxes": rows[:, :4], "labels": rows[:, 4].astype(int), "scores": rows[:, 5]}


@pytest.mark.parametrize(
    ("bottom", "ap", "ap50", "ap75"),
    [
        (50, 1.0, 1, 1),  # the box itself
        (40, 0.6, 1, 1),  # three quarters of it: found from .5 to .75
        (30, 0.1, 1, 0),  # half of it: found at .5 alone
        (29.99, 0.0, 0, 0),
    ],
)
def test_a_box_is_found_from_its_overlap_on(bottom, ap, ap50, ap75):
    scores = coco_metrics(
        truths([(10, 10, 50, 50, 0, 0)]), [found((10, 10, 50, bottom, 0, 0.9))], ("cell",)
    )
    assert (scores["AP"], scores["AP50"], scores["AP75"]) == pytest.approx((ap, ap50, ap75))
