"""The pickles in PyTorch's checkpoints, carried out without running anything in them.

A pickle is a program, and unpickling one from a stranger runs whatever they want. Here,
`pickletools` only takes the program apart; carried out are the few instructions that a state dict
consists of, and they can make nothing but containers, numbers, strings and descriptions of tensors.
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

# What else a pickle of a state dict may name.
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_PARAMETER = "torch.nn.parameter.Parameter"  # before PyTorch 0.2
# Types of tensors, for the files of that time, have the names of storages but for the last part.
_TENSOR_TYPES = {name.replace("Storage", "Tensor") for name in STORAGES}
_ALLOWED = {
    _ORDERED_DICT,
    *_REBUILD_TENSOR,
    _REBUILD_PARAMETER,
    _PARAMETER,
    *STORAGES,
    *_TENSOR_TYPES,
}

# ResNet-1202 with the state of its optimizer takes some 400,000.
_MOST_INSTRUCTIONS = 5_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in a row, which one or more tensors look at."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """Which numbers of a storage make a tensor; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(slots=True)
class Parameter:
    """What PyTorch before 0.2 put around a tensor."""

    tensor: Tensor | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Global:
    name: str


def interpret(file: Any, find: Callable[[Any], Any] | None = None) -> Any:
    """Carry out one pickle, as far as a state dict goes.

    Parameters
    ----------
    file : binary file
        Where the pickle begins; left behind its end.
    find : callable, optional
        Takes the identity of an object outside of the pickle, as PyTorch gives it to its storages,
        and returns the object. Default: there are none.

    Returns
    -------
    object
        Made of dicts, lists, tuples, strings, numbers, `Storage`, `Tensor` and `Parameter`.

    Raises
    ------
    ValueError
        If the pickle is damaged, or asks for anything that a state dict does not need.

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
    ValueError: it asks for 'posix.system', which a state dict does not need: nothing of it was run.
    """
    machine = _Machine(find)
    try:
        for count, (opcode, argument) in enumerate(_instructions(file)):
            if opcode not in _INSTRUCTIONS:
                raise ValueError(
                    f"it holds the pickle instruction {opcode}, which a state dict does not need: "
                    "nothing of it was run."
                )
            if count > _MOST_INSTRUCTIONS:
                raise ValueError("it is far too long for a state dict.")
            _INSTRUCTIONS[opcode](machine, argument)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("it is damaged: its pickle makes no sense.") from error


def _instructions(file):
    try:
        for opcode, argument, _ in pickletools.genops(file):
            yield opcode.name, argument
    except ValueError as error:
        raise TypeError from error


def expect(kind: type | tuple[type, ...], value: Any) -> Any:
    """Return a value of this kind; another one makes no sense, which `interpret` says."""
    if not isinstance(value, kind):
        raise TypeError
    return value


class StorageFinder:
    """Takes the identities of storages as PyTorch since 0.1.10 writes them; keeps the storages."""

    def __init__(self):
        self.storages = {}

    def __call__(self, identity: Any) -> Storage:
        """The storage that an identity describes."""
        if len(expect(tuple, identity)) not in (5, 6) or identity[0] != "storage":
            raise TypeError
        _, kind, key, _, count, *view = identity
        if type(count) is not int or count < 0 or any(part is not None for part in view):
            raise TypeError
        storage = Storage(expect(str, key), dtype_of(kind), count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"it describes storage {key[:80]!r} in two ways.")
        return storage


def dtype_of(storage_type: Any) -> np.dtype:
    """The type of numbers in storages of a type that a pickle names."""
    return STORAGES[expect(_Global, storage_type).name]


def tensor_of(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """A tensor of parts that a pickle gives; whether it fits its storage is not looked at."""
    numbers = (offset, *expect(tuple, shape), *expect(tuple, strides))
    if any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError
    if len(shape) != len(strides):
        raise TypeError
    return Tensor(expect(Storage, storage), offset, shape, strides)


class _Machine:
    """The stack and the memo of a pickle, and what its instructions do to them."""

    mark = object()  # where on the stack a group begins

    def __init__(self, find):
        self.stack, self.memo, self.find = [], {}, find

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
        expect(list, self.stack[-1]).append(item)

    def append_group(self, _):
        group = self.pop_group()
        expect(list, self.stack[-1]).extend(group)

    def set_item(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        expect(dict, self.stack[-1])[_key(key)] = value

    def set_group(self, _):
        group = self.pop_group()
        target = expect(dict, self.stack[-1])
        if len(group) % 2:
            raise TypeError
        target.update(zip(map(_key, group[::2]), group[1::2], strict=True))

    def push_tuple(self, _):
        self.stack.append(tuple(self.pop_group()))

    def push_global(self, name):
        if name is None:
            name, module = expect(str, self.stack.pop()), expect(str, self.stack.pop())
            name = f"{module} {name}"
        name = name.replace(" ", ".")
        if name not in _ALLOWED:
            raise ValueError(
                f"it asks for {name[:80]!r}, which a state dict does not need: nothing of it was "
                "run."
            )
        self.stack.append(_Global(name))

    def push_found(self, _):
        self.stack.append(expect(Callable, self.find)(self.stack.pop()))

    def call(self, _):
        arguments, function = expect(tuple, self.stack.pop()), expect(_Global, self.stack.pop())
        self.stack.append(_call(function.name, arguments))

    def build(self, _):
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Parameter):
            # PyTorch hangs versions of modules on its OrderedDict: of no use here.
            expect(dict, target)
        elif len(expect(tuple, state)) == 5:
            target.tensor = expect(Tensor, state[0])


def _key(key):
    """A key of a dict, as text.

    The hash of a tuple of tuples of tuples ... would overrun the C stack, and numbers can be chosen
    so that all have the same hash.
    """
    return key if isinstance(key, str) else str(expect((int, float), key))


def _call(name, arguments):
    """What PyTorch's function of this name would make."""
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
    return lambda machine, _: machine.push(kind())


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
    "BINPERSID": _Machine.push_found,
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _Machine.call),
    "BUILD": _Machine.build,
}
