"""Files of weights, recognized by what is in them: one function for each kind.

Tensors come by the names that they have in the file. Nothing in a file is ever run, and no tensor
can claim more memory than the file has bytes.
"""

import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import safetensors

from keras_resnet.pretrained.archive import Archive, mapped
from keras_resnet.pretrained.pytorch import is_tar, read_archive, read_pytorch

_HEAP = struct.Struct("<8xQQQ")  # length, first free block, address of the names

_HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file begins

# ResNet-1202 has some 15,000 groups and tensors, and names are five deep at most.
_MOST_NAMES, _DEEPEST = 50_000, 10

_KERAS_WEIGHTS = "model.weights.h5"  # a member of every .keras file

# The floating-point types of safetensors; the others hold no weights.
_SAFE_DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

# Groups of a Keras file that hold no weights of layers.
_NO_LAYERS = ("optimizer", "optimizer_weights")


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
    if start.startswith(_HDF5):
        return read_hdf5(path)
    if start.startswith(b"\x80") or is_tar(start):  # a pickle, or PyTorch's oldest format
        return read_pytorch(path)
    if start.startswith(b"PK"):
        archive = Archive(path)
        return read_keras(path) if _KERAS_WEIGHTS in archive.names() else read_archive(archive)
    if start[8:9] == b"{":
        return read_safetensors(path)
    raise ValueError(
        "it is none of PyTorch's checkpoints (.pth, .th), .safetensors, .h5, .weights.h5, .keras."
    )


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
        self.dtype = _SAFE_DTYPES.get(part.get_dtype(), np.dtype("int64"))

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
    _check_heaps(archive.content, start, size)
    with zipfile.ZipFile(path) as unzipped, unzipped.open(_KERAS_WEIGHTS) as file:
        return _read_hdf5(file)


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
    content = mapped(path)
    _check_heaps(content, 0, len(content))
    return _read_hdf5(path)


def _read_hdf5(file):
    try:
        with h5py.File(file, "r") as hdf5:
            return _keras_names(dict(_datasets(hdf5, hdf5.id.get_filesize())))
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(f"it is no whole HDF5 file ({error}).") from error


def _check_heaps(content: mmap.mmap, base: int, size: int) -> None:
    """Refuse an HDF5 file on which the HDF5 library would never come to an end.

    A group keeps the names in it in a heap, the free blocks of which are chained by their offsets.
    The library follows the chain for as long as there is one, and takes memory at every step.
    """
    steps, end, heap = 0, base + size, content.find(b"HEAP\0", base, base + size)
    while heap >= 0 and heap + _HEAP.size <= end:
        length, block, start = _HEAP.unpack_from(content, heap)
        while block + 8 <= length and base + start + block + 8 <= end:
            steps += 1
            if 16 * steps > size:  # more free blocks than there is room for
                raise ValueError("it is damaged: the free blocks of a heap go round in a circle.")
            (block,) = struct.unpack_from("<Q", content, base + start + block)
        heap = content.find(b"HEAP\0", heap + 1, end)


def _keras_names(tensors):
    """Without the folders that Keras 2 puts around names."""
    if any(name.startswith("layers/") for name in tensors):
        return {name: each for name, each in tensors.items() if name.startswith("layers/")}
    names = {}
    for name, tensor in tensors.items():
        parts = name.removeprefix("model_weights/").split("/")
        names[f"{parts[0]}/{parts[-1].removesuffix(':0')}"] = tensor
    return names


def _datasets(hdf5: h5py.File, room: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of an HDF5 file by its path, all of them together no larger than `room`."""
    groups, count = [hdf5], 0
    while groups:
        group = groups.pop()
        for key in group:
            count += 1
            name = f"{group.name}/{key}".lstrip("/")
            if count > _MOST_NAMES or name.count("/") > _DEEPEST:
                raise ValueError("it has far too many groups, or one that contains itself.")
            if name in _NO_LAYERS:
                continue
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"its {name!r} is a link: all tensors must be in the file itself.")
            node = group[key]
            if isinstance(node, h5py.Group):
                groups.append(node)
                continue
            if not isinstance(node, h5py.Dataset) or node.external or node.chunks:
                raise ValueError(f"its {name!r} is not stored in one piece, as Keras does.")
            room -= node.nbytes
            if room < 0 or node.id.get_storage_size() != node.nbytes:
                raise ValueError(f"its {name!r} is not whole: the file lacks its numbers.")
            array = node[()]
            # HDF5 has no bfloat16: two bytes of no type, as Keras writes it. Its attribute that
            # says so is passed over, for on damaged attributes HDF5 loops for ever.
            yield name, array.view(ml_dtypes.bfloat16) if array.dtype == "V2" else array
