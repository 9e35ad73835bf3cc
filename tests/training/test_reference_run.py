"""The reference run as it lies in the repository: its model on the test images, and its records."""

import csv
from pathlib import Path

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parents[2] / "saved_models" / "cifar10_resnet20"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer",
           "dog", "frog", "horse", "ship", "truck"]  # fmt: skip


def test_served_files_as_they_are_it_has_nine_in_ten_right(cifar10_test):
    files, labels = cifar10_test
    classify = tf.saved_model.load(FOLDER / "1").signatures["classify_bytes"]
    best = [classify(image_bytes=some)["labels"][:, 0] for some in tf.split(files, 20)]
    assert np.mean(tf.concat(best, 0).numpy() == np.array(CLASSES, "S")[labels]) >= 0.90


def test_its_log_its_history_and_its_confusion_tell_the_same():
    with open(FOLDER / "history.csv", newline="") as file:
        epochs = len(list(csv.DictReader(file)))
    log = (FOLDER / "train.log").read_text()
    confusion = np.loadtxt(FOLDER / "confusion.csv", delimiter=",", skiprows=1)[:, 1:]
    assert epochs == log.count("images/s")
    assert f"{np.trace(confusion) / confusion.sum():.2%} right" in log.split("--- third run")[1]
