"""A reader for checkpoints of PyTorch and detectron2, without running anything in them.

There are three formats, which torch/serialization.py describes. Since PyTorch 1.6, a checkpoint is
a ZIP archive with a pickle in `data.pkl` and one member of numbers per storage. Before that, it was
five pickles in a row, followed by the numbers. Before 0.1.10, when torchvision published its first
files, it was a TAR archive with four members. detectron2's `.pkl` is one pickle of NumPy arrays.
"""

import io
import logging
import mmap
import re
import struct
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.names import some
from keras_resnet.pretrained.archive import Archive, mapped
from keras_resnet.pretrained.unpickle import (
    Array,
    Foreign,
    Parameter,
    Storage,
    StorageFinder,
    Tensor,
    dtype_of,
    expect,
    interpret,
    tensor_of,
)

logger = logging.getLogger("keras_resnet")

# The first pickle of the second format.
_MAGIC = 0x1950A86A20F9469CFC6C

# What a checkpoint has beside models under names that begin like this: their tensors are none of a
# model that was trained.
_NO_MODELS = ("optim", "lr_sched", "sched", "hyper_parameters", "hparams")

# Where a pickled `nn.Module` has its tensors, which a state dict has under the names of modules.
_OF_MODULES = ("_parameters", "_buffers", "_modules")

# No name of a model's tensor is longer; in a hostile file, names of names can be.
_LONGEST = 500

# The key under which Detectron, before detectron2, put all tensors of a detector.
_CAFFE2 = "blobs"


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict in a PyTorch checkpoint, or in a pickle of NumPy arrays.

    Parameters
    ----------
    path : path
        The file: a state dict, a dict in which there are such at any depth, or a whole
        `nn.Module`. Objects of other classes are skipped, and never made.

    Returns
    -------
    dict of str to numpy.ndarray
        In PyTorch's layout; read-only. Views of the memory-mapped file if it is PyTorch's. If the
        file has several state dicts, names begin with the place of each: "teacher.conv1.weight".
        Those of optimizers are left out.

    Raises
    ------
    ValueError
        If the file is damaged or has no tensors, if there is anything but tensors in a state dict,
        or if it names functions that run programs.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        return read_archive(Archive(path))
    return _read_before_0_1_10(path) if is_tar(start) else _read_before_1_6(path)


def is_tar(start: bytes) -> bool:
    """Return whether a file with these first 512 bytes is a TAR archive."""
    return start[257:262] == b"ustar"


def read_archive(archive: Archive) -> dict[str, np.ndarray]:
    """Read the ZIP format: `read_pytorch` for an open archive.

    Parameters
    ----------
    archive : Archive
        The open file.

    Returns
    -------
    dict of str to numpy.ndarray
        As from `read_pytorch`.

    Raises
    ------
    ValueError
        As `read_pytorch`.
    """
    pickles = [name for name in archive.names() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("the ZIP archive does not contain a PyTorch checkpoint.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.names():
        raise ValueError("the file is a TorchScript program; save model.state_dict() instead.")
    content = memoryview(archive.content)
    if f"{root}byteorder" in archive.names():
        start, size = archive.span(f"{root}byteorder")
        if content[start : start + size] != b"little":
            raise ValueError("the file is from a big-endian machine, which is not supported.")
    archive.check(pickles[0])
    start, size = archive.span(pickles[0])
    pickle = io.BytesIO(content[start : start + size])
    tensors = _state_dict(interpret(pickle, StorageFinder()))

    offsets = {}
    storages = {
        tensor.storage.key: tensor.storage
        for tensor in tensors.values()
        if isinstance(tensor, Tensor)
    }
    for key, storage in storages.items():
        offsets[key], size = archive.span(f"{root}data/{key}")
        if size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"storage {key[:80]!r} has {size} bytes, not the size it declares.")
    archive.check(*(f"{root}data/{key}" for key in storages))
    return _arrays(tensors, archive.content, offsets)


def _read_before_1_6(path):
    """Read the second format: magic number, version, machine, checkpoint, keys, numbers."""
    content = mapped(path)
    first = interpret(content)
    if isinstance(first, dict):  # a pickle of arrays, and nothing else
        return _arrays(_state_dict(first), content, {})
    if first != _MAGIC:
        raise ValueError("the file is a pickle, but not a PyTorch checkpoint.")
    version, machine = interpret(content), interpret(content)
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("the file is from an unsupported version or machine.")
    find = StorageFinder()
    tensors = _state_dict(interpret(content, find))
    keys = interpret(content)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the file is damaged: no list of storages after the tensors.")
    if {*keys} != find.storages.keys():
        raise ValueError("the file is damaged: its list of storages does not match its tensors.")
    offsets = {key: _skip_storage(content, find.storages[key]) for key in keys}
    return _arrays(tensors, content, offsets)


def _read_before_0_1_10(path):
    """Read the first format: a TAR archive of storages, tensors and a pickle that uses them."""
    content = mapped(path)
    spans = _tar_members(content)
    if not spans.keys() >= {"sys_info", "storages", "tensors", "pickle"}:
        raise ValueError("the TAR archive does not contain a PyTorch checkpoint.")
    try:
        content.seek(spans["sys_info"][0])
        if expect(dict, interpret(content)).get("little_endian") is not True:
            raise ValueError("the file is from a big-endian machine, which is not supported.")

        content.seek(spans["storages"][0])
        storages, offsets = {}, {}
        for _ in range(expect(int, interpret(content))):
            key, _, kind = expect(tuple, interpret(content))
            (count,) = _numbers(content, 1)
            content.seek(-8, io.SEEK_CUR)
            key = str(expect(int, key))
            storages[key] = Storage(key, dtype_of(kind), count)
            offsets[key] = _skip_storage(content, storages[key])

        content.seek(spans["tensors"][0])
        described = {}
        for _ in range(expect(int, interpret(content))):
            key, storage, _ = expect(tuple, interpret(content))
            (dimensions,) = struct.unpack("<i4x", content.read(8))
            shape, strides = _numbers(content, dimensions), _numbers(content, dimensions)
            (offset,) = _numbers(content, 1)
            storage = storages[str(expect(int, storage))]
            described[str(expect(int, key))] = tensor_of(storage, offset, shape, strides)

        content.seek(spans["pickle"][0])
        checkpoint = interpret(content, lambda key: described[str(expect((int, str), key))])
    except (struct.error, TypeError, KeyError) as error:
        raise ValueError("the file is damaged: its contents are invalid.") from error
    return _arrays(_state_dict(checkpoint), content, offsets)


def _tar_members(content):
    """Return the offset and the number of bytes of each member of a TAR archive."""
    # Not with Python's `tarfile`, which follows headers of headers until it overflows its stack.
    members, start = {}, 0
    while start + 512 <= len(content) and content[start]:
        name = content[start : start + 100].rstrip(b"\0").decode("latin-1")
        digits = content[start + 124 : start + 136].strip(b" \0")
        if not re.fullmatch(rb"[0-7]+", digits) or start + 512 + int(digits, 8) > len(content):
            raise ValueError("the TAR archive is incomplete or damaged.")
        members.setdefault(name, (start + 512, int(digits, 8)))
        start += 512 + -(-int(digits, 8) // 512) * 512
    return members


def _numbers(content, count):
    """Read 64-bit integers."""
    return struct.unpack(f"<{count}q", content.read(8 * count))


def _skip_storage(content: mmap.mmap, storage: Storage) -> int:
    """Return the offset of a storage's numbers, which follow their count, and seek past them."""
    if int.from_bytes(content.read(8), "little") != storage.count:
        raise ValueError(f"the file is damaged or incomplete: storage {storage.key!r} is missing.")
    offset = content.tell()
    end = offset + storage.count * storage.dtype.itemsize
    if end > len(content):
        raise ValueError(f"the file is incomplete: it ends within storage {storage.key!r}.")
    content.seek(end)
    return offset


def _state_dict(checkpoint: Any) -> dict[str, Tensor | np.ndarray]:
    """Find the arrays and the descriptions of tensors in a checkpoint."""
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get(_CAFFE2), dict):
        raise ValueError(
            "the file is from Detectron 1 (Caffe2), whose models differ in more than names. Use "
            "detectron2's model of the same name."
        )
    groups, foreign = _groups(checkpoint)
    # Beside a model, there may be scalars and vectors of another kind, such as the best accuracy.
    most = max(map(_rank, groups.values()), default=0)
    groups = {place: group for place, group in groups.items() if _rank(group) == most}
    if not groups:
        for each in foreign:
            raise each.refusal()
        raise ValueError("the file has no state dict: it contains no named tensors.")
    if foreign:
        kinds = sorted({each.name for each in foreign})
        logger.info("Skipped what is no tensor, and did not run it: %s.", some(kinds))
    if len(groups) == 1:
        return next(iter(groups.values()))
    tensors = {}
    for place, group in groups.items():
        for name, tensor in group.items():
            full = f"{place}.{name[:_LONGEST]}".lstrip(".")
            if tensors.setdefault(full, tensor) is not tensor:
                raise ValueError(f"the file has two tensors called {full[:80]!r}.")
    return tensors


def _rank(group):
    """The most axes of a tensor in a group; more than two do not matter."""
    return max(min(len(tensor.shape), 2) for tensor in group.values())


def _groups(checkpoint):
    """Find the state dicts in a checkpoint by their places, and objects of unknown classes."""
    groups, foreign, seen = {}, [], set()
    waiting = deque([("", checkpoint)])
    while waiting:
        place, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if not _holds(value):
            foreign += [value] if isinstance(value, Foreign) else []
            continue
        items = {name: _unwrapped(each) for name, each in _items(value).items()}
        tensors = {n: each for n, each in items.items() if isinstance(each, Tensor | np.ndarray)}
        others = {n: each for n, each in items.items() if isinstance(each, dict | Foreign)}
        if tensors:
            if groups.setdefault(place, tensors) is not tensors:
                raise ValueError(f"the file has two state dicts in {place[:80]!r}.")
            if not any(map(_holds, others.values())):
                # Among the tensors of a state dict there is nothing else.
                for each in others.values():
                    if isinstance(each, Foreign):
                        raise each.refusal()
        waiting.extend(
            (f"{place}.{name}".lstrip("."), each)
            for name, each in others.items()
            if not name.startswith(_NO_MODELS) and len(place) + len(name) < _LONGEST
        )
    return groups, foreign


def _holds(value):
    """Whether this is a dict, of whatever class, or a module."""
    return isinstance(value, dict) or _is_module(value) or bool(getattr(value, "items", None))


def _items(value: Any) -> dict:
    """What a dict holds, or the state dict of a module."""
    if isinstance(value, Foreign):
        return _state_of(value) if _is_module(value) else value.items or {}
    return value


def _unwrapped(value):
    """The tensor or array in what a pickle has around it."""
    if isinstance(value, Parameter):
        return value.tensor
    return value.value if isinstance(value, Array) else value


def _is_module(value):
    """Whether this was an `nn.Module`."""
    state = value.state if isinstance(value, Foreign) else None
    return isinstance(state, dict) and all(isinstance(state.get(n), dict) for n in _OF_MODULES)


def _state_of(module):
    """Make the state dict of a pickled module."""
    state, waiting, seen = {}, deque([("", module)]), set()
    while waiting:
        place, value = waiting.popleft()
        if id(value) in seen or not _is_module(value):  # None, or the same module once more
            continue
        seen.add(id(value))
        parameters, buffers, modules = (value.state[each] for each in _OF_MODULES)
        state |= {
            f"{place}{name[:_LONGEST]}": each for name, each in (parameters | buffers).items()
        }
        waiting.extend(
            (f"{place}{name}.", each)
            for name, each in modules.items()
            if len(place) + len(name) < _LONGEST
        )
    return state


def _arrays(tensors, content, offsets):
    """Make views of the file from tensor descriptions and the offsets of their storages."""
    arrays = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            arrays[name] = tensor
            continue
        storage, bytes_each = tensor.storage, tensor.storage.dtype.itemsize
        steps = zip(tensor.shape, tensor.strides, strict=True)
        last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
        if 0 not in tensor.shape and last >= storage.count:
            raise ValueError(f"the file is damaged: tensor {name[:80]!r} exceeds its storage.")
        start = offsets[storage.key] + tensor.offset * bytes_each
        strides = [stride * bytes_each for stride in tensor.strides]
        try:
            arrays[name] = np.ndarray(tensor.shape, storage.dtype, content, start, strides)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"the file is damaged: invalid tensor {name[:80]!r}.") from error
    return arrays
