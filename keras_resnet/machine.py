"""The machine that models run on: what it is, and what it computes in."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""What feature maps are computed in, as Keras calls it."""


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Build and train models under a policy; afterwards, Keras has its own again.

    Parameters
    ----------
    policy : str
        One of the values of `PRECISIONS`.
    """
    import keras

    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def describe() -> str:
    """Describe the CPU, its cores and bfloat16 instructions, and software versions.

    Returns
    -------
    str
        A line for a report.

    Examples
    --------
    >>> from keras_resnet import machine
    >>> "TensorFlow" in machine.describe()
    True
    """
    import keras
    import tensorflow as tf

    model, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines())
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        model, flags = fields.get("model name", model), set(fields.get("flags", "").split())
    bfloat16 = [name for name in ("avx512_bf16", "amx_bf16") if name in flags]
    affinity = getattr(os, "sched_getaffinity", None)  # which Linux alone has
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return (
        f"{model}, {cores} cores, bfloat16: {', '.join(bfloat16) or 'no instructions'}. "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}."
    )
