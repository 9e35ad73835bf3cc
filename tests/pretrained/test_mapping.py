import re

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import WRITERS
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_resnet
from keras_resnet import pretrained, zoo
from keras_resnet.initialization import kernels_to_be_loaded
from keras_resnet.pretrained import load_state_dict, needs, state_dict_shapes, to_torch
from keras_resnet.resnet import resnet

# Convolutions of a block, and blocks of every stage.
NETS = {
    "ResNet18": (2, (2, 2, 2, 2)),
    "ResNet34": (2, (3, 4, 6, 3)),
    "ResNet50": (3, (3, 4, 6, 3)),
    "ResNet101": (3, (3, 4, 23, 3)),
    "ResNet152": (3, (3, 8, 36, 3)),
    "ResNeXt50_32x4d": (3, (3, 4, 6, 3)),
    "ResNeXt101_32x8d": (3, (3, 4, 23, 3)),
    "ResNeXt101_64x4d": (3, (3, 4, 23, 3)),
    "WideResNet50_2": (3, (3, 4, 6, 3)),
    "WideResNet101_2": (3, (3, 4, 23, 3)),
}
NORMALIZATION = ("weight", "bias", "running_mean", "running_var")


def names_in_torchvision(convolutions, counts):
    yield "conv1.weight"
    yield from (f"bn1.{part}" for part in NORMALIZATION)
    for stage, count in enumerate(counts, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                yield f"{prefix}.conv{index}.weight"
                yield from (f"{prefix}.bn{index}.{part}" for part in NORMALIZATION)
            if block == 0 and (convolutions, stage) != (2, 1):
                yield f"{prefix}.downsample.0.weight"
                yield from (f"{prefix}.downsample.1.{part}" for part in NORMALIZATION)
    yield from ("fc.weight", "fc.bias")


def small_net():
    return resnet((1, 1), "basic", (4, 8), input_shape=(8, 8, 3), classes=4, name="small")


NET = small_net()
SHAPES = state_dict_shapes(NET)


def constants(shapes=SHAPES):
    """A state dict whose every tensor has a number of its own."""
    return {
        name: np.full(shape, number, "float32")
        for number, (name, shape) in enumerate(shapes.items())
    }


@pytest.fixture
def net():
    NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
    return NET


def is_untouched(net):
    return all(np.all(array == -1) for array in net.get_weights())


class TestNames:
    @pytest.mark.parametrize("name", NETS)
    def test_are_those_of_torchvision(self, name):
        convolutions, counts = NETS[name]
        # The widths do not matter to the names.
        net = getattr(keras_resnet, name)(
            weights=None, input_shape=(32, 32, 3), filters=(16, 16, 16, 16), classes=2
        )
        names = list(state_dict_shapes(net))
        assert len(names) == len(set(names)) == len(net.weights)
        assert set(names) == set(names_in_torchvision(convolutions, counts))

    def test_of_a_resnext_have_the_shapes_of_torchvision(self):
        net = keras_resnet.ResNeXt50_32x4d(weights=None, input_shape=(32, 32, 3))
        shapes = state_dict_shapes(net)
        assert len(shapes) == 267
        for name, shape in {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_var": (64,),
            "layer1.0.conv1.weight": (128, 64, 1, 1),
            "layer1.0.conv2.weight": (128, 4, 3, 3),
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer2.3.conv2.weight": (256, 8, 3, 3),
            "layer3.5.bn3.weight": (1024,),
            "layer4.0.downsample.1.running_mean": (2048,),
            "layer4.2.conv3.weight": (2048, 1024, 1, 1),
            "fc.weight": (1000, 2048),
            "fc.bias": (1000,),
        }.items():
            assert shapes[name] == shape, name

    def test_go_without_the_top(self):
        net = resnet((1,), "basic", (4,), input_shape=(8, 8, 3), include_top=False)
        assert not any(name.startswith("fc") for name in state_dict_shapes(net))

    def test_of_foreign_layers_are_refused(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")])
        with pytest.raises(ValueError, match="other does not belong to a model of this package"):
            state_dict_shapes(model)


class TestLoading:
    def test_puts_every_tensor_where_it_belongs(self, net):
        state = {
            name: np.random.default_rng(seed).normal(size=shape).astype("float32")
            for seed, (name, shape) in enumerate(SHAPES.items())
        }
        load_state_dict(net, state)
        convolution = np.transpose(state["layer2.0.conv1.weight"], (2, 3, 1, 0))
        np.testing.assert_array_equal(net.get_layer("conv3_block1_1_conv").kernel, convolution)
        shortcut = np.transpose(state["layer2.0.downsample.0.weight"], (2, 3, 1, 0))
        np.testing.assert_array_equal(net.get_layer("conv3_block1_0_conv").kernel, shortcut)
        np.testing.assert_array_equal(net.get_layer("predictions").kernel, state["fc.weight"].T)
        np.testing.assert_array_equal(net.get_layer("predictions").bias, state["fc.bias"])
        normalization = net.get_layer("conv2_block1_2_bn")
        for ours, theirs in (
            (normalization.gamma, "weight"),
            (normalization.beta, "bias"),
            (normalization.moving_mean, "running_mean"),
            (normalization.moving_variance, "running_var"),
        ):
            np.testing.assert_array_equal(ours, state[f"layer1.0.bn2.{theirs}"])

    def test_passes_over_batch_counters(self, net):
        state = constants()
        counters = {
            name.replace("running_mean", "num_batches_tracked"): np.array(7)
            for name in state
            if name.endswith("running_mean")
        }
        assert len(counters) == 6
        load_state_dict(net, state | counters)
        assert not is_untouched(net)

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda s: s.pop("fc.bias"), ["missing", "small", "fc.bias"]),
            (lambda s: s.pop("layer2.0.bn1.running_var"), ["missing", "layer2.0.bn1.running_var"]),
            (lambda s: s.clear(), ["missing", "bn1.bias", f"and {len(SHAPES) - 3} more"]),
            (
                lambda s: s.update({"layer3.0.conv1.weight": np.zeros(1)}),
                ["unexpected", "small", "layer3.0.conv1.weight"],
            ),
            (
                lambda s: s.update({"fc.weight": np.zeros((8, 4))}),
                ["fc.weight", "(8, 4)", "(4, 8)", "small"],
            ),
            (
                lambda s: s.update({"conv1.weight": np.zeros((7, 7, 3, 4))}),
                ["conv1.weight", "(7, 7, 3, 4)", "(4, 3, 7, 7)"],
            ),
            (lambda s: s.update({"fc.bias": np.zeros(())}), ["fc.bias", "()", "(4,)"]),
            (lambda s: s.update({"fc.bias": np.full(4, "x")}), ["fc.bias"]),
            (lambda s: s.update({"fc.bias": np.full(4, None)}), ["fc.bias"]),
            (lambda s: s.update({"fc.bias": np.full(4, 1j)}), ["fc.bias"]),
            (lambda s: s.update({"fc.bias": np.full(4, 1)}), ["fc.bias", "int64"]),
        ],
        ids=[
            *("missing", "missing_average", "empty", "extra", "transposed", "keras_layout"),
            *("scalar", "text", "nothing", "complex", "integers"),
        ],
    )
    def test_refuses_what_does_not_fit_and_changes_nothing(self, net, change, parts):
        state = constants()
        change(state)
        with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
            load_state_dict(net, state)
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message for part in ["state_dict", *parts]), message
        assert is_untouched(net)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_loads_all_or_nothing_whatever_the_names(self, data):
        names = list(SHAPES)
        state = constants()
        alike = [name for name in names if SHAPES[name] == (8,)]
        few = st.sampled_from([names, alike, alike]).flatmap(
            lambda pool: st.lists(st.sampled_from(pool), unique=True, max_size=6)
        )
        some = data.draw(few, "permuted")
        permutation = data.draw(st.permutations(some))
        state |= {new: state[old] for old, new in zip(some, permutation, strict=True)}
        for name in data.draw(st.lists(st.sampled_from(names), unique=True, max_size=2), "dropped"):
            del state[name]
        new_names = st.one_of(
            st.text(max_size=8),
            st.sampled_from(names).map(str.upper),
            st.sampled_from(names).map("module.{}".format),
            st.just("bn1.num_batches_tracked"),
        )
        for name in data.draw(st.lists(new_names, max_size=2), "added"):
            state[name] = np.zeros(3)

        NET.set_weights([np.full(weight.shape, -1.0) for weight in NET.weights])
        shapes = {
            name: array.shape
            for name, array in state.items()
            if not name.endswith("num_batches_tracked")
        }
        if shapes == SHAPES:
            load_state_dict(NET, state)
            loaded = sorted(float(array.flat[0]) for array in NET.get_weights())
            assert loaded == list(range(len(SHAPES)))
            for layer, module in (
                ("conv1_bn", "bn1"),
                ("conv3_block1_2_bn", "layer2.0.bn2"),
                ("conv3_block1_0_bn", "layer2.0.downsample.1"),
            ):
                arrays = [state[f"{module}.{part}"] for part in NORMALIZATION]
                np.testing.assert_array_equal(NET.get_layer(layer).get_weights(), arrays)
        else:
            with pytest.raises(ValueError, match="state_dict"):
                load_state_dict(NET, state)
            assert is_untouched(NET)


def cifar_names(state):
    return {
        name.replace("fc.", "linear.").replace("downsample", "shortcut"): array
        for name, array in state.items()
    }


def random_net(seed, **options):
    """A small net with a projection shortcut and weights of its own."""
    options = {"input_shape": (8, 8, 3), "classes": 4, "name": "small", **options}
    net = resnet((1, 1), "basic", (4, 8), **options)
    generator = np.random.default_rng(seed)
    net.set_weights([generator.normal(size=weight.shape) for weight in net.weights])
    return net


def equal_weights(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


class TestOtherNames:
    @pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
    @pytest.mark.parametrize("rename", [dict, cifar_names], ids=["torchvision", "cifar"])
    def test_load_as_torchvisions_do(self, net, prefix, rename):
        expected = random_net(1)
        state = rename(to_torch(expected))
        load_state_dict(net, {f"{prefix}{name}": array for name, array in state.items()})
        assert equal_weights(net, expected)

    def test_errors_speak_in_the_names_that_came(self, net):
        state = cifar_names(constants())
        del state["layer2.0.shortcut.0.weight"]
        with pytest.raises(ValueError, match=r"missing .* layer2\.0\.shortcut\.0\.weight"):
            load_state_dict(net, state)
        assert is_untouched(net)

    @pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
    def test_and_other_precisions_are_converted(self, net, dtype):
        state = {
            name: array.astype(keras.ops.convert_to_numpy(keras.ops.zeros(1, dtype)).dtype)
            for name, array in constants().items()
        }
        load_state_dict(net, state)
        loaded = sorted(float(array.flat[0]) for array in net.get_weights())
        assert loaded == list(range(len(SHAPES)))


# Of every kind of model: its options, and names that it has in PyTorch.
OF_TIMM = {
    "D": (
        dict(stem="deep", shortcut="D"),
        "conv1.0.weight conv1.4.running_var conv1.6.weight bn1.bias layer2.0.downsample.1.weight "
        "layer2.0.downsample.2.running_mean",
    ),
    "RS": (
        dict(stem="deep_strided", attention="se", attention_ratio=0.25),
        "maxpool.0.weight maxpool.1.bias layer1.0.se.fc1.weight layer2.1.se.fc2.bias",
    ),
    "ECA": (dict(attention="eca", anti_aliasing="blur"), "conv1.weight layer2.1.se.conv.weight"),
    "v2": (
        dict(block="preactivation"),
        "stem.conv.weight stages.0.blocks.0.norm1.weight stages.1.blocks.1.norm3.running_var "
        "stages.1.blocks.0.downsample.conv.weight norm.bias head.fc.bias",
    ),
    "basic v2": (
        dict(block="basic_preactivation", stem="deep", shortcut="D"),
        "stem.conv1.weight stem.norm2.bias stem.conv3.weight stages.1.blocks.1.norm2.weight",
    ),
    "Keras' v2": (
        dict(block="preactivation", stem="zero_padded", stride_block="last", biases=True),
        "stem.conv.bias stages.0.blocks.0.conv3.bias stages.0.blocks.0.downsample.conv.bias",
    ),
    "BiT": (
        dict(block="preactivation", norm="group", weight_standardization=True),
        "stages.0.blocks.0.norm1.bias",
    ),
    "group": (dict(norm="group", drop_path=0.2), "bn1.weight layer1.0.bn3.bias"),
}


class TestKinds:
    @pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".weights.h5"])
    @pytest.mark.parametrize("kind", OF_TIMM)
    @pytest.mark.filterwarnings("ignore:.*(the file does not say how|taken for):RuntimeWarning")
    def test_of_models_come_back_from_every_kind_of_file(self, tmp_path, kind, suffix):
        options, names = OF_TIMM[kind]
        options = {"filters": (32, 64), "input_shape": (32, 32, 3), "classes": 4, **options}
        net = resnet((1, 2), **options)
        generator = np.random.default_rng(0)
        net.set_weights([generator.uniform(0.5, 1, weight.shape) for weight in net.weights])
        state = to_torch(net)
        assert set(names.split()) <= state.keys()
        assert state.keys() >= state_dict_shapes(net).keys()

        path = tmp_path / f"net{suffix}"
        WRITERS[suffix](path, net)
        again = keras_resnet.ResNet((1, 2), weights=path, **options)
        assert all(map(np.array_equal, again.get_weights(), net.get_weights()))

    @pytest.mark.parametrize("kind", ["D", "RS", "ECA", "v2"])
    def test_that_the_cifar_zoo_does_not_have_are_refused_by_its_names(self, kind):
        options, _ = OF_TIMM[kind]
        net = resnet((1, 2), filters=(32, 64), input_shape=(32, 32, 3), **options)
        with one_line_error("does not belong to a model of the CIFAR-10 zoo"):
            to_torch(net, naming="cifar")

    @pytest.mark.parametrize(
        ("theirs", "ours", "parts"),
        [
            ("D", "group", ["The file has a deep stem", 'shortcut="D"', "resnet has not"]),
            ("group", "D", ["resnet has a deep stem", "the file has not"]),
            ("v2", "group", ["The file has", "pre-activation blocks", "resnet has not"]),
            ("ECA", "RS", ["efficient channel attention", "squeeze-and-excitation"]),
        ],
    )
    def test_of_file_and_model_are_told_where_they_differ(self, theirs, ours, parts):
        file, model = (
            resnet((1, 2), filters=(32, 64), input_shape=(32, 32, 3), **OF_TIMM[kind][0])
            for kind in (theirs, ours)
        )
        with one_line_error("missing tensors that resnet needs", *parts):
            load_state_dict(model, to_torch(file))


class TestDepth:
    @pytest.mark.parametrize(
        ("block", "counts", "depth"),
        [
            ("basic", (2, 2, 2, 2), 18),
            ("basic", (3, 4, 6, 3), 34),
            ("bottleneck", (3, 4, 6, 3), 50),
            ("bottleneck", (3, 4, 23, 3), 101),
            ("basic", (3, 3, 3), 20),
        ],
    )
    @pytest.mark.parametrize("options", [{}, {"stem": "cifar"}, {"shortcut": "C"}], ids=str)
    def test_of_the_file_is_said(self, net, block, counts, depth, options):
        other = resnet(
            counts, block, (4,) * len(counts), input_shape=(32, 32, 3), classes=4, **options
        )
        with pytest.raises(ValueError, match=f"a model with {depth} layers; small has 6"):
            load_state_dict(net, to_torch(other))
        assert is_untouched(net)


class TestHead:
    def test_is_left_out_where_the_net_has_none(self):
        net, other = random_net(1, include_top=False), random_net(2)
        load_state_dict(net, to_torch(other))
        backbone = [array for array in other.get_weights()][:-2]
        assert all(map(np.array_equal, net.get_weights(), backbone))

    def test_of_other_classes_is_refused(self):
        net, before = random_net(1), random_net(1)
        with pytest.raises(ValueError, match="the head has 7 classes, but small has 4"):
            load_state_dict(net, to_torch(random_net(2, classes=7)))
        assert equal_weights(net, before)

    def test_of_other_classes_stays_as_it_is_on_request_which_is_logged(self, caplog):
        net, before, other = random_net(1), random_net(1), random_net(2, classes=7)
        with caplog.at_level("INFO", logger="keras_resnet"):
            load_state_dict(net, to_torch(other), new_head=True)
        assert "Skipped the head for 7 classes: small has 4" in caplog.text
        assert all(map(np.array_equal, net.get_weights()[:-2], other.get_weights()[:-2]))
        assert all(map(np.array_equal, net.get_weights()[-2:], before.get_weights()[-2:]))

    def test_of_the_same_classes_comes_along_even_then(self):
        net, other = random_net(1), random_net(2)
        load_state_dict(net, to_torch(other), new_head=True)
        assert equal_weights(net, other)

    def test_that_is_missing_is_missed(self, net):
        state = constants()
        del state["fc.weight"], state["fc.bias"]
        with pytest.raises(ValueError, match=r"missing .*fc\.bias, fc\.weight"):
            load_state_dict(net, state)


class TestNumbers:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_that_are_none_are_warned_of_and_loaded(self, net, value):
        state = constants()
        state["layer1.0.bn1.weight"][2] = value
        with pytest.warns(RuntimeWarning, match=r"layer1\.0\.bn1\.weight"):
            load_state_dict(net, state)
        gamma = np.asarray(net.get_layer("conv2_block1_1_bn").gamma)
        np.testing.assert_array_equal(gamma[2], np.float32(value))


class TestToTorch:
    def test_is_what_pytorch_would_have(self):
        net = random_net(3)
        state = to_torch(net)
        counters = {name for name in state if name.endswith("num_batches_tracked")}
        assert len(counters) == 6
        assert all(state[name].shape == () and state[name].dtype == "int64" for name in counters)
        assert {name: state[name].shape for name in state.keys() - counters} == SHAPES
        kernel = np.asarray(net.get_layer("conv3_block1_1_conv").kernel)
        expected = np.einsum("hwio->oihw", kernel)
        np.testing.assert_array_equal(state["layer2.0.conv1.weight"], expected)
        assert all(array.flags.c_contiguous for array in state.values())

    @pytest.mark.parametrize("naming", ["torchvision", "cifar"])
    def test_comes_back_to_the_bit_through_a_file(self, net, tmp_path, naming):
        original = random_net(4)
        path = tmp_path / "net.safetensors"
        state = to_torch(original, path, naming=naming)
        assert any("linear" in name for name in state) == (naming == "cifar")
        written = safetensors.numpy.load_file(path)
        assert written.keys() == state.keys()
        assert all(np.array_equal(written[name], state[name]) for name in state)
        pretrained.load_weights(net, path)
        assert equal_weights(net, original)
        assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]

    def test_refuses_an_unknown_naming(self, net, tmp_path):
        with pytest.raises(ValueError, match=r"naming='timm' must be one of"):
            to_torch(net, tmp_path / "net.safetensors", naming="timm")
        assert not list(tmp_path.iterdir())


# Of the named models, one for each combination of options that decide about anything here.
_DECIDING = ("block", "stem", "shortcut", "norm", "anti_aliasing", "stride_block", "biases")
ONE_OF_EACH = [
    *{
        tuple(options.get(option) for option in (*_DECIDING, "weight_standardization")): name
        for name, options in zoo.MODELS.items()
    }.values()
]

_OTHERS = {"stride_in": "3x3", "shortcut": "B", "preprocessing": "tf", "output_stride": None}
_OF_PREACTIVATION = (
    dict(shortcut="D"),
    dict(stem="zero_padded"),
    dict(stride_block="last"),
    dict(norm="group", weight_standardization=True),
)


class TestOptionsWithoutTensors:
    """Nets of the same tensors that compute something else."""

    @pytest.mark.parametrize("stem", ["imagenet", "deep", "tiered", "deep_strided"])
    def test_are_found_with_every_stem(self, stem):
        model = keras_resnet.ResNet((1,), "basic", (16,), stem=stem, preprocessing="caffe")
        found = needs.options_of(layer.get_config() for layer in model.layers)
        assert found["preprocessing"] == "caffe"
        assert "stem" not in found  # only the zeros around what is pooled would be hidden

    @pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
    @pytest.mark.parametrize(
        "options",
        [
            dict(stride_in="1x1"),
            dict(shortcut="A"),
            dict(shortcut=None),
            dict(shortcut="C"),
            dict(preprocessing="caffe"),
            dict(shortcut="D"),
            dict(anti_aliasing="average"),
            dict(anti_aliasing="blur"),
            dict(output_stride=4),
            *({"block": "preactivation", **option} for option in _OF_PREACTIVATION),
        ],
        ids=str,
    )
    def test_come_along_with_a_file_of_ours(self, tmp_path, suffix, options):
        of_weights = {name: options[name] for name in ("block", "norm") if name in options}
        options = {name: value for name, value in options.items() if name not in of_weights}

        def build(**options):
            return keras_resnet.ResNet(
                (1, 2),
                filters=(32, 64),
                input_shape=(32, 32, 3),
                classes=4,
                include_preprocessing=True,
                **of_weights,
                **options,
            )

        path = tmp_path / f"net{suffix}"
        net = build(**options)
        if suffix == ".keras":
            net.save(path)
        else:
            to_torch(net, path)
        images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
        again = build(weights=path)
        np.testing.assert_array_equal(net(images), again(images))
        other = {**_OTHERS, **needs.UNREVEALED}
        (option,) = options
        with pytest.raises(ValueError, match=option):
            build(weights=path, **{option: other[option]})

    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_are_found_in_the_layers_of_the_named_models(self, name):
        asked = zoo.MODELS[name]
        small = {**asked, "block_counts": (1, 2), "filters": (64, 128)}
        with kernels_to_be_loaded():
            model = resnet(**small, input_shape=(32, 32, 3))
        found = needs.options_of(layer.get_config() for layer in model.layers)
        usual = {**needs.UNREVEALED, "output_stride": None, "shortcut": "B"}
        expected = {option: asked.get(option, value) for option, value in usual.items()}
        if expected["stem"] != "zero_padded":
            expected["stem"] = "imagenet"  # the others have weights of their own
        assert {option: found.get(option, usual[option]) for option in usual} == expected
        assert found["preprocessing"] == "torch"

    @pytest.mark.parametrize("stride", [8, 16, 32])
    @pytest.mark.parametrize("name", ["ResNet10T", "ResNet14T", "ResNetAA50", "ResNetV2_18D"])
    def test_find_the_output_stride(self, name, stride):
        small = {**zoo.MODELS[name], "block_counts": (1, 1, 1, 1), "filters": (16,) * 4}
        with kernels_to_be_loaded():
            model = resnet(**small, input_shape=(64, 64, 3), output_stride=stride)
        found = needs.options_of(layer.get_config() for layer in model.layers)
        assert found.get("output_stride", 32) == stride

    def test_of_a_file_do_not_hold_a_model_that_is_asked_for_with_a_smaller_stride(self, tmp_path):
        path = tmp_path / "net.safetensors"
        net = small_net()
        to_torch(net, path)
        dilated = resnet((1, 1), "basic", (4, 8), input_shape=(8, 8, 3), classes=4, output_stride=4)
        assert equal_weights(pretrained.load_weights(dilated, path), net)

    def test_that_make_no_sense_are_refused(self, tmp_path):
        path = tmp_path / "net.safetensors"
        state = to_torch(NET)
        for recorded in ('{"stride_in": "5x5"}', '{"shortcut": [1]}', "[1]", "{", "7"):
            safetensors.numpy.save_file(state, path, metadata={"keras_resnet": recorded})
            with pytest.raises(ValueError, match=re.escape(f"weights={str(path)!r}: ")):
                pretrained.load_weights(NET, path)


class TestPrecision:
    def test_that_cannot_hold_a_number_is_warned_of(self, net):
        state = constants() | {"fc.weight": np.full((4, 8), 1e300)}
        with pytest.warns(RuntimeWarning, match=r"NaN or infinity in fc\.weight"):
            load_state_dict(net, state)


@pytest.mark.parametrize("state_dict", [None, [1], {1: np.zeros(1)}, "net.pth"], ids=str)
def test_what_is_no_state_dict_is_refused(net, state_dict):
    with pytest.raises(
        ValueError, match="state_dict: expected a mapping of tensor names to arrays"
    ):
        load_state_dict(net, state_dict)
    assert is_untouched(net)


def test_a_net_that_was_saved_and_loaded_goes_to_pytorch_too(net, tmp_path):
    NET.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    path = tmp_path / "net.safetensors"
    to_torch(loaded, path)
    again = pretrained.load_weights(random_net(1), path)
    assert equal_weights(again, loaded)


@pytest.mark.parametrize("flag", [1, 1 << 5], ids=["encrypted", "patched"])
def test_a_keras_file_whose_config_cannot_be_read_is_refused(net, tmp_path, flag):
    path = tmp_path / "net.keras"
    NET.save(path)
    content = bytearray(path.read_bytes())
    for signature, flags, name in ((b"PK\1\2", 8, 46), (b"PK\3\4", 6, 30)):
        start = content.find(signature)
        while not content.startswith(b"config.json", start + name):
            start = content.index(signature, start + 1)
        content[start + flags] |= flag
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"weights={str(path)!r}: ")):
        pretrained.load_weights(NET, path)
    assert is_untouched(net)
