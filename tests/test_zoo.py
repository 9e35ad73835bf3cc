import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import initialization, pretrained, zoo

# Name of the model, parameters and billions of multiply-adds at 224 px, as published for PyTorch.
PUBLISHED = {
    "ResNet18": ("resnet18", 11_689_512, 1.81),
    "ResNet34": ("resnet34", 21_797_672, 3.66),
    "ResNet50": ("resnet50", 25_557_032, 4.09),
    "ResNet101": ("resnet101", 44_549_160, 7.80),
    "ResNet152": ("resnet152", 60_192_808, 11.51),
    "ResNeXt50_32x4d": ("resnext50_32x4d", 25_028_904, 4.23),
    "ResNeXt101_32x8d": ("resnext101_32x8d", 88_791_336, 16.41),
    "ResNeXt101_64x4d": ("resnext101_64x4d", 83_455_272, 15.46),
    "WideResNet50_2": ("wide_resnet50_2", 68_883_240, 11.40),
    "WideResNet101_2": ("wide_resnet101_2", 126_886_696, 22.75),
}
CIFAR_PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def trainable_parameters(model):
    return sum(np.prod(weight.shape, dtype=int) for weight in model.trainable_weights)


def multiply_adds(model):
    """Those of the convolutions and the classifier, from nothing but shapes."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            pixels = np.prod(layer.output.shape[1:-1], dtype=int)
            total += int(pixels) * int(np.prod(layer.kernel.shape, dtype=int))
    return total


def randomize(model):
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def save(model, path):
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)


def assert_equal_weights(ours, theirs):
    for our_array, their_array in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(our_array, their_array)


def layers_with_weights(model):
    return {layer.name for layer in model.layers if layer.weights}


def small(**options):
    return keras_resnet.CIFARResNet(8, **options)


class TestNamedModels:
    def test_the_table_holds_all_of_them(self):
        assert zoo.MODELS.keys() >= PUBLISHED.keys()
        assert zoo.MODELS.keys() <= {*keras_resnet.__all__}

    @pytest.mark.parametrize("function", PUBLISHED)
    def test_has_the_published_size_and_cost(self, function):
        name, parameters, billions = PUBLISHED[function]
        with initialization.kernels_to_be_loaded():
            model = getattr(keras_resnet, function)(weights=None)
        assert trainable_parameters(model) == parameters
        assert round(multiply_adds(model) / 1e9, 2) == billions
        assert model.name == name
        assert (model.input_shape, model.output_shape) == ((None, 224, 224, 3), (None, 1000))

    @pytest.mark.parametrize("function", PUBLISHED)
    def test_signature_begins_like_that_of_keras_applications(self, function):
        theirs = [
            parameter
            for parameter in inspect.signature(keras.applications.ResNet50).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        ours = list(inspect.signature(getattr(keras_resnet, function)).parameters.values())
        described = [
            [(p.name, p.kind, None if p.name == "name" else p.default) for p in parameters]
            for parameters in (ours[: len(theirs)], theirs)
        ]
        assert described[0] == described[1]
        assert [parameter.name for parameter in theirs] == [
            "include_top",
            "weights",
            "input_tensor",
            "input_shape",
            "pooling",
            "classes",
            "classifier_activation",
            "name",
        ]
        assert ours[len(theirs) - 1].default == PUBLISHED[function][0]
        keyword_kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
        assert all(parameter.kind in keyword_kinds for parameter in ours[len(theirs) :])

    def test_layers_with_weights_are_named_as_in_keras_applications(self):
        ours = keras_resnet.ResNet50(weights=None, input_shape=(32, 32, 3))
        theirs = keras.applications.ResNet50(weights=None)
        assert layers_with_weights(ours) == layers_with_weights(theirs)

    def test_keywords_of_the_builder_reach_it(self):
        model = keras_resnet.ResNet50(
            weights=None, input_shape=(32, 32, 3), cardinality=8, base_width=8, stem="cifar"
        )
        assert model.get_layer("conv2_block1_2_conv").kernel.shape == (3, 3, 8, 64)
        assert model.get_layer("conv1_conv").kernel.shape == (3, 3, 3, 64)


class TestCIFARResNet:
    @pytest.mark.parametrize(("depth", "parameters"), CIFAR_PARAMETERS.items())
    def test_has_the_size_that_the_paper_gives(self, depth, parameters):
        model = keras_resnet.CIFARResNet(depth)
        assert trainable_parameters(model) == parameters
        convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
        assert len(convolutions) + 1 == depth
        assert model.name == f"cifar_resnet{depth}"
        assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))

    @pytest.mark.parametrize("depth", [21, 2, 9, -4, 0, "20", 20.0, None, True])
    def test_refuses_other_depths(self, depth):
        with one_line_error(f"depth={depth!r} must be 6n + 2"):
            keras_resnet.CIFARResNet(depth)

    def test_takes_a_depth_of_numpy(self):
        assert keras_resnet.CIFARResNet(np.int64(8)).name == "cifar_resnet8"

    def test_takes_the_arguments_of_the_others_after_the_depth(self):
        _, *ours = inspect.signature(keras_resnet.CIFARResNet).parameters
        theirs = list(inspect.signature(keras_resnet.ResNet50).parameters)[:8]
        assert ours[:8] == theirs


class TestBuilder:
    @pytest.mark.parametrize("function", PUBLISHED)
    def test_finds_every_spelling(self, function):
        name = PUBLISHED[function][0]
        for spelling in (
            *(function, function.lower(), function.upper()),
            *(name, name.upper(), name.replace("_", "-"), name.replace("_", "")),
        ):
            assert zoo.builder(spelling) is getattr(keras_resnet, function), spelling

    @pytest.mark.parametrize("spelling", ["CIFARResNet14", "cifar_resnet14", "Cifar-ResNet-14"])
    def test_finds_the_cifar_nets_with_their_depth(self, spelling):
        model = zoo.builder(spelling)(classes=7)
        assert (model.name, model.output_shape) == ("cifar_resnet14", (None, 7))

    @pytest.mark.parametrize(
        ("name", "suggestion"),
        [
            ("ResNet51", "ResNet50"),
            ("resnext50_4x32d", "ResNeXt50_32x4d"),
            ("resnext50", "ResNeXt50_32x4d"),
            ("wide-resnet-101", "WideResNet101_2"),
            ("CIFARResNet", "CIFARResNet20"),
        ],
    )
    def test_suggests_the_nearest_name(self, name, suggestion):
        with pytest.raises(
            ValueError, match=f"model '{name}'.*Did you mean {suggestion}"
        ) as caught:
            zoo.builder(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
class TestWeightFiles:
    @pytest.mark.parametrize("kind", ["basic", "preactivation"])
    def test_fit_models_with_and_without_drop_path(self, tmp_path, suffix, kind):
        def build(drop_path, **options):
            return keras_resnet.ResNet(
                (2, 2), kind, (8, 8), stem="cifar", drop_path=drop_path, attention="se", **options
            )

        images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
        for ours, theirs in ((0.0, 0.2), (0.2, 0.0)):
            model, path = randomize(build(ours)), tmp_path / f"{ours}{suffix}"
            save(model, path)
            np.testing.assert_array_equal(build(theirs, weights=path)(images), model(images))

    @pytest.mark.parametrize("kind", [str, Path])
    def test_come_back_to_the_bit(self, tmp_path, suffix, kind):
        model, path = randomize(small()), tmp_path / f"net{suffix}"
        save(model, path)
        assert_equal_weights(small(weights=kind(path)).get_weights(), model.get_weights())

    def test_of_a_resnext_come_back_to_the_bit(self, tmp_path, suffix):
        def build(**options):
            return keras_resnet.ResNet(
                (1, 1), filters=(8, 16), cardinality=2, base_width=32, classes=3, **options
            )

        model, path = randomize(build(input_shape=(32, 32, 3))), tmp_path / f"net{suffix}"
        save(model, path)
        again = build(input_shape=(None, None, 3), weights=path)
        assert_equal_weights(again.get_weights(), model.get_weights())

    def test_of_a_trained_model_come_without_its_optimizer(self, tmp_path, suffix):
        model, path = small(), tmp_path / f"net{suffix}"
        model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", run_eagerly=True)
        model.train_on_batch(np.ones((2, 32, 32, 3), "float32"), np.array([1, 2]))
        save(model, path)
        assert_equal_weights(small(weights=path).get_weights(), model.get_weights())

    @pytest.mark.parametrize("content", ["half", "nothing", "noise"])
    def test_that_are_broken_are_named(self, tmp_path, suffix, content):
        path = tmp_path / f"net{suffix}"
        save(small(), path)
        whole = path.read_bytes()
        path.write_bytes(
            {"half": whole[: len(whole) // 2], "nothing": b"", "noise": whole[::-1]}[content]
        )
        with one_line_error(f"weights={str(path)!r}"):
            small(weights=path)

    def test_lend_a_net_without_a_top_all_but_theirs(self, tmp_path, suffix):
        model, path = randomize(small()), tmp_path / f"net{suffix}"
        save(model, path)
        backbone = small(include_top=False, weights=path)
        assert_equal_weights(backbone.get_weights(), model.get_weights()[:-2])

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    @pytest.mark.parametrize(
        "options",
        [
            dict(depth=14),
            dict(shortcut="B"),
            dict(stem="imagenet"),
        ],
        ids=str,
    )
    def test_of_another_net_are_refused(self, tmp_path, suffix, options):
        path = tmp_path / f"net{suffix}"
        save(small(), path)
        with one_line_error(f"weights={str(path)!r}", "cifar_resnet"):
            keras_resnet.CIFARResNet(**{"depth": 8, **options}, weights=path)

    def test_of_a_deeper_net_are_refused(self, tmp_path, suffix):
        def build(count, **options):
            return keras_resnet.ResNet(
                (count,), "basic", (8,), include_top=False, input_shape=(8, 8, 3), **options
            )

        path = tmp_path / f"net{suffix}"
        save(build(3), path)
        with one_line_error(f"weights={str(path)!r}"):
            build(2, weights=path)

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    def test_that_do_not_fit_are_refused_with_the_tensor_and_both_shapes(self, tmp_path, suffix):
        path = tmp_path / f"net{suffix}"
        save(small(input_shape=(32, 32, 1)), path)
        with one_line_error("conv1_conv/kernel", "(3, 3, 1, 16)", "(3, 3, 3, 16)"):
            small(weights=path)

    @pytest.mark.filterwarnings("ignore:Skipping nested container")
    def test_that_do_not_fit_change_nothing(self, tmp_path, suffix):
        path = tmp_path / f"net{suffix}"
        save(randomize(small()), path)
        other = small(classes=11)
        before = other.get_weights()
        with one_line_error(f"weights={str(path)!r}"):
            pretrained.load_weights(other, path)
        assert_equal_weights(other.get_weights(), before)


def test_a_file_of_the_other_shortcut_makes_a_cifar_net_of_it(tmp_path):
    model, path = randomize(small(shortcut="B")), tmp_path / "net.keras"
    model.save(path)
    assert_equal_weights(small(weights=path).get_weights(), model.get_weights())
    with one_line_error("shortcut='B'", "'A'"):
        small(weights=path, shortcut="A")


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_a_net_from_its_own_file_looks_at_as_much_of_an_image(tmp_path, suffix):
    model, path = small(include_preprocessing=True), tmp_path / f"net{suffix}"
    model.get_layer("preprocessing").crop = 0.9
    model.save(path) if suffix == ".keras" else pretrained.to_torch(model, path)
    again = small(include_preprocessing=True, weights=path)
    assert again.get_layer("preprocessing").crop == 0.9


class TestWeights:
    @pytest.mark.parametrize("name", ["missing.keras", "missing.weights.h5", "imagenet"])
    def test_a_missing_file_is_named(self, tmp_path, name):
        with one_line_error(f"weights={str(tmp_path / name)!r}", "there is no such file"):
            small(weights=tmp_path / name)

    @pytest.mark.parametrize("name", ["net.txt", "net.h5", "keras", "net.pth"])
    def test_a_file_of_another_format_is_named(self, tmp_path, name):
        path = tmp_path / name
        path.write_bytes(b"1234")
        with one_line_error(f"weights={str(path)!r}", "none of PyTorch's checkpoints"):
            small(weights=path)

    def test_what_is_no_path_is_refused(self):
        with one_line_error("weights=42 must be None, a tag or a path"):
            small(weights=42)

    def test_none_leaves_the_model_as_it_is(self):
        model = small()
        before = model.get_weights()
        assert pretrained.load_weights(model, None) is model
        assert_equal_weights(model.get_weights(), before)
