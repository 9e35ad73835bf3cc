"""Size and cost of each stage of a model that is not built."""

from keras_resnet.analysis.complexity import StageComplexity
from keras_resnet.blocks import Convolution
from keras_resnet.resnet import STEMS, Architecture


def planned(
    architecture: Architecture, image_size: tuple[int, int] | None = None, classes: int = 1000
) -> list[StageComplexity]:
    """Count layers, parameters and multiply-adds of a model from its plan, in a millisecond.

    Parameters
    ----------
    architecture : Architecture
        What tells the model apart, such as `zoo.architecture("ResNet50")`.
    image_size : tuple of (height, width), optional
        In pixels. Default: that of the stem.
    classes : int, default 1000
        Outputs of the classifier.

    Returns
    -------
    list of StageComplexity
        What `complexity` counts in the model itself.

    Examples
    --------
    >>> from keras_resnet import zoo
    >>> from keras_resnet.analysis import planned
    >>> stages = planned(zoo.architecture("ResNet18"))
    >>> [stage.layers for stage in stages], round(sum(stage.macs for stage in stages) / 1e9, 2)
    ([1, 4, 4, 4, 4, 1], 1.81)
    """
    size = STEMS[architecture.stem].image_size
    height, width = image_size or (size, size)
    stages = {}
    for each in architecture.convolutions():
        # A convolution at the end of the stem is the first step of conv2, as max-pooling would be.
        name = each.name.replace("pool1", "conv2").partition("_")[0]
        stage = stages.setdefault(name, StageComplexity(name))
        stage.parameters += each.parameters
        stage.macs += each.multiply_adds(height, width)
        if isinstance(each, Convolution) and each.reduction and not each.name.endswith("_0"):
            stage.layers += 1
            sides = (-(-side // each.reduction) for side in (height, width))
            stage.output_shape = (*sides, each.outputs)
    features = architecture.features
    head = StageComplexity("head", (classes,), 1, (features + 1) * classes, features * classes)
    return [*stages.values(), head]
