"""Where our models spend their time, operation by operation: `python -m benchmarks.profile`.

Writes `profile.json` into the folder of this CPU in `results/cpus`. `RESULTS.md` shows it below the
comparison, to explain which operations would have to be faster to reach the targets missed.
"""

import collections
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import NETS
from benchmarks.machine import matrix_product_rates, results_of

WORK = [
    ("ResNet-50", "train", 32),
    ("ResNeXt-50", "train", 32),
    ("ResNet-50", "infer", 32),
    ("ResNeXt-50", "infer", 8),
]
# Prefixes of TensorFlow's operation names, without oneDNN's own prefix. The first match counts.
FAMILIES = {
    # On CPUs with AMX, those of 1x1 convolutions are matrix products. The head's product is small.
    "filter gradients": ("Conv2DBackpropFilter", "MatMul"),
    "input gradients": ("Conv2DBackpropInput",),
    "convolutions": ("Conv2D", "FusedConv2D"),
    "batch normalization gradients": ("FusedBatchNormGrad",),
    "batch normalization": ("FusedBatchNorm",),
    "ReLU and its gradients": ("Relu",),
    "shortcut additions": ("AddN", "AddV2"),
}
CONVOLUTIONS = ("convolutions", "input gradients", "filter gradients")
REST = "everything else"
TURNS = 5


def family_of(operation: str) -> str:
    operation = operation.removeprefix("_Mkl").removeprefix("Native").removeprefix("_")
    fits = (family for family, names in FAMILIES.items() if operation.startswith(names))
    return next(fits, REST)


def events_of(step) -> list[tuple[str, str, float]]:
    """Profile one call of `step`: name, type and seconds of every operation that was run."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found = []
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if operation := re.fullmatch(r"([^:#]+):(\w+)", name):
                    found.append((operation[1], operation[2], event.duration_ps / 1e12))
    return found


def seconds_by_operation(step) -> collections.Counter:
    """Profile one call of `step`, and return the seconds per type of operation."""
    taken = collections.Counter()
    for _, operation, seconds in events_of(step):
        taken[operation] += seconds
    return taken


def profile(name: str, work: str, batch: int) -> dict:
    """Measure the seconds per step, in total and per family of operations."""
    import numpy as np

    from benchmarks.contenders import Ours

    net = NETS[name]
    contender, random = Ours(net, "bfloat16"), np.random.default_rng(0)
    images = random.normal(size=(batch, net.size, net.size, 3)).astype("float32")
    labels = random.integers(0, net.classes, batch)

    def step():
        return contender.train(images, labels) if work == "train" else contender.infer(images)

    step()
    seconds, families = [], collections.defaultdict(list)
    for _ in range(TURNS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        turn = collections.Counter()
        for operation, taken in seconds_by_operation(step).items():
            turn[family_of(operation)] += taken
        for family, taken in turn.items():
            families[family].append(taken)
    return {
        "net": name,
        "work": work,
        "batch": batch,
        "seconds": statistics.median(seconds),
        "families": {family: statistics.median(taken) for family, taken in families.items()},
    }


def main() -> None:
    import tensorflow as tf

    # Run one operation at a time, so that their times add up to the time of the step.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rates = matrix_product_rates()
    profiles = [profile(*each) for each in WORK]
    text = json.dumps({"rates": rates, "profiles": profiles}, indent=1) + "\n"
    (results_of() / "profile.json").write_text(text)
    for each in profiles:
        print(f"{each['net']}, {each['work']}, batch {each['batch']}: {each['seconds']:.3f} s")
        for family, seconds in sorted(each["families"].items(), key=lambda item: -item[1]):
            print(f"  {family:32} {1e3 * seconds:7.0f} ms")


if __name__ == "__main__":
    main()
