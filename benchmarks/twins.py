"""Our layers against Keras' own in the same nets: `python -m benchmarks.twins [--quick]`.

A twin has the layers and weights of our net, with `keras.layers.Conv2D(groups=...)` and
`keras.layers.BatchNormalization` in place of ours. Before anything is timed, both must give the
same outputs. The twin's training step of ResNeXt-50 takes most of a minute; `--quick` measures
smaller images and batches, and says so.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_resnet
from benchmarks.machine import describe, interleaved
from keras_resnet.layers import BatchNormalization, GroupedConv2D


def stock_twin(model: keras.Model) -> keras.Model:
    """Rebuild a net of Keras' own layers, with the same weights."""

    def stock(layer):
        for ours, keras_layer in (
            (GroupedConv2D, keras.layers.Conv2D),
            (BatchNormalization, keras.layers.BatchNormalization),
        ):
            if isinstance(layer, ours):
                return keras_layer.from_config(layer.get_config())
        return type(layer).from_config(layer.get_config())

    twin = keras.models.clone_model(model, clone_function=stock)
    twin.set_weights(model.get_weights())
    return twin


def pair(builder, size: int, policy: str, tolerance: float) -> list[keras.Model]:
    """A net of ours and its twin, compiled and found equal."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    model = builder(weights=None, input_shape=(size, size, 3))
    models = [model, stock_twin(model)]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    ours, theirs = (net(images, training=False).numpy() for net in models)
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert difference <= tolerance, f"{model.name} differs from its twin by {difference:.1e}"
    for net in models:
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        net.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return models


def report(work: str, seconds: list[float], batch: int, at_least: float) -> None:
    ours, twin = seconds
    print(
        f"{work:46} ours {batch / ours:7.2f} images/s   twin {batch / twin:7.2f} images/s   "
        f"ratio {twin / ours:6.2f}   (aim: {at_least:g})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller images and batches")
    quick = parser.parse_args().quick
    size, batch = (96, 4) if quick else (224, 8)
    print(describe())

    random = np.random.default_rng(0)
    images = random.normal(size=(batch, size, size, 3)).astype("float32")
    labels = random.integers(0, 1000, batch)

    models = pair(keras_resnet.ResNeXt50_32x4d, size, "float32", 1e-4)
    steps = [lambda net=net: net.predict_on_batch(images) for net in models]
    report(f"ResNeXt-50 inference, {size} px, batch {batch}", interleaved(steps, 10), batch, 1.8)
    steps = [lambda net=net: net.train_on_batch(images, labels) for net in models]
    report(
        f"ResNeXt-50 training, {size} px, batch {batch}",
        interleaved(steps, 2, repeats=[5, 1]),
        batch,
        30,
    )

    models = pair(keras_resnet.ResNet50, size, "mixed_bfloat16", 0.1)
    steps = [lambda net=net: net.train_on_batch(images, labels) for net in models]
    report(
        f"ResNet-50 training, bfloat16, {size} px, batch {batch}",
        interleaved(steps, 8),
        batch,
        1.4,
    )


if __name__ == "__main__":
    main()
