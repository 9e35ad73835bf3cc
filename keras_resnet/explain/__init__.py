"""Where in an image a model sees what it predicts.

================  ===================================================================
`grad_cam`        maps of images for a class, by Grad-CAM and its relatives
`Explainer`       makes such maps for many batches
`Explained`       what it returns: maps, what they explain, and the model's outputs
`box_maps`        maps of the objects that a detector finds, one for each box
`BoxExplainer`    makes such maps for many images
`ExplainedBoxes`  what it returns: maps, boxes, and the regions that they were found in
`overlay`         maps drawn over images
`METHODS`         what turns features and gradients into maps, by name
================  ===================================================================
"""

from keras_resnet.explain.boxes import BoxExplainer, ExplainedBoxes, box_maps
from keras_resnet.explain.maps import Explained, Explainer, grad_cam
from keras_resnet.explain.methods import METHODS
from keras_resnet.explain.overlays import overlay

__all__ = [
    "METHODS",
    "BoxExplainer",
    "Explained",
    "ExplainedBoxes",
    "Explainer",
    "box_maps",
    "grad_cam",
    "overlay",
]
