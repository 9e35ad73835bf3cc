import dataclasses

import keras
import pytest
from errors import one_line_error
from keras import layers
from test_zoo import PUBLISHED

import keras_resnet
from keras_resnet import blocks, zoo
from keras_resnet.analysis import compare, complexity, planned, total
from keras_resnet.initialization import kernels_to_be_loaded


@pytest.mark.parametrize("name", ["ResNet18", "ResNet101", "ResNeXt50_32x4d"])
def test_totals_are_the_published_ones(name):
    model = zoo.builder(name)(weights=None)
    stages = complexity(model)
    assert sum(stage.macs for stage in stages) / 1e9 == pytest.approx(PUBLISHED[name][2], abs=0.006)
    assert sum(stage.parameters for stage in stages) == sum(
        weight.value.shape.num_elements() for weight in model.trainable_weights
    )
    assert str(sum(stage.layers for stage in stages)) in name


# Multiply-adds of timm 1.0's models for 224 pixels, counted by hooks on all convolutions and linear
# layers, and their parameters; with what the builder is told, if it is not the name alone.
TIMM = {
    "ResNet50D": (4328824832, 25576264, {}),
    "SEResNet50": (4091699200, 28088024, {}),
    "ECAResNet50D": (4328912640, 25576350, {}),
    "ResNetAA50D": (5369274368, 25576264, {}),
    "ResNetBlur50": (5129633792, 25557032, {}),
    "ResNetV2_50": (4089184256, 25549352, {}),
    "ResNetV2_50x1_BiT": (4089184256, 25549352, {}),
    "ResNet50_GN": (4089184256, 25557032, {}),
    "ResNetRS50": (4454490112, 35691912, {}),
    "SEResNeXt26T_32x4d": (2680129536, 16806976, {}),
    "ResNeXt50_32x4d": (18705252352, 25028904, {"output_stride": 8}),
    "ResNet50": (6208618496, 25557032, {"output_stride": 16}),
}


@pytest.mark.parametrize("name", TIMM)
def test_totals_are_those_of_timm(name):
    macs, parameters, options = TIMM[name]
    with kernels_to_be_loaded():
        model = zoo.builder(name)(weights=None, input_shape=(224, 224, 3), **options)
    stages = complexity(model)
    assert sum(stage.macs for stage in stages) == macs
    assert sum(stage.parameters for stage in stages) == parameters


@pytest.mark.parametrize("attention", [None, "se", "eca"])
@pytest.mark.parametrize("shortcut", ["B", "D"])
def test_neither_attention_nor_shortcuts_make_a_model_deeper(attention, shortcut):
    model = keras_resnet.ResNet(
        *((2, 1), "basic", (8, 16)),
        attention=attention,
        shortcut=shortcut,
        anti_aliasing="blur",
        input_shape=(32, 32, 3),
        classes=3,
    )
    assert [stage.layers for stage in complexity(model)] == [1, 4, 2, 1]


@pytest.mark.parametrize(
    "name",
    ["SEResNet18", "ECAResNet26T", "ResNetRS50", "ResNetV2_18D", "ResNet50V2", "ResNetBlur18"],
)
def test_a_plan_is_what_is_built(name):
    with kernels_to_be_loaded():
        model = zoo.builder(name)(weights=None)
    assert planned(zoo.architecture(name)) == complexity(model)


def test_a_plan_is_of_any_size():
    plan = planned(zoo.architecture("CIFARResNetV2_20"), (33, 46), classes=7)
    assert plan == complexity(keras_resnet.CIFARResNetV2(20, input_shape=(33, 46, 3), classes=7))


def test_resnet34_is_that_of_the_paper():
    stages = complexity(keras_resnet.ResNet34(weights=None))
    assert [stage.name for stage in stages] == ["conv1", "conv2", "conv3", "conv4", "conv5", "head"]
    assert [stage.output_shape[0] for stage in stages] == [112, 56, 28, 14, 7, 1000]
    assert [stage.layers for stage in stages] == [1, 6, 8, 12, 6, 1]
    # Table 1 of the paper: 3.6 billion multiply-adds.
    assert sum(stage.macs for stage in stages) == pytest.approx(3.6e9, rel=0.02)


def test_multiply_adds_grow_with_the_image_and_shrink_with_the_groups():
    def macs(size, cardinality):
        net = keras_resnet.ResNet(
            (1,), filters=(64,), cardinality=cardinality, base_width=64 // cardinality,
            input_shape=(size, size, 3), include_top=False,
        )  # fmt: skip
        return [stage.macs for stage in complexity(net)]

    assert macs(64, 1) == [4 * count for count in macs(32, 1)]
    # Of 64 x 64 + 9 x 64 x 64 / groups + 64 x 256 + 64 x 256 products at every pixel.
    assert macs(32, 1)[1] - macs(32, 8)[1] == 8 * 8 * 9 * 64 * 64 * 7 // 8


def test_an_unknown_image_size_is_refused():
    net = keras_resnet.CIFARResNet(8, input_shape=(None, None, 3))
    with pytest.raises(ValueError, match="multiply-adds depend on the image size"):
        complexity(net)


def test_other_models_are_one_head():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    (stage,) = complexity(model)
    assert (stage.name, stage.macs, stage.parameters, stage.layers) == ("head", 15, 20, 1)


@pytest.mark.parametrize("model", [keras.Sequential([keras.layers.Dense(2)]), "resnet50"])
def test_what_is_no_graph_is_refused(model):
    with pytest.raises(ValueError, match="only a functional model"):
        complexity(model)


def test_a_net_inside_a_model_is_to_be_asked_itself():
    net = keras_resnet.CIFARResNet(8)
    model = keras.Sequential([keras.Input((32, 32, 3)), net])
    with pytest.raises(ValueError, match="contains the model cifar_resnet8"):
        complexity(model)


KINDS = {
    # On 6 x 8 pixels of 4 channels: products for each, and positions.
    "plain": (layers.Conv2D(10, 3, padding="same"), 3 * 3 * 4 * 10 * 6 * 8),
    "strided": (layers.Conv2D(10, 3, strides=2, padding="same"), 3 * 3 * 4 * 10 * 3 * 4),
    "grouped": (layers.Conv2D(10, 3, padding="same", groups=2), 3 * 3 * 2 * 10 * 6 * 8),
    "depthwise": (
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        3 * 3 * 4 * 2 * 6 * 8,
    ),
    "separable": (
        layers.SeparableConv2D(10, 3, strides=2, padding="same"),
        (3 * 3 * 4 + 4 * 10) * 3 * 4,
    ),
    # Each pixel that comes in goes through the whole kernel.
    "transposed": (
        layers.Conv2DTranspose(10, 3, strides=2, padding="same"),
        3 * 3 * 4 * 10 * 6 * 8,
    ),
    "channels first": (layers.Conv2D(10, 3, data_format="channels_first"), 3 * 3 * 6 * 10 * 6 * 2),
    "dense": (layers.Dense(10), 4 * 10 * 6 * 8),
    "normalization": (layers.BatchNormalization(), 0),
    "activation": (layers.PReLU(), 0),
}


@pytest.mark.parametrize(("layer", "macs"), KINDS.values(), ids=KINDS)
def test_every_kind_of_convolution_counts(layer, macs):
    inputs = keras.Input((6, 8, 4))
    (stage,) = complexity(keras.Model(inputs, layer(inputs)))
    assert (stage.macs, stage.layers) == (macs, int(macs > 0))


def test_a_layer_counts_each_time_that_it_is_called():
    layer, inputs = layers.Conv2D(4, 1), keras.Input((6, 8, 4))
    layer(inputs)  # for another model
    (stage,) = complexity(keras.Model(inputs, layer(layer(inputs))))
    assert (stage.macs, stage.parameters) == (2 * 4 * 4 * 6 * 8, 4 * 4 + 4)


def test_what_is_not_known_is_refused():
    inputs = keras.Input((6, 8, 4))
    model = keras.Model(inputs, layers.EinsumDense("abcd,de->abce", (6, 8, 5))(inputs))
    with one_line_error("the multiply-adds of EinsumDense are not known"):
        complexity(model)


def test_of_mobilenet_are_the_published_ones():
    """569 million multiply-adds, most of them of depthwise and pointwise convolutions."""
    model = keras.applications.MobileNet(weights=None)
    assert sum(stage.macs for stage in complexity(model)) / 1e6 == pytest.approx(569, abs=1)


@pytest.fixture(scope="module")
def vgg19():
    return complexity(keras.applications.VGG19(weights=None))


def test_of_vgg19_are_those_of_the_paper(vgg19):
    """Layers as the paper of VGG counts them; 19.6 billion multiply-adds in that of ResNet."""
    assert [stage.name for stage in vgg19] == [
        *(f"block{number}" for number in range(1, 6)),
        "head",
    ]
    assert [stage.layers for stage in vgg19] == [2, 2, 4, 4, 4, 3]
    assert [stage.output_shape[0] for stage in vgg19] == [112, 56, 28, 14, 7, 1000]
    assert total(vgg19).parameters == 143_667_240
    assert total(vgg19).macs == 19_632_062_464
    # Block by block: 9 x inputs x outputs for every pixel.
    assert vgg19[0].macs == 224 * 224 * 9 * (3 * 64 + 64 * 64)
    assert vgg19[4].macs == 14 * 14 * 9 * 512 * 512 * 4
    assert vgg19[5].macs == 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000


def test_of_resnet34_are_18_percent_of_vgg19(vgg19):
    """The paper's 3.6 / 19.6 is 18.4 %; ours are 3.66 with projections, and 3.64 without."""
    architecture = zoo.architecture("ResNet34")
    without = total(planned(dataclasses.replace(architecture, shortcut="A"))).macs
    fractions = [each / total(vgg19).macs for each in (without, total(planned(architecture)).macs)]
    assert [round(fraction, 4) for fraction in fractions] == [0.1856, 0.1866]


def test_models_are_compared_where_their_maps_are_of_a_size(vgg19):
    stages = planned(zoo.architecture("ResNet34"))
    rows = compare(stages, vgg19)
    assert [each.output_size for each in rows] == [
        *((side, side) for side in (112, 56, 28, 14, 7)),
        (),
    ]
    assert [each.stage.name for each in rows] == [stage.name for stage in stages]
    assert [each.other.name for each in rows] == [stage.name for stage in vgg19]
    assert rows[1].fraction == 0.25  # 6 of 9 x 64 x 64, against 1 and 1 of twice and four times it
    assert sum(each.stage.macs for each in rows) == total(stages).macs


def test_what_only_one_model_has_is_compared_with_nothing():
    cifar = planned(zoo.architecture("CIFARResNet8"), (224, 224))
    (first, *_, head) = compare(cifar, planned(zoo.architecture("ResNet18")))
    assert (first.output_size, first.stage.name, first.other) == ((224, 224), "conv1, conv2", None)
    assert first.fraction is None
    assert head.fraction == 64 * 1000 / (512 * 1000)


def test_resnet101_has_101_layers():
    """1 + 33 x 3 + 1."""
    layers = [stage.layers for stage in planned(zoo.architecture("ResNet101"))]
    assert (layers[0], sum(layers[1:-1]), layers[-1]) == (1, 33 * 3, 1)
    assert total(planned(zoo.architecture("ResNet101"))).layers == 101


def test_a_bottleneck_has_a_seventeenth_of_the_parameters():
    narrow = sum(each.weights for each in blocks.bottleneck_plan(256, 64, name="narrow").residual)
    wide = sum(each.weights for each in blocks.basic_plan(256, 256, name="wide").residual)
    assert (narrow, wide) == (69_632, 1_179_648)
    assert round(wide / narrow, 2) == 16.94


@pytest.mark.parametrize(
    ("build", "names", "macs"),
    [
        # Published: 0.3 and 0.39 billion, with what is added to a convolution.
        ("MobileNetV2", ["stride 2", "stride 4", "stride 8", "stride 16", "stride 32"], 0.3),
        ("EfficientNetB0", ["stem", *(f"block{number}" for number in range(1, 8))], 0.39),
        ("DenseNet121", ["conv1", "conv2", "conv3", "conv4", "conv5"], 2.83),
        ("ResNet50V2", ["conv1", "conv2", "conv3", "conv4", "conv5"], 3.48),
    ],
)
@pytest.mark.slow
def test_other_models_have_stages(build, names, macs):
    stages = complexity(getattr(keras.applications, build)(weights=None))
    assert [stage.name for stage in stages] == [*names, "head"]
    assert total(stages).macs / 1e9 == pytest.approx(macs, abs=0.006)
    sides = [stage.output_shape[0] for stage in stages[:-1]]
    assert sides == sorted(sides, reverse=True)
