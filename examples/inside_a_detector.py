"""What each part of a detector sees in an image: proposals, RoIs, detections.

    python examples/inside_a_detector.py IMAGE MODEL [MODEL ...] [--output PICTURE]

MODEL is a detector's model.keras, or the folder of a run; each becomes a row of PICTURE,
inside_a_detector.png by default:

- the best proposals of the region proposal network, in the colour of the level of features that
  each is looked at on (a detector with head "c4" has one level);
- what the box head is shown of the most certain objects: the bins of their RoIs, averaged over the
  channels;
- what comes out: boxes, classes and scores.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
import numpy as np
import PIL.Image
from matplotlib import patches, pyplot

from keras_resnet import analysis, detection
from keras_resnet.detection.faster_rcnn import pooled_levels
from keras_resnet.detection.roi_align import level_of

PROPOSALS, ROIS, COLOURS = 60, 12, ("#d1242f", "#bf8700", "#1a7f37", "#0969da", "#8250df")


def parts_seen(model, image):
    """The proposals in an image, their levels, the bins of the objects, and these."""
    parts = detection.parts_of(model)
    sizes = np.array([image.shape[:2]], "int32")
    batch, resized = parts.transform(image[None].astype("float32"), sizes)
    levels = parts.levels(batch)
    proposals, kept = parts.proposals(*parts.rpn(levels), *parts.anchors(batch, levels), resized)
    scale = float(resized[0, 0]) / image.shape[0]
    proposals = proposals[0, : int(kept[0])]
    pooled = pooled_levels(levels)
    finest = pooled[0].shape[1] / batch.shape[1]
    places = np.asarray(level_of(proposals, np.float32(finest), len(pooled)))
    (found,) = detection.detect(model, [image], score=0.5)
    bins = parts.pooled(levels, batch, found["boxes"][None, :ROIS] * scale)
    return np.asarray(proposals) / scale, places, np.asarray(bins).mean(-1), found


def draw_row(axes, model, names, image):
    """The three pictures of a detector."""
    proposals, places, bins, found = parts_seen(model, image)
    axes[0].imshow(image)
    for (x1, y1, x2, y2), place in zip(proposals[:PROPOSALS], places, strict=False):
        colour = COLOURS[place % len(COLOURS)]
        axes[0].add_patch(
            patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=0.8)
        )
    count = min(PROPOSALS, len(proposals))
    axes[0].set_title(f"{model.name}\n{count} best of {len(proposals)} proposals", fontsize=8)
    columns = 4
    rows = -(-max(len(bins), 1) // columns)
    side = bins.shape[1] + 1
    sheet = np.full((rows * side - 1, columns * side - 1), np.nan)
    for index, each in enumerate(bins):
        row, column = divmod(index, columns)
        sheet[row * side :, column * side :][: side - 1, : side - 1] = each / each.max()
    axes[1].imshow(sheet, cmap="viridis")
    names_of = ", ".join(dict.fromkeys(names[label] for label in found["labels"][:ROIS]))
    title = f"RoIs of {len(bins)} objects ({names_of}),\n{side - 1} x {side - 1} bins"
    axes[1].set_title(title, fontsize=8)
    axes[2].imshow(analysis.draw_boxes(image, **found, class_names=names))
    axes[2].set_title(f"{len(found['labels'])} detections\nwith a score of 0.5 or more", fontsize=8)


def load(path):
    """A detector and the names of its classes."""
    file = Path(path) / "model.keras" if Path(path).is_dir() else Path(path)
    model = keras.saving.load_model(file, compile=False)
    labels = file.with_name("labels.txt")
    if labels.exists():
        return model, labels.read_text(encoding="utf-8").splitlines()
    return model, [*map(str, range(detection.parts_of(model).classes))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("models", nargs="+", metavar="model")
    parser.add_argument("--output", default="inside_a_detector.png")
    options = parser.parse_args()
    image = np.asarray(PIL.Image.open(options.image).convert("RGB"))
    figure, axes = pyplot.subplots(
        len(options.models),
        3,
        squeeze=False,
        figsize=(10, 3.1 * len(options.models)),
        layout="constrained",
    )
    for row, path in zip(axes, options.models, strict=True):
        draw_row(row, *load(path), image)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
