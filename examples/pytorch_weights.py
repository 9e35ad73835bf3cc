"""Weights from PyTorch and back, without PyTorch.

A file from torchvision or timm, `.pth` or `.safetensors`, would be loaded the same way; one written
here serves, so that the example needs no download. What does not fit is refused before anything is
changed.

Prints:

    122 tensors written, fc.weight (1000, 512) the largest of the head
    The same weights: True
    A backbone of 11,186,112 parameters
    A fresh head: (None, 5)
    weights='resnet18.safetensors': it lacks tensors that resnet34 needs: layer1.2.bn1.bias, \
layer1.2.bn1.running_mean, layer1.2.bn1.running_var and 77 more. It looks like a net of 18 layers; \
resnet34 has 34.
"""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_resnet

net = keras_resnet.ResNet18(weights=None)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    state_dict = keras_resnet.pretrained.to_torch(net, "resnet18.safetensors")
    shape = state_dict["fc.weight"].shape
    print(f"{len(state_dict)} tensors written, fc.weight {shape} the largest of the head")

    same = keras_resnet.ResNet18(weights="resnet18.safetensors")
    print("The same weights:", all(map(np.array_equal, same.get_weights(), net.get_weights())))

    backbone = keras_resnet.ResNet18(weights="resnet18.safetensors", include_top=False)
    print(f"A backbone of {backbone.count_params():,} parameters")

    classifier = keras_resnet.ResNet18(weights="resnet18.safetensors", classes=5)
    print("A fresh head:", classifier.output_shape)

    try:
        keras_resnet.ResNet34(weights="resnet18.safetensors")
    except ValueError as error:
        print(error)
