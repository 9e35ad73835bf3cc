"""The machine that models run on: what it is, and what it computes in."""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""What feature maps are computed in, as Keras calls it."""

_INFO = Path("/proc/cpuinfo")
_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # instructions, as Linux calls them


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


@dataclass(frozen=True)
class CPU:
    """A CPU.

    Parameters
    ----------
    model : str
        Its name, such as "AMD EPYC".
    cores : int
        How many cores this process may use.
    flags : frozenset of str
        Its features, as Linux calls them; on other systems, none is known.
    """

    model: str
    cores: int
    flags: frozenset[str]

    @property
    def bfloat16(self) -> tuple[str, ...]:
        """Its instructions for bfloat16."""
        return tuple(name for name in _BFLOAT16 if name in self.flags)


def cpu() -> CPU:
    """The CPU of this machine.

    Returns
    -------
    CPU

    Examples
    --------
    >>> from keras_resnet import machine
    >>> machine.cpu().cores > 0
    True
    """
    model, flags = platform.processor() or platform.machine(), ""
    if _INFO.exists():
        lines = _INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (e.partition(":") for e in lines)}
        model, flags = fields.get("model name", model), fields.get("flags", "")
    affinity = getattr(os, "sched_getaffinity", None)  # which Linux alone has
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return CPU(model, cores, frozenset(flags.split()))


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

    found = cpu()
    return (
        f"{found.model}, {found.cores} cores, bfloat16: "
        f"{', '.join(found.bfloat16) or 'no instructions'}. "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}."
    )
