"""Folders of runs as `train` leaves them, of an untrained model."""

import csv
import json

import keras
import numpy as np
import PIL.Image

from keras_resnet import data
from keras_resnet.data.labels_file import write_labels
from keras_resnet.runs import answers, repeating
from keras_resnet.runs.images import write_images

SIDE = 12
HOSTILE = (
    "<script>document.title = 'hurt'</script>",
    "$\\frac{1}{2}$ & 100%",
    "x" * 200,
    "\u05e9\u05dc\u05d5\u05dd \u202e\u0645\u0631\u062d\u0628\u0627",
    "{{ 7 * 7 }} {% raw %}",
    "\u732b' onerror=\"alert(1)\"",
)  # fmt: skip


def model(classes):
    """A small model that takes raw images."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="small")


def source(folder, names, each=2):
    """Image files, `each` of every class in every split."""
    generator, splits = np.random.default_rng(0), {}
    (folder / "images").mkdir(parents=True)
    for split in data.SPLITS:
        labels = np.repeat(np.arange(len(names)), each)
        files = [folder / "images" / f"{split}-{index}.png" for index in range(len(labels))]
        for file in files:
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3)).astype("uint8")
            PIL.Image.fromarray(pixels).save(file)
        splits[split] = data.Split(list(map(str, files)), labels)
    return data.Source("pets", tuple(names), 3, SIDE, "none", **splits)


def probabilities(labels, classes, seed):
    """Answers that are right for two images out of three, and overconfident."""
    generator = np.random.default_rng(seed)
    said = np.where(generator.random(len(labels)) < 0.67, labels, (labels + 1) % classes)
    logits = generator.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), said] += 6
    exponents = np.exp(logits)
    return (exponents / exponents.sum(1, keepdims=True)).astype("float32")


def left_behind(folder, names=("cat", "dog"), each=30, **changes):
    """The folder of a run; `changes` are fields of metrics.json."""
    run, images = folder / "run", source(folder, names, each)
    run.mkdir()
    model(len(names)).save(run / "model.keras")
    write_labels(run, images.class_names)
    write_images(run, images)
    splits = {"test": images.test, "validation": images.validation}
    quality = {
        split: answers.ANSWERS["classification"].quality(
            some.labels, probabilities(some.labels, len(names), seed), images.class_names, None
        )
        for seed, (split, some) in enumerate(splits.items())
    }
    answers.write_answers(run, quality)
    test = quality["test"]
    metrics = {
        "model": "small", "data": "pets", "task": "classification", "test_accuracy": test.accuracy,
        "test_images": len(test.labels), **test.details(), "best_epoch": 2,
        "stages": {"head": 1, "all": 2}, "skipped_count": 1, "notes": [],
        "skipped": ["'cat/7.jpg' is not an image that can be read."],
        "calibration": answers.calibrated(test, quality["validation"]), **changes,
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics))
    with (run / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([
            ("epoch", "stage", "loss", "accuracy", "val_loss", "val_accuracy"),
            (1, "head", 1.0, 0.5, 1.1, 0.4), (2, "all", 0.5, 0.7, 0.9, 0.5),
            (3, "all", 0.4, 0.8, 1.0, 0.5),
        ])  # fmt: skip
    begun = repeating.begun("keras-resnet train --data pets --output run", {"data": "pets"})
    repeating.write_run(run, {**begun, "seconds": 61.0})
    return run
