"""How right the staged recipe gets it: `python -m benchmarks.transfer SOURCE OUTPUT [--seeds N]`.

Runs `keras-resnet train` with a pretrained ResNet-50 once for every seed, each in a process of its
own, and prints the accuracy on the test images, their mean and spread, and the time. A seed whose
metrics are in OUTPUT already is not run again. On cats and dogs, 288 px and the whole of the
shorter side were chosen by cross-validation on the training images.
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

RECIPE = ["--image-size", "288", "--crop", "1.0", "--epochs", "2", "--precision", "bfloat16"]


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
        command += ["--weights", options.weights, *RECIPE, "--seed", str(seed), "--output", output]
        if not (output / "metrics.json").exists():
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        minutes = (time.perf_counter() - start) / 60
        metrics = json.loads((output / "metrics.json").read_text())
        accuracies.append(metrics["test_accuracy"])
        told = f"{minutes:.1f} minutes" if minutes > 0.1 else "run before"
        print(f"seed {seed}: {accuracies[-1]:.2%} of {metrics['test_images']} test images, {told}")
    print(
        f"mean {statistics.mean(accuracies):.2%}, from {min(accuracies):.2%} to "
        f"{max(accuracies):.2%}. {describe()}"
    )


if __name__ == "__main__":
    main()
