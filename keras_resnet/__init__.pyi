from . import analysis, blocks, data, export, layers, pretrained, training, zoo
from .preprocessing import preprocess_input
from .resnet import feature_pyramid
from .zoo import (
    CIFARResNet,
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
    ResNeXt50_32x4d,
    ResNeXt101_32x8d,
    ResNeXt101_64x4d,
    WideResNet50_2,
    WideResNet101_2,
)

__version__: str

__all__ = [
    "CIFARResNet",
    "ResNeXt50_32x4d",
    "ResNeXt101_32x8d",
    "ResNeXt101_64x4d",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "WideResNet50_2",
    "WideResNet101_2",
    "analysis",
    "blocks",
    "data",
    "export",
    "feature_pyramid",
    "layers",
    "preprocess_input",
    "pretrained",
    "training",
    "zoo",
]
