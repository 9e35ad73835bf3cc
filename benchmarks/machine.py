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
