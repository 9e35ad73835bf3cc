"""Accuracy of staged fine-tuning: `python -m benchmarks.transfer SOURCE OUTPUT [--seeds N]`.

Runs `keras-resnet train` with a pretrained ResNet-50 and no other option once per seed, each in its
own process, and prints the test accuracy and time of each, the epochs of its stages, and the mean
and range of the accuracies. Skips seeds whose metrics are already in OUTPUT.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", default="imagenet_caffe")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    accuracies = []
    for seed in range(options.seeds):
        output, start = options.output / f"seed-{seed}", time.perf_counter()
        command = [sys.executable, "-m", "keras_resnet.cli", "train", "--data", options.source]
        command += ["--weights", options.weights, "--seed", str(seed), "--output", output]
        if not (output / "metrics.json").exists():
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        minutes = (time.perf_counter() - start) / 60
        metrics = json.loads((output / "metrics.json").read_text())
        accuracies.append(metrics["test_accuracy"])
        duration = f"{minutes:.1f} minutes" if minutes > 0.1 else "from an earlier run"
        count = metrics["test_images"]
        stages = ", ".join(f"{name} {epochs}" for name, epochs in metrics["stages"].items())
        print(
            f"seed {seed}: {accuracies[-1]:.2%} accuracy on {count} test images, {duration}, "
            f"epochs: {stages}",
            flush=True,
        )
    print(
        f"mean {statistics.mean(accuracies):.2%}, range {min(accuracies):.2%} to "
        f"{max(accuracies):.2%}. {describe()}"
    )


if __name__ == "__main__":
    main()
