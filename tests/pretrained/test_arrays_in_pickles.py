"""Pickles of NumPy arrays, as detectron2 publishes its models: read without running them."""

import io
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from checkpoints import as_arrays, as_legacy, as_zip, zip_of
from errors import one_line_error
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

from keras_resnet.pretrained import readers

WEIGHT = np.arange(24, dtype="float32").reshape(2, 3, 4)

# One of every kind that a model may hold.
ARRAYS = {
    "weight": WEIGHT,
    "transposed": WEIGHT.T,
    "sliced": WEIGHT[:, 1:, ::2],
    "half": np.arange(5, dtype="float16"),
    "double": np.arange(3, dtype="float64"),
    "big_endian": np.arange(3, dtype=">f4"),
    "big_endian_integers": np.arange(3, dtype=">i8"),
    "bools": np.array([True, False]),
    "bytes": np.arange(3, dtype="uint8"),
    "nothing": np.array(7, "int64"),
    "scalar": np.float32(3),
    "integer": np.int64(-3),
    "empty": np.zeros((0, 3), "float32"),
}


@pytest.fixture
def read(tmp_path):
    """Read the bytes of a file."""

    def read_bytes(content):
        path = tmp_path / "model.pkl"
        path.write_bytes(content)
        return readers.read(path)

    return read_bytes


def assert_same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(arrays[name], array)


class NumPy1Pickler(pickle._Pickler):
    """A pickler that names NumPy's functions as they were named before NumPy 2."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_global(self, value, name=None):
        module, name = value.__module__, name or value.__qualname__
        if not module.startswith("numpy._core"):
            return super().save_global(value, name)
        module = module.replace("numpy._core", "numpy.core")
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        return self.memoize(value)

    dispatch[type(pickle.dumps)] = dispatch[type(as_zip)] = save_global


class Python2Pickler(NumPy1Pickler):
    """A pickler that writes bytes and text as Python 2 did."""

    dispatch = NumPy1Pickler.dispatch.copy()

    def save_string(self, value):
        content = value.encode("latin-1") if isinstance(value, str) else value
        short = len(content) < 256
        self.write(
            b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))
        )
        self.write(content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def written(pickler, value, protocol):
    file = io.BytesIO()
    pickler(file, protocol).dump(value)
    return file.getvalue()


class TestReading:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_finds_what_numpy_wrote(self, read, protocol):
        arrays = read(as_arrays(ARRAYS, protocol))
        assert_same(arrays, ARRAYS)
        assert not any(array.flags.writeable for array in arrays.values())

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_finds_what_numpy_1_wrote(self, read, protocol):
        content = written(NumPy1Pickler, {"model": ARRAYS}, protocol)
        assert b"numpy.core" in content
        assert b"_core" not in content
        assert_same(read(content), ARRAYS)

    def test_finds_what_python_2_wrote(self, read):
        content = written(Python2Pickler, {"model": ARRAYS, "__author__": "Python 2"}, 2)
        assert b"_codecs" not in content
        for name, array in pickle.loads(content, encoding="latin1")["model"].items():
            np.testing.assert_array_equal(array, ARRAYS[name])
        assert_same(read(content), ARRAYS)

    def test_needs_no_other_things_around_them(self, read):
        assert_same(read(pickle.dumps(ARRAYS)), ARRAYS)
        some = {"model": ARRAYS, "iteration": 9, "optimizer": {"lr": np.float64(0.1), "x": [1]}}
        assert_same(read(pickle.dumps(some)), ARRAYS)

    @pytest.mark.parametrize("write", [as_zip, as_legacy])
    def test_passes_over_scalars_beside_pytorch_s_tensors(self, read, write):
        # A training script has saved the best accuracy as NumPy computed it.
        best = number(1.5), b"cnumpy.core.multiarray\nscalar\n" + SCALAR
        content = write({"state_dict": {"a": WEIGHT}, "best": 1.5})
        assert best[0] in content
        if write is as_zip:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            members["archive/data.pkl"] = members["archive/data.pkl"].replace(*best)
            content = zip_of(members)
        assert_same(read(content.replace(*best)), {"a": WEIGHT})

    @pytest.mark.parametrize(("protocol", "most"), [(3, 0.1), (4, 0.1), (5, 2.1), (2, 3.1)])
    def test_copies_nothing_that_is_written_as_bytes(self, read, protocol, most):
        # Protocol 2 has no bytes, and protocol 5 writes those of arrays as ones to be changed.
        many = np.arange(2**18, dtype="float32")
        content = as_arrays({"a": many, "b": 2 * many.reshape(2, -1).T}, protocol)
        with little_memory(int(most * len(content))):
            arrays = read(content)
        np.testing.assert_array_equal(arrays["b"].T.ravel(), 2 * many)

    def test_of_one_array_twice_copies_nothing(self, read):
        for protocol in (2, 3, 5):
            arrays = read(as_arrays({"a": WEIGHT, "b": WEIGHT}, protocol))
            assert np.shares_memory(arrays["a"], arrays["b"])


class TestRefusal:
    @pytest.mark.parametrize(
        "array",
        [
            np.array([None, {}], object),
            np.array(["text"]),
            np.array([b"text"]),
            np.array([1j]),
            np.zeros(2, "f4,i4"),
            np.array(["2020-01-01"], "M8[D]"),
            np.zeros(2, "longdouble"),
        ],
        ids=["object", "text", "bytes", "complex", "fields", "date", "longdouble"],
    )
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_of_arrays_of_other_things(self, read, array, protocol):
        with one_line_error("the pickle has an array of data type", "no code was run"):
            read(as_arrays({"a": array}, protocol))

    def test_of_arrays_of_a_class_of_their_own(self, read):
        with one_line_error("no code was run"):
            read(as_arrays({"a": np.ma.masked_array([1.0])}))

    def test_of_files_of_detectron_1(self, read):
        with one_line_error("Detectron 1 (Caffe2)", "detectron2's model"):
            read(pickle.dumps({"blobs": {"conv1_w": WEIGHT}, "cfg": "text"}, 2))

    @pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": {"a": [1.0]}}, [WEIGHT], 7])
    def test_of_what_holds_none(self, read, content):
        with refused():
            read(pickle.dumps(content, 3))

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_of_a_file_that_was_cut(self, read, protocol):
        content = as_arrays({"a": WEIGHT, "b": WEIGHT.T, "c": np.float64(1)}, protocol)
        for length in range(0, len(content), 5):
            with refused():
                read(content[:length])


def content_of(data):
    """The bytes of an array."""
    return b"B" + struct.pack("<I", len(data)) + data


def dtype(name="f4", order="<", state=None):
    if state is None:
        state = b"(K\3" + text(order) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t"
    return b"cnumpy\ndtype\n" + text(name) + b"\x89\x88\x87R" + state + b"b"


NEW = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"


def array(shape=(24,), kind=None, content=None, fortran=b"\x89", new=NEW):
    kind = dtype() if kind is None else kind
    content = content_of(WEIGHT.tobytes()) if content is None else content
    return new + b"(K\1" + numbers(shape) + kind + fortran + content + b"tb"


def buffer(shape=(24,), kind=None, content=None, order="C"):
    kind = dtype() if kind is None else kind
    content = content_of(WEIGHT.tobytes()) if content is None else content
    head = b"cnumpy._core.numeric\n_frombuffer\n("
    return head + content + kind + numbers(shape) + text(order) + b"tR"


SCALAR = dtype("f8") + content_of(np.float64(1.5).tobytes()) + b"\x86R"
MAKERS = {"reconstruct": array, "frombuffer": buffer}
both = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


class TestInstructions:
    @both
    def test_make_an_array(self, read, make):
        content = as_pickle(dict_of(a=make(), b=make((2, 3, 4))))
        assert_same(read(content), {"a": WEIGHT.ravel(), "b": WEIGHT})
        assert_same(pickle.loads(content), {"a": WEIGHT.ravel(), "b": WEIGHT})

    @pytest.mark.usefixtures("extension")
    @pytest.mark.parametrize("name", attacks(""))
    def test_of_an_attack_are_refused_wherever_they_are(self, read, tmp_path, name):
        marker = tmp_path / "marker"
        attack = attacks(marker)[name]
        as_dtype = b"cnumpy\ndtype\n" + attack + b"\x89\x88\x87R"
        for fragment in (
            attack,
            dict_of(model=dict_of(a=array(), b=attack)),
            dict_of(a=array(new=attack)),
            dict_of(a=array(new=NEW.replace(b"cnumpy\nndarray\n", attack))),
            dict_of(a=array(kind=attack)),
            dict_of(a=array(kind=as_dtype)),
            dict_of(a=array(kind=dtype(state=attack))),
            dict_of(a=array(fortran=attack)),
            dict_of(a=array(content=attack)),
            dict_of(a=array() + attack + b"b"),
            dict_of(a=buffer(content=attack)),
            dict_of(a=array(content=b"c_codecs\nencode\n" + attack + text("latin1") + b"\x86R")),
            dict_of(a=array(content=b"c_codecs\nencode\n" + text("a") + attack + b"\x86R")),
        ):
            with pytest.raises(ValueError, match=r"the pickle uses"):
                read(as_pickle(fragment))
        assert not marker.exists()

    @pytest.mark.parametrize(
        "name",
        [
            "numpy.load",
            "numpy.fromfile",
            "numpy.memmap",
            "numpy.frombuffer",
            "numpy.ndarray.tofile",
            "numpy.core.multiarray.fromfile",
            "numpy._core.multiarray.array",
            "numpy.core.multiarray.ndarray",
            "numpy.ctypeslib.load_library",
            "numpy.f2py.run_main",
            "numpy.testing._private.utils.runstring",
            "_codecs.decode",
            "_codecs.lookup",
            "codecs.open",
            "builtins.bytearray",
            "builtins.open",
            "_pickle.loads",
        ],
    )
    def test_of_other_names_are_refused(self, read, name):
        module, _, last = name.rpartition(".")
        for named in (f"c{module}\n{last}\n".encode(), text(module) + text(last) + b"\x93"):
            for call in (named + b")R", named + text("file") + b"\x85R"):
                with one_line_error(name[:80], "no code was run"):
                    read(as_pickle(dict_of(a=array(), b=call)))

    @pytest.mark.parametrize(
        "fragment",
        [
            b"cnumpy\nndarray\n)R",  # may be named, but not called
            b"cnumpy\nndarray\nM\xff\xff\x85R",
            b"cnumpy\ndtype\n)R",
            b"cnumpy\ndtype\n" + text("f4") + text("align") + b"\x86R",
            b"cnumpy\ndtype\n" + number(4) + b"\x85R",
            b"cnumpy\ndtype\ncnumpy\nndarray\n\x85R",
            NEW.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
            NEW.replace(b"cnumpy\nndarray\n", b"N"),
            NEW.replace(b"K\0\x85", b"J\xff\xff\xff\x7f\x85"),
            NEW.replace(b"K\0\x85", NESTED),
            b"cnumpy.core.multiarray\n_reconstruct\n)R",
            b"cnumpy.core.multiarray\nscalar\n)R",
            b"cnumpy.core.multiarray\nscalar\n" + dtype() + content_of(bytes(8)) + b"\x86R",
            b"cnumpy.core.multiarray\nscalar\n" + dtype() + b"N\x86R",
            b"c_codecs\nencode\n)R",
            b"c_codecs\nencode\n" + text("a") + b"\x85R",
            b"c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R",
            b"c_codecs\nencode\n" + text("\u0100") + text("latin1") + b"\x86R",
            b"c_codecs\nencode\n" + NESTED + text("latin1") + b"\x86R",
            b"cbuiltins\nbytes\n" + number(2**40) + b"\x85R",
            array() + b"(K\1" + numbers((24,)) + dtype() + b"\x89" + content_of(bytes(96)) + b"tb",
            array() + b"}b",
            dtype() + b"}b",
            dtype(state=b")"),
            dtype(state=b"(K\3" + text("x") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t"),
            dtype(state=b"(K\3" + text("<") + b"N))J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t"),
            dtype(state=b"(K\3" + NESTED + b"NNNt"),
        ],
    )
    def test_that_call_what_they_may_not_are_refused(self, read, fragment):
        with little_memory(2**23), refused():
            read(as_pickle(dict_of(a=array(), b=fragment)))

    @pytest.mark.parametrize("fragment", [NEW, dtype()], ids=["array", "dtype"])
    def test_that_make_no_array_are_passed_over(self, read, fragment):
        assert read(as_pickle(dict_of(a=array(), b=fragment))).keys() == {"a"}


class TestArrays:
    @pytest.mark.parametrize(
        "shape",
        [
            (23,),
            (25,),
            (),
            (2**62,),
            (2**62, 2**62),
            (2**70,),
            (0,),
            (0, 2**70),
            (2**70, 0),
            (-24,),
            (-1, -24),
            (24.0,),
            (True,),
            (None,),
            ("24",),
            (24,) + (1,) * 64,
        ],
    )
    @both
    def test_of_other_sizes_than_their_bytes_are_refused(self, read, make, shape):
        with little_memory(), refused():
            read(as_pickle(dict_of(a=make(shape))))

    @pytest.mark.parametrize("content", [b"N", b"K\7", b")", NESTED, text(""), b"]", dtype()])
    @both
    def test_of_other_things_than_bytes_are_refused(self, read, make, content):
        with refused():
            read(as_pickle(dict_of(a=make(content=content))))

    @pytest.mark.parametrize("kind", [b"N", text("f4"), b")", NESTED, b"cnumpy\nndarray\n"])
    @both
    def test_of_other_things_than_types_are_refused(self, read, make, kind):
        with refused():
            read(as_pickle(dict_of(a=make(kind=kind))))

    @pytest.mark.parametrize("name", ["f8", "f2", "O", "V4", "S4", "", "f4,f4", "(2,)f4", "x"])
    @both
    def test_of_other_types_than_their_bytes_are_refused(self, read, make, name):
        with little_memory(), refused():
            read(as_pickle(dict_of(a=make(kind=dtype(name)))))

    @both
    def test_that_claim_long_bytes_take_no_memory(self, read, make):
        for power in (16, 31, 40, 62, 63):
            length = struct.pack("<Q", 2**power)
            for claim in (b"B" + length[:4], b"T" + length[:4], b"\x8e" + length, b"\x96" + length):
                with little_memory(), refused():
                    read(as_pickle(dict_of(a=make(content=claim + b"text"))))

    def test_share_the_bytes_of_a_string_however_many_they_are(self, read):
        # Each would be a copy of a megabyte.
        string = text("\0" * 2**20) + b"q\1"
        first = array((2**18,), content=string)
        others = {f"b{each}": array((2**18,), content=b"h\1") for each in range(100)}
        encoded = b"c_codecs\nencode\nh\1" + text("latin1") + b"\x86R"
        more = {f"c{each}": array((2**18,), content=encoded) for each in range(100)}
        content = as_pickle(dict_of(a=first, **others, **more))
        with little_memory(2**23):
            arrays = read(content)
        assert len(arrays) == 201
        assert all(np.shares_memory(arrays["a"], each) for each in arrays.values())

    @pytest.mark.parametrize("value", [NESTED, laughs(60)], ids=["deep", "wide"])
    def test_of_tuples_in_tuples_are_refused(self, read, value):
        for fragment in (
            array(shape=()).replace(b"(t", value),
            NEW + value + b"b",
            array(fortran=value),
            b"cnumpy\ndtype\n" + value + b"R",
            b"cnumpy\ndtype\n" + value + b"\x85R",
            dtype() + value + b"b",
        ):
            started = time.monotonic()
            with refused():
                read(as_pickle(dict_of(a=fragment)))
            assert time.monotonic() - started < 2
