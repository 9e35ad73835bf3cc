"""Where in an image a model sees what it says.

==============  ===================================================================
`grad_cam`      maps of images for a class, by Grad-CAM, Grad-CAM++ or CAM
`explainer`     a function that makes such maps, for many batches
`Explained`     what it returns: maps, what they explain, and the model's outputs
`overlay`       maps drawn over images
`METHODS`       what makes a map of features and gradients, by name
==============  ===================================================================
"""

from keras_resnet.explain.maps import Explained, explainer, grad_cam
from keras_resnet.explain.methods import METHODS
from keras_resnet.explain.overlays import overlay

__all__ = ["METHODS", "Explained", "explainer", "grad_cam", "overlay"]
