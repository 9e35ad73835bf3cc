"""Trains one net on the devices that its argument names, and writes down what came of it.

Run as a program: `python distributed.py STRATEGY FILE [JSON]`; JSON holds arguments of `train`.
Every batch holds the same images, varied in the same way, however many devices share it.
"""

import dataclasses
import json
import sys

import keras
import numpy as np

import keras_resnet
from keras_resnet import data, training


def digits(images=199):
    """Some digits: so many that seven are left behind three batches of 64, four and three.

    Of those to validate on, one is left behind a batch.
    """
    source = data.load("digits")
    some = np.arange(images)
    return dataclasses.replace(
        source,
        augmentation="photograph",
        train=source.train.take(some),
        validation=source.validation.take(np.arange(65)),
    )


def net(dtype="float32"):
    """A small net, the same each time."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    model = keras_resnet.CIFARResNet(8, input_shape=(8, 8, 1), include_preprocessing=True)
    keras.config.set_dtype_policy("float32")
    return model


def train(strategy, recipe=None, dtype="float32", **options):
    """Losses of all steps and epochs, and all weights."""
    losses = []
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
    )
    model = net(dtype)
    options = {"image_size": 8, "verbose": 0, "callbacks": [record], **options}
    recipe = training.Recipe(**{"epochs": 3, "batch_size": 64, **(recipe or {})})
    result = training.train(model, digits(), recipe, strategy, **options)
    return losses, result.history, model.get_weights()


if __name__ == "__main__":
    name, file, *options = sys.argv[1:]
    options = json.loads(options[0]) if options else {}
    losses, history, weights = train(
        training.strategy(name, **options.pop("strategy", {})), **options
    )
    np.savez(file, json.dumps([losses, history]), *weights)
