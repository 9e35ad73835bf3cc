import keras
import numpy as np
import pytest
from arrays import numbers
from errors import one_line_error

from keras_resnet import blocks
from keras_resnet.resnet import STEMS, Architecture, resnet

KINDS = list(blocks.KINDS)


def built(model):
    """What a plan says of each convolution, read from the layers of a model."""
    return {
        layer.name.removesuffix("_conv"): (
            *layer.kernel.shape,
            layer.groups,
            layer.output.shape[1:3],
        )
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }


def planned(convolutions, height, width):
    """The same, read from the plan."""
    return {
        each.name: (
            *(each.kernel_size, each.kernel_size, each.inputs // each.groups, each.outputs),
            each.groups,
            (-(-height // each.reduction), -(-width // each.reduction)),
        )
        for each in convolutions
    }


class TestPlans:
    @pytest.mark.parametrize("shortcut", blocks.SHORTCUTS)
    @pytest.mark.parametrize(("inputs", "strides"), [(16, 1), (16, 2), (64, 1)])
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_block_are_what_is_built(self, kind, inputs, strides, shortcut):
        kind = blocks.KINDS[kind]
        filters = 64 // kind.expansion
        x = keras.Input((9, 14, inputs))
        model = keras.Model(x, kind.build(x, filters, strides, shortcut=shortcut, name="block"))
        plan = kind.plan(inputs, filters, strides, shortcut=shortcut, name="block")
        assert model.output_shape[-1] == filters * kind.expansion == plan.residual[-1].outputs
        assert planned(plan.convolutions, 9, 14) == built(model)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "options",
        [
            *(dict(shortcut=shortcut) for shortcut in blocks.SHORTCUTS),
            *(dict(stem=stem) for stem in STEMS),
            dict(attention="se", attention_ratio=0.25, drop_path=0.1),
            dict(attention="eca", shortcut="D", stem="tiered"),
            dict(anti_aliasing="average", shortcut="D"),
            dict(anti_aliasing="blur", stem="deep_strided"),
            dict(stem="cifar", output_stride=1),
            dict(stem="cifar", output_stride=2, shortcut="D", anti_aliasing="blur"),
        ],
        ids=str,
    )
    def test_of_a_model_are_what_is_built(self, kind, options):
        own = blocks.KINDS[kind].options
        if "cardinality" in own:
            options = dict(options, cardinality=4, base_width=32, stride_in="1x1")
        if "stride_block" in own and "output_stride" not in options:
            options = dict(options, stride_block="last", biases=True)
        model = resnet((2, 1, 1), kind, (8, 16, 32), input_shape=(33, 46, 2), **options)
        architecture = Architecture((2, 1, 1), kind, (8, 16, 32), **options)
        plan = list(architecture.convolutions(channels=2))
        spatial = [each for each in plan if each.reduction]
        assert planned(spatial, 33, 46) == {
            name: shape for name, shape in built(model).items() if "_se_" not in name
        }
        features = model.layers[-3].output.shape
        assert features[1:] == (
            -(-33 // architecture.total_stride),
            -(-46 // architecture.total_stride),
            architecture.features,
        )
        classifier = (architecture.features + 1) * 1000
        trainable = sum(np.prod(each.shape, dtype=int) for each in model.trainable_weights)
        assert sum(each.parameters for each in plan) + classifier == trainable


class TestConvolution:
    def test_may_be_a_layer_of_another_kind(self):
        class Named(keras.layers.Conv2D):
            pass

        x = keras.Input((8, 8, 3))
        model = keras.Model(x, blocks.convolution(x, 4, 3, strides=2, name="conv1", layer=Named))
        assert isinstance(model.get_layer("conv1_conv"), Named)
        assert model.output_shape == (None, 4, 4, 4)

    def test_is_saved_with_an_initializer_of_keras(self):
        x = keras.Input((8, 8, 3))
        model = keras.Model(x, blocks.convolution(x, 4, 3, name="conv1"))
        config = model.get_layer("conv1_conv").get_config()["kernel_initializer"]
        assert config["class_name"] == "VarianceScaling"
        kernels = [each.layers[-1].kernel for each in (model, keras.models.clone_model(model))]
        assert np.all(np.std(kernels, axis=(1, 2, 3, 4)) > 0)

    @pytest.mark.parametrize("size", [8, 15])
    def test_of_few_channels_is_that_of_a_stride(self, size):
        inputs = keras.Input((size, size, 12))
        ours = keras.Model(inputs, blocks.convolution(inputs, 24, 1, strides=2, name="conv"))
        stock = keras.layers.Conv2D(24, 1, 2, use_bias=False)
        stock.build(inputs.shape)
        stock.set_weights(ours.get_weights())
        image = np.random.default_rng(0).normal(size=(2, size, size, 12)).astype("float32")
        np.testing.assert_allclose(ours(image), stock(image), atol=1e-5)


class TestKinds:
    def test_have_options_of_their_own(self):
        with one_line_error("cardinality=2 needs block='bottleneck' or 'preactivation'", "'basic'"):
            Architecture((1,), "basic", (8,), cardinality=2)
        with one_line_error("biases=True needs block='preactivation' or 'basic_preactivation'"):
            Architecture((1,), "basic", (8,), biases=True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (dict(attention="cbam"), "attention='cbam' must be one of"),
            (dict(attention_ratio=0.25), "attention_ratio=0.25 needs attention='se'"),
            (dict(anti_aliasing=True), "anti_aliasing=True must be one of"),
            (dict(norm="layer"), "norm='layer' must be one of"),
            (dict(output_stride=4), "output_stride=4 must be one of None, 1"),
            (dict(drop_path=1.0), "drop_path=1.0 must"),
            (dict(drop_path=0.1, shortcut=None), "drop_path=0.1 needs a shortcut"),
            (dict(weight_standardization=1), "weight_standardization=1 must be True or False"),
            (dict(weight_standardization=True, cardinality=2), "cardinality=2 must be 1"),
        ],
        ids=lambda each: "" if isinstance(each, dict) else each,
    )
    def test_refuse_options_out_of_their_range(self, options, words):
        with one_line_error(words):
            Architecture((1,), "bottleneck", (8,), stem="cifar", **options)

    def test_take_channels_in_groups(self):
        with one_line_error("norm='group' takes channels in 32 groups: 48 channels", "multiple of"):
            blocks.normalization(keras.Input((8, 8, 48)), norm="group", name="gn")

    def test_are_listed_when_one_is_unknown(self):
        with one_line_error("block='inverted' must be one of", *map(repr, KINDS)):
            Architecture((1,), "inverted", (8,))


both_blocks = pytest.mark.parametrize("block", [blocks.basic_block, blocks.bottleneck_block])


class TestBlocks:
    @pytest.mark.parametrize("training", [False, True])
    @both_blocks
    @pytest.mark.parametrize("strides", [1, 2])
    def test_start_as_their_shortcut(self, block, strides, training):
        x = keras.Input((6, 6, 16))
        filters = 16 if block is blocks.basic_block else 4
        outputs = block(x, filters, strides, zero_init_residual=True, name="block")
        model = keras.Model(x, outputs)
        images = numbers((2, 6, 6, 16))
        if strides == 1:
            shortcut = images
        else:
            projection = keras.Model(x, model.get_layer("block_0_bn").output)
            shortcut = np.asarray(projection(images, training=training))
        assert np.any(shortcut > 0)
        outputs = model(images, training=training)
        np.testing.assert_allclose(outputs, np.maximum(shortcut, 0), atol=1e-6)

    @both_blocks
    def test_take_numbers_of_numpy(self, block):
        x = keras.Input((8, 8, 16))
        model = keras.Model(x, block(x, np.int64(4), np.int64(2), name="block"))
        assert model.output_shape[1:3] == (4, 4)
        assert keras.models.model_from_json(model.to_json()).count_params() == model.count_params()

    @both_blocks
    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (dict(filters=0), "filters=0"),
            (dict(strides=0), "strides=0"),
            (dict(strides=True), "strides=True"),
            (dict(shortcut="E"), "shortcut='E'"),
            (dict(shortcut=None, zero_init_residual=True), "zero_init_residual=True"),
        ],
        ids=str,
    )
    def test_name_a_wrong_argument(self, block, options, part):
        with one_line_error(part):
            block(keras.Input((8, 8, 8)), **{"filters": 8, "name": "block", **options})
