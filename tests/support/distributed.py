"""Trains a model on the devices that its argument names, and writes down the result.

Run as a program: `python distributed.py STRATEGY FOLDER JSON`; JSON is a list of arguments of
`train`, and the results are 0.npz and so on in the folder.
Every batch holds the same images, varied in the same way, however many devices share it.
"""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import small

from keras_resnet import training


def digits(task="classification"):
    """199 images: three batches of 64 leave seven, four and three for two devices.

    Of the 65 to validate on, one is left after a batch.
    """
    source = small.digits(199, 65, augmentation="photograph")
    change = {"multilabel": small.several_labels, "regression": small.numbers}
    return change[task](source) if task in change else source


def model_of(source, dtype):
    """A model for the task of a source."""
    if source.task == "regression":
        return small.regressor(source, dtype=dtype)
    activation = "sigmoid" if source.task == "multilabel" else "softmax"
    return small.model(len(source.class_names), activation, dtype=dtype)


def train(strategy, recipe=None, dtype="float32", task="classification", **options):
    """Losses of all steps and epochs, and all weights."""
    losses, source = [], digits(task)
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
    )
    model = model_of(source, dtype)
    recipe = training.Recipe(**{"epochs": 2, "batch_size": 64, **(recipe or {})})
    options = {"image_size": 8, "verbose": 0, "callbacks": [record], **options}
    result = training.train(model, source, recipe, strategy, **options)
    return losses, result.history, model.get_weights()


def start(strategy, folder, jobs, tf_config=None):
    """Train some models in another process, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TF_CONFIG": json.dumps(tf_config)} if tf_config else None
    return subprocess.Popen(
        [sys.executable, __file__, strategy, folder, json.dumps(jobs)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcomes(process, folder):
    """What `train` has returned in another process, for each of its jobs; of errors the message."""
    output = process.communicate(timeout=200)
    assert process.returncode == 0, output
    found = []
    for index in range(len(list(folder.iterdir()))):
        with np.load(folder / f"{index}.npz") as arrays:
            told, *weights = (arrays[name] for name in arrays.files)
        told = json.loads(str(told))
        found.append(told if isinstance(told, str) else (*told, weights))
    return found


if __name__ == "__main__":
    name, folder, jobs = sys.argv[1:]
    jobs = json.loads(jobs)
    strategy = training.strategy(name, **jobs[0].pop("strategy", {}))
    for index, options in enumerate(jobs):
        file = os.path.join(folder, f"{index}.npz")
        try:
            losses, history, weights = train(strategy, **options)
        except ValueError as error:
            np.savez(file, json.dumps(str(error)))
        else:
            np.savez(file, json.dumps([losses, history]), *weights)
