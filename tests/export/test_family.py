"""Named models of every kind: exported, verified, and loaded as TensorFlow Serving loads them."""

import pytest
from serving import needs_switch, serve_without_xla

import keras_resnet
from keras_resnet import export, zoo

CIFAR_DEPTHS = [depth for depth in zoo.CIFAR_DEPTHS if depth < 1202]
NETS = [
    *("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
    *("ResNeXt50_32x4d", "ResNeXt101_32x8d", "ResNeXt101_64x4d"),
    *("WideResNet50_2", "WideResNet101_2"),
    *("ResNet50D", "ResNetAA50D", "ResNetBlur50", "ResNetRS50", "ResNet50_GN"),
    *("SEResNet50", "SEResNeXt26T_32x4d", "ECAResNet50D"),
    *("ResNet50V2", "ResNetV2_50D", "ResNetV2_50x1_BiT"),
    *(f"CIFARResNet{depth}" for depth in CIFAR_DEPTHS),
]


@pytest.mark.slow
@needs_switch
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NETS)
def test_named_net(name, precision, tmp_path):
    # Fresh weights, but with blocks that start small: numbers of 152 layers would grow too large.
    net = zoo.builder(name)(weights=None, zero_init_residual=True, include_preprocessing=True)
    exported = export.saved_model(net, tmp_path / name, precision=precision)
    # With pre-activation, most normalizations see sums.
    assert all(each.endswith(("preact_bn", "post_bn")) for each in exported.card["not_folded"])
    assert exported.verification.largest_difference < (1e-5 if precision == "float32" else 0.1)
    process = serve_without_xla(exported.path, tmp_path / "outputs.npz")
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_depth_1202(tmp_path):
    net = keras_resnet.CIFARResNet(1202, zero_init_residual=True)
    exported = export.saved_model(net, tmp_path)
    assert exported.verification.largest_difference < 1e-5
