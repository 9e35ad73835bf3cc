"""A search whose trials take no time, to test who runs them and what is kept."""

import hashlib
import json
import os
import time
from pathlib import Path

import keras
import numpy as np

from keras_resnet import data, tuning

CHOICES = {"conv2_blocks": {"min_value": 1, "max_value": 8}, "width": [0.5, 1.0], "shortcut": "A"}


class Quick(tuning.ResNetHyperModel):
    """Its models learn nothing; their accuracy is a digest of what was chosen."""

    def __init__(
        self, log, seconds=0.0, failing=0.0, crashing=False, undecided=0, space=CHOICES, **options
    ):
        self.log, self.wait = Path(log), seconds
        self.failing, self.crashing, self.undecided = failing, crashing, undecided
        super().__init__((8, 8, 1), 10, space, **options)

    def declined(self, *arguments, **options):
        if self.undecided and self.source:  # a search has begun
            time.sleep(0.02)
            self.undecided -= 1
            return "not yet"
        return super().declined(*arguments, **options)

    def build(self, hp):
        self.declare_hyperparameters(hp)
        image = keras.Input((2,))
        return keras.Model(image, keras.layers.Dense(1)(image))

    def fit(self, hp, model, source, *, epochs=None, initial_epoch=0, checkpoints=None, **_):
        trial = checkpoints.parent.name
        with self.log.open("a") as log:
            log.write(f"{trial} {os.getpid()}\n")
        time.sleep(self.wait)
        if self.crashing and hp.values["conv2_blocks"] > 4:
            os.abort()
        text = json.dumps([hp.values[name] for name in sorted(hp.values)])
        accuracy = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6
        if accuracy < self.failing:
            raise MemoryError("no memory for that")
        return {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "seconds": self.wait}


def few_images():
    images = np.zeros((20, 8, 8, 1), "uint8")
    return data.Split(images, np.arange(20) % 10)


def search(folder, environment=None, **options):
    """Search in this process or, as its target, in another one."""
    os.environ.update(environment or {})
    names = ("seconds", "failing", "crashing", "undecided", "space", "budget")
    given = {name: options.pop(name) for name in names if name in options}
    hypermodel = Quick(Path(folder) / "log", **given)
    return tuning.search(
        hypermodel, few_images(), few_images(), directory=folder, verbose=0, **options
    )


def in_a_process(*arguments, **options):
    """Search in another process, which must not return anything."""
    search(*arguments, **options)


def runs(folder):
    """Names of trials in the order in which they began, with the process of each."""
    path = Path(folder) / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ended(folder):
    """Names of the trials whose end has been recorded."""
    files = Path(folder).glob("trials/trial_*/trial.json")
    found = {file.parent.name: json.loads(file.read_text())["status"] for file in files}
    return {name for name, status in found.items() if status in ("COMPLETED", "FAILED")}
