"""A head trained on features that are computed once, and through the frozen net.

    python -m benchmarks.cached_features SOURCE [--weights TAG|PATH] [--epochs N]

Both train the head of the same pretrained ResNet-50 in bfloat16, by the same recipe, on the same
number of views of every image; told are the seconds of an epoch, and the accuracy on the validation
images. SOURCE is what `keras-resnet train --data` takes.
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
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()

    import keras

    import keras_resnet
    from keras_resnet import data, training, transfer

    keras.config.set_dtype_policy("mixed_bfloat16")
    source = data.load(options.source)
    recipe = training.Recipe(epochs=options.epochs, batch_size=32, weight_decay=1e-4)
    medians, marks = {}, []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: marks.append(time.perf_counter()),
        on_epoch_end=lambda *_: marks.append(time.perf_counter()),
    )
    for way, views in (("through the frozen net", 0), ("on features", options.epochs)):
        keras.utils.set_random_seed(0)
        backbone = keras_resnet.ResNet50(
            include_top=False, weights=options.weights, include_preprocessing=True
        )
        model = transfer.classifier(backbone, len(source.class_names))
        # On features, an epoch here goes over all views; through the net, over one.
        plan = [transfer.Stage("head", recipe, views=views)]
        start = time.perf_counter()
        marks.clear()
        result = transfer.fine_tune(model, source, plan, callbacks=[clock], verbose=0)
        seconds = time.perf_counter() - start
        epochs = [end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True)]
        medians[way] = statistics.median(epochs) / max(views, 1)
        accuracy = max(result.history["val_accuracy"])
        print(
            f"{way:24} {medians[way]:8.2f} s for an epoch of {len(source.train)} images, "
            f"{accuracy:.2%} right, {seconds:.0f} s in all"
        )
    frozen, cached = medians.values()
    print(f"{frozen / cached:.0f} times as fast. {describe()}")


if __name__ == "__main__":
    main()
