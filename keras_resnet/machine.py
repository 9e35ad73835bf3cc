"""The machine that models run on: what it is, and what it computes in."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""What feature maps are computed in, as Keras calls it."""

OVERRIDE = "KERAS_RESNET_PRECISION"
"""The environment variable with the precision of training runs that do not name one."""

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""The environment variable that turns oneDNN on or off in TensorFlow, before it is imported."""

POOLED = "TF_CPU_ALLOCATOR_USE_BFC"
"""The environment variable that lets TensorFlow keep memory instead of returning it to the system.

Without oneDNN, the system otherwise clears the memory of every large tensor again.
"""

_INFO = Path("/proc/cpuinfo")
_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # instructions, as Linux calls them
# Instructions for which TensorFlow itself turns oneDNN on.
_ONEDNN = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}
_VECTORS = {  # the widest first
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "asimd": "NEON",
}
_AMPERE = (8, 0)  # the lowest NVIDIA compute capability whose tensor cores take bfloat16


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
        Its features, as Linux calls them; empty on other systems.
    """

    model: str
    cores: int
    flags: frozenset[str]

    @property
    def name(self) -> str:
        """Its model and widest vector instructions, such as "AMD EPYC (AVX2)"."""
        widest = next((each for flag, each in _VECTORS.items() if flag in self.flags), None)
        return f"{self.model} ({widest})" if widest else self.model

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
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return CPU(model, cores, frozenset(flags.split()))


def fast_precision() -> tuple[str, str]:
    """Choose the precision to train in here: bfloat16 where that is fast, otherwise float32.

    bfloat16 is fast on CPUs with AVX512-BF16 or AMX, on NVIDIA GPUs of compute capability 8.0
    (Ampere) or higher, and on TPUs. It has the range of float32, so the loss need not be scaled;
    float16 is never chosen. The environment variable `KERAS_RESNET_PRECISION` overrides this.

    Returns
    -------
    precision : str
        A key of `PRECISIONS`.
    reason : str
        Why, in words that follow "as".

    Raises
    ------
    ValueError
        If the environment variable names no precision of `PRECISIONS`.

    Examples
    --------
    >>> from keras_resnet import machine
    >>> machine.fast_precision()[0] in machine.PRECISIONS
    True
    """
    import tensorflow as tf

    if asked := os.environ.get(OVERRIDE):
        if asked not in PRECISIONS:
            raise ValueError(
                f"{OVERRIDE}={asked!r} must be one of {', '.join(map(repr, PRECISIONS))}."
            )
        return asked, f"{OVERRIDE} says"
    if tf.config.list_physical_devices("TPU"):
        return "bfloat16", "TPUs multiply in it"
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(each) for each in gpus]
        name = details[0].get("device_name", "this GPU")
        if all(each.get("compute_capability", (0, 0)) >= _AMPERE for each in details):
            return "bfloat16", f"{name} has tensor cores for it"
        return "float32", f"{name} has no tensor cores for bfloat16"
    found = cpu()
    if found.bfloat16 and os.environ.get(ONEDNN) != "0":
        return "bfloat16", f"{found.model} has instructions for it"
    return "float32", f"{found.model} has no instructions for bfloat16 that TensorFlow uses"


def lacks_onednn() -> bool:
    """Whether TensorFlow leaves oneDNN off on this CPU, although training is faster with it.

    It does on CPUs with AVX2 that have no newer instructions for neural networks. There, a training
    step of ResNet-50 is 1.5 times as fast with oneDNN, of ResNeXt-50 1.9 times. Inference gains
    little, and a single image takes a model that is not frozen 20 times as long.

    Returns
    -------
    bool
        False if `TF_ENABLE_ONEDNN_OPTS` is set.

    Examples
    --------
    >>> from keras_resnet import machine
    >>> machine.lacks_onednn() in (True, False)
    True
    """
    flags = cpu().flags
    return "avx2" in flags and not flags & _ONEDNN and ONEDNN not in os.environ


def prepare(work: Literal["training", "inference"]) -> None:
    """Set what makes TensorFlow fast at some work on this CPU, unless the environment says it.

    Call this before TensorFlow is imported: afterwards it does nothing.

    Parameters
    ----------
    work : {"training", "inference"}
        "training" of classifiers turns oneDNN on, if `lacks_onednn`. "inference" keeps memory.

    Examples
    --------
    >>> from keras_resnet import machine
    >>> machine.prepare("inference")
    """
    if "tensorflow" in sys.modules:
        return
    if work == "inference":
        os.environ.setdefault(POOLED, "1")
    elif lacks_onednn():
        os.environ[ONEDNN] = "1"


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
    switch = f" {ONEDNN}={os.environ[ONEDNN]}." if ONEDNN in os.environ else ""
    return (
        f"{found.name}, {found.cores} cores, bfloat16: "
        f"{', '.join(found.bfloat16) or 'no instructions'}. "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras "
        f"{keras.__version__}.{switch}"
    )
