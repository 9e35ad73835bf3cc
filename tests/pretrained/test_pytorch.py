import contextlib
import io
import pickle
import re
import stat
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from checkpoints import (
    BFLOAT16,
    Parameter,
    as_legacy,
    as_tar,
    as_zip,
    legacy_of,
    tar_of,
    wrapped,
    zip_of,
)
from errors import one_line_error
from golden import rule
from pickles import (
    NESTED,
    as_pickle,
    attacks,
    dict_of,
    extension,  # noqa: F401
    laughs,
    little_memory,
    number,
    numbers,
    refused,
    text,
)

from keras_resnet.pretrained.pytorch import read_pytorch

FORMATS = {"zip": as_zip, "legacy": as_legacy}
PROTOCOLS = (2, 3, 4, 5)

WEIGHT = np.arange(24, dtype="float32").reshape(2, 3, 4)

# One of every kind that a state dict may hold. The golden files hold the same numbers.
TENSORS = {
    "weight": WEIGHT,
    "transposed": WEIGHT.transpose(2, 0, 1),
    "sliced": WEIGHT[:, 1:, ::2],
    "parameter": np.arange(6, dtype="float32").reshape(2, 3),
    "half": np.arange(5, dtype="float16"),
    "bfloat16": np.arange(6).reshape(3, 2).astype(BFLOAT16),
    "double": np.arange(3, dtype="float64"),
    "num_batches_tracked": np.array(7, "int64"),
    "empty": np.zeros((0, 3), "float32"),
}


@pytest.fixture
def read(tmp_path):
    """Read the bytes of a checkpoint."""

    def read_bytes(content):
        path = tmp_path / "checkpoint"
        path.write_bytes(content)
        return read_pytorch(path)

    return read_bytes


def assert_same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(arrays[name], array)


class TestReading:
    @pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint_legacy.pth"])
    def test_finds_what_pytorch_wrote(self, name):
        assert_same(read_pytorch(Path(rule.__file__).with_name(name)), TENSORS)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_does_not_depend_on_the_protocol_of_the_pickle(self, read, write, protocol):
        tensors = {**TENSORS, "parameter": Parameter(TENSORS["parameter"])}
        assert_same(read(write(tensors, protocol)), TENSORS)

    @pytest.mark.parametrize("write", [*FORMATS.values(), as_tar], ids=[*FORMATS, "tar"])
    def test_finds_every_type_of_number(self, read, write):
        tensors = {name: np.arange(2).astype(name) for name in checkpoints.STORAGES}
        assert_same(read(write(tensors)), tensors)

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_finds_a_state_dict_among_other_things(self, read, write, key):
        checkpoint = wrapped(TENSORS, "module.")
        checkpoint[key] = checkpoint.pop("state_dict")
        arrays = read(write(checkpoint))
        assert_same(arrays, {f"module.{name}": array for name, array in TENSORS.items()})

    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_copies_nothing(self, read, write):
        numbers = np.arange(2**20, dtype="float32")
        content = write({"a": numbers, "b": numbers.reshape(2, -1).T})
        with little_memory(2**18):
            arrays = read(content)
        assert np.shares_memory(arrays["a"], arrays["b"])
        assert not arrays["a"].flags.writeable

    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_of_an_expanded_tensor_takes_no_memory(self, read, write):
        # Legal: PyTorch saves the storage of one number, and the steps of 0 over it.
        with little_memory():
            array = read(write({"a": np.broadcast_to(np.float32(3), (2**20, 2**20))}))["a"]
        assert (array.shape, array.strides, array[-1, -1]) == ((2**20, 2**20), (0, 0), 3)


class TestRefusal:
    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    @pytest.mark.parametrize(
        "checkpoint",
        [[WEIGHT], WEIGHT, "text", None, {}, {"epoch": 3}, {"state_dict": {}}],
        ids=["list", "tensor", "text", "none", "empty", "no_tensors", "wrapped_empty"],
    )
    def test_of_what_is_no_state_dict(self, read, write, checkpoint):
        with one_line_error("the file has no state dict"):
            read(write(checkpoint))

    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_of_a_model_names_its_class(self, read, write):
        # A whole nn.Module is pickled as a class that is called: any code at all.
        class Model:
            def __reduce__(self):
                return checkpoints._name("torch.nn.modules.container.Sequential"), ()

        with one_line_error("'torch.nn.modules.container.Sequential'"):
            read(write(Model()))

    def test_of_a_torchscript_program_says_so(self, read):
        pickle_, _ = checkpoints.pickled({"a": WEIGHT})
        content = zip_of({"net/data.pkl": pickle_, "net/constants.pkl": b"", "net/code/a.py": b""})
        with one_line_error("TorchScript"):
            read(content)

    def test_of_numbers_of_a_big_endian_machine(self, read):
        pickle_, storages = checkpoints.pickled({"a": WEIGHT})
        members = {"a/data.pkl": pickle_, "a/data/0": storages["0"].tobytes()}
        assert_same(read(zip_of(members)), {"a": WEIGHT})
        with one_line_error("big-endian"):
            read(zip_of({**members, "a/byteorder": b"big"}))
        legacy = as_legacy({"a": WEIGHT})
        little, big = (b"little_endianq\x02" + value for value in (b"\x88", b"\x89"))
        assert little in legacy
        with one_line_error("machine"):
            read(legacy.replace(little, big))

    def test_of_another_version(self, read):
        legacy = as_legacy({"a": WEIGHT})
        versions = [pickle.dumps(number, 2) for number in (1001, 1000)]
        with one_line_error("version"):
            read(legacy.replace(*versions, 1))

    @pytest.mark.parametrize(
        "members",
        [{}, {"a/b": b""}, {"data.pkl": b""}, {"a/b/data.pkl": b""}],
        ids=["nothing", "other", "no_folder", "too_deep"],
    )
    def test_of_an_archive_of_something_else(self, read, members):
        with one_line_error("the ZIP archive does not contain a PyTorch checkpoint"):
            read(zip_of(members))

    def test_of_an_archive_of_two_checkpoints(self, read):
        pickle_, _ = checkpoints.pickled({"a": np.zeros((0,), "float32")})
        with refused():
            read(zip_of({"a/data.pkl": pickle_, "b/data.pkl": pickle_, "a/data/0": b""}))

    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_of_a_file_that_was_cut(self, read, write):
        # Behind the last of the tensors there is nothing in one format, a directory in the other.
        content = write({"a": WEIGHT, "b": WEIGHT + 1})
        assert read(content)
        for length in range(0, len(content), 7):
            with refused():
                read(content[:length])


def storage(count=24, key="0", kind="torch FloatStorage", identity="storage"):
    named = "c{}\n{}\n".format(*kind.split()).encode()
    return b"(" + text(identity) + named + text(key) + text("cpu") + number(count) + b"NtQ"


STORAGE = storage()


def tensor(shape=(24,), strides=(1,), offset=0, storage=STORAGE):
    rebuild = b"ctorch._utils\n_rebuild_tensor\n"
    return rebuild + b"(" + storage + number(offset) + numbers(shape) + numbers(strides) + b"tR"


# Each format around a pickle, with the storage that `tensor` takes its numbers from.
FILES = {
    "zip": lambda pickle_: zip_of({"a/data.pkl": pickle_, "a/data/0": WEIGHT.tobytes()}),
    "legacy": lambda pickle_: legacy_of(pickle_, {"0": WEIGHT.ravel()}),
}

in_both_formats = pytest.mark.parametrize("file", FILES.values(), ids=FILES)


class TestInstructions:
    @in_both_formats
    def test_make_a_checkpoint(self, read, file):
        content = file(as_pickle(dict_of(a=tensor(), b=tensor((2, 3), (1, 2), 18))))
        expected = {"a": WEIGHT.ravel(), "b": WEIGHT.ravel()[18:].reshape(3, 2).T}
        assert_same(read(content), expected)

    @in_both_formats
    def test_of_python_2_make_one_too(self, read, file):
        # Strings of bytes, long numbers, and an ordered dict that is made from a list of lists.
        old_tensor = tensor().replace(number(24), b"\x8a\x01\x18")
        pairs = b"](](U\x04fc.b" + old_tensor + b"ee"
        state = b"ccollections\nOrderedDict\n" + pairs + b"\x85R"
        content = file(b"\x80\x02}(U\x0astate_dict" + state + b"u.")
        assert_same(read(content), {"fc.b": WEIGHT.ravel()})

    @in_both_formats
    def test_of_the_first_parameters_make_tensors_too(self, read, file):
        new = b"ctorch.nn.parameter\nParameter\n)\x81"
        with_state = new + b"(" + tensor() + b"N}\x88\x89tb"
        content = file(as_pickle(dict_of(a=with_state)))
        assert_same(read(content), {"a": WEIGHT.ravel()})
        with refused():
            read(file(as_pickle(dict_of(a=new + b"(NN}\x88\x89tb"))))

    @pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
    def test_that_hang_versions_on_a_dict_are_passed_over(self, read, write):
        # nn.Module.state_dict() does so.
        state = OrderedDict(TENSORS)
        state._metadata = OrderedDict({"": {"version": 1}, "bn1": {"version": 2}})
        assert_same(read(write(state)), TENSORS)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", attacks(""))
class TestAttacks:
    def test_work_where_pickles_are_run(self, tmp_path, name):
        marker = tmp_path / "marker"
        pickle.loads(as_pickle(attacks(marker)[name]))
        assert marker.exists()

    @in_both_formats
    def test_are_refused_wherever_they_are(self, read, tmp_path, file, name):
        marker = tmp_path / "marker"
        attack = attacks(marker)[name]
        for fragment in (
            attack,
            dict_of(a=attack),
            dict_of(a=tensor(), b=attack),
            dict_of(epoch=attack, state_dict=dict_of(a=tensor())),
            dict_of(state_dict=dict_of(a=tensor(), b=attack)),
            dict_of(a=tensor(storage=attack)),
            dict_of(a=b"(" + text("storage") + attack + text("0") + text("cpu") + b"K\x18NtQ"),
        ):
            with pytest.raises(ValueError, match=r"the pickle uses"):
                read(file(as_pickle(fragment)))
        assert not marker.exists()

    def test_are_refused_in_every_pickle_of_the_old_format(self, read, tmp_path, name):
        marker = tmp_path / "marker"
        attack = as_pickle(attacks(marker)[name])
        parts = [
            pickle.dumps(checkpoints.MAGIC, 2),
            pickle.dumps(1001, 2),
            pickle.dumps({"little_endian": True}, 2),
            as_pickle(dict_of(a=tensor())),
            pickle.dumps(["0"], 2),
            struct.pack("<q", 24) + WEIGHT.tobytes(),
        ]
        assert read(b"".join(parts))
        for index in range(1, 5):
            content = b"".join([*parts[:index], attack, *parts[index + 1 :]])
            with pytest.raises(ValueError, match=r"the pickle uses"):
                read(content)
        assert not marker.exists()


class TestRefusalOfInstructions:
    @pytest.mark.parametrize(
        "name",
        [
            "torch.load",
            "torch.hub.load",
            "torch.serialization.load",
            "torch._utils._rebuild_tensor_v2.__globals__",
            "torch._utils._import_dotted_name",
            "torch.FloatStorage.from_file",
            "torch.storage._load_from_bytes",
            "collections.namedtuple",
            "collections.OrderedDict.fromkeys",
            "builtins.getattr",
            "__main__.Model",
        ],
    )
    def test_names_what_is_asked_for(self, read, name):
        module, _, last = name.rpartition(".")
        by_global = f"c{module}\n{last}\n".encode()
        by_stack = text(module) + text(last) + b"\x93"
        for file in FILES.values():
            for fragment in (by_global, by_stack):
                with one_line_error(name, "no code was run"):
                    read(file(as_pickle(dict_of(a=fragment + b")R"))))

    @pytest.mark.parametrize(
        "fragment",
        [
            b"ctorch\nFloatStorage\n" + number(10**12) + b"\x85R",
            b"ccollections\nOrderedDict\n" + number(7) + b"\x85R",
            b"ctorch._utils\n_rebuild_tensor_v2\n)R",
            b"ctorch._utils\n_rebuild_parameter\n)R",
            b"ctorch._utils\n_rebuild_parameter\n" + number(7) + b"\x85R",
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + text("storage") + b"K\x00))tR",
            text("text") + b")R",
            b"N)R",
            tensor() + b")R",
        ],
        ids=[
            *("storage", "ordered_dict", "no_arguments", "no_parameter", "no_tensor"),
            *("no_storage", "text", "none", "tensor"),
        ],
    )
    @in_both_formats
    def test_that_call_what_they_may_not(self, read, file, fragment):
        with refused():
            read(file(as_pickle(dict_of(a=tensor(), b=fragment))))

    @pytest.mark.parametrize(
        "target",
        [b"N", b"K\x07", b")", b"]", text("text"), STORAGE, b"ctorch\nFloatStorage\n"],
        ids=["none", "number", "tuple", "list", "text", "storage", "class"],
    )
    @in_both_formats
    def test_that_set_the_state_of_what_has_none(self, read, file, target):
        state = dict_of(__class__=b"N", __reduce__=b"N")
        with refused():
            read(file(as_pickle(dict_of(a=tensor(), b=target + state + b"b"))))

    @pytest.mark.parametrize(
        "fragment", [b"h\7", b"a", b"s", b"u", b"e", b"t", b"\x87", b"R", b"Q"]
    )
    @in_both_formats
    def test_that_take_what_is_not_there(self, read, file, fragment):
        for before in (b"", b"N", b"(N", b"}(N"):
            with refused():
                read(file(as_pickle(before + fragment)))

    @pytest.mark.parametrize("fragment", [b"0", b"2", b"V1\n", b"F1.5\n", b"P0\n", b"1"])
    @in_both_formats
    def test_that_pytorch_never_writes(self, read, file, fragment):
        with pytest.raises(ValueError, match="the pickle uses the instruction"):
            read(file(as_pickle(b"N" + fragment)))

    @pytest.mark.parametrize(
        "pickle_",
        [
            as_pickle(b"}(Nu"),
            as_pickle(b")Q"),
            as_pickle(b"ctorch._utils\n_rebuild_tensor\n)R"),
            as_pickle(dict_of(a=tensor((2**70,), (0,)))),
            as_pickle(b"X\1\0\0\0\xff"),
        ],
        ids=["half_a_pair", "no_identity", "no_arguments", "too_large", "no_text"],
    )
    @in_both_formats
    def test_that_make_no_sense_are_blamed_on_the_file(self, read, file, pickle_):
        # Not in the words of whatever stumbled over them.
        with one_line_error("the file is damaged"):
            read(file(pickle_))

    def test_that_never_end_are_too(self, read):
        with one_line_error("the file is damaged"):
            read(FILES["zip"](as_pickle(dict_of(a=tensor()))[:-1]))


class TestTensors:
    @pytest.mark.parametrize(
        ("shape", "strides", "offset"),
        [
            ((24,), (1,), 1),
            ((24,), (1,), 2**62),
            ((24,), (1,), 2**70),
            ((), (), 24),
            ((25,), (1,), 0),
            ((2,), (24,), 0),
            ((2**62, 2**62), (2**62, 2**62), 0),
            ((2**70,), (1,), 0),
            ((2**70,), (0,), 0),
            ((2,), (2**70,), 0),
            ((1,), (2**70,), 0),
            ((0,), (1,), 2**40),
            ((0,), (1,), 2**70),
            ((0, 2**70), (1, 1), 0),
            ((1,) * 100, (1,) * 100, 0),
            ((24,), (1,), -1),
            ((-1,), (1,), 0),
            ((-1, -24), (1, 1), 0),
            ((2,), (-1,), 12),
            ((2, 3), (1,), 0),
            ((2,), (1, 1), 0),
            ((True,), (1,), 0),
            ((1.0,), (1,), 0),
            ((None,), (1,), 0),
            (("1",), (1,), 0),
            ((24,), (1,), 0.0),
            ((24,), (1,), None),
        ],
    )
    @in_both_formats
    def test_that_reach_beyond_their_storage_are_refused(self, read, file, shape, strides, offset):
        content = file(as_pickle(dict_of(a=tensor(shape, strides, offset))))
        with little_memory(), refused():
            read(content)

    @pytest.mark.parametrize(
        "storage",
        [
            storage(23),
            storage(25),
            storage(2**60),
            storage(2**62),
            storage(2**70),
            storage(-24),
            storage(24.0),
            storage(None),
            storage("24"),
            storage(kind="torch DoubleStorage"),
            storage(kind="collections OrderedDict"),
            storage(identity="module"),
            storage(key="1"),
            storage(key="../0"),
            text("storage") + b"Q",
            b")Q",
        ],
    )
    @in_both_formats
    def test_of_storages_other_than_they_say_are_refused(self, read, file, storage):
        content = file(as_pickle(dict_of(a=tensor((1,), storage=storage))))
        with little_memory(), refused():
            read(content)

    @in_both_formats
    def test_cannot_see_one_storage_in_two_ways(self, read, file):
        for other in (storage(12, kind="torch DoubleStorage"), storage(12)):
            with one_line_error("in two ways"):
                read(file(as_pickle(dict_of(a=tensor(), b=tensor((1,), storage=other)))))

    def test_of_the_old_format_have_all_of_their_storages(self, read):
        pickle_ = as_pickle(dict_of(a=tensor()))
        for storages in ({}, {"1": WEIGHT}, {"0": WEIGHT, "1": WEIGHT}):
            with one_line_error("its list of storages"):
                read(legacy_of(pickle_, storages))
        for keys in (b"N", text("0"), b"}", b")", b"](" + text("0") + b"]e"):
            old, new = pickle.dumps(["0"], 2), as_pickle(keys)
            with refused():
                read(legacy_of(pickle_, {"0": WEIGHT.ravel()}).replace(old, new))


class TestGreed:
    @pytest.mark.parametrize("value", [NESTED, laughs(60)], ids=["deep", "wide"])
    @in_both_formats
    def test_for_tuples_in_tuples_is_not_served(self, read, file, value):
        # Whatever compares, hashes or prints these runs out of stack, memory or time.
        # Where they are passed over, they do no harm.
        checkpoint = dict_of(epoch=value, state_dict=dict_of(a=tensor(), b=value))
        assert read(file(as_pickle(checkpoint))).keys() == {"a"}
        for fragment in (
            value,
            b"}" + value + tensor() + b"s",
            b"}(" + value + tensor() + b"u",
            dict_of(a=tensor(storage=value)),
            dict_of(a=tensor(storage=value + b"Q")),
            dict_of(a=tensor(storage=b"(" + text("storage") + value + b"h\0NNNtQ")),
            dict_of(a=tensor(storage=b"(" + value + b"NNNNNtQ")),
            dict_of(a=value + b")R"),
            dict_of(a=b"ccollections\nOrderedDict\n" + value + b"R"),
            dict_of(a=value + value + b"\x93"),
            dict_of(a=value + b"}b"),
        ):
            with refused():
                read(file(as_pickle(fragment)))

    # 20 times show it, without taking the machine along when the test fails.
    @pytest.mark.parametrize("value", [NESTED, laughs(20)], ids=["deep", "wide"])
    def test_is_not_served_by_any_pickle_of_the_old_format(self, read, value):
        magic, version = pickle.dumps(checkpoints.MAGIC, 2), pickle.dumps(1001, 2)
        machine = pickle.dumps({"little_endian": True}, 2)
        checkpoint = as_pickle(dict_of(a=tensor()))
        for parts in (
            [as_pickle(value), machine, checkpoint],
            [version, as_pickle(value), checkpoint],
            [version, machine, checkpoint, as_pickle(value)],
            [version, machine, checkpoint, as_pickle(b"](" + value + b"e")],
        ):
            with refused():
                read(b"".join([magic, *parts, bytes(1000)]))
            if value != NESTED:
                with little_memory(), refused():
                    read(b"".join([magic, *parts, bytes(1000)]))

    @pytest.mark.parametrize("power", [16, 31, 40, 62, 63])
    @in_both_formats
    def test_for_long_strings_is_not_served(self, read, file, power):
        length = struct.pack("<Q", 2**power)
        # BINUNICODE, BINSTRING, BINBYTES and LONG4; then with lengths of eight bytes.
        claims = [code + length[:4] for code in (b"X", b"T", b"B", b"\x8b")]
        claims += [code + length for code in (b"\x8d", b"\x8e", b"\x96")]
        for claim in claims:
            with little_memory(), refused():
                read(file(as_pickle(dict_of(a=tensor(), b=claim + b"text"))))

    @in_both_formats
    def test_for_a_long_memo_is_not_served(self, read, file):
        far = b"\xff\xff\xff\xff"
        content = file(as_pickle(dict_of(a=tensor() + b"r" + far, b=b"j" + far)))
        with little_memory():
            np.testing.assert_array_equal(read(content)["b"], WEIGHT.ravel())

    def test_for_numbers_that_hash_alike_is_not_served(self, read):
        # In a dict, each of them is compared with all before it: ten times as many take 100 times
        # as long.
        modulus = sys.hash_info.modulus
        keys = b"".join(number(each * modulus) + b"N" for each in range(1, 30_000))
        checkpoint = dict_of(optimizer=b"}(" + keys + b"u", state_dict=dict_of(a=tensor()))
        started = time.monotonic()
        with contextlib.suppress(ValueError):
            read(FILES["zip"](as_pickle(checkpoint)))
        assert time.monotonic() - started < 2


class TestTars:
    """The format before PyTorch 0.1.10, of the first files that torchvision published."""

    # What `as_tar` makes of {"a": WEIGHT}, part by part.
    KEY = 94300000000000
    PARTS = {  # noqa: RUF012
        "sys_info": as_pickle(dict_of(little_endian=b"\x88")),
        "pickle": as_pickle(dict_of(a=text(str(KEY)) + b"Q")),
        "tensors": (
            as_pickle(b"K\1")
            + as_pickle(b"(" + number(KEY) + number(7) + b"ctorch\nFloatTensor\nt")
            + struct.pack("<8q", 3, 2, 3, 4, 12, 4, 1, 0)
        ),
        "storages": (
            as_pickle(b"K\1")
            + as_pickle(b"(" + number(7) + text("cpu") + b"ctorch\nFloatStorage\nt")
            + struct.pack("<q", 24)
            + WEIGHT.tobytes()
            + as_pickle(b"]")
        ),
    }

    def test_are_read(self, read):
        tensors = {name: array for name, array in TENSORS.items() if array.base is None}
        parameters = {name: Parameter(array) for name, array in tensors.items()}
        for checkpoint in (tensors, parameters, OrderedDict(tensors), {"state_dict": parameters}):
            assert_same(read(as_tar(checkpoint)), tensors)
        assert_same(read(tar_of(self.PARTS)), {"a": WEIGHT})

    @pytest.mark.parametrize("part", PARTS)
    @pytest.mark.parametrize("name", attacks(""))
    @pytest.mark.usefixtures("extension")
    def test_with_an_attack_are_refused(self, read, tmp_path, name, part):
        marker = tmp_path / "marker"
        content = self.PARTS[part]
        attack = as_pickle(attacks(marker)[name])
        behind_the_count = content.replace(as_pickle(b"K\1"), as_pickle(b"K\1") + attack)
        for hostile in {attack + content, behind_the_count} - {content}:
            with pytest.raises(ValueError, match=r"the pickle uses"):
                read(tar_of({**self.PARTS, part: hostile}))
        assert not marker.exists()

    @pytest.mark.parametrize(
        ("part", "old", "new"),
        [
            ("sys_info", b"\x88", b"\x89"),
            ("pickle", text(str(KEY)), text("7")),
            ("pickle", text(str(KEY)), NESTED),
            ("pickle", b"Q", b""),
            ("tensors", as_pickle(b"K\1"), as_pickle(b"K\2")),
            ("tensors", as_pickle(b"K\1"), as_pickle(number(2**60))),
            ("tensors", as_pickle(b"K\1"), as_pickle(b"N")),
            ("tensors", number(KEY), NESTED),
            ("tensors", number(7), number(8)),
            ("tensors", number(7), b")"),
            ("tensors", struct.pack("<q", 3), struct.pack("<q", -1)),
            ("tensors", struct.pack("<q", 3), struct.pack("<q", 2**31 - 1)),
            ("tensors", struct.pack("<q", 3), struct.pack("<q", 100)),
            ("tensors", struct.pack("<3q", 12, 4, 1), struct.pack("<3q", 12, 4, 2)),
            ("tensors", struct.pack("<3q", 12, 4, 1), struct.pack("<3q", 12, 4, -1)),
            ("tensors", struct.pack("<3q", 12, 4, 1), struct.pack("<3q", 2**62, 2**62, 2**62)),
            ("tensors", struct.pack("<2q", 1, 0), struct.pack("<2q", 1, 1)),
            ("tensors", struct.pack("<2q", 1, 0), struct.pack("<2q", 1, -1)),
            ("storages", as_pickle(b"K\1"), as_pickle(b"K\0")),
            ("storages", as_pickle(b"K\1"), as_pickle(b"K\3")),
            ("storages", number(7), NESTED),
            ("storages", b"FloatStorage", b"FloatTensor"),
            ("storages", struct.pack("<q", 24), struct.pack("<q", 23)),
            ("storages", struct.pack("<q", 24), struct.pack("<q", 2**62)),
            ("storages", struct.pack("<q", 24), struct.pack("<q", -24)),
        ],
    )
    def test_that_lie_are_refused(self, read, part, old, new):
        assert old in self.PARTS[part]
        changed = self.PARTS[part].replace(old, new)
        with refused():
            read(tar_of({**self.PARTS, part: changed}))

    @pytest.mark.parametrize("part", PARTS)
    def test_without_a_part_are_refused(self, read, part):
        with refused():
            read(tar_of({name: content for name, content in self.PARTS.items() if name != part}))

    def test_that_were_cut_are_refused(self, read):
        content = tar_of(self.PARTS)
        end = content.index(WEIGHT.tobytes()) + WEIGHT.nbytes
        for length in range(0, end, 61):
            with refused():
                read(content[:length])

    @pytest.mark.parametrize(
        ("kind", "content"),
        [
            (tarfile.XHDTYPE, b"9 a=bcde\n"),
            (tarfile.GNUTYPE_LONGNAME, b"name"),
            (tarfile.GNUTYPE_LONGLINK, b"name"),
        ],
        ids=["pax", "long_name", "long_link"],
    )
    def test_of_headers_that_never_end_are_refused(self, read, kind, content):
        info = tarfile.TarInfo("name")
        info.type, info.size = kind, len(content)
        header = info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0")
        with refused():
            read(header * 3000)

    @pytest.mark.parametrize("content", [b"1" * 2**16, b"9 " + b"a" * 2**16])
    def test_of_a_header_that_is_slow_to_read_are_not_waited_for(self, read, content):
        info = tarfile.TarInfo("name")
        info.type, info.size = tarfile.XHDTYPE, len(content)
        started = time.monotonic()
        with contextlib.suppress(ValueError):
            read(info.tobuf(tarfile.USTAR_FORMAT) + content + tar_of(self.PARTS))
        assert time.monotonic() - started < 1


# Where the fields of a member's header lie in the directory. In the other header, before the
# member's bytes, most of them lie two bytes earlier.
FLAGS, METHOD, CHECKSUM, SIZES, NAME_LENGTH, EXTRA_LENGTH = 8, 10, 16, 20, 28, 30
ATTRIBUTES, OFFSET = 38, 42
HEADERS = {"central": (rb"PK\x01\x02", 46, 0), "local": (rb"PK\x03\x04", 30, 2)}


def changed(content, header, name, field, value):
    """An archive with another value in a field of a member's header."""
    signature, length, earlier = HEADERS[header]
    pattern = b"%s.{%d}%s" % (signature, length - 4, name.encode())
    start = re.search(pattern, content, re.DOTALL).start() + field - earlier
    return content[:start] + value + content[start + len(value) :]


def short(value):
    return struct.pack("<H", value)


def long(*values):
    return struct.pack(f"<{len(values)}I", *values)


def deflated_zeros(size):
    """So many zeros as ZIP compresses them, and their checksum."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block, checksum = bytes(2**20), 0
    part = compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size // len(block)):
        checksum = zlib.crc32(block, checksum)
    return part * (size // len(block)) + compressor.flush(), checksum


class TestArchives:
    ARRAYS = {"a": WEIGHT, "b": WEIGHT + 1}  # noqa: RUF012
    CONTENT = as_zip(ARRAYS, root="a")

    def test_have_the_fields_where_these_tests_change_them(self):
        with zipfile.ZipFile(io.BytesIO(self.CONTENT)) as archive:
            info = archive.getinfo("a/data/1")
        for field, value in (
            (METHOD, short(info.compress_type)),
            (CHECKSUM, long(info.CRC)),
            (SIZES, long(info.compress_size, info.file_size)),
            (NAME_LENGTH, short(len(info.filename))),
            (EXTRA_LENGTH, short(len(info.extra))),
        ):
            for header in HEADERS:
                assert changed(self.CONTENT, header, info.filename, field, value) == self.CONTENT
        offset = long(info.header_offset)
        assert changed(self.CONTENT, "central", info.filename, OFFSET, offset) == self.CONTENT

    @pytest.mark.parametrize("name", ["a/data.pkl", "a/data/0"])
    def test_that_are_compressed_are_not_unpacked(self, read, tmp_path, name):
        compressed, checksum = deflated_zeros(2**30)
        pickle_ = as_pickle(dict_of(a=tensor(storage=storage(2**28))))
        content = zip_of({"a/data.pkl": pickle_, "a/data/0": b"", name: compressed})
        for header in HEADERS:
            content = changed(content, header, name, METHOD, short(zipfile.ZIP_DEFLATED))
            content = changed(content, header, name, CHECKSUM, long(checksum))
            content = changed(content, header, name, SIZES, long(len(compressed), 2**30))
        with little_memory(), one_line_error(name, "compressed"):
            read(content)
        # Elsewhere it would have become a gigabyte.
        with zipfile.ZipFile(tmp_path / "checkpoint") as archive, archive.open(name) as member:
            assert archive.getinfo(name).file_size == 2**30
            assert member.read(100) == bytes(100)

    @pytest.mark.parametrize("name", ["a/data.pkl", "a/data/1"])
    @pytest.mark.parametrize("header", HEADERS)
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (SIZES, long(1)),
            (SIZES, long(0, 0)),
            (SIZES, long(1, 1)),
            (SIZES, long(2**31, 2**31)),
            (SIZES, long(2**32 - 2, 2**32 - 2)),
            (SIZES, long(2**32 - 1, 2**32 - 1)),
            (SIZES + 4, long(1)),
            (SIZES + 4, long(2**31)),
            (NAME_LENGTH, short(0)),
            (NAME_LENGTH, short(7)),
            (NAME_LENGTH, short(0xFFFF)),
            (EXTRA_LENGTH, short(0)),
            (EXTRA_LENGTH, short(0xFFFF)),
            (CHECKSUM, long(0)),
            (METHOD, short(99)),
        ],
    )
    def test_that_lie_are_refused_or_read_as_they_are(self, read, name, header, field, value):
        content = changed(self.CONTENT, header, name, field, value)
        with little_memory():
            try:
                arrays = read(content)
            except ValueError:
                return
        assert_same(arrays, self.ARRAYS)

    @pytest.mark.parametrize("offset", [0, 1, 64, 2**31, 2**32 - 2, 2**32 - 1])
    def test_that_lie_about_the_place_of_a_member_are_refused(self, read, offset):
        for name in ("a/data.pkl", "a/data/1"):
            content = changed(self.CONTENT, "central", name, OFFSET, long(offset))
            if content != self.CONTENT:
                with little_memory(), refused():
                    read(content)

    def test_that_place_a_member_before_the_file_are_refused(self, read):
        # A directory that says it begins later than it does moves every member to the front. In
        # Python, what lies before the first byte of a file is the end of it: here, a header.
        start = self.CONTENT.rindex(b"PK\5\6")
        (directory,) = struct.unpack_from("<I", self.CONTENT, start + 16)
        shift = 4096
        content = self.CONTENT[: start + 16] + long(directory + shift) + short(300)
        hidden = b"PK\3\4" + bytes(22) + short(0) + short(0) + WEIGHT.tobytes()
        content += hidden.rjust(300)
        for name in ("a/data.pkl", "a/data/0", "a/byteorder", "a/version"):
            (offset,) = struct.unpack_from("<I", content, self.offset_of(content, name))
            content = changed(content, "central", name, OFFSET, long(offset + shift))
        content = changed(content, "central", "a/data/1", OFFSET, long(shift - len(hidden)))
        content = changed(content, "central", "a/data/1", CHECKSUM, long(zlib.crc32(WEIGHT)))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.getinfo("a/data/0").header_offset >= 0
            assert archive.getinfo("a/data/1").header_offset == -len(hidden)
        with refused():
            read(content)

    @staticmethod
    def offset_of(content, name):
        return content.rindex(name.encode()) - 46 + OFFSET

    @pytest.mark.parametrize("flag", [1, 0x20, 0x41])
    def test_that_are_encrypted_or_patched_are_refused_or_read(self, read, flag):
        for name in ("a/data.pkl", "a/data/1"):
            content = changed(self.CONTENT, "central", name, FLAGS, short(flag))
            if flag & 1:
                with one_line_error(name, "encrypted"):
                    read(content)
            else:
                assert_same(read(content), self.ARRAYS)

    def test_with_links_are_refused(self, read):
        link = long((stat.S_IFLNK | 0o777) << 16)
        with one_line_error("'a/data/1'", "symbolic link"):
            read(changed(self.CONTENT, "central", "a/data/1", ATTRIBUTES, link))

    @pytest.mark.parametrize(
        "name", ["../data/1", "/a/data/1", "a/../../1", "..\\data\\1", "a\\data\\1"]
    )
    def test_with_members_outside_of_a_folder_are_refused(self, read, name):
        pickle_, storages = checkpoints.pickled({"a": WEIGHT})
        members = {"a/data.pkl": pickle_, "a/data/0": storages["0"].tobytes()}
        with one_line_error("outside"):
            read(zip_of({**members, name: b""}))

    @pytest.mark.parametrize("name", ["a/data.pkl", "a/data/1"])
    def test_with_a_member_twice_are_refused(self, read, name):
        twin = name[:-1] + "x"
        content = zip_of({twin: b"other", **members_of(self.CONTENT)})
        with one_line_error(name, "twice"):
            read(content.replace(twin.encode(), name.encode()))

    @pytest.mark.parametrize("name", ["a/data.pkl", "a/data/1"])
    def test_with_a_damaged_member_are_refused(self, read, name):
        with zipfile.ZipFile(io.BytesIO(self.CONTENT)) as archive:
            member = archive.read(name)
        damaged = self.CONTENT.replace(member, member[:-9] + b"\x7f" + member[-8:])
        assert damaged != self.CONTENT
        with one_line_error(name, "checksum"):
            read(damaged)

    def test_without_a_member_are_refused(self, read):
        members = members_of(self.CONTENT)
        del members["a/data/1"]
        with one_line_error("'a/data/1' is missing"):
            read(zip_of(members))

    def test_whose_members_overlap_are_refused(self, read):
        # A directory of many members that are one and the same: each would be checked.
        content = as_zip({"a": WEIGHT, "b": WEIGHT.copy()}, root="a")
        (offset,) = struct.unpack_from("<I", content, self.offset_of(content, "a/data/0"))
        with refused():
            read(changed(content, "central", "a/data/1", OFFSET, long(offset)))


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
