import json
import random
import shutil
import struct
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
from checkpoints import BFLOAT16, WRITERS, as_safetensors, write_keras_2
from errors import one_line_error

import keras_resnet
from keras_resnet.pretrained import (
    load_state_dict,
    load_weights,
    readers,
    state_dict_shapes,
    to_torch,
)
from keras_resnet.resnet import resnet

KERAS_EPSILON = 1.001e-5  # of the BatchNormalizations of keras.applications


def small_net(**options):
    return resnet(
        (1, 1), "basic", (4, 8), input_shape=(8, 8, 3), classes=4, name="small", **options
    )


def drawn(shape, seed):
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype("float32")


NET = small_net()
NET.set_weights([drawn(weight.shape, seed) for seed, weight in enumerate(NET.weights)])
WEIGHTS = NET.get_weights()


@pytest.fixture
def net():
    """A net to load into, of which nothing is loaded yet."""
    NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
    yield NET
    NET.set_weights(WEIGHTS)


def is_loaded(net):
    return all(map(np.array_equal, net.get_weights(), WEIGHTS))


def is_untouched(net):
    return all(np.all(array == -1) for array in net.get_weights())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The weights of the net in every format, by their suffix."""
    paths = {suffix: tmp_path_factory.mktemp("files") / f"net{suffix}" for suffix in WRITERS}
    for suffix, write in WRITERS.items():
        write(paths[suffix], NET)
    return paths


class TestFormats:
    @pytest.mark.parametrize("suffix", WRITERS)
    def test_are_read_bit_for_bit(self, files, net, suffix):
        load_weights(net, files[suffix])
        assert is_loaded(net)

    @pytest.mark.parametrize("suffix", WRITERS)
    @pytest.mark.parametrize(
        "name", ["net.pth", "net.h5", "net.safetensors", "net.keras", "net.txt", "net"]
    )
    def test_are_told_by_what_is_in_a_file_not_by_its_name(
        self, files, net, tmp_path, suffix, name
    ):
        path = tmp_path / name
        shutil.copy(files[suffix], path)
        load_weights(net, str(path))
        assert is_loaded(net)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"P",
            b"PK",
            b"PK\3\4",
            b"PK\5\6" + bytes(18),
            b"\x89HDF\r\n\x1a\n",
            b"\x89HDF\r\n\x1a\n" + bytes(2048),
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            b"\x80\x02}q\x00.",
            b"\x93NUMPY\x01\x00",
            bytes(7) + b"{",
            bytes(8) + b"{",
            b"\x02" + bytes(7) + b"{}",
            b"\xff" * 8 + b"{}",
            b"{}",
            b"<html>Not found</html>",
        ],
    )
    def test_of_nothing_that_is_known_are_refused(self, net, tmp_path, content):
        path = tmp_path / "net.pth"
        path.write_bytes(content)
        with one_line_error(f"weights={str(path)!r}: "):
            load_weights(net, path)
        assert is_untouched(net)

    def test_are_not_seen_in_noise(self, net, tmp_path):
        path = tmp_path / "net.pth"
        draw = random.Random(0)
        for start in (b"", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"\x40" + bytes(7) + b"{", b"\x80\x02"):
            for length in (1, 10, 100, 10_000):
                path.write_bytes(start + draw.randbytes(length))
                with one_line_error(f"weights={str(path)!r}: "):
                    load_weights(net, path)
        assert is_untouched(net)


class TestSafetensors:
    def test_are_read_whatever_their_precision(self, tmp_path):
        path = tmp_path / "net.safetensors"
        # Numbers that bfloat16 holds exactly.
        whole = np.arange(6).reshape(2, 3)
        arrays = {
            name: whole.astype(dtype)
            for name, dtype in zip("abcd", ("float64", "float32", "float16", BFLOAT16), strict=True)
        }
        arrays |= {"scalar": np.array(2.5, "float32"), "empty": np.zeros((0, 3), "float32")}
        path.write_bytes(as_safetensors(arrays))
        tensors = readers.read(path)
        assert tensors.keys() == arrays.keys()
        for name, array in arrays.items():
            tensor = tensors[name]
            assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(np.asarray(tensor), array)

    @pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float64"], ids=str)
    def test_are_loaded_whatever_their_precision(self, net, tmp_path, dtype):
        path = tmp_path / "net.safetensors"
        arrays = {
            name: drawn(shape, 1).astype(dtype) for name, shape in state_dict_shapes(net).items()
        }
        path.write_bytes(as_safetensors(arrays))
        load_weights(net, path)
        loaded = to_torch(net)
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array.astype("float32"))

    @pytest.mark.parametrize("dtype", ["int64", "int8", "bool", "uint16"])
    def test_of_whole_numbers_are_refused(self, net, tmp_path, dtype):
        path = tmp_path / "net.safetensors"
        state = {name: array for name, array in to_torch(net).items() if "num_batches" not in name}
        path.write_bytes(as_safetensors({**state, "fc.bias": np.ones(4, dtype)}))
        with one_line_error("fc.bias", "not floating-point numbers"):
            load_weights(net, path)
        assert is_untouched(net)

    @pytest.mark.parametrize(
        "change",
        [
            {"dtype": "F99"},
            {"dtype": "F8_E4M3"},
            {"shape": [5]},
            {"shape": [2**40]},
            {"shape": [2**63, 2]},
            {"shape": [-4]},
            {"shape": "4"},
            {"data_offsets": [0, 2**40]},
            {"data_offsets": [16, 0]},
            {"data_offsets": [0, 8]},
            {"data_offsets": [8, 24]},
            {"data_offsets": []},
        ],
        ids=str,
    )
    def test_that_claim_what_is_not_there_are_refused(self, tmp_path, change):
        path = tmp_path / "net.safetensors"

        def write(entry):
            header = json.dumps({"a": entry}).encode()
            path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))

        entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
        write(entry)
        assert readers.read(path)["a"].shape == (4,)
        write({**entry, **change})
        with one_line_error("the safetensors file is incomplete or damaged"):
            readers.read(path)

    @pytest.mark.parametrize("length", [0x78, 0x80, 0x180, 0x4B50])
    def test_are_told_whatever_their_first_bytes_are(self, tmp_path, length):
        # A file begins with the length of its header, which may look like the beginning of a pickle
        # or of a ZIP archive.
        path = tmp_path / "net.safetensors"
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
        path.write_bytes(struct.pack("<Q", length) + header.encode().ljust(length) + bytes(4))
        assert readers.read(path)["a"].shape == (1,)


class TestKerasApplications:
    def test_of_it_make_the_same_predictions(self, tmp_path):
        options = dict(input_shape=(64, 64, 3), classes=4, classifier_activation=None)
        theirs = keras.applications.ResNet50(weights=None, **options)
        arrays = [drawn(each.shape, seed) for seed, each in enumerate(theirs.weights)]
        # Kernels on both sides of zero that keep the size of the signal.
        theirs.set_weights(
            [
                (array - 1) * np.sqrt(12 / np.prod(array.shape[:-1])) if array.ndim > 1 else array
                for array in arrays
            ]
        )
        path = tmp_path / "resnet.h5"
        write_keras_2(path, theirs)
        with h5py.File(path) as file:
            assert "conv1_conv/conv1_conv/bias:0" in file
        ours = keras_resnet.ResNet50(weights=path, **options)
        assert ours.preprocessing == "caffe"
        images = drawn((2, 64, 64, 3), 0)
        logits = np.asarray(theirs(images))
        assert np.ptp(logits) > 10
        np.testing.assert_allclose(ours(images), logits, rtol=1e-4, atol=1e-3)

    def test_has_biases_and_an_epsilon_that_are_folded(self, net, tmp_path):
        NET.set_weights(WEIGHTS)
        convolutions = [layer for layer in net.layers if layer.name.endswith("_conv")]
        biases = {layer.name: drawn(layer.filters, seed) for seed, layer in enumerate(convolutions)}
        # So small that the epsilons show.
        tiny = {layer.name: 1e-5 * drawn(layer.filters, 9) for layer in convolutions}
        for layer in convolutions:
            NET.get_layer(layer.name.replace("_conv", "_bn")).moving_variance.assign(
                tiny[layer.name]
            )
        path = tmp_path / "net.h5"
        write_keras_2(path, net, biases)
        NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
        load_weights(net, path)
        expected = dict(zip([weight.path for weight in NET.weights], WEIGHTS, strict=True))
        for layer in convolutions:
            normalization = net.get_layer(layer.name.replace("_conv", "_bn"))
            gamma, beta, mean, _ = (expected[each.path] for each in normalization.weights)
            x = drawn((2, 3, 3, layer.filters), 7)
            deviation = np.sqrt(tiny[layer.name].astype("float64") + KERAS_EPSILON)
            exact = gamma * (x + biases[layer.name] - mean) / deviation + beta
            np.testing.assert_allclose(
                normalization(x, training=False), exact, rtol=2e-5, atol=1e-3
            )

    def test_without_the_classifier_serves_a_net_without_one(self, tmp_path):
        backbone = small_net(include_top=False)
        path = tmp_path / "net_notop.h5"
        names = [layer.name for layer in backbone.layers if layer.name.endswith("_conv")]
        biases = {name: np.zeros(backbone.get_layer(name).filters, "float32") for name in names}
        write_keras_2(path, backbone, biases)
        loaded = load_weights(small_net(include_top=False), path)
        for ours, theirs in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-7)
        with one_line_error("missing", "predictions/"):
            load_weights(small_net(), path)

    def test_into_a_net_of_other_strides_or_preprocessing_is_refused(self):
        def build(**options):
            return resnet((1, 1), filters=(4, 8), input_shape=(32, 32, 3), classes=4, **options)

        net = build(stride_in="1x1")
        tensors = {f"{w.path}": w.numpy() for w in net.weights}
        for layer in net.layers:
            if layer.name.endswith("_conv"):
                tensors[f"{layer.name}/bias"] = np.zeros(layer.filters, "float32")
        load_state_dict(net, tensors)
        assert net.preprocessing == "caffe"
        with one_line_error("state_dict: ", "stride_in='1x1'", "'3x3'"):
            load_state_dict(build(), tensors)
        with one_line_error("state_dict: ", "preprocessing='caffe'", "'torch'"):
            load_state_dict(build(stride_in="1x1", include_preprocessing=True), tensors)

    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_trained_further_has_names_in_a_file_of_the_old_format_alone(self, tmp_path, suffix):
        theirs = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=2)
        path = tmp_path / f"net{suffix}"
        theirs.save(path) if suffix == ".keras" else theirs.save_weights(path)
        options = dict(input_shape=(32, 32, 3), classes=2)
        with one_line_error("keras.applications", "model.save('NAME.h5')"):
            keras_resnet.ResNet50(weights=path, **options)

    def test_with_a_misshapen_bias_is_refused(self, net, tmp_path):
        path = tmp_path / "net.h5"
        write_keras_2(path, net, {"conv1_conv": np.zeros(5, "float32")})
        with one_line_error("conv1_conv/bias", "(5,)"):
            load_weights(net, path)
        assert is_untouched(net)


class TestKeras3:
    @pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
    def test_files_have_the_state_of_an_optimizer_beside_the_weights(self, net, tmp_path, suffix):
        path = tmp_path / f"net{suffix}"
        NET.set_weights(WEIGHTS)
        copy = keras.models.clone_model(NET)
        copy.compile("adam", "mse")
        copy.train_on_batch(np.zeros((1, 8, 8, 3)), np.zeros((1, 4)))
        copy.set_weights(WEIGHTS)
        copy.save(path) if suffix == ".keras" else copy.save_weights(path)
        NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
        load_weights(net, path)
        assert is_loaded(net)

    @pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16"])
    def test_files_of_half_precision_are_read(self, net, tmp_path, policy):
        path = tmp_path / "net.weights.h5"
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            half = small_net()
        finally:
            keras.config.set_dtype_policy(before)
        half.set_weights(WEIGHTS)
        half.save_weights(path)
        load_weights(net, path)
        for ours, theirs in zip(net.get_weights(), half.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs.astype("float32"))
        # And into a net of that precision.
        load_weights(half, path)

    def test_files_are_told_by_the_shapes_of_their_tensors(self, net, tmp_path):
        path = tmp_path / "net.weights.h5"
        resnet((1, 1), "basic", (4, 16), input_shape=(8, 8, 3), classes=4).save_weights(path)
        with one_line_error("for conv3_block1_1_conv/kernel", "(3, 3, 4, 16)", "(3, 3, 4, 8)"):
            load_weights(net, path)
        assert is_untouched(net)

    def test_archives_are_checked(self, files, net, tmp_path):
        path = tmp_path / "net.keras"
        with zipfile.ZipFile(files[".keras"]) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        weights = members["model.weights.h5"]
        for compression, content, part in (
            (zipfile.ZIP_DEFLATED, weights, "compressed"),
            (zipfile.ZIP_STORED, weights[:-100], "HDF5"),
            (zipfile.ZIP_STORED, b"", "HDF5"),
            (zipfile.ZIP_STORED, b"text", "HDF5"),
        ):
            with zipfile.ZipFile(path, "w", compression) as archive:
                archive.writestr("model.weights.h5", content)
            with one_line_error(f"weights={str(path)!r}: ", part):
                load_weights(net, path)
        damaged = files[".keras"].read_bytes().replace(weights, weights[:-1] + b"x")
        path.write_bytes(damaged)
        with one_line_error("checksum"):
            load_weights(net, path)
        assert is_untouched(net)

    def test_archives_with_two_minds_about_a_name_are_refused_or_loaded(self, files, net, tmp_path):
        # The directory of a ZIP archive and the header of a member both say what it is called.
        path = tmp_path / "net.keras"
        name = b"model.weights.h5"
        path.write_bytes(files[".keras"].read_bytes().replace(name, name.upper(), 1))
        try:
            load_weights(net, path)
        except ValueError:
            assert is_untouched(net)
        else:
            assert is_loaded(net)


# What may stand in a file in the place of a tensor: of its shape, so that nothing else is wrong.
PLACE = "predictions/predictions/bias:0"
NUMBERS = np.arange(4, dtype="float32")


def external_link(file, other):
    file[PLACE] = h5py.ExternalLink(other, "numbers")


def soft_link(file, other):
    file["numbers/numbers"] = NUMBERS
    file[PLACE] = h5py.SoftLink("/numbers/numbers")


def dangling_link(file, other):
    file[PLACE] = h5py.SoftLink("/nowhere")


def link_to_itself(file, other):
    file[PLACE] = h5py.SoftLink(f"/{PLACE}")


def external_storage(file, other):
    file.create_dataset(PLACE, (4,), "float32", external=[(other, 0, 16)])


def virtual(file, other):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(other, "numbers", (4,))
    file.create_virtual_dataset(PLACE, layout)


def virtual_of_itself(file, other):
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(".", "conv1_bn/conv1_bn/beta:0", (4,))
    file.create_virtual_dataset(PLACE, layout)


def chunked(file, other):
    file.create_dataset(PLACE, data=NUMBERS, chunks=(2,))


def compressed(file, other):
    file.create_dataset(PLACE, data=NUMBERS, compression="gzip")


def compressed_much(file, other):
    # A gigabyte of zeros, of which the file has a few kilobytes.
    dataset = file.create_dataset(PLACE, (2**28,), "float32", chunks=(2**22,), compression="gzip")
    dataset[: 2**22] = 0


def unallocated(file, other):
    file.create_dataset(PLACE, (4,), "float32")


def unallocated_and_huge(file, other):
    file.create_dataset(PLACE, (2**40,), "float32")


def unallocated_and_filled(file, other):
    file.create_dataset(PLACE, (2**40,), "float32", fillvalue=1.0)


def group(file, other):
    file.create_group(PLACE)


def type_of_data(file, other):
    file[PLACE] = np.dtype("float32")


def group_in_itself(file, other):
    file[PLACE] = NUMBERS
    file["predictions/predictions/again"] = file["predictions"]


def groups_in_each_other(file, other):
    # As many paths as 2 to the power of 60.
    file[PLACE] = NUMBERS
    for depth in range(60):
        file.create_group(f"deep/{depth}")
    for depth in range(59):
        for name in "ab":
            file[f"deep/{depth}/{name}"] = file[f"deep/{depth + 1}"]


HOSTILE = (
    *(external_link, soft_link, dangling_link, link_to_itself, external_storage, virtual),
    *(virtual_of_itself, chunked, compressed, compressed_much, unallocated, unallocated_and_huge),
    *(unallocated_and_filled, group, type_of_data, group_in_itself, groups_in_each_other),
)


class TestHDF5:
    @pytest.mark.parametrize("add", HOSTILE, ids=[each.__name__ for each in HOSTILE])
    def test_of_more_than_tensors_is_refused(self, net, tmp_path, add):
        other = tmp_path / "other.h5"
        with h5py.File(other, "w") as file:
            file["numbers"] = NUMBERS
        path = tmp_path / "net.h5"
        write_keras_2(path, net)
        with h5py.File(path, "a") as file:
            del file[PLACE]
            file[PLACE] = NUMBERS
        load_weights(net, path)
        np.testing.assert_array_equal(net.get_layer("predictions").bias, NUMBERS)
        NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])

        with h5py.File(path, "a") as file:
            del file[PLACE]
            add(file, str(other))
        tracemalloc.start()
        try:
            with one_line_error(f"weights={str(path)!r}: "):
                load_weights(net, path)
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()
        assert is_untouched(net)

    @pytest.mark.parametrize(
        "value",
        [
            "text",
            [b"text", b"more"],
            np.array([(1, 2.0)], "i4,f4"),
            np.ones(4, "complex64"),
            np.ones(4, "bool"),
            np.ones(4, "int32"),
            np.array([["a", "bc"]], h5py.string_dtype()),
            h5py.Empty("float32"),
            np.float32(1),
        ],
        ids=["text", "bytes", "compound", "complex", "bool", "int", "strings", "empty", "scalar"],
    )
    def test_of_other_things_than_arrays_of_numbers_is_refused(self, net, tmp_path, value):
        path = tmp_path / "net.h5"
        write_keras_2(path, net)
        with h5py.File(path, "a") as file:
            del file[PLACE]
            file[PLACE] = value
        with one_line_error(f"weights={str(path)!r}: "):
            load_weights(net, path)
        assert is_untouched(net)

    @pytest.mark.parametrize("value", ["bfloat16", ["bfloat16"] * 2, 7], ids=str)
    def test_with_a_false_type_is_refused_or_read_as_it_is(self, net, tmp_path, value):
        path = tmp_path / "net.h5"
        write_keras_2(path, net)
        NET.set_weights(WEIGHTS)
        write_keras_2(path, net)
        NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
        with h5py.File(path, "a") as file:
            file[PLACE].attrs["dtype"] = value
        try:
            load_weights(net, path)
        except ValueError:
            assert is_untouched(net)
        else:
            assert is_loaded(net)

    def test_of_something_else_says_so(self, net, tmp_path):
        path = tmp_path / "data.h5"
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((2, 8, 8, 3))
        with one_line_error(f"weights={str(path)!r}: "):
            load_weights(net, path)
        with h5py.File(path, "w") as file:
            file["data/images"] = np.zeros((2, 8, 8, 3))
        with one_line_error(f"weights={str(path)!r}: missing tensors"):
            load_weights(net, path)
        assert is_untouched(net)
