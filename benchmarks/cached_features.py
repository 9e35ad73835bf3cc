"""Training a head on cached features, and through the frozen backbone.

    python -m benchmarks.cached_features SOURCE [--weights TAG|PATH] [--epochs N]

Both train the head of the same pretrained ResNet-50 in bfloat16, from the same initial weights, on
the same image views in the same order. Prints the seconds per epoch, and the accuracy on the
validation and test images combined. SOURCE is anything that `keras-resnet train --data` accepts.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--weights", default="imagenet_caffe")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()

    import functools

    import keras
    import numpy as np
    import tensorflow as tf

    import keras_resnet
    from keras_resnet import data, training, transfer
    from keras_resnet.graphs import wants_of

    keras.config.set_dtype_policy("mixed_bfloat16")
    source = data.load(options.source)
    recipe = training.Recipe(epochs=options.epochs, batch_size=32, weight_decay=1e-4)
    views = functools.partial(data.batches, image_size=224, batch_size=recipe.batch_size)
    varied = functools.partial(views, source.train, augmentation=source.augmentation)
    backbone = keras_resnet.ResNet50(
        include_top=False, weights=options.weights, include_preprocessing=True
    )
    model = transfer.classifier(backbone, len(source.class_names))
    start_weights = model.get_weights()
    held_out = [
        transfer.features(model, views(split, crop=wants_of(model).crop))
        for split in (source.validation, source.test)
    ]
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*held_out, strict=True))
    head = keras.Model(model.get_layer("avg_pool").output, model.output)
    begins, ends = [], []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: begins.append(time.perf_counter()),
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()),
    )

    def train_head(way, net, epochs, validation):
        """Train the head, print its accuracy, and return the seconds per epoch."""
        model.set_weights(start_weights)
        begins.clear(), ends.clear()
        transfer.freeze(model)
        training.trainer.fit(
            net,
            epochs,
            validation,
            recipe,
            objective=training.task_of(source).objective(source, recipe),
            execution=training.Execution(callbacks=[clock], verbose=0),
        )
        steps = len(ends) // recipe.epochs
        # Skip the first epoch, which includes tracing.
        spans = zip(begins[1:], ends[2 * steps - 1 :: steps], strict=True)
        seconds = statistics.median(end - begin for begin, end in spans)
        right = np.mean(head.predict(inputs, verbose=0).argmax(-1) == labels)
        print(
            f"{way:28} {seconds:6.2f} s per epoch of {len(source.train)} images, {right:.2%} "
            f"accuracy on {len(labels)} held-out images",
            flush=True,
        )
        return seconds

    validation = tf.data.Dataset.from_tensor_slices(held_out[0]).batch(256)
    start = time.perf_counter()
    kept = [transfer.features(model, varied(epochs=range(e, e + 1))) for e in range(recipe.epochs)]
    print(f"computed features of {recipe.epochs} views in {time.perf_counter() - start:.0f} s")

    def from_features(epochs, **_):
        slices = [tf.data.Dataset.from_tensor_slices(kept[e]).batch(32) for e in epochs]
        return functools.reduce(tf.data.Dataset.concatenate, slices)

    cached = train_head("on cached features", head, from_features, lambda **_: validation)
    frozen = train_head(
        "through the frozen backbone",
        model,
        lambda epochs, **share: varied(epochs=epochs, **share),
        functools.partial(views, source.validation, crop=wants_of(model).crop),
    )
    print(f"Cached features are {frozen / cached:.0f} times faster. {describe()}")


if __name__ == "__main__":
    main()
