"""Save and load PyTorch weights without PyTorch.

Writes its own file, so that it needs no download; `.pth` and `.safetensors` files from torchvision
or timm load the same way. Weights that do not fit raise an error before anything changes.

Prints:

    122 tensors written; fc.weight has shape (1000, 512)
    Same weights: True
    Backbone: 11,186,112 parameters
    New head: (None, 5)
    weights='resnet18.safetensors': missing tensors that resnet34 needs: layer1.2.bn1.bias, \
layer1.2.bn1.running_mean, layer1.2.bn1.running_var and 77 more. The tensors look like a model \
with 18 layers; resnet34 has 34.
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
    print(f"{len(state_dict)} tensors written; fc.weight has shape {shape}")

    same = keras_resnet.ResNet18(weights="resnet18.safetensors")
    print("Same weights:", all(map(np.array_equal, same.get_weights(), net.get_weights())))

    backbone = keras_resnet.ResNet18(weights="resnet18.safetensors", include_top=False)
    print(f"Backbone: {backbone.count_params():,} parameters")

    classifier = keras_resnet.ResNet18(weights="resnet18.safetensors", classes=5)
    print("New head:", classifier.output_shape)

    try:
        keras_resnet.ResNet34(weights="resnet18.safetensors")
    except ValueError as error:
        print(error)
