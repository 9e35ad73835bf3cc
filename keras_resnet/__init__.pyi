from . import (
    analysis,
    blocks,
    data,
    detection,
    export,
    layers,
    pretrained,
    runs,
    training,
    transfer,
    tuning,
    zoo,
)
from .preprocessing import decode_predictions, preprocess_input
from .pretrained import list_weights
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
    "decode_predictions",
    "detection",
    "export",
    "feature_pyramid",
    "layers",
    "list_weights",
    "preprocess_input",
    "pretrained",
    "runs",
    "training",
    "transfer",
    "tuning",
    "zoo",
]
