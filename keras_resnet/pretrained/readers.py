"""Files of weights, recognized by what is in them: one function for each kind.

Tensors come by the names that they have in the file. Nothing in a file is ever run, and no tensor
can claim more memory than the file has bytes.
"""

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from keras_resnet.blocks import SHORTCUTS, STRIDE_PLACES
from keras_resnet.layers import NORMALIZATIONS
from keras_resnet.pretrained import hdf5, mapping
from keras_resnet.pretrained.archive import Archive, mapped
from keras_resnet.pretrained.pytorch import is_tar, read_archive, read_pytorch

# Members of every .keras file.
_KERAS_WEIGHTS, _KERAS_CONFIG = "model.weights.h5", "config.json"

# What a file may say of the net that its weights are from, and whether it makes sense.
_OPTIONS = {
    "stride_in": lambda place: place in STRIDE_PLACES,
    "shortcut": lambda kind: kind in SHORTCUTS,
    "preprocessing": lambda mode: mode in (*NORMALIZATIONS,),
    "crop": lambda part: isinstance(part, int | float) and 0 < part <= 1,
}

_SAFE_DTYPES = {
    "U8": np.dtype("uint8"),
    "I8": np.dtype("int8"),
    "I16": np.dtype("int16"),
    "I32": np.dtype("int32"),
    "I64": np.dtype("int64"),
    "BOOL": np.dtype("bool"),
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

# Groups of a Keras file that hold no weights of layers.
_NO_LAYERS = ("optimizer/", "optimizer_weights/")


def read(path: Path) -> Mapping[str, Any]:
    """Read a file of weights of any kind; what it is called does not matter.

    Parameters
    ----------
    path : path
        A PyTorch checkpoint (`.pth`, `.th`, any of its formats), `.safetensors`, the `.h5` of
        keras.applications, `.weights.h5` or `.keras`.

    Returns
    -------
    mapping of str to array
        Each has `shape` and `dtype`, and `numpy.asarray` turns it into an array.

    Raises
    ------
    ValueError
        If the file is damaged, or none of these.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> from keras_resnet.pretrained import readers
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     save_file({"fc.bias": np.zeros(10)}, path)
    ...     readers.read(path)["fc.bias"].shape
    (10,)
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if start[4:9] == bytes(4) + b"{":  # the first one: it may begin with any four bytes
        return read_safetensors(path)
    if start.startswith(hdf5.SIGNATURE):
        return read_hdf5(path)
    if start.startswith(b"\x80") or is_tar(start):  # a pickle, or PyTorch's oldest format
        return read_pytorch(path)
    if start.startswith(b"PK"):
        archive = Archive(path)
        return read_keras(path) if _KERAS_WEIGHTS in archive.names() else read_archive(archive)
    raise ValueError(
        "it is none of PyTorch's checkpoints (.pth, .th), .safetensors, .h5, .weights.h5, .keras."
    )


def recorded_options(path: Path) -> dict[str, Any]:
    """What a file says of the net that its weights are from, beside the weights.

    Parameters
    ----------
    path : path
        A file that `read` can read.

    Returns
    -------
    dict
        As `mapping.options_of` returns them: of a `.keras` file, which holds its layers, and of a
        `.safetensors` file that `to_torch` wrote. Empty for others.
    """
    with open(path, "rb") as file:
        start = file.read(9)
    recorded = {}
    try:
        if start[4:9] == bytes(4) + b"{":
            metadata = safetensors.safe_open(path, framework="numpy").metadata() or {}
            recorded = json.loads(metadata.get("keras_resnet", "{}"))
        elif start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                if _KERAS_CONFIG in archive.namelist():
                    if archive.getinfo(_KERAS_CONFIG).compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"its {_KERAS_CONFIG!r} is compressed, as Keras does not.")
                    layers = json.loads(archive.read(_KERAS_CONFIG))["config"]["layers"]
                    recorded = mapping.options_of(layer["config"] for layer in layers)
        if not isinstance(recorded, dict):
            raise TypeError("no names and values")
        known = {option: recorded[option] for option in _OPTIONS if option in recorded}
    except (
        *(LookupError, TypeError, AttributeError, RuntimeError),  # of JSON that is no Keras config
        *(zipfile.BadZipFile, EOFError, struct.error),
    ) as error:
        raise ValueError(f"what it says of its net makes no sense ({error}).") from error
    for option, value in known.items():
        if not _OPTIONS[option](value):
            raise ValueError(
                f"it says {option}={str(value)[:80]!r} of its net, which is no option."
            )
    return known


def read_safetensors(path: Path) -> dict[str, "_SafeTensor"]:
    """Read a `.safetensors` file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to array-like
        Read from the file whenever they are turned into arrays.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        file = safetensors.safe_open(path, framework="numpy")
        return {name: _SafeTensor(file, name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"it is no whole safetensors file ({error}).") from error


class _SafeTensor:
    """A tensor that is read anew each time: held, it would double what is mapped into memory."""

    def __init__(self, file, name):
        self._file, self._name = file, name
        part = file.get_slice(name)
        self.shape = tuple(part.get_shape())
        self.dtype = _SAFE_DTYPES.get(part.get_dtype(), np.dtype(object))

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._file.get_tensor(self._name), dtype)


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """Read the weights in a `.keras` file.

    Parameters
    ----------
    path : path
        The file: a ZIP archive with a `.weights.h5` in it.

    Returns
    -------
    dict of str to numpy.ndarray
        As `read_hdf5` returns them.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    archive = Archive(path)
    archive.check(_KERAS_WEIGHTS)
    start, size = archive.span(_KERAS_WEIGHTS)
    return _keras_names(hdf5.read(memoryview(archive.content)[start : start + size]))


def read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """Read a `.weights.h5` file, or the `.h5` of keras.applications and of Keras 2.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        By names such as "layers/conv2d_3/vars/0" from a `.weights.h5` file, which knows no names
        of layers, and "conv1_conv/kernel" from the others.

    Raises
    ------
    ValueError
        If the file is damaged, or if it leaves its tensors to other files.
    """
    return _keras_names(hdf5.read(memoryview(mapped(path))))


def _keras_names(tensors):
    """Without the folders that Keras 2 puts around names."""
    if any(name.startswith("layers/") for name in tensors):
        return {name: each for name, each in tensors.items() if name.startswith("layers/")}
    names = {}
    for name, tensor in tensors.items():
        if name.startswith(_NO_LAYERS):
            continue
        parts = name.removeprefix("model_weights/").split("/")
        names[f"{parts[0]}/{parts[-1].removesuffix(':0')}"] = tensor
    return names
