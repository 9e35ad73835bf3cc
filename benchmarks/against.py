"""The package as it is now beside an older one: `python -m benchmarks.against COMMIT`.

Each version has a process of its own for every model and precision, and the two take turns, so that
both see the same machine. Importing and the command line's help are timed in fresh processes.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.worker import ROOT, Process

TURN = 2.0  # seconds, at least
# Model, pixels a side, precision, and the pieces of work with their batch sizes.
WORK = [
    ("ResNet-50", 96, "float32", [("train", 16), ("infer", 1), ("infer", 16)]),
    ("ResNet-50", 96, "bfloat16", [("train", 16), ("infer", 1), ("infer", 16)]),
    ("ResNeXt-50", 96, "float32", [("train", 8), ("infer", 8)]),
    ("CIFAR ResNet-20", 32, "float32", [("train", 128), ("infer", 128)]),
    ("ResNet-152", 224, "float32", [("build", 1)]),
]
COMMANDS = {
    "import keras_resnet": ["-c", "import keras_resnet"],
    "import keras_resnet.layers": ["-c", "import keras_resnet.layers"],
    "keras-resnet --help": ["-m", "keras_resnet.cli", "--help"],
}


@contextlib.contextmanager
def checkout(commit: str):
    """A folder with the package of a commit and the benchmarks of today."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["git", "archive", commit, "keras_resnet"]
        archive = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        for name in ("benchmarks", "tests"):
            Path(folder, name).symlink_to(ROOT / name)
        yield Path(folder)


def ratios(now: list[float], then: list[float]) -> str:
    """Both medians in milliseconds, and the median ratio of the turns."""
    ratio = statistics.median(a / b for a, b in zip(now, then, strict=True))
    milliseconds = (1000 * statistics.median(times) for times in (now, then))
    return "{:10.1f} {:10.1f} {:8.3f}".format(*milliseconds, ratio)


def models(folders: list[Path], rounds: int):
    """Lines about models, each version in turn."""
    for net, size, precision, work in WORK:
        with contextlib.ExitStack() as stack:
            versions = [
                stack.enter_context(Process("keras_resnet", net, precision, size, folder))
                for folder in folders
            ]
            for each, batch in work:
                for version in versions:
                    version.do(each, batch=batch)
                turns = ([], [])
                for index in range(rounds):
                    order = (0, 1) if index % 2 else (1, 0)
                    for which in order:
                        told = versions[which].do(each, batch=batch, seconds=TURN)
                        turns[which].append(statistics.median(told["seconds"]))
                yield f"{net}, {size} px, {precision}, {each} {batch}", *turns


def commands(folders: list[Path], rounds: int):
    """Lines about commands that start, do next to nothing, and end."""
    for name, arguments in COMMANDS.items():
        turns = ([], [])
        for _ in range(rounds + 1):  # the first one fills the caches
            for folder, times in zip(folders, turns, strict=True):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *arguments],
                    cwd=folder,
                    check=True,
                    capture_output=True,
                )
                times.append(time.perf_counter() - start)
        yield name, turns[0][1:], turns[1][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="the older version")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(describe(), flush=True)
    print(f"{'ms':52} {'now':>10} {options.commit[:10]:>10} {'ratio':>8}", flush=True)
    with checkout(options.commit) as older:
        folders = [ROOT, older]
        for measure in (commands, models):
            for name, now, then in measure(folders, options.rounds):
                print(f"{name:52} {ratios(now, then)}", flush=True)


if __name__ == "__main__":
    main()
