"""PyTorch's checkpoint files, read without PyTorch and without running anything in them.

A checkpoint is a pickle, and a pickle is a program: unpickling one from a stranger runs whatever
they want. Here `pickletools` only takes the program apart; what is carried out are the few
instructions that a state dict consists of, and they can make nothing but containers, numbers,
strings and descriptions of tensors.

Both file formats are described by torch/serialization.py: since PyTorch 1.6 a ZIP archive with the
pickle in `data.pkl` and the numbers in one member for each storage; before, five pickles in a row
with the numbers behind them.
"""

import dataclasses
import io
import pickletools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_resnet.pretrained.archive import Archive, mapped

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of PyTorch's format before 1.6 begins: a pickled number, 0x1950a86a20f9469cfc6c."""

STORAGES = {
    "torch.DoubleStorage": np.dtype("float64"),
    "torch.FloatStorage": np.dtype("float32"),
    "torch.HalfStorage": np.dtype("float16"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("int64"),
    "torch.IntStorage": np.dtype("int32"),
    "torch.ShortStorage": np.dtype("int16"),
    "torch.CharStorage": np.dtype("int8"),
    "torch.ByteStorage": np.dtype("uint8"),
    "torch.BoolStorage": np.dtype("bool"),
}

# What else a pickle of a state dict may name.
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_ALLOWED = {_ORDERED_DICT, *_REBUILD_TENSOR, _REBUILD_PARAMETER, *STORAGES}

# Under which names training scripts put a state dict into a larger checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model")

# ResNet-1202 with the state of its optimizer takes some 400,000.
_MOST_INSTRUCTIONS = 5_000_000


_record = dataclasses.dataclass(frozen=True, slots=True)


@_record
class _Global:
    name: str


@_record
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@_record
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Read the state dict in a PyTorch checkpoint, of either file format.

    Parameters
    ----------
    path : path
        The file: a state dict, or a dict that holds one as "state_dict", "model_state_dict" or
        "model".

    Returns
    -------
    dict of str to numpy.ndarray
        In PyTorch's layout; read-only views of the file, mapped into memory.

    Raises
    ------
    ValueError
        If the file is damaged, or asks for anything that a state dict does not need.

    Examples
    --------
    >>> import os, pickle, tempfile
    >>> from keras_resnet.pretrained import pytorch
    >>> class Malicious:
    ...     def __reduce__(self):
    ...         return os.system, ("echo never printed",)
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(pytorch.MAGIC + pickle.dumps(Malicious()))
    ...     file.flush()
    ...     pytorch.read_pytorch(file.name)
    Traceback (most recent call last):
        ...
    ValueError: it asks for 'posix.system', which a state dict does not need: nothing of it was run.
    """
    with open(path, "rb") as file:
        legacy = file.read(len(MAGIC)) == MAGIC
    return _read_before_1_6(path) if legacy else read_archive(Archive(path))


def read_archive(archive: Archive) -> dict[str, np.ndarray]:
    """Read the ZIP format: `read_pytorch` for an archive that is open already.

    Parameters
    ----------
    archive : Archive
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        As `read_pytorch` returns them.

    Raises
    ------
    ValueError
        As `read_pytorch` does.
    """
    pickles = [name for name in archive.names() if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("it is a ZIP archive without a PyTorch checkpoint in it.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.names():
        raise ValueError("it is a TorchScript program; save the model's state_dict() instead.")
    content = memoryview(archive.content)
    if f"{root}byteorder" in archive.names():
        start, size = archive.span(f"{root}byteorder")
        if content[start : start + size] != b"little":
            raise ValueError("it was written on a big-endian machine, which is not supported.")
    archive.check(pickles[0])
    start, size = archive.span(pickles[0])
    tensors = _state_dict(_interpret(io.BytesIO(content[start : start + size])))

    offsets, members = {}, []
    for storage in {tensor.storage for tensor in tensors.values()}:
        name = f"{root}data/{storage.key}"
        offsets[storage.key], size = archive.span(name)
        if size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"its member {name!r} has {size} bytes, other than it says.")
        members.append(name)
    archive.check(*members)
    return _arrays(tensors, archive.content, offsets)


def _read_before_1_6(path):
    """The format before PyTorch 1.6: magic number, version, machine, object, keys, numbers."""
    content = mapped(path)
    content.seek(len(MAGIC))
    version, machine = _interpret(content), _interpret(content)
    if version != 1001 or not isinstance(machine, dict) or not machine.get("little_endian"):
        raise ValueError("it is of a version or a machine that is not supported.")
    storages = {}
    tensors = _state_dict(_interpret(content, storages))
    keys = _interpret(content)
    if not isinstance(keys, list) or {*map(str, keys)} != storages.keys():
        raise ValueError("it is damaged: its list of storages is not that of its tensors.")
    offsets = {}
    for key in map(str, keys):
        count = content.read(8)
        if int.from_bytes(count, "little") != storages[key].count:
            raise ValueError(f"it is damaged, or not a whole file: storage {key!r} is not there.")
        offsets[key] = content.tell()
        end = offsets[key] + storages[key].count * storages[key].dtype.itemsize
        if end > len(content):
            raise ValueError(f"it ends within storage {key!r}: not a whole file.")
        content.seek(end)
    return _arrays(tensors, content, offsets)


def _arrays(tensors, content, offsets):
    """Views of the file, for descriptions of tensors whose storages lie at these offsets."""
    arrays = {}
    for name, tensor in tensors.items():
        storage, bytes_each = tensor.storage, tensor.storage.dtype.itemsize
        steps = zip(tensor.shape, tensor.strides, strict=True)
        last = tensor.offset + sum((size - 1) * stride for size, stride in steps)
        if 0 not in tensor.shape and last >= storage.count:
            raise ValueError(f"its tensor {name!r} reaches beyond its storage.")
        arrays[name] = np.ndarray(
            tensor.shape,
            storage.dtype,
            content,
            offsets[storage.key] + tensor.offset * bytes_each,
            [stride * bytes_each for stride in tensor.strides],
        )
    return arrays


def _state_dict(checkpoint: Any) -> dict[str, _Tensor]:
    """Find the descriptions of tensors in a checkpoint."""
    if not isinstance(checkpoint, dict):
        raise ValueError("it holds no state dict: save the model's state_dict(), not the model.")
    for wrapper in _WRAPPERS:
        if isinstance(checkpoint.get(wrapper), dict):
            checkpoint = checkpoint[wrapper]
            break
    tensors = {name: each for name, each in checkpoint.items() if isinstance(each, _Tensor)}
    if not tensors or not all(isinstance(name, str) for name in checkpoint):
        raise ValueError("it holds no state dict: no tensors by their names.")
    return tensors


def _interpret(file: Any, storages: dict[str, _Storage] | None = None) -> Any:
    """Carry out one pickle, as far as a state dict goes; collect the storages it describes."""
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name not in _INSTRUCTIONS:
                raise ValueError(
                    f"it holds the pickle instruction {opcode.name}, which a state dict does not "
                    "need: nothing of it was run."
                )
            if count > _MOST_INSTRUCTIONS:
                raise ValueError("it is far too long for a state dict.")
            _INSTRUCTIONS[opcode.name](machine, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("it is damaged: its pickle makes no sense.") from error


class _Machine:
    """The stack and the memo of a pickle, and what its instructions do to them."""

    mark = object()  # where on the stack a group begins

    def __init__(self, storages):
        self.stack, self.memo, self.storages = [], {}, storages

    def pop_group(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is self.mark:
                group = self.stack[index + 1 :]
                del self.stack[index:]
                return group
        raise IndexError

    def nothing(self, argument):
        pass

    def push(self, argument):
        self.stack.append(argument)

    def push_mark(self, _):
        self.stack.append(self.mark)

    def put(self, index):
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index):
        self.stack.append(self.memo[index])

    def append(self, _):
        item = self.stack.pop()
        _as(list, self.stack[-1]).append(item)

    def append_group(self, _):
        group = self.pop_group()
        _as(list, self.stack[-1]).extend(group)

    def set_item(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        # Never a tuple: the hash of a tuple of tuples of tuples ... would overrun the C stack.
        _as(dict, self.stack[-1])[_as((str, int, float), key)] = value

    def set_group(self, _):
        group = self.pop_group()
        for key, value in zip(group[::2], group[1::2], strict=True):
            self.stack += [key, value]
            self.set_item(None)

    def push_tuple(self, _):
        self.stack.append(tuple(self.pop_group()))

    def push_global(self, name):
        if name is None:
            name, module = _as(str, self.stack.pop()), _as(str, self.stack.pop())
            name = f"{module} {name}"
        self.stack.append(_global(name.replace(" ", ".")))

    def push_storage(self, _):
        storage = _storage(self.stack.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"it describes storage {storage.key[:80]!r} in two ways.")
        self.stack.append(storage)

    def call(self, _):
        arguments, function = _as(tuple, self.stack.pop()), _as(_Global, self.stack.pop())
        self.stack.append(_call(function.name, arguments))

    def build(self, _):
        # PyTorch hangs versions of modules on its OrderedDict: of no use here.
        self.stack.pop()
        _as(dict, self.stack[-1])


def _push_new(kind):
    return lambda machine, _: machine.stack.append(kind())


def _push_tuple_of(length):
    def push(machine, _):
        if len(machine.stack) < length:
            raise IndexError
        machine.stack[-length:] = [tuple(machine.stack[-length:])]

    return push


# Everything that PyTorch writes into the pickle of a state dict, with protocols 2 to 5.
_INSTRUCTIONS = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], _Machine.nothing),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _Machine.push),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE"], _Machine.push),
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], _Machine.push),  # Python 2
    "NONE": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": _push_new(dict),
    "EMPTY_LIST": _push_new(list),
    "EMPTY_TUPLE": _push_new(tuple),
    "MARK": _Machine.push_mark,
    "TUPLE": _Machine.push_tuple,
    "TUPLE1": _push_tuple_of(1),
    "TUPLE2": _push_tuple_of(2),
    "TUPLE3": _push_tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_group,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_group,
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _Machine.get),
    **dict.fromkeys(["GLOBAL", "STACK_GLOBAL"], _Machine.push_global),
    "BINPERSID": _Machine.push_storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _as(kind, value):
    if not isinstance(value, kind):
        raise TypeError
    return value


def _global(name):
    if name not in _ALLOWED:
        raise ValueError(
            f"it asks for {name[:80]!r}, which a state dict does not need: nothing of it was run."
        )
    return _Global(name)


def _call(name, arguments):
    """What PyTorch's function of this name would make."""
    if name == _ORDERED_DICT and arguments == ():
        return {}
    if name == _REBUILD_PARAMETER:
        return _as(_Tensor, arguments[0])
    if name in _REBUILD_TENSOR:
        storage, offset, shape, strides = arguments[:4]
        _as(_Storage, storage)
        numbers = (offset, *_as(tuple, shape), *_as(tuple, strides))
        if any(type(number) is not int or number < 0 for number in numbers):
            raise TypeError
        if len(shape) == len(strides):
            return _Tensor(storage, offset, shape, strides)
    raise TypeError


def _storage(identity):
    """The storage that a persistent id describes."""
    kind, storage_type, key, _, count, *view = _as(tuple, identity)
    if kind != "storage" or any(part is not None for part in view):
        raise TypeError
    if type(count) is not int or count < 0:
        raise TypeError
    return _Storage(_as(str, key), STORAGES[_as(_Global, storage_type).name], count)
