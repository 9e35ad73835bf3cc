"""True boxes and detections, as a test writes them."""

import numpy as np


def truths(*images):
    """Labels of images, each a list of (x1, y1, x2, y2, class, ignored)."""
    labels = np.zeros((len(images), max(1, *map(len, images)), 6), "float32")
    labels[..., 4] = -1
    for rows, image in zip(labels, images, strict=True):
        rows[: len(image)] = np.reshape(image, (-1, 6))
    return labels


def found(*rows):
    """Detections of an image, each (x1, y1, x2, y2, class, score)."""
    rows = np.reshape(np.array(rows, "float64"), (-1, 6))
    return {"boxes": rows[:, :4], "labels": rows[:, 4].astype("int32"), "scores": rows[:, 5]}
