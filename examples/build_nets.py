"""Build ResNets and ResNeXts with one functional builder.

Prints:

    resnext50_32x4d    (None, 1000)          25,028,904 trainable parameters
    resnet26_8x16d     (None, 10)            15,711,050 trainable parameters
    cifar_resnet20     (None, 10)               269,722 trainable parameters
    plain34            (None, 1000)          21,623,848 trainable parameters
    C2 (56, 56, 64)   C3 (28, 28, 128)   C4 (14, 14, 256)   C5 (7, 7, 512)
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_resnet


def describe(model):
    parameters = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
    print(f"{model.name:18} {model.output_shape!s:20} {parameters:11,} trainable parameters")


# Same names as in keras.applications, and models that keras.applications does not have.
describe(keras_resnet.ResNeXt50_32x4d(weights=None))

# Any other ResNet or ResNeXt: blocks per stage, groups, channels per group, image size, ...
describe(
    keras_resnet.ResNet(
        (2, 2, 2, 2),
        cardinality=8,
        base_width=16,
        input_shape=(64, 64, 3),
        classes=10,
        name="resnet26_8x16d",
    )
)

# The small models of the paper, and its plain network: the same layers without shortcuts.
describe(keras_resnet.CIFARResNet(20))
describe(keras_resnet.ResNet34(weights=None, shortcut=None, name="plain34"))

# The output of each stage, for a detector or a segmentation head.
backbone = keras_resnet.ResNet18(weights=None, include_top=False)
pyramid = keras_resnet.feature_pyramid(backbone)
print("   ".join(f"{level} {features.shape[1:]}" for level, features in pyramid.items()))
