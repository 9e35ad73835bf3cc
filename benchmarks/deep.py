"""The paper's deepest model, CIFARResNet(1202): `python -m benchmarks.deep [--against COMMIT]`.

Given a commit of this repository, alternates between its code and the current code.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 3


def measure() -> dict[str, float]:
    """Measure the seconds for each stage, the file size, and peak memory, in this process."""
    import numpy as np

    import keras_resnet

    keras_resnet.CIFARResNet(20)  # exclude one-time imports and set-up
    facts, start = {}, time.perf_counter()

    def lap(work):
        nonlocal start
        facts[work] = time.perf_counter() - start
        start = time.perf_counter()

    images, labels = np.zeros((8, 32, 32, 3), "float32"), np.zeros(8, int)
    start = time.perf_counter()
    model = keras_resnet.CIFARResNet(1202)
    lap("build, s")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    model.train_on_batch(images, labels)
    lap("first training step, batch 8, with tracing, s")
    model.train_on_batch(images, labels)
    lap("second training step, batch 8, s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        lap("save, s")
        facts["file, MB"] = path.stat().st_size / 1e6
    facts["peak memory, GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return facts


def in_a_process(code: Path) -> dict[str, float]:
    """Run `measure` in a new process, with the package in the given folder."""
    command = [sys.executable, __file__, "--measure"]
    environment = {**os.environ, "PYTHONPATH": str(code), "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT", help="older version to compare with")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return

    from benchmarks.machine import describe

    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as older:
        versions = {"now": ROOT}
        if options.against:
            command = ["git", "archive", options.against, "keras_resnet"]
            archive = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
            subprocess.run(["tar", "-x", "-C", older], input=archive, check=True)
            versions[options.against] = Path(older)
        facts = {version: [] for version in versions}
        for _ in range(ROUNDS):
            for version, code in versions.items():
                facts[version].append(in_a_process(code))
    print(
        f"{'medians over alternating processes':48}" + "".join(f"{each:>12}" for each in versions)
    )
    for work in facts["now"][0]:
        medians = [statistics.median(each[work] for each in found) for found in facts.values()]
        print(f"{work:48}" + "".join(f"{median:12.1f}" for median in medians))


if __name__ == "__main__":
    main()
