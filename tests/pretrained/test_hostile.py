"""Files that are damaged, or made to do damage: a net gets all its weights from them, or none."""

import os
import struct
import subprocess
import sys
import tracemalloc
import warnings

import h5py
import numpy as np
import onednn
import pytest
from checkpoints import WRITERS, as_legacy, as_safetensors, as_zip, write_keras_2
from errors import one_line_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_resnet.pretrained import load_state_dict, load_weights, to_torch
from keras_resnet.resnet import resnet

NET = resnet((1, 1), "basic", (4, 8), input_shape=(8, 8, 3), classes=4, name="small")
WEIGHTS = [
    np.random.default_rng(seed).normal(size=weight.shape).astype("float32")
    for seed, weight in enumerate(NET.weights)
]
FRESH = [np.full(weight.shape, -1, "float32") for weight in NET.weights]

PYTORCH = {"zip": as_zip, "legacy": as_legacy, "safetensors": as_safetensors}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Files of the same weights, as bytes, by their suffix."""
    NET.set_weights(WEIGHTS)
    folder = tmp_path_factory.mktemp("files")
    for suffix, write in WRITERS.items():
        write(folder / f"net{suffix}", NET)
    return {suffix: (folder / f"net{suffix}").read_bytes() for suffix in WRITERS}


@pytest.fixture
def net():
    NET.set_weights(FRESH)
    return NET


@pytest.fixture
def limited_memory():
    """Two gigabytes more, where the system can be told: a failure must not take it along."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def holds(arrays):
    """Whether the net holds these weights, bit for bit."""
    return all(
        ours.tobytes() == array.tobytes()
        for ours, array in zip(NET.get_weights(), arrays, strict=True)
    )


def load_all_or_nothing(path):
    """Try to load a file that may be damaged; returns whether it was loaded."""
    try:
        with warnings.catch_warnings():
            # Numbers may have become NaN.
            warnings.simplefilter("ignore", RuntimeWarning)
            load_weights(NET, path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"weights={str(path)!r}: "), message
        assert len(message.splitlines()) == 1, message
        assert holds(FRESH)
        return False
    return True


@st.composite
def damages(draw, length):
    """A function that damages so many bytes."""
    place = st.integers(0, length - 1)
    start, end = sorted([draw(place), draw(place)])
    near = min(end, start + draw(st.sampled_from([1, 2, 4, 8, 64])))
    match draw(st.sampled_from(["flip", "set", "insert", "delete", "repeat", "swap", "cut"])):
        case "flip":
            places = draw(st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=8))

            def damage(content):
                changed = bytearray(content)
                for index, mask in places:
                    changed[index] ^= mask
                return bytes(changed)

            return damage
        case "set":
            # The values that lengths, counts and addresses are least ready for.
            some = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80", b"\1"]))
            return lambda content: content[:start] + some * (near - start) + content[near:]
        case "insert":
            some = draw(st.binary(min_size=1, max_size=64))
            return lambda content: content[:start] + some + content[start:]
        case "delete":
            return lambda content: content[:start] + content[near:]
        case "repeat":
            return lambda content: content[:near] + content[start:near] + content[near:]
        case "swap":
            size = min(near - start, length - end)
            return lambda content: b"".join(
                [
                    *(content[:start], content[end : end + size], content[start + size : end]),
                    *(content[start : start + size], content[end + size :]),
                ]
            )
        case "cut":
            return lambda content: content[:end]


@pytest.mark.usefixtures("limited_memory")
@pytest.mark.parametrize("suffix", WRITERS)
class TestDamagedFiles:
    def test_are_loaded_where_there_is_no_damage(self, net, contents, tmp_path, suffix):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(contents[suffix])
        load_weights(net, path)
        assert holds(WEIGHTS)

    # Always the same examples: a file that stops libhdf5 would stop the tests.
    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_are_loaded_as_a_whole_or_refused(self, net, contents, tmp_path, suffix, data):
        path = tmp_path / f"net{suffix}"
        content = contents[suffix]
        path.write_bytes(data.draw(damages(len(content)), "damage")(content))
        if load_all_or_nothing(path):
            NET.set_weights(FRESH)

    def test_are_refused_where_they_were_cut(self, net, contents, tmp_path, suffix):
        path = tmp_path / f"net{suffix}"
        content = contents[suffix]
        for length in [*(len(content) * tenth // 10 for tenth in range(10)), len(content) - 1]:
            path.write_bytes(content[:length])
            if load_all_or_nothing(path):
                # Only padding was cut.
                assert holds(WEIGHTS)
                NET.set_weights(FRESH)


class TestNumbers:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        ("suffix", "name"),
        [
            (".pth", "layer2.0.bn1.bias"),
            (".th", "layer2.0.bn1.bias"),
            (".safetensors", "layer2.0.bn1.bias"),
            (".h5", "conv3_block1_1_bn/beta"),
            (".weights.h5", "layers/batch_normalization_3/vars/1"),
            (".keras", "layers/batch_normalization_3/vars/1"),
        ],
    )
    def test_that_are_none_are_loaded_with_a_warning(self, net, tmp_path, suffix, name, value):
        layer = net.get_layer("conv3_block1_1_bn")
        layer.beta.assign([0, 0, 0, value, 0, 0, 0, 0])
        path = tmp_path / f"net{suffix}"
        WRITERS[suffix](path, net)
        net.set_weights(FRESH)
        with pytest.warns(RuntimeWarning, match=f"NaN or infinity in {name}") as caught:
            load_weights(net, path)
        assert "\n" not in str(caught[0].message)
        np.testing.assert_array_equal(layer.beta, [0, 0, 0, value, 0, 0, 0, 0])

    def test_that_are_none_are_blamed_on_who_loads_them(self, net, tmp_path):
        net.get_layer("conv1_bn").beta.assign([np.nan] * 4)
        state = to_torch(net)
        path = tmp_path / "net.pth"
        path.write_bytes(as_zip(state))
        for load in (lambda: load_weights(net, path), lambda: load_state_dict(net, state)):
            with pytest.warns(RuntimeWarning, match="NaN") as caught:
                load()
            assert caught[0].filename == __file__

    @pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
    @pytest.mark.parametrize("write", PYTORCH.values(), ids=PYTORCH)
    def test_that_are_whole_are_refused(self, net, tmp_path, write, dtype):
        path = tmp_path / "net"
        state = to_torch(net)
        path.write_bytes(write({**state, "fc.weight": np.ones((4, 8), dtype)}))
        with one_line_error(f"weights={str(path)!r}: fc.weight", "not floating-point numbers"):
            load_weights(net, path)
        assert holds(FRESH)

    def test_of_whole_numbers_in_hdf5_are_refused(self, net, tmp_path):
        path = tmp_path / "net.h5"
        write_keras_2(path, net)
        with h5py.File(path, "a") as file:
            del file["predictions/predictions/bias:0"]
            file["predictions/predictions/bias:0"] = np.ones(4, "int64")
        with one_line_error("predictions/bias contains int64"):
            load_weights(net, path)
        assert holds(FRESH)


def run(script, *arguments):
    """Run a script in a process of its own; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, (process.returncode, process.stderr[-2000:])
    return process.stdout


# Reads files, each in a process that may take ten seconds and a gigabyte; prints how it ended, and
# by how many kilobytes its memory grew.
READ = """
import os, resource, signal, sys
from keras_resnet.pretrained import readers

def read(path):
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        readers.read(path)
    except ValueError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

for path in sys.argv[1:]:
    ours, theirs = os.pipe()
    if child := os.fork():
        os.close(theirs)
        grown = os.fdopen(ours).read()
        print(os.path.basename(path), os.waitpid(child, 0)[1], grown or 0)
    else:
        os.write(theirs, b"%d" % read(path))
        os._exit(0)
"""


def plain_hdf5(path):
    """Write a group of two tensors as old as HDF5 writes it; returns the bytes and addresses."""
    with h5py.File(path, "w", libver="earliest") as file:
        for name in ("x/bias", "x/kernel"):
            file[name] = np.ones(4, "float32")
        names = ("x/bias", "x/kernel")
        places = [h5py.h5o.get_info(file[name].id).addr for name in names]
    return bytearray(path.read_bytes()), places


def endless_free_space(path):
    """A group whose list of free space, behind its names, ends where it begins."""
    content, _ = plain_hdf5(path)
    _, free, data = struct.unpack_from("<QQQ", content, content.index(b"HEAP") + 8)
    struct.pack_into("<Q", content, data + free, free)
    return content


def endless_free_space_of_short_numbers(path):
    """The same in a file whose lengths and addresses have four bytes."""
    kind = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    kind.set_sizes(4, 4)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    created = h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, kind, access)
    with h5py.File(created) as file:
        file["x/bias"] = np.ones(4, "float32")
    content = bytearray(path.read_bytes())
    _, free, data = struct.unpack_from("<III", content, content.index(b"HEAP") + 8)
    struct.pack_into("<I", content, data + free, free)
    return content


def endless_text(path):
    """An attribute of text, whose heap ends in an object of no length."""
    with h5py.File(path, "w") as file:
        file["x/bias"] = np.ones(4, "float32")
        file["x/bias"].attrs["dtype"] = "bfloat16"
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    while struct.unpack_from("<H", content, start)[0]:
        start += 16 + -(-struct.unpack_from("<Q", content, start + 8)[0] // 8) * 8
    struct.pack_into("<Q", content, start + 8, 0)
    return content


def tree_in_itself(path):
    """A group whose names lie in a tree that is a branch of itself."""
    content, _ = plain_hdf5(path)
    start = content.rindex(b"TREE")
    content[start + 5] = 1  # a level higher than leaves
    struct.pack_into("<Q", content, start + 32, start)
    return content


def root_in_itself(path):
    """The same with the first group of the file."""
    content, _ = plain_hdf5(path)
    start = content.index(b"TREE")
    content[start + 5] = 1
    struct.pack_into("<Q", content, start + 32, start)
    return content


def tree_beside_itself(path):
    """A group whose tree has itself as its neighbour."""
    content, _ = plain_hdf5(path)
    start = content.rindex(b"TREE")
    struct.pack_into("<Q", content, start + 16, start)
    return content


def share_type(content, place, other):
    """Let a tensor have the type of another one."""
    start = place + 16
    while struct.unpack_from("<H", content, start)[0] != 3:
        start += 8 + struct.unpack_from("<H", content, start + 2)[0]
    content[start + 4] |= 2
    struct.pack_into("<BBQ", content, start + 8, 3, 2, other)


def type_of_itself(path):
    """A tensor whose type is said to be that of itself."""
    content, places = plain_hdf5(path)
    share_type(content, places[0], places[0])
    return content


def types_of_each_other(path):
    """Two tensors, each of which is said to have the type of the other."""
    content, places = plain_hdf5(path)
    share_type(content, places[0], places[1])
    share_type(content, places[1], places[0])
    return content


CIRCLES = (
    *(endless_free_space, endless_free_space_of_short_numbers, endless_text, tree_in_itself),
    *(root_in_itself, tree_beside_itself, type_of_itself, types_of_each_other),
)


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    """How reading each of these files ended, and how much memory it took."""
    folder = tmp_path_factory.mktemp("circles")
    for write in CIRCLES:
        path = folder / write.__name__
        path.write_bytes(write(path))
    lines = run(READ, *(folder / write.__name__ for write in CIRCLES)).splitlines()
    return {name: (int(status), int(grown)) for name, status, grown in map(str.split, lines)}


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
class TestCircles:
    """On these, the HDF5 library overruns its stack, takes all memory, or never ends."""

    @pytest.mark.parametrize("write", CIRCLES, ids=[each.__name__ for each in CIRCLES])
    def test_come_to_an_end(self, endings, write):
        status, grown = endings[write.__name__]
        assert status == 0, f"ended by signal {status & 127}"
        assert grown < 50_000


class TestMemory:
    @pytest.mark.usefixtures("limited_memory")
    def test_is_not_taken_by_a_tensor_that_claims_it(self, net, tmp_path):
        # A storage of one number, and tensors of 67 million over it: legal, and a quarter of a
        # gigabyte as soon as something is computed from them.
        huge = np.broadcast_to(np.float32(1), (2**26,))
        names = ["conv1_conv/bias", "conv1_bn/moving_mean", "conv1_bn/moving_variance"]
        names += ["conv1.weight", "bn1.weight", "fc.bias"]
        path = tmp_path / "net.pth"
        for write in (as_zip, as_legacy):
            path.write_bytes(write(dict.fromkeys(names, huge)))
            tracemalloc.start()
            try:
                assert not load_all_or_nothing(path)
                assert tracemalloc.get_traced_memory()[1] < 2**24
            finally:
                tracemalloc.stop()

    @pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs /proc")
    def test_for_a_file_is_less_than_one_and_a_half_times_the_file(self, tmp_path):
        for line in run(LOAD, tmp_path).splitlines():
            _, size, peak = line.split()
            assert int(size) > 90e6
            # Without oneDNN, TensorFlow has kept no memory that the variables could go into.
            assert int(peak) < (1.5 if onednn.IS_ON else 2.0) * int(size), line


# Loads files of 100 MB, and prints by how much the peak of the memory grew with each.
LOAD = """
import gc, pathlib, sys
from checkpoints import as_arrays, as_legacy, as_safetensors, as_zip
from keras_resnet.pretrained import load_weights, to_torch
from keras_resnet.resnet import resnet

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

net = resnet((9,), "basic", (384,), input_shape=(8, 8, 3), classes=4, shortcut="A")
for write in (as_zip, as_legacy, as_safetensors, as_arrays):
    path = pathlib.Path(sys.argv[1], write.__name__)
    path.write_bytes(write(to_torch(net)))
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = kilobytes("VmRSS")
    load_weights(net, path)
    print(write.__name__, path.stat().st_size, 1024 * (kilobytes("VmHWM") - before))
    path.unlink()
"""
