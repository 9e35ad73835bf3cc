"""A restricted unpickler for checkpoints of PyTorch and detectron2 that never runs code.

A pickle is a program, and unpickling an untrusted one runs arbitrary code. Here, `pickletools` only
parses the program, and this module executes the few instructions that a state dict needs. They can
create nothing but containers, numbers, strings, NumPy arrays of numbers, which are views of bytes
in the pickle, and descriptions of tensors. What a training script leaves beside the weights, such
as its options, is an object of some other class: that class is never looked up, and the object is
only a note of its name and of what it holds.
"""

import dataclasses
import itertools
import math
import mmap
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

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

# Data types of NumPy arrays in a pickle, without the byte order.
_NUMBERS = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")

_NDARRAY = "numpy.ndarray"

# Of these modules and functions no training script leaves anything: they would run programs.
_PROGRAMS = (
    *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "pty", "runpy", "importlib"),
    *("ctypes", "code", "codeop", "webbrowser", "multiprocessing"),
    *(
        f"{module}.{function}"
        for module in ("builtins", "__builtin__")
        for function in ("eval", "exec", "execfile", "compile", "open", "__import__", "print")
    ),
)

_LONG = 2**12  # bytes

_numbers = itertools.count()

# ResNet-1202 with its optimizer state takes about 400,000.
_MOST_INSTRUCTIONS = 5_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A row of numbers that one or more tensors view."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides are in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(slots=True)
class Parameter:
    """The wrapper around a tensor in PyTorch before 0.2."""

    tensor: Tensor | None

    def build(self, machine: "_Machine", state: Any) -> None:
        """Take the tensor from the state in a pickle."""
        if len(expect(tuple, state)) == 5:
            self.tensor = expect(Tensor, state[0])


@dataclasses.dataclass(slots=True, eq=False)
class Foreign:
    """A class or function that no state dict needs, or an object that it would have made.

    Parameters
    ----------
    name : str
        Name of the class or function, which is never looked up.
    state : object
        The attributes of the object, if the pickle has any.
    items : dict or None
        What the object holds if it is a kind of dict.
    array_of : str, default ""
        The data type of a NumPy array that is not of numbers.
    """

    name: str
    state: Any = None
    items: dict | None = None
    array_of: str = ""

    def refusal(self) -> ValueError:
        """Return the error for such an object in the place of a tensor."""
        what = f"uses {self.name[:80]!r}, which a state dict does not need"
        if self.array_of:
            what = f"has an array of data type {self.array_of[:80]!r}, not of real numbers"
        return ValueError(f"the pickle {what}; no code was run.")

    def build(self, machine: "_Machine", state: Any) -> None:
        """Keep the state in a pickle."""
        self.state = state


@dataclasses.dataclass(slots=True, eq=False)
class Array:
    """A NumPy array: none until its state is set."""

    value: np.ndarray | Foreign | None = None

    def build(self, machine: "_Machine", state: Any) -> None:
        """Make the array from the state in a pickle."""
        if self.value is not None or len(expect(tuple, state)) != 5:
            raise TypeError
        _, shape, dtype, fortran, content = state
        order = "F" if expect((bool, int), fortran) else "C"
        self.value = _array(machine, content, dtype, shape, order)


@dataclasses.dataclass(slots=True)
class _DType:
    """A NumPy data type."""

    dtype: np.dtype

    def build(self, machine: "_Machine", state: Any) -> None:
        """Take the byte order from the state in a pickle."""
        if len(expect(tuple, state)) < 5:
            raise TypeError
        _, order, *fields = state[:5]
        if order not in ("<", ">", "|", "=") or any(each is not None for each in fields):
            raise TypeError
        self.dtype = self.dtype.newbyteorder(order)


@dataclasses.dataclass(frozen=True, slots=True)
class _Global:
    """A reference to an allowed class or function."""

    name: str


def interpret(file: Any, find: Callable[[Any], Any] | None = None) -> Any:
    """Interpret one pickle, limited to what a state dict needs.

    Parameters
    ----------
    file : binary file
        Positioned at the start of the pickle; afterwards, positioned after its end.
    find : callable, optional
        Takes a persistent ID, which PyTorch uses for storages, and returns the object. Default:
        persistent IDs are not allowed.

    Returns
    -------
    object
        An object made of dicts, lists, tuples, strings, bytes, numbers, `Storage`, `Tensor`,
        `Parameter` and `Array`, and `Foreign` in the place of objects of all other classes.

    Raises
    ------
    ValueError
        If the pickle is damaged, has instructions that a state dict does not need, or names
        functions that run programs.

    Examples
    --------
    >>> import io, os, pickle
    >>> from keras_resnet.pretrained.unpickle import interpret
    >>> interpret(io.BytesIO(pickle.dumps({"epoch": 3})))
    {'epoch': 3}
    >>> class Malicious:
    ...     def __reduce__(self):
    ...         return os.system, ("echo never printed",)
    >>> interpret(io.BytesIO(pickle.dumps(Malicious())))
    Traceback (most recent call last):
        ...
    ValueError: the pickle uses 'posix.system', which a state dict does not need; no code was run.
    """
    machine = _Machine(find)
    try:
        for count, (opcode, argument) in enumerate(_instructions(file)):
            if opcode not in _INSTRUCTIONS:
                raise ValueError(
                    f"the pickle uses the instruction {opcode}, which a state dict does not need; "
                    "no code was run."
                )
            if count > _MOST_INSTRUCTIONS:
                raise ValueError("the pickle is too long for a state dict.")
            _INSTRUCTIONS[opcode](machine, argument)
        return machine.stack.pop()
    except (LookupError, TypeError, OverflowError, MemoryError, UnicodeError) as error:
        raise ValueError("the file is damaged: its pickle is invalid.") from error


class _Views:
    """A mapped file to parse, of which long bytes are views."""

    def __init__(self, content):
        self.content, self.opcode = content, b""
        self.readline = content.readline

    def read(self, size):
        """Read as a file does; bytes of many are not copied."""
        if size < _LONG or self.opcode not in (b"B", b"\x8e"):  # BINBYTES, BINBYTES8
            read = self.content.read(size)
            if size == 1:
                self.opcode = read
            return read
        start = self.content.tell()
        view = memoryview(self.content)[start : start + size]
        self.content.seek(start + len(view))
        return view


def _instructions(file):
    """Parse the instructions of a pickle."""
    content: Any = _Views(file) if isinstance(file, mmap.mmap) else file
    try:
        for opcode, argument, _ in pickletools.genops(content):
            yield opcode.name, argument
    except ValueError as error:
        raise TypeError from error


def expect(kind: Any, value: Any) -> Any:
    """Return the value if it has this type; otherwise, raise a TypeError for `interpret`."""
    if not isinstance(value, kind):
        raise TypeError
    return value


class StorageFinder:
    """Resolves the persistent IDs of storages since PyTorch 0.1.10, and collects the storages."""

    def __init__(self):
        self.storages = {}

    def __call__(self, identity: Any) -> Storage | Foreign:
        """Return the storage that a persistent ID describes, or the class, with its source."""
        if len(expect(tuple, identity)) == 4 and identity[0] == "module":
            return expect(Foreign, identity[1])
        if len(expect(tuple, identity)) not in (5, 6) or identity[0] != "storage":
            raise TypeError
        _, kind, key, _, count, *view = identity
        if type(count) is not int or count < 0 or any(part is not None for part in view):
            raise TypeError
        storage = Storage(expect(str, key), dtype_of(kind), count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"the pickle describes storage {key[:80]!r} in two ways.")
        return storage


def dtype_of(storage_type: Any) -> np.dtype:
    """Return the NumPy data type of a storage type in a pickle."""
    if isinstance(storage_type, Foreign):
        raise storage_type.refusal()
    return STORAGES[expect(_Global, storage_type).name]


def tensor_of(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Make a tensor from the parts in a pickle, without checking that it fits its storage."""
    numbers = (offset, *expect(tuple, shape), *expect(tuple, strides))
    if any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError
    if len(shape) != len(strides):
        raise TypeError
    return Tensor(expect(Storage, storage), offset, shape, strides)


class _Machine:
    """The stack and memo of a pickle, and its instructions."""

    mark = object()  # the start of a group on the stack

    def __init__(self, find):
        self.stack, self.memo, self.find = [], {}, find
        self._encoded = {}

    def encode(self, text):
        """Return the bytes that a string stands for, always the same object."""
        # A pickle can refer to one long string many times.
        if id(text) not in self._encoded:
            self._encoded[id(text)] = text, expect(str, text).encode("latin-1")
        return self._encoded[id(text)][1]

    def pop_group(self):
        """Pop everything above the last mark, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is self.mark:
                group = self.stack[index + 1 :]
                del self.stack[index:]
                return group
        raise IndexError

    def nothing(self, argument):
        """Ignore an instruction."""
        pass

    def push(self, argument):
        """Push a value."""
        self.stack.append(argument)

    def push_mark(self, _):
        """Push a mark."""
        self.stack.append(self.mark)

    def put(self, index):
        """Store the top of the stack in the memo."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index):
        """Push a value from the memo."""
        self.stack.append(self.memo[index])

    def append(self, _):
        """Append an item to a list."""
        item = self.stack.pop()
        if not isinstance(self.stack[-1], Foreign):
            expect(list, self.stack[-1]).append(item)

    def append_group(self, _):
        """Extend a list with a group."""
        group = self.pop_group()
        if not isinstance(self.stack[-1], Foreign):
            expect(list, self.stack[-1]).extend(group)

    def items(self):
        """Return the items of the dict on the stack, of whatever class it is."""
        target = self.stack[-1]
        if isinstance(target, Foreign):
            target.items = target.items or {}
            return target.items
        return expect(dict, target)

    def set_item(self, _):
        """Set an item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self.items()[_key(key, value)] = value

    def set_group(self, _):
        """Set the items of a dict from a group."""
        group = self.pop_group()
        target = self.items()
        if len(group) % 2:
            raise TypeError
        values = group[1::2]
        target.update(zip(map(_key, group[::2], values), values, strict=True))

    def push_tuple(self, _):
        """Replace a group with a tuple."""
        self.stack.append(tuple(self.pop_group()))

    def push_global(self, name):
        """Push a reference to an allowed class or function."""
        if name is None:
            name, module = expect(str, self.stack.pop()), expect(str, self.stack.pop())
            name = f"{module} {name}"
        name = name.replace(" ", ".")
        if name.startswith(tuple(f"{each}." for each in _PROGRAMS)) or name in _PROGRAMS:
            raise Foreign(name).refusal()
        self.stack.append(_Global(name) if name in _ALLOWED else Foreign(name))

    def push_found(self, _):
        """Replace a persistent ID with its object."""
        self.stack.append(expect(Callable, self.find)(self.stack.pop()))

    def call(self, _):
        """Replace a function and its arguments with the result."""
        arguments, function = expect(tuple, self.stack.pop()), self.stack.pop()
        if isinstance(function, Foreign):
            self.stack.append(Foreign(function.name))
        else:
            function = _ALLOWED[expect(_Global, function).name]
            self.stack.append(expect(Callable, function)(self, *arguments))

    def call_with_keywords(self, _):
        """Replace a class and its arguments with the object."""
        keywords = expect(dict, self.stack.pop())
        if keywords:
            expect(Foreign, self.stack[-2])
        self.call(None)

    def add_group(self, _):
        """Extend a set, of which only the name is kept, with a group."""
        self.pop_group()
        expect(Foreign, self.stack[-1])

    def push_set(self, _):
        """Replace a group with a set."""
        self.pop_group()
        self.stack.append(Foreign("builtins.frozenset"))

    def build(self, _):
        """Set the state of an object."""
        state, target = self.stack.pop(), self.stack[-1]
        # PyTorch stores module versions as attributes of its OrderedDict: ignore them.
        if not isinstance(target, dict):
            expect((Parameter, Array, _DType, Foreign), target).build(self, state)


def _key(key, value):
    """Return the key of a value in a dict as text."""
    # Hashing a tuple of tuples of tuples ... would overflow the C stack, and numbers can be chosen
    # so that all have the same hash.
    if isinstance(key, str | int | float | None):
        return str(key)
    if isinstance(value, (Tensor, Parameter, Array)):
        raise TypeError
    # Those of options may be anything, and stay apart.
    return f"{type(key).__name__} {next(_numbers)}"


def _ordered_dict(machine, pairs=None):
    """A dict of pairs, each of them a list."""
    pairs = [] if pairs is None else [expect(list, pair) for pair in expect(list, pairs)]
    if any(len(pair) != 2 for pair in pairs):
        raise TypeError
    return {_key(key, value): value for key, value in pairs}


def _parameter(machine, tensor=None, *_):
    """A tensor's wrapper, whose state may be set later."""
    return Parameter(None if tensor is None else expect(Tensor, tensor))


def _dtype(machine, name, *flags):
    """A data type of numbers."""
    plain = expect(str, name).lstrip("<>=|")
    if plain not in _NUMBERS:
        return Foreign("numpy.dtype", array_of=name)
    if any(not isinstance(flag, int) for flag in flags):
        raise TypeError
    return _DType(np.dtype(name[-len(plain) - 1 :]))


def _array(machine, content, dtype, shape, order):
    """A view of bytes in the pickle, of exactly their size."""
    if isinstance(dtype, Foreign):
        return dtype
    if isinstance(content, str):  # Python 2, or protocol 2
        content = machine.encode(content)
    content = expect((bytes, bytearray, memoryview), content)
    dtype = expect(_DType, dtype).dtype
    if len(expect(tuple, shape)) > 32 or any(type(size) is not int or size < 0 for size in shape):
        raise TypeError
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(
            f"the file is damaged: an array of shape {str(shape)[:80]} has {len(content)} bytes."
        )
    try:
        array = np.ndarray(shape, dtype, content, order=order)
    except ValueError as error:  # for 0 numbers, the other sizes may be too large
        raise TypeError from error
    array.flags.writeable = False
    return array


def _new_array(machine, kind, shape, _):
    """An array that is empty until its state is set."""
    if isinstance(kind, Foreign):
        return Foreign(kind.name)
    if expect(_Global, kind).name != _NDARRAY or expect(tuple, shape) not in ((), (0,)):
        raise TypeError
    return Array()


def _from_buffer(machine, content, dtype, shape, order):
    """An array of protocol 5."""
    if order not in ("C", "F"):
        raise TypeError
    return Array(_array(machine, content, dtype, shape, order))


def _encode(machine, text, encoding):
    """Bytes, as Python 3 writes them for protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise TypeError
    return machine.encode(text)


# What the pickle of a state dict may name: functions and classes, by what stands for them when they
# are called; None if they may not be called.
_ALLOWED: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": _ordered_dict,
    **dict.fromkeys(
        ["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"],
        lambda machine, storage, offset, shape, strides, *_: tensor_of(
            storage, offset, shape, strides
        ),
    ),
    "torch._utils._rebuild_parameter": lambda machine, tensor, *_: expect(
        (Tensor, Foreign), tensor
    ),
    "torch.nn.parameter.Parameter": _parameter,  # before PyTorch 0.2
    **dict.fromkeys(STORAGES),
    # Tensor types in files of that time.
    **dict.fromkeys(name.replace("Storage", "Tensor") for name in STORAGES),
    _NDARRAY: None,
    "numpy.dtype": _dtype,
    # By the name of the package before and since NumPy 2.
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")
        for name, function in {
            "multiarray._reconstruct": _new_array,
            "multiarray.scalar": lambda machine, dtype, content: Array(
                _array(machine, content, dtype, (), "C")
            ),
            "numeric._frombuffer": _from_buffer,
        }.items()
    },
    "_codecs.encode": _encode,
    **dict.fromkeys(["__builtin__.bytes", "builtins.bytes"], lambda machine: b""),
}


def _push_new(kind):
    """Make the instruction that pushes a new, empty object."""
    return lambda machine, _: machine.push(kind())


def _push_tuple_of(length):
    """Make the instruction that turns the top values into a tuple."""

    def push(machine, _):
        if len(machine.stack) < length:
            raise IndexError
        machine.stack[-length:] = [tuple(machine.stack[-length:])]

    return push


# All instructions that PyTorch and NumPy use in the pickle of a state dict, with protocols 2 to 5.
_INSTRUCTIONS = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP"], _Machine.nothing),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _Machine.push),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE"], _Machine.push),
    **dict.fromkeys(["BINSTRING", "SHORT_BINSTRING"], _Machine.push),  # Python 2
    **dict.fromkeys(["BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"], _Machine.push),
    "NONE": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": _push_new(dict),
    "EMPTY_LIST": _push_new(list),
    "EMPTY_TUPLE": _push_new(tuple),
    "EMPTY_SET": _push_new(lambda: Foreign("builtins.set")),
    "MARK": _Machine.push_mark,
    "TUPLE": _Machine.push_tuple,
    "TUPLE1": _push_tuple_of(1),
    "TUPLE2": _push_tuple_of(2),
    "TUPLE3": _push_tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.append_group,
    "ADDITEMS": _Machine.add_group,
    "FROZENSET": _Machine.push_set,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_group,
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "MEMOIZE"], _Machine.put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _Machine.get),
    **dict.fromkeys(["GLOBAL", "STACK_GLOBAL"], _Machine.push_global),
    "BINPERSID": _Machine.push_found,
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _Machine.call),
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.build,
}
