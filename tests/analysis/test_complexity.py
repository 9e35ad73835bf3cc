import keras
import pytest
from test_zoo import PUBLISHED

import keras_resnet
from keras_resnet import zoo
from keras_resnet.analysis import complexity


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_the_published_ones(name):
    model = zoo.builder(name)(weights=None)
    stages = complexity(model)
    assert sum(stage.macs for stage in stages) / 1e9 == pytest.approx(PUBLISHED[name][2], abs=0.006)
    assert sum(stage.parameters for stage in stages) == sum(
        weight.value.shape.num_elements() for weight in model.trainable_weights
    )
    assert str(sum(stage.layers for stage in stages)) in name


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


def test_a_net_inside_a_model_is_to_be_asked_itself():
    net = keras_resnet.CIFARResNet(8)
    model = keras.Sequential([keras.Input((32, 32, 3)), net])
    with pytest.raises(ValueError, match="contains the model cifar_resnet8"):
        complexity(model)
