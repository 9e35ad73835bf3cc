import re

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_resnet
from keras_resnet.pretrained import load_state_dict, state_dict_shapes
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
        with pytest.raises(ValueError, match="other is not one of a net of this package"):
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
            (lambda s: s.pop("fc.bias"), ["lacks", "small", "fc.bias"]),
            (lambda s: s.pop("layer2.0.bn1.running_var"), ["lacks", "layer2.0.bn1.running_var"]),
            (lambda s: s.clear(), ["lacks", "bn1.bias", f"and {len(SHAPES) - 3} more"]),
            (
                lambda s: s.update({"layer3.0.conv1.weight": np.zeros(1)}),
                ["does not know", "small", "layer3.0.conv1.weight"],
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
        ],
        ids=[
            *("missing", "missing_average", "empty", "extra", "transposed", "keras_layout"),
            *("scalar", "text", "nothing", "complex"),
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
