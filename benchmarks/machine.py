"""What a measurement was made on, and how it is made."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def describe() -> str:
    """CPU, cores, the instructions that matter, and versions."""
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
        f"bfloat16: {', '.join(bfloat16) or 'no instructions for it'}. "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}."
    )


def interleaved(
    contenders: Sequence[Callable[[], object]], rounds: int, repeats: Sequence[int] | None = None
) -> list[float]:
    """Median seconds of one call of each contender, measured in turns: A B A B.

    Every contender is called once beforehand, to trace and compile. `repeats` says how many calls
    of each make up its turn: more of the quick ones, so that each turn is long enough to time.
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
    """Multiply-adds a second of this machine's own matrix product, the best of ten."""
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
    """Write photograph-like JPEG files, blurred noise, as `folder/train/{class}/{number}.jpg`.

    Some more stand beside them as `validation` and `test`, so that nobody takes these for it.
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
