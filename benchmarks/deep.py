"""The deepest net of the paper, CIFARResNet(1202): `python -m benchmarks.deep`."""

import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_resnet
from benchmarks.machine import describe


def main() -> None:
    print(describe())
    images, labels = np.zeros((8, 32, 32, 3), "float32"), np.zeros(8, int)

    start = time.perf_counter()

    def lap(work):
        nonlocal start
        print(f"{work:34}{time.perf_counter() - start:7.1f} s", flush=True)
        start = time.perf_counter()

    model = keras_resnet.CIFARResNet(1202)
    lap(f"build, {len(model.layers):,} layers")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    model.train_on_batch(images, labels)
    lap("first training step, with tracing")
    model.train_on_batch(images, labels)
    lap("second training step, batch 8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        lap(f"save, {path.stat().st_size / 1e6:.0f} MB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'peak memory':34}{peak:7.1f} GiB")


if __name__ == "__main__":
    main()
