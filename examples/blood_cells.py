"""Blood cells: find and count red and white cells and platelets in photographs.

    python examples/blood_cells.py FOLDER [--weights TAG_OR_FILE] [--head fpn|c4] [--epochs N]

FOLDER is laid out like Pascal VOC (JPEGImages, Annotations, ImageSets/Main), such as BCCD, 364
photographs of 640 x 480: https://github.com/Shenggan/BCCD_Dataset. Trains a Faster R-CNN over a
ResNet-50 that has only seen ImageNet, keeps the epoch that does best on the validation images, and
tests it once, by COCO's protocol. Writes blood_cells.png, what it finds in the test image with most
errors, and blood_cells_errors.png, what it misses and what is not there.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import PIL.Image

from keras_resnet import analysis, data, detection, training, zoo

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--model", default="ResNet50", help="the backbone")
parser.add_argument("--weights", default="imagenet_caffe")
parser.add_argument("--head", choices=("fpn", "c4"), default="fpn")
parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="shorter, longer side")
parser.add_argument("--epochs", type=int, help="default: the recipe's")
parser.add_argument("--batch-size", type=int, help="default: the recipe's")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

cells = data.load(options.folder)
keras.utils.set_random_seed(options.seed)
weights = None if options.weights == "none" else options.weights
backbone = zoo.builder(options.model)(include_top=False, weights=weights)
shorter, longer = options.size
model = detection.FasterRCNN(
    backbone, len(cells.class_names), options.head, min_size=shorter, max_size=longer
)
changes = {"epochs": options.epochs, "batch_size": options.batch_size}
recipe = training.recipe("detection", **{k: v for k, v in changes.items() if v is not None})

start = time.perf_counter()
training.train(model, cells, recipe, seed=options.seed, verbose=2)
minutes = (time.perf_counter() - start) / 60

quality = detection.evaluate(model, cells.test, cells.class_names)
print(f"\n{'':12} {'AP':>6} {'AP50':>6} {'cells':>6} {'found':>6}")
for index, (name, scores) in enumerate(quality.per_class().items()):
    found = sum(
        np.sum((each["labels"] == index) & (each["scores"] >= 0.5)) for each in quality.detections
    )
    print(f"{name:12} {scores['AP']:6.3f} {scores['AP50']:6.3f} {scores['objects']:6} {found:6}")
print(f"{'all':12} {quality.metrics()['AP']:6.3f} {quality.metrics()['AP50']:6.3f}")
print(f"{minutes:.1f} minutes of training")

detection.error_sheet("blood_cells_errors.png", cells.test, quality)
image = PIL.Image.open(cells.test.images[quality.order()[0]]).convert("RGB")
(found,) = detection.detect(model, [np.asarray(image)], score=0.5)
analysis.draw_boxes(image, **found, class_names=cells.class_names).save("blood_cells.png")
