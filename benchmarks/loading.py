"""Time to load a weights file into a ResNet-50: `python -m benchmarks.loading [H5]`.

Compares with `torch.load` and `load_state_dict`, which needs PyTorch (`pip install torch`). H5, the
weights file of `keras.applications.ResNet50`, adds a comparison with its `weights=H5`. A program
loads weights once, so every measurement runs in a new process, with the contenders in turns.
Reports the first load in a process and the median of the next ten separately.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The PyTorch models that generate the golden fixtures.
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
ROUNDS = 5


def pytorch_net():
    sys.path.insert(0, str(GOLDEN))
    import make_golden

    return make_golden.ResNet(*make_golden.IMAGENET_NETS["ResNet50"])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ours(path: str) -> dict[str, float]:
    import keras_resnet
    from keras_resnet.pretrained import load_weights

    net = keras_resnet.ResNet50(weights=None)
    first = seconds(lambda: load_weights(net, path))
    again = [seconds(lambda: load_weights(net, path)) for _ in range(10)]
    return {"first": first, "again": statistics.median(again)}


def pytorch(path: str) -> dict[str, float]:
    import torch

    net = pytorch_net()

    def load():
        net.load_state_dict(torch.load(path, weights_only=True))

    first = seconds(load)
    return {"first": first, "again": statistics.median(seconds(load) for _ in range(10))}


def ours_built(path: str) -> dict[str, float]:
    import keras_resnet

    # Exclude the one-time cost of building the first model in a process.
    keras_resnet.CIFARResNet(8)
    return {"first": seconds(lambda: keras_resnet.ResNet50(weights=path))}


def pytorch_built(path: str) -> dict[str, float]:
    import torch

    def build():
        pytorch_net().load_state_dict(torch.load(path, weights_only=True))

    pytorch_net()
    return {"first": seconds(build)}


def keras_applications_built(path: str) -> dict[str, float]:
    import keras

    import keras_resnet

    keras_resnet.CIFARResNet(8)
    return {"first": seconds(lambda: keras.applications.ResNet50(weights=path))}


def in_turns(contenders: list[tuple[Callable, str]]) -> list[dict[str, float]]:
    """Return medians over rounds, with every run in a new process."""
    results = [[] for _ in contenders]
    for _ in range(ROUNDS):
        for (contender, path), collected in zip(contenders, results, strict=True):
            command = [
                sys.executable,
                "-m",
                "benchmarks.loading",
                "--only",
                contender.__name__,
                path,
            ]
            answer = subprocess.run(command, capture_output=True, text=True, check=True)
            collected.append(json.loads(answer.stdout.splitlines()[-1]))
    return [
        {key: statistics.median(run[key] for run in runs) for key in runs[0]} for runs in results
    ]


def show(what: str, first: float, second: float) -> None:
    print(f"{what:58}{first * 1e3:8.0f}{second * 1e3:8.0f}{first / second:8.2f}", flush=True)


def main(h5: str | None = None) -> None:
    import torch

    from benchmarks.machine import describe

    print(f"{describe()} PyTorch {torch.__version__}.")
    print(f"Medians over {ROUNDS} processes each, in turns.\n")
    torch.manual_seed(0)
    state_dict = pytorch_net().state_dict()
    with tempfile.TemporaryDirectory() as folder:
        zipped, legacy = os.path.join(folder, "net.pth"), os.path.join(folder, "old.pth")
        torch.save(state_dict, zipped)
        torch.save(state_dict, legacy, _use_new_zipfile_serialization=False)
        print(f"{'ResNet-50, milliseconds':58}{'ours':>8}{'PyTorch':>8}{'ratio':>8}")
        for name, path in (("", zipped), (" (before 1.6)", legacy)):
            own, theirs = in_turns([(ours, path), (pytorch, path)])
            show(f".pth{name} into a model, first in its process", own["first"], theirs["first"])
            show(f".pth{name} into a model, again", own["again"], theirs["again"])
        own, theirs = in_turns([(ours_built, zipped), (pytorch_built, zipped)])
        show(".pth into a new model, including building it", own["first"], theirs["first"])
    if h5:
        print(f"\n{'ResNet-50, milliseconds':58}{'ours':>8}{'Keras':>8}{'ratio':>8}")
        own, theirs = in_turns([(ours_built, h5), (keras_applications_built, h5)])
        show(".h5 into a new model, against keras.applications", own["first"], theirs["first"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        print(json.dumps(globals()[sys.argv[2]](sys.argv[3])))
    else:
        main(*sys.argv[1:])
