import contextlib
import gc
import inspect
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from errors import one_line_error

import keras_resnet
from keras_resnet import blocks
from keras_resnet.optimizers import LayerwiseSGD, StepDecay
from keras_resnet.resnet import deep_graphs, feature_pyramid, resnet


def small(block="bottleneck", **options):
    """Two blocks in each of two stages."""
    defaults = dict(block_counts=(2, 2), filters=(8, 16), input_shape=(32, 32, 3), classes=5)
    return resnet(**{**defaults, "block": block, **options})


def numbers(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(model):
    """Give a model weights and averages that it cannot have by default."""
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            low = [0.5, -0.1, -0.1, 0.5]
            high = [1.0, 0.1, 0.1, 1.5]
            shape = layer.gamma.shape
            layer.set_weights(
                [generator.uniform(*ends, shape) for ends in zip(low, high, strict=True)]
            )
        elif layer.weights and layer.use_bias:
            layer.bias.assign(generator.uniform(-0.1, 0.1, layer.bias.shape))
    return model


def layers_of(model, kind):
    return {layer.name: layer for layer in model.layers if isinstance(layer, kind)}


def convolutions(model):
    return layers_of(model, keras.layers.Conv2D)


@contextlib.contextmanager
def dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class TestInput:
    @pytest.mark.parametrize("block", ["basic", "bottleneck"])
    @pytest.mark.parametrize(("stem", "smallest"), [("imagenet", 32), ("cifar", 8)])
    def test_may_be_as_small_as_the_stride(self, block, stem, smallest):
        options = dict(
            block_counts=(1, 1, 1, 1), block=block, filters=(4, 8, 12, 16), stem=stem, classes=3
        )
        net = resnet(input_shape=(smallest, smallest, 3), **options)
        assert net.get_layer("conv5_block1_out").output.shape[1:3] == (1, 1)
        assert np.isfinite(net(numbers((2, smallest, smallest, 3)))).all()
        with one_line_error(
            f"input_shape=({smallest}, {smallest - 1}, 3)", f"least {smallest} pix"
        ):
            resnet(input_shape=(smallest, smallest - 1, 3), **options)

    @pytest.mark.parametrize(
        ("shortcut", "stride_in"),
        [("A", "3x3"), ("B", "3x3"), ("B", "1x1"), ("C", "1x1"), (None, "3x3")],
    )
    def test_of_unknown_size_takes_every_size(self, shortcut, stride_in):
        options = dict(shortcut=shortcut, stride_in=stride_in, include_top=False)
        net = randomize(small(input_shape=(None, None, 3), **options))
        for height, width in ((33, 47), (35, 64), (8, 9)):
            images = numbers((2, height, width, 3))
            outputs = net(images)
            assert outputs.shape == (2, -(-height // 8), -(-width // 8), 64)
            fixed = small(input_shape=(height, width, 3), **options)
            assert fixed.output_shape == (None, *outputs.shape[1:])
            fixed.set_weights(net.get_weights())
            np.testing.assert_allclose(fixed(images), outputs, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_may_have_other_channels(self, channels):
        net = small(input_shape=(32, 32, channels))
        assert net.get_layer("conv1_conv").kernel.shape == (7, 7, channels, 8)
        assert net(numbers((2, 32, 32, channels))).shape == (2, 5)

    def test_defaults_to_the_size_of_the_data_set(self):
        assert small(input_shape=None).input_shape == (None, 224, 224, 3)
        assert small(input_shape=None, stem="cifar").input_shape == (None, 32, 32, 3)

    def test_may_be_a_tensor(self):
        inputs = keras.Input((40, 48, 1))
        net = small(input_tensor=inputs, input_shape=None)
        assert net.inputs[0] is inputs
        assert net.input_shape == (None, 40, 48, 1)

    def test_may_be_a_tensor_and_a_shape_that_agree(self):
        net = small(input_tensor=keras.Input((None, None, 3)), input_shape=(32, 32, 3))
        assert net.input_shape == (None, None, None, 3)

    def test_may_be_the_output_of_another_layer(self):
        inputs = keras.Input((32, 32, 3))
        net = randomize(
            small(input_shape=None, input_tensor=keras.layers.Rescaling(1 / 255, 0.5)(inputs))
        )
        assert net.inputs[0] is inputs
        plain = small()
        plain.set_weights(net.get_weights())
        images = numbers((2, 32, 32, 3))
        np.testing.assert_allclose(net(images), plain(images / 255 + 0.5), rtol=1e-5, atol=1e-6)


class TestTop:
    @pytest.mark.parametrize(
        ("pooling", "shape"), [(None, (4, 4, 64)), ("avg", (64,)), ("max", (64,))]
    )
    def test_without_it_the_features_come_out(self, pooling, shape):
        net = small(include_top=False, pooling=pooling)
        assert net.output_shape == (None, *shape)
        assert not layers_of(net, keras.layers.Dense)

    def test_pooling_is_over_all_pixels(self):
        images = numbers((2, 32, 32, 3))
        features = small(include_top=False)
        expected = np.asarray(features(images))
        for pooling, reduce in (("avg", np.mean), ("max", np.max)):
            pooled = small(include_top=False, pooling=pooling)
            pooled.set_weights(features.get_weights())
            np.testing.assert_allclose(pooled(images), reduce(expected, (1, 2)), rtol=1e-5)

    def test_classifies_the_average_of_the_features(self):
        images = numbers((2, 32, 32, 3))
        net = randomize(small(classes=7))
        average = keras.Model(net.input, net.get_layer("avg_pool").output)
        logits = small(classes=7, classifier_activation=None)
        logits.set_weights(net.get_weights())
        kernel, bias = net.get_layer("predictions").get_weights()
        expected = np.asarray(average(images)) @ kernel + bias
        np.testing.assert_allclose(logits(images), expected, rtol=1e-4, atol=1e-5)
        exponentials = np.exp(expected - expected.max(1, keepdims=True))
        np.testing.assert_allclose(
            net(images), exponentials / exponentials.sum(1, keepdims=True), rtol=1e-4
        )

    def test_takes_any_activation(self):
        net = small(classifier_activation="sigmoid", classes=1)
        assert net.get_layer("predictions").activation is keras.activations.sigmoid

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_gives_probabilities_in_float32(self, policy):
        with dtype_policy(policy):
            net = small(cardinality=4, base_width=32)
        probabilities = net(numbers((4, 32, 32, 3)))
        assert probabilities.dtype == "float32"
        np.testing.assert_allclose(np.sum(probabilities, 1), np.ones(4), atol=1e-6)
        half = policy.removeprefix("mixed_")
        assert all(layer.compute_dtype == half for layer in convolutions(net).values())
        assert all(weight.dtype == "float32" for weight in net.weights)


class TestShortcuts:
    @pytest.mark.parametrize("block", ["basic", "bottleneck"])
    def test_have_the_parameters_of_their_projections(self, block):
        counts = {
            shortcut: small(block, shortcut=shortcut).count_params()
            for shortcut in ("A", "B", "C", None)
        }
        narrow, wide = (8, 16) if block == "basic" else (32, 64)

        def projection(channels, filters):
            return channels * filters + 4 * filters

        changing = projection(narrow, wide)
        if block == "bottleneck":
            changing += projection(8, narrow)
            same = projection(narrow, narrow) + projection(wide, wide)
        else:
            same = 2 * projection(narrow, narrow) + projection(wide, wide)
        assert counts[None] == counts["A"]
        assert counts["B"] - counts["A"] == changing
        assert counts["C"] - counts["B"] == same

    def test_of_zeros_have_no_weights(self):
        net = small(shortcut="A")
        shortcuts = [layer for layer in net.layers if re.search(r"_block\d_0_", layer.name)]
        assert len(shortcuts) == 2
        assert not any(layer.weights for layer in shortcuts)

    def test_are_absent_from_the_plain_net(self):
        assert not layers_of(small(shortcut=None), keras.layers.Add)
        assert len(layers_of(small(shortcut="A"), keras.layers.Add)) == 4

    @pytest.mark.parametrize("block", ["basic", "bottleneck"])
    def test_a_plain_block_is_the_residual_of_a_block_with_one(self, block):
        plain, residual = (randomize(small(block, shortcut=name)) for name in (None, "A"))
        plain.set_weights(residual.get_weights())
        index = 2 if block == "basic" else 3
        inputs = residual.get_layer("pool1_pool").output
        last = residual.get_layer(f"conv2_block1_{index}_bn").output
        images = numbers((2, *inputs.shape[1:]))
        expected = np.maximum(keras.Model(inputs, last)(images), 0)
        plain_block = keras.Model(
            plain.get_layer("pool1_pool").output, plain.get_layer("conv2_block1_out").output
        )
        np.testing.assert_array_equal(plain_block(images), expected)


class TestStride:
    def test_in_the_1x1_is_that_of_keras_applications(self):
        theirs = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
        ours = keras_resnet.ResNet50(
            weights=None, input_shape=(64, 64, 3), stride_in="1x1", classifier_activation="softmax"
        )
        strides = [
            {name: layer.strides for name, layer in convolutions(net).items()}
            for net in (ours, theirs)
        ]
        assert strides[0] == strides[1]
        assert list(strides[0].values()).count((2, 2)) == 7

        randomize(theirs)
        for name, layer in convolutions(theirs).items():
            ours.get_layer(name).kernel.assign(layer.kernel)
            # A bias in front of a BatchNormalization is a shift of its mean.
            our_normalization = ours.get_layer(name.replace("_conv", "_bn"))
            gamma, beta, mean, variance = theirs.get_layer(our_normalization.name).get_weights()
            if name.endswith("_3_conv"):
                gamma *= 0.1
                theirs.get_layer(our_normalization.name).gamma.assign(gamma)
            mean -= np.asarray(layer.bias)
            variance += 1.001e-5 - 1e-5
            our_normalization.set_weights([gamma, beta, mean, variance])
        ours.get_layer("predictions").set_weights(theirs.get_layer("predictions").get_weights())
        images = numbers((2, 64, 64, 3))
        expected = np.asarray(theirs(images))
        assert expected.max() > 2 * expected.min()
        np.testing.assert_allclose(ours(images), expected, rtol=1e-4)

    def test_is_in_the_3x3_by_default(self):
        strided = {name for name, layer in convolutions(small()).items() if layer.strides != (1, 1)}
        assert strided == {"conv1_conv", "conv3_block1_0_conv", "conv3_block1_2_conv"}

    def test_in_the_1x1_moves_there(self):
        net = small(stride_in="1x1")
        strided = {name for name, layer in convolutions(net).items() if layer.strides != (1, 1)}
        assert strided == {"conv1_conv", "conv3_block1_0_conv", "conv3_block1_1_conv"}


class TestStem:
    def test_of_imagenet_quarters_the_image(self):
        net = small()
        kernel, strides = (
            net.get_layer("conv1_conv").kernel.shape,
            net.get_layer("conv1_conv").strides,
        )
        assert (kernel, strides) == ((7, 7, 3, 8), (2, 2))
        assert net.get_layer("pool1_pool").output.shape == (None, 8, 8, 8)

    def test_of_cifar_keeps_its_size(self):
        net = small(stem="cifar")
        kernel, strides = (
            net.get_layer("conv1_conv").kernel.shape,
            net.get_layer("conv1_conv").strides,
        )
        assert (kernel, strides) == ((3, 3, 3, 8), (1, 1))
        assert net.get_layer("conv1_relu").output.shape == (None, 32, 32, 8)
        assert not layers_of(net, keras.layers.MaxPooling2D)


class TestPreprocessing:
    @pytest.mark.parametrize(("channels", "mode"), [(3, "torch"), (1, "tf"), (4, "tf")])
    def test_inside_equals_preprocessing_outside(self, channels, mode):
        shape = (32, 32, channels)
        inside = randomize(small(include_preprocessing=True, input_shape=shape))
        outside = small(input_shape=shape)
        outside.set_weights(inside.get_weights())
        images = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype("uint8")
        expected = keras.applications.imagenet_utils.preprocess_input(
            images.astype("float32"), mode=mode
        )
        np.testing.assert_allclose(keras_resnet.preprocess_input(images, mode), expected, atol=1e-5)
        np.testing.assert_allclose(inside(images), outside(expected), rtol=1e-4)
        np.testing.assert_array_equal(
            inside(images), outside(keras_resnet.preprocess_input(images, mode))
        )

    def test_loses_no_shade_under_mixed_precision(self):
        with dtype_policy("mixed_bfloat16"):
            net = small(include_preprocessing=True)
        preprocessed = keras.Model(net.input, net.get_layer("preprocessing").output)
        images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
        np.testing.assert_array_equal(
            preprocessed(images), keras_resnet.preprocess_input(images, "torch")
        )


class TestZeroInitResidual:
    @pytest.mark.parametrize(("block", "last"), [("basic", 2), ("bottleneck", 3)])
    def test_zeroes_the_last_gamma_of_every_block_and_no_other(self, block, last):
        normalizations = layers_of(
            small(block, zero_init_residual=True), keras.layers.BatchNormalization
        )
        zeros = {name for name, layer in normalizations.items() if not np.any(layer.gamma)}
        ones = {name for name, layer in normalizations.items() if np.all(layer.gamma == 1)}
        assert zeros == {
            f"conv{stage}_block{index}_{last}_bn" for stage in (2, 3) for index in (1, 2)
        }
        assert ones == normalizations.keys() - zeros
        fresh = layers_of(small(block), keras.layers.BatchNormalization)
        assert all(np.all(layer.gamma == 1) for layer in fresh.values())


@pytest.mark.parametrize(
    ("policy", "dtype"), [("float64", "float64"), ("mixed_bfloat16", "float32")]
)
def test_probabilities_are_at_least_float32(policy, dtype):
    with dtype_policy(policy):
        net = small()
    assert net(numbers((1, 32, 32, 3))).dtype == dtype


def test_images_of_wrong_channels_are_refused_in_one_line():
    with one_line_error("mode='torch' needs RGB images", "shape (2, 2, 4)", "pass the model"):
        keras_resnet.preprocess_input(np.zeros((2, 2, 4)))


def test_numbers_may_be_those_of_numpy():
    net = small(
        block_counts=np.array([1, 1]),
        filters=np.array([8, 16]),
        classes=np.int64(3),
        cardinality=np.int32(2),
        base_width=np.int64(64),
        input_shape=np.array([32, 32, 3]),
    )
    assert net.output_shape == (None, 3)
    assert keras.models.model_from_json(net.to_json()).count_params() == net.count_params()


class TestWidths:
    @pytest.mark.parametrize(
        ("cardinality", "base_width", "widths"),
        [(1, 64, (64, 128)), (32, 4, (128, 256)), (32, 8, (256, 512)), (1, 128, (128, 256))],
    )
    def test_follow_cardinality_and_base_width(self, cardinality, base_width, widths):
        net = resnet(
            (1, 1),
            filters=(64, 128),
            cardinality=cardinality,
            base_width=base_width,
            input_shape=(32, 32, 3),
        )
        into = (64, 256)
        for stage, (width, channels) in enumerate(zip(widths, into, strict=True), start=2):
            first, second, third = (
                net.get_layer(f"conv{stage}_block1_{index}_conv") for index in (1, 2, 3)
            )
            assert first.kernel.shape == (1, 1, channels, width)
            assert second.kernel.shape == (3, 3, width // cardinality, width)
            assert second.groups == cardinality
            assert third.kernel.shape == (1, 1, width, 64 * 2**stage)


class TestInitialization:
    def test_is_that_of_he_over_the_fan_out(self):
        net = resnet(
            (2, 1), filters=(64, 128), cardinality=8, base_width=32, input_shape=(32, 32, 3)
        )
        for name, layer in convolutions(net).items():
            kernel = np.asarray(layer.kernel)
            height, width, _, filters = kernel.shape
            deviation = np.sqrt(2 / (height * width * filters))
            # Five standard errors of a standard deviation.
            tolerance = 5 / np.sqrt(2 * kernel.size)
            assert tolerance < 0.06
            assert abs(kernel.std() / deviation - 1) < tolerance, name
            assert abs(kernel.mean()) < 5 * deviation / np.sqrt(kernel.size), name
            assert np.abs(kernel).max() > 3 * deviation, "the tails are cut"
            assert not layer.use_bias

    @pytest.mark.parametrize("block", ["basic", "bottleneck"])
    def test_differs_from_layer_to_layer(self, block):
        kernels = [np.asarray(layer.kernel) for layer in convolutions(small(block)).values()]
        alike = [
            (one.shape, one.flat[:9])
            for index, one in enumerate(kernels)
            for other in kernels[:index]
            if one.shape == other.shape and np.corrcoef(one.flat, other.flat)[0, 1] > 0.5
        ]
        assert not alike
        assert len({kernel.shape for kernel in kernels}) < len(kernels)

    def test_follows_the_seed(self):
        nets = []
        for seed in (3, 3, 4):
            keras.utils.set_random_seed(seed)
            nets.append(small())
        for one, same, other in zip(*(net.trainable_weights for net in nets), strict=True):
            np.testing.assert_array_equal(one, same)
            assert len(one.shape) == 1 or np.any(np.not_equal(one, other))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a saved ResNeXt and of images, those images, and what the net makes of them."""
    folder = tmp_path_factory.mktemp("saved")
    net = small(cardinality=4, base_width=32, shortcut="A", include_preprocessing=True)
    net.compile(LayerwiseSGD(StepDecay(0.1, [10])), "mse")  # as training leaves it
    randomize(net).save(folder / "net.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.save(folder / "images.npy", images)
    return folder, images, np.asarray(net(images))


LOAD_AND_RUN = """
import sys
import numpy as np
{imports}
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model(np.load(sys.argv[2])))
"""


class TestSaving:
    def test_gives_the_same_bits_in_this_process(self, saved):
        folder, images, expected = saved
        again = keras.saving.load_model(folder / "net.keras")
        np.testing.assert_array_equal(again(images), expected)

    @pytest.mark.parametrize(
        "imports", ["import keras, keras_resnet", "import keras_resnet, keras"]
    )
    def test_gives_the_same_bits_in_another_process(self, saved, imports):
        folder, _, expected = saved
        subprocess.run(
            [sys.executable, "-c", LOAD_AND_RUN.format(imports=imports)]
            + [str(folder / name) for name in ("net.keras", "images.npy", "outputs.npy")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=True,
        )
        np.testing.assert_array_equal(np.load(folder / "outputs.npy"), expected)


class TestBulkBuilding:
    """The builder puts off the creation of variables, and switches the garbage collector off."""

    @pytest.mark.parametrize("enabled", [True, False])
    @pytest.mark.parametrize("options", [{}, {"classes": 0}, {"classifier_activation": print}])
    def test_leaves_the_garbage_collector_as_it_was(self, enabled, options):
        before = gc.isenabled()
        (gc.enable if enabled else gc.disable)()
        try:
            with contextlib.suppress(Exception):
                small(**options)
            assert gc.isenabled() == enabled
        finally:
            (gc.enable if before else gc.disable)()

    def test_gives_the_weights_that_layers_built_one_by_one_have(self):
        def first_layers(x):
            x = blocks.convolution(x, 8, 7, strides=2, name="conv1")
            return blocks.normalization(x, name="conv1_bn")

        keras.utils.set_random_seed(3)
        alone = keras.Model(inputs := keras.Input((32, 32, 3)), first_layers(inputs))
        keras.utils.set_random_seed(3)
        net = small()
        for weight, other in zip(alone.weights, net.weights, strict=False):
            assert weight.path == other.path
            np.testing.assert_array_equal(weight, other)

    def test_a_failed_build_does_not_harm_the_next(self):
        with pytest.raises(ValueError, match="cannot drop channels"):
            small("basic", filters=(16, 8), shortcut="A")  # variables of conv1 exist by now
        assert np.isfinite(small()(numbers((1, 32, 32, 3)))).all()


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "parts"),
        [
            (dict(input_shape=(32, 7, 3)), ["input_shape=(32, 7, 3)", "at least 8"]),
            (
                dict(input_shape=(-32, 32, 3)),
                ["input_shape=(-32, 32, 3)", "(height, width, channels)"],
            ),
            (dict(input_shape=5), ["input_shape=5", "(height, width, channels)"]),
            (dict(input_shape=("a", "b", 3)), ["input_shape=('a', 'b', 3)"]),
            (dict(input_shape=(32, 32, 0)), ["input_shape=(32, 32, 0)"]),
            (dict(input_shape=(32, 32, True)), ["input_shape=(32, 32, True)"]),
            (dict(input_shape=(32.0, 32, 3)), ["input_shape=(32.0, 32, 3)"]),
            (dict(input_shape=(32, 32)), ["input_shape=(32, 32)", "(height, width, channels)"]),
            (dict(input_shape=(32, 32, None)), ["input_shape=(32, 32, None)"]),
            (dict(input_shape=(1, 32, 32, 3)), ["input_shape=(1, 32, 32, 3)"]),
            (dict(shortcut="E"), ["shortcut='E'", "'A', 'B', 'C', 'D', None"]),
            (dict(shortcut="a"), ["shortcut='a'"]),
            (dict(stem="mnist"), ["stem='mnist'", "'imagenet', 'cifar'"]),
            (dict(block="inverted"), ["block='inverted'", "'bottleneck', 'basic'"]),
            (dict(pooling="min"), ["pooling='min'", "None, 'avg', 'max'"]),
            (dict(stride_in="2x2"), ["stride_in='2x2'", "'3x3'", "'1x1'"]),
            (dict(block="basic", stride_in="2x2"), ["stride_in='2x2'"]),
            (dict(block="basic", stride_in="1x1"), ["stride_in='1x1'", "block='bottleneck'"]),
            (dict(base_width=12), ["base_width", "cardinality=1", "1.5 channels"]),
            (dict(cardinality=3, base_width=12), ["cardinality=3", "4.5 channels"]),
            (dict(cardinality=0), ["cardinality=0"]),
            (dict(base_width=-4), ["base_width=-4"]),
            (dict(block="basic", cardinality=2), ["cardinality=2", "block='bottleneck'"]),
            (dict(block="basic", base_width=32), ["base_width=32", "block='bottleneck'"]),
            (dict(classes=0), ["classes=0", "at least 1"]),
            (dict(classes=-1), ["classes=-1"]),
            (dict(classes=True), ["classes=True"]),
            (dict(classes=2.0), ["classes=2.0"]),
            (dict(classes="10"), ["classes='10'"]),
            (dict(block_counts=(2, True)), ["block_counts=True"]),
            (dict(block_counts=(2, 0)), ["block_counts=0"]),
            (dict(block_counts=np.array(3)), ["block_counts=array(3)"]),
            (dict(block_counts=3), ["block_counts=3", "one number for each stage"]),
            (dict(filters=64), ["filters=64", "one number for each stage"]),
            (dict(block_counts=()), ["block_counts=()", "filters=(8, 16)"]),
            (dict(block_counts=(), filters=()), ["block_counts=()", "at least one stage"]),
            (dict(filters=(8, 16, 32)), ["block_counts=(2, 2)", "filters=(8, 16, 32)"]),
            (dict(filters=(8, 16.0)), ["filters=16.0"]),
            (dict(filters=(16, 8), shortcut="A"), ["shortcut='A'", "filters=32"]),
            (dict(shortcut=None, zero_init_residual=True), ["zero_init_residual=True", "shortcut"]),
            (dict(classifier_activation="loud"), ["classifier_activation", "loud"]),
            (dict(input_tensor=np.zeros((1, 32, 32, 3), "float32")), ["input_tensor"]),
        ],
        ids=lambda value: value[0] if isinstance(value, list) else "",
    )
    def test_name_the_argument_what_came_and_what_is_allowed(self, options, parts):
        with one_line_error(*parts):
            small(**options)

    def test_name_an_input_shape_that_contradicts_the_input_tensor(self):
        with one_line_error("input_shape=(32, 32, 3) contradicts input_tensor", "(64, 64, 3)"):
            small(input_tensor=keras.Input((64, 64, 3)))

    @pytest.mark.parametrize("shape", [5, (32, 32), (32, 32, 3, 1)])
    def test_name_an_input_shape_that_is_none_beside_an_input_tensor(self, shape):
        with one_line_error(f"input_shape={shape}", "(height, width, channels)"):
            small(input_tensor=keras.Input((32, 32, 3)), input_shape=shape)

    def test_name_an_input_tensor_of_whole_numbers(self):
        pixels = keras.Input((32, 32, 3), dtype="uint8")
        with one_line_error("input_tensor", "uint8", "include_preprocessing=True"):
            small(input_tensor=pixels, input_shape=None)
        net = small(input_tensor=pixels, input_shape=None, include_preprocessing=True)
        assert net(np.zeros((1, 32, 32, 3), "uint8")).shape == (1, 5)

    def test_name_an_input_tensor_that_is_too_small(self):
        with one_line_error("(7, 32, 3)", "at least 8"):
            small(input_shape=None, input_tensor=keras.Input((7, 32, 3)))

    def test_channels_first_is_refused(self):
        keras.config.set_image_data_format("channels_first")
        try:
            with one_line_error("image_data_format='channels_first'", "set_image_data_format"):
                small()
            with one_line_error("image_data_format='channels_first'", "set_image_data_format"):
                blocks.basic_block(keras.Input((8, 8, 8)), 8, name="block")
        finally:
            keras.config.set_image_data_format("channels_last")


class TestFeaturePyramid:
    def test_holds_every_stage(self):
        net = keras_resnet.ResNet18(weights=None, include_top=False, input_shape=(64, 96, 3))
        pyramid = feature_pyramid(net)
        assert {level: features.shape for level, features in pyramid.items()} == {
            f"C{stage}": (None, 64 // 2**stage, 96 // 2**stage, 16 * 2**stage)
            for stage in range(2, 6)
        }
        assert pyramid["C5"] is net.output

    def test_holds_the_levels_asked_for_in_their_order(self):
        pyramid = feature_pyramid(small(), ["C3", "C1"])
        assert [(level, features.shape[1]) for level, features in pyramid.items()] == [
            ("C3", 4),
            ("C1", 16),
        ]

    def test_gives_the_last_block_of_a_stage_even_of_ten(self):
        net = resnet((11, 1), "basic", (4, 8), input_shape=(16, 16, 3))
        assert feature_pyramid(net)["C2"] is net.get_layer("conv2_block11_out").output

    def test_makes_a_model(self):
        net = randomize(small())
        images = numbers((2, 32, 32, 3))
        outputs = keras.Model(net.input, feature_pyramid(net))(images)
        assert {level: output.shape for level, output in outputs.items()} == {
            "C2": (2, 8, 8, 32),
            "C3": (2, 4, 4, 64),
        }
        kernel, bias = net.get_layer("predictions").get_weights()
        logits = np.mean(outputs["C3"], (1, 2)) @ kernel + bias
        np.testing.assert_allclose(keras.ops.softmax(logits), net(images), rtol=1e-4)

    @pytest.mark.parametrize("levels", [["C4"], ["C2", "P3"], "C2", ["c2"]])
    def test_refuses_levels_that_are_not_there(self, levels):
        with one_line_error(f"levels={levels!r}", "['C1', 'C2', 'C3']"):
            feature_pyramid(small(), levels)

    @pytest.mark.parametrize("levels", [None, ["C2"]])
    def test_refuses_models_that_are_none_of_ours(self, levels):
        inputs = keras.Input((32, 32, 3))
        for model in (
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="foreign"),
            keras.Model(inputs, small()(inputs), name="foreign"),
        ):
            with one_line_error("levels=", "foreign has the levels []"):
                feature_pyramid(model, levels)


class TestDeepGraphs:
    def test_lets_302_layers_be_built(self):
        """Within the stack that is left by a caller 750 calls deep."""
        before = sys.getrecursionlimit()
        limit = len(inspect.stack(0)) + 250
        sys.setrecursionlimit(limit)
        try:
            net = keras_resnet.CIFARResNet(302, input_shape=(4, 4, 3))
            assert sys.getrecursionlimit() == limit
            with pytest.raises(RecursionError):
                keras.Model(net.input, net.output)
        finally:
            sys.setrecursionlimit(before)
        assert len(convolutions(net)) == 301

    def test_restores_the_limit_after_an_error(self):
        limit = sys.getrecursionlimit()
        with contextlib.suppress(KeyError), deep_graphs(7):
            assert sys.getrecursionlimit() == limit + 70
            raise KeyError
        assert sys.getrecursionlimit() == limit

    @pytest.mark.slow
    def test_lets_1202_layers_be_trained_saved_and_loaded(self, tmp_path):
        net = keras_resnet.CIFARResNet(1202)
        images = numbers((2, 32, 32, 3))
        before = np.asarray(net.get_layer("conv1_conv").kernel)
        net.compile("sgd", "sparse_categorical_crossentropy")
        assert np.isfinite(net.train_on_batch(images, np.array([1, 2])))
        assert np.any(before != np.asarray(net.get_layer("conv1_conv").kernel))
        net.save(tmp_path / "net.keras")
        with deep_graphs():
            again = keras.saving.load_model(tmp_path / "net.keras")
        np.testing.assert_array_equal(again(images), net(images))


class TestFewChannels:
    """oneDNN's filter gradient of 1x1 convolutions with a stride spoils memory below 16."""

    def test_are_subsampled_before_the_projection(self):
        net = keras_resnet.ResNet(
            (1, 1, 1), "basic", (8, 16, 32), stem="cifar", input_shape=(15, 16, 3), classes=4
        )
        convolutions = [layer for layer in net.layers if isinstance(layer, keras.layers.Conv2D)]
        strided = [layer for layer in convolutions if layer.strides == (2, 2)]
        assert {(each.kernel_size, each.kernel.shape[2]) for each in strided} == {
            ((3, 3), 8),
            ((3, 3), 16),
            ((1, 1), 16),
        }
