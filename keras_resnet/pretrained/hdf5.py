"""HDF5 files as Keras writes them, read without the HDF5 library.

Given a file from a stranger, the library can be made to overrun its stack, to take all memory or
never to end. Of the format, this reads what h5py writes unless it is asked for more: superblock 0
or 1, groups as symbol tables, tensors in one piece. Everything else is refused. The names of the
parts are those of the HDF5 File Format Specification, version 3.0.
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

# Types of the messages that an object header consists of.
_DATASPACE, _DATATYPE, _EXTERNAL_FILES, _LAYOUT, _FILTERS = 1, 3, 7, 8, 11
_LINK_INFO, _LINK, _CONTINUATION, _SYMBOL_TABLE = 2, 6, 16, 17

# ResNet-1202 has some 100,000 messages and names.
_MOST_PARTS = 1_000_000

_OTHER_KIND = "it is an HDF5 file of a kind that Keras does not write."


def read(content: Any) -> dict[str, np.ndarray]:
    """Read all tensors in an HDF5 file.

    Parameters
    ----------
    content : memoryview
        The bytes of the file.

    Returns
    -------
    dict of str to numpy.ndarray
        Views of `content` by their paths in the file, such as "layers/conv2d/vars/0".

    Raises
    ------
    ValueError
        If the file is damaged, or of another kind than Keras writes.

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
    try:
        tensors = _File(content).tensors()
    except (struct.error, LookupError, UnicodeDecodeError, OverflowError, TypeError) as error:
        raise ValueError("it is damaged, or not a whole HDF5 file.") from error
    if sum(tensor.nbytes for tensor in tensors.values()) > len(content):
        raise ValueError("it has the same numbers in several tensors.")
    return tensors


class _File:
    def __init__(self, content):
        self.content, self.parts = content, 0

    def unpack(self, form, at):
        """Numbers at a place; every part of the file is counted, so that no walk is endless."""
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise ValueError("it has far too many parts, or one that contains itself.")
        return struct.unpack_from(f"<{form}", self.content, at)

    def tensors(self):
        version, sizes = self.content[8], bytes(self.content[13:15])
        if bytes(self.content[:8]) != SIGNATURE or version > 1 or sizes != b"\x08\x08":
            raise ValueError(_OTHER_KIND)
        base, _, end, _, _, root = self.unpack("6Q", 24 if version == 0 else 28)
        if base or end > len(self.content):
            raise ValueError("it is not a whole HDF5 file.")
        tensors, objects, seen = {}, [("", root)], set()
        while objects:
            path, address = objects.pop()
            if address in seen:
                raise ValueError(f"its {path[:80]!r} is there under another name too.")
            seen.add(address)
            messages = self.messages(address)
            if _SYMBOL_TABLE in messages:
                objects += [
                    (f"{path}/{name}".lstrip("/"), child)
                    for name, child in self.symbols(messages[_SYMBOL_TABLE])
                ]
            elif _LAYOUT in messages:
                tensors[path] = self.tensor(path, messages)
            elif _LINK in messages or _LINK_INFO in messages:
                raise ValueError(_OTHER_KIND)
        return tensors

    def messages(self, address):
        """Where the messages of an object are, by their types."""
        version, count, size = self.unpack("BxHxxxxI", address)
        if version != 1:
            raise ValueError(_OTHER_KIND)
        messages, blocks = {}, [(address + 16, size)]
        while blocks:
            start, size = blocks.pop(0)
            end = start + size
            while start + 8 <= end and count > 0:
                kind, length, flags = self.unpack("HHB", start)
                count -= 1
                if kind == _CONTINUATION:
                    blocks.append(self.unpack("QQ", start + 8))
                elif flags & 2 and kind in (_DATASPACE, _DATATYPE, _LAYOUT):
                    raise ValueError("it shares descriptions among tensors, as Keras does not.")
                else:
                    messages.setdefault(kind, start + 8)
                start += 8 + length
        return messages

    def symbols(self, message) -> Iterator[tuple[str, int]]:
        """Names and addresses of the objects in a group."""
        tree, heap = self.unpack("QQ", message)
        signature, length, names = self.unpack("4s4xQ8xQ", heap)
        if signature != b"HEAP":
            raise ValueError("it is damaged: a group has no names.")
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
                        raise ValueError("it has a link: tensors must be in the file itself.")
                    name = bytes(self.content[names + offset : names + min(offset + 1024, length)])
                    yield name.partition(b"\0")[0].decode(), address
            else:
                raise ValueError("it is damaged: a group is not where it should be.")

    def tensor(self, path, messages):
        if _FILTERS in messages or _EXTERNAL_FILES in messages:
            raise ValueError(f"its {path!r} is not stored in one piece, as Keras does.")
        shape = self.shape(messages[_DATASPACE])
        dtype = self.dtype(messages[_DATATYPE])
        if dtype is None:
            raise ValueError(f"its {path!r} holds no numbers.")
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
            raise ValueError(f"its {path!r} is not stored in one piece, as Keras does.")
        if not wanted:
            return np.zeros(shape, dtype)
        if size != wanted or address + size > len(self.content):
            raise ValueError(f"its {path!r} is not whole: the file lacks its numbers.")
        return np.ndarray(shape, dtype, self.content, address)

    def shape(self, start):
        version, rank, _, kind = self.unpack("4B", start)
        if version == 1:
            return self.unpack(f"{rank}Q", start + 8)
        if version == 2 and kind < 2:
            return self.unpack(f"{rank}Q", start + 4)
        raise ValueError("it has a tensor without a shape.")

    def dtype(self, start):
        """The type of numbers in NumPy; None where they are none."""
        kind, *bits, size = self.unpack("4BI", start)
        order = "<>"[bits[0] & 1]
        if kind & 15 == 0 and size in (1, 2, 4, 8):
            return np.dtype(f"{order}{'ui'[bits[0] >> 3 & 1]}{size}")
        if kind & 15 == 1 and size in (2, 4, 8) and bits[0] in (0x20, 0x21):
            dtype = np.dtype(f"{order}f{size}")
            info = np.finfo(dtype)
            # Of IEEE's numbers: offset, precision, and where exponent and mantissa are.
            ieee = (0, 8 * size, info.nmant, info.nexp, 0, info.nmant, 2 ** (info.nexp - 1) - 1)
            if bits[1] == 8 * size - 1 and self.unpack("HHBBBBI", start + 8) == ieee:
                return dtype
        if kind & 15 == 5 and size == 2:  # opaque, which is what Keras makes of bfloat16
            return np.dtype(ml_dtypes.bfloat16)
        return None
