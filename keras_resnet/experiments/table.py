"""The experiments, by name."""

import importlib
from typing import TYPE_CHECKING

from keras_resnet import names

if TYPE_CHECKING:  # the names are known without TensorFlow
    from keras_resnet.experiments.experiment import Experiment

EXPERIMENTS = {
    "degradation": "Deeper plain models train worse; residual models do not.",
    "shortcuts": "Shortcuts of the kinds A, B and C, and none at all.",
    "bottleneck": "Bottleneck blocks against basic ones, at equal cost.",
    "responses": "Layers of residual models respond weakly, deeper ones more so.",
    "gradients": "Gradients of deep plain models are noise; shortcuts prevent it.",
    "batch-norm": "With and without BatchNormalization, and mistakes made with it.",
    "one-by-one": "A 1x1 convolution is a dense layer applied to every pixel.",
    "cardinality": "More groups of fewer channels, at equal cost.",
    "paths": "Residual models without one of their blocks, or with two swapped.",
}
"""What each experiment is about, in the order in which a reader of the papers meets them. Each is
the module `keras_resnet.experiments.NAME`, with "_" for "-"."""


def find(name: str) -> "Experiment":
    """Look an experiment up.

    Parameters
    ----------
    name : str
        A key of `EXPERIMENTS`.

    Returns
    -------
    Experiment

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from keras_resnet.experiments import find
    >>> find("degradation").takes_data
    True
    """
    module = names.find("experiment", name, EXPERIMENTS).replace("-", "_")
    return importlib.import_module(f"keras_resnet.experiments.{module}").EXPERIMENT
