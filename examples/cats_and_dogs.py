"""Cats or dogs: three ways to a classifier from 2,000 photographs.

    python examples/cats_and_dogs.py FOLDER [--weights TAG_OR_FILE] [--epochs N]

FOLDER is class/image, or has train/ and test/ above that. A LeNet-like net and a ResNet-34 learn
from scratch, as in many a course; a pretrained ResNet-50 is fine-tuned. All three are judged on the
same test images, once, at the end. Writes cats_and_dogs.png, and prints, after the epochs, for
2,000 photographs, 10 epochs and the weights "imagenet_caffe", on two CPU cores:

                                 test   training
    LeNet from scratch         70.10%    0.7 min
    ResNet-34 from scratch     66.80%    4.3 min
    ResNet-50, fine-tuned      98.90%    6.9 min

Ten epochs are few for a net that begins from nothing, and 2,000 images for any number of epochs.
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
from keras_resnet import analysis, data, training, transfer
from keras_resnet.graphs import crop_of

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--weights", default="imagenet_caffe")
parser.add_argument("--epochs", type=int, default=10, help="of the nets that learn from scratch")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

# Half precision with numbers as large as float32's: on a CPU that knows it, twice as fast.
keras.config.set_dtype_policy("mixed_bfloat16")
pets = data.load(options.folder)


def lenet():
    """Two convolutions and three dense layers, for 200 px."""
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
    """All 34 layers, fresh, for 128 px."""
    return keras_resnet.ResNet34(
        weights=None, classes=2, input_shape=(128, 128, 3), include_preprocessing=True
    )


def resnet50():
    """A pretrained ResNet-50 with a head for two classes."""
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
    result = learn(model, pets, recipe, seed=options.seed, verbose=2)
    minutes = (time.perf_counter() - start) / 60
    # What a net is shown of a photograph, it remembers from the weights that it began with.
    test = data.batches(pets.test, image_size=model.input_shape[1], crop=crop_of(model))
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
