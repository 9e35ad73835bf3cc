"""A model and images that are small enough to train in a second."""

import dataclasses

import keras
import numpy as np

import keras_resnet
from keras_resnet import data, training

LEARNS = (8, 16)
"""Filters with which a model learns the digits."""


def model(
    units=10, activation="softmax", filters=(8,), *, channels=1, size=8, dtype="float32", **options
):
    """A ResNet of one block per stage, the same each time."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    try:
        return keras_resnet.ResNet(
            (1,) * len(filters),
            "basic",
            filters,
            stem="cifar",
            input_shape=(size, size, channels),
            classes=units,
            classifier_activation=activation,
            include_preprocessing=True,
            **options,
        )
    finally:
        keras.config.set_dtype_policy("float32")


def regressor(source, filters=(8,), dtype="float32"):
    """The same with the head of a regression."""
    backbone = model(filters=filters, include_top=False, pooling="avg", dtype=dtype)
    head = training.TASKS["regression"].head(backbone.output, source, 0.0)
    return keras.Model(backbone.input, head, name="small")


def digits(train=300, validation=100, augmentation="none"):
    """Some of scikit-learn's digits."""
    source = data.load("digits")
    return dataclasses.replace(
        source,
        augmentation=augmentation,
        train=source.train.take(np.arange(train)),
        validation=source.validation.take(np.arange(validation)),
    )


def with_labels(source, task, class_names, of_digits):
    """The same images with other labels: a function of the digits."""
    splits = {
        name: data.Split(split.images, of_digits(split.labels).astype("float32"))
        for name, split in source.splits.items()
    }
    return dataclasses.replace(source, task=task, class_names=class_names, **splits)


def several_labels(source):
    """Whether a digit is odd, small and round."""
    return with_labels(
        source,
        "multilabel",
        ("odd", "small", "round"),
        lambda digits: np.stack([digits % 2 == 1, digits < 5, np.isin(digits, [0, 6, 8, 9])], -1),
    )


def numbers(source):
    """Numbers far from a mean of 0 and a spread of 1."""
    return with_labels(source, "regression", ("price",), lambda digits: 1000 + 50.0 * digits)
