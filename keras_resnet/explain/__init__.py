"""Where in an image a model sees what it says.

==============  ===================================================================
`grad_cam`      maps of images for a class, by Grad-CAM, Grad-CAM++ or CAM
`Explainer`     makes such maps of many batches
`Explained`     what it returns: maps, what they explain, and the model's outputs
`overlay`       maps drawn over images
`METHODS`       what makes a map of features and gradients, by name
==============  ===================================================================
"""

from keras_resnet.explain.maps import Explained, Explainer, grad_cam
from keras_resnet.explain.methods import METHODS
from keras_resnet.explain.overlays import overlay

__all__ = ["METHODS", "Explained", "Explainer", "grad_cam", "overlay"]
