"""Readers for weights files, one per format; `read` detects the format from the contents.

Tensors keep their names from the file. No code in a file ever runs, and no tensor can take more
memory than the size of the file.
"""

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import safetensors

from keras_resnet.blocks import SHORTCUTS, STRIDE_PLACES, AntiAliasing, StrideBlock
from keras_resnet.checks import is_count, is_within
from keras_resnet.layers import NORMALIZATIONS, notes
from keras_resnet.layers.view import INTERPOLATIONS
from keras_resnet.pretrained import hdf5, needs
from keras_resnet.pretrained.archive import Archive, mapped
from keras_resnet.pretrained.pytorch import is_tar, read_archive, read_pytorch
from keras_resnet.resnet import STEMS

# Members of every .keras file.
_KERAS_WEIGHTS, _KERAS_CONFIG = "model.weights.h5", "config.json"

# Options of the original model that a file may record, with checks of their values.
_OPTIONS = {
    "stride_in": lambda place: place in STRIDE_PLACES,
    "shortcut": lambda kind: kind in SHORTCUTS,
    "anti_aliasing": lambda kind: kind in get_args(AntiAliasing),
    "stem": lambda kind: kind in (*STEMS,),
    "stride_block": lambda place: place in get_args(StrideBlock),
    "weight_standardization": lambda value: isinstance(value, bool),
    "output_stride": is_count,
    "preprocessing": lambda mode: mode in (*NORMALIZATIONS,),
    "crop": lambda fraction: isinstance(fraction, int | float) and 0 < fraction <= 1,
    "image_size": lambda size: (
        isinstance(size, list) and len(size) == 2 and all(map(is_count, size))
    ),
    "interpolation": lambda kind: kind in INTERPOLATIONS,
    # Of a detector.
    "anchors_rounded": lambda value: isinstance(value, bool),
    "roi_aligned": lambda value: isinstance(value, bool),
    "roi_sampling_ratio": lambda value: is_within("index", value),
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

# Groups in a Keras file that do not contain layer weights.
_NO_LAYERS = ("optimizer/", "optimizer_weights/")


def read(path: Path) -> Mapping[str, Any]:
    """Read a weights file of any supported format, whatever its name.

    Parameters
    ----------
    path : path
        A PyTorch checkpoint (`.pth` or `.th`, in any of its formats), a pickle of NumPy arrays
        (`.pkl`), `.safetensors`, an `.h5` file of keras.applications, `.weights.h5` or `.keras`.

    Returns
    -------
    mapping of str to array
        Each has `shape` and `dtype`, and `numpy.asarray` converts it to an array.

    Raises
    ------
    ValueError
        If the file is damaged, or has another format.

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
    if start[4:9] == bytes(4) + b"{":  # check this first: the first four bytes can have any value
        return read_safetensors(path)
    if start.startswith(hdf5.SIGNATURE):
        return read_hdf5(path)
    if start.startswith(b"\x80") or is_tar(start):  # a pickle, or PyTorch's oldest format
        return read_pytorch(path)
    if start.startswith(b"PK"):
        archive = Archive(path)
        return read_keras(path) if _KERAS_WEIGHTS in archive.names() else read_archive(archive)
    raise ValueError(
        "unknown format, none of PyTorch's checkpoints, detectron2's .pkl, .safetensors, .h5, "
        ".weights.h5 or .keras."
    )


def recorded_options(path: Path) -> dict[str, Any]:
    """Read the model options that a file records next to the weights.

    Parameters
    ----------
    path : path
        A file that `read` can read.

    Returns
    -------
    dict
        As from `needs.options_of`, for a `.keras` file, which contains the layers, or a
        `.safetensors` file from `to_torch`. A `.weights.h5` file has the preprocessing and what
        the model is shown. Empty for other files.

    Raises
    ------
    ValueError
        If the recorded options are invalid.
    """
    with open(path, "rb") as file:
        start = file.read(9)
    recorded = {}
    try:
        if start[4:9] == bytes(4) + b"{":
            metadata = safetensors.safe_open(path, framework="numpy").metadata() or {}
            recorded = json.loads(metadata.get("keras_resnet", "{}"))
        elif start.startswith(hdf5.SIGNATURE):
            for note in hdf5.notes(memoryview(mapped(path)), notes.NAME):
                recorded |= json.loads(note)
        elif start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                if _KERAS_CONFIG in archive.namelist():
                    if archive.getinfo(_KERAS_CONFIG).compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"{_KERAS_CONFIG!r} is compressed; Keras stores it as is.")
                    layers = json.loads(archive.read(_KERAS_CONFIG))["config"]["layers"]
                    configs = [*_flat_configs(layers)]
                    recorded = needs.options_of(configs)
                    for config in configs:  # a detector's layers have its options
                        recorded |= config.get("options") or {}
        if not isinstance(recorded, dict):
            raise TypeError("expected names and values")
        known = {option: recorded[option] for option in _OPTIONS if option in recorded}
    except (
        *(LookupError, TypeError, AttributeError, RuntimeError),  # JSON that is not a Keras config
        *(zipfile.BadZipFile, EOFError, struct.error),
    ) as error:
        raise ValueError(
            f"the model options recorded in the file are invalid ({error})."
        ) from error
    for option, value in known.items():
        if not _OPTIONS[option](value):
            raise ValueError(
                f"the file records the model option {option}={str(value)[:80]!r}, which is invalid."
            )
    return known


def _flat_configs(layers):
    """Yield the configs of layers and, in their place, those of layers of models among them."""
    for layer in layers:
        config = layer["config"]
        yield config
        yield from _flat_configs(config.get("layers") or [])


def read_safetensors(path: Path) -> dict[str, "_SafeTensor"]:
    """Read a `.safetensors` file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to array-like
        Read from the file each time they are converted to arrays.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        file = safetensors.safe_open(path, framework="numpy")
        return {name: _SafeTensor(file, name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"the safetensors file is incomplete or damaged ({error}).") from error


class _SafeTensor:
    """A tensor that is read on every access; caching it would double the memory of the file."""

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
        The file: a ZIP archive that contains a `.weights.h5` file.

    Returns
    -------
    dict of str to numpy.ndarray
        As from `read_hdf5`.

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
    """Read a `.weights.h5` file, or an `.h5` file of keras.applications or Keras 2.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        Named like "layers/conv2d_3/vars/0" for a `.weights.h5` file, which does not store the
        names of layers, and "conv1_conv/kernel" for the others.

    Raises
    ------
    ValueError
        If the file is damaged, or stores its tensors in other files.
    """
    return _keras_names(hdf5.read(memoryview(mapped(path))))


def _keras_names(tensors):
    """Remove the groups that Keras 2 puts around names, and tensors of optimizers."""
    if any(name.startswith("layers/") for name in tensors):
        return {name: each for name, each in tensors.items() if name.startswith("layers/")}
    names = {}
    for name, tensor in tensors.items():
        if name.startswith(_NO_LAYERS):
            continue
        parts = name.removeprefix("model_weights/").split("/")
        names[f"{parts[0]}/{parts[-1].removesuffix(':0')}"] = tensor
    return names
