"""The machine that measurements run on, and ways to measure."""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_resnet.machine import CPU, cpu, describe

__all__ = [
    "describe",
    "interleaved",
    "matrix_product_rates",
    "precisions",
    "results_of",
    "write_jpeg_folder",
]

RESULTS = Path(__file__).parent / "results"


def slug(model: str) -> str:
    """Return the name of a CPU or GPU as part of a path: "AMD EPYC" is "amd-epyc"."""
    plain = re.sub(r"\((r|tm|c)\)", " ", model.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def results_of(processor: CPU | None = None) -> Path:
    """Return the folder of the results of a kind of CPU, by default this machine's; makes it."""
    folder = RESULTS / "cpus" / slug((processor or cpu()).name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def interleaved(
    contenders: Sequence[Callable[[], object]], rounds: int, repeats: Sequence[int] | None = None
) -> list[float]:
    """Return the median seconds per call of each contender, measured in turns: A B A B.

    Calls every contender once first, to trace and compile. `repeats` is the number of calls per
    turn for each contender; fast ones need more for a turn that is long enough to time.
    """
    repeats = repeats or [1] * len(contenders)
    for contender in contenders:
        contender()
    seconds = [[] for _ in contenders]
    for _ in range(rounds):
        for index, contender in enumerate(contenders):
            for _ in range(repeats[index]):
                start = time.perf_counter()
                contender()
                seconds[index].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def precisions() -> tuple[str, ...]:
    """Return what models run in on this CPU, the fastest last."""
    return ("float32", "bfloat16") if cpu().bfloat16 else ("float32",)


def matrix_product_rates() -> dict[str, float]:
    """Measure multiply-adds per second of a matrix product on this machine, best of ten."""
    import tensorflow as tf

    rates, size = {}, 4096
    for precision in precisions():
        matrix = tf.cast(tf.random.stateless_normal((size, size), (0, 0)), precision)
        product = tf.function(lambda matrix=matrix: tf.matmul(matrix, matrix))
        product()
        seconds = []
        for _ in range(10):
            start = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - start)
        rates[precision] = size**3 / min(seconds)
    return rates


def write_jpeg_folder(folder: Path, count: int, size: int) -> None:
    """Write blurred noise as JPEG files, `folder/train/{class}/{number}.jpg`.

    Also writes a few to `validation` and `test`, so that no loader holds back part of `train`.
    """
    import numpy as np
    import PIL.Image

    random = np.random.default_rng(0)
    splits = ["train"] * count + ["validation"] * 10 + ["test"] * 10
    for number, split in enumerate(splits):
        path = folder / split / f"{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).resize((size, size), PIL.Image.Resampling.BICUBIC).save(path)
