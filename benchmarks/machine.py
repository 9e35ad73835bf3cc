"""The machine that measurements run on, and ways to measure."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def describe() -> str:
    """Describe the CPU, its cores and bfloat16 instructions, and software versions."""
    import keras
    import tensorflow as tf

    model, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines())
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        model, flags = fields.get("model name", model), set(fields.get("flags", "").split())
    bfloat16 = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, "
        f"bfloat16: {', '.join(bfloat16) or 'no instructions'}. "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}."
    )


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


def matrix_product_rates() -> dict[str, float]:
    """Measure multiply-adds per second of a matrix product on this machine, best of ten."""
    import tensorflow as tf

    rates, size = {}, 4096
    for precision in ("float32", "bfloat16"):
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
