"""Both filter gradients of 1x1 convolutions: `python -m benchmarks.filter_gradients`.

Alternates training steps in which the filter gradient of every 1x1 convolution is one matrix
product with steps in which it is TensorFlow's own, in bfloat16. `keras_resnet.layers` chooses
between them by the CPU's flags: run this on a new kind of CPU.
"""

import argparse
import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.contenders import NETS, Ours
from benchmarks.machine import describe, interleaved

WORK = [("ResNet-50", 8), ("ResNet-50", 32), ("ResNeXt-50", 8), ("ResNeXt-50", 32)]
ROUNDS = 10


def step_of(name: str, batch: int, size: int, switch: str):
    """Make a function that takes one training step, traced with this setting of the switch."""
    import numpy as np

    from keras_resnet.layers import pointwise

    net = dataclasses.replace(NETS[name], size=size)
    random = np.random.default_rng(0)
    images = random.normal(size=(batch, size, size, 3)).astype("float32")
    labels = random.integers(0, net.classes, batch)
    os.environ[pointwise.SWITCH] = switch
    contender = Ours(net, "bfloat16")
    contender.train(images, labels)
    return lambda: contender.train(images, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="image size in pixels")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(describe())
    for name, batch in WORK:
        steps = [step_of(name, batch, options.size, switch) for switch in ("0", "1")]
        own, product = interleaved(steps, options.rounds)
        print(
            f"{name}, batch {batch}: {1e3 * own:.0f} ms, with matrix products "
            f"{1e3 * product:.0f} ms: {own / product:.2f}x as fast",
            flush=True,
        )


if __name__ == "__main__":
    main()
