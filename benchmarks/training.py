"""Overhead of the trainer, and scaling over devices: `python -m benchmarks.training`.

Compares a CIFAR ResNet-20 in our trainer with plain `model.fit` on the same batches, in turns of
ten steps in one process. Then measures the images per second of one process with one and two
threads, of two processes with one thread each, and of two devices in one process.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "training.txt"
BATCH, STEPS, EPOCHS, ROUNDS = 128, 30, 2, 3
WINDOW, WINDOWS = 10, 60  # steps per turn, turns


def source():
    """Make a data source like CIFAR-10, with noise for images."""
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


class Turns:
    """Makes runs in separate threads alternate every few steps, and times their turns."""

    def __init__(self, *names):
        self.turn, self.condition = names[0], threading.Condition()
        self.next = dict(zip(names, (*names[1:], names[0]), strict=True))
        self.seconds = {name: [] for name in names}

    def callback(self, name):
        """Make the callback that has a run wait for its turn."""
        turns, taken, start = self, 0, None

        def on_train_batch_end(batch, logs):
            nonlocal taken, start
            taken += 1
            if taken % WINDOW:
                return
            if start is not None:
                turns.seconds[name].append(time.perf_counter() - start)
            with turns.condition:
                turns.turn = turns.next[name]
                turns.condition.notify_all()
                turns.condition.wait_for(lambda: turns.turn == name)
            start = time.perf_counter()

        def on_train_end(logs):
            with turns.condition:
                turns.turn = turns.next[name]
                turns.next = {each: each for each in turns.next}
                turns.condition.notify_all()

        import keras

        return keras.callbacks.LambdaCallback(
            on_train_batch_end=on_train_batch_end, on_train_end=on_train_end
        )


def overhead(precision: str) -> str:
    """Compare our trainer with `fit`."""
    from keras_resnet import data, training

    images, mine, theirs = source(), net(precision), net(precision)
    steps = WINDOW * (WINDOWS + 1)
    epochs = -(-steps // STEPS)
    recipe, turns = training.Recipe(epochs=epochs, batch_size=BATCH), Turns("ours", "fit")
    options = dict(image_size=32, batch_size=BATCH)
    theirs.compile(
        recipe.make_optimizer(STEPS),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    batches = data.batches(
        images.train, augmentation=images.augmentation, epochs=range(epochs), **options
    )
    validation = data.batches(images.validation, **options)
    runs = (
        lambda: training.train(mine, images, recipe, callbacks=[turns.callback("ours")], verbose=0),
        lambda: theirs.fit(
            batches,
            validation_data=validation,
            steps_per_epoch=STEPS,
            epochs=epochs,
            callbacks=[turns.callback("fit")],
            verbose=0,
        ),
    )
    threads = [threading.Thread(target=each) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first two windows of each include tracing for training and validation.
    ours, fit = (turns.seconds[name][2:] for name in ("ours", "fit"))
    ratios = [b / a for a, b in zip(ours, fit, strict=False)]
    low, _, high = statistics.quantiles(ratios)
    rates = [BATCH * WINDOW / statistics.median(each) for each in (ours, fit)]
    return (
        f"{precision:15}  ours {rates[0]:6,.0f} images/s   fit {rates[1]:6,.0f} images/s   "
        f"ours / fit {statistics.median(ratios):.3f} "
        f"(middle half of the turns: {low:.3f} to {high:.3f})"
    )


def run(strategy: str, synchronized: str) -> None:
    """Train once and print the images per second as JSON."""
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
    """Yield the images per second of each way, measured in turns."""
    found = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
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
            print(f"  {name}: {found[name][-1]:,.0f}", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in found.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        yield f"{name:32}{median:9,.0f} images/s {median / first:6.2f}x"


def report() -> Iterator[str]:
    yield describe()
    yield f"\nTrainer against plain fit, CIFAR ResNet-20, batch {BATCH}, medians of {WINDOWS} turns"
    for precision in ("float32", "mixed_bfloat16"):
        yield overhead(precision)
    yield f"\nScaling, CIFAR ResNet-20, global batch {BATCH}, bfloat16, medians of {ROUNDS} turns"
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
