"""A PyTorch state dict into the same net here.

The arrays would come from `torch.load(...)` or from the safetensors library; random ones serve
here, so that the example needs neither. What does not fit is refused before anything is changed.

Prints:

    267 tensors of resnet50 loaded
    state_dict: it lacks tensors that resnet50 needs: layer4.2.conv3.weight.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import keras_resnet
from keras_resnet.pretrained import load_state_dict, state_dict_shapes

model = keras_resnet.ResNet50(weights=None)
random = np.random.default_rng(0)
state_dict = {name: random.random(shape) for name, shape in state_dict_shapes(model).items()}

load_state_dict(model, state_dict)
print(f"{len(state_dict)} tensors of {model.name} loaded")

del state_dict["layer4.2.conv3.weight"]
try:
    load_state_dict(model, state_dict)
except ValueError as error:
    print(error)
