"""A reader for the HDF5 files that Keras writes, without the HDF5 library.

An untrusted file can make the library overflow its stack, use up all memory or loop forever. This
reads what h5py writes by default: superblock 0 or 1, groups as symbol tables, contiguous tensors.
It rejects everything else. Terms are those of the HDF5 File Format Specification, version 3.0.
"""

import contextlib
import math
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file."""

# Types of messages in an object header.
_DATASPACE, _DATATYPE, _EXTERNAL_FILES, _LAYOUT, _FILTERS = 1, 3, 7, 8, 11
_LINK_INFO, _LINK, _ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 2, 6, 12, 16, 17

# ResNet-1202 has about 100,000 messages and names.
_MOST_PARTS = 1_000_000

_LONGEST_TEXT = 1000  # bytes

_UNSUPPORTED = "the HDF5 file uses features that Keras does not write."


def read(content: Any) -> dict[str, np.ndarray]:
    """Read all tensors in an HDF5 file.

    Parameters
    ----------
    content : memoryview
        The bytes of the file.

    Returns
    -------
    dict of str to numpy.ndarray
        Views of `content`, by paths in the file such as "layers/conv2d/vars/0".

    Raises
    ------
    ValueError
        If the file is damaged, or uses HDF5 features that Keras does not write.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> from keras_resnet.pretrained import hdf5
    >>> with tempfile.NamedTemporaryFile(suffix=".h5") as file:
    ...     with h5py.File(file.name, "w") as written:
    ...         written["layers/dense/vars/1"] = [0.5, 1.5]
    ...     hdf5.read(memoryview(file.read()))
    {'layers/dense/vars/1': array([0.5, 1.5])}
    """
    with _errors_of_damage():
        tensors = _File(content).tensors()
    if sum(tensor.nbytes for tensor in tensors.values()) > len(content):
        raise ValueError("the HDF5 file has tensors that share their data.")
    return tensors


def notes(content: Any, name: str) -> list[str]:
    """Read the texts of an attribute, of all groups that have it.

    Parameters
    ----------
    content : memoryview
        The bytes of the file.
    name : str
        Name of the attribute. Others are not looked at.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        As `read` does.
    """
    with _errors_of_damage():
        return _File(content).notes(name.encode())


@contextlib.contextmanager
def _errors_of_damage():
    """Turn what happens when a damaged file is read into a ValueError that says so."""
    try:
        yield
    except (struct.error, LookupError, UnicodeDecodeError, OverflowError, TypeError) as error:
        raise ValueError("the HDF5 file is damaged or incomplete.") from error


class _File:
    """An HDF5 file in memory."""

    def __init__(self, content):
        self.content, self.parts = content, 0

    def unpack(self, form, at):
        """Unpack numbers at an offset; limits the number of calls, so that no loop is endless."""
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise ValueError("the HDF5 file has too many parts, or one that contains itself.")
        return struct.unpack_from(f"<{form}", self.content, at)

    def tensors(self):
        """Read all tensors, by path."""
        return {
            path: self.tensor(path, messages)
            for path, messages in self.objects()
            if _SYMBOL_TABLE not in messages and _LAYOUT in messages
        }

    def notes(self, name):
        """Read the texts of an attribute, of all groups that have it."""
        attributes = (each for _, messages in self.objects() for each in messages[_ATTRIBUTE])
        return [text for each in attributes if (text := self.text(each, name)) is not None]

    def objects(self) -> Iterator[tuple[str, dict]]:
        """Walk through all groups and tensors: their paths and messages."""
        version, sizes = self.content[8], bytes(self.content[13:15])
        if bytes(self.content[:8]) != SIGNATURE or version > 1 or sizes != b"\x08\x08":
            raise ValueError(_UNSUPPORTED)
        base, _, end, _, _, root = self.unpack("6Q", 24 if version == 0 else 28)
        if base or end > len(self.content):
            raise ValueError("the HDF5 file is incomplete.")
        objects, seen = [("", root)], set()
        while objects:
            path, address = objects.pop()
            if address in seen:
                raise ValueError(f"the HDF5 file has {path[:80]!r} under another name, too.")
            seen.add(address)
            messages = self.messages(address)
            if _SYMBOL_TABLE in messages:
                objects += [
                    (f"{path}/{name}".lstrip("/"), child)
                    for name, child in self.symbols(messages[_SYMBOL_TABLE])
                ]
            elif _LAYOUT not in messages and (_LINK in messages or _LINK_INFO in messages):
                raise ValueError(_UNSUPPORTED)
            yield path, messages

    def messages(self, address):
        """Return the offsets of an object's messages, by type."""
        version, count, size = self.unpack("BxHxxxxI", address)
        if version != 1:
            raise ValueError(_UNSUPPORTED)
        messages: dict[int, Any] = {_ATTRIBUTE: []}
        blocks = [(address + 16, size)]
        while blocks:
            start, size = blocks.pop(0)
            end = start + size
            while start + 8 <= end and count > 0:
                kind, length, flags = self.unpack("HHB", start)
                count -= 1
                if kind == _CONTINUATION:
                    blocks.append(self.unpack("QQ", start + 8))
                elif flags & 2 and kind in (_DATASPACE, _DATATYPE, _LAYOUT):
                    raise ValueError("the HDF5 file has tensors that share a description.")
                elif kind == _ATTRIBUTE:
                    messages[kind].append(start + 8)
                else:
                    messages.setdefault(kind, start + 8)
                start += 8 + length
        return messages

    def symbols(self, message) -> Iterator[tuple[str, int]]:
        """Yield the names and addresses of the objects in a group."""
        tree, heap = self.unpack("QQ", message)
        signature, length, names = self.unpack("4s4xQ8xQ", heap)
        if signature != b"HEAP":
            raise ValueError("the HDF5 file is damaged: a group has no names.")
        nodes = [tree]
        while nodes:
            node = nodes.pop()
            signature, kind, used = self.unpack("4sBxH", node)
            if signature == b"TREE" and kind == 0:
                nodes += self.unpack("8xQ" * used, node + 24)
            elif signature == b"SNOD":
                for index in range(used):
                    offset, address, cached = self.unpack("QQI", node + 8 + 40 * index)
                    if cached == 2 or offset >= length:
                        raise ValueError("the HDF5 file contains a link, which is not supported.")
                    name = bytes(self.content[names + offset : names + min(offset + 1024, length)])
                    yield name.partition(b"\0")[0].decode(), address
            else:
                raise ValueError("the HDF5 file is damaged: a group is not where it should be.")

    def tensor(self, path, messages):
        """Read one tensor from the messages that describe it."""
        if _FILTERS in messages or _EXTERNAL_FILES in messages:
            raise ValueError(f"tensor {path!r} is not contiguous, as Keras stores them.")
        shape = self.shape(messages[_DATASPACE])
        dtype = self.dtype(messages[_DATATYPE])
        if dtype is None:
            raise ValueError(f"tensor {path!r} does not contain numbers.")
        wanted = math.prod(shape) * dtype.itemsize
        start = messages[_LAYOUT]
        version, kind = self.unpack("BB", start)
        if version == 3 and kind == 1:  # contiguous
            address, size = self.unpack("QQ", start + 2)
        elif version == 3 and kind == 0:  # compact: within the message
            address, (size,) = start + 4, self.unpack("H", start + 2)
        elif version in (1, 2) and self.content[start + 2] == 1:  # contiguous, before HDF5 1.6.3
            (address,), size = self.unpack("Q", start + 8), wanted
        else:
            raise ValueError(f"tensor {path!r} is not contiguous, as Keras stores them.")
        if not wanted:
            return np.zeros(shape, dtype)
        if size != wanted or address + size > len(self.content):
            raise ValueError(f"tensor {path!r} is incomplete: its data are missing from the file.")
        return np.ndarray(shape, dtype, self.content, address)

    def text(self, start, wanted):
        """Read an attribute of this name that is a text of fixed length; None for any other."""
        version, *sizes = self.unpack("BxHHH", start)
        if version != 1:
            return None
        starts = [start + 8]
        for size in sizes:
            starts.append(starts[-1] + -(-size // 8) * 8)
        name, datatype, _, data = starts
        if bytes(self.content[name : name + sizes[0]]).rstrip(b"\0") != wanted:
            return None
        kind, size = self.unpack("B3xI", datatype)
        if kind & 15 != 3 or size > _LONGEST_TEXT:
            raise ValueError(f"the HDF5 file is damaged: {wanted.decode()!r} is not text.")
        return bytes(self.content[data : data + size]).rstrip(b"\0").decode()

    def shape(self, start):
        """Read the shape of a tensor."""
        version, rank, _, kind = self.unpack("4B", start)
        if version == 1:
            return self.unpack(f"{rank}Q", start + 8)
        if version == 2 and kind < 2:
            return self.unpack(f"{rank}Q", start + 4)
        raise ValueError("the HDF5 file has a tensor without a shape.")

    def dtype(self, start):
        """Read a NumPy data type; None if it is not a type of numbers."""
        kind, *bits, size = self.unpack("4BI", start)
        order = "<>"[bits[0] & 1]
        if kind & 15 == 0 and size in (1, 2, 4, 8):
            return np.dtype(f"{order}{'ui'[bits[0] >> 3 & 1]}{size}")
        if kind & 15 == 1 and size in (2, 4, 8) and bits[0] in (0x20, 0x21):
            dtype = np.dtype(f"{order}f{size}")
            info = np.finfo(dtype)
            # For IEEE numbers: bit offset, precision, then place and size of exponent and mantissa.
            ieee = (0, 8 * size, info.nmant, info.nexp, 0, info.nmant, 2 ** (info.nexp - 1) - 1)
            if bits[1] == 8 * size - 1 and self.unpack("HHBBBBI", start + 8) == ieee:
                return dtype
        if kind & 15 == 5 and size == 2:  # opaque: Keras stores bfloat16 like this
            return np.dtype(ml_dtypes.bfloat16)
        return None
