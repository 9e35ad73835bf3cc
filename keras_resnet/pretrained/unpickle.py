"""A restricted unpickler for PyTorch checkpoints that never runs code.

A pickle is a program, and unpickling an untrusted one runs arbitrary code. Here, `pickletools` only
parses the program, and this module executes the few instructions that a state dict needs. They can
create nothing but containers, numbers, strings and descriptions of tensors.
"""

import dataclasses
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

# Other globals that the pickle of a state dict may reference.
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_PARAMETER = "torch.nn.parameter.Parameter"  # before PyTorch 0.2
# Tensor types in files of that time: like the names of storages, with "Tensor" at the end.
_TENSOR_TYPES = {name.replace("Storage", "Tensor") for name in STORAGES}
_ALLOWED = {
    _ORDERED_DICT,
    *_REBUILD_TENSOR,
    _REBUILD_PARAMETER,
    _PARAMETER,
    *STORAGES,
    *_TENSOR_TYPES,
}

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
        An object made of dicts, lists, tuples, strings, numbers, `Storage`, `Tensor` and
        `Parameter`.

    Raises
    ------
    ValueError
        If the pickle is damaged, or contains anything that a state dict does not need.

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
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("the file is damaged: its pickle is invalid.") from error


def _instructions(file):
    """Parse the instructions of a pickle."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
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

    def __call__(self, identity: Any) -> Storage:
        """Return the storage that a persistent ID describes."""
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
        expect(list, self.stack[-1]).append(item)

    def append_group(self, _):
        """Extend a list with a group."""
        group = self.pop_group()
        expect(list, self.stack[-1]).extend(group)

    def set_item(self, _):
        """Set an item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        expect(dict, self.stack[-1])[_key(key)] = value

    def set_group(self, _):
        """Set the items of a dict from a group."""
        group = self.pop_group()
        target = expect(dict, self.stack[-1])
        if len(group) % 2:
            raise TypeError
        target.update(zip(map(_key, group[::2]), group[1::2], strict=True))

    def push_tuple(self, _):
        """Replace a group with a tuple."""
        self.stack.append(tuple(self.pop_group()))

    def push_global(self, name):
        """Push a reference to an allowed class or function."""
        if name is None:
            name, module = expect(str, self.stack.pop()), expect(str, self.stack.pop())
            name = f"{module} {name}"
        name = name.replace(" ", ".")
        if name not in _ALLOWED:
            raise ValueError(
                f"the pickle uses {name[:80]!r}, which a state dict does not need; no code was run."
            )
        self.stack.append(_Global(name))

    def push_found(self, _):
        """Replace a persistent ID with its object."""
        self.stack.append(expect(Callable, self.find)(self.stack.pop()))

    def call(self, _):
        """Replace a function and its arguments with the result."""
        arguments, function = expect(tuple, self.stack.pop()), expect(_Global, self.stack.pop())
        self.stack.append(_call(function.name, arguments))

    def build(self, _):
        """Set the state of an object."""
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Parameter):
            # PyTorch stores module versions as attributes of its OrderedDict: ignore them.
            expect(dict, target)
        elif len(expect(tuple, state)) == 5:
            target.tensor = expect(Tensor, state[0])


def _key(key):
    """Return a key of a dict as text."""
    # Hashing a tuple of tuples of tuples ... would overflow the C stack, and numbers can be chosen
    # so that all have the same hash.
    return key if isinstance(key, str) else str(expect((int, float), key))


def _call(name, arguments):
    """Return what the PyTorch function of this name would create."""
    if name == _ORDERED_DICT and len(arguments) < 2:
        pairs = [expect(list, pair) for pair in expect(list, arguments[0])] if arguments else []
        if any(len(pair) != 2 for pair in pairs):
            raise TypeError
        return {_key(key): value for key, value in pairs}
    if name == _PARAMETER:
        return Parameter(expect(Tensor, arguments[0]) if arguments else None)
    if name == _REBUILD_PARAMETER:
        return expect(Tensor, arguments[0])
    if name in _REBUILD_TENSOR and len(arguments) >= 4:
        return tensor_of(*arguments[:4])
    raise TypeError


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


# All instructions that PyTorch uses in the pickle of a state dict, with protocols 2 to 5.
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
    "BINPERSID": _Machine.push_found,
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _Machine.call),
    "BUILD": _Machine.build,
}
