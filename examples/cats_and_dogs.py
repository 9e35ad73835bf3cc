"""Cats or dogs: three ways to train a classifier on 2,000 photographs.

    python examples/cats_and_dogs.py FOLDER [--weights TAG_OR_FILE] [--epochs N]

FOLDER contains class/image, or train/ and test/ folders of class/image. Trains a LeNet-like model
and a ResNet-34 from scratch, as many courses do, and fine-tunes a pretrained ResNet-50. Tests all
three once, at the end, on the same images. Writes cats_and_dogs.png. With 2,000 photographs, 10
epochs and the weights "imagenet_caffe", on two CPU cores, it prints after the epochs:

                                 test   training
    LeNet from scratch         70.10%    0.7 min
    ResNet-34 from scratch     66.80%    4.3 min
    ResNet-50, fine-tuned      98.90%    6.9 min

Ten epochs are few for training from scratch, and 2,000 images are few for any number of epochs.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

import keras_resnet
from keras_resnet import analysis, data, machine, training, transfer
from keras_resnet.graphs import view_of

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--weights", default="imagenet_caffe")
parser.add_argument("--epochs", type=int, default=10, help="for training from scratch")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

# Half precision with the range of float32, where this machine is fast at it.
keras.config.set_dtype_policy(machine.PRECISIONS[machine.fast_precision()[0]])
pets = data.load(options.folder)


def lenet():
    """Two convolutions and three dense layers, for images of 200 px."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((200, 200, 3)),
            keras_resnet.layers.Preprocessing("tf"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(2, activation="softmax", dtype="float32"),
        ],
        name="lenet",
    )


def resnet34():
    """A ResNet-34 with random weights, for images of 128 px."""
    return keras_resnet.ResNet34(
        weights=None, classes=2, input_shape=(128, 128, 3), include_preprocessing=True
    )


def resnet50():
    """A pretrained ResNet-50 with a new head for two classes."""
    backbone = keras_resnet.ResNet50(
        include_top=False, weights=options.weights, include_preprocessing=True
    )
    return transfer.classifier(backbone, classes=2)


scratch = training.Recipe(epochs=options.epochs, batch_size=32, learning_rate=0.1)
ways = {
    "LeNet from scratch": (lenet, training.train, scratch),
    "ResNet-34 from scratch": (resnet34, training.train, scratch),
    "ResNet-50, fine-tuned": (resnet50, transfer.fine_tune, transfer.stages()),
}
figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
rows = []
for name, (build, learn, recipe) in ways.items():
    keras.utils.set_random_seed(options.seed)
    model, start = build(), time.perf_counter()
    # Fine-tune at the size at which the weights are most accurate; the others have their own size.
    view = transfer.view_for(pets, options.weights) if learn is transfer.fine_tune else {}
    result = learn(model, pets, recipe, seed=options.seed, verbose=2, **view)
    minutes = (time.perf_counter() - start) / 60
    test = data.batches(pets.test, **vars(view_of(model)))
    quality = analysis.evaluate(model, test, pets.class_names)
    rows.append(f"{name:24} {quality.accuracy:8.2%} {minutes:6.1f} min")
    accuracies = result.history["val_accuracy"]
    axes.plot(range(1, len(accuracies) + 1), accuracies, label=name)

axes.set(xlabel="epoch", ylabel="accuracy on validation images")
axes.grid(alpha=0.3)
axes.legend()
figure.savefig("cats_and_dogs.png", dpi=110)
print(f"\n{'':24} {'test':>8} {'training':>10}")
print("\n".join(rows))
