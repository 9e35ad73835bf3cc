"""What the trainer costs, and what devices add: `python -m benchmarks.training`.

Steps of a CIFAR ResNet-20 in our trainer against a bare `model.fit`, on the same batches, in turns
in one process; then images a second of one process with one and with two threads, of two processes
with a thread each, and of two devices in one process.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "training.txt"
BATCH, STEPS, EPOCHS, ROUNDS = 128, 30, 4, 5


def source():
    """As CIFAR-10, but for what the images show."""
    import numpy as np

    from keras_resnet import data

    random = np.random.default_rng(0)

    def split(count):
        images = random.integers(0, 256, (count, 32, 32, 3), "uint8")
        return data.Split(images, random.integers(0, 10, count))

    return data.Source(
        name="noise",
        class_names=tuple("0123456789"),
        channels=3,
        image_size=32,
        augmentation="small photograph",
        train=split(BATCH * STEPS),
        validation=split(BATCH),
        test=split(BATCH),
    )


def net(precision):
    import keras

    import keras_resnet

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    return keras_resnet.CIFARResNet(20, input_shape=(32, 32, 3), include_preprocessing=True)


def steps_of(train) -> list[float]:
    """Durations of steps, of all epochs but the first."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epoch, self.last, self.seconds = 0, None, []

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch, self.last = epoch, None

        def on_train_batch_end(self, batch, logs=None):
            now = time.perf_counter()
            if self.epoch and self.last:
                self.seconds.append(now - self.last)
            self.last = now

    clock = Clock()
    train(clock)
    return clock.seconds


def overhead(precision: str) -> str:
    """Our trainer against `fit`."""
    from keras_resnet import data, training

    images = source()
    recipe = training.Recipe(epochs=EPOCHS, batch_size=BATCH)

    def ours(clock):
        training.train(net(precision), images, recipe, callbacks=[clock], verbose=0)

    def bare(clock):
        model = net(precision)
        model.compile(
            recipe.optimizer(STEPS),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
        options = dict(image_size=32, batch_size=BATCH)
        batches = data.batches(
            images.train, augmentation=images.augmentation, epochs=range(EPOCHS), **options
        )
        model.fit(
            batches,
            validation_data=data.batches(images.validation, **options),
            steps_per_epoch=STEPS,
            epochs=EPOCHS,
            callbacks=[clock],
            verbose=0,
        )

    found = {"ours": [], "fit": []}
    for _ in range(ROUNDS):
        found["ours"].append(statistics.median(steps_of(ours)))
        found["fit"].append(statistics.median(steps_of(bare)))
    ratios = [theirs / mine for mine, theirs in zip(found["ours"], found["fit"], strict=True)]
    mine, theirs = (BATCH / statistics.median(found[name]) for name in ("ours", "fit"))
    return (
        f"{precision:15}  ours {mine:7,.0f} images/s   fit {theirs:7,.0f} images/s   "
        f"ours is {statistics.median(ratios):.3f} times as quick "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def run(strategy: str, synchronized: str) -> None:
    """Images a second of one run, as JSON."""
    from keras_resnet import training

    devices = training.strategy(strategy)
    result = training.train(
        net("mixed_bfloat16"),
        source(),
        training.Recipe(epochs=EPOCHS, batch_size=BATCH),
        devices,
        synchronized=json.loads(synchronized),
        verbose=0,
    )
    print(json.dumps(result.images_per_second))


WAYS = {
    "one process, one thread": (1, 1, "auto", "false"),
    "one process, two threads": (1, 2, "auto", "false"),
    "two processes, one thread each": (2, 1, "multiworker", "false"),
    "the same, synchronized": (2, 1, "multiworker", "true"),
    "one process, two devices": (1, 2, "cpu:2", "false"),
    "the same, synchronized ": (1, 2, "cpu:2", "true"),
}


def scaling() -> Iterator[str]:
    """Images a second of each way, in turns."""
    found = {name: [] for name in WAYS}
    for _ in range(3):
        for name, (processes, threads, *arguments) in WAYS.items():
            threads = {f"TF_NUM_{kind}OP_THREADS": str(threads) for kind in ("INTRA", "INTER")}
            command = [sys.executable, "-m", "benchmarks.training", "--run", *arguments]
            if processes > 1:
                start = f"from keras_resnet.launch import launch; launch({command}, {processes})"
                command = [sys.executable, "-c", start]
            output = subprocess.run(
                command,
                env={**os.environ, **threads},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            ).stdout
            found[name].append(json.loads(output.splitlines()[-1]))
    medians = {name: statistics.median(values) for name, values in found.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        yield f"{name:32}{median:9,.0f} images/s {median / first:6.2f}x"


def report() -> Iterator[str]:
    yield describe()
    yield f"\nTrainer against a bare fit, CIFAR ResNet-20, batch {BATCH}, medians of {ROUNDS} turns"
    for precision in ("float32", "mixed_bfloat16"):
        yield overhead(precision)
    yield f"\nDevices, CIFAR ResNet-20, batch {BATCH} in all, bfloat16, medians of 3 turns"
    yield from scaling()


def main() -> None:
    if "--run" in sys.argv:
        run(*sys.argv[2:])
        return
    lines = []
    for line in report():
        print(line, flush=True)
        lines.append(f"{line}\n")
    RESULTS.write_text("".join(lines))


if __name__ == "__main__":
    main()
