"""Pickles written instruction by instruction: what no pickler would write."""

import contextlib
import copyreg
import pickle
import struct
import tracemalloc

import pytest
from errors import one_line_error


def refused():
    """Expect an error of one line, whatever it says."""
    return one_line_error(" ")


@contextlib.contextmanager
def little_memory(most=2**22):
    """Expect that no more than this is allocated, however much a file claims."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def dict_of(**fragments):
    return b"}(" + b"".join(text(name) + value for name, value in fragments.items()) + b"u"


def as_pickle(fragment):
    return b"\x80\x04" + fragment + b"."


def attacks(marker):
    """Fragments of pickles that make a file, by what makes them dangerous."""
    command = text(f"touch {marker}")
    code = text(f"open({str(marker)!r}, 'w').close()")
    system = b"cposix\nsystem\n"
    # tuple.__new__(tuple, map.__new__(map, system, [command])): nothing but new objects.
    new_map = b"cbuiltins\nmap\n" + system + b"](" + command + b"e\x86"
    new_tuple = b"cbuiltins\ntuple\n"
    return {
        "GLOBAL": system + command + b"\x85R",
        "GLOBAL of os": b"cos\nsystem\n" + command + b"\x85R",
        "GLOBAL of builtins": b"cbuiltins\neval\n" + code + b"\x85R",
        "GLOBAL of attributes": b"cshutil\nos.system\n" + command + b"\x85R",
        "STACK_GLOBAL": text("posix") + text("system") + b"\x93" + command + b"\x85R",
        "INST": b"(" + command + b"iposix\nsystem\n",
        "OBJ": b"(" + system + command + b"o",
        "NEWOBJ": new_tuple + new_map + b"\x81\x85\x81",
        "NEWOBJ_EX": new_tuple + new_map + b"}\x92\x85}\x92",
        "EXT1": b"\x82\xf0" + command + b"\x85R",
        "EXT2": b"\x83\xf0\x00" + command + b"\x85R",
        "EXT4": b"\x84\xf0\x00\x00\x00" + command + b"\x85R",
    }


@pytest.fixture
def extension():
    """What the EXT instructions stand for."""
    copyreg.add_extension("posix", "system", 0xF0)
    yield
    copyreg.remove_extension("posix", "system", 0xF0)


NESTED = b")" + b"\x85" * 100_000  # a tuple of a tuple of a tuple ...


def laughs(times):
    """A tuple of twice a tuple of twice a tuple ...: little to build, much to look at."""
    return b")" + b"".join(b"q%ch%c\x86" % (each, each) for each in range(times))
